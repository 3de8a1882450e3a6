/**
 * The device's side of a split virtqueue (VIRTIO 1.3 §2.7).
 *
 *   descriptor area   16 bytes an entry: address 8, length 4, flags 2, next 2
 *   driver area       flags 2, idx 2, ring 2 an entry, used_event 2
 *   device area       flags 2, idx 2, ring 8 an entry (id 4, length 4), avail_event 2
 */
import { TWO_32 } from '../base/bits.ts';
import {
  DESCRIPTOR_BYTES,
  splitRingBytes,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../spec/virtio.ts';
import { BaseDeviceQueue, SHAPE_FLAGS } from './base-device-queue.ts';
import { BATCH, type ChainBatch } from './chain-batch.ts';
import { type DeviceQueue, RingError, type RingPosition } from './device-queue.ts';
import { SplitInflight } from './inflight-split.ts';
import { type PlainChains, plainChainsFor } from './plain-chains.ts';
import type { QueueSetup } from './queue-setup.ts';

/** Words of 16 bits before the ring in the driver and the device area: flags, idx. */
const FLAGS = 0;
const IDX = 1;
const RING = 2;

export class SplitDeviceQueue extends BaseDeviceQueue implements DeviceQueue {
  readonly packed = false;
  readonly recovered: number;
  private readonly mask: number;
  private readonly descriptors: Uint32Array;
  private readonly descriptorsAt: number;
  private readonly avail: Uint16Array;
  private readonly used16: Uint16Array;
  private readonly usedRing: Uint32Array;
  private readonly availEvent: number;
  private readonly usedEvent: number;
  /** Next entry of the available ring to read, modulo 2^16. */
  private next: number;
  /** Next entry of the used ring to write, and the index that the driver was shown last. */
  private used: number;
  private published: number;
  /** Arena addresses of the entries of the available and the used ring. */
  private readonly availAt: number;
  private readonly usedAt: number;
  private readonly chains: PlainChains | undefined;
  /** Notes of what is in flight, for devices that want them. */
  private readonly inflight: SplitInflight | undefined;

  constructor(setup: QueueSetup) {
    super(setup);
    const { arena, size } = setup;
    this.mask = size - 1;
    this.descriptorsAt = setup.descriptor;
    this.descriptors = new Uint32Array(arena.buffer, setup.descriptor, size * 4);
    this.avail = new Uint16Array(arena.buffer, setup.driver, RING + size + 1);
    this.used16 = new Uint16Array(arena.buffer, setup.device, RING + size * 4 + 1);
    this.usedRing = new Uint32Array(arena.buffer, setup.device + 4, size * 2);
    this.usedEvent = RING + size;
    this.availEvent = RING + size * 4;
    this.next = setup.position.avail & 0xffff;
    this.used = setup.position.used & 0xffff;
    this.inflight = undefined;
    if (setup.inflight !== undefined) {
      // The ring shows how far completions have come, and the notes how many chains were taken.
      this.used = Atomics.load(this.used16, IDX);
      this.inflight = new SplitInflight(setup.inflight, size, this.used);
      this.next = (this.used + this.inflight.inFlight) & 0xffff;
    }
    this.recovered = this.inflight?.waiting ?? 0;
    this.published = this.used;
    this.availAt = setup.driver + 2 * RING;
    this.usedAt = setup.device + 2 * RING;
    const ends = splitRingBytes(size);
    this.chains = plainChainsFor(
      arena,
      setup.descriptor + ends.descriptor,
      setup.driver + ends.driver,
      setup.device + ends.device,
    );
  }

  collect(batch: ChainBatch, max: number): number {
    const { avail, mask, descriptors, plain } = this;
    const { next, inflight } = this;
    if (inflight !== undefined && inflight.waiting > 0) return this.resubmit(inflight, batch, max);
    // The load is a barrier: entries up to the index are read after it.
    let count = (Atomics.load(avail, IDX) - next) & 0xffff;
    if (count === 0) return 0;
    if (count > this.size) throw this.badMove(count);
    const room = BATCH - batch.count;
    if (count > max) count = max;
    if (count > room) count = room;
    let slot = batch.count;
    const first = slot;
    const last = first + count;
    const { id, address, length, total } = batch;
    batch.expect(plain === 0 ? 1 : 0);
    const { tableAt } = batch;
    const chains = tableAt === 0 ? undefined : this.chains;
    while (slot < last) {
      const { rangeStart, rangeEnd, rangeDelta } = this;
      if (chains !== undefined) {
        slot = chains.collectSplit(
          this.availAt,
          mask,
          next + slot - first,
          this.descriptorsAt,
          plain,
          tableAt,
          slot,
          last,
          rangeStart,
          rangeEnd,
          rangeDelta,
        );
      }
      // Plain chains: no call in this loop, so that the engine keeps all of the above in registers.
      for (; chains === undefined && slot < last; slot++) {
        const head = avail[RING + ((next + slot - first) & mask)] as number;
        if (head > mask) break;
        const at = head * 4;
        const flags = (descriptors[at + 3] as number) & SHAPE_FLAGS;
        const bytes = descriptors[at + 2] as number;
        const guest = (descriptors[at] as number) + (descriptors[at + 1] as number) * TWO_32;
        if (flags !== plain || guest < rangeStart || guest + bytes > rangeEnd || bytes === 0) break;
        id[slot] = head;
        address[slot] = guest + rangeDelta;
        length[slot] = bytes;
        total[slot] = bytes;
      }
      batch.count = slot;
      if (slot === last || this.isCramped(batch)) break;
      const head = avail[RING + ((next + slot - first) & mask)] as number;
      if (head > mask) throw this.badIndex(head, this.size);
      id[slot] = head;
      this.walk(batch, slot, head);
      slot++;
      batch.count = slot;
    }
    this.next = (next + slot - first) & 0xffff;
    if (inflight !== undefined) inflight.take(batch, first, slot);
    return slot - first;
  }

  pending(): boolean {
    if (this.inflight !== undefined && this.inflight.waiting > 0) return true;
    return Atomics.load(this.avail, IDX) !== this.next;
  }

  rewind(batch: ChainBatch, from: number): void {
    const count =
      this.inflight === undefined ? batch.count - from : this.inflight.giveBack(batch, from);
    this.next = (this.next - count) & 0xffff;
    batch.truncate(from);
  }

  complete(batch: ChainBatch, slot: number, written: number): void {
    this.completeChain(batch.id[slot] as number, 1, written);
    if (this.logging) this.logWritten(batch, slot, written);
  }

  completeRange(batch: ChainBatch, from: number, to: number): void {
    const { usedRing, mask, inflight } = this;
    const { id } = batch;
    if (inflight !== undefined) {
      for (let slot = from; slot < to; slot++) this.completeChain(id[slot] as number, 1, 0);
      return;
    }
    let { used } = this;
    if (this.inOrder && to > from) {
      // One entry, which names the last buffer, stands for all of them (§2.7.9).
      const at = (used & mask) * 2;
      usedRing[at] = id[to - 1] as number;
      usedRing[at + 1] = 0;
      this.used = (used + to - from) & 0xffff;
      return;
    }
    for (let slot = from; slot < to; slot++) {
      const at = (used & mask) * 2;
      usedRing[at] = id[slot] as number;
      usedRing[at + 1] = 0;
      used = (used + 1) & 0xffff;
    }
    this.used = used;
  }

  completeWritten(batch: ChainBatch, from: number, to: number): void {
    const { usedRing, mask, chains, inflight } = this;
    const { id, written, tableAt } = batch;
    if (inflight !== undefined) {
      for (let slot = from; slot < to; slot++) this.complete(batch, slot, written[slot] as number);
      return;
    }
    let { used } = this;
    if (chains !== undefined && tableAt !== 0) {
      chains.completeSplit(this.usedAt, mask, used, tableAt, from, to);
      this.used = (used + to - from) & 0xffff;
      if (this.logging) this.logRange(batch, from, to);
      return;
    }
    for (let slot = from; slot < to; slot++) {
      const at = (used & mask) * 2;
      usedRing[at] = id[slot] as number;
      usedRing[at + 1] = written[slot] as number;
      used = (used + 1) & 0xffff;
    }
    this.used = used;
    if (this.logging) this.logRange(batch, from, to);
  }

  completeChain(id: number, _span: number, written: number): void {
    const at = (this.used & this.mask) * 2;
    this.usedRing[at] = id;
    this.usedRing[at + 1] = written;
    this.used = (this.used + 1) & 0xffff;
    if (this.inflight !== undefined) this.inflight.complete(id);
  }

  publish(): void {
    const { used, published, avail, inflight } = this;
    if (used === published) return;
    this.published = used;
    if (inflight !== undefined) inflight.beforePublish();
    // Store and load are both atomic: only so the driver's wish is read after the store (§2.7.7.2).
    // (A plain load may overtake an atomic store on arm64.)
    Atomics.store(this.used16, IDX, used);
    if (inflight !== undefined) inflight.afterPublish(used);
    const wanted = this.eventIdx
      ? ((used - Atomics.load(avail, this.usedEvent) - 1) & 0xffff) < ((used - published) & 0xffff)
      : (Atomics.load(avail, FLAGS) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    if (this.logging) {
      this.markUnmarked();
      this.memory.markWritten(this.deviceArea, this.used16.byteLength);
    }
    if (wanted) {
      this.calls++;
      this.interrupt.signal();
    }
  }

  enableKicks(): boolean {
    if (this.eventIdx) Atomics.store(this.used16, this.availEvent, this.next);
    else Atomics.store(this.used16, FLAGS, 0);
    return this.pending();
  }

  disableKicks(): void {
    // With the event index nothing need be written: the driver kicks when its index passes
    // avail_event, which stays behind (§2.7.10).
    if (!this.eventIdx) this.used16[FLAGS] = VIRTQ_USED_F_NO_NOTIFY;
  }

  position(): RingPosition {
    return { avail: this.next, used: this.used };
  }

  /** Chains that a former back-end had taken: the driver has left them as they were. */
  private resubmit(inflight: SplitInflight, batch: ChainBatch, max: number): number {
    const first = batch.count;
    const limit = Math.min(max, BATCH - first, inflight.waiting);
    for (let left = limit; left > 0 && !this.isCramped(batch); left--) {
      const slot = batch.count;
      const head = inflight.giveOut();
      batch.id[slot] = head;
      this.walk(batch, slot, head);
      batch.count = slot + 1;
    }
    return batch.count - first;
  }

  /** Any chain: linked, indirect, in another memory range. */
  private walk(batch: ChainBatch, slot: number, head: number): void {
    this.open(batch, slot);
    this.follow(batch, slot, this.descriptorsAt, this.size, head, true);
    this.close(batch, slot);
  }

  protected override readTable(
    batch: ChainBatch,
    slot: number,
    table: number,
    entries: number,
  ): void {
    this.follow(batch, slot, table, entries, 0, false);
  }

  private follow(
    batch: ChainBatch,
    slot: number,
    table: number,
    entries: number,
    head: number,
    outer: boolean,
  ): void {
    const view = this.arenaView;
    let index = head;
    for (let left = this.size; ; left--) {
      if (left === 0) throw this.tooLong();
      if (index >= entries) throw this.badIndex(index, entries);
      const at = table + index * DESCRIPTOR_BYTES;
      const lo = view.getUint32(at, true);
      const hi = view.getUint32(at + 4, true);
      const bytes = view.getUint32(at + 8, true);
      const word = view.getUint32(at + 12, true);
      if ((word & VIRTQ_DESC_F_INDIRECT) !== 0) {
        if (!outer || (word & VIRTQ_DESC_F_NEXT) !== 0) {
          throw new RingError(
            'bad-indirect',
            'an indirect table within a table, or followed by a descriptor',
          );
        }
        this.appendIndirect(batch, slot, lo, hi, bytes);
        return;
      }
      this.append(batch, slot, lo, hi, bytes, word);
      if ((word & VIRTQ_DESC_F_NEXT) === 0) return;
      index = word >>> 16;
    }
  }

  /** The available index has moved by `count`, modulo 2^16, which is more than the ring holds. */
  private badMove(count: number): RingError {
    const back = 0x1_0000 - count;
    return back > this.size
      ? new RingError(
          'index-jump',
          `the available index moved by ${count} in a ring of ${this.size}`,
        )
      : new RingError('index-back', `the available index went back by ${back}`);
  }
}
