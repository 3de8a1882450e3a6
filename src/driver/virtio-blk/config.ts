/** The configuration space of a virtio-blk device as its driver reads it (VIRTIO 1.3 §5.2.4). */
import { TWO_32 } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import {
  BLK_CONFIG_BLK_SIZE,
  BLK_CONFIG_CAPACITY,
  BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT,
  BLK_CONFIG_MAX_DISCARD_SECTORS,
  BLK_CONFIG_MAX_DISCARD_SEG,
  BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS,
  BLK_CONFIG_MAX_WRITE_ZEROES_SEG,
  BLK_CONFIG_NUM_QUEUES,
  BLK_CONFIG_OPT_IO_SIZE,
  BLK_CONFIG_PHYSICAL_BLOCK_EXP,
  BLK_CONFIG_SEG_MAX,
  BLK_CONFIG_SIZE_MAX,
  BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP,
  BLK_CONFIG_WRITEBACK,
} from '../../spec/virtio-blk.ts';
import type { BlkFeatures } from './negotiation.ts';

/** Segments of a request to a device that does not say how many it takes. */
const DEFAULT_SEGMENTS = 126;
const NO_LIMIT = 0xffff_ffff;

/** What one discard, or one write of zeroes, may be. */
export interface RangeLimits {
  /** Sectors of one range, and ranges of one request; 0: the device takes none. */
  readonly sectors: number;
  readonly ranges: number;
}

/** What the device says of itself. Fields whose feature was not negotiated have their default. */
export interface BlkConfig {
  /** Size of the disk in bytes. */
  readonly bytes: number;
  /** Bytes that one segment of data may have, and segments that one request may have. */
  readonly segmentBytes: number;
  readonly segments: number;
  /** Logical and physical block, and the best size of requests (0: none), in bytes. */
  readonly blockBytes: number;
  readonly physicalBlockBytes: number;
  readonly optimalBytes: number;
  /** Completed writes are durable only after a flush (§5.2.5.1). */
  readonly writeback: boolean;
  readonly queues: number;
  readonly discard: RangeLimits & {
    /** Sectors that ranges should be aligned to. */
    readonly alignment: number;
  };
  readonly writeZeroes: RangeLimits & { readonly mayUnmap: boolean };
}

/**
 * Reads a configuration space.
 * @param space as much of it as can be read.
 * @throws SluiceError `unsupported` if it ends before a field that was negotiated.
 */
export function parseBlkConfig(space: Uint8Array, features: BlkFeatures): BlkConfig {
  const view = new DataView(space.buffer, space.byteOffset, space.length);
  const need = (offset: number, bytes: number): number => {
    if (offset + bytes > space.length) {
      throw new SluiceError(
        'unsupported',
        `a block device whose configuration space can be read for ${space.length} bytes only, not ${offset + bytes}`,
      );
    }
    return offset;
  };
  const u8 = (offset: number): number => view.getUint8(need(offset, 1));
  const u16 = (offset: number): number => view.getUint16(need(offset, 2), true);
  const u32 = (offset: number): number => view.getUint32(need(offset, 4), true);
  const limit = (value: number): number => (value === 0 ? NO_LIMIT : value);
  const blockBytes = features.blockSize ? u32(BLK_CONFIG_BLK_SIZE) : SECTOR_BYTES;
  const { topology, discard, writeZeroes } = features;
  return {
    bytes: (u32(BLK_CONFIG_CAPACITY) + u32(BLK_CONFIG_CAPACITY + 4) * TWO_32) * SECTOR_BYTES,
    segmentBytes: features.sizeMax ? limit(u32(BLK_CONFIG_SIZE_MAX)) : NO_LIMIT,
    segments: features.segMax ? Math.max(1, u32(BLK_CONFIG_SEG_MAX)) : DEFAULT_SEGMENTS,
    blockBytes,
    physicalBlockBytes: topology ? blockBytes << u8(BLK_CONFIG_PHYSICAL_BLOCK_EXP) : blockBytes,
    optimalBytes: topology ? u32(BLK_CONFIG_OPT_IO_SIZE) * blockBytes : 0,
    // Without CONFIG_WCE the cache is there exactly if it can be flushed.
    writeback: features.cacheControl ? u8(BLK_CONFIG_WRITEBACK) === 1 : features.flush,
    queues: features.multiqueue ? Math.max(1, u16(BLK_CONFIG_NUM_QUEUES)) : 1,
    discard: {
      sectors: discard ? u32(BLK_CONFIG_MAX_DISCARD_SECTORS) : 0,
      ranges: discard ? u32(BLK_CONFIG_MAX_DISCARD_SEG) : 0,
      alignment: discard ? Math.max(1, u32(BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT)) : 1,
    },
    writeZeroes: {
      sectors: writeZeroes ? u32(BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS) : 0,
      ranges: writeZeroes ? u32(BLK_CONFIG_MAX_WRITE_ZEROES_SEG) : 0,
      mayUnmap: writeZeroes && u8(BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP) === 1,
    },
  };
}
