/**
 * Notes of the chains of a split ring that were taken and are not finished, in memory that outlives
 * the process (QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking"). The order of the stores is
 * that of the text: a process that is killed between any two of them leaves notes from which the next
 * one can tell what was in flight.
 *
 * The region belongs to the front-end as much as to us: what is read from it, at the start only, is
 * checked, and what is decided later rests on copies in our own memory.
 */
import { TWO_32 } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import { INFLIGHT_SPLIT } from '../spec/vhost-user.ts';
import type { ChainBatch } from './chain-batch.ts';
import { RingError } from './device-queue.ts';
import type { InflightRegion } from './inflight-region.ts';

const { entry: ENTRY, entryBytes: ENTRY_BYTES, headerBytes: HEADER_BYTES } = INFLIGHT_SPLIT;

function entryAt(head: number): number {
  return HEADER_BYTES + head * ENTRY_BYTES;
}

export class SplitInflight {
  /** Chains that a former back-end had taken and not finished, and that were not given out again yet. */
  waiting = 0;
  private readonly region: InflightRegion;
  /** Heads in flight. */
  private readonly taken: Uint8Array;
  /** Heads of completions that the driver does not see yet, oldest first. */
  private readonly done: Uint16Array;
  private doneCount = 0;
  /** What was found in flight, in the order in which it had been taken. */
  private readonly found: Uint16Array;
  /** The counter of the next chain: low and high half. */
  private readonly counter = new Uint32Array(2);
  /** Chains taken from the ring and not given back: what a rewind beyond them gives back was found. */
  private fresh = 0;
  private lastBatchHead = 0;

  /**
   * Takes over the notes of a ring whose used index is `usedIdx`, or begins them.
   * @throws SluiceError `ring` if the notes cannot be this ring's
   */
  constructor(region: InflightRegion, size: number, usedIdx: number) {
    this.region = region;
    this.taken = new Uint8Array(size);
    this.done = new Uint16Array(size);
    if (region.isBegun(size, entryAt(size))) this.commitLastBatch(size, usedIdx);
    else region.begin(size, () => region.set16(INFLIGHT_SPLIT.usedIdx, usedIdx));
    this.found = this.find(size);
    this.waiting = this.found.length;
  }

  /** Heads in flight: the ring's next available entry is so far ahead of its used index. */
  get inFlight(): number {
    let count = 0;
    for (const one of this.taken) count += one;
    return count;
  }

  /** Notes chains [from, to) of a batch as taken. */
  take(batch: ChainBatch, from: number, to: number): void {
    const { region, taken, counter } = this;
    const { id } = batch;
    for (let slot = from; slot < to; slot++) {
      const head = id[slot] as number;
      if (taken[head] !== 0) {
        throw new RingError('bad-index', `descriptor ${head} made available while it is in use`);
      }
      taken[head] = 1;
      const at = entryAt(head);
      region.set32(at + ENTRY.counter, counter[0] as number);
      region.set32(at + ENTRY.counter + 4, counter[1] as number);
      counter[0] = (counter[0] as number) + 1;
      if (counter[0] === 0) counter[1] = (counter[1] as number) + 1;
      region.set8(at + ENTRY.inflight, 1);
    }
    this.fresh += to - from;
  }

  /** The next of the chains found in flight: its head. */
  giveOut(): number {
    const head = this.found[this.found.length - this.waiting] as number;
    this.waiting--;
    return head;
  }

  /**
   * Takes back the chains of a batch from `from` on. Those found in flight wait again; the others were
   * never taken. Returns how many the latter are.
   */
  giveBack(batch: ChainBatch, from: number): number {
    const count = batch.count - from;
    const fresh = Math.min(count, this.fresh);
    this.waiting += count - fresh;
    this.fresh -= fresh;
    // The newest first: what is in flight are at every moment the oldest.
    for (let slot = batch.count - 1; slot >= batch.count - fresh; slot--) {
      const head = batch.id[slot] as number;
      this.region.set8(entryAt(head) + ENTRY.inflight, 0);
      this.taken[head] = 0;
    }
    return fresh;
  }

  /** A used entry was written for `head`; the index does not show it yet. */
  complete(head: number): void {
    if (this.taken[head] !== 1) {
      throw new SluiceError('state', `chain ${head} is completed, which is not in flight`);
    }
    this.taken[head] = 2;
    this.done[this.doneCount++] = head;
  }

  /** The used index is about to show what was completed. */
  beforePublish(): void {
    const { region, done, doneCount } = this;
    for (let i = 0; i < doneCount; i++) {
      const head = done[i] as number;
      region.set16(entryAt(head) + ENTRY.next, this.lastBatchHead);
      this.lastBatchHead = head;
      region.set16(INFLIGHT_SPLIT.lastBatchHead, head);
    }
  }

  /** The used index is `usedIdx` now. */
  afterPublish(usedIdx: number): void {
    const { region, done, doneCount, taken } = this;
    for (let i = 0; i < doneCount; i++) {
      const head = done[i] as number;
      region.set8(entryAt(head) + ENTRY.inflight, 0);
      taken[head] = 0;
    }
    this.doneCount = 0;
    region.set16(INFLIGHT_SPLIT.usedIdx, usedIdx);
  }

  /** The last batch was shown to the driver and may still be noted as in flight. */
  private commitLastBatch(size: number, usedIdx: number): void {
    const { region } = this;
    const batch = (usedIdx - region.get16(INFLIGHT_SPLIT.usedIdx)) & 0xffff;
    if (batch > size) {
      throw new SluiceError(
        'ring',
        `notes of requests in flight that end ${batch} completions before the ring of ${size} entries does`,
      );
    }
    let head = region.get16(INFLIGHT_SPLIT.lastBatchHead);
    this.lastBatchHead = head;
    for (let left = batch; left > 0; left--) {
      if (head >= size) {
        throw new SluiceError('ring', `notes of requests in flight that name descriptor ${head}`);
      }
      region.set8(entryAt(head) + ENTRY.inflight, 0);
      head = region.get16(entryAt(head) + ENTRY.next);
    }
    region.set16(INFLIGHT_SPLIT.usedIdx, usedIdx);
  }

  /** Heads that are noted as in flight, the oldest first. */
  private find(size: number): Uint16Array {
    const { region } = this;
    const order: { readonly head: number; readonly counter: number }[] = [];
    for (let head = 0; head < size; head++) {
      const at = entryAt(head);
      if (region.get8(at + ENTRY.inflight) !== 1) continue;
      this.taken[head] = 1;
      const low = region.get32(at + ENTRY.counter);
      const high = region.get32(at + ENTRY.counter + 4);
      order.push({ head, counter: low + high * TWO_32 });
    }
    order.sort((a, b) => a.counter - b.counter);
    const next = (order.at(-1)?.counter ?? -1) + 1;
    this.counter[0] = next % TWO_32;
    this.counter[1] = Math.floor(next / TWO_32);
    return Uint16Array.from(order, ({ head }) => head);
  }
}
