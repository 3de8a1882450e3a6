/**
 * Sends one frame at a time to an echo and measures the round trip: the next goes out when the last
 * has come back, or is given up. Or how long the device takes to notice each.
 */

import { SluiceError } from '../../base/errors.ts';
import { Histogram } from '../../base/histogram.ts';
import { monotonicNs } from '../../os/clock.ts';
import type { Timer } from '../../os/poll-loop.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { arrivals } from './arrivals.ts';
import type { Role, RoleContext, RoleCounts } from './role.ts';
import { NO_COUNTS } from './role.ts';
import { buildFrame, flowOf, stamp, stampAt, stampOf } from './test-frame.ts';

const TIMEOUT_NS = 1e9;
/** Below this, the time for the next frame is waited for by polling. */
const SPIN_NS = 1e6;
/** While it waits, the clock is read once in so many turns. */
const LOOKS_PER_CLOCK = 64;

export interface PingOptions {
  /** The echo's address. */
  readonly mac: Uint8Array;
  readonly flow: number;
  readonly frameBytes: number;
  /**
   * Microseconds between a reply and the next frame: 0 measures a path that is awake, some
   * thousand one whose ends have gone to sleep.
   */
  readonly intervalUs?: number;
  /**
   * What ends the time that is measured: the `echo` (default); or that the device has `taken` the frame,
   * for which the guest watches the ring: how long the device takes to notice; or that a watching guest of
   * the same process has `found` it.
   */
  readonly until?: PingEnd;
}

export type PingEnd = 'echo' | 'taken' | 'found';

export class Ping implements Role {
  private readonly context: RoleContext;
  private readonly options: PingOptions;
  private readonly addresses: Float64Array;
  private readonly stampIndex: number;
  private readonly hash: number;
  private readonly intervalNs: number;
  private readonly until: PingEnd;
  private readonly histogram = new Histogram();
  private sequence = 0;
  private waiting = false;
  private sentAt = 0;
  private nextAt = 0;
  private timeouts = 0;
  private looks = 0;
  private received = 0;
  private foreign = 0;
  private running = true;
  private timer: Timer | undefined;

  constructor(context: RoleContext, options: PingOptions) {
    const { pair, ram, mac, mtu } = context;
    const { sendPool: pool } = pair;
    this.context = context;
    this.options = options;
    this.intervalNs = (options.intervalUs ?? 0) * 1000;
    this.until = options.until ?? 'echo';
    if (NET_HEADER_BYTES + options.frameBytes > pool.bytes) {
      throw new SluiceError(
        'config',
        `frames of ${options.frameBytes} bytes from a guest that was attached for ${pool.bytes - NET_HEADER_BYTES}`,
      );
    }
    this.addresses = pool.addresses();
    this.stampIndex = (pool.first + stampAt(options.frameBytes, mtu)) >>> 2;
    this.hash = buildFrame(ram, pool.first, {
      source: mac,
      destination: options.mac,
      flow: options.flow,
      length: options.frameBytes,
      mtu,
      seed: 0,
    });
  }

  get drained(): boolean {
    return this.context.pair.transmit.queue.outstanding === 0;
  }

  poll(): number {
    const { receive, transmit } = this.context.pair;
    const reaped = transmit.reap();
    const count = receive.receive();
    if (count > 0) {
      for (let frame = 0; frame < count; frame++) this.take(frame);
      receive.release();
    }
    if (!this.running) return reaped + count;
    if (this.waiting) {
      if (this.until === 'found') this.lookForArrival();
      else if (this.until === 'taken') this.lookAtRing();
      // Who waits looks at the clock now and then only: a turn without it is twice as fast.
      if (this.waiting && ++this.looks % LOOKS_PER_CLOCK !== 0) return reaped + count;
    }
    const now = monotonicNs();
    if (this.waiting && now - this.sentAt > TIMEOUT_NS) {
      this.timeouts++;
      this.waiting = false;
      this.nextAt = now;
    }
    if (this.waiting || now < this.nextAt || transmit.queue.outstanding > 0) {
      return reaped + count;
    }
    this.sequence = (this.sequence + 1) >>> 0;
    stamp(this.context.ram.u32, this.stampIndex, this.hash, this.sequence);
    transmit.send(this.addresses, 0, NET_HEADER_BYTES + this.options.frameBytes, 0);
    this.waiting = true;
    this.sentAt = monotonicNs();
    transmit.flush();
    return reaped + count + 1;
  }

  arm(): boolean {
    const { receive, transmit } = this.context.pair;
    if (this.waiting && this.until !== 'echo') return true;
    if (receive.queue.enableCalls()) return true;
    // The frame itself comes back only after the device has taken it, unless it was lost.
    const stuck = !this.waiting && transmit.queue.outstanding > 0;
    if (stuck && transmit.queue.enableCalls()) return true;
    if (!this.running) return false;
    const due = this.waiting ? this.sentAt + TIMEOUT_NS : this.nextAt;
    const wait = due - monotonicNs();
    if (wait < SPIN_NS) return true;
    this.timer = this.context.loop.setTimer(wait / 1000, () => {
      this.timer = undefined;
    });
    return false;
  }

  disarm(): void {
    const { receive, transmit } = this.context.pair;
    receive.queue.disableCalls();
    transmit.queue.disableCalls();
    this.timer?.cancel();
    this.timer = undefined;
  }

  stop(): void {
    this.running = false;
  }

  counts(): RoleCounts {
    const { histogram, options, received } = this;
    const sent = this.sequence;
    return {
      ...NO_COUNTS,
      sent,
      sentBytes: sent * options.frameBytes,
      sentByFlow: { [options.flow]: sent },
      received,
      receivedBytes: received * options.frameBytes,
      foreign: this.foreign,
      roundTrips: histogram.count,
      timeouts: this.timeouts,
      latencyUs: { p50: histogram.quantile(0.5) / 1000, p99: histogram.quantile(0.99) / 1000 },
    };
  }

  private take(frame: number): void {
    const { ram, pair } = this.context;
    const at = pair.receive.offset[frame] as number;
    const flow = flowOf(ram, at, pair.receive.length[frame] as number);
    if (flow !== this.options.flow || ram.u32[stampOf(ram, at)] !== this.sequence) {
      this.foreign++;
      return;
    }
    this.received++;
    if (this.waiting && this.until === 'echo') this.record(monotonicNs());
  }

  private lookAtRing(): void {
    if (this.context.pair.transmit.queue.outstanding === 0) this.record(monotonicNs());
  }

  private lookForArrival(): void {
    const found = arrivals[this.options.flow] as number;
    if (found >= this.sentAt) this.record(found);
  }

  private record(now: number): void {
    this.histogram.record(now - this.sentAt);
    this.waiting = false;
    this.nextAt = now + this.intervalNs;
  }
}
