/**
 * Notes of the chains of a packed ring that were taken and are not finished, in memory that outlives
 * the process (QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking"). Descriptors are copied
 * here when they are taken, because completions overwrite them in the ring.
 *
 * What is noted counts as soon as the `old_` fields say so: until then the next process rolls it
 * back. The text compares the used indexes to find out whether a batch had been begun; here the wrap
 * counters count as well, for a batch of as many descriptors as the ring has leads back to the
 * same index, and an index is never stored apart from its wrap counter.
 *
 * The region belongs to the front-end as much as to us: what is read from it, at the start only, is
 * checked, and what is decided later rests on copies in our own memory. (Descriptors that are read
 * again are checked as those of a ring are.)
 */
import { TWO_32 } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import { INFLIGHT_PACKED } from '../spec/vhost-user.ts';
import { DESCRIPTOR_BYTES } from '../spec/virtio.ts';
import type { ChainBatch } from './chain-batch.ts';
import { RingError } from './device-queue.ts';
import type { InflightRegion } from './inflight-region.ts';

const { entry: ENTRY, entryBytes: ENTRY_BYTES, headerBytes: HEADER_BYTES } = INFLIGHT_PACKED;

/** A position in the ring: index, and wrap counter in bit 15. */
const INDEX_MASK = 0x7fff;
const WRAP_SHIFT = 15;

/** Buffer ids that a driver may choose. */
const IDS = 0x1_0000;

function inflightEntryAt(entry: number): number {
  return HEADER_BYTES + entry * ENTRY_BYTES;
}

/** The position `count` descriptors on. */
function advance(position: number, count: number, size: number): number {
  const index = (position & INDEX_MASK) + count;
  return index < size
    ? index | (position & ~INDEX_MASK)
    : (index - size) | (~position & (1 << WRAP_SHIFT));
}

export class PackedInflight {
  /** Chains that a former back-end had taken and not finished, and that were not given out again yet. */
  waiting = 0;
  /** Where the ring stands: completions that the driver sees, and chains that were taken. */
  readonly used: number;
  readonly avail: number;
  private readonly region: InflightRegion;
  private readonly size: number;
  /** Entries of the region. */
  private readonly capacity: number;
  /** The next entry of a chain, or of the list of free ones, which ends with `capacity`. */
  private readonly next: Uint16Array;
  /** The last entry and the number of entries of the chain that begins with an entry. */
  private readonly last: Uint16Array;
  private readonly num: Uint16Array;
  /** The first entry of the chain with a buffer id, plus 1; 0: not in flight. */
  private readonly entryOf = new Uint16Array(IDS);
  private freeHead = 0;
  /** First entries of completions that the driver does not see yet, oldest first. */
  private readonly done: Uint16Array;
  private doneCount = 0;
  /** What was found in flight, in the order in which it had been taken: first entries. */
  private readonly found: Uint16Array;
  /** The counter of the next chain: low and high half. */
  private readonly counter = new Uint32Array(2);
  /** Chains taken from the ring and not given back: what a rewind beyond them gives back was found. */
  private fresh = 0;
  /** used_idx, old_used_idx, and both wrap counters: stored at once. */
  private readonly places = new Uint16Array(4);
  private readonly placesAtOnce = new Float64Array(this.places.buffer);

  /**
   * Takes over the notes of a ring, or begins them at `position`. `isWaiting` tells whether the
   * descriptor at a position was made available in that lap and is not used.
   * @throws SluiceError `ring` if the notes cannot be this ring's
   */
  constructor(
    region: InflightRegion,
    size: number,
    position: { readonly avail: number; readonly used: number },
    isWaiting: (position: number) => boolean,
  ) {
    this.region = region;
    this.size = size;
    this.done = new Uint16Array(size);
    const begun = region.isBegun(size, inflightEntryAt(size));
    this.capacity = begun ? region.get16(INFLIGHT_PACKED.descNum) : size;
    if (region.bytes < inflightEntryAt(this.capacity)) throw this.bad('more entries than room');
    this.next = new Uint16Array(this.capacity);
    this.last = new Uint16Array(this.capacity);
    this.num = new Uint16Array(this.capacity);
    if (!begun) {
      this.found = new Uint16Array(0);
      this.used = position.used;
      this.avail = position.avail;
      region.begin(size, () => this.fill());
      return;
    }
    this.used = this.settle(isWaiting);
    this.found = this.find();
    this.waiting = this.found.length;
    const descriptors = this.found.reduce((sum, entry) => sum + (this.num[entry] as number), 0);
    if (descriptors > size) throw this.bad(`${descriptors} descriptors in flight`);
    this.avail = advance(this.used, descriptors, size);
  }

  /**
   * Notes chains [from, to) of a batch as taken. Their descriptors stand in the ring at arena address
   * `ring`, from index `start` on.
   */
  take(
    batch: ChainBatch,
    from: number,
    to: number,
    view: DataView,
    ring: number,
    start: number,
  ): void {
    const { region, entryOf, next, size, capacity } = this;
    let index = start;
    for (let slot = from; slot < to; slot++) {
      const id = batch.id[slot] as number;
      const count = batch.span[slot] as number;
      if (entryOf[id] !== 0) {
        throw new RingError('bad-index', `buffer ${id} made available while it is in use`);
      }
      const head = this.freeHead;
      if (head < capacity) this.noteHead(head, count);
      let entry = head;
      let last = head;
      for (let i = 0; i < count; i++) {
        // Only a driver that writes over what it has not been given back comes to this.
        if (entry === capacity) {
          throw new RingError('index-jump', 'more descriptors made available than the ring has');
        }
        const source = ring + index * DESCRIPTOR_BYTES;
        const at = inflightEntryAt(entry);
        region.set32(at + ENTRY.addr, view.getUint32(source, true));
        region.set32(at + ENTRY.addr + 4, view.getUint32(source + 4, true));
        region.set32(at + ENTRY.len, view.getUint32(source + 8, true));
        region.set32(at + ENTRY.id, view.getUint32(source + 12, true));
        last = entry;
        entry = next[entry] as number;
        index = index + 1 === size ? 0 : index + 1;
      }
      this.last[head] = last;
      region.set16(inflightEntryAt(head) + ENTRY.last, last);
      this.freeHead = entry;
      region.set16(INFLIGHT_PACKED.freeHead, entry);
      region.set16(INFLIGHT_PACKED.oldFreeHead, entry);
      entryOf[id] = head + 1;
    }
    this.fresh += to - from;
  }

  /** The next of the chains found in flight: its first entry. */
  giveOut(): number {
    const head = this.found[this.found.length - this.waiting] as number;
    this.waiting--;
    return head;
  }

  /** Whether the chain that begins with `head` is in flight by this buffer id. */
  isOf(id: number, head: number): boolean {
    return this.entryOf[id] === head + 1;
  }

  /** Descriptors of the chain that begins with `entry`. */
  length(entry: number): number {
    return this.num[entry] as number;
  }

  /** The entry after one of a chain. */
  after(entry: number): number {
    return this.next[entry] as number;
  }

  /** The descriptor that was copied into an entry, as four words of 32 bits. */
  descriptor(entry: number): [number, number, number, number] {
    const { region } = this;
    const at = inflightEntryAt(entry);
    return [
      region.get32(at + ENTRY.addr),
      region.get32(at + ENTRY.addr + 4),
      region.get32(at + ENTRY.len),
      region.get32(at + ENTRY.id),
    ];
  }

  /**
   * Takes back the chains of a batch from `from` on. Those found in flight wait again; the others were
   * never taken. Returns how many the latter are.
   */
  giveBack(batch: ChainBatch, from: number): number {
    const { region, entryOf } = this;
    const count = batch.count - from;
    const fresh = Math.min(count, this.fresh);
    this.waiting += count - fresh;
    this.fresh -= fresh;
    // The newest first: what is in flight are at every moment the oldest.
    for (let slot = batch.count - 1; slot >= batch.count - fresh; slot--) {
      const id = batch.id[slot] as number;
      const head = (entryOf[id] as number) - 1;
      entryOf[id] = 0;
      this.free(head);
      region.set16(INFLIGHT_PACKED.oldFreeHead, head);
      region.set8(inflightEntryAt(head) + ENTRY.inflight, 0);
    }
    return fresh;
  }

  /** The chain with this buffer id is being completed; the driver does not see it yet. */
  complete(id: number): void {
    const head = (this.entryOf[id] as number) - 1;
    if (head === -1) {
      throw new SluiceError('state', `buffer ${id} is completed, which is not in flight`);
    }
    this.entryOf[id] = 0;
    this.done[this.doneCount++] = head;
  }

  /** What was completed is about to be shown: up to this index and wrap counter. */
  beforePublish(index: number, wrap: number): void {
    const { done, doneCount, places } = this;
    for (let i = 0; i < doneCount; i++) this.free(done[i] as number);
    places[0] = index;
    places[2] = wrap | ((places[2] as number) & 0xff00);
    this.region.set64(INFLIGHT_PACKED.usedIdx, this.placesAtOnce);
  }

  /** The driver sees it. */
  afterPublish(): void {
    const { region, done, doneCount } = this;
    for (let i = 0; i < doneCount; i++) {
      region.set8(inflightEntryAt(done[i] as number) + ENTRY.inflight, 0);
    }
    this.doneCount = 0;
    region.set16(INFLIGHT_PACKED.oldFreeHead, this.freeHead);
    const { places } = this;
    this.setPlaces(places[0] as number, (places[2] as number) & 0xff);
  }

  private noteHead(head: number, count: number): void {
    const { region, counter } = this;
    const at = inflightEntryAt(head);
    this.num[head] = count;
    region.set16(at + ENTRY.num, count);
    region.set32(at + ENTRY.counter, counter[0] as number);
    region.set32(at + ENTRY.counter + 4, counter[1] as number);
    counter[0] = (counter[0] as number) + 1;
    if (counter[0] === 0) counter[1] = (counter[1] as number) + 1;
    region.set8(at + ENTRY.inflight, 1);
  }

  /** Puts the entries of a chain before the free ones. */
  private free(head: number): void {
    const { region } = this;
    const last = this.last[head] as number;
    this.next[last] = this.freeHead;
    region.set16(inflightEntryAt(last) + ENTRY.next, this.freeHead);
    this.freeHead = head;
    region.set16(INFLIGHT_PACKED.freeHead, head);
  }

  /** Stores used_idx, old_used_idx and their wrap counters, the same for both. */
  private setPlaces(index: number, wrap: number): void {
    const { places } = this;
    places[0] = index;
    places[1] = index;
    places[2] = wrap | (wrap << 8);
    this.region.set64(INFLIGHT_PACKED.usedIdx, this.placesAtOnce);
  }

  /** Begins the notes: all entries are free. */
  private fill(): void {
    const { region, next, capacity, used } = this;
    for (let entry = 0; entry < capacity; entry++) {
      next[entry] = entry + 1;
      region.set16(inflightEntryAt(entry) + ENTRY.next, entry + 1);
    }
    this.setPlaces(used & INDEX_MASK, used >>> WRAP_SHIFT);
  }

  /** Commits the last batch if the driver has been shown it, else rolls it back. Returns the used position. */
  private settle(isWaiting: (position: number) => boolean): number {
    const { region, size } = this;
    const index = region.get16(INFLIGHT_PACKED.usedIdx);
    const wrap = region.get8(INFLIGHT_PACKED.usedWrapCounter);
    const oldIndex = region.get16(INFLIGHT_PACKED.oldUsedIdx);
    const oldWrap = region.get8(INFLIGHT_PACKED.oldUsedWrapCounter);
    if (index >= size || oldIndex >= size || wrap > 1 || oldWrap > 1) {
      throw this.bad(`used positions ${index} and ${oldIndex}`);
    }
    const isBegun = index !== oldIndex || wrap !== oldWrap;
    if (isBegun && !isWaiting(oldIndex | (oldWrap << WRAP_SHIFT))) {
      this.freeHead = region.get16(INFLIGHT_PACKED.freeHead);
      region.set16(INFLIGHT_PACKED.oldFreeHead, this.freeHead);
      this.setPlaces(index, wrap);
      return index | (wrap << WRAP_SHIFT);
    }
    this.freeHead = region.get16(INFLIGHT_PACKED.oldFreeHead);
    region.set16(INFLIGHT_PACKED.freeHead, this.freeHead);
    this.setPlaces(oldIndex, oldWrap);
    return oldIndex | (oldWrap << WRAP_SHIFT);
  }

  /** First entries of the chains that are noted as in flight, the oldest first. */
  private find(): Uint16Array {
    const { region, next, capacity } = this;
    for (let entry = 0; entry < capacity; entry++) {
      next[entry] = region.get16(inflightEntryAt(entry) + ENTRY.next);
    }
    /** Entries that are free or belong to a chain. */
    const known = new Uint8Array(capacity);
    const claim = (entry: number): void => {
      if (known[entry] !== 0) throw this.bad(`entry ${entry} twice, or out of range`);
      known[entry] = 1;
    };
    for (let entry = this.freeHead; entry < capacity; entry = next[entry] as number) {
      claim(entry);
      region.set8(inflightEntryAt(entry) + ENTRY.inflight, 0);
    }
    const order: { readonly head: number; readonly counter: number }[] = [];
    for (let head = 0; head < capacity; head++) {
      const at = inflightEntryAt(head);
      if (region.get8(at + ENTRY.inflight) !== 1) continue;
      const num = region.get16(at + ENTRY.num);
      if (num === 0) throw this.bad(`a chain without entries at ${head}`);
      let last = head;
      for (let left = num, entry = head; left > 0; left--) {
        claim(entry);
        last = entry;
        entry = next[entry] as number;
      }
      this.num[head] = num;
      this.last[head] = last;
      const id = region.get16(inflightEntryAt(last) + ENTRY.id);
      if (this.entryOf[id] !== 0) throw this.bad(`buffer ${id} twice`);
      this.entryOf[id] = head + 1;
      const low = region.get32(at + ENTRY.counter);
      order.push({ head, counter: low + region.get32(at + ENTRY.counter + 4) * TWO_32 });
    }
    if (known.includes(0)) throw this.bad('entries that are neither free nor in flight');
    order.sort((a, b) => a.counter - b.counter);
    const counter = (order.at(-1)?.counter ?? -1) + 1;
    this.counter[0] = counter % TWO_32;
    this.counter[1] = Math.floor(counter / TWO_32);
    return Uint16Array.from(order, ({ head }) => head);
  }

  private bad(what: string): SluiceError {
    return new SluiceError('ring', `notes of requests in flight that cannot be: ${what}`);
  }
}
