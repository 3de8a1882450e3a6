/** Takes frames, checks them and counts what it finds. */

import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { FlowTracker } from './flow-tracker.ts';
import type { RoleContext, RoleCounts } from './role.ts';
import { NO_COUNTS } from './role.ts';
import { FrameCheck, flowOf, hasGoodMetadata, MAX_FLOWS, stampOf } from './test-frame.ts';

/** Checksums are verified on one frame of so many, unless asked otherwise. */
export const DEFAULT_VERIFY_EVERY = 64;

export interface SinkOptions {
  /** Verify the checksum of every Nth frame: 1 for all of them. */
  readonly verifyEvery?: number;
}

export class Sink {
  readonly tracker = new FlowTracker();
  private readonly context: RoleContext;
  private readonly verifyEvery: number;
  private readonly rounds: number;
  private untilVerify: number;
  private readonly check = new FrameCheck();
  // One cell each: a number in a field of an object would be allocated anew past 2^31.
  private readonly frames = new Float64Array(1);
  private readonly flowBytes = new Float64Array(MAX_FLOWS);
  private verified = 0;
  private corrupt = 0;
  private badMetadata = 0;
  private foreign = 0;

  constructor(context: RoleContext, options: SinkOptions = {}) {
    this.context = context;
    this.verifyEvery = options.verifyEvery ?? DEFAULT_VERIFY_EVERY;
    this.untilVerify = this.verifyEvery;
    const { queue, offset } = context.pair.receive;
    this.rounds = Math.ceil(queue.size / offset.length);
  }

  /** Takes what has arrived, a ring's worth at most. Returns frames taken. */
  poll(): number {
    let total = 0;
    for (let round = 0; round < this.rounds; round++) {
      const taken = this.takeBatch();
      if (taken === 0) break;
      total += taken;
    }
    return total;
  }

  counts(): RoleCounts {
    const { missing, reordered, duplicates } = this.tracker;
    const byFlow: Record<number, number> = {};
    let receivedBytes = 0;
    for (const [flow, bytes] of this.flowBytes.entries()) {
      if (bytes === 0) continue;
      byFlow[flow] = bytes;
      receivedBytes += bytes;
    }
    return {
      ...NO_COUNTS,
      received: this.frames[0] as number,
      receivedBytes,
      receivedBytesByFlow: byFlow,
      missing,
      reordered,
      duplicates,
      verified: this.verified,
      corrupt: this.corrupt,
      badMetadata: this.badMetadata,
      foreign: this.foreign,
    };
  }

  private takeBatch(): number {
    const { pair, ram, mtu } = this.context;
    const { receive } = pair;
    const count = receive.receive();
    if (count === 0) return 0;
    const { offset, length } = receive;
    const { tracker, flowBytes } = this;
    const { u32 } = ram;
    let frames = 0;
    for (let i = 0; i < count; i++) {
      const at = offset[i] as number;
      const size = length[i] as number;
      const flow = flowOf(ram, at, size);
      if (flow < 0) {
        this.foreign++;
        continue;
      }
      frames++;
      flowBytes[flow] = (flowBytes[flow] as number) + size;
      tracker.note(flow, u32[stampOf(ram, at)] as number);
      if (!hasGoodMetadata(ram, at, size, mtu)) this.badMetadata++;
      if (--this.untilVerify === 0) {
        this.untilVerify = this.verifyEvery;
        this.verify(i, flow);
      }
    }
    this.frames[0] = (this.frames[0] as number) + frames;
    receive.release();
    return count;
  }

  private verify(frame: number, flow: number): void {
    const { pair, ram } = this.context;
    const { receive } = pair;
    const { check } = this;
    const { first, stride } = receive.pool;
    const length = receive.length[frame] as number;
    const piece = receive.firstPiece[frame] as number;
    const pieces = receive.pieces[frame] as number;
    const inFirst =
      pieces === 1 ? length : (receive.pieceLength[piece] as number) - NET_HEADER_BYTES;
    check.begin(ram, receive.offset[frame] as number, inFirst, flow, length);
    for (let i = piece + 1; i < piece + pieces; i++) {
      const at = first + (receive.pieceBuffer[i] as number) * stride;
      check.continue(ram, at, receive.pieceLength[i] as number);
    }
    this.verified++;
    if (!check.end()) this.corrupt++;
  }
}
