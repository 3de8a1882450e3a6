/** Mappable areas of a function's BARs, as its driver has them mapped: each once, when it is asked for. */
import { SharedMapping } from '../../os/mapping.ts';

/** A piece of a BAR, and where in its file it begins. All in bytes, multiples of the page size. */
export interface MappedArea {
  readonly offset: number;
  readonly bytes: number;
  readonly fd: number;
  readonly fdOffset: number;
}

interface Window {
  readonly offset: number;
  readonly mapping: SharedMapping;
  readonly words: Uint32Array;
}

export class BarWindows {
  readonly #windows = new Map<number, readonly Window[]>();
  readonly #withAreas: (
    bar: number,
    map: (areas: readonly MappedArea[]) => readonly Window[],
  ) => readonly Window[];

  /**
   * @param withAreas calls `map` once with the areas of a BAR, whose descriptors are open meanwhile, and
   * returns what it returns
   */
  constructor(withAreas: <T>(bar: number, map: (areas: readonly MappedArea[]) => T) => T) {
    this.#withAreas = withAreas;
  }

  /** Words from `offset` of the BAR on; undefined if not all of `bytes` bytes are in one mappable area. */
  find(bar: number, offset: number, bytes: number): Uint32Array | undefined {
    let windows = this.#windows.get(bar);
    if (windows === undefined) {
      windows = this.#withAreas(bar, (areas) => mapAll(areas));
      this.#windows.set(bar, windows);
    }
    for (const window of windows) {
      const at = offset - window.offset;
      if (at < 0 || at + bytes > window.mapping.length) continue;
      return window.words.subarray(at / 4, (at + bytes) / 4);
    }
    return undefined;
  }

  /** Gives the mappings up; who has kept words sees zeros. */
  release(): void {
    for (const windows of this.#windows.values()) releaseAll(windows);
    this.#windows.clear();
  }
}

function mapAll(areas: readonly MappedArea[]): Window[] {
  const windows: Window[] = [];
  try {
    for (const { offset, bytes, fd, fdOffset } of areas) {
      const mapping = new SharedMapping(fd, bytes, fdOffset);
      windows.push({ offset, mapping, words: new Uint32Array(mapping.buffer) });
    }
  } catch (error) {
    releaseAll(windows);
    throw error;
  }
  return windows;
}

function releaseAll(windows: readonly Window[]): void {
  for (const { mapping } of windows) mapping.release();
}
