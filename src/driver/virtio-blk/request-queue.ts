/**
 * One queue of requests of a virtio-blk driver (VIRTIO 1.3 §5.2.6).
 *
 * A slot of {@link DiskRequests} is a cache line for its header and its status, and a buffer for its data.
 *
 *     struct virtio_blk_req  { le32 type; le32 reserved; le64 sector }  device-readable
 *     data                   device-readable (writes) or device-writable (reads)
 *     u8 status              device-writable
 */
import { TWO_32 } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import {
  type DriverMemory,
  type DriverQueue,
  driverArenaAddress,
  SegmentList,
  USED_BATCH,
} from '../../ring/driver-queue.ts';
import {
  BLK_HEADER_BYTES,
  BLK_HEADER_SECTOR,
  BLK_HEADER_TYPE,
  BLK_ID_BYTES,
  BLK_RANGE_BYTES,
  BLK_RANGE_FLAGS,
  BLK_RANGE_NUM_SECTORS,
  BLK_STATUS_BYTES,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from '../../spec/virtio-blk.ts';
import type { BufferPool } from '../buffer-pool.ts';
import type { DiskRequests } from '../disk-requests.ts';

/** Requests that one {@link RequestQueue.collect} returns at most. */
export const COLLECT_BATCH = USED_BATCH;

/** From the header of one slot to the next: header and status share a cache line, no other slot's. */
export const HEADER_STRIDE = 64;
const STATUS_AT = BLK_HEADER_BYTES;

// Indexes into the words of a header, and of a range.
const HEADER_WORDS = HEADER_STRIDE / 4;
const TYPE = BLK_HEADER_TYPE / 4;
const SECTOR = BLK_HEADER_SECTOR / 4;
const RANGE_SECTORS = BLK_RANGE_NUM_SECTORS / 4;
const RANGE_FLAGS = BLK_RANGE_FLAGS / 4;

/** What a device cannot have written into a status byte: it was not written at all. */
export const STATUS_NONE = 0xff;

export interface RequestQueueOptions {
  readonly queue: DriverQueue;
  readonly memory: DriverMemory;
  /** Offset of slot 0's header in the guest's memory; a multiple of {@link HEADER_STRIDE}. */
  readonly headers: number;
  /** Data, a buffer for each slot. */
  readonly pool: BufferPool;
  /** Bytes that one segment may have, and segments that one request may have. */
  readonly segmentBytes: number;
  readonly segments: number;
}

export class RequestQueue implements DiskRequests {
  readonly queue: DriverQueue;
  readonly pool: BufferPool;
  readonly slots: number;
  /** By slot, filled in by the user: first sector, and bytes of data. */
  readonly sector: Float64Array;
  readonly bytes: Uint32Array;
  /** Slots that the last {@link collect} returned. */
  readonly done = new Uint16Array(COLLECT_BATCH);
  /** By slot: what the device said of the last request, VIRTIO_BLK_S_*, or {@link STATUS_NONE}. */
  readonly status: Uint8Array;
  /** By slot: bytes that the device says it has written, status included. */
  readonly written: Uint32Array;

  private readonly headerWords: Uint32Array;
  private readonly headerBytes: Uint8Array;
  private readonly data: Uint32Array;
  private readonly dataBytes: Uint8Array;
  private readonly dataAddress: Float64Array;
  private readonly headerAddress: Float64Array;
  private readonly segmentBytes: number;
  private readonly list: SegmentList;
  /** By id of the ring: the slot. */
  private readonly slotOf: Uint16Array;

  constructor(options: RequestQueueOptions) {
    const { queue, memory, headers, pool, segmentBytes, segments } = options;
    const { buffer } = memory.arena;
    const slots = pool.count;
    if (Math.ceil(pool.bytes / segmentBytes) > segments) {
      throw new SluiceError(
        'config',
        `requests of ${pool.bytes} bytes to a device that takes ${segments} segments of ${segmentBytes}`,
        { remedy: `choose at most ${segments * segmentBytes} bytes` },
      );
    }
    const at = (offset: number, bytes: number): number =>
      driverArenaAddress(memory, memory.guestAddress + offset, bytes);
    const headersAt = at(headers, slots * HEADER_STRIDE);
    const dataAt = at(pool.first, slots * pool.stride);
    this.queue = queue;
    this.pool = pool;
    this.slots = slots;
    this.sector = new Float64Array(slots);
    this.bytes = new Uint32Array(slots);
    this.status = new Uint8Array(slots).fill(STATUS_NONE);
    this.written = new Uint32Array(slots);
    this.headerWords = new Uint32Array(buffer, headersAt, slots * HEADER_WORDS);
    this.headerBytes = new Uint8Array(buffer, headersAt, slots * HEADER_STRIDE);
    this.data = new Uint32Array(buffer, dataAt, (slots * pool.stride) / 4);
    this.dataBytes = new Uint8Array(buffer, dataAt, slots * pool.stride);
    this.dataAddress = pool.addresses();
    this.headerAddress = Float64Array.from(
      { length: slots },
      (_, slot) => memory.guestAddress + headers + slot * HEADER_STRIDE,
    );
    this.segmentBytes = segmentBytes;
    this.list = new SegmentList(segments + 2);
    this.slotOf = new Uint16Array(queue.size);
    this.headerWords.fill(0);
  }

  get requestBytes(): number {
    return this.pool.bytes;
  }

  get outstanding(): number {
    return this.queue.outstanding;
  }

  enableCalls(): boolean {
    return this.queue.enableCalls();
  }

  disableCalls(): void {
    this.queue.disableCalls();
  }

  /** Reads `bytes[slot]` from `sector[slot]` on. False without a free descriptor: so with all of these. */
  read(slot: number): boolean {
    return this.submit(slot, VIRTIO_BLK_T_IN, this.bytes[slot] as number, true);
  }

  write(slot: number): boolean {
    return this.submit(slot, VIRTIO_BLK_T_OUT, this.bytes[slot] as number, false);
  }

  /** Everything that was completed before becomes durable. `sector` must be 0 (§5.2.6.1). */
  flush(slot: number): boolean {
    this.sector[slot] = 0;
    return this.submit(slot, VIRTIO_BLK_T_FLUSH, 0, false);
  }

  /** Gives up the first `ranges` ranges of the slot, written by {@link setRange}. */
  discard(slot: number, ranges: number): boolean {
    this.sector[slot] = 0;
    return this.submit(slot, VIRTIO_BLK_T_DISCARD, ranges * BLK_RANGE_BYTES, false);
  }

  /** Fills ranges with zeroes. */
  writeZeroes(slot: number, ranges: number): boolean {
    this.sector[slot] = 0;
    return this.submit(slot, VIRTIO_BLK_T_WRITE_ZEROES, ranges * BLK_RANGE_BYTES, false);
  }

  /** Asks for the serial number: 20 bytes, into the slot's buffer. See {@link text}. */
  getId(slot: number): boolean {
    this.sector[slot] = 0;
    return this.submit(slot, VIRTIO_BLK_T_GET_ID, BLK_ID_BYTES, true);
  }

  /** Writes range `index` for discard or write zeroes into the slot's buffer; `unmap`: the latter only. */
  setRange(slot: number, index: number, sector: number, sectors: number, unmap = false): void {
    const at = (slot * this.pool.stride + index * BLK_RANGE_BYTES) / 4;
    const { data } = this;
    data[at] = sector;
    data[at + 1] = sector / TWO_32;
    data[at + RANGE_SECTORS] = sectors;
    data[at + RANGE_FLAGS] = unmap ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
  }

  /**
   * A request of any type and shape: `bytes` of the slot's buffer, which the device may write or
   * only read. For tests of what a device does with those that it does not know.
   */
  submit(slot: number, type: number, bytes: number, writable: boolean): boolean {
    const { headerWords, list, sector, segmentBytes } = this;
    const at = slot * HEADER_WORDS;
    headerWords[at + TYPE] = type;
    // A typed array keeps the low 32 bits of what is stored, and drops the fraction.
    headerWords[at + SECTOR] = sector[slot] as number;
    headerWords[at + SECTOR + 1] = (sector[slot] as number) / TWO_32;
    this.headerBytes[slot * HEADER_STRIDE + STATUS_AT] = STATUS_NONE;
    const { address, length } = list;
    address[0] = this.headerAddress[slot] as number;
    length[0] = BLK_HEADER_BYTES;
    let count = 1;
    for (let done = 0; done < bytes; done += segmentBytes) {
      const left = bytes - done;
      address[count] = (this.dataAddress[slot] as number) + done;
      length[count] = left < segmentBytes ? left : segmentBytes;
      count++;
    }
    list.readable = writable ? 1 : count;
    address[count] = (this.headerAddress[slot] as number) + STATUS_AT;
    length[count] = BLK_STATUS_BYTES;
    list.count = count + 1;
    const id = this.queue.addChain(list, true);
    if (id < 0) return false;
    this.slotOf[id] = slot;
    return true;
  }

  /** Makes all submitted requests visible to the device. */
  publish(): void {
    this.queue.publish();
  }

  /** Takes finished requests, up to {@link COLLECT_BATCH}, into `done`, `status`, `written`. Returns how many. */
  collect(): number {
    const { queue, done, slotOf, status, written, headerBytes } = this;
    const count = queue.collectUsed(COLLECT_BATCH);
    for (let i = 0; i < count; i++) {
      const slot = slotOf[queue.usedId[i] as number] as number;
      done[i] = slot;
      written[slot] = queue.usedLength[i] as number;
      status[slot] = headerBytes[slot * HEADER_STRIDE + STATUS_AT] as number;
    }
    return count;
  }

  /** A slot's data, for those that look at all of it. */
  dataOf(slot: number, bytes: number = this.pool.bytes): Uint8Array {
    const at = slot * this.pool.stride;
    return this.dataBytes.subarray(at, at + bytes);
  }

  /** All slots' data as little-endian words; slot s begins at s * {@link wordsPerSlot}. */
  get words(): Uint32Array {
    return this.data;
  }

  get wordsPerSlot(): number {
    return this.pool.stride / 4;
  }

  /** What {@link getId} brought: it ends with a NUL, or fills all 20 bytes (§5.2.6). */
  text(slot: number): string {
    const bytes = this.dataOf(slot, BLK_ID_BYTES);
    const end = bytes.indexOf(0);
    return Buffer.from(bytes.subarray(0, end === -1 ? BLK_ID_BYTES : end)).toString('latin1');
  }
}
