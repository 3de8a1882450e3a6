/**
 * The virtio block device (VIRTIO 1.3 §5.2): a disk with a guest's driver before it.
 *
 * Each turn takes chains from the queues, reads them into slots (`request.ts`), submits them, and
 * completes what the disk has done. Requests complete in any order; the data never pass through here,
 * the disk reads and writes the guest's memory.
 */
import { hasBit, isPowerOfTwo } from '../../base/bits.ts';
import type { CounterBlock } from '../../base/counters.ts';
import { SluiceError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { type Disk, type DiskQueue, type DiskSink, SECTOR_BYTES } from '../../block/disk.ts';
import { DISK_DISCARD, DISK_FLUSH, DISK_WRITE_ZEROES, REQUEST_FUA } from '../../block/requests.ts';
import type { Arena } from '../../memory/arena.ts';
import type { Poller, PollLoop } from '../../os/poll-loop.ts';
import { BATCH, ChainBatch } from '../../ring/chain-batch.ts';
import { type DeviceQueue, type Direction, RingError } from '../../ring/device-queue.ts';
import { VIRTIO_ID_BLOCK } from '../../spec/virtio.ts';
import {
  BLK_CONFIG_BYTES,
  BLK_CONFIG_WRITEBACK,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_LIFETIME,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_S_OK,
} from '../../spec/virtio-blk.ts';
import type { VirtioDevice } from '../virtio-device.ts';
import { encodeLifetime, encodeSerial } from './answers.ts';
import { type BlockCounter, newBlockCounters } from './counters.ts';
import { DrainWatch } from './drain-watch.ts';
import {
  CONFIG_FEATURES,
  DEFAULT_SEG_MAX,
  EXTRA_SEGMENTS,
  encodeConfig,
  MOST_SEGMENTS,
  mustWriteThrough,
  offeredFeatures,
  rangeSectors,
} from './features.ts';
import { Outcomes } from './outcomes.ts';
import { RANGES_LEFT, RangeRequests } from './range-requests.ts';
import {
  PARSED_BROKEN,
  PARSED_GET_ID,
  PARSED_GET_LIFETIME,
  PARSED_NOTHING,
  PARSED_RANGES,
  PARSED_REQUEST,
  RequestParser,
} from './request.ts';
import {
  RequestSlots,
  STEP_FLUSH,
  STEP_OWN_FLUSH,
  STEP_RANGE,
  STEP_SINGLE,
} from './request-slots.ts';
import { Submitter } from './submitter.ts';

/** QEMU's vhost-user takes no more. */
const MAX_RING = 1024;

/** Queues of one device: QEMU's limit (VIRTIO_QUEUE_MAX). */
export const MAX_BLK_QUEUES = 1024;

/** Requests on their way at once: those of a queue of QEMU's size twice over, */
const DEFAULT_SLOTS = 256;
/** more with more queues, up to this. */
const MOST_DEFAULT_SLOTS = 1024;
const SLOTS_PER_QUEUE = 128;

/** Chains on their way from a queue into slots. A lane does one thing at a time, so one will do. */
const batch = new ChainBatch();

/** Where the guest's choice of the cache mode outlives the process. */
export interface CacheModeStore {
  /** True for a writeback cache; undefined if the guest has not chosen. */
  load(): boolean | undefined;
  save(writeback: boolean): void;
}

export interface VirtioBlkOptions {
  /** Unique in the lane, such as `web/disk0`. */
  readonly name: string;
  /** The device opens a queue on it; it does not close the disk. */
  readonly disk: Disk;
  /** 1 to {@link MAX_BLK_QUEUES}. */
  readonly queues: number;
  /** What GET_ID answers: up to 20 characters of ASCII. */
  readonly serial?: string;
  /** Segments of data in a request: at most two less than the guest's queues are long. */
  readonly segMax?: number;
  /** Requests on their way to the disk at once, all queues together. */
  readonly slots?: number;
  /** The cache mode that a guest finds: true (writeback) unless told otherwise. */
  readonly writeback?: boolean;
  /** VMMs do not tell the guest's choice again after a reconnect: without a store it ends with the process. */
  readonly cacheMode?: CacheModeStore;
  /** Feature bits that are not to be offered. */
  readonly withheld?: bigint;
  readonly counters?: CounterBlock<BlockCounter>;
  readonly arena: Arena;
  readonly loop: PollLoop;
  readonly log: Logger;
}

export class VirtioBlk implements VirtioDevice, Poller, DiskSink {
  readonly type = VIRTIO_ID_BLOCK;
  readonly maxQueueSize = MAX_RING;
  readonly configBytes = BLK_CONFIG_BYTES;
  readonly configFeatures = CONFIG_FEATURES;
  /** So that VIRTIO_F_IN_ORDER is not offered either: a disk completes requests in any order. */
  readonly tracksInflight = true;
  readonly name: string;
  readonly disk: Disk;
  readonly features: bigint;
  readonly maxQueues: number;
  readonly counters: CounterBlock<BlockCounter>;
  onConfigChange: (() => void) | undefined;
  onBroken: ((reason: Error) => void) | undefined;
  onDrained: (() => void) | undefined;
  private readonly options: VirtioBlkOptions;
  private readonly segMax: number;
  private readonly log: Logger;
  private readonly view: DataView;
  private readonly diskQueue: DiskQueue;
  private readonly submitter: Submitter;
  private readonly slots: RequestSlots;
  private readonly ranges: RangeRequests;
  private readonly parser: RequestParser;
  private readonly outcomes: Outcomes;
  private readonly serial: Uint8Array;
  private readonly watch: { readonly remove: () => void };
  private readonly drain: DrainWatch;
  /** Started queues by index; whether each is enabled, and has completions to publish. */
  private readonly queues: (DeviceQueue | undefined)[];
  private readonly enabled: boolean[];
  private readonly touched: Uint8Array;
  /** {@link DrainWatch.inFlight} */
  private readonly inFlight: Uint32Array;
  /** Queues that are started, enabled and not held: by index, and themselves. */
  private active: number[] = [];
  private activeQueues: DeviceQueue[] = [];
  /** The queue to begin with in the next turn: all get their share of the slots. */
  private turn = 0;
  /** Some queue was touched. */
  private published = true;
  /** Chains of the present batch that have no slot yet. */
  private reserved = 0;
  private driverFeatures = 0n;
  /** The cache mode as the guest set it, or the configuration. */
  private writeback: boolean;
  /** The cache was turned off: what was completed before is to be made durable. */
  private ownFlushDue = false;
  /** Why this device's own code failed: told when nothing is in flight any more. */
  private failure: unknown;

  /** @throws SluiceError `config` for options that cannot be. */
  constructor(options: VirtioBlkOptions) {
    const { name, disk, queues, arena, loop, log, segMax = DEFAULT_SEG_MAX } = options;
    const { slots = defaultSlots(queues) } = options;
    const demand = (what: string, value: number, least: number, most: number): void => {
      if (Number.isInteger(value) && value >= least && value <= most) return;
      throw new SluiceError('config', `${name}: ${value} ${what}`, {
        remedy: `give ${least} to ${most}`,
      });
    };
    demand('queues', queues, 1, MAX_BLK_QUEUES);
    demand('segments in a request', segMax, 1, MAX_RING - EXTRA_SEGMENTS);
    demand('requests at once', slots, 1, 0xffff);
    if (!isPowerOfTwo(disk.info.blockBytes) || disk.info.blockBytes < SECTOR_BYTES) {
      throw new SluiceError('config', `${name}: blocks of ${disk.info.blockBytes} bytes`, {
        remedy: `choose a power of two from ${SECTOR_BYTES} on`,
      });
    }
    this.options = options;
    this.name = name;
    this.disk = disk;
    this.segMax = segMax;
    this.maxQueues = queues;
    this.log = log;
    this.view = arena.view;
    this.serial = encodeSerial(name, options.serial ?? '');
    this.counters = options.counters ?? newBlockCounters();
    this.features = offeredFeatures(disk.info, queues) & ~(options.withheld ?? 0n);
    this.writeback = options.cacheMode?.load() ?? options.writeback ?? true;
    this.queues = new Array(queues).fill(undefined);
    this.enabled = new Array(queues).fill(false);
    this.touched = new Uint8Array(queues);
    this.drain = new DrainWatch(queues);
    this.inFlight = this.drain.inFlight;
    // Twice what a driver may use: each segment may lie across the border of two memory regions.
    this.slots = new RequestSlots(arena, slots, Math.min(2 * segMax, MOST_SEGMENTS));
    this.parser = new RequestParser(arena, this.slots);
    this.outcomes = new Outcomes(name, disk.name, this.counters, log, loop);
    this.diskQueue = disk.open({ requests: this.slots.table, sink: this, loop });
    this.submitter = new Submitter(this.diskQueue);
    this.ranges = new RangeRequests(this.slots, this.submitter, this.outcomes);
    this.watch = disk.onChange(() => {
      this.refresh();
      this.onConfigChange?.();
    });
    this.refresh();
  }

  direction(_index: number): Direction {
    return 'both';
  }

  readConfig(): Uint8Array {
    const { features, segMax, maxQueues: queues, writeback } = this;
    return encodeConfig({ info: this.disk.info, features, segMax, queues, writeback });
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    const value = bytes[0];
    const isMode = offset === BLK_CONFIG_WRITEBACK && bytes.length === 1;
    if (!isMode || value === undefined || !hasBit(this.features, VIRTIO_BLK_F_CONFIG_WCE)) {
      throw new SluiceError(
        'protocol',
        `${this.name}: the driver may not write ${bytes.length} bytes of configuration at ${offset}`,
      );
    }
    if (value > 1) {
      throw new SluiceError('protocol', `${this.name}: a cache mode of ${value}, neither 0 nor 1`);
    }
    const writeback = value === 1;
    if (writeback === this.writeback) return;
    this.writeback = writeback;
    // What was completed while the cache was on would never be flushed by a driver that sees none.
    if (!writeback) this.ownFlushDue = true;
    this.refresh();
    this.options.cacheMode?.save(writeback);
  }

  setDriverFeatures(features: bigint): void {
    this.driverFeatures = features;
    this.refresh();
  }

  startQueue(index: number, queue: DeviceQueue): void {
    const { segMax } = this;
    if (queue.size < segMax + EXTRA_SEGMENTS) {
      this.log.warn(
        `${this.name}: queue ${index} has ${queue.size} entries, too few for a request of ${segMax} segments: ` +
          `give the guest longer queues, or set seg_max to ${Math.max(queue.size - EXTRA_SEGMENTS, 1)}`,
      );
    }
    this.requireDrained(index);
    this.queues[index] = queue;
    this.drain.held[index] = false;
    queue.disableKicks();
    this.rebuild();
  }

  stopQueue(index: number): void {
    this.requireDrained(index);
    this.queues[index] = undefined;
    this.touched[index] = 0;
    this.rebuild();
  }

  setQueueEnabled(index: number, enabled: boolean): void {
    this.enabled[index] = enabled;
    if (enabled) this.drain.held[index] = false;
    this.rebuild();
  }

  hold(index: number | undefined): boolean {
    const drained = this.drain.hold(index, this.idle);
    this.rebuild();
    return drained;
  }

  reset(): void {
    for (let index = 0; index < this.maxQueues; index++) this.requireDrained(index);
    this.queues.fill(undefined);
    this.enabled.fill(false);
    this.touched.fill(0);
    this.drain.reset();
    this.rebuild();
    // The cache mode stays (§5.2.5): a VMM keeps its own copy of the field over a reset.
    this.setDriverFeatures(0n);
  }

  /** Ends the use of the disk. @throws SluiceError `state` while requests are in flight */
  close(): void {
    this.diskQueue.close();
    this.watch.remove();
    this.outcomes.close();
    this.slots.release();
  }

  /** The driver has started at least one queue. */
  get running(): boolean {
    return this.active.length > 0;
  }

  /** Nothing is in flight, neither a guest's nor the device's own, nor due. */
  get idle(): boolean {
    return this.diskQueue.inFlight === 0 && !this.ownFlushDue;
  }

  countKick(): void {
    this.outcomes.countKick();
  }

  countCall(): void {
    this.outcomes.countCall();
  }

  poll(): number {
    const { active } = this;
    let work = 0;
    if (active.length > 0) {
      if (active.length > 1) this.turn = (this.turn + 1) % active.length;
      for (let i = 0; i < active.length; i++) {
        let at = i + this.turn;
        if (at >= active.length) at -= active.length;
        // A queue that breaks empties the lists.
        const queue = this.activeQueues[at];
        if (queue === undefined) break;
        work += this.takeFrom(active[at] as number, queue);
      }
    }
    if (this.ownFlushDue) this.flushOwn();
    this.submitter.send();
    // At once, so that what the disk did inline is not answered a turn later.
    if (this.diskQueue.inFlight > 0) {
      work += this.diskQueue.poll();
      this.submitter.send();
    }
    if (!this.published) this.publish();
    if (this.drain.waiting && this.drain.take(this.idle)) this.onDrained?.();
    if (this.failure !== undefined && this.idle) this.fail();
    return work;
  }

  arm(): boolean {
    let pending = false;
    // Without a free slot nothing could be taken: a completion wakes the loop.
    if (this.slots.free > 0) {
      // The driver may have turned the cache off since the last poll.
      pending = this.ownFlushDue;
      for (const queue of this.activeQueues) pending = queue.enableKicks() || pending;
    }
    return this.diskQueue.arm() || pending;
  }

  disarm(): void {
    for (const queue of this.activeQueues) queue.disableKicks();
    this.diskQueue.disarm();
  }

  /** The disk has done a request. Called from within its `poll`. */
  complete(slot: number, result: number): void {
    if (this.slots.step[slot] === STEP_SINGLE) this.finish(slot, result);
    else this.advance(slot, result);
  }

  /** Takes what a queue offers, as far as there are slots. Returns chains. */
  private takeFrom(index: number, queue: DeviceQueue): number {
    const { slots } = this;
    const { free } = slots;
    if (free === 0) {
      if (queue.pending()) this.outcomes.countWait();
      return 0;
    }
    batch.clear();
    let count = 0;
    try {
      count = queue.collect(batch, free < BATCH ? free : BATCH);
      this.reserved = count;
      for (let i = 0; i < count; i++) this.accept(index, i);
    } catch (error) {
      this.break(error);
    }
    this.reserved = 0;
    return count;
  }

  /** Reads one chain of the batch and does what it asks for. */
  private accept(index: number, i: number): void {
    const { slots } = this;
    const slot = slots.take();
    this.reserved--;
    const outcome = this.parser.parse(batch, i, slot);
    if (outcome === PARSED_BROKEN) {
      slots.give(slot);
      throw new RingError('bad-length', 'a request without a byte for its status');
    }
    slots.queue[slot] = index;
    slots.id[slot] = batch.id[i] as number;
    slots.span[slot] = batch.span[i] as number;
    this.inFlight[index] = (this.inFlight[index] as number) + 1;
    switch (outcome) {
      case PARSED_REQUEST:
        this.submitter.submit(slot);
        return;
      case PARSED_RANGES:
        this.ranges.start(slot, this.reserved);
        return;
      case PARSED_NOTHING:
        this.answer(slot, VIRTIO_BLK_S_OK);
        return;
      case PARSED_GET_ID:
        this.reply(slot, this.serial);
        return;
      case PARSED_GET_LIFETIME:
        this.reply(slot, encodeLifetime(this.disk.info.lifetime));
        return;
      default:
        this.answer(slot, this.outcomes.refuse(outcome, this.parser));
    }
  }

  /** Completes a chain whose request is done. */
  private finish(slot: number, result: number): void {
    if (result >= 0) {
      this.outcomes.succeed(this.slots, slot);
      this.answer(slot, VIRTIO_BLK_S_OK);
    } else {
      this.answer(slot, this.outcomes.fail(this.slots, slot, result));
    }
  }

  /** Writes the status of a chain and marks it used; its slot is free again. */
  private answer(slot: number, status: number): void {
    const { slots } = this;
    const index = slots.queue[slot] as number;
    const queue = this.queues[index];
    if (queue !== undefined) {
      const statusAt = slots.statusAt[slot] as number;
      this.view.setUint8(statusAt, status);
      let written = 1;
      if (slots.fills[slot] === 1) {
        this.noteFilled(queue, slot);
        // What was read before it failed is not known: less is said to be written than was (§2.7.8.2).
        const { count } = slots.table;
        written =
          status === VIRTIO_BLK_S_OK ? (slots.written[slot] as number) : count[slot] ? 0 : 1;
      }
      queue.noteWritten(statusAt, 1);
      queue.completeChain(slots.id[slot] as number, slots.span[slot] as number, written);
      this.touched[index] = 1;
      this.published = false;
    }
    this.inFlight[index] = (this.inFlight[index] as number) - 1;
    slots.give(slot);
  }

  /** Tells the dirty log of the memory that the disk has written. */
  private noteFilled(queue: DeviceQueue, slot: number): void {
    const { table } = this.slots;
    const first = slot * table.segments;
    const end = first + (table.count[slot] as number);
    for (let i = first; i < end; i++) {
      queue.noteWritten(table.address[i] as number, table.length[i] as number);
    }
  }

  /** Writes `bytes`, as far as they fit, into the slot's segments, and answers. */
  private reply(slot: number, bytes: Uint8Array): void {
    const { slots, view } = this;
    const { table } = slots;
    let done = 0;
    let room = 0;
    for (let k = 0; k < (table.count[slot] as number); k++) {
      const at = table.address[slot * table.segments + k] as number;
      const length = table.length[slot * table.segments + k] as number;
      room += length;
      for (let i = 0; i < length && done < bytes.length; i++) {
        view.setUint8(at + i, bytes[done++] as number);
      }
    }
    slots.written[slot] = done === room ? done + 1 : done;
    this.outcomes.countQuery();
    this.answer(slot, VIRTIO_BLK_S_OK);
  }

  /** One of the disk's requests is done that is not a whole chain. */
  private advance(slot: number, result: number): void {
    const { slots } = this;
    const { table } = slots;
    switch (slots.step[slot]) {
      case STEP_RANGE:
        this.endRanges(this.ranges.end(slot, result));
        break;
      case STEP_FLUSH:
        if (result >= 0) table.op[slot] = DISK_WRITE_ZEROES;
        this.finish(slot, result);
        break;
      default:
        if (result < 0) this.outcomes.fail(slots, slot, result);
        slots.give(slot);
    }
  }

  /** The ranges of a chain are done, unless some are left. */
  private endRanges(parent: number): void {
    if (parent === RANGES_LEFT) return;
    const { slots } = this;
    const { table } = slots;
    const result = slots.result[parent] as number;
    if (result < 0) {
      this.answer(parent, this.outcomes.countFailure(result));
    } else if (table.op[parent] === DISK_DISCARD || this.parser.writeFlags === 0) {
      this.finish(parent, 0);
    } else {
      // A disk may write zeroes by giving blocks back, which not everywhere is durable by itself.
      slots.step[parent] = STEP_FLUSH;
      table.begin(parent, DISK_FLUSH, 0, 0, 0);
      this.submitter.submit(parent);
    }
  }

  /** Makes durable what was completed while the cache was on. */
  private flushOwn(): void {
    const { slots } = this;
    if (slots.free === 0) return;
    const slot = slots.take();
    this.ownFlushDue = false;
    slots.step[slot] = STEP_OWN_FLUSH;
    slots.table.begin(slot, DISK_FLUSH, 0, 0, 0);
    this.submitter.submit(slot);
  }

  /** Shows the drivers what was completed. */
  private publish(): void {
    const { touched, queues } = this;
    this.published = true;
    for (let index = 0; index < touched.length; index++) {
      if (touched[index] === 0) continue;
      touched[index] = 0;
      queues[index]?.publish();
    }
  }

  /** Ends the device: what it has not answered it never will. */
  private fail(): never {
    this.inFlight.fill(0);
    throw this.failure;
  }

  /** What the disk, the driver's features and the cache mode mean for requests. */
  private refresh(): void {
    const { parser, driverFeatures, features } = this;
    const { info } = this.disk;
    const both = driverFeatures & features;
    parser.setLimits(info.bytes, info.blockBytes, rangeSectors(info));
    parser.readonly = info.readonly;
    parser.discard = hasBit(both, VIRTIO_BLK_F_DISCARD);
    parser.writeZeroes = hasBit(both, VIRTIO_BLK_F_WRITE_ZEROES);
    parser.lifetime = hasBit(both, VIRTIO_BLK_F_LIFETIME);
    parser.mayUnmap = hasBit(features, VIRTIO_BLK_F_DISCARD);
    parser.writeFlags = mustWriteThrough(driverFeatures, this.writeback) ? REQUEST_FUA : 0;
  }

  /** The queues that are to be polled, in the lists that the hot path walks. */
  private rebuild(): void {
    this.active = [];
    this.activeQueues = [];
    this.turn = 0;
    for (const [index, queue] of this.queues.entries()) {
      if (queue === undefined || this.enabled[index] !== true || this.drain.held[index] === true)
        continue;
      this.active.push(index);
      this.activeQueues.push(queue);
    }
  }

  private requireDrained(index: number): void {
    if (this.inFlight[index] === 0) return;
    throw new SluiceError(
      'state',
      `${this.name}: queue ${index} has ${this.inFlight[index]} requests in flight and may not change`,
    );
  }

  /**
   * The guest broke its own device: its rings are no longer touched, requests in flight end unanswered.
   * Any other error is a failure of ours.
   */
  private break(error: unknown): void {
    if (!this.published) this.publish();
    this.queues.fill(undefined);
    this.rebuild();
    if (!(error instanceof RingError)) {
      this.failure = error;
      return;
    }
    this.log.error(`${this.name}: ${error.message}`, { device: this.name, fault: error.fault });
    this.onBroken?.(error);
  }
}

function defaultSlots(queues: number): number {
  return Math.min(Math.max(DEFAULT_SLOTS, queues * SLOTS_PER_QUEUE), MOST_DEFAULT_SLOTS);
}
