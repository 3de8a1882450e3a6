/** Works a disk through one queue: reads and writes as many requests at once as it was told. */
import { SluiceError } from '../../base/errors.ts';
import { Histogram } from '../../base/histogram.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import { type DiskRequests, REQUEST_OK } from '../../driver/disk-requests.ts';
import { clock, monotonicNs, readClock } from '../../os/clock.ts';
import type { PollLoop, Timer } from '../../os/poll-loop.ts';
import { BlockChoice } from './block-choice.ts';
import { blocksOf, type DiskCounts, type DiskWorkSpec } from './disk-options.ts';
import {
  checkSectors,
  SECTORS_CORRUPT,
  SECTORS_GOOD,
  SECTORS_STALE,
  stampSectors,
} from './disk-pattern.ts';
import type { Role } from './role.ts';

/** Longer latencies are recorded as this, in ns. */
const LONGEST_NS = 0x7fff_ffff;
/** Below this, the time for the next request is waited for by polling. */
const SPIN_NS = 1e6;

const READ = 0;
const WRITE = 1;
const FLUSH = 2;
/** A read of the last pass, which is not counted as work. */
const AUDIT = 3;
const OPERATIONS = ['read', 'write', 'flush', 'read'] as const;

/** Sequence of a block whose last write failed: it may hold either content. */
const IN_DOUBT = 0xffff_ffff;

export interface DiskWorkContext {
  readonly queue: DiskRequests;
  readonly loop: PollLoop;
  /** Size of the disk. */
  readonly diskBytes: number;
}

export class DiskWork implements Role {
  private readonly queue: DiskRequests;
  private readonly loop: PollLoop;
  private readonly spec: DiskWorkSpec;
  private readonly choice: BlockChoice;
  private readonly blocks: number;
  private readonly blockSectors: number;
  private readonly firstSector: number;
  private readonly verify: boolean;
  private readonly fsync: number;
  private readonly thinkNs: number;

  /** Slots that are not on their way, last in, first out: their buffers are warm. */
  private readonly free: Uint16Array;
  private freeCount: number;
  /** Slots submitted since the last publish. */
  private readonly fresh: Uint16Array;
  private freshCount = 0;
  /** By slot: what it does, to which block, since when (ns). */
  private readonly operation: Uint8Array;
  private readonly block: Float64Array;
  private readonly since: Float64Array;

  /** Verifying: by block, the sequence of the last write, and whether a request to it is on its way. */
  private readonly written: Uint32Array;
  private readonly busy: Uint8Array;
  private readonly run: number;
  private sequence = 0;
  /** The next block of the last pass. */
  private audited = 0;

  private readonly histogram = new Histogram();
  /** Done so far, by operation. */
  private readonly done = new Float64Array(OPERATIONS.length);
  /** Requests still to submit, in the first cell; when the next is due, in the second. */
  private readonly state: Float64Array;
  private unflushed = 0;
  private failed = 0;
  private failure: string | undefined;
  private verified = 0;
  private stale = 0;
  private corrupt = 0;
  private running = true;
  private timer: Timer | undefined;

  /** @throws SluiceError `config` for work that disk or queue cannot carry. */
  constructor({ queue, loop, diskBytes }: DiskWorkContext, spec: DiskWorkSpec) {
    const { bs, iodepth } = spec;
    this.blocks = blocksOf(spec, diskBytes);
    if (bs > queue.requestBytes || iodepth < 1 || iodepth > queue.slots) {
      throw new SluiceError(
        'config',
        `${iodepth} requests of ${bs} bytes from a guest that was attached for ${queue.slots} of ${queue.requestBytes}`,
      );
    }
    this.queue = queue;
    this.loop = loop;
    this.spec = spec;
    this.blockSectors = bs / SECTOR_BYTES;
    this.firstSector = spec.offset / SECTOR_BYTES;
    this.verify = spec.verify ?? false;
    this.fsync = spec.fsync ?? 0;
    this.thinkNs = (spec.thinktime ?? 0) * 1000;
    const seed = spec.seed ?? Math.floor(Math.random() * 0xffff_ffff);
    this.run = seed >>> 0;
    this.choice = new BlockChoice(spec, this.blocks, seed);
    // The highest first, so that they are taken from 0 on.
    this.free = Uint16Array.from({ length: iodepth }, (_, i) => iodepth - 1 - i);
    this.freeCount = iodepth;
    this.fresh = new Uint16Array(iodepth);
    this.operation = new Uint8Array(queue.slots);
    this.block = new Float64Array(queue.slots);
    this.since = new Float64Array(queue.slots);
    const accounted = this.verify ? this.blocks : 0;
    this.written = new Uint32Array(accounted);
    this.busy = new Uint8Array(accounted);
    this.state = Float64Array.of(spec.requests ?? Number.POSITIVE_INFINITY, 0);
    for (let slot = 0; slot < iodepth; slot++) {
      // No zeroes: some disks have a shorter way for those.
      queue.sector[slot] = slot;
      const at = slot * queue.wordsPerSlot;
      stampSectors(queue.words, at, bs, queue.sector, slot, this.run, 1);
    }
  }

  get drained(): boolean {
    return !this.running && this.freeCount === this.free.length && !this.auditing;
  }

  poll(): number {
    const finished = this.reap();
    const before = this.freeCount;
    if (this.running) this.submitWork();
    else if (this.auditing) this.submitAudit();
    if (this.freshCount > 0) this.publish();
    return finished + before - this.freeCount;
  }

  arm(): boolean {
    const { queue } = this;
    if (queue.outstanding > 0 && queue.enableCalls()) return true;
    if (this.freeCount === 0) return false;
    if (!this.running) return this.auditing && this.freeCount === this.free.length;
    if ((this.state[0] as number) === 0) return false;
    // Work that came after the last poll: nothing is on its way that would wake the loop.
    if (this.thinkNs === 0) return queue.outstanding === 0;
    const wait = (this.state[1] as number) - monotonicNs();
    if (wait < SPIN_NS) return true;
    this.timer = this.loop.setTimer(wait / 1000, () => {
      this.timer = undefined;
    });
    return false;
  }

  disarm(): void {
    this.queue.disableCalls();
    this.timer?.cancel();
    this.timer = undefined;
  }

  /** Submits no more; a verifying queue reads what it has written once more. */
  stop(): void {
    this.running = false;
  }

  counts(): DiskCounts {
    const { done, histogram } = this;
    const { bs } = this.spec;
    return {
      reads: done[READ] as number,
      writes: done[WRITE] as number,
      flushes: done[FLUSH] as number,
      readBytes: (done[READ] as number) * bs,
      writtenBytes: (done[WRITE] as number) * bs,
      failed: this.failed,
      failure: this.failure,
      verified: this.verified,
      stale: this.stale,
      corrupt: this.corrupt,
      latency: histogram.counts(),
      done: (this.state[0] as number) === 0 && this.freeCount === this.free.length,
    };
  }

  private get auditing(): boolean {
    return this.audited < this.written.length;
  }

  private submitWork(): void {
    const { state, free } = this;
    if (this.thinkNs > 0 && this.freeCount > 0) {
      readClock();
      if ((clock[0] as number) < (state[1] as number)) return;
    }
    while (this.freeCount > 0) {
      const slot = free[this.freeCount - 1] as number;
      if (this.fsync > 0 && this.unflushed >= this.fsync) {
        if (!this.queue.flush(slot)) return;
        this.unflushed = 0;
        this.sent(slot, FLUSH);
        continue;
      }
      if ((state[0] as number) === 0) return;
      if (!this.choice.next(this.block, slot, this.busy)) return;
      const writes = this.choice.writes;
      if (!(writes ? this.write(slot) : this.read(slot))) {
        this.choice.undo();
        return;
      }
      if (writes) this.unflushed++;
      state[0] = (state[0] as number) - 1;
      this.sent(slot, writes ? WRITE : READ);
    }
  }

  /** Reads the blocks that were written. */
  private submitAudit(): void {
    const { free, written, busy } = this;
    while (this.freeCount > 0) {
      while (this.auditing && written[this.audited] === 0) this.audited++;
      if (!this.auditing || busy[this.audited] === 1) return;
      const slot = free[this.freeCount - 1] as number;
      this.block[slot] = this.audited;
      if (!this.read(slot)) return;
      this.audited++;
      this.sent(slot, AUDIT);
    }
  }

  private read(slot: number): boolean {
    this.place(slot);
    return this.queue.read(slot);
  }

  private write(slot: number): boolean {
    const { queue } = this;
    this.place(slot);
    if (this.verify) {
      // 0 is no write, and the highest number is one in doubt.
      const sequence = this.sequence + 1 === IN_DOUBT ? 1 : this.sequence + 1;
      const at = slot * queue.wordsPerSlot;
      stampSectors(queue.words, at, this.spec.bs, queue.sector, slot, this.run, sequence);
      if (!queue.write(slot)) return false;
      this.sequence = sequence;
      this.written[this.block[slot] as number] = sequence;
      return true;
    }
    return queue.write(slot);
  }

  private place(slot: number): void {
    const { queue } = this;
    queue.sector[slot] = this.firstSector + (this.block[slot] as number) * this.blockSectors;
    queue.bytes[slot] = this.spec.bs;
  }

  /** The topmost free slot is on its way now. */
  private sent(slot: number, operation: number): void {
    this.freeCount--;
    this.operation[slot] = operation;
    this.fresh[this.freshCount++] = slot;
    if (this.verify && operation !== FLUSH) this.busy[this.block[slot] as number] = 1;
  }

  private publish(): void {
    const { fresh, since } = this;
    readClock();
    const now = clock[0] as number;
    for (let i = 0; i < this.freshCount; i++) since[fresh[i] as number] = now;
    this.freshCount = 0;
    this.queue.publish();
  }

  private reap(): number {
    const { queue, operation, since, free, done, verify } = this;
    let total = 0;
    for (;;) {
      const count = queue.collect();
      if (count === 0) break;
      readClock();
      const now = clock[0] as number;
      for (let i = 0; i < count; i++) {
        const slot = queue.done[i] as number;
        const what = operation[slot] as number;
        if (what < FLUSH) {
          const ns = now - (since[slot] as number);
          this.histogram.record(ns < LONGEST_NS ? ns | 0 : LONGEST_NS);
        }
        done[what] = (done[what] as number) + 1;
        if (queue.status[slot] !== REQUEST_OK) this.fail(slot, what);
        else if (verify && (what === READ || what === AUDIT)) this.check(slot);
        if (verify && what !== FLUSH) this.busy[this.block[slot] as number] = 0;
        free[this.freeCount++] = slot;
      }
      if (this.thinkNs > 0) this.state[1] = now + this.thinkNs;
      total += count;
      if (count < queue.done.length) break;
    }
    return total;
  }

  private check(slot: number): void {
    const { queue, block, written } = this;
    const sequence = written[block[slot] as number] as number;
    const at = slot * queue.wordsPerSlot;
    const known = sequence === IN_DOUBT ? 0 : sequence;
    const { bs } = this.spec;
    const verdict = checkSectors(queue.words, at, bs, queue.sector, slot, this.run, known);
    this.verified++;
    if (verdict === SECTORS_GOOD) return;
    if (verdict === SECTORS_STALE) this.stale++;
    else if (verdict === SECTORS_CORRUPT) this.corrupt++;
  }

  private fail(slot: number, what: number): void {
    const { queue } = this;
    this.failed++;
    this.failure ??= `${OPERATIONS[what]} of sector ${queue.sector[slot]} ended with status ${queue.status[slot]}`;
    if (this.verify && what === WRITE) this.written[this.block[slot] as number] = IN_DOUBT;
  }
}
