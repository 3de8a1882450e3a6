/**
 * The driver's side of a packed virtqueue (VIRTIO 1.3 §2.8).
 *
 *     ring              { le64 address; le32 length; le16 id; le16 flags } × size
 *     driver area       le16 offset and wrap; le16 flags     when the device shall call
 *     device area       le16 offset and wrap; le16 flags     when the driver shall kick
 *
 * A descriptor is available when its AVAIL bit equals the driver's wrap counter and its USED bit
 * does not; used when both equal the device's wrap counter.
 */
import { TWO_32 } from '../base/bits.ts';
import {
  DESCRIPTOR_BYTES,
  packedRingBytes,
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
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

// The last word of a descriptor: the id below, the flags above.
const FLAGS_SHIFT = 16;
const AVAIL_BIT = VIRTQ_DESC_F_AVAIL << FLAGS_SHIFT;
const USED_BIT = VIRTQ_DESC_F_USED << FLAGS_SHIFT;
const BOTH_BITS = AVAIL_BIT | USED_BIT;
const WRITE_BIT = VIRTQ_DESC_F_WRITE << FLAGS_SHIFT;
const NEXT_BIT = VIRTQ_DESC_F_NEXT << FLAGS_SHIFT;
const INDIRECT_BIT = VIRTQ_DESC_F_INDIRECT << FLAGS_SHIFT;

export class PackedDriverQueue implements DriverQueue {
  readonly packed = true;
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
  /** Signed: a word with its highest bit set is then still a small integer to the engine. */
  private readonly ring: Int32Array;
  private readonly driverEvent: Uint32Array;
  private readonly deviceEvent: Uint32Array;
  private readonly tables: Uint32Array;
  /** An address by itself. */
  private readonly single = new Float64Array(1);

  /** Free buffer ids, a queue. */
  private readonly freeIds: Uint16Array;
  private freeHead = 0;
  private freeTail = 0;
  /** By id: descriptors (0: not with the device), and bytes that are writable. */
  private readonly span: Uint16Array;
  private readonly writable: Uint32Array;
  /** In-order: ids in the order in which they were added, a queue, and the place of each in it. */
  private readonly order: Uint16Array;
  private readonly place: Uint16Array;
  private orderHead = 0;
  private orderTail = 0;
  private batchLeft = 0;
  private batchLength = 0;
  /** The buffer that the last used descriptor named. */
  private lastId = 0;

  /** Next descriptor to make available, and the flags that say so in this round. */
  private availAt = 0;
  private availFlags = AVAIL_BIT;
  /** The first descriptor since the last publish: its last word is held back. */
  private firstAt = 0;
  private firstWord = 0;
  /** Descriptors since the last publish. */
  private added = 0;
  /** Next descriptor that the device will use, and what its flags are then. */
  private usedAt = 0;
  private usedFlags = BOTH_BITS;

  constructor(setup: DriverQueueSetup) {
    const { memory, layout } = setup;
    const { size } = layout;
    const buffer = memory.arena.buffer;
    const bytes = packedRingBytes(size);
    this.size = size;
    this.layout = layout;
    this.free = size;
    this.kick = setup.kick;
    this.eventIdx = setup.eventIdx;
    this.inOrder = setup.inOrder;
    this.tableLength = setup.indirect ? Math.min(layout.indirectLength, size) : 0;
    this.ring = new Int32Array(
      buffer,
      driverArenaAddress(memory, layout.descriptor, bytes.descriptor),
      4 * size,
    );
    this.driverEvent = new Uint32Array(
      buffer,
      driverArenaAddress(memory, layout.driver, bytes.driver),
      1,
    );
    this.deviceEvent = new Uint32Array(
      buffer,
      driverArenaAddress(memory, layout.device, bytes.device),
      1,
    );
    const tableWords = this.tableLength === 0 ? 0 : size * layout.indirectLength * 4;
    this.tables =
      tableWords === 0
        ? new Uint32Array(0)
        : new Uint32Array(
            buffer,
            driverArenaAddress(memory, layout.indirect, 4 * tableWords),
            tableWords,
          );
    this.ring.fill(0);
    this.driverEvent.fill(0);
    this.deviceEvent.fill(0);
    this.freeIds = Uint16Array.from({ length: size }, (_, i) => i);
    this.span = new Uint16Array(size);
    this.writable = new Uint32Array(size);
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
    this.describe(id, addresses, index, length, writable ? WRITE_BIT : 0);
    this.hand(id, 1, writable ? length : 0);
    return id;
  }

  addChain(segments: SegmentList, indirect: boolean): number {
    const { count } = segments;
    if (indirect && count <= this.tableLength) {
      return this.addIndirect(segments);
    }
    if (count === 0 || this.free < count) return -1;
    const id = this.take();
    let writableBytes = 0;
    for (let i = 0; i < count; i++) {
      const length = segments.length[i] as number;
      let flags = 0;
      if (i >= segments.readable) {
        flags |= WRITE_BIT;
        writableBytes += length;
      }
      if (i !== count - 1) flags |= NEXT_BIT;
      this.describe(id, segments.address, i, length, flags);
    }
    this.hand(id, count, writableBytes);
    return id;
  }

  publish(): boolean {
    const added = this.added;
    if (added === 0) return false;
    this.added = 0;
    // All else is written: this word makes the whole batch available. Sequentially consistent,
    // so that it is seen before the device's event structure is read.
    Atomics.store(this.ring, 4 * this.firstAt + 3, this.firstWord);
    const event = Atomics.load(this.deviceEvent, 0);
    const mode = (event >>> FLAGS_SHIFT) & 3;
    if (mode === RING_EVENT_FLAGS_DISABLE) return false;
    if (mode === RING_EVENT_FLAGS_DESC && !this.passed(event & 0xffff, added)) return false;
    this.kicks++;
    this.kick.signal();
    return true;
  }

  collectUsed(max: number): number {
    const limit = max < USED_BATCH ? max : USED_BATCH;
    const count = this.batchLeft === 0 ? this.collectPlain(limit) : 0;
    return count < limit ? this.collectRest(count, limit) : count;
  }

  pending(): boolean {
    if (this.batchLeft > 0) return true;
    if (this.outstanding === 0) return false;
    const word = Atomics.load(this.ring, 4 * this.usedAt + 3);
    return (word & BOTH_BITS) === this.usedFlags;
  }

  enableCalls(): boolean {
    // Offset and flags are one word, so the device never sees the one without the other.
    const wrap = this.usedFlags === 0 ? 0 : 0x8000;
    const event = this.eventIdx
      ? (RING_EVENT_FLAGS_DESC << FLAGS_SHIFT) | wrap | this.usedAt
      : RING_EVENT_FLAGS_ENABLE << FLAGS_SHIFT;
    Atomics.store(this.driverEvent, 0, event);
    return this.pending();
  }

  disableCalls(): void {
    Atomics.store(this.driverEvent, 0, RING_EVENT_FLAGS_DISABLE << FLAGS_SHIFT);
  }

  /** Used descriptors that each stand for a buffer of one descriptor: what devices mostly write. */
  private collectPlain(limit: number): number {
    const { ring, usedId, usedLength, span, order, inOrder, freeIds, size } = this;
    const most = limit < this.outstanding ? limit : this.outstanding;
    let { usedAt, usedFlags, orderHead, freeTail } = this;
    let count = 0;
    for (; count < most; count++) {
      const at = 4 * usedAt;
      // An acquiring load: the length is read after it.
      const word = Atomics.load(ring, at + 3);
      const id = word & 0xffff;
      if ((word & BOTH_BITS) !== usedFlags || span[id] !== 1) break;
      if (inOrder && order[orderHead] !== id) break;
      span[id] = 0;
      usedId[count] = id;
      usedLength[count] = (ring[at + 2] as number) >>> 0;
      orderHead = orderHead + 1 === size ? 0 : orderHead + 1;
      freeIds[freeTail] = id;
      freeTail = freeTail + 1 === size ? 0 : freeTail + 1;
      usedAt++;
      if (usedAt === size) {
        usedAt = 0;
        usedFlags = usedFlags === 0 ? BOTH_BITS : 0;
      }
    }
    this.usedAt = usedAt;
    this.usedFlags = usedFlags;
    this.orderHead = orderHead;
    this.freeTail = freeTail;
    this.free += count;
    this.outstanding -= count;
    return count;
  }

  /** Any used descriptors: of chains, or standing for several buffers. */
  private collectRest(from: number, limit: number): number {
    const { ring, usedId, usedLength } = this;
    let count = from;
    while (count < limit) {
      if (this.batchLeft === 0) {
        if (this.outstanding === 0) break;
        const at = 4 * this.usedAt;
        const word = Atomics.load(ring, at + 3);
        if ((word & BOTH_BITS) !== this.usedFlags) break;
        this.startBatch(word & 0xffff, (ring[at + 2] as number) >>> 0);
      }
      const id = this.inOrder ? (this.order[this.orderHead] as number) : this.lastId;
      this.batchLeft--;
      usedId[count] = id;
      usedLength[count] = this.batchLeft === 0 ? this.batchLength : (this.writable[id] as number);
      count++;
      this.release(id);
    }
    return count;
  }

  private startBatch(last: number, length: number): void {
    if (last >= this.size || (this.span[last] as number) === 0) {
      throw brokenDevice(`used buffer ${last}, which it was not given`);
    }
    this.batchLength = length;
    this.lastId = last;
    if (!this.inOrder) {
      this.batchLeft = 1;
      return;
    }
    // One used descriptor may stand for several buffers: it names the last of them (§2.8.9).
    const distance = (this.place[last] as number) - this.orderHead;
    this.batchLeft = (distance < 0 ? distance + this.size : distance) + 1;
  }

  /** True if the `added` descriptors before `availAt` hold the one that the device waits for. */
  private passed(offsetAndWrap: number, added: number): boolean {
    const wrap = this.availFlags === AVAIL_BIT ? 0x8000 : 0;
    let event = offsetAndWrap & 0x7fff;
    if ((offsetAndWrap & 0x8000) !== wrap) event -= this.size;
    return ((this.availAt - event - 1) & 0xffff) < added;
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
      const at = first + 4 * i;
      tables[at] = address;
      tables[at + 1] = address / TWO_32;
      tables[at + 2] = length;
      tables[at + 3] = writable ? WRITE_BIT : 0;
    }
    this.single[0] = layout.indirect + first * 4;
    this.describe(id, this.single, 0, count * DESCRIPTOR_BYTES, INDIRECT_BIT);
    this.hand(id, 1, writableBytes);
    return id;
  }

  private take(): number {
    const head = this.freeHead;
    this.freeHead = head + 1 === this.size ? 0 : head + 1;
    return this.freeIds[head] as number;
  }

  /** Writes the next descriptor of the ring; that of the first since publish without its last word. */
  private describe(
    id: number,
    addresses: Float64Array,
    index: number,
    length: number,
    flags: number,
  ): void {
    const { ring } = this;
    const address = addresses[index] as number;
    const slot = this.availAt;
    const at = 4 * slot;
    const word = flags | this.availFlags | id;
    ring[at] = address;
    ring[at + 1] = address / TWO_32;
    ring[at + 2] = length;
    if (this.added === 0) {
      this.firstAt = slot;
      this.firstWord = word;
    } else {
      ring[at + 3] = word;
    }
    this.added++;
    if (slot + 1 === this.size) {
      this.availAt = 0;
      this.availFlags = this.availFlags === AVAIL_BIT ? USED_BIT : AVAIL_BIT;
    } else {
      this.availAt = slot + 1;
    }
  }

  private hand(id: number, descriptors: number, writableBytes: number): void {
    this.span[id] = descriptors;
    this.writable[id] = writableBytes;
    this.free -= descriptors;
    this.outstanding++;
    const tail = this.orderTail;
    this.order[tail] = id;
    this.place[id] = tail;
    this.orderTail = tail + 1 === this.size ? 0 : tail + 1;
  }

  /** Takes a buffer's descriptors and id back and steps over them in the ring. */
  private release(id: number): void {
    const { size } = this;
    const descriptors = this.span[id] as number;
    this.span[id] = 0;
    this.free += descriptors;
    this.outstanding--;
    this.orderHead = this.orderHead + 1 === size ? 0 : this.orderHead + 1;
    const tail = this.freeTail;
    this.freeIds[tail] = id;
    this.freeTail = tail + 1 === size ? 0 : tail + 1;
    const next = this.usedAt + descriptors;
    if (next >= size) {
      this.usedAt = next - size;
      this.usedFlags = this.usedFlags === 0 ? BOTH_BITS : 0;
    } else {
      this.usedAt = next;
    }
  }
}
