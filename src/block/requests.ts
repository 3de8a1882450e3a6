/**
 * Requests to a disk that are on their way, as a structure of arrays. A request is a *slot* of the
 * table from when its owner fills it in until its completion; nothing is allocated for one.
 *
 * The segments of a slot are kept twice: as arena addresses, for what copies, and as struct iovec
 * (process pointer, length; readv(2)), for what hands them to the kernel.
 */
import { TWO_32 } from '../base/bits.ts';
import type { Arena } from '../memory/arena.ts';

/** What a request asks for. */
export const DISK_READ = 0;
export const DISK_WRITE = 1;
/** Everything that was completed before is durable when this completes. */
export const DISK_FLUSH = 2;
/** The range's content may be forgotten. */
export const DISK_DISCARD = 3;
export const DISK_WRITE_ZEROES = 4;

/** A write is durable when it completes (force unit access). */
export const REQUEST_FUA = 1;
/** Zeroes may be written by giving the range's blocks back. */
export const REQUEST_UNMAP = 2;

const IOVEC_BYTES = 16;
const IOVEC_WORDS = IOVEC_BYTES / 4;

export class RequestTable {
  /** Requests that the table holds. */
  readonly slots: number;
  /** Segments that one request may have. */
  readonly segments: number;
  readonly arena: Arena;
  /** DISK_*. */
  readonly op: Uint8Array;
  /** REQUEST_*. */
  readonly flags: Uint8Array;
  /** First byte on the disk. */
  readonly offset: Float64Array;
  /** Bytes on the disk; for reads and writes the sum of the segments. */
  readonly bytes: Float64Array;
  /** Segments in memory. */
  readonly count: Uint16Array;
  /** Arena address and bytes of segment `k` of slot `s`, at `s * segments + k`. */
  readonly address: Float64Array;
  readonly length: Uint32Array;
  /** Process pointer of slot 0's list of iovecs; slot s begins `s * segments * 16` bytes later. */
  readonly iovecs: number;
  readonly #iovecsAt: number;
  readonly #words: Uint32Array;
  readonly #base: number;

  constructor(arena: Arena, slots: number, segments: number) {
    this.arena = arena;
    this.slots = slots;
    this.segments = segments;
    this.op = new Uint8Array(slots);
    this.flags = new Uint8Array(slots);
    this.offset = new Float64Array(slots);
    this.bytes = new Float64Array(slots);
    this.count = new Uint16Array(slots);
    this.address = new Float64Array(slots * segments);
    this.length = new Uint32Array(slots * segments);
    const iovecBytes = slots * segments * IOVEC_BYTES;
    this.#iovecsAt = arena.allocate(iovecBytes, 'sluice-requests');
    this.#words = new Uint32Array(arena.buffer, this.#iovecsAt, iovecBytes / 4);
    // User addresses are below 2^47: exact as numbers.
    this.iovecs = Number(arena.pointer(this.#iovecsAt));
    this.#base = Number(arena.pointer(0));
  }

  /** Begins a request without segments. `offset` and `bytes` are the range on the disk. */
  begin(slot: number, op: number, flags: number, offset: number, bytes: number): void {
    this.op[slot] = op;
    this.flags[slot] = flags;
    this.offset[slot] = offset;
    this.bytes[slot] = bytes;
    this.count[slot] = 0;
  }

  /** Adds memory, checked by the caller, to a request; false if it has as many segments as it may. */
  add(slot: number, address: number, length: number): boolean {
    const count = this.count[slot] as number;
    if (count === this.segments) return false;
    this.#put(slot, count, address, length);
    return true;
  }

  /**
   * As {@link add}, from `skip` bytes behind `addresses[index]` on: for the hot path, where an address
   * that is passed by itself may become an object on the heap.
   */
  addFrom(
    slot: number,
    addresses: Float64Array,
    index: number,
    skip: number,
    length: number,
  ): boolean {
    const count = this.count[slot] as number;
    if (count === this.segments) return false;
    this.#put(slot, count, (addresses[index] as number) + skip, length);
    return true;
  }

  /** Process pointer of a slot's list of `count[slot]` iovecs. */
  iovecOf(slot: number): number {
    return this.iovecs + slot * this.segments * IOVEC_BYTES;
  }

  /** Gives the table's memory back; no request may be on its way. */
  release(): void {
    this.arena.unmap(this.#iovecsAt, this.slots * this.segments * IOVEC_BYTES);
  }

  #put(slot: number, count: number, address: number, length: number): void {
    const index = slot * this.segments + count;
    this.count[slot] = count + 1;
    this.address[index] = address;
    this.length[index] = length;
    const pointer = this.#base + address;
    const high = Math.floor(pointer / TWO_32);
    const words = this.#words;
    const at = index * IOVEC_WORDS;
    words[at] = pointer - high * TWO_32;
    words[at + 1] = high;
    words[at + 2] = length;
    words[at + 3] = 0;
  }
}
