/**
 * Descriptors of one turn of a ring: brought to memory of the lane, which all queues of a lane use one
 * after the other, and where each of them lies in the guest's memory.
 */
import { WINDOW_BYTES } from '../../memory/arena.ts';
import type { DataPath } from '../../net/data-path.ts';
import { IXGBE_DESCRIPTOR_BYTES } from '../../spec/ixgbe-descriptors.ts';
import { type DeviceMemory, withinPage } from '../device-memory.ts';
import { WINDOW } from './queue-parts.ts';

const BYTES = IXGBE_DESCRIPTOR_BYTES;
const WORDS = BYTES / 4;
/** So many descriptors are copied word by word: the engine's copy takes longer to begin. */
const FEW = 4;
/** The longest padding of a frame, and a check sequence. */
const ZEROS_BYTES = 64;

/** By lane: while a transmit queue's frames are handed over, receive queues use theirs. */
const transmit = new WeakMap<DataPath, RingWindow>();
const receive = new WeakMap<DataPath, RingWindow>();

export class RingWindow {
  /**
   * I/O virtual address of the ring, or -1, to be set before any of the calls. (An argument of this size
   * would be allocated.)
   */
  readonly base = new Float64Array(1);
  /** The descriptors that {@link load} brought, four words each. */
  readonly words: Uint32Array;
  /** Arena address of each descriptor of the last {@link locate}. */
  readonly where: Float64Array;
  /** Arena addresses of {@link words} and of {@link where}. */
  readonly wordsAt: number;
  readonly whereAt: number;
  /** All that the last {@link locate} found lies in the window of WebAssembly, and so does this. */
  isNear = false;
  /** Descriptors of the last {@link find}: they lie behind one another from `where[0]` on. */
  found = 0;
  /** Arena address of 64 zeros. */
  readonly zerosAt: number;
  readonly #fence = new Int32Array(new SharedArrayBuffer(4));
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #canBeNear: boolean;

  private constructor(path: DataPath) {
    const { arena } = path;
    const wordBytes = WINDOW * BYTES;
    const whereBytes = WINDOW * Float64Array.BYTES_PER_ELEMENT;
    this.wordsAt = arena.allocate(wordBytes + whereBytes + ZEROS_BYTES, 'sluice-ring-window');
    this.whereAt = this.wordsAt + wordBytes;
    this.zerosAt = this.whereAt + whereBytes;
    this.#bytes = arena.bytes;
    this.#view = arena.view;
    this.#canBeNear = this.zerosAt < WINDOW_BYTES;
    this.words = new Uint32Array(arena.buffer, this.wordsAt, wordBytes / 4);
    this.where = new Float64Array(arena.buffer, this.whereAt, WINDOW);
  }

  /** The one of a lane's transmit queues. */
  static ofTransmit(path: DataPath): RingWindow {
    return RingWindow.#of(transmit, path);
  }

  static ofReceive(path: DataPath): RingWindow {
    return RingWindow.#of(receive, path);
  }

  static #of(windows: WeakMap<DataPath, RingWindow>, path: DataPath): RingWindow {
    let window = windows.get(path);
    if (window === undefined) {
      window = new RingWindow(path);
      windows.set(path, window);
    }
    return window;
  }

  /** What was read and written before is over before anything that follows. */
  fence(): void {
    Atomics.add(this.#fence, 0, 1);
  }

  /**
   * Brings `count` descriptors (at most {@link WINDOW}), from `index` on of the ring of `entries`. False
   * if one of them is at no address of ours.
   */
  load(memory: DeviceMemory, entries: number, index: number, count: number): boolean {
    return this.#walk(memory, entries, index, count, false);
  }

  /** Finds where to write back, as {@link load} without bringing anything. */
  locate(memory: DeviceMemory, entries: number, index: number, count: number): boolean {
    return this.#walk(memory, entries, index, count, true);
  }

  /**
   * Finds where descriptors from `index` on can be read, at most `count` (which the ring has behind it):
   * as many as lie in one piece. False if the first is at no address of ours.
   */
  find(memory: DeviceMemory, index: number, count: number): boolean {
    const base = this.base[0] as number;
    if (base < 0) return false;
    const address = base + index * BYTES;
    let part = count;
    let at = memory.translate(address, part * BYTES, false);
    if (at < 0) {
      part = withinPage(address, part * BYTES) / BYTES;
      at = memory.translate(address, part * BYTES, false);
      if (at < 0) return false;
    }
    this.found = part;
    this.where[0] = at;
    return true;
  }

  #walk(
    memory: DeviceMemory,
    entries: number,
    index: number,
    count: number,
    write: boolean,
  ): boolean {
    const { where } = this;
    const base = this.base[0] as number;
    if (base < 0) return false;
    let isNear = this.#canBeNear;
    for (let done = 0; done < count; ) {
      const first = index + done < entries ? index + done : index + done - entries;
      const address = base + first * BYTES;
      let part = Math.min(count - done, entries - first);
      let at = memory.translate(address, part * BYTES, write);
      if (at < 0) {
        // In pieces: rings begin at multiples of 128, so that no descriptor crosses pages.
        part = withinPage(address, part * BYTES) / BYTES;
        at = memory.translate(address, part * BYTES, write);
        if (at < 0) return false;
      }
      if (write) for (let i = 0; i < part; i++) where[done + i] = at + i * BYTES;
      else this.#bring(done, at, part);
      if (at + part * BYTES > WINDOW_BYTES) isNear = false;
      done += part;
    }
    this.isNear = isNear;
    return true;
  }

  /** Copies `count` descriptors at an arena address to the window, from its descriptor `first` on. */
  #bring(first: number, at: number, count: number): void {
    if (count > FEW) {
      this.#bytes.copyWithin(this.wordsAt + first * BYTES, at, at + count * BYTES);
      return;
    }
    const { words } = this;
    const view = this.#view;
    const from = first * WORDS;
    for (let i = 0; i < count * WORDS; i++) words[from + i] = view.getUint32(at + 4 * i, true);
  }
}
