/** The driver's receive queue (VIRTIO 1.3 §5.1.6.3, §5.1.6.4): buffers out, frames in. */
import type { DriverMemory, DriverQueue } from '../../ring/driver-queue.ts';
import { brokenDevice, USED_BATCH } from '../../ring/driver-queue.ts';
import { NET_HEADER_BYTES, NET_HEADER_NUM_BUFFERS } from '../../spec/virtio-net.ts';
import type { BufferPool } from '../buffer-pool.ts';

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
  /** By piece: its buffer, and (for frames of several pieces) the bytes in it, virtio_net_hdr included. */
  readonly pieceBuffer: Uint16Array;
  readonly pieceLength: Uint32Array;

  private pieceCount = 0;
  /** The last batch had a frame in several pieces: `pieces` and `firstPiece` are not as they mostly are. */
  private merged = true;
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
    const { queue, bufferOf, pieceBuffer, offset, length, memory16, mergeable } = this;
    const { usedId, usedLength } = queue;
    const { first, stride } = this.pool;
    if (this.merged) this.forgetMerged();
    const used = queue.collectUsed(RECEIVE_BATCH);
    let i = 0;
    for (; i < used; i++) {
      const buffer = bufferOf[usedId[i] as number] as number;
      const bytes = usedLength[i] as number;
      const at = first + buffer * stride;
      if (bytes < NET_HEADER_BYTES) throw brokenDevice(`wrote a frame of ${bytes} bytes`);
      if (mergeable && memory16[(at + NET_HEADER_NUM_BUFFERS) >>> 1] !== 1) break;
      pieceBuffer[i] = buffer;
      offset[i] = at;
      length[i] = bytes - NET_HEADER_BYTES;
    }
    this.count = i;
    this.pieceCount = i;
    if (i < used) this.merge(i, used);
    return this.count;
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

  /** Used buffers [from, used) of a batch, in which a frame takes several. */
  private merge(from: number, used: number): void {
    const { queue, bufferOf, pieces, firstPiece, offset, length, memory16 } = this;
    const { first, stride } = this.pool;
    this.merged = true;
    let missing = 0;
    for (let i = from; i < used; i++) {
      const buffer = bufferOf[queue.usedId[i] as number] as number;
      const bytes = queue.usedLength[i] as number;
      if (missing > 0) {
        this.addPiece(buffer, bytes);
        missing--;
        continue;
      }
      if (bytes < NET_HEADER_BYTES) throw brokenDevice(`wrote a frame of ${bytes} bytes`);
      const at = first + buffer * stride;
      const frame = this.count++;
      offset[frame] = at;
      length[frame] = -NET_HEADER_BYTES;
      pieces[frame] = 0;
      firstPiece[frame] = this.pieceCount;
      missing = (memory16[(at + NET_HEADER_NUM_BUFFERS) >>> 1] as number) - 1;
      if (missing < 0) throw brokenDevice('wrote a frame of no buffers');
      this.addPiece(buffer, bytes);
    }
    // The batch may end within a frame; a device returns all buffers of a frame at once.
    while (missing > 0) {
      const more = queue.collectUsed(missing);
      if (more === 0) throw brokenDevice(`kept ${missing} buffers of a frame back`);
      for (let i = 0; i < more; i++) {
        const buffer = bufferOf[queue.usedId[i] as number] as number;
        this.addPiece(buffer, queue.usedLength[i] as number);
      }
      missing -= more;
    }
  }

  /** Adds a piece to the last frame. */
  private addPiece(buffer: number, bytes: number): void {
    const frame = this.count - 1;
    this.pieceBuffer[this.pieceCount] = buffer;
    this.pieceLength[this.pieceCount] = bytes;
    this.pieceCount++;
    this.pieces[frame] = (this.pieces[frame] as number) + 1;
    this.length[frame] = (this.length[frame] as number) + bytes;
  }

  /** Each frame is one piece again. */
  private forgetMerged(): void {
    this.merged = false;
    for (let i = 0; i < RECEIVE_BATCH; i++) {
      this.pieces[i] = 1;
      this.firstPiece[i] = i;
    }
  }
}
