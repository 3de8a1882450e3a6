/**
 * A bounded ring of captured frames in shared memory, from a lane (one writer) to whoever stores
 * them (one reader). The lane never waits: what does not fit is dropped and counted.
 *
 * A record lies in one piece, on a multiple of 8 bytes:
 *
 *     0  u32  captured bytes, or SKIP: the rest of the ring up to its end is empty
 *     4  u32  bytes of the frame before it was cut
 *     8  u16  interface
 *     10 u16  1 if the port's guest sent the frame
 *     16 f64  time, ns of the monotonic clock
 *     24      the captured bytes
 */
import { alignUp, isPowerOfTwo, MiB } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';

/** Control words: positions count bytes for ever, modulo 2^32. */
const WRITTEN = 0;
const READ = 1;
const CLOSED = 2;
/** Changes with every wake-up: who goes to sleep has looked at it before it looked at the rest. */
const SIGNAL = 3;
/** Two counters as floats, behind the words: frames seen, frames dropped. */
const SEEN = 0;
const DROPPED = 1;
const COUNTERS_AT = 16;
const CONTROL_BYTES = 64;

const RECORD_HEADER_BYTES = 24;
const ALIGNMENT = 8;
const SKIP = 0xffff_ffff;

export const DEFAULT_CAPTURE_RING_BYTES = 4 * MiB;

/** A record as {@link CaptureRing.read} gives it; `data` is valid until the reader goes on. */
export interface CaptureRecord {
  readonly interface: number;
  readonly sent: boolean;
  readonly originalLength: number;
  readonly time: number;
  readonly data: Uint8Array;
}

export class CaptureRing {
  readonly shared: SharedArrayBuffer;
  /** The ring's bytes, for whoever fills a record. */
  readonly bytes: Uint8Array;
  readonly #control: Int32Array;
  readonly #counters: Float64Array;
  readonly #words: Uint32Array;
  readonly #halves: Uint16Array;
  readonly #floats: Float64Array;
  readonly #mask: number;
  /** The positions after the record being written and after the one being read. */
  #writeEnd = 0;
  #readEnd = 0;

  /** @param shared what {@link shared} of the other side's ring is */
  constructor(shared: SharedArrayBuffer) {
    const size = shared.byteLength - CONTROL_BYTES;
    if (!isPowerOfTwo(size) || size < 4096) {
      throw new SluiceError('config', `a capture ring of ${size} bytes`, {
        remedy: 'choose a power of two from 4096 on',
      });
    }
    this.shared = shared;
    this.#control = new Int32Array(shared, 0, COUNTERS_AT / 4);
    this.#counters = new Float64Array(shared, COUNTERS_AT, 2);
    this.bytes = new Uint8Array(shared, CONTROL_BYTES, size);
    this.#words = new Uint32Array(shared, CONTROL_BYTES, size / 4);
    this.#halves = new Uint16Array(shared, CONTROL_BYTES, size / 2);
    this.#floats = new Float64Array(shared, CONTROL_BYTES, size / 8);
    this.#mask = size - 1;
  }

  /** A new ring with room for `bytes` (a power of two). */
  static create(bytes = DEFAULT_CAPTURE_RING_BYTES): CaptureRing {
    return new CaptureRing(new SharedArrayBuffer(CONTROL_BYTES + bytes));
  }

  /** Frames that the lane showed to the ring. */
  get seen(): number {
    return this.#counters[SEEN] as number;
  }

  /** Frames of these that found no room. */
  get dropped(): number {
    return this.#counters[DROPPED] as number;
  }

  /** True once either side has ended the capture. */
  get closed(): boolean {
    return Atomics.load(this.#control, CLOSED) !== 0;
  }

  /**
   * The lane: room for a record with `length` bytes of data. Returns where these go in
   * {@link bytes}, or -1 if the frame is dropped, or comes after the end.
   */
  reserve(
    length: number,
    originalLength: number,
    index: number,
    sent: boolean,
    time: number,
  ): number {
    if (this.closed) return -1;
    const counters = this.#counters;
    counters[SEEN] = (counters[SEEN] as number) + 1;
    const size = this.#mask + 1;
    const need = RECORD_HEADER_BYTES + alignUp(length, ALIGNMENT);
    const written = this.#control[WRITTEN] as number;
    let at = written & this.#mask;
    const before = size - at >= need ? 0 : size - at;
    const used = (written - Atomics.load(this.#control, READ)) >>> 0;
    if (need + before > size - used) {
      counters[DROPPED] = (counters[DROPPED] as number) + 1;
      return -1;
    }
    if (before > 0) {
      this.#words[at / 4] = SKIP;
      at = 0;
    }
    this.#writeEnd = (written + before + need) | 0;
    this.#words[at / 4] = length;
    this.#words[at / 4 + 1] = originalLength;
    this.#halves[at / 2 + 4] = index;
    this.#halves[at / 2 + 5] = sent ? 1 : 0;
    this.#floats[at / 8 + 2] = time;
    return at + RECORD_HEADER_BYTES;
  }

  /** The lane: the record that was reserved last is complete. */
  commit(): void {
    Atomics.store(this.#control, WRITTEN, this.#writeEnd);
  }

  /** The lane: wakes the reader, once for as many records as were committed. */
  notify(): void {
    Atomics.add(this.#control, SIGNAL, 1);
    Atomics.notify(this.#control, SIGNAL);
  }

  /** The reader: the next record, or undefined. Call {@link release} when its data are used. */
  read(): CaptureRecord | undefined {
    let position = this.#control[READ] as number;
    if (position === Atomics.load(this.#control, WRITTEN)) return undefined;
    let at = position & this.#mask;
    if (this.#words[at / 4] === SKIP) {
      position = (position + this.#mask + 1 - at) | 0;
      at = 0;
    }
    const length = this.#words[at / 4] as number;
    this.#readEnd = (position + RECORD_HEADER_BYTES + alignUp(length, ALIGNMENT)) | 0;
    return {
      interface: this.#halves[at / 2 + 4] as number,
      sent: this.#halves[at / 2 + 5] !== 0,
      originalLength: this.#words[at / 4 + 1] as number,
      time: this.#floats[at / 8 + 2] as number,
      data: this.bytes.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + length),
    };
  }

  /** The reader: gives the room of the record that was read last back to the lane. */
  release(): void {
    Atomics.store(this.#control, READ, this.#readEnd);
  }

  /** The reader: resolves when there may be more to read, or the capture was ended. */
  async waitForMore(): Promise<void> {
    const signal = Atomics.load(this.#control, SIGNAL);
    const position = this.#control[READ] as number;
    if (position !== Atomics.load(this.#control, WRITTEN) || this.closed) return;
    await Atomics.waitAsync(this.#control, SIGNAL, signal).value;
  }

  /** Either side: ends the capture and wakes the reader. */
  close(): void {
    Atomics.store(this.#control, CLOSED, 1);
    this.notify();
  }
}
