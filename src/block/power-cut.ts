/**
 * A disk that can lose its power: for tests of what a guest's file system, or a database, has been
 * promised. Writes stay in a volatile cache until a flush; {@link PowerCutDisk.powerCut} leaves any of
 * them out of the disk below, block by block, and fails what is in flight. What was flushed, or
 * written with FUA, is there afterwards.
 *
 * A flush, and a cache that is full, hold further requests up until the cache is on the disk below.
 * Unlike other wrappers this one allocates for requests.
 */
import { constants } from 'node:os';
import { SluiceError } from '../base/errors.ts';
import { Random } from '../base/random.ts';
import type { Poller } from '../os/poll-loop.ts';
import { Destager } from './destage.ts';
import type { Disk, DiskInfo, DiskLane, DiskQueue, DiskQueueOptions, DiskSink } from './disk.ts';
import {
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
  type RequestTable,
} from './requests.ts';
import { gatherSegments, scatterSegments } from './segments.ts';
import { SlotRing } from './slot-ring.ts';
import { type BlockVersion, VolatileLog } from './volatile-log.ts';

export interface PowerCutOptions {
  /** The same seed and the same requests leave the same blocks. Default: 1. */
  readonly seed?: number;
  /** Size of the volatile cache. Default: 64 MiB. */
  readonly cacheBytes?: number;
}

const DEFAULT_CACHE_BYTES = 64 * 1024 * 1024;
const FAILED = -constants.errno.EIO;

/** What became of the first request of a queue. */
type Started =
  /** It is on its way, or done. */
  | 'started'
  /** The cache must be written below, and then it is done. */
  | 'then-done'
  /** The cache must be written below, and then it is begun anew. */
  | 'then-again'
  /** The cache must be written below, and then it goes there as well. */
  | 'then-below';

type State =
  | 'on'
  /** Requests below are waited for, so that the cache can be written there. */
  | 'draining'
  | 'destaging'
  /** The power is gone; requests below are waited for. */
  | 'cutting'
  /** What survives is being written. */
  | 'surviving'
  | 'off';

export class PowerCutDisk implements Disk, Poller {
  readonly #disk: Disk;
  readonly #lane: DiskLane;
  readonly #log: VolatileLog;
  readonly #destager: Destager;
  readonly #random: Random;
  #infoBelow: DiskInfo;
  #info: DiskInfo;
  #queues: readonly PowerCutQueue[] = [];
  #state: State = 'on';
  /** Whose first request waits for the cache to be written, and what is to become of it. */
  #waiting: { readonly queue: PowerCutQueue; readonly then: Started } | undefined;
  #onCut: (result: number) => void = () => undefined;
  #onSettled: ((result: number) => void) | undefined;

  /** @throws SluiceError `memory` if there is no address space for the cache */
  constructor(disk: Disk, lane: DiskLane, options: PowerCutOptions = {}) {
    const { seed = 1, cacheBytes = DEFAULT_CACHE_BYTES } = options;
    const { info } = disk;
    const { blockBytes } = info;
    this.#disk = disk;
    this.#infoBelow = info;
    this.#info = { ...info, volatileCache: true };
    this.#lane = lane;
    this.#random = new Random(seed);
    this.#log = new VolatileLog(
      lane.arena,
      Math.max(1, Math.floor(cacheBytes / blockBytes)),
      blockBytes,
    );
    this.#destager = new Destager(disk, lane, this.#log);
    lane.loop.addPoller(this);
  }

  get name(): string {
    return this.#disk.name;
  }

  get info(): DiskInfo {
    const { info } = this.#disk;
    if (info !== this.#infoBelow) {
      this.#infoBelow = info;
      this.#info = { ...info, volatileCache: true };
    }
    return this.#info;
  }

  /** The power is off: every request fails. */
  get isOff(): boolean {
    return this.#state === 'off';
  }

  onChange(listener: () => void): { readonly remove: () => void } {
    return this.#disk.onChange(listener);
  }

  open(options: DiskQueueOptions): DiskQueue {
    const queue = new PowerCutQueue(this, this.#disk, options, this.#log);
    this.#queues = [...this.#queues, queue];
    return queue;
  }

  /**
   * Cuts the power: what is in flight fails, and what a flush has not made durable may be lost.
   * @param done called once the disk below is as the cut leaves it, with 0 or the negative errno with
   *   which writing that failed; within a turn of the loop
   * @throws SluiceError `state` if the power is off
   */
  powerCut(done: (result: number) => void = () => undefined): void {
    if (this.#state === 'off' || this.#state === 'cutting' || this.#state === 'surviving') {
      throw new SluiceError('state', `disk ${this.name} has no power to be cut`);
    }
    this.#destager.stop();
    this.#waiting = undefined;
    this.#onCut = done;
    this.#state = 'cutting';
    for (const queue of this.#queues) queue.fail();
  }

  /**
   * Power comes back.
   * @throws SluiceError `state` unless the disk {@link isOff}
   */
  restore(): void {
    if (this.#state !== 'off') throw new SluiceError('state', `disk ${this.name} is not off`);
    this.#state = 'on';
  }

  /**
   * Writes the cache below, as a flush does: for the orderly end of a disk that nobody uses any more.
   * @param done called with 0, or the negative errno with which that failed; at once without power
   * @throws SluiceError `state` while queues are open
   */
  settle(done: (result: number) => void): void {
    if (this.#queues.length > 0)
      throw new SluiceError('state', `disk ${this.name} is in use: a flush settles it then`);
    if (this.isOff) {
      done(0);
      return;
    }
    this.#onSettled = done;
    if (this.#state === 'on') this.#state = 'draining';
    this.advance();
  }

  /** All queues are closed. What is in the cache is lost, unless it was flushed or settled. */
  close(): void {
    this.#lane.loop.removePoller(this);
    this.#destager.close();
    this.#log.release();
    this.#disk.close();
  }

  poll(): number {
    const count = this.#destager.poll();
    this.advance();
    return count;
  }

  arm(): boolean {
    return this.#destager.arm();
  }

  disarm(): void {
    this.#destager.disarm();
  }

  /** For {@link PowerCutQueue}. */
  removeQueue(queue: PowerCutQueue): void {
    this.#queues = this.#queues.filter((other) => other !== queue);
  }

  /** For {@link PowerCutQueue}: completions from below are failures by now. */
  get hasPower(): boolean {
    return this.#state === 'on' || this.#state === 'draining' || this.#state === 'destaging';
  }

  /** For {@link PowerCutQueue}: goes on as far as it goes without waiting. */
  advance(): void {
    let state: State;
    do {
      state = this.#state;
      this.#step();
    } while (state !== this.#state);
    for (const queue of this.#queues) queue.send();
  }

  #step(): void {
    switch (this.#state) {
      case 'on':
        for (const queue of this.#queues) {
          const then = queue.start();
          if (then === 'started') continue;
          this.#waiting = { queue, then };
          this.#state = 'draining';
          return;
        }
        return;
      case 'draining':
        if (this.#isBusyBelow()) return;
        this.#destager.start(this.#within(this.#log.latestVersions()));
        this.#state = 'destaging';
        return;
      case 'destaging': {
        if (!this.#destager.idle) return;
        const { result } = this.#destager;
        if (result === 0) this.#log.clear();
        this.#state = 'on';
        this.#waiting?.queue.resume(this.#waiting.then, result);
        this.#waiting = undefined;
        this.#endSettling(result);
        return;
      }
      case 'cutting':
        if (this.#isBusyBelow() || this.#destager.inFlight > 0) return;
        this.#destager.start(this.#within(this.#log.survivors(this.#random)));
        this.#state = 'surviving';
        return;
      case 'surviving':
        if (!this.#destager.idle) return;
        this.#log.clear();
        this.#state = 'off';
        this.#onCut(this.#destager.result);
        this.#endSettling(0);
        return;
      case 'off':
        for (const queue of this.#queues) queue.fail();
        return;
    }
  }

  /** What lies behind the end of a disk that has shrunk meanwhile is nowhere to be written. */
  #within(versions: readonly BlockVersion[]): readonly BlockVersion[] {
    const { bytes, blockBytes } = this.#disk.info;
    const end = bytes / blockBytes;
    return (versions.at(-1)?.block ?? -1) < end
      ? versions
      : versions.filter(({ block }) => block < end);
  }

  #endSettling(result: number): void {
    const done = this.#onSettled;
    this.#onSettled = undefined;
    done?.(result);
  }

  #isBusyBelow(): boolean {
    return this.#queues.some((queue) => queue.below > 0);
  }
}

class PowerCutQueue implements DiskQueue {
  readonly #disk: PowerCutDisk;
  readonly #log: VolatileLog;
  readonly #requests: RequestTable;
  readonly #sink: DiskSink;
  readonly #queue: DiskQueue;
  /** Requests that were not begun. */
  readonly #incoming: SlotRing;
  /** Requests that are done without the disk below, and their results. */
  readonly #done: SlotRing;
  /** By slot: first entry in the log of a write that also goes below. */
  readonly #entry: Int32Array;
  #unsent = false;
  #completed = 0;

  constructor(disk: PowerCutDisk, below: Disk, options: DiskQueueOptions, log: VolatileLog) {
    const { requests, sink } = options;
    this.#disk = disk;
    this.#log = log;
    this.#requests = requests;
    this.#sink = sink;
    this.#incoming = new SlotRing(requests.slots);
    this.#done = new SlotRing(requests.slots);
    this.#entry = new Int32Array(requests.slots);
    const own: DiskSink = { complete: (slot, result) => this.#completeBelow(slot, result) };
    this.#queue = below.open({ ...options, sink: own });
  }

  get inFlight(): number {
    return this.#incoming.count + this.#done.count + this.#queue.inFlight;
  }

  /** Requests at the disk below. */
  get below(): number {
    return this.#queue.inFlight;
  }

  submit(slot: number): void {
    this.#incoming.push(slot, 0);
  }

  flush(): void {
    this.#disk.advance();
  }

  poll(): number {
    this.#completed = 0;
    const done = this.#done;
    for (let left = done.count; left > 0; left--) {
      const result = done.firstValue;
      this.#complete(done.shift(), result);
    }
    this.#queue.poll();
    this.#disk.advance();
    return this.#completed;
  }

  arm(): boolean {
    return this.#queue.arm() || this.#done.count > 0;
  }

  disarm(): void {
    this.#queue.disarm();
  }

  close(): void {
    if (this.inFlight > 0) {
      throw new SluiceError('state', `a disk is closed with ${this.inFlight} requests in flight`);
    }
    this.#queue.close();
    this.#disk.removeQueue(this);
  }

  /** Begins all requests, up to one for which the cache must be written first: it stays the first. */
  start(): Started {
    while (this.#incoming.count > 0) {
      const started = this.#begin(this.#incoming.first);
      if (started !== 'started') return started;
      this.#incoming.shift();
    }
    return 'started';
  }

  /** The cache was written below, for the first request that waits. */
  resume(then: Started, result: number): void {
    if (result !== 0 || then === 'then-done') this.#done.push(this.#incoming.shift(), result);
    else if (then === 'then-below') this.#pass(this.#incoming.shift(), -1);
  }

  /** Fails all that is not below. */
  fail(): void {
    for (let left = this.#done.count; left > 0; left--) this.#done.push(this.#done.shift(), FAILED);
    while (this.#incoming.count > 0) this.#done.push(this.#incoming.shift(), FAILED);
  }

  /** Sends what was passed on. */
  send(): void {
    if (!this.#unsent) return;
    this.#unsent = false;
    this.#queue.flush();
  }

  #begin(slot: number): Started {
    const requests = this.#requests;
    const op = requests.op[slot] as number;
    const { blockBytes } = this.#log;
    const block = (requests.offset[slot] as number) / blockBytes;
    const count = (requests.bytes[slot] as number) / blockBytes;
    switch (op) {
      case DISK_WRITE:
      case DISK_WRITE_ZEROES:
        return this.#write(slot, block, count);
      case DISK_FLUSH:
        return 'then-done';
      default:
        // A discard is a wish: what the cache holds of the range stays in it, and goes below later.
        this.#pass(slot, -1);
        return 'started';
    }
  }

  #write(slot: number, block: number, count: number): Started {
    if (count > this.#log.capacity) return 'then-below';
    if (count > this.#log.room) return 'then-again';
    const requests = this.#requests;
    const isFua = ((requests.flags[slot] as number) & REQUEST_FUA) !== 0;
    const isZeroes = requests.op[slot] === DISK_WRITE_ZEROES;
    const bytes = requests.bytes[slot] as number;
    const entry = this.#log.append(block, count);
    const at = this.#log.addressOf(entry);
    if (isZeroes) requests.arena.bytes.fill(0, at, at + bytes);
    else gatherSegments(requests, slot, 0, at, bytes);
    if (isFua && isZeroes) return 'then-done';
    if (isFua) this.#pass(slot, entry);
    else this.#done.push(slot, 0);
    return 'started';
  }

  #pass(slot: number, entry: number): void {
    this.#entry[slot] = entry;
    this.#unsent = true;
    this.#queue.submit(slot);
  }

  #completeBelow(slot: number, result: number): void {
    if (!this.#disk.hasPower) {
      this.#complete(slot, FAILED);
      return;
    }
    const { blockBytes } = this.#log;
    const block = (this.#requests.offset[slot] as number) / blockBytes;
    const count = (this.#requests.bytes[slot] as number) / blockBytes;
    const op = this.#requests.op[slot];
    const entry = this.#entry[slot] as number;
    if (result >= 0 && op === DISK_WRITE && entry >= 0) this.#log.settle(entry, count);
    if (result >= 0 && op === DISK_READ) this.#patch(slot, block, count);
    this.#complete(slot, result);
  }

  /** What the cache holds of a range is newer than what was read below. */
  #patch(slot: number, block: number, count: number): void {
    const { blockBytes } = this.#log;
    for (let i = 0; i < count; i++) {
      const entry = this.#log.latest(block + i);
      if (entry < 0) continue;
      const from = this.#log.addressOf(entry);
      scatterSegments(this.#requests, slot, i * blockBytes, from, blockBytes);
    }
  }

  #complete(slot: number, result: number): void {
    this.#completed++;
    this.#sink.complete(slot, result);
  }
}
