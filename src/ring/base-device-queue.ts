/**
 * What both kinds of device-side rings share: reading a chain that is not a single plain
 * descriptor, and checking its addresses. The hot paths of the kinds stand in their own files.
 */
import { TWO_32 } from '../base/bits.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import {
  DESCRIPTOR_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../spec/virtio.ts';
import { type ChainBatch, MORE_SEGMENTS } from './chain-batch.ts';
import { type Direction, type Interrupt, RingError } from './device-queue.ts';
import type { QueueSetup } from './queue-setup.ts';

/** Flags that decide how a descriptor is read. */
export const SHAPE_FLAGS = VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_INDIRECT;

/** A value of the shape flags that no descriptor has: nothing takes the fast path. */
const NEVER = 0x1_0000;

export abstract class BaseDeviceQueue {
  readonly size: number;
  readonly inOrder: boolean;
  /** Calls raised since the start. */
  calls = 0;
  protected readonly eventIdx: boolean;
  protected readonly indirect: boolean;
  protected readonly direction: Direction;
  protected readonly memory: AddressSpace;
  protected readonly interrupt: Interrupt;
  protected readonly arenaView: DataView;
  /** Shape flags of a chain that is one plain descriptor of the queue's direction. */
  protected readonly plain: number;
  /** Written pages must be logged. Refreshed by {@link forget}. */
  protected logging: boolean;
  /** The memory range that the last buffer lay in; empty when unknown. */
  protected rangeStart = 0;
  protected rangeEnd = 0;
  protected rangeDelta = 0;
  protected readonly deviceArea: number;
  /** What was written into completed buffers and not yet marked: arena addresses and lengths in turn. */
  private readonly unmarked: number[] = [];

  protected constructor(setup: QueueSetup) {
    this.size = setup.size;
    this.inOrder = setup.inOrder;
    this.eventIdx = setup.eventIdx;
    this.indirect = setup.indirect;
    this.direction = setup.direction;
    this.memory = setup.memory;
    this.interrupt = setup.interrupt;
    this.arenaView = setup.arena.view;
    this.plain =
      setup.direction === 'both' ? NEVER : setup.direction === 'writable' ? VIRTQ_DESC_F_WRITE : 0;
    this.logging = setup.memory.logging;
    this.deviceArea = setup.device;
  }

  /** Cached ranges are no longer good: the memory table or its dirty log has changed. */
  forget(): void {
    this.rangeStart = 0;
    this.rangeEnd = 0;
    this.logging = this.memory.logging;
    this.unmarked.length = 0;
  }

  noteWritten(arenaAddress: number, length: number): void {
    if (this.logging) this.unmarked.push(arenaAddress, length);
  }

  /** True if the batch might not hold one more chain of this ring. */
  protected isCramped(batch: ChainBatch): boolean {
    return batch.count > 0 && batch.moreCount + 2 * this.size > MORE_SEGMENTS;
  }

  /** Starts chain `slot`, with no segment yet. */
  protected open(batch: ChainBatch, slot: number): void {
    batch.shaped = true;
    batch.length[slot] = 0;
    batch.total[slot] = 0;
    batch.more[slot] = 0;
    batch.moreStart[slot] = batch.moreCount;
    batch.readable[slot] = 0;
  }

  /**
   * Adds a descriptor's range to chain `slot`: one segment, or several where memory regions meet.
   * Empty descriptors add nothing.
   */
  protected append(
    batch: ChainBatch,
    slot: number,
    lo: number,
    hi: number,
    length: number,
    flags: number,
  ): void {
    const writable = (flags & VIRTQ_DESC_F_WRITE) !== 0;
    this.checkDirection(batch, slot, writable);
    const total = (batch.total[slot] as number) + length;
    if (total >= TWO_32) throw new RingError('bad-length', 'a chain of 4 GiB and more');
    batch.total[slot] = total;
    let address = lo + hi * TWO_32;
    let left = length;
    while (left > 0) {
      const range = this.memory.find(address);
      if (range === undefined || (writable && !range.writable))
        throw this.badAddress(lo, hi, length);
      const part = Math.min(left, range.end - address);
      this.addSegment(batch, slot, address + range.delta, part, writable);
      this.rangeStart = range.start;
      this.rangeEnd = range.end;
      this.rangeDelta = range.delta;
      address += part;
      left -= part;
    }
  }

  /** Adds the descriptors of an indirect table (§2.7.5.3, §2.8.7). */
  protected appendIndirect(
    batch: ChainBatch,
    slot: number,
    lo: number,
    hi: number,
    bytes: number,
  ): void {
    const entries = bytes / DESCRIPTOR_BYTES;
    if (!this.indirect)
      throw new RingError('bad-indirect', 'an indirect table that was not negotiated');
    if (entries === 0 || !Number.isInteger(entries)) {
      throw new RingError('bad-indirect', `an indirect table of ${bytes} bytes`);
    }
    const address = lo + hi * TWO_32;
    const range = this.memory.find(address);
    if (range === undefined || address + bytes > range.end) throw this.badAddress(lo, hi, bytes);
    this.readTable(batch, slot, address + range.delta, entries);
  }

  /** The entries of an indirect table at an arena address; the kinds order them differently. */
  protected abstract readTable(
    batch: ChainBatch,
    slot: number,
    table: number,
    entries: number,
  ): void;

  /** Ends chain `slot`: it must have come to something. */
  protected close(batch: ChainBatch, slot: number): void {
    if (batch.total[slot] === 0) throw new RingError('bad-length', 'a chain without a byte');
  }

  /**
   * Notes what the device writes into chain `slot`, for {@link markUnmarked}: the copies are still to
   * be done, and a page that is marked before it is written may be sent in between.
   */
  protected logWritten(batch: ChainBatch, slot: number, written: number): void {
    const segments = 1 + (batch.more[slot] as number);
    let left = written;
    for (let i = batch.readable[slot] as number; i < segments && left > 0; i++) {
      const at = (batch.moreStart[slot] as number) + i - 1;
      const address = i === 0 ? (batch.address[slot] as number) : (batch.moreAddress[at] as number);
      const length = i === 0 ? (batch.length[slot] as number) : (batch.moreLength[at] as number);
      const part = Math.min(left, length);
      this.unmarked.push(address, part);
      left -= part;
    }
  }

  /** As {@link logWritten}, for chains [from, to) with `batch.written` bytes each. */
  protected logRange(batch: ChainBatch, from: number, to: number): void {
    for (let slot = from; slot < to; slot++) {
      this.logWritten(batch, slot, batch.written[slot] as number);
    }
  }

  /** Marks in the dirty log what was noted. */
  protected markUnmarked(): void {
    const { unmarked } = this;
    for (let i = 0; i < unmarked.length; i += 2) {
      this.memory.markWritten(unmarked[i] as number, unmarked[i + 1] as number);
    }
    unmarked.length = 0;
  }

  protected badIndex(index: number, limit: number): RingError {
    return new RingError('bad-index', `descriptor ${index} of a table of ${limit}`);
  }

  protected tooLong(): RingError {
    return new RingError('chain-too-long', `a chain of more than ${this.size} descriptors`);
  }

  protected badAddress(lo: number, hi: number, length: number): RingError {
    const address = (lo + hi * TWO_32).toString(16);
    return new RingError(
      'bad-address',
      `0x${address} + ${length} bytes is not in the guest's memory`,
    );
  }

  private checkDirection(batch: ChainBatch, slot: number, writable: boolean): void {
    const wrong = writable ? this.direction === 'readable' : this.direction === 'writable';
    if (wrong) {
      throw new RingError(
        'bad-direction',
        `a ${writable ? 'writable' : 'readable'} descriptor in a queue of ${this.direction} ones`,
      );
    }
    const anyWritable = (batch.readable[slot] as number) < this.segmentCount(batch, slot);
    if (!writable && anyWritable) {
      throw new RingError('bad-direction', 'a readable descriptor after a writable one');
    }
  }

  private segmentCount(batch: ChainBatch, slot: number): number {
    return (batch.length[slot] === 0 ? 0 : 1) + (batch.more[slot] as number);
  }

  private addSegment(
    batch: ChainBatch,
    slot: number,
    address: number,
    length: number,
    writable: boolean,
  ): void {
    if (!writable) batch.readable[slot] = (batch.readable[slot] as number) + 1;
    if (batch.length[slot] === 0) {
      batch.address[slot] = address;
      batch.length[slot] = length;
      return;
    }
    const at = batch.moreCount;
    // Only regions of a few pages side by side come to this: every descriptor lies in many.
    if (at === MORE_SEGMENTS) throw this.tooLong();
    batch.moreCount++;
    batch.moreAddress[at] = address;
    batch.moreLength[at] = length;
    batch.more[slot] = (batch.more[slot] as number) + 1;
  }
}
