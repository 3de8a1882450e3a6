/**
 * The driver's side of a virtqueue, split or packed: what a guest's driver uses.
 *
 * The driver lays the ring out in its own memory, makes buffers available, and takes back those
 * that the device has used. Buffer addresses are guest physical; the queue reaches its own areas
 * through the arena. Nothing is allocated per buffer.
 */
import { alignUp } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import type { Arena } from '../memory/arena.ts';
import {
  DESCRIPTOR_BYTES,
  MAX_QUEUE_SIZE,
  packedRingBytes,
  splitRingBytes,
} from '../spec/virtio.ts';

/** A guest's memory as its own driver sees it: one piece, mapped into the arena of this process. */
export interface DriverMemory {
  readonly arena: Arena;
  /** Arena address of the first byte. */
  readonly arenaAddress: number;
  /** Guest physical address of the first byte. */
  readonly guestAddress: number;
  readonly size: number;
}

/** Tells the device that buffers are available. Implemented by the transport's front-end. */
export interface Kick {
  signal(): void;
}

/** Where the parts of a queue lie, as guest physical addresses. */
export interface QueueLayout {
  readonly size: number;
  readonly packed: boolean;
  /** Descriptor table, or the packed ring itself. */
  readonly descriptor: number;
  /** Available ring, or the driver's event suppression structure. */
  readonly driver: number;
  /** Used ring, or the device's event suppression structure. */
  readonly device: number;
  /** Indirect tables, one for each descriptor, or 0 without. */
  readonly indirect: number;
  /** Descriptors of one indirect table; 0: the driver makes none. */
  readonly indirectLength: number;
  /** Bytes of all parts together. */
  readonly bytes: number;
}

// Each part on cache lines of its own: the two sides write different ones.
const LINE = 64;

/**
 * Lays a queue out from `at` on (a guest physical address, a multiple of 64). `indirectLength`
 * reserves an indirect table of so many descriptors for each descriptor of the ring.
 * @throws SluiceError `ring` for a size that the standard does not allow (VIRTIO 1.3 §2.7, §2.8).
 */
export function layOutQueue(
  at: number,
  size: number,
  packed: boolean,
  indirectLength = 0,
): QueueLayout {
  const legal =
    Number.isInteger(size) &&
    size >= 1 &&
    size <= MAX_QUEUE_SIZE &&
    (packed || (size & (size - 1)) === 0);
  if (!legal) {
    throw new SluiceError('ring', `a ${packed ? 'packed' : 'split'} ring of ${size} descriptors`, {
      remedy: packed
        ? `choose a size from 1 to ${MAX_QUEUE_SIZE}`
        : `choose a power of two up to ${MAX_QUEUE_SIZE}`,
    });
  }
  if (at % LINE !== 0) {
    throw new SluiceError('ring', `a ring at 0x${at.toString(16)}, not a multiple of ${LINE}`);
  }
  const bytes = packed ? packedRingBytes(size) : splitRingBytes(size);
  const driver = alignUp(at + bytes.descriptor, LINE);
  const device = alignUp(driver + bytes.driver, LINE);
  const tables = alignUp(device + bytes.device, LINE);
  const end = tables + size * indirectLength * DESCRIPTOR_BYTES;
  return {
    size,
    packed,
    descriptor: at,
    driver,
    device,
    indirect: indirectLength === 0 ? 0 : tables,
    indirectLength,
    bytes: alignUp(end, LINE) - at,
  };
}

/** What driver and device agreed on for a ring. */
export interface RingFeatures {
  /** VIRTIO_F_EVENT_IDX */
  readonly eventIdx: boolean;
  /** VIRTIO_F_INDIRECT_DESC */
  readonly indirect: boolean;
  /** VIRTIO_F_IN_ORDER */
  readonly inOrder: boolean;
}

export interface DriverQueueSetup extends RingFeatures {
  readonly memory: DriverMemory;
  readonly layout: QueueLayout;
  readonly kick: Kick;
}

/** The segments of one buffer, device-readable ones first. Filled by the driver, reused. */
export class SegmentList {
  count = 0;
  /** How many of the segments, from the start, are device-readable. */
  readable = 0;
  /** Guest physical addresses. */
  readonly address: Float64Array;
  readonly length: Uint32Array;

  constructor(capacity: number) {
    this.address = new Float64Array(capacity);
    this.length = new Uint32Array(capacity);
  }

  clear(): void {
    this.count = 0;
    this.readable = 0;
  }

  /** Adds a segment. Readable ones must come before writable ones (VIRTIO 1.3 §2.7.4.2). */
  push(address: number, length: number, writable: boolean): void {
    this.address[this.count] = address;
    this.length[this.count] = length;
    this.count++;
    if (!writable) this.readable = this.count;
  }
}

/** Buffers that one {@link DriverQueue.collectUsed} returns at most. */
export const USED_BATCH = 64;

export interface DriverQueue {
  readonly size: number;
  readonly packed: boolean;
  readonly layout: QueueLayout;
  /** Free descriptors. */
  free: number;
  /** Buffers that were added and not collected. */
  outstanding: number;
  /** Kicks sent since the start. */
  kicks: number;
  /** What the last {@link collectUsed} returned: ids, and bytes that the device wrote. */
  readonly usedId: Uint16Array;
  readonly usedLength: Uint32Array;

  /**
   * Adds a buffer of one segment. Returns its id, which {@link collectUsed} will give back, or -1
   * without a free descriptor. The device sees it after {@link publish}.
   */
  add(address: number, length: number, writable: boolean): number;
  /**
   * As {@link add}, at the address `addresses[index]`: for the hot path, where an address that is
   * passed by itself may become an object on the heap.
   */
  addFrom(addresses: Float64Array, index: number, length: number, writable: boolean): number;
  /**
   * Adds a buffer of one or more segments: through an indirect table if `indirect` is asked for,
   * was negotiated and holds them, else as a chain. Returns its id or -1.
   */
  addChain(segments: SegmentList, indirect: boolean): number;
  /** Makes what was added visible; kicks the device if it wants that. True if it was kicked. */
  publish(): boolean;
  /**
   * Takes up to `max` (at most {@link USED_BATCH}) used buffers, oldest first, into `usedId` and
   * `usedLength`. Returns how many.
   * @throws SluiceError `ring` if the device returned what it was not given.
   */
  collectUsed(max: number): number;
  /** True if the device has used buffers that were not collected. Looks only. */
  pending(): boolean;
  /** Asks the device for calls; true if buffers were used in the meantime. */
  enableCalls(): boolean;
  disableCalls(): void;
}

/** Arena address of `bytes` bytes of a guest's memory; for setting up, not for the hot path. */
export function driverArenaAddress(memory: DriverMemory, address: number, bytes: number): number {
  const offset = address - memory.guestAddress;
  if (offset < 0 || offset + bytes > memory.size) {
    throw new SluiceError(
      'memory',
      `0x${address.toString(16)} + ${bytes} bytes is not in the guest's memory`,
    );
  }
  return memory.arenaAddress + offset;
}

/** A device that gave back what it did not have. */
export function brokenDevice(what: string): SluiceError {
  return new SluiceError('ring', `the device ${what}`);
}
