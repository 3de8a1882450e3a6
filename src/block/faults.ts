/**
 * A disk on which requests fail, are torn or take long, as a plan says: for tests of drivers, ours and
 * those of guests. For what a power cut does see `power-cut.ts`.
 */
import { SluiceError } from '../base/errors.ts';
import { Random } from '../base/random.ts';
import type { PollLoop, Timer } from '../os/poll-loop.ts';
import type { Disk, DiskInfo, DiskQueue, DiskQueueOptions, DiskSink } from './disk.ts';
import { type CompiledRule, compileRules, type FaultPlan } from './fault-plan.ts';
import { DISK_FLUSH, DISK_WRITE, RequestTable } from './requests.ts';
import { SlotRing } from './slot-ring.ts';

/** Faults that a disk has had. */
export interface FaultCounts {
  errors: number;
  torn: number;
  drops: number;
  delays: number;
}

export class FaultyDisk implements Disk {
  readonly counts: FaultCounts = { errors: 0, torn: 0, drops: 0, delays: 0 };
  readonly #disk: Disk;
  readonly #rules: readonly CompiledRule[];
  readonly #random: Random;

  /** @throws SluiceError `config` for a plan that makes no sense */
  constructor(disk: Disk, plan: FaultPlan) {
    this.#disk = disk;
    this.#rules = compileRules(plan);
    this.#random = new Random(plan.seed ?? 1);
  }

  get name(): string {
    return this.#disk.name;
  }

  get info(): DiskInfo {
    return this.#disk.info;
  }

  onChange(listener: () => void): { readonly remove: () => void } {
    return this.#disk.onChange(listener);
  }

  open(options: DiskQueueOptions): DiskQueue {
    return new FaultyQueue(this.#disk, options, this.#rules, this.#random, this.counts);
  }

  close(): void {
    this.#disk.close();
  }
}

class FaultyQueue implements DiskQueue {
  readonly #requests: RequestTable;
  readonly #sink: DiskSink;
  readonly #loop: PollLoop;
  readonly #blockBytes: number;
  readonly #rules: readonly CompiledRule[];
  readonly #random: Random;
  readonly #counts: FaultCounts;
  readonly #queue: DiskQueue;
  /** Parts of torn writes, in a table of their own: only if a rule tears. */
  readonly #parts: { readonly table: RequestTable; readonly queue: DiskQueue } | undefined;
  /** By slot: the result that the request is to have whatever the disk says; 0: the disk's. */
  readonly #result: Int32Array;
  /** By slot: it completes no earlier. */
  readonly #due: Float64Array;
  /** Not passed on; they complete once the burst is sent. */
  readonly #undone: SlotRing;
  /** Done, and held back until they are due, the first of them first: slots and results. */
  readonly #heldSlots: Int32Array;
  readonly #heldResults: Int32Array;
  #held = 0;
  /** Completions of the present poll. */
  #completed = 0;
  #inFlight = 0;
  #timer: Timer | undefined;

  constructor(
    disk: Disk,
    options: DiskQueueOptions,
    rules: readonly CompiledRule[],
    random: Random,
    counts: FaultCounts,
  ) {
    const { requests, sink, loop } = options;
    this.#requests = requests;
    this.#sink = sink;
    this.#loop = loop;
    this.#blockBytes = disk.info.blockBytes;
    this.#rules = rules;
    this.#random = random;
    this.#counts = counts;
    this.#result = new Int32Array(requests.slots);
    this.#due = new Float64Array(requests.slots);
    this.#undone = new SlotRing(requests.slots);
    this.#heldSlots = new Int32Array(requests.slots);
    this.#heldResults = new Int32Array(requests.slots);
    const own: DiskSink = { complete: (slot, result) => this.#finish(slot, result) };
    this.#queue = disk.open({ ...options, sink: own });
    if (rules.some((rule) => rule.fault === 'torn')) {
      const table = new RequestTable(requests.arena, requests.slots, requests.segments);
      this.#parts = { table, queue: disk.open({ requests: table, sink: own, loop }) };
    }
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  submit(slot: number): void {
    this.#inFlight++;
    this.#result[slot] = 0;
    this.#due[slot] = 0;
    const fault = this.#decide(slot);
    if (fault === undefined) {
      this.#queue.submit(slot);
      return;
    }
    this.#result[slot] = fault.result;
    const isTorn = fault.fault === 'torn';
    if (isTorn) this.#counts.torn++;
    else if (fault.fault === 'drop') this.#counts.drops++;
    else this.#counts.errors++;
    if (!isTorn || !this.#tear(slot)) this.#undone.push(slot, fault.result);
  }

  flush(): void {
    this.#queue.flush();
    this.#parts?.queue.flush();
    const undone = this.#undone;
    while (undone.count > 0) {
      const result = undone.firstValue;
      this.#hold(undone.shift(), result);
    }
  }

  poll(): number {
    this.#completed = 0;
    const before = this.#inFlight;
    this.#queue.poll();
    this.#parts?.queue.poll();
    const { now } = this.#loop;
    while (this.#held > 0 && this.#dueOf(0) <= now && this.#completed < before) {
      const slot = this.#heldSlots[0] as number;
      const result = this.#heldResults[0] as number;
      this.#heldSlots.copyWithin(0, 1, this.#held);
      this.#heldResults.copyWithin(0, 1, this.#held);
      this.#held--;
      this.#complete(slot, result);
    }
    return this.#completed;
  }

  arm(): boolean {
    const complete = this.#queue.arm();
    const partComplete = this.#parts?.queue.arm() ?? false;
    if (this.#held > 0) {
      const { now } = this.#loop;
      const due = this.#dueOf(0);
      if (due <= now) return true;
      this.#timer?.cancel();
      // The queue is polled when the loop is awake: the timer has nothing else to do.
      this.#timer = this.#loop.setTimer(Math.ceil((due - now) / 1000), () => undefined);
    }
    return complete || partComplete;
  }

  disarm(): void {
    this.#queue.disarm();
    this.#parts?.queue.disarm();
  }

  close(): void {
    if (this.#inFlight > 0) {
      throw new SluiceError('state', `a disk is closed with ${this.#inFlight} requests in flight`);
    }
    this.#timer?.cancel();
    this.#queue.close();
    this.#parts?.queue.close();
    this.#parts?.table.release();
  }
  /** Counts the request for each rule; the rule by which it fails, if any. Delays are noted. */
  #decide(slot: number): CompiledRule | undefined {
    const op = this.#requests.op[slot] as number;
    const offset = this.#requests.offset[slot] as number;
    const end = offset + (this.#requests.bytes[slot] as number);
    let failure: CompiledRule | undefined;
    let delay = 0;
    for (let i = 0; i < this.#rules.length; i++) {
      const rule = this.#rules[i] as CompiledRule;
      if ((rule.ops & (1 << op)) === 0) continue;
      if (rule.ranged && (op === DISK_FLUSH || end <= rule.from || offset >= rule.to)) continue;
      rule.matched++;
      if (rule.matched % rule.every !== 0) continue;
      if (rule.probability < 1 && !this.#random.chance(rule.probability)) continue;
      if (rule.fault !== 'delay') failure ??= rule;
      else delay += rule.delayNs + this.#random.below(rule.randomNs + 1);
    }
    if (delay > 0) {
      this.#counts.delays++;
      this.#due[slot] = this.#loop.now + delay;
    }
    return failure;
  }

  /** Passes some blocks of a write on, side by side, never all; false if there are none. */
  #tear(slot: number): boolean {
    const requests = this.#requests;
    const parts = this.#parts;
    const blocks = (requests.bytes[slot] as number) / this.#blockBytes;
    const count = this.#random.below(blocks);
    const first = this.#random.below(blocks - count + 1);
    if (parts === undefined || count === 0) return false;
    const skip = first * this.#blockBytes;
    const { table, queue } = parts;
    const offset = (requests.offset[slot] as number) + skip;
    const bytes = count * this.#blockBytes;
    table.begin(slot, DISK_WRITE, requests.flags[slot] as number, offset, bytes);
    addPart(requests, slot, skip, bytes, table);
    queue.submit(slot);
    return true;
  }

  /** A request is done below. */
  #finish(slot: number, result: number): void {
    const planned = this.#result[slot] as number;
    const final = planned === 0 ? result : planned;
    if ((this.#due[slot] as number) > this.#loop.now) this.#hold(slot, final);
    else this.#complete(slot, final);
  }

  #dueOf(index: number): number {
    return this.#due[this.#heldSlots[index] as number] as number;
  }

  #hold(slot: number, result: number): void {
    const slots = this.#heldSlots;
    const results = this.#heldResults;
    const due = this.#due[slot] as number;
    let at = this.#held++;
    for (; at > 0 && this.#dueOf(at - 1) > due; at--) {
      slots[at] = slots[at - 1] as number;
      results[at] = results[at - 1] as number;
    }
    slots[at] = slot;
    results[at] = result;
  }

  #complete(slot: number, result: number): void {
    this.#inFlight--;
    this.#completed++;
    this.#sink.complete(slot, result);
  }
}

/** Gives a slot of `to` the memory of the bytes [skip, skip + bytes) of a slot's. */
export function addPart(
  from: RequestTable,
  slot: number,
  skip: number,
  bytes: number,
  to: RequestTable,
  toSlot: number = slot,
): void {
  const first = slot * from.segments;
  const end = first + (from.count[slot] as number);
  let before = skip;
  let left = bytes;
  for (let i = first; i < end && left > 0; i++) {
    const length = from.length[i] as number;
    if (before >= length) {
      before -= length;
      continue;
    }
    const part = Math.min(length - before, left);
    to.add(toSlot, (from.address[i] as number) + before, part);
    left -= part;
    before = 0;
  }
}
