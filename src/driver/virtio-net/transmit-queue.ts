/** The driver's transmit queue (VIRTIO 1.3 §5.1.6.2): frames out, buffers back. */
import { type DriverQueue, type SegmentList, USED_BATCH } from '../../ring/driver-queue.ts';

/** Buffers that one {@link TransmitQueue.reap} returns at most. */
export const REAP_BATCH = USED_BATCH;

export class TransmitQueue {
  readonly queue: DriverQueue;
  /** Tags of what the last {@link reap} returned. */
  readonly done = new Uint32Array(REAP_BATCH);
  /** By id of the ring: what the caller calls the frame. */
  private readonly tagOf: Uint32Array;

  constructor(queue: DriverQueue) {
    this.queue = queue;
    this.tagOf = new Uint32Array(queue.size);
  }

  /**
   * Queues `length` bytes at the guest physical address `addresses[index]`, virtio_net_hdr first.
   * False without a free descriptor. The buffer must stay as it is until {@link reap} returns its tag.
   */
  send(addresses: Float64Array, index: number, length: number, tag: number): boolean {
    const id = this.queue.addFrom(addresses, index, length, false);
    if (id < 0) return false;
    this.tagOf[id] = tag;
    return true;
  }

  /** As {@link send}: the device reads the virtio_net_hdr, not the driver. */
  sendPlain(addresses: Float64Array, index: number, length: number, tag: number): boolean {
    return this.send(addresses, index, length, tag);
  }

  /** As {@link send}, for a frame in several pieces. */
  sendPieces(pieces: SegmentList, tag: number): boolean {
    const id = this.queue.addChain(pieces, true);
    if (id < 0) return false;
    this.tagOf[id] = tag;
    return true;
  }

  /** Makes all queued frames visible to the device. */
  flush(): void {
    this.queue.publish();
  }

  /** Takes back what was sent, up to {@link REAP_BATCH} frames, into `done`. Returns how many. */
  reap(): number {
    const { queue, done, tagOf } = this;
    const count = queue.collectUsed(REAP_BATCH);
    for (let i = 0; i < count; i++) done[i] = tagOf[queue.usedId[i] as number] as number;
    return count;
  }
}
