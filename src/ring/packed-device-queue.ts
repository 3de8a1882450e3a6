/**
 * The device's side of a packed virtqueue (VIRTIO 1.3 §2.8).
 *
 *   descriptor area   16 bytes an entry: address 8, length 4, id 2, flags 2
 *   driver area       event suppression of calls: off_wrap 2, flags 2
 *   device area       event suppression of kicks: off_wrap 2, flags 2
 *
 * A descriptor is available when its AVAIL flag equals the driver's wrap counter and its USED flag
 * does not; it is used when both equal the device's wrap counter. Id and flags share one 32-bit
 * word, which is read first and written last.
 */
import { TWO_32 } from '../base/bits.ts';
import {
  DESCRIPTOR_BYTES,
  packedRingBytes,
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../spec/virtio.ts';
import { BaseDeviceQueue, SHAPE_FLAGS } from './base-device-queue.ts';
import { BATCH, type ChainBatch } from './chain-batch.ts';
import { type DeviceQueue, RingError, type RingPosition } from './device-queue.ts';
import { PackedInflight } from './inflight-packed.ts';
import { type PlainChains, plainChainsFor } from './plain-chains.ts';
import type { QueueSetup } from './queue-setup.ts';

/** The AVAIL and USED flags within the word of id and flags. */
const AVAIL_SHIFT = 16 + 7;
const USED_SHIFT = 16 + 15;
const AVAIL_AND_USED = (1 << AVAIL_SHIFT) | (1 << USED_SHIFT);
const WRAP_BIT = 0x8000;

/**
 * Words of the journal (`QueueSetup.journal`). Positions have the wrap counter in bit 15.
 * BATCH: where the first completion that may not have been published stands.
 * LAST: where the last completion stands (low half), and the position after it (high half); equal to
 * BATCH in both halves when there is none.
 */
export const JOURNAL_BATCH = 0;
export const JOURNAL_LAST = 1;
export const JOURNAL_WORDS = 2;

/** Words of an event suppression structure (§2.8.14). */
const OFF_WRAP = 0;
const EVENT_FLAGS = 1;

/**
 * On x86 a load is never seen before an earlier one, so that the flags of each descriptor need no
 * barrier before its contents are read; elsewhere they do.
 */
const LOADS_IN_ORDER = process.arch === 'x64';

const NOTHING_WRITTEN = new Uint32Array(BATCH);

export class PackedDeviceQueue extends BaseDeviceQueue implements DeviceQueue {
  readonly packed = true;
  readonly recovered: number;
  private readonly descriptors: Uint32Array;
  /** The same, signed: a word with its highest bit set is then still a small integer to the engine. */
  private readonly words: Int32Array;
  private readonly descriptorsAt: number;
  private readonly driverEvent: Uint16Array;
  private readonly deviceEvent: Uint16Array;
  private readonly journal: Int32Array;
  /** Next descriptor to read, and the driver's wrap counter there. */
  private next: number;
  private nextWrap: number;
  /** Next descriptor to write, and the device's wrap counter there. */
  private used: number;
  private usedWrap: number;
  /** Where the driver was told of completions last. */
  private published: number;
  private readonly chains: PlainChains | undefined;
  /** The first completion since then: it is written last, by {@link publish}. */
  private heldAt = -1;
  private heldWord = 0;
  private heldLength = 0;
  /** Notes of what is in flight, for devices that want them. */
  private readonly inflight: PackedInflight | undefined;

  constructor(setup: QueueSetup) {
    super(setup);
    const { arena, size } = setup;
    this.descriptorsAt = setup.descriptor;
    this.descriptors = new Uint32Array(arena.buffer, setup.descriptor, size * 4);
    this.words = new Int32Array(arena.buffer, setup.descriptor, size * 4);
    this.driverEvent = new Uint16Array(arena.buffer, setup.driver, 2);
    this.deviceEvent = new Uint16Array(arena.buffer, setup.device, 2);
    this.journal = setup.journal ?? new Int32Array(JOURNAL_WORDS);
    this.inflight =
      setup.inflight === undefined
        ? undefined
        : new PackedInflight(setup.inflight, size, setup.position, (at) => this.isWaiting(at));
    const position = this.inflight ?? setup.position;
    this.next = position.avail & 0x7fff;
    this.nextWrap = (position.avail >>> 15) & 1;
    this.used = position.used & 0x7fff;
    this.usedWrap = (position.used >>> 15) & 1;
    this.published = this.used;
    const ends = packedRingBytes(size);
    this.chains = plainChainsFor(arena, setup.descriptor + ends.descriptor);
    this.recovered = this.inflight?.waiting ?? 0;
    if (this.inflight !== undefined) this.forgetUnpublished();
  }

  collect(batch: ChainBatch, max: number): number {
    const { descriptors, words, plain, size, inflight } = this;
    if (inflight !== undefined && inflight.waiting > 0) return this.resubmit(inflight, batch, max);
    const start = this.next;
    const room = BATCH - batch.count;
    const limit = Math.min(max, room, this.left());
    const { id, address, length, total } = batch;
    batch.expect(plain === 0 ? 1 : 0);
    const first = batch.count;
    let last = first + limit;
    let { next, nextWrap } = this;
    let slot = first;
    const { tableAt } = batch;
    const chains = tableAt === 0 ? undefined : this.chains;
    while (slot < last) {
      const { rangeStart, rangeEnd, rangeDelta } = this;
      if (chains !== undefined) {
        const before = slot;
        slot = chains.collectPacked(
          this.descriptorsAt,
          size,
          next,
          nextWrap,
          plain,
          tableAt,
          slot,
          last,
          rangeStart,
          rangeEnd,
          rangeDelta,
        );
        next += slot - before;
        if (next >= size) {
          next -= size;
          nextWrap ^= 1;
        }
      }
      // Plain chains: no call in this loop, so that the engine keeps all of the above in registers.
      for (; chains === undefined && slot < last; slot++) {
        const at = next * 4;
        const word = LOADS_IN_ORDER ? (words[at + 3] as number) : Atomics.load(words, at + 3);
        if (((word >>> AVAIL_SHIFT) & 1) !== nextWrap || word >>> USED_SHIFT === nextWrap) break;
        const bytes = descriptors[at + 2] as number;
        const guest = (descriptors[at] as number) + (descriptors[at + 1] as number) * TWO_32;
        if (((word >>> 16) & SHAPE_FLAGS) !== plain) break;
        if (guest < rangeStart || guest + bytes > rangeEnd || bytes === 0) break;
        id[slot] = word & 0xffff;
        address[slot] = guest + rangeDelta;
        length[slot] = bytes;
        total[slot] = bytes;
        next++;
        if (next === size) {
          next = 0;
          nextWrap ^= 1;
        }
      }
      batch.count = slot;
      this.next = next;
      this.nextWrap = nextWrap;
      if (slot === last || !this.pending() || this.isCramped(batch)) break;
      next += this.walk(batch, slot, next);
      if (next >= size) {
        next -= size;
        nextWrap ^= 1;
      }
      slot++;
      batch.count = slot;
      this.next = next;
      this.nextWrap = nextWrap;
      last = Math.min(last, slot + this.left());
    }
    this.next = next;
    this.nextWrap = nextWrap;
    if (inflight !== undefined)
      inflight.take(batch, first, slot, this.arenaView, this.descriptorsAt, start);
    return slot - first;
  }

  pending(): boolean {
    if (this.inflight !== undefined && this.inflight.waiting > 0) return true;
    return this.isWaiting(this.next | (this.nextWrap << 15));
  }

  rewind(batch: ChainBatch, from: number): void {
    const { inflight } = this;
    const fresh = inflight === undefined ? batch.count - from : inflight.giveBack(batch, from);
    let { next } = this;
    for (let slot = batch.count - fresh; slot < batch.count; slot++)
      next -= batch.span[slot] as number;
    if (next < 0) {
      next += this.size;
      this.nextWrap ^= 1;
    }
    this.next = next;
    batch.truncate(from);
  }

  complete(batch: ChainBatch, slot: number, written: number): void {
    this.put(batch.id[slot] as number, batch.span[slot] as number, written);
    if (this.logging) this.logWritten(batch, slot, written);
  }

  completeRange(batch: ChainBatch, from: number, to: number): void {
    if (to - from > 1 && this.inOrder && this.inflight === undefined) {
      // One descriptor, which names the last buffer, stands for all of them (§2.8.9).
      let descriptors = 0;
      for (let slot = from; slot < to; slot++) descriptors += batch.span[slot] as number;
      this.put(batch.id[to - 1] as number, descriptors, 0);
    } else {
      this.putAll(batch, from, to, NOTHING_WRITTEN);
    }
  }

  completeWritten(batch: ChainBatch, from: number, to: number): void {
    this.putAll(batch, from, to, batch.written);
    if (this.logging) this.logRange(batch, from, to);
  }

  completeChain(id: number, span: number, written: number): void {
    this.put(id, span, written);
  }

  publish(): void {
    const { heldAt, inflight } = this;
    if (heldAt === -1) return;
    if (inflight !== undefined) inflight.beforePublish(this.used, this.usedWrap);
    this.descriptors[heldAt - 1] = this.heldLength;
    // Store and load are both atomic: only so the driver's wish is read after the store.
    Atomics.store(this.words, heldAt, this.heldWord);
    this.heldAt = -1;
    if (inflight !== undefined) inflight.afterPublish();
    if (this.logging) {
      this.markUnmarked();
      this.memory.markWritten(this.descriptorsAt, this.size * DESCRIPTOR_BYTES);
    }
    const wanted = this.callWanted();
    this.published = this.used;
    if (wanted) {
      this.calls++;
      this.interrupt.signal();
    }
  }

  enableKicks(): boolean {
    const event = this.deviceEvent;
    if (this.eventIdx) {
      event[OFF_WRAP] = this.next | (this.nextWrap << 15);
      Atomics.store(event, EVENT_FLAGS, RING_EVENT_FLAGS_DESC);
    } else {
      Atomics.store(event, EVENT_FLAGS, RING_EVENT_FLAGS_ENABLE);
    }
    return this.pending();
  }

  disableKicks(): void {
    this.deviceEvent[EVENT_FLAGS] = RING_EVENT_FLAGS_DISABLE;
  }

  position(): RingPosition {
    return {
      avail: this.next | (this.nextWrap << 15),
      used: this.used | (this.usedWrap << 15),
    };
  }

  /**
   * Descriptors that are not collected already and still to be completed: a driver that changes flags
   * meanwhile could have the same ones taken again, round after round.
   */
  private left(): number {
    const ahead = this.next - this.used;
    return this.nextWrap === this.usedWrap ? this.size - ahead : -ahead;
  }

  /** The driver has made the descriptor at a position available in that lap, and nobody has used it. */
  private isWaiting(position: number): boolean {
    const wrap = position >>> 15;
    const word = Atomics.load(this.words, (position & ~WRAP_BIT) * 4 + 3);
    return ((word >>> AVAIL_SHIFT) & 1) === wrap && word >>> USED_SHIFT !== wrap;
  }

  /** Chains that a former back-end had taken, as they were noted: the ring may not show them any more. */
  private resubmit(inflight: PackedInflight, batch: ChainBatch, max: number): number {
    const first = batch.count;
    const limit = Math.min(max, BATCH - first, inflight.waiting);
    for (let left = limit; left > 0 && !this.isCramped(batch); left--) {
      const slot = batch.count;
      const head = inflight.giveOut();
      let entry = head;
      const span = inflight.length(entry);
      this.open(batch, slot);
      for (let i = 0; i < span; i++) {
        const [lo, hi, bytes, word] = inflight.descriptor(entry);
        this.appendAny(batch, slot, lo, hi, bytes, word >>> 16, i === 0);
        batch.id[slot] = word & 0xffff;
        entry = inflight.after(entry);
      }
      // Who has the notes, too, may have changed them since they were found to be in order.
      if (!inflight.isOf(batch.id[slot] as number, head)) {
        throw new RingError('bad-index', `buffer ${batch.id[slot]} in notes of another`);
      }
      batch.span[slot] = span;
      this.close(batch, slot);
      batch.count = slot + 1;
    }
    return batch.count - first;
  }

  /**
   * Takes completions back that a former process had written and not published: the driver would come
   * upon them behind those that are published now.
   */
  private forgetUnpublished(): void {
    let { used: index, usedWrap: wrap } = this;
    for (let left = this.size - this.left(); left > 0; left--) {
      const at = index * 4 + 3;
      const word = this.words[at] as number;
      const available = wrap === 1 ? 1 << AVAIL_SHIFT : 1 << USED_SHIFT;
      this.words[at] = (word & ~AVAIL_AND_USED) | available;
      index++;
      if (index === this.size) {
        index = 0;
        wrap ^= 1;
      }
    }
  }

  /** Marks a buffer used that takes `span` descriptors. */
  private put(id: number, span: number, written: number): void {
    const { journal, size, inflight } = this;
    if (inflight !== undefined) inflight.complete(id);
    const position = this.used | (this.usedWrap << 15);
    const at = this.used * 4 + 3;
    const word = id | usedFlags(this.usedWrap, written);
    let used = this.used + span;
    if (used >= size) {
      used -= size;
      this.usedWrap ^= 1;
    }
    this.used = used;
    // What is about to be written is noted first: a new process can then finish or forget it.
    if (this.heldAt === -1) {
      journal[JOURNAL_BATCH] = position;
      journal[JOURNAL_LAST] = position | ((used | (this.usedWrap << 15)) << 16);
      this.heldAt = at;
      this.heldWord = word;
      this.heldLength = written;
    } else {
      journal[JOURNAL_LAST] = position | ((used | (this.usedWrap << 15)) << 16);
      // Flags before length: a length never changes in what still looks available.
      this.words[at] = word;
      this.descriptors[at - 1] = written;
    }
  }

  /** As {@link put} for chains [from, to) of a batch, in a loop without calls. */
  private putAll(batch: ChainBatch, from: number, to: number, lengths: Uint32Array): void {
    const { journal, size, words, descriptors } = this;
    const { id, span } = batch;
    let slot = from;
    if (this.inflight !== undefined) {
      for (; slot < to; slot++)
        this.put(id[slot] as number, span[slot] as number, lengths[slot] as number);
      return;
    }
    if (this.heldAt === -1 && slot < to) {
      this.put(id[slot] as number, span[slot] as number, lengths[slot] as number);
      slot++;
    }
    if (this.chains !== undefined && batch.tableAt !== 0 && !batch.shaped) {
      this.putPlain(batch, slot, to, lengths);
      return;
    }
    let { used, usedWrap } = this;
    for (; slot < to; slot++) {
      const position = used | (usedWrap << 15);
      const at = used * 4 + 3;
      const written = lengths[slot] as number;
      const word = (id[slot] as number) | usedFlags(usedWrap, written);
      used += span[slot] as number;
      if (used >= size) {
        used -= size;
        usedWrap ^= 1;
      }
      journal[JOURNAL_LAST] = position | ((used | (usedWrap << 15)) << 16);
      words[at] = word;
      descriptors[at - 1] = written;
    }
    this.used = used;
    this.usedWrap = usedWrap;
  }

  /**
   * As {@link putAll} for chains of one descriptor, behind one that is held. They are noted all together,
   * and once they are written, as if each had been noted by itself.
   */
  private putPlain(batch: ChainBatch, from: number, to: number, lengths: Uint32Array): void {
    const { journal, size, used, usedWrap } = this;
    if (from === to) return;
    const last = this.after(to - from - 1);
    const end = this.after(to - from);
    journal[JOURNAL_LAST] = used | (usedWrap << 15) | (end << 16);
    const mask = lengths === NOTHING_WRITTEN ? 0 : -1;
    this.chains?.completePacked(
      this.descriptorsAt,
      size,
      used,
      usedWrap,
      batch.tableAt,
      from,
      to,
      mask,
    );
    journal[JOURNAL_LAST] = last | (end << 16);
    this.used = end & ~WRAP_BIT;
    this.usedWrap = end >>> 15;
  }

  /** The position so many descriptors (at most the ring's size) after the next to be written. */
  private after(count: number): number {
    const index = this.used + count;
    return index < this.size
      ? index | (this.usedWrap << 15)
      : (index - this.size) | ((this.usedWrap ^ 1) << 15);
  }

  /** §2.8.14, and the example of §2.8.21.3: was the event position among the new completions? */
  private callWanted(): boolean {
    const event = this.driverEvent;
    const flags = Atomics.load(event, EVENT_FLAGS);
    if (flags !== RING_EVENT_FLAGS_DESC || !this.eventIdx)
      return flags !== RING_EVENT_FLAGS_DISABLE;
    const offWrap = event[OFF_WRAP] as number;
    const { used, size } = this;
    const old = used <= this.published ? this.published - size : this.published;
    const sameLap = offWrap >>> 15 === this.usedWrap;
    const wanted = (offWrap & ~WRAP_BIT) - (sameLap ? 0 : size);
    return ((used - wanted - 1) & 0xffff) < ((used - old) & 0xffff);
  }

  /** Any chain: several descriptors, indirect, in another memory range. Returns descriptors taken. */
  private walk(batch: ChainBatch, slot: number, head: number): number {
    const view = this.arenaView;
    this.open(batch, slot);
    const limit = this.left();
    let index = head;
    let taken = 0;
    for (;;) {
      if (taken === limit) throw this.tooLong();
      const at = this.descriptorsAt + index * DESCRIPTOR_BYTES;
      const lo = view.getUint32(at, true);
      const hi = view.getUint32(at + 4, true);
      const bytes = view.getUint32(at + 8, true);
      const word = view.getUint32(at + 12, true);
      const flags = word >>> 16;
      taken++;
      this.appendAny(batch, slot, lo, hi, bytes, flags, taken === 1);
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) {
        // The buffer's id stands in the last descriptor of the chain (§2.8.6).
        batch.id[slot] = word & 0xffff;
        break;
      }
      index = index + 1 === this.size ? 0 : index + 1;
    }
    batch.span[slot] = taken;
    this.close(batch, slot);
    return taken;
  }

  /** Adds what a descriptor stands for; `isFirst`: it begins its chain. */
  private appendAny(
    batch: ChainBatch,
    slot: number,
    lo: number,
    hi: number,
    bytes: number,
    flags: number,
    isFirst: boolean,
  ): void {
    if ((flags & VIRTQ_DESC_F_INDIRECT) === 0) {
      this.append(batch, slot, lo, hi, bytes, flags);
      return;
    }
    if (!isFirst || (flags & VIRTQ_DESC_F_NEXT) !== 0) {
      throw new RingError('bad-indirect', 'an indirect table among other descriptors of a chain');
    }
    this.appendIndirect(batch, slot, lo, hi, bytes);
  }

  protected override readTable(
    batch: ChainBatch,
    slot: number,
    table: number,
    entries: number,
  ): void {
    if (entries > this.size) throw this.tooLong();
    const view = this.arenaView;
    for (let i = 0; i < entries; i++) {
      const at = table + i * DESCRIPTOR_BYTES;
      const flags = view.getUint16(at + 14, true);
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        throw new RingError('bad-indirect', 'an indirect table within a table');
      }
      this.append(
        batch,
        slot,
        view.getUint32(at, true),
        view.getUint32(at + 4, true),
        view.getUint32(at + 8, true),
        flags,
      );
    }
  }
}

/** The flags of a used descriptor, in the place that they have in its last word. */
function usedFlags(wrap: number, written: number): number {
  return (wrap === 1 ? AVAIL_AND_USED : 0) | (written > 0 ? VIRTQ_DESC_F_WRITE << 16 : 0);
}
