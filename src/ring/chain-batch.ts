/**
 * Up to 64 descriptor chains as they were read from a ring, once: from here on nothing that the
 * driver changes matters. A structure of arrays; addresses are arena addresses, already checked.
 *
 * The first segment of each chain stands in `address` and `length`: for most frames it is the only
 * one. Further segments stand in `moreAddress` and `moreLength`, `more[i]` of them from
 * `moreStart[i]` on.
 *
 * `span` and `more` are 1 and 0 unless a chain is more than one plain descriptor: whoever writes other
 * values sets `shaped`, and {@link ChainBatch.clear} puts them right.
 */
import type { Arena } from '../memory/arena.ts';
import { FRAME_TABLE } from '../memory/copy.ts';
import { MAX_QUEUE_SIZE } from '../spec/virtio.ts';

export const BATCH = 64;

/**
 * Room for further segments: any legal chain fits into an empty batch, even with each descriptor
 * cut in two where two memory regions meet. (What comes in more pieces is refused.)
 */
export const MORE_SEGMENTS = 2 * MAX_QUEUE_SIZE;

export class ChainBatch {
  /** Chains in the batch. */
  count = 0;
  /** Further segments in use. */
  moreCount = 0;
  /** A chain has stood in the batch since {@link clear} that was more than one plain descriptor. */
  shaped = false;
  /** Arena address of the frame table that holds most of the arrays; 0 if they lie elsewhere. */
  readonly tableAt: number;
  /** One number: what a pass of WebAssembly over the table summed up. */
  readonly sum: Uint32Array;
  /** The buffer's id: the head's index (split), the id field (packed). */
  readonly id: Uint16Array;
  /** Descriptors that the chain takes in a packed ring; 1 in a split ring. */
  readonly span = new Uint16Array(BATCH).fill(1);
  /** Arena address of the first segment. */
  readonly address: Float64Array;
  /** Bytes of the first segment. */
  readonly length: Uint32Array;
  /** Bytes of all segments together (below 2^32: longer chains are refused). */
  readonly total: Uint32Array;
  /** Bytes that the device has written, for `DeviceQueue.completeWritten`. */
  readonly written: Uint32Array;
  /** Number of further segments. */
  readonly more: Uint32Array;
  /** Index of the first further segment. */
  readonly moreStart = new Uint32Array(BATCH);
  /** How many segments of the chain, from its start, are device-readable; the rest are writable. */
  readonly readable = new Uint32Array(BATCH);
  /** What `readable` is of a chain that is one plain descriptor: 1 or 0, as the queue's direction is. */
  private plainReadable = 0;
  readonly moreAddress = new Float64Array(MORE_SEGMENTS);
  readonly moreLength = new Uint32Array(MORE_SEGMENTS);

  /**
   * @param place arena address of a frame table (`memory/copy.ts`), if WebAssembly is to work on the batch
   */
  constructor(place?: { readonly arena: Arena; readonly tableAt: number }) {
    const buffer = place?.arena.buffer;
    const at = place?.tableAt ?? 0;
    this.tableAt = at;
    const words = (offset: number): Uint32Array =>
      buffer === undefined ? new Uint32Array(BATCH) : new Uint32Array(buffer, at + offset, BATCH);
    this.address =
      buffer === undefined
        ? new Float64Array(BATCH)
        : new Float64Array(buffer, at + FRAME_TABLE.address, BATCH);
    this.id =
      buffer === undefined
        ? new Uint16Array(BATCH)
        : new Uint16Array(buffer, at + FRAME_TABLE.id, BATCH);
    this.length = words(FRAME_TABLE.length);
    this.total = words(FRAME_TABLE.total);
    this.written = words(FRAME_TABLE.written);
    this.more = words(FRAME_TABLE.more);
    this.more.fill(0);
    this.sum =
      buffer === undefined
        ? new Uint32Array(1)
        : new Uint32Array(buffer, at + FRAME_TABLE.bytes, 1);
  }

  clear(): void {
    this.truncate(0);
    this.shaped = false;
    this.moreCount = 0;
  }

  /** Takes the chains from `from` on out again. */
  truncate(from: number): void {
    if (this.shaped) {
      this.span.fill(1, from);
      this.more.fill(0, from);
      this.readable.fill(this.plainReadable, from);
    }
    this.count = from;
  }

  /** From slot `count` on come chains of a queue whose plain ones have so many readable segments. */
  expect(readable: number): void {
    if (this.plainReadable === readable) return;
    this.plainReadable = readable;
    this.readable.fill(readable, this.count);
    // Those before are not what is expected now: they are put right as well when the batch is cleared.
    if (this.count > 0) this.shaped = true;
  }

  /** Adds a chain of one segment; for sources that are not rings (a tap, a replay). */
  add(address: number, length: number): number {
    const slot = this.count++;
    this.id[slot] = 0;
    this.address[slot] = address;
    this.length[slot] = length;
    this.total[slot] = length;
    this.readable[slot] = 1;
    return slot;
  }
}
