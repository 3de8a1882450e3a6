/** The driver's receive queue (VIRTIO 1.3 §5.1.6.3, §5.1.6.4): buffers out, frames in. */
import type { DriverMemory, DriverQueue } from '../../ring/driver-queue.ts';
import { brokenDevice, USED_BATCH } from '../../ring/driver-queue.ts';
import { NET_HEADER_BYTES, NET_HEADER_NUM_BUFFERS } from '../../spec/virtio-net.ts';
import type { BufferPool } from './buffer-pool.ts';

/** What one {@link ReceiveQueue.receive} returns at most. */
export const RECEIVE_BATCH = USED_BATCH;

export class ReceiveQueue {
  readonly queue: DriverQueue;
  readonly pool: BufferPool;
  /** Frames of the last {@link receive}. */
  count = 0;
  /** Where each frame's virtio_net_hdr begins: offset in the guest's memory. */
  readonly offset = new Uint32Array(RECEIVE_BATCH);
  /** Bytes of each frame, without virtio_net_hdr. */
  readonly length = new Uint32Array(RECEIVE_BATCH);
  /** The pieces of each frame: how many, and the index of the first. */
  readonly pieces = new Uint16Array(RECEIVE_BATCH);
  readonly firstPiece = new Uint16Array(RECEIVE_BATCH);
  /** By piece: its buffer, and the bytes in it (with virtio_net_hdr in a frame's first). */
  readonly pieceBuffer: Uint16Array;
  readonly pieceLength: Uint32Array;

  private pieceCount = 0;
  private readonly mergeable: boolean;
  private readonly memory16: Uint16Array;
  private readonly addresses: Float64Array;
  /** By id of the ring: the buffer that was added under it. */
  private readonly bufferOf: Uint16Array;

  constructor(queue: DriverQueue, memory: DriverMemory, pool: BufferPool, mergeable: boolean) {
    this.queue = queue;
    this.pool = pool;
    this.mergeable = mergeable;
    this.memory16 = new Uint16Array(memory.arena.buffer, memory.arenaAddress, memory.size / 2);
    this.addresses = pool.addresses();
    this.bufferOf = new Uint16Array(queue.size);
    // A buffer is in the ring or a piece, so there are never more pieces than descriptors.
    this.pieceBuffer = new Uint16Array(queue.size);
    this.pieceLength = new Uint32Array(queue.size);
  }

  /** Gives all buffers of the pool to the device. Once, before anything is received. */
  fill(): void {
    for (let buffer = 0; buffer < this.pool.count; buffer++) this.post(buffer);
    this.queue.publish();
  }

  /** Gives one buffer to the device; it sees it after the queue's next publish. */
  post(buffer: number): void {
    const id = this.queue.addFrom(this.addresses, buffer, this.pool.bytes, true);
    if (id < 0) throw brokenDevice('has no descriptor for a buffer that it returned');
    this.bufferOf[id] = buffer;
  }

  /**
   * Takes up to {@link RECEIVE_BATCH} frames; they are the caller's until {@link release}, or until
   * each of their buffers is posted. Returns how many.
   * @throws SluiceError `ring` for a device that returns what cannot be a frame.
   */
  receive(): number {
    const { queue, bufferOf, pieceBuffer, pieceLength, offset, length, memory16 } = this;
    const { first, stride } = this.pool;
    const used = queue.collectUsed(RECEIVE_BATCH);
    let frame = 0;
    let piece = 0;
    let missing = 0;
    for (let i = 0; i < used; i++) {
      const buffer = bufferOf[queue.usedId[i] as number] as number;
      const bytes = queue.usedLength[i] as number;
      pieceBuffer[piece] = buffer;
      pieceLength[piece] = bytes;
      if (missing > 0) {
        length[frame - 1] = (length[frame - 1] as number) + bytes;
        this.pieces[frame - 1] = (this.pieces[frame - 1] as number) + 1;
        missing--;
        piece++;
        continue;
      }
      if (bytes < NET_HEADER_BYTES) throw brokenDevice(`wrote a frame of ${bytes} bytes`);
      const at = first + buffer * stride;
      offset[frame] = at;
      length[frame] = bytes - NET_HEADER_BYTES;
      this.firstPiece[frame] = piece;
      this.pieces[frame] = 1;
      if (this.mergeable) {
        missing = (memory16[(at + NET_HEADER_NUM_BUFFERS) >>> 1] as number) - 1;
        if (missing < 0) throw brokenDevice('wrote a frame of no buffers');
      }
      frame++;
      piece++;
    }
    this.count = frame;
    this.pieceCount = piece;
    if (missing > 0) this.completeLast(missing);
    return frame;
  }

  /** Gives the buffers of all frames of the last {@link receive} back to the device. */
  release(): void {
    const { pieceBuffer, pieceCount } = this;
    if (pieceCount === 0) return;
    for (let i = 0; i < pieceCount; i++) this.post(pieceBuffer[i] as number);
    this.queue.publish();
    this.count = 0;
    this.pieceCount = 0;
  }

  /** The batch ended within a frame; a device returns all buffers of a frame at once. */
  private completeLast(missing: number): void {
    const { queue } = this;
    const frame = this.count - 1;
    let left = missing;
    while (left > 0) {
      const used = queue.collectUsed(left);
      if (used === 0) throw brokenDevice(`kept ${left} buffers of a frame back`);
      for (let i = 0; i < used; i++) {
        const bytes = queue.usedLength[i] as number;
        this.pieceBuffer[this.pieceCount] = this.bufferOf[queue.usedId[i] as number] as number;
        this.pieceLength[this.pieceCount] = bytes;
        this.pieceCount++;
        this.length[frame] = (this.length[frame] as number) + bytes;
      }
      this.pieces[frame] = (this.pieces[frame] as number) + used;
      left -= used;
    }
  }
}
