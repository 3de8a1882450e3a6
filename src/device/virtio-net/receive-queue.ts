/** One receive queue of a virtio-net device: puts frames into the driver's buffers. */

import { WINDOW_BYTES } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { BATCH, ChainBatch } from '../../ring/chain-batch.ts';
import type { DeviceQueue } from '../../ring/device-queue.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { isSegmented, ReceiveBacklog } from './receive-backlog.ts';

/** What became of a frame. */
export const DELIVERED = 0;
export const NO_BUFFER = 1;
export const TOO_BIG = 2;
/** It waits for buffers. */
export const HELD = 3;

export class ReceiveQueue {
  readonly queue: DeviceQueue;
  /** Bytes of the frames that the last {@link putRun} or {@link drain} delivered. */
  runBytes = 0;
  /** Frames that the last {@link drain} found no buffer can hold. */
  tooBig = 0;
  readonly #path: DataPath;
  /** Bytes of the virtio_net_hdr that the driver expects: 12, or 10 for a legacy one. */
  readonly #headerBytes: number;
  /** Frames may spill over several buffers (VIRTIO_NET_F_MRG_RXBUF). */
  readonly #mergeable: boolean;
  readonly #countsAt: number;
  /** Buffers read ahead from the ring: those from the cursor on are free. */
  readonly #buffers: ChainBatch;
  /** Frames can be delivered as they are: with a header of 12 bytes, from the window. */
  readonly #plain: boolean;
  #cursor = 0;
  readonly #backlog: ReceiveBacklog;

  constructor(queue: DeviceQueue, path: DataPath, headerBytes: number, mergeable: boolean) {
    this.queue = queue;
    this.#path = path;
    this.#headerBytes = headerBytes;
    this.#mergeable = mergeable;
    this.#countsAt = path.countsAt;
    this.#backlog = new ReceiveBacklog(path);
    this.#buffers = new ChainBatch({ arena: path.arena, tableAt: path.tables.take() });
    this.#plain = headerBytes === NET_HEADER_BYTES && this.#buffers.tableAt < WINDOW_BYTES;
  }

  /** Frames that wait for buffers. */
  get held(): number {
    return this.#backlog.count;
  }

  /**
   * Queues the copies of frame `slot` into the next buffers. `header` is where its header lies (with
   * or without a tag), `headerLength` bytes. Returns DELIVERED, HELD, NO_BUFFER or TOO_BIG.
   */
  put(burst: Burst, slot: number, header: number, headerLength: number): number {
    const backlog = this.#backlog;
    if (backlog.count === 0) {
      const result = this.#fill(burst, slot, header, headerLength);
      if (result !== NO_BUFFER || !isSegmented(burst, slot)) return result;
    }
    return backlog.hold(burst, slot, header, headerLength) ? HELD : NO_BUFFER;
  }

  /**
   * Delivers frames that waited, as far as the driver has given buffers since. Their copies are done at once.
   * Returns how many; see {@link runBytes} and {@link tooBig}.
   */
  drain(): number {
    const backlog = this.#backlog;
    const { burst } = backlog;
    let frames = 0;
    this.runBytes = 0;
    this.tooBig = 0;
    // What was held last may not have been copied yet.
    burst.copies.flush();
    while (backlog.count > 0) {
      const length = backlog.firstLength;
      const result = this.#fill(burst, 0, backlog.first, length);
      if (result === NO_BUFFER) break;
      if (result === DELIVERED) {
        frames++;
        this.runBytes += length - NET_HEADER_BYTES;
      } else this.tooBig++;
      burst.copies.flush();
      backlog.shift();
    }
    return frames;
  }

  #fill(burst: Burst, slot: number, header: number, headerLength: number): number {
    if (!this.#refill()) return NO_BUFFER;
    const buffers = this.#buffers;
    const cursor = this.#cursor;
    const { chains, copies } = burst;
    const skip = burst.skip[slot] as number;
    const rest = (chains.total[slot] as number) - skip;
    const bytes = headerLength + rest;
    const simple =
      bytes <= (buffers.length[cursor] as number) &&
      chains.more[slot] === 0 &&
      this.#headerBytes === NET_HEADER_BYTES;
    if (!simple) return this.#spill(burst, slot, header, headerLength, bytes);
    const to = buffers.address[cursor] as number;
    copies.push(to, header, headerLength);
    if (rest > 0) copies.push(to + headerLength, (chains.address[slot] as number) + skip, rest);
    this.queue.complete(buffers, cursor, bytes);
    this.#cursor = cursor + 1;
    return DELIVERED;
  }

  /**
   * As {@link put} for frames `frames[first…count)` with their headers as they are, as long as each is
   * in one piece and fits the next buffer; their copies are done at once. Returns how many were delivered.
   */
  putRun(burst: Burst, frames: Uint8Array, first: number, count: number): number {
    this.runBytes = 0;
    if (!this.#plain || this.held > 0 || frames.buffer !== burst.arena.buffer) return 0;
    const buffers = this.#buffers;
    const { tableAt } = buffers;
    const list = frames.byteOffset;
    let i = first;
    while (i < count && this.#refill()) {
      const cursor = this.#cursor;
      const done = burst.copies.deliver(
        burst.tableAt,
        list,
        i,
        count,
        tableAt,
        cursor,
        buffers.count,
      );
      if (done === 0) break;
      this.runBytes += buffers.sum[0] as number;
      this.#cursor = cursor + done;
      this.queue.completeWritten(buffers, cursor, cursor + done);
      i += done;
    }
    return i - first;
  }

  /** Makes what was put visible to the driver. The copies must be done. */
  publish(): void {
    this.queue.publish();
  }

  /** Gives buffers that were read ahead back to the ring. */
  rewind(): void {
    this.queue.rewind(this.#buffers, this.#cursor);
    this.#buffers.clear();
    this.#cursor = 0;
  }

  /** Ends the use of the queue, after {@link rewind} if the ring goes on elsewhere. What is held is lost. */
  release(): void {
    this.#backlog.release();
    this.#path.tables.give(this.#buffers.tableAt);
  }

  /** Reads buffers ahead when none is left of those read before; false if the driver has given none. */
  #refill(): boolean {
    const buffers = this.#buffers;
    if (this.#cursor < buffers.count) return true;
    buffers.clear();
    this.#cursor = 0;
    return this.queue.collect(buffers, BATCH) !== 0;
  }

  /** A frame in several pieces, for several buffers, or for a legacy driver. */
  #spill(
    burst: Burst,
    slot: number,
    header: number,
    headerLength: number,
    fullBytes: number,
  ): number {
    const bytes = fullBytes - NET_HEADER_BYTES + this.#headerBytes;
    const buffers = this.#buffers;
    let used = this.#measure(bytes);
    if (used === 0 && this.#mergeable && (this.#cursor > 0 || buffers.count < BATCH)) {
      // The buffers read ahead are too few: read ahead from here, with what has come since.
      this.rewind();
      this.queue.collect(buffers, BATCH);
      used = this.#measure(bytes);
    }
    if (used === 0) return this.#mergeable && buffers.count < BATCH ? NO_BUFFER : TOO_BIG;
    const { scatter } = this.#path;
    const first = this.#cursor;
    scatter.reset();
    let left = bytes;
    for (let i = first; i < first + used; i++) {
      const room = buffers.total[i] as number;
      const part = left < room ? left : room;
      scatter.addChain(buffers, i, part);
      this.queue.complete(buffers, i, part);
      left -= part;
    }
    const numBuffers = this.#countsAt + 2 * used;
    scatter.writeFrame(burst, slot, header, headerLength, this.#headerBytes, numBuffers);
    this.#cursor = first + used;
    return DELIVERED;
  }

  /** How many buffers from the cursor on hold `bytes`; 0 if those read ahead do not. */
  #measure(bytes: number): number {
    const buffers = this.#buffers;
    let room = 0;
    for (let i = this.#cursor; i < buffers.count; i++) {
      room += buffers.total[i] as number;
      if (room >= bytes) return i - this.#cursor + 1;
      if (!this.#mergeable) return 0;
    }
    return 0;
  }
}
