/**
 * The copy of payload, in batches: collect jobs, then do them all with one call.
 *
 * Where both ends lie in the window, the copy is done in WebAssembly, which moves a small frame in
 * a third of the time that the engine's own copyWithin takes; else copyWithin does it at once.
 */
import { wasm } from '../base/webassembly.ts';
import type { Arena } from './arena.ts';
import { WINDOW_BYTES } from './arena.ts';
import { COPY_WASM } from './copy.wasm.ts';

/** Jobs that are collected before they are done. */
export const COPY_JOBS = 512;
const JOB_WORDS = 3;

/** Frames of one frame table. */
export const TABLE_FRAMES = 64;

/**
 * A frame table: what WebAssembly knows of a burst, or of the buffers for one, as arrays of
 * {@link TABLE_FRAMES} in the window. Offsets in bytes from the table's beginning; `copy.wat` and
 * `plain-chains.wat` have the same.
 */
export const FRAME_TABLE = {
  /** f64: arena address of the first byte of frame or buffer. */
  address: 0,
  /** f64: arena address of the header to deliver. */
  headerAt: 512,
  /** u32: bytes in all pieces. */
  total: 1024,
  /** u32: bytes at `headerAt`. */
  headerLength: 1280,
  /** u32: bytes of the frame that the header stands for. */
  skip: 1536,
  /** u32: bytes of the frame without its virtio_net_hdr. */
  frameLength: 1792,
  /** u32: further pieces. */
  more: 2048,
  /** u32: bytes of the first piece. */
  length: 2304,
  /** u32: bytes that were written into the buffer. */
  written: 2560,
  /** u16: the chain's id. */
  id: 2816,
  /** u32: what {@link CopyQueue.alike} and {@link CopyQueue.deliver} summed up. */
  bytes: 2944,
  /** u64: what was loaded only to have it near. */
  touched: 2952,
  /** u16: tag control information. */
  tci: 2960,
  /** u8: offloads that a receiver must take. */
  needs: 3088,
  size: 3152,
} as const;

/** Bytes that {@link CopyQueue.gather} copies of each frame. */
export const GATHER_COPY_BYTES = 80;

type Run = (jobs: number, count: number) => void;
type Gather = (
  table: number,
  first: number,
  count: number,
  to: number,
  stride: number,
  shift: number,
) => number;
type Alike = (
  table: number,
  first: number,
  count: number,
  at: number,
  stride: number,
  min: number,
  max: number,
  addresses: number,
  tci: number,
) => number;
type Deliver = (
  table: number,
  list: number,
  first: number,
  count: number,
  buffers: number,
  next: number,
  end: number,
) => number;

export class CopyQueue {
  readonly #run: Run;
  readonly #gather: Gather;
  readonly #alike: Alike;
  readonly #deliver: Deliver;
  readonly #jobs: Uint32Array;
  readonly #jobsAt: number;
  readonly #bytes: Uint8Array;
  /** Next free word of the job table. */
  #next = 0;

  constructor(arena: Arena) {
    const jobBytes = COPY_JOBS * JOB_WORDS * 4;
    this.#jobsAt = arena.allocate(jobBytes, 'sluice-copy-jobs');
    this.#jobs = new Uint32Array(arena.buffer, this.#jobsAt, COPY_JOBS * JOB_WORDS);
    this.#bytes = arena.bytes;
    const module = new wasm.Module(Buffer.from(COPY_WASM, 'base64'));
    const instance = new wasm.Instance(module, { sluice: { window: arena.window } });
    this.#run = instance.exports['run'] as Run;
    this.#gather = instance.exports['gather'] as Gather;
    this.#alike = instance.exports['alike'] as Alike;
    this.#deliver = instance.exports['deliver'] as Deliver;
  }

  /**
   * Copies `length` bytes between two arena addresses, at the latest at the next {@link flush}.
   * The ends must not overlap, and both ranges must have been checked.
   */
  push(to: number, from: number, length: number): void {
    if (to + length > WINDOW_BYTES || from + length > WINDOW_BYTES) {
      this.#bytes.copyWithin(to, from, from + length);
      return;
    }
    const jobs = this.#jobs;
    const at = this.#next;
    jobs[at] = to;
    jobs[at + 1] = from;
    jobs[at + 2] = length;
    this.#next = at + JOB_WORDS;
    if (at + JOB_WORDS === jobs.length) this.flush();
  }

  /**
   * Arena address where WebAssembly can write up to `most` jobs: to, from and length of each, u32, both
   * ends in the window. {@link wrote} tells how many it wrote.
   */
  place(most: number): number {
    if (this.#next + most * JOB_WORDS > this.#jobs.length) this.flush();
    return this.#jobsAt + 4 * this.#next;
  }

  wrote(jobs: number): void {
    this.#next += jobs * JOB_WORDS;
    if (this.#next === this.#jobs.length) this.flush();
  }

  /**
   * Copies the first {@link GATHER_COPY_BYTES} bytes of each frame of a table, from frame `first` on,
   * to `to + stride * index + shift`, at once, and completes the table for it, without a VLAN. A frame may
   * be shorter: what lies behind it comes along, up to 64 bytes. Its virtio_net_hdr has 12 - `shift` bytes. Stops at a frame that is
   * in pieces or not in the window; returns its index, or `count`.
   */
  gather(
    table: number,
    first: number,
    count: number,
    to: number,
    stride: number,
    shift: number,
  ): number {
    return this.#gather(table, first, count, to, stride, shift);
  }

  /**
   * Looks at gathered frames (their starts at `at + stride * index`) from `first` on and returns the
   * index of the first that is shorter than `min` or longer than `max`, has offloads or an 802.1Q tag,
   * or has not the 12 bytes at `addresses` as destination and source; or `count`. Sets the table's
   * `bytes` to the sum of the lengths of those before it, and gives these `tci` and no offloads.
   */
  alike(
    table: number,
    first: number,
    count: number,
    at: number,
    stride: number,
    min: number,
    max: number,
    addresses: number,
    tci: number,
  ): number {
    return this.#alike(table, first, count, at, stride, min, max, addresses, tci);
  }

  /**
   * Copies frames `list[first…count)` (arena address of bytes, each an index into `table`) into the
   * buffers `next…end)` of the table `buffers`, at once, and sets what each holds then. Stops at a frame
   * that is in pieces or too long for its buffer, or where one of them is not in the window. Returns how
   * many were copied; `bytes` of the buffers' table is the sum of their lengths. Buffers for virtio_net_hdr
   * of 12 bytes only.
   */
  deliver(
    table: number,
    list: number,
    first: number,
    count: number,
    buffers: number,
    next: number,
    end: number,
  ): number {
    return this.#deliver(table, list, first, count, buffers, next, end);
  }

  /** Does all jobs that were pushed. */
  flush(): void {
    const count = this.#next / JOB_WORDS;
    if (count !== 0) {
      this.#next = 0;
      this.#run(this.#jobsAt, count);
    }
  }
}
