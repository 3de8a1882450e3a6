/**
 * Copies a sequence of source pieces into a sequence of destination pieces of other sizes: a frame
 * that spills over several receive buffers, a header that a legacy driver wants shorter.
 */

import type { CopyQueue } from '../memory/copy.ts';
import { BATCH, type ChainBatch, MORE_SEGMENTS } from '../ring/chain-batch.ts';
import { NET_HEADER_BYTES, NET_HEADER_LEGACY_BYTES } from '../spec/virtio-net.ts';
import type { Burst } from './burst.ts';

const NUM_BUFFERS_BYTES = 2;

export class Scatter {
  readonly #copies: CopyQueue;
  readonly #address = new Float64Array(MORE_SEGMENTS + BATCH);
  readonly #length = new Uint32Array(MORE_SEGMENTS + BATCH);
  #count = 0;
  /** Where the next byte goes: destination piece and offset in it. */
  #at = 0;
  #offset = 0;

  constructor(copies: CopyQueue) {
    this.#copies = copies;
  }

  /** Begins anew, without destinations. */
  reset(): void {
    this.#count = 0;
    this.#at = 0;
    this.#offset = 0;
  }

  addDestination(address: number, length: number): void {
    this.#address[this.#count] = address;
    this.#length[this.#count] = length;
    this.#count++;
  }

  /** Adds all segments of a chain as destinations, up to `limit` bytes. */
  addChain(batch: ChainBatch, slot: number, limit: number): void {
    this.addDestination(batch.address[slot] as number, batch.length[slot] as number);
    let room = batch.length[slot] as number;
    const start = batch.moreStart[slot] as number;
    const end = start + (batch.more[slot] as number);
    for (let i = start; i < end && room < limit; i++) {
      const length = batch.moreLength[i] as number;
      this.addDestination(batch.moreAddress[i] as number, length);
      room += length;
    }
  }

  /** Queues the copy of a source piece to where the last one ended. The destinations must have room. */
  write(from: number, length: number): void {
    let source = from;
    let left = length;
    while (left > 0) {
      const room = (this.#length[this.#at] as number) - this.#offset;
      const part = left < room ? left : room;
      this.#copies.push((this.#address[this.#at] as number) + this.#offset, source, part);
      source += part;
      left -= part;
      this.#offset += part;
      if (part === room) {
        this.#at++;
        this.#offset = 0;
      }
    }
  }

  /**
   * Writes frame `slot` of a burst. `header` is where its virtio_net_hdr of 12 bytes and the start of
   * the frame lie, `headerLength` bytes; of the virtio_net_hdr `headerBytes` are written: 12 (with
   * num_buffers taken from the address `numBuffers`), 10 or none.
   */
  writeFrame(
    burst: Burst,
    slot: number,
    header: number,
    headerLength: number,
    headerBytes: number,
    numBuffers: number,
  ): void {
    this.write(header, Math.min(headerBytes, NET_HEADER_LEGACY_BYTES));
    if (headerBytes === NET_HEADER_BYTES) this.write(numBuffers, NUM_BUFFERS_BYTES);
    this.write(header + NET_HEADER_BYTES, headerLength - NET_HEADER_BYTES);
    this.writeChain(burst, slot);
  }

  /** Writes the chain of frame `slot` from its `skip` on. Returns how many bytes that were. */
  writeChain(burst: Burst, slot: number): number {
    const { chains } = burst;
    let written = 0;
    let skip = burst.skip[slot] as number;
    const last = chains.more[slot] as number;
    for (let i = -1; i < last; i++) {
      const piece = (chains.moreStart[slot] as number) + i;
      const address = (i < 0 ? chains.address[slot] : chains.moreAddress[piece]) as number;
      const length = (i < 0 ? chains.length[slot] : chains.moreLength[piece]) as number;
      if (skip < length) {
        this.write(address + skip, length - skip);
        written += length - skip;
      }
      skip = skip > length ? skip - length : 0;
    }
    return written;
  }
}
