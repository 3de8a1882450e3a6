/**
 * The driver's side of a split virtqueue (VIRTIO 1.3 §2.7).
 *
 *     descriptor table  { le64 address; le32 length; le16 flags; le16 next } × size
 *     available ring    le16 flags; le16 idx; le16 ring[size]; le16 used_event
 *     used ring         le16 flags; le16 idx; { le32 id; le32 length } × size; le16 avail_event
 *
 * Free descriptors are taken and returned first in, first out. While buffers come back in order
 * that is the order of the table, which is what VIRTIO_F_IN_ORDER asks of a driver (§2.7.9); and
 * buffers that are added again in the order of their return get the same descriptor as before,
 * which then need not be written: its cache line stays with the device.
 */
import { TWO_32 } from '../base/bits.ts';
import {
  DESCRIPTOR_BYTES,
  splitRingBytes,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../spec/virtio.ts';
import {
  brokenDevice,
  type DriverQueue,
  type DriverQueueSetup,
  driverArenaAddress,
  type Kick,
  type QueueLayout,
  type SegmentList,
  USED_BATCH,
} from './driver-queue.ts';

// Indexes into the 16-bit views of both rings.
const FLAGS = 0;
const IDX = 1;
const RING = 2;

export class SplitDriverQueue implements DriverQueue {
  readonly packed = false;
  readonly size: number;
  readonly layout: QueueLayout;
  free: number;
  outstanding = 0;
  kicks = 0;
  readonly usedId = new Uint16Array(USED_BATCH);
  readonly usedLength = new Uint32Array(USED_BATCH);

  private readonly kick: Kick;
  private readonly eventIdx: boolean;
  private readonly inOrder: boolean;
  /** Descriptors that an indirect table may have: never more than the ring (§2.7.5.3.1, §2.8.19). */
  private readonly tableLength: number;
  private readonly mask: number;
  private readonly descriptors: Uint32Array;
  private readonly avail: Uint16Array;
  private readonly used16: Uint16Array;
  private readonly used32: Uint32Array;
  /** Where the event indexes stand in `avail` and `used16`. */
  private readonly usedEvent: number;
  private readonly availEvent: number;
  private readonly tables: Uint32Array;
  /** An address by itself. */
  private readonly single = new Float64Array(1);

  /** What the descriptor table holds: never read back from memory that the device could change. */
  private readonly heldAddress: Float64Array;
  private readonly heldLength: Uint32Array;
  /** Flags in the low half, next in the high half. */
  private readonly heldWord: Uint32Array;

  /** Free descriptors, a queue. */
  private readonly freeRing: Uint16Array;
  private freeHead = 0;
  private freeTail: number;
  /** By head: descriptors of the chain (0: not with the device), and bytes that are writable. */
  private readonly span: Uint16Array;
  private readonly writable: Uint32Array;
  private readonly next: Uint16Array;
  /** In-order: heads by place in the available ring, and the place of each head. */
  private readonly order: Uint16Array;
  private readonly place: Uint16Array;

  /** Free-running: next place in the available ring; the same as last published; next used entry. */
  private availIdx = 0;
  private publishedIdx = 0;
  private usedIdx = 0;
  /** In-order: buffers that the last used entry stands for and that were not yet returned. */
  private batchLeft = 0;
  /** The length in that entry: of its last buffer. */
  private entryLength = 0;

  constructor(setup: DriverQueueSetup) {
    const { memory, layout } = setup;
    const { size } = layout;
    const buffer = memory.arena.buffer;
    const bytes = splitRingBytes(size);
    const descriptorAt = driverArenaAddress(memory, layout.descriptor, bytes.descriptor);
    const availAt = driverArenaAddress(memory, layout.driver, bytes.driver);
    const usedAt = driverArenaAddress(memory, layout.device, bytes.device);
    this.size = size;
    this.layout = layout;
    this.free = size;
    this.kick = setup.kick;
    this.eventIdx = setup.eventIdx;
    this.inOrder = setup.inOrder;
    this.tableLength = setup.indirect ? Math.min(layout.indirectLength, size) : 0;
    this.mask = size - 1;
    this.descriptors = new Uint32Array(buffer, descriptorAt, 4 * size);
    this.avail = new Uint16Array(buffer, availAt, bytes.driver / 2);
    this.used16 = new Uint16Array(buffer, usedAt, bytes.device / 2);
    this.used32 = new Uint32Array(buffer, usedAt, 1 + 2 * size);
    this.usedEvent = RING + size;
    this.availEvent = RING + 4 * size;
    const tableWords = this.tableLength === 0 ? 0 : size * layout.indirectLength * 4;
    this.tables =
      tableWords === 0
        ? new Uint32Array(0)
        : new Uint32Array(
            buffer,
            driverArenaAddress(memory, layout.indirect, 4 * tableWords),
            tableWords,
          );
    this.descriptors.fill(0);
    this.avail.fill(0);
    this.used16.fill(0);
    this.heldAddress = new Float64Array(size);
    this.heldLength = new Uint32Array(size);
    this.heldWord = new Uint32Array(size);
    this.freeRing = Uint16Array.from({ length: size }, (_, i) => i);
    this.freeTail = size;
    this.span = new Uint16Array(size);
    this.writable = new Uint32Array(size);
    this.next = new Uint16Array(size);
    this.order = new Uint16Array(size);
    this.place = new Uint16Array(size);
  }

  add(address: number, length: number, writable: boolean): number {
    this.single[0] = address;
    return this.addFrom(this.single, 0, length, writable);
  }

  addFrom(addresses: Float64Array, index: number, length: number, writable: boolean): number {
    if (this.free === 0) return -1;
    const id = this.take();
    this.describe(id, addresses, index, length, writable ? VIRTQ_DESC_F_WRITE : 0);
    this.span[id] = 1;
    this.writable[id] = writable ? length : 0;
    this.offer(id);
    return id;
  }

  addChain(segments: SegmentList, indirect: boolean): number {
    const { count } = segments;
    if (indirect && count <= this.tableLength) {
      return this.addIndirect(segments);
    }
    if (count === 0 || this.free < count) return -1;
    const head = this.take();
    let id = head;
    let writableBytes = 0;
    for (let i = 0; i < count; i++) {
      const writable = i >= segments.readable;
      const length = segments.length[i] as number;
      if (writable) writableBytes += length;
      let word = writable ? VIRTQ_DESC_F_WRITE : 0;
      const last = i === count - 1;
      const following = last ? 0 : this.take();
      if (!last) {
        word |= VIRTQ_DESC_F_NEXT | (following << 16);
        this.next[id] = following;
      }
      this.describe(id, segments.address, i, length, word >>> 0);
      id = following;
    }
    this.span[head] = count;
    this.writable[head] = writableBytes;
    this.offer(head);
    return head;
  }

  publish(): boolean {
    const before = this.publishedIdx;
    const now = this.availIdx;
    if (now === before) return false;
    this.publishedIdx = now;
    // Sequentially consistent: the store is seen before the load is done (§2.7.13.3.1).
    Atomics.store(this.avail, IDX, now);
    const wanted = this.eventIdx
      ? ((now - Atomics.load(this.used16, this.availEvent) - 1) & 0xffff) <
        ((now - before) & 0xffff)
      : (Atomics.load(this.used16, FLAGS) & VIRTQ_USED_F_NO_NOTIFY) === 0;
    if (!wanted) return false;
    this.kicks++;
    this.kick.signal();
    return true;
  }

  collectUsed(max: number): number {
    const idx = Atomics.load(this.used16, IDX);
    const waiting = (idx - this.usedIdx) & 0xffff;
    if (waiting === 0) return 0;
    if (waiting > this.outstanding) {
      throw brokenDevice(`used ${waiting} buffers of ${this.outstanding}`);
    }
    const wanted = waiting < max ? waiting : max;
    const count = wanted < USED_BATCH ? wanted : USED_BATCH;
    if (this.inOrder) this.collectInOrder(count, waiting);
    else this.collectAny(count);
    this.outstanding -= count;
    return count;
  }

  pending(): boolean {
    return Atomics.load(this.used16, IDX) !== this.usedIdx;
  }

  enableCalls(): boolean {
    if (this.eventIdx) Atomics.store(this.avail, this.usedEvent, this.usedIdx);
    else Atomics.store(this.avail, FLAGS, 0);
    return this.pending();
  }

  disableCalls(): void {
    // An event index that has just been passed is not met again for 65535 buffers.
    if (this.eventIdx) Atomics.store(this.avail, this.usedEvent, (this.usedIdx - 1) & 0xffff);
    else Atomics.store(this.avail, FLAGS, VIRTQ_AVAIL_F_NO_INTERRUPT);
  }

  private collectAny(count: number): void {
    const { used32, usedId, usedLength, mask } = this;
    let at = this.usedIdx;
    for (let i = 0; i < count; i++) {
      const entry = 1 + 2 * (at & mask);
      usedId[i] = this.release(used32[entry] as number);
      usedLength[i] = used32[entry + 1] as number;
      at++;
    }
    this.usedIdx = at & 0xffff;
  }

  private collectInOrder(count: number, waiting: number): void {
    const { used32, usedId, usedLength, mask, order, span, writable, freeRing } = this;
    let at = this.usedIdx;
    let tail = this.freeTail;
    let left = this.batchLeft;
    let i = 0;
    while (i < count) {
      if (left === 0) {
        const slot = at & mask;
        const id = order[slot] as number;
        if (used32[1 + 2 * slot] === id && span[id] === 1) {
          // An entry for a buffer of one descriptor.
          span[id] = 0;
          usedId[i] = id;
          usedLength[i] = used32[2 + 2 * slot] as number;
          freeRing[tail & mask] = id;
          tail++;
          at++;
          i++;
          continue;
        }
        left = this.openEntry(at, waiting - i);
      }
      const end = left < count - i ? i + left : count;
      left -= end - i;
      for (; i < end; i++) {
        const id = order[at & mask] as number;
        at++;
        usedId[i] = id;
        usedLength[i] = writable[id] as number;
        freeRing[tail & mask] = id;
        tail++;
        if (span[id] !== 1) tail = this.freeRest(id, tail);
        span[id] = 0;
      }
      if (left === 0) usedLength[i - 1] = this.entryLength;
    }
    this.batchLeft = left;
    this.usedIdx = at & 0xffff;
    this.free += tail - this.freeTail;
    this.freeTail = tail & 0xffff;
  }

  /**
   * Reads the used entry at `at`. It may stand for several buffers: it names the last of them
   * (§2.7.9). Returns how many.
   */
  private openEntry(at: number, waiting: number): number {
    const { used32, size } = this;
    const entry = 1 + 2 * (at & this.mask);
    const last = used32[entry] as number;
    const place = last < size && this.span[last] !== 0 ? (this.place[last] as number) : at - 1;
    const buffers = ((place - at) & 0xffff) + 1;
    if (buffers > waiting) throw brokenDevice(`used buffer ${last}, which is not one of the next`);
    this.entryLength = used32[entry + 1] as number;
    return buffers;
  }

  /** Puts the descriptors of a chain but its first into the queue of free ones; returns its new end. */
  private freeRest(head: number, tail: number): number {
    const { freeRing, mask, next } = this;
    let end = tail;
    let id = head;
    for (let left = (this.span[head] as number) - 1; left > 0; left--) {
      id = next[id] as number;
      freeRing[end & mask] = id;
      end++;
    }
    return end;
  }

  private addIndirect(segments: SegmentList): number {
    const { count } = segments;
    if (count === 0 || this.free === 0) return -1;
    const id = this.take();
    const { tables, layout } = this;
    const first = id * layout.indirectLength * 4;
    let writableBytes = 0;
    for (let i = 0; i < count; i++) {
      const writable = i >= segments.readable;
      const address = segments.address[i] as number;
      const length = segments.length[i] as number;
      if (writable) writableBytes += length;
      const next = i === count - 1 ? 0 : VIRTQ_DESC_F_NEXT | ((i + 1) << 16);
      const at = first + 4 * i;
      tables[at] = address;
      tables[at + 1] = address / TWO_32;
      tables[at + 2] = length;
      tables[at + 3] = next | (writable ? VIRTQ_DESC_F_WRITE : 0);
    }
    this.single[0] = layout.indirect + first * 4;
    this.describe(id, this.single, 0, count * DESCRIPTOR_BYTES, VIRTQ_DESC_F_INDIRECT);
    this.span[id] = 1;
    this.writable[id] = writableBytes;
    this.offer(id);
    return id;
  }

  private take(): number {
    const id = this.freeRing[this.freeHead & this.mask] as number;
    this.freeHead = (this.freeHead + 1) & 0xffff;
    this.free--;
    return id;
  }

  private describe(
    id: number,
    addresses: Float64Array,
    index: number,
    length: number,
    word: number,
  ): void {
    if (
      this.heldAddress[id] === addresses[index] &&
      this.heldLength[id] === length &&
      this.heldWord[id] === word
    ) {
      return;
    }
    const address = addresses[index] as number;
    this.heldAddress[id] = address;
    this.heldLength[id] = length;
    this.heldWord[id] = word;
    const { descriptors } = this;
    const at = 4 * id;
    // A typed array keeps the low 32 bits of what is stored, and drops the fraction.
    descriptors[at] = address;
    descriptors[at + 1] = address / TWO_32;
    descriptors[at + 2] = length;
    descriptors[at + 3] = word;
  }

  private offer(head: number): void {
    const at = this.availIdx;
    const slot = at & this.mask;
    this.order[slot] = head;
    this.place[head] = at;
    if (this.avail[RING + slot] !== head) this.avail[RING + slot] = head;
    this.availIdx = (at + 1) & 0xffff;
    this.outstanding++;
  }

  /** Takes the descriptors of a chain back; returns its head. */
  private release(head: number): number {
    const count = head < this.size ? (this.span[head] as number) : 0;
    if (count === 0) throw brokenDevice(`used buffer ${head}, which it was not given`);
    const { freeRing, mask, freeTail } = this;
    freeRing[freeTail & mask] = head;
    this.freeTail = this.freeRest(head, freeTail + 1) & 0xffff;
    this.span[head] = 0;
    this.free += count;
    return head;
  }
}
