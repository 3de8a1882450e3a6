/**
 * The virtio network device (VIRTIO 1.3 §5.1): a port of a switch with a guest's driver behind it.
 *
 * Queue 2n receives, queue 2n + 1 transmits (the guest's view). The control queue, where there is
 * one, is the VMM's.
 */
import { hasBit } from '../../base/bits.ts';
import type { CounterBlock } from '../../base/counters.ts';
import { SluiceError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { TokenBucket } from '../../base/token-bucket.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import {
  newPortCounters,
  PORT_COUNTER_INDEX,
  type Port,
  type PortCounter,
  type PortOwner,
} from '../../net/port.ts';
import { rarpAnnouncement } from '../../net/rarp.ts';
import type { Poller, Timer } from '../../os/poll-loop.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import { type DeviceQueue, type Direction, RingError } from '../../ring/device-queue.ts';
import { VIRTIO_F_VERSION_1, VIRTIO_ID_NET } from '../../spec/virtio.ts';
import {
  NET_CONFIG_DUPLEX,
  NET_CONFIG_MAC,
  NET_CONFIG_MAX_QUEUE_PAIRS,
  NET_CONFIG_MTU,
  NET_CONFIG_SPEED,
  NET_CONFIG_STATUS,
  NET_DUPLEX_UNKNOWN,
  NET_HEADER_BYTES,
  NET_HEADER_LEGACY_BYTES,
  NET_SPEED_UNKNOWN,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_S_LINK_UP,
} from '../../spec/virtio-net.ts';
import type { VirtioDevice } from '../virtio-device.ts';
import { CONFIG_FEATURES, offeredFeatures, receiveOffloads } from './features.ts';
import { flowHash } from './flow-hash.ts';
import { DELIVERED, HELD, NO_BUFFER, ReceiveQueue } from './receive-queue.ts';

/** Queue pairs of one device (VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX is 0x8000; QEMU's limit is this). */
export const MAX_QUEUE_PAIRS = 256;

/** QEMU's vhost-user takes no more. */
const MAX_RING = 1024;

/** Configuration space up to and with `duplex`. */
const CONFIG_BYTES = NET_CONFIG_DUPLEX + 1;

export interface VirtioNetOptions {
  /** Unique in the lane, such as `web/net0`. */
  readonly name: string;
  readonly path: DataPath;
  readonly mac: Uint8Array;
  /** Queue pairs, 1 to {@link MAX_QUEUE_PAIRS}. */
  readonly queuePairs: number;
  /** Shown to the driver, if given (VIRTIO_NET_F_MTU). */
  readonly mtu?: number;
  /** Feature bits that are not to be offered. */
  readonly withheld?: bigint;
  /** Shapes what the guest sends: beyond it, its queue waits. */
  readonly txLimit?: TokenBucket;
  readonly counters?: CounterBlock<PortCounter>;
  readonly log: Logger;
}

export class VirtioNet implements VirtioDevice, Port, Poller {
  readonly type = VIRTIO_ID_NET;
  readonly maxQueueSize = MAX_RING;
  readonly configBytes = CONFIG_BYTES;
  readonly configFeatures = CONFIG_FEATURES;
  readonly name: string;
  readonly mac: Uint8Array;
  readonly counters: CounterBlock<PortCounter>;
  readonly features: bigint;
  readonly maxQueues: number;
  offloads = 0;
  onConfigChange: (() => void) | undefined;
  onBroken: ((reason: Error) => void) | undefined;
  /** Where the guest's frames go. Frames sent before it is set are dropped. */
  owner: PortOwner | undefined;
  readonly #path: DataPath;
  readonly #options: VirtioNetOptions;
  readonly #values: Float64Array;
  /** Started queues by index, and whether each is enabled. */
  readonly #queues: (DeviceQueue | undefined)[];
  readonly #enabled: boolean[];
  /** Queues that are started and enabled. */
  #transmit: DeviceQueue[] = [];
  #receive: ReceiveQueue[] = [];
  #linkUp = true;
  /** As the configuration space shows it; 0: none. */
  #mtu: number;
  #driverFeatures = 0n;
  #headerBytes = NET_HEADER_LEGACY_BYTES;
  #rateTimer: Timer | undefined;
  /** Frames wait for buffers of the driver. */
  #isHolding = false;
  /** Why this device's own code failed: not for its neighbours to suffer from. */
  #failure: unknown;

  constructor(options: VirtioNetOptions) {
    const { queuePairs } = options;
    if (!Number.isInteger(queuePairs) || queuePairs < 1 || queuePairs > MAX_QUEUE_PAIRS) {
      throw new SluiceError('config', `${options.name}: ${queuePairs} queue pairs`, {
        remedy: `give 1 to ${MAX_QUEUE_PAIRS}`,
      });
    }
    this.#options = options;
    this.#path = options.path;
    this.name = options.name;
    this.mac = options.mac;
    this.#mtu = options.mtu ?? 0;
    this.counters = options.counters ?? newPortCounters();
    this.#values = this.counters.values;
    this.maxQueues = 2 * queuePairs;
    this.features =
      offeredFeatures(queuePairs, options.mtu !== undefined) & ~(options.withheld ?? 0n);
    this.#queues = new Array(this.maxQueues).fill(undefined);
    this.#enabled = new Array(this.maxQueues).fill(false);
  }

  direction(index: number): Direction {
    return index % 2 === 0 ? 'writable' : 'readable';
  }

  readConfig(): Uint8Array {
    const bytes = new Uint8Array(CONFIG_BYTES);
    const view = new DataView(bytes.buffer);
    bytes.set(this.mac, NET_CONFIG_MAC);
    view.setUint16(NET_CONFIG_STATUS, this.#linkUp ? VIRTIO_NET_S_LINK_UP : 0, true);
    view.setUint16(NET_CONFIG_MAX_QUEUE_PAIRS, this.#options.queuePairs, true);
    view.setUint16(NET_CONFIG_MTU, this.#mtu, true);
    view.setUint32(NET_CONFIG_SPEED, NET_SPEED_UNKNOWN, true);
    view.setUint8(NET_CONFIG_DUPLEX, NET_DUPLEX_UNKNOWN);
    return bytes;
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    // A driver without VIRTIO_F_VERSION_1 may write its address here (§5.1.4.2); the address is the
    // configuration's to give, so that nothing changes.
    if (
      offset + bytes.length <= NET_CONFIG_MAC + 6 &&
      !hasBit(this.#driverFeatures, VIRTIO_F_VERSION_1)
    )
      return;
    throw new SluiceError(
      'protocol',
      `${this.name}: the driver may not write ${bytes.length} bytes of configuration at ${offset}`,
    );
  }

  setDriverFeatures(features: bigint): void {
    this.#driverFeatures = features;
    const withCount =
      hasBit(features, VIRTIO_F_VERSION_1) || hasBit(features, VIRTIO_NET_F_MRG_RXBUF);
    this.#headerBytes = withCount ? NET_HEADER_BYTES : NET_HEADER_LEGACY_BYTES;
    this.offloads = receiveOffloads(features);
  }

  startQueue(index: number, queue: DeviceQueue): void {
    this.#queues[index] = queue;
    queue.disableKicks();
    this.#rebuild();
  }

  stopQueue(index: number): void {
    const queue = this.#queues[index];
    this.#queues[index] = undefined;
    for (const receive of this.#receive) if (receive.queue === queue) receive.rewind();
    this.#rebuild();
  }

  setQueueEnabled(index: number, enabled: boolean): void {
    if (this.#enabled[index] === enabled) return;
    this.#enabled[index] = enabled;
    this.#rebuild();
  }

  reset(): void {
    this.#queues.fill(undefined);
    this.#enabled.fill(false);
    this.#rebuild();
    this.setDriverFeatures(0n);
  }

  /** Sets the link up or down; the driver is told, and frames to it are dropped while it is down. */
  setLink(up: boolean): void {
    if (this.#linkUp === up) return;
    this.#linkUp = up;
    this.onConfigChange?.();
  }

  get linkUp(): boolean {
    return this.#linkUp;
  }

  /** The driver has started at least one receive queue. */
  get running(): boolean {
    return this.#receive.length > 0;
  }

  /** The started queues, for `sluice show rings`. */
  queues(): readonly {
    readonly index: number;
    readonly enabled: boolean;
    readonly queue: DeviceQueue;
  }[] {
    return this.#queues.flatMap((queue, index) =>
      queue === undefined ? [] : [{ index, enabled: this.#enabled[index] === true, queue }],
    );
  }

  /** Sends a frame in the guest's name, such as the RARP that tells of its move. */
  inject(frame: Uint8Array): void {
    const { arena, burst } = this.#path;
    const at = arena.allocate(NET_HEADER_BYTES + frame.length, 'sluice-inject');
    try {
      arena.bytes.set(frame, at + NET_HEADER_BYTES);
      burst.clear();
      burst.chains.add(at, NET_HEADER_BYTES + frame.length);
      burst.sourceHeaderBytes = NET_HEADER_BYTES;
      burst.gather();
      this.owner?.forward(this, burst);
      this.owner?.publish();
    } finally {
      arena.unmap(at, NET_HEADER_BYTES + frame.length);
    }
  }

  announce(mac: Uint8Array): void {
    this.inject(rarpAnnouncement(mac));
  }

  setMtu(mtu: number): void {
    this.#mtu = mtu;
  }

  countKick(): void {
    this.#values[KICKS] = (this.#values[KICKS] as number) + 1;
  }

  countCall(): void {
    this.#values[CALLS] = (this.#values[CALLS] as number) + 1;
  }

  poll(): number {
    if (this.#failure !== undefined) throw this.#failure;
    const queues = this.#transmit;
    let work = this.#isHolding ? this.#drain() : 0;
    for (let i = 0; i < queues.length; i++) work += this.#pollQueue(queues[i] as DeviceQueue);
    return work;
  }

  /** Delivers what waited for buffers. Returns frames. */
  #drain(): number {
    const values = this.#values;
    let frames = 0;
    let isHolding = false;
    try {
      for (const receive of this.#receive) {
        if (receive.held === 0) continue;
        const count = receive.drain();
        if (count > 0) receive.publish();
        frames += count;
        isHolding ||= receive.held > 0;
        values[RX_FRAMES] = (values[RX_FRAMES] as number) + count;
        values[RX_BYTES] = (values[RX_BYTES] as number) + receive.runBytes;
        values[RX_DROP_TOO_BIG] = (values[RX_DROP_TOO_BIG] as number) + receive.tooBig;
      }
    } catch (error) {
      this.#break(error);
    }
    this.#isHolding = isHolding;
    return frames;
  }

  arm(): boolean {
    let pending = false;
    for (const { queue, held } of this.#receive) {
      if (held > 0) pending = queue.enableKicks() || pending;
    }
    const limit = this.#options.txLimit;
    if (limit !== undefined) {
      limit.refill(this.#path.loop.now);
      if (limit.waitNs() > 0) {
        // No kicks are wanted now: the timer wakes the loop, and the queue is looked at then.
        this.#rateTimer ??= this.#path.loop.setTimer(limit.waitNs() / 1000, () => {
          this.#rateTimer = undefined;
        });
        return pending;
      }
    }
    for (const queue of this.#transmit) pending = queue.enableKicks() || pending;
    return pending;
  }

  disarm(): void {
    for (const queue of this.#transmit) queue.disableKicks();
    if (!this.#isHolding) return;
    for (const { queue, held } of this.#receive) if (held > 0) queue.disableKicks();
  }

  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    const values = this.#values;
    const queues = this.#receive;
    if (queues.length === 0 || !this.#linkUp) {
      values[RX_DROP_LINK_DOWN] = (values[RX_DROP_LINK_DOWN] as number) + count;
      return;
    }
    let frameCount = 0;
    let byteCount = 0;
    try {
      for (let i = 0; i < count; i++) {
        if (queues.length === 1 && !tagged) {
          const queue = queues[0] as ReceiveQueue;
          const run = queue.putRun(burst, frames, i, count);
          frameCount += run;
          byteCount += queue.runBytes;
          i += run;
          if (i === count) break;
        }
        const slot = frames[i] as number;
        const queue = queues[
          queues.length === 1 ? 0 : flowHash(burst, slot) % queues.length
        ] as ReceiveQueue;
        const header = tagged ? burst.tag(slot) : (burst.headerAt[slot] as number);
        const tagBytes = tagged ? 4 : 0;
        const result = queue.put(
          burst,
          slot,
          header,
          (burst.headerLength[slot] as number) + tagBytes,
        );
        if (result === DELIVERED) {
          frameCount++;
          byteCount += (burst.frameLength[slot] as number) + tagBytes;
        } else if (result === HELD) {
          this.#isHolding = true;
        } else {
          const counter = result === NO_BUFFER ? RX_DROP_NO_BUFFER : RX_DROP_TOO_BIG;
          values[counter] = (values[counter] as number) + 1;
        }
      }
    } catch (error) {
      this.#break(error);
    }
    values[RX_FRAMES] = (values[RX_FRAMES] as number) + frameCount;
    values[RX_BYTES] = (values[RX_BYTES] as number) + byteCount;
  }

  flush(): void {
    const queues = this.#receive;
    try {
      for (let i = 0; i < queues.length; i++) (queues[i] as ReceiveQueue).publish();
    } catch (error) {
      this.#break(error);
    }
  }

  #pollQueue(queue: DeviceQueue): number {
    const { burst, loop } = this.#path;
    const limit = this.#options.txLimit;
    if (limit !== undefined) {
      limit.refill(loop.now);
      if (limit.waitNs() > 0) return 0;
    }
    const { chains } = burst;
    burst.clear();
    let count = 0;
    try {
      count = queue.collect(chains, BATCH);
    } catch (error) {
      this.#break(error);
      return 0;
    }
    if (count === 0) return 0;
    burst.sourceHeaderBytes = this.#headerBytes;
    burst.gather();
    const { owner } = this;
    if (owner !== undefined) owner.forward(this, burst);
    if (limit !== undefined) limit.take(8 * burst.totalBytes());
    queue.completeRange(chains, 0, count);
    queue.publish();
    if (owner !== undefined) owner.publish();
    return count;
  }

  /** Started and enabled queues, in the lists that the hot path walks. */
  #rebuild(): void {
    for (const receive of this.#receive) receive.rewind();
    this.#releaseReceive();
    const active = this.#queues.map((queue, index) =>
      this.#enabled[index] === true ? queue : undefined,
    );
    const mergeable = hasBit(this.#driverFeatures, VIRTIO_NET_F_MRG_RXBUF);
    this.#transmit = active.filter(
      (queue, index) => queue !== undefined && index % 2 === 1,
    ) as DeviceQueue[];
    this.#receive = active.flatMap((queue, index) =>
      queue === undefined || index % 2 === 1
        ? []
        : [new ReceiveQueue(queue, this.#path, this.#headerBytes, mergeable)],
    );
  }

  /** What waited for buffers is lost with the queue. */
  #releaseReceive(): void {
    const values = this.#values;
    for (const receive of this.#receive) {
      values[RX_DROP_NO_BUFFER] = (values[RX_DROP_NO_BUFFER] as number) + receive.held;
      receive.release();
    }
    this.#isHolding = false;
  }

  /**
   * The guest broke its own device: its queues are no longer looked at. Any other error is a failure of
   * ours, and thrown in this device's next turn: now may be the turn of a device that sent it frames.
   */
  #break(error: unknown): void {
    this.#releaseReceive();
    this.#queues.fill(undefined);
    this.#transmit = [];
    this.#receive = [];
    if (!(error instanceof RingError)) {
      this.#failure = error;
      return;
    }
    const fields = { port: this.name, fault: error.fault };
    if (error.fault === 'index-back') {
      // Linux takes unused buffers back after a reset (virtqueue_detach_unused_buf), and User-Mode
      // Linux disables its rings only after that: no fault, but the end of this life.
      this.#options.log.warn(
        `${this.name}: ${error.message}: its rings rest until set up anew`,
        fields,
      );
      return;
    }
    this.#options.log.error(`${this.name}: ${error.message}`, fields);
    this.onBroken?.(error);
  }
}

const KICKS = PORT_COUNTER_INDEX.kicks;
const CALLS = PORT_COUNTER_INDEX.calls;
const RX_FRAMES = PORT_COUNTER_INDEX.rx_frames;
const RX_BYTES = PORT_COUNTER_INDEX.rx_bytes;
const RX_DROP_LINK_DOWN = PORT_COUNTER_INDEX.rx_drop_link_down;
const RX_DROP_NO_BUFFER = PORT_COUNTER_INDEX.rx_drop_no_buffer;
const RX_DROP_TOO_BIG = PORT_COUNTER_INDEX.rx_drop_too_big;
