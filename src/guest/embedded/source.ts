/** Sends test frames as fast as the device takes them, or at a given rate. */
import { SluiceError } from '../../base/errors.ts';
import { monotonicNs } from '../../os/clock.ts';
import type { Timer } from '../../os/poll-loop.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import type { Role, RoleContext, RoleCounts } from './role.ts';
import { NO_COUNTS } from './role.ts';
import { framesFor } from './send-window.ts';
import { buildFrame, needsSegmentation, stamp, stampAt } from './test-frame.ts';

/** Frames that one turn sends at most. */
const BATCH = 64;

/** A rate that fell behind by more than this many frames is not made up for. */
const CATCH_UP = 1024;

/** Below this, the next frame is waited for by polling. Timers are no finer than a millisecond. */
const SPIN_NS = 1e6;

export interface SourceTarget {
  readonly mac: Uint8Array;
  readonly flow: number;
}

export interface SourceOptions {
  /** Served in turn, frame by frame. */
  readonly targets: readonly SourceTarget[];
  /** Bytes of a frame, without virtio_net_hdr. */
  readonly frameBytes: number;
  /** Frames a second; undefined: as many as possible. */
  readonly framesPerSecond?: number;
  /** Frames on their way at most; undefined: as many as the guest was attached for. */
  readonly window?: number;
  /** Stop after so many frames; undefined: never. */
  readonly frames?: number;
}

export class Source implements Role {
  private readonly context: RoleContext;
  private readonly options: SourceOptions;
  private readonly addresses: Float64Array;
  private readonly bytes: number;
  /** The device has nothing to do with the frames but to send them. */
  private readonly plain: boolean;
  /** By frame of the pool: where its stamp is (in words), its payload's hash, its target. */
  private readonly stampIndex: Uint32Array;
  private readonly hash: Int32Array;
  private readonly target: Uint8Array;
  /** By target: the next sequence number, which is also the number of frames sent (modulo 2^32). */
  private readonly sequence: Uint32Array;
  /** Frames that are not in the queue, first in, first out. */
  private readonly free: Uint16Array;
  private freeHead = 0;
  private freeTail = 0;
  private freeCount: number;
  /** Free frames beyond the window: they are not to be used. */
  private readonly spare: number;
  /** The queue is reaped when fewer frames than this could be sent: not at each turn. */
  private readonly reapBelow: number;
  private running = true;
  /** Frames still to send, frames sent, and those of the present rate's count. */
  private readonly left = new Float64Array(1);
  private readonly sentFrames = new Float64Array(1);
  private paceStart = 0;
  private paceSent = 0;
  private nextDue = 0;
  private timer: Timer | undefined;

  /** @throws SluiceError `config` for frames that the pool, or the test format, does not hold. */
  constructor(context: RoleContext, options: SourceOptions) {
    const { pair, ram, mac, mtu } = context;
    const { targets, frameBytes } = options;
    const { sendPool: pool } = pair;
    this.context = context;
    this.options = options;
    this.bytes = NET_HEADER_BYTES + frameBytes;
    this.plain = !needsSegmentation(frameBytes, mtu);
    if (this.bytes > pool.bytes) {
      throw new SluiceError(
        'config',
        `frames of ${frameBytes} bytes from a guest that was attached for ${pool.bytes - NET_HEADER_BYTES}`,
      );
    }
    if (targets.length < 1 || targets.length > Math.min(pool.count, 256)) {
      throw new SluiceError('config', `${targets.length} targets of one source`, {
        remedy: `give it 1 to ${Math.min(pool.count, 256)}`,
      });
    }
    const window = Math.min(context.sendWindow, options.window ?? pool.count);
    // No more than it takes: frames are used in turn, and each takes its place in the caches. As many for each target.
    const most = Math.min(pool.count, Math.max(framesFor(window, pool.count), targets.length));
    const count = most - (most % targets.length);
    this.addresses = pool.addresses();
    this.stampIndex = new Uint32Array(count);
    this.hash = new Int32Array(count);
    this.target = new Uint8Array(count);
    this.sequence = new Uint32Array(targets.length);
    this.free = Uint16Array.from({ length: count }, (_, i) => i);
    this.freeCount = count;
    const usable = Math.min(window, count);
    this.spare = count - usable;
    this.reapBelow = Math.min(BATCH, Math.ceil(usable / 2));
    this.left[0] = options.frames ?? Number.POSITIVE_INFINITY;
    for (let frame = 0; frame < count; frame++) {
      const index = frame % targets.length;
      const { mac: destination, flow } = targets[index] as SourceTarget;
      const offset = pool.first + frame * pool.stride;
      this.target[frame] = index;
      this.stampIndex[frame] = (offset + stampAt(frameBytes, mtu)) >>> 2;
      this.hash[frame] = buildFrame(ram, offset, {
        source: mac,
        destination,
        flow,
        length: frameBytes,
        mtu,
        seed: frame,
      });
    }
  }

  get drained(): boolean {
    return this.freeCount === this.free.length;
  }

  poll(): number {
    const scarce = this.freeCount - this.spare < this.reapBelow;
    const reaped = scarce || !this.running ? this.reap() : 0;
    if (!this.running) return reaped;
    const sendable = this.freeCount - this.spare;
    let count = sendable < BATCH ? sendable : BATCH;
    if (this.options.framesPerSecond !== undefined) count = this.paced(count);
    const left = this.left[0] as number;
    if (count > left) count = left;
    if (count === 0) return reaped;
    const { transmit } = this.context.pair;
    const { free, addresses, stampIndex, hash, target, sequence, bytes, plain } = this;
    const { u32 } = this.context.ram;
    let head = this.freeHead;
    let sent = 0;
    while (sent < count) {
      const frame = free[head] as number;
      const index = target[frame] as number;
      const number = sequence[index] as number;
      stamp(u32, stampIndex[frame] as number, hash[frame] as number, number);
      const isSent = plain
        ? transmit.sendPlain(addresses, frame, bytes, frame)
        : transmit.send(addresses, frame, bytes, frame);
      if (!isSent) break;
      sequence[index] = number + 1;
      head = head + 1 === free.length ? 0 : head + 1;
      sent++;
    }
    this.freeHead = head;
    this.freeCount -= sent;
    this.left[0] = left - sent;
    this.sentFrames[0] = (this.sentFrames[0] as number) + sent;
    this.paceSent += sent;
    transmit.flush();
    return reaped + sent;
  }

  arm(): boolean {
    const { queue } = this.context.pair.transmit;
    // Completions matter to a source that waits for frames only: to send, or to be drained.
    const sendable = this.freeCount - this.spare;
    const waits = !this.running || sendable < this.reapBelow;
    if (waits && queue.outstanding > 0 && queue.enableCalls()) return true;
    if (!this.running || sendable === 0 || (this.left[0] as number) === 0) return false;
    const wait = this.nextDue - monotonicNs();
    if (wait < SPIN_NS) return true;
    this.timer = this.context.loop.setTimer(wait / 1000, () => {
      this.timer = undefined;
    });
    return false;
  }

  disarm(): void {
    this.context.pair.transmit.queue.disableCalls();
    this.timer?.cancel();
    this.timer = undefined;
  }

  stop(): void {
    this.running = false;
  }

  counts(): RoleCounts {
    const sent = this.sentFrames[0] as number;
    const byFlow: Record<number, number> = {};
    for (const [index, { flow }] of this.options.targets.entries()) {
      // Frames go to the targets in turn, so the counts differ by one at most.
      const share = Math.floor(sent / this.sequence.length);
      byFlow[flow] = (byFlow[flow] ?? 0) + share + (index < sent % this.sequence.length ? 1 : 0);
    }
    return { ...NO_COUNTS, sent, sentBytes: sent * this.options.frameBytes, sentByFlow: byFlow };
  }

  /** Of `wanted` frames, how many the rate allows now. */
  private paced(wanted: number): number {
    const perNs = (this.options.framesPerSecond as number) / 1e9;
    const now = monotonicNs();
    if (this.paceStart === 0) this.paceStart = now;
    const due = Math.floor((now - this.paceStart) * perNs) + 1 - this.paceSent;
    if (due > CATCH_UP) {
      this.paceStart = now;
      this.paceSent = 0;
      return Math.min(1, wanted);
    }
    const count = Math.max(0, Math.min(due, wanted));
    this.nextDue = this.paceStart + (this.paceSent + count) / perNs;
    return count;
  }

  private reap(): number {
    const { transmit } = this.context.pair;
    const { free } = this;
    const { done } = transmit;
    let total = 0;
    for (;;) {
      const count = transmit.reap();
      let tail = this.freeTail;
      for (let i = 0; i < count; i++) {
        free[tail] = done[i] as number;
        tail = tail + 1 === free.length ? 0 : tail + 1;
      }
      this.freeTail = tail;
      this.freeCount += count;
      total += count;
      if (count < done.length) return total;
    }
  }
}
