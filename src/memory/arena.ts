/**
 * The one address space of a process: a large reservation into which every guest's memory is
 * mapped, seen as one ArrayBuffer. An arena address is a number, the offset into that buffer;
 * a copy between two guests is a copy within it.
 *
 * The lowest 4 GiB (less 2 MiB) are mapped a second time, into a WebAssembly memory, at the same
 * offsets: there the copy is a few instructions of WebAssembly (see `copy.ts`). This part is
 * called the window. What does not fit into it lies above and is copied by JavaScript.
 */
import { alignDown, alignUp, GiB, MiB, TiB } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import { type WasmMemory, wasm } from '../base/webassembly.ts';
import { closeFd } from '../os/fd.ts';
import { addressOf, bufferAt } from '../os/libc.ts';
import {
  adviseHugePages,
  createMemfd,
  HUGE_PAGE,
  mapAnonymousAt,
  mapFileAt,
  reserveAddressSpace,
} from '../os/mapping.ts';

/**
 * Arena addresses below this are also in the window. Its last 2 MiB are never given out: reading a
 * little past the end of anything in it stays within.
 */
export const WINDOW_BYTES = 4 * GiB - 2 * MiB;
const MEMORY_BYTES = 4 * GiB;
const WASM_PAGE = 65536;
const DEFAULT_BYTES = 1 * TiB;

/** What another thread of the process needs to see the same arena. Can be posted. */
export interface ArenaHandle {
  readonly address: bigint;
  readonly length: number;
  readonly window: WasmMemory;
  readonly part: ArenaPart;
}

/** The ranges of arena addresses that one thread may give out. */
export interface ArenaPart {
  readonly windowStart: number;
  readonly windowEnd: number;
  readonly start: number;
  readonly end: number;
}

/** Free ranges of address space, given out first fit. */
class RangeAllocator {
  /** Sorted, disjoint, not touching: [start, end) pairs. */
  #free: [number, number][];

  constructor(start: number, end: number) {
    this.#free = start < end ? [[start, end]] : [];
  }

  take(length: number): number | undefined {
    const index = this.#free.findIndex(([start, end]) => end - start >= length);
    const range = this.#free[index];
    if (range === undefined) return undefined;
    const at = range[0];
    range[0] += length;
    if (range[0] === range[1]) this.#free.splice(index, 1);
    return at;
  }

  give(start: number, length: number): void {
    this.#free.push([start, start + length]);
    this.#free.sort((a, b) => a[0] - b[0]);
    const merged: [number, number][] = [];
    for (const range of this.#free) {
      const last = merged.at(-1);
      if (last !== undefined && last[1] === range[0]) last[1] = range[1];
      else merged.push(range);
    }
    this.#free = merged;
  }
}

export class Arena {
  /** All of the address space; touching an address where nothing is mapped kills the process. */
  readonly buffer: ArrayBuffer;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly window: WasmMemory;
  readonly #address: bigint;
  readonly #windowAddress: bigint;
  readonly #length: number;
  readonly #low: RangeAllocator;
  readonly #high: RangeAllocator;

  private constructor(handle: ArenaHandle) {
    this.#address = handle.address;
    this.#length = handle.length;
    this.window = handle.window;
    this.#windowAddress = addressOf(handle.window.buffer);
    this.buffer = bufferAt(handle.address, handle.length);
    this.bytes = new Uint8Array(this.buffer);
    this.view = new DataView(this.buffer);
    this.#low = new RangeAllocator(handle.part.windowStart, handle.part.windowEnd);
    this.#high = new RangeAllocator(handle.part.start, handle.part.end);
  }

  /** Reserves the address space of a process. Once per process: see {@link split} for threads. */
  static create(length: number = DEFAULT_BYTES): Arena {
    return Arena.attach(Arena.#reserve(length));
  }

  /** Reserves the address space and divides it among `threads`, one handle each. */
  static split(threads: number, length: number = DEFAULT_BYTES): ArenaHandle[] {
    const whole = Arena.#reserve(length);
    const { windowStart, windowEnd, start, end } = whole.part;
    const low = alignDown((windowEnd - windowStart) / threads, HUGE_PAGE);
    const high = alignDown((end - start) / threads, HUGE_PAGE);
    return Array.from({ length: threads }, (_, index) => ({
      ...whole,
      part: {
        windowStart: windowStart + index * low,
        windowEnd: windowStart + (index + 1) * low,
        start: start + index * high,
        end: start + (index + 1) * high,
      },
    }));
  }

  /** The same arena in another thread. */
  static attach(handle: ArenaHandle): Arena {
    return new Arena(handle);
  }

  static #reserve(length: number): ArenaHandle {
    const pages = MEMORY_BYTES / WASM_PAGE;
    return {
      address: reserveAddressSpace(length),
      length,
      window: new wasm.Memory({ initial: pages, maximum: pages, shared: true }),
      // Address 0 stays unused, so that it can mean "none".
      part: { windowStart: HUGE_PAGE, windowEnd: WINDOW_BYTES, start: MEMORY_BYTES, end: length },
    };
  }

  /**
   * Maps `length` bytes of a file from `offset` (both any number) and returns the arena address of
   * the byte at `offset`. The descriptor may be closed afterwards. Undo with {@link unmap}.
   *
   * The place is congruent with the file modulo 2 MiB, so that large pages fit.
   */
  mapFile(fd: number, length: number, offset: number): number {
    const fileStart = alignDown(offset, HUGE_PAGE);
    const before = offset - fileStart;
    const size = alignUp(before + length, HUGE_PAGE);
    const at = this.#take(size);
    try {
      mapFileAt(this.#address + BigInt(at), before + length, fd, fileStart);
      if (at < WINDOW_BYTES)
        mapFileAt(this.#windowAddress + BigInt(at), before + length, fd, fileStart);
    } catch (error) {
      this.#giveBack(at, size);
      throw error;
    }
    return at + before;
  }

  /** Takes back what {@link mapFile} or {@link allocate} returned. No I/O may be in flight there. */
  unmap(address: number, length: number): void {
    const at = alignDown(address, HUGE_PAGE);
    this.#giveBack(at, alignUp(address - at + length, HUGE_PAGE));
  }

  /** Fresh zeroed memory of this process, in the window as long as there is room. */
  allocate(length: number, name = 'sluice-lane'): number {
    const fd = createMemfd(name, alignUp(length, HUGE_PAGE));
    try {
      const at = this.mapFile(fd, alignUp(length, HUGE_PAGE), 0);
      adviseHugePages(this.#address + BigInt(at), alignUp(length, HUGE_PAGE));
      return at;
    } finally {
      closeFd(fd);
    }
  }

  /** The process's own pointer to an arena address: for system calls. */
  pointer(address: number): bigint {
    return this.#address + BigInt(address);
  }

  #take(size: number): number {
    const at = this.#low.take(size) ?? this.#high.take(size);
    if (at === undefined) {
      throw new SluiceError('memory', `no ${size} bytes of address space left of ${this.#length}`);
    }
    return at;
  }

  #giveBack(at: number, size: number): void {
    mapAnonymousAt(this.#address + BigInt(at), size);
    if (at < WINDOW_BYTES) {
      mapAnonymousAt(this.#windowAddress + BigInt(at), size);
      this.#low.give(at, size);
    } else {
      this.#high.give(at, size);
    }
  }
}
