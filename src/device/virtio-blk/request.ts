/**
 * Reads the requests of a virtio-blk driver (VIRTIO 1.3 §5.2.6): from a chain of descriptors to a
 * slot of the request table that a disk understands, checked.
 *
 *   le32 type, le32 reserved, le64 sector   device-readable
 *   data                                    readable for writes, writable for reads
 *   u8 status                               the last device-writable byte
 *
 * Nothing is assumed of how these lie in descriptors (§2.7.4): a header may be in pieces, or in one
 * piece with the data. Header and ranges are read once; what the guest changes later does not
 * matter.
 */
import { TWO_32 } from '../../base/bits.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_UNMAP,
} from '../../block/requests.ts';
import type { Arena } from '../../memory/arena.ts';
import type { ChainBatch } from '../../ring/chain-batch.ts';
import {
  BLK_HEADER_BYTES,
  BLK_HEADER_SECTOR,
  BLK_HEADER_TYPE,
  BLK_RANGE_BYTES,
  BLK_RANGE_FLAGS,
  BLK_RANGE_NUM_SECTORS,
  BLK_RANGE_SECTOR,
  BLK_STATUS_BYTES,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_FLUSH_OUT,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_GET_LIFETIME,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from '../../spec/virtio-blk.ts';
import { MAX_RANGES } from './features.ts';
import { type RequestSlots, STEP_RANGE, STEP_SINGLE } from './request-slots.ts';

/** What a chain came to. */
/** The slot's request is for the disk. */
export const PARSED_REQUEST = 0;
/** The slot's ranges are for the disk. */
export const PARSED_RANGES = 1;
/** There is nothing to do: it has succeeded. */
export const PARSED_NOTHING = 2;
/** The serial number, or the lifetime, is to be written into the slot's segments. */
export const PARSED_GET_ID = 3;
export const PARSED_GET_LIFETIME = 4;
/** No byte for the status: there is no way to answer it. */
export const PARSED_BROKEN = 5;
/** Refused, and why: values from here on. */
export const REFUSED_UNSUPPORTED = 6;
export const REFUSED_RANGE = 7;
export const REFUSED_ALIGNMENT = 8;
export const REFUSED_READONLY = 9;
export const REFUSED_MALFORMED = 10;

/** Data that does not fit the slot's segments. */
const TOO_MANY = -1;

export class RequestParser {
  /** The type of the last request, for the log. */
  type = 0;
  /** What the disk is now. */
  readonly = false;
  /** Negotiated, and of use. */
  discard = false;
  writeZeroes = false;
  lifetime = false;
  /** Write zeroes may give blocks back. */
  mayUnmap = false;
  /** Flags for writes: REQUEST_FUA while the cache is off. */
  writeFlags = 0;
  private sectors = 0;
  /** A block less one, in bytes and in sectors. */
  private byteMask = SECTOR_BYTES - 1;
  private sectorMask = 0;
  private rangeSectors = 0;
  private readonly slots: RequestSlots;
  private readonly view: DataView;
  private readonly header = new DataView(new ArrayBuffer(BLK_HEADER_BYTES));
  private readonly rangeData = new DataView(new ArrayBuffer(MAX_RANGES * BLK_RANGE_BYTES));
  /** Where the data begins: segment, and bytes of it that the header took. */
  private dataSegment = 0;
  private dataSkip = 0;

  constructor(arena: Arena, slots: RequestSlots) {
    this.slots = slots;
    this.view = arena.view;
  }

  /** The disk's size, its block (a power of two) and the longest range, in bytes, bytes and sectors. */
  setLimits(bytes: number, blockBytes: number, rangeSectors: number): void {
    this.sectors = Math.floor(bytes / SECTOR_BYTES);
    this.byteMask = blockBytes - 1;
    this.sectorMask = blockBytes / SECTOR_BYTES - 1;
    this.rangeSectors = rangeSectors;
  }

  /** First sector of the last request, whatever it was: a figure for the log. */
  get sector(): number {
    const { header } = this;
    return (
      header.getUint32(BLK_HEADER_SECTOR, true) +
      header.getUint32(BLK_HEADER_SECTOR + 4, true) * TWO_32
    );
  }

  /** Reads chain `index` of the batch into `slot`. Returns PARSED_* or REFUSED_*. */
  parse(batch: ChainBatch, index: number, slot: number): number {
    const { slots, header } = this;
    const last = batch.more[index] as number;
    if (batch.readable[index] === last + 1) return PARSED_BROKEN;
    if (last === 0) {
      slots.statusAt[slot] = (batch.address[index] as number) + (batch.length[index] as number) - 1;
    } else {
      const at = (batch.moreStart[index] as number) + last - 1;
      slots.statusAt[slot] =
        (batch.moreAddress[at] as number) + (batch.moreLength[at] as number) - 1;
    }
    slots.written[slot] = BLK_STATUS_BYTES;
    slots.fills[slot] = 0;
    slots.step[slot] = STEP_SINGLE;
    slots.table.count[slot] = 0;
    if (!this.readHeader(batch, index)) return REFUSED_MALFORMED;
    const type = header.getUint32(BLK_HEADER_TYPE, true);
    this.type = type;
    switch (type) {
      case VIRTIO_BLK_T_IN:
        return this.parseRead(batch, index, slot);
      case VIRTIO_BLK_T_OUT:
        return this.parseWrite(batch, index, slot);
      case VIRTIO_BLK_T_FLUSH:
      case VIRTIO_BLK_T_FLUSH_OUT:
        slots.table.begin(slot, DISK_FLUSH, 0, 0, 0);
        return PARSED_REQUEST;
      case VIRTIO_BLK_T_GET_ID:
        return this.parseQuery(batch, index, slot, PARSED_GET_ID);
      case VIRTIO_BLK_T_GET_LIFETIME:
        if (!this.lifetime) return REFUSED_UNSUPPORTED;
        return this.parseQuery(batch, index, slot, PARSED_GET_LIFETIME);
      case VIRTIO_BLK_T_DISCARD:
        if (this.readonly) return REFUSED_READONLY;
        if (!this.discard) return REFUSED_UNSUPPORTED;
        return this.parseRanges(batch, index, slot, DISK_DISCARD);
      case VIRTIO_BLK_T_WRITE_ZEROES:
        if (this.readonly) return REFUSED_READONLY;
        if (!this.writeZeroes) return REFUSED_UNSUPPORTED;
        return this.parseRanges(batch, index, slot, DISK_WRITE_ZEROES);
      default:
        return REFUSED_UNSUPPORTED;
    }
  }

  private parseRead(batch: ChainBatch, index: number, slot: number): number {
    const { slots } = this;
    // Data in the wrong direction is data that the driver would believe to have been read or written.
    if (this.dataSegment < (batch.readable[index] as number)) return REFUSED_MALFORMED;
    const bytes = this.addWritable(batch, index, slot);
    if (bytes === TOO_MANY) return REFUSED_MALFORMED;
    slots.written[slot] = bytes + BLK_STATUS_BYTES;
    slots.fills[slot] = 1;
    return this.place(slot, DISK_READ, 0, bytes);
  }

  private parseWrite(batch: ChainBatch, index: number, slot: number): number {
    if (this.readonly) return REFUSED_READONLY;
    if (!this.endsWithStatus(batch, index)) return REFUSED_MALFORMED;
    const bytes = this.addReadable(batch, index, slot);
    if (bytes === TOO_MANY) return REFUSED_MALFORMED;
    return this.place(slot, DISK_WRITE, this.writeFlags, bytes);
  }

  private parseQuery(batch: ChainBatch, index: number, slot: number, outcome: number): number {
    if (this.addWritable(batch, index, slot) === TOO_MANY) return REFUSED_MALFORMED;
    this.slots.fills[slot] = 1;
    return outcome;
  }

  /** §5.2.6: the data are ranges, each checked before any of them is touched. */
  private parseRanges(batch: ChainBatch, index: number, slot: number, op: number): number {
    const { slots, rangeData } = this;
    if (!this.endsWithStatus(batch, index)) return REFUSED_MALFORMED;
    const bytes = this.addReadable(batch, index, slot);
    const count = bytes / BLK_RANGE_BYTES;
    if (!Number.isInteger(count) || count < 1 || count > MAX_RANGES) return REFUSED_MALFORMED;
    this.readRanges(slot);
    const { sectorMask } = this;
    let kept = 0;
    const fua = op === DISK_WRITE_ZEROES ? this.writeFlags : 0;
    for (let k = 0; k < count; k++) {
      const at = k * BLK_RANGE_BYTES;
      const flags = rangeData.getUint32(at + BLK_RANGE_FLAGS, true);
      const unmap = flags === VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
      // "unknown flag", and unmap in a discard (§5.2.6.2).
      if (flags !== 0 && (!unmap || op === DISK_DISCARD)) return REFUSED_UNSUPPORTED;
      const low = rangeData.getUint32(at + BLK_RANGE_SECTOR, true);
      const high = rangeData.getUint32(at + BLK_RANGE_SECTOR + 4, true);
      const sectors = rangeData.getUint32(at + BLK_RANGE_NUM_SECTORS, true);
      const sector = low + high * TWO_32;
      if (sectors > this.rangeSectors || sector + sectors > this.sectors) return REFUSED_RANGE;
      if ((low & sectorMask) !== 0 || (sectors & sectorMask) !== 0) return REFUSED_ALIGNMENT;
      if (sectors === 0) continue;
      const to = slot * MAX_RANGES + kept;
      kept++;
      slots.rangeOffset[to] = sector * SECTOR_BYTES;
      slots.rangeBytes[to] = sectors * SECTOR_BYTES;
      slots.rangeFlags[to] = fua | (unmap && this.mayUnmap ? REQUEST_UNMAP : 0);
    }
    if (kept === 0) return PARSED_NOTHING;
    slots.table.begin(slot, op, 0, 0, 0);
    slots.step[slot] = STEP_RANGE;
    slots.ranges[slot] = kept;
    slots.nextRange[slot] = 0;
    slots.running[slot] = 0;
    slots.result[slot] = 0;
    return PARSED_RANGES;
  }

  /** The range of a read or write, its segments being in the table already. */
  private place(slot: number, op: number, flags: number, bytes: number): number {
    const { header } = this;
    const { table } = this.slots;
    const low = header.getUint32(BLK_HEADER_SECTOR, true);
    const high = header.getUint32(BLK_HEADER_SECTOR + 4, true);
    const sector = low + high * TWO_32;
    // In range, and so exact, before it is multiplied.
    if (sector + bytes / SECTOR_BYTES > this.sectors) return REFUSED_RANGE;
    if ((low & this.sectorMask) !== 0 || (bytes & this.byteMask) !== 0) return REFUSED_ALIGNMENT;
    table.op[slot] = op;
    table.flags[slot] = flags;
    table.offset[slot] = sector * SECTOR_BYTES;
    table.bytes[slot] = bytes;
    return bytes === 0 ? PARSED_NOTHING : PARSED_REQUEST;
  }

  /** Copies the header; false if the readable part is shorter. Finds where the data begins. */
  private readHeader(batch: ChainBatch, index: number): boolean {
    const { header, view } = this;
    if ((batch.length[index] as number) >= BLK_HEADER_BYTES && batch.readable[index] !== 0) {
      const at = batch.address[index] as number;
      header.setUint32(0, view.getUint32(at, true), true);
      header.setUint32(8, view.getUint32(at + 8, true), true);
      header.setUint32(12, view.getUint32(at + 12, true), true);
      const whole = batch.length[index] === BLK_HEADER_BYTES;
      this.dataSegment = whole ? 1 : 0;
      this.dataSkip = whole ? 0 : BLK_HEADER_BYTES;
      return true;
    }
    return this.gatherHeader(batch, index);
  }

  /** A header in pieces. */
  private gatherHeader(batch: ChainBatch, index: number): boolean {
    const readable = batch.readable[index] as number;
    let done = 0;
    for (let k = 0; k < readable; k++) {
      const at = segmentAddress(batch, index, k);
      const length = segmentLength(batch, index, k);
      for (let i = 0; i < length; i++) {
        this.header.setUint8(done, this.view.getUint8(at + i));
        done++;
        if (done < BLK_HEADER_BYTES) continue;
        const whole = i + 1 === length;
        this.dataSegment = whole ? k + 1 : k;
        this.dataSkip = whole ? 0 : i + 1;
        return true;
      }
    }
    return false;
  }

  /** The readable bytes behind the header become segments. Returns how many bytes, or TOO_MANY. */
  private addReadable(batch: ChainBatch, index: number, slot: number): number {
    const { table } = this.slots;
    const { moreLength } = batch;
    const readable = batch.readable[index] as number;
    const more = (batch.moreStart[index] as number) - 1;
    let skip = this.dataSkip;
    let bytes = 0;
    for (let k = this.dataSegment; k < readable; k++) {
      const at = more + k;
      const length = ((k === 0 ? batch.length[index] : moreLength[at]) as number) - skip;
      const added =
        k === 0
          ? table.addFrom(slot, batch.address, index, skip, length)
          : table.addFrom(slot, batch.moreAddress, at, skip, length);
      if (!added) return TOO_MANY;
      bytes += length;
      skip = 0;
    }
    return bytes;
  }

  /** The writable bytes before the status become segments. Returns how many bytes, or TOO_MANY. */
  private addWritable(batch: ChainBatch, index: number, slot: number): number {
    const { table } = this.slots;
    const { moreLength } = batch;
    const last = batch.more[index] as number;
    const more = (batch.moreStart[index] as number) - 1;
    let bytes = 0;
    for (let k = batch.readable[index] as number; k <= last; k++) {
      const at = more + k;
      const whole = (k === 0 ? batch.length[index] : moreLength[at]) as number;
      const length = k === last ? whole - BLK_STATUS_BYTES : whole;
      if (length === 0) break;
      const added =
        k === 0
          ? table.addFrom(slot, batch.address, index, 0, length)
          : table.addFrom(slot, batch.moreAddress, at, 0, length);
      if (!added) return TOO_MANY;
      bytes += length;
    }
    return bytes;
  }

  /** The writable part is the status and nothing else. */
  private endsWithStatus(batch: ChainBatch, index: number): boolean {
    const last = batch.more[index] as number;
    return batch.readable[index] === last && segmentLength(batch, index, last) === BLK_STATUS_BYTES;
  }

  /** Copies the ranges out of the slot's segments, which hold no more than fits. */
  private readRanges(slot: number): void {
    const { rangeData, view } = this;
    const { table } = this.slots;
    let done = 0;
    for (let k = 0; k < (table.count[slot] as number); k++) {
      const at = table.address[slot * table.segments + k] as number;
      const length = table.length[slot * table.segments + k] as number;
      for (let i = 0; i < length; i++) rangeData.setUint8(done++, view.getUint8(at + i));
    }
  }
}

function segmentAddress(batch: ChainBatch, index: number, k: number): number {
  if (k === 0) return batch.address[index] as number;
  return batch.moreAddress[(batch.moreStart[index] as number) + k - 1] as number;
}

function segmentLength(batch: ChainBatch, index: number, k: number): number {
  if (k === 0) return batch.length[index] as number;
  return batch.moreLength[(batch.moreStart[index] as number) + k - 1] as number;
}
