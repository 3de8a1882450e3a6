/**
 * Sends every frame back to whoever sent it, from the buffers in which it came: they go to the
 * receive queue again when the device has sent them.
 */
import { SegmentList } from '../../ring/driver-queue.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_FLAGS,
  NET_HEADER_NUM_BUFFERS,
  VIRTIO_NET_HDR_F_DATA_VALID,
} from '../../spec/virtio-net.ts';
import type { Role, RoleContext, RoleCounts } from './role.ts';
import { NO_COUNTS } from './role.ts';
import { swapAddresses } from './test-frame.ts';

/** Ends the list of a frame's buffers. */
const NONE = 0xffff;

export class Echo implements Role {
  private readonly context: RoleContext;
  private readonly addresses: Float64Array;
  private readonly pieces: SegmentList;
  /** By buffer: the next buffer of the same frame. A frame's tag is its first buffer. */
  private readonly nextBuffer: Uint16Array;
  private running = true;
  private received = 0;
  private receivedBytes = 0;
  private sent = 0;
  private sentBytes = 0;

  constructor(context: RoleContext) {
    this.context = context;
    const { pool, queue } = context.pair.receive;
    this.addresses = pool.addresses();
    this.pieces = new SegmentList(queue.size);
    this.nextBuffer = new Uint16Array(pool.count);
  }

  get drained(): boolean {
    return this.context.pair.transmit.queue.outstanding === 0;
  }

  poll(): number {
    const reaped = this.reap();
    const { receive, transmit } = this.context.pair;
    const count = receive.receive();
    if (count === 0) return reaped;
    let returned = false;
    for (let frame = 0; frame < count; frame++) {
      this.received++;
      this.receivedBytes += receive.length[frame] as number;
      this.link(frame);
      if (!(this.running && this.send(frame))) {
        // Stopped, or no room to send: dropped here, as a host would.
        this.giveBack(receive.pieceBuffer[receive.firstPiece[frame] as number] as number);
        returned = true;
      }
    }
    transmit.flush();
    if (returned) receive.queue.publish();
    return reaped + count;
  }

  arm(): boolean {
    const { receive, transmit } = this.context.pair;
    if (receive.queue.enableCalls()) return true;
    // Buffers that have been sent are missed only when few are left to receive into.
    const scarce = 2 * receive.queue.outstanding < receive.pool.count || !this.running;
    return scarce && transmit.queue.outstanding > 0 && transmit.queue.enableCalls();
  }

  disarm(): void {
    const { receive, transmit } = this.context.pair;
    receive.queue.disableCalls();
    transmit.queue.disableCalls();
  }

  stop(): void {
    this.running = false;
  }

  counts(): RoleCounts {
    const { received, receivedBytes, sent, sentBytes } = this;
    return { ...NO_COUNTS, received, receivedBytes, sent, sentBytes };
  }

  private send(frame: number): boolean {
    const { pair, ram } = this.context;
    const { receive, transmit } = pair;
    const { nextBuffer, addresses, pieces } = this;
    const at = receive.offset[frame] as number;
    const length = receive.length[frame] as number;
    const first = receive.firstPiece[frame] as number;
    const count = receive.pieces[frame] as number;
    const tag = receive.pieceBuffer[first] as number;
    // What the device said of the frame holds for sending it, but for these two fields.
    const flags = at + NET_HEADER_FLAGS;
    ram.u8[flags] = (ram.u8[flags] as number) & ~VIRTIO_NET_HDR_F_DATA_VALID;
    ram.u16[(at + NET_HEADER_NUM_BUFFERS) >>> 1] = 0;
    swapAddresses(ram, at);
    if (count === 1) {
      if (!transmit.send(addresses, tag, NET_HEADER_BYTES + length, tag)) return false;
    } else {
      pieces.clear();
      for (let buffer = tag, i = first; buffer !== NONE; i++) {
        pieces.push(addresses[buffer] as number, receive.pieceLength[i] as number, false);
        buffer = nextBuffer[buffer] as number;
      }
      if (!transmit.sendPieces(pieces, tag)) return false;
    }
    this.sent++;
    this.sentBytes += length;
    return true;
  }

  /** Notes which buffers a frame consists of. */
  private link(frame: number): void {
    const { pieceBuffer, firstPiece, pieces } = this.context.pair.receive;
    const first = firstPiece[frame] as number;
    const count = pieces[frame] as number;
    for (let i = first; i < first + count; i++) {
      const last = i === first + count - 1;
      this.nextBuffer[pieceBuffer[i] as number] = last ? NONE : (pieceBuffer[i + 1] as number);
    }
  }

  /** Takes back what has been sent, and lets frames arrive in it again. */
  private reap(): number {
    const { receive, transmit } = this.context.pair;
    const count = transmit.reap();
    if (count === 0) return 0;
    for (let i = 0; i < count; i++) this.giveBack(transmit.done[i] as number);
    receive.queue.publish();
    return count;
  }

  private giveBack(first: number): void {
    for (let buffer = first; buffer !== NONE; ) {
      const next = this.nextBuffer[buffer] as number;
      this.context.pair.receive.post(buffer);
      buffer = next;
    }
  }
}
