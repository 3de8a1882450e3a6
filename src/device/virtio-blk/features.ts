/** What the virtio-blk device offers, its limits, and its configuration space (VIRTIO 1.3 §5.2.3-5). */
import { bitMask, hasBit, TWO_32 } from '../../base/bits.ts';
import { type DiskInfo, SECTOR_BYTES } from '../../block/disk.ts';
import {
  BLK_CONFIG_BLK_SIZE,
  BLK_CONFIG_BYTES,
  BLK_CONFIG_CAPACITY,
  BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT,
  BLK_CONFIG_MAX_DISCARD_SECTORS,
  BLK_CONFIG_MAX_DISCARD_SEG,
  BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS,
  BLK_CONFIG_MAX_WRITE_ZEROES_SEG,
  BLK_CONFIG_MIN_IO_SIZE,
  BLK_CONFIG_NUM_QUEUES,
  BLK_CONFIG_OPT_IO_SIZE,
  BLK_CONFIG_PHYSICAL_BLOCK_EXP,
  BLK_CONFIG_SEG_MAX,
  BLK_CONFIG_SIZE_MAX,
  BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP,
  BLK_CONFIG_WRITEBACK,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_LIFETIME,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
} from '../../spec/virtio-blk.ts';

/** Descriptors of a chain that carry no data, where a driver gives header and status one each. */
export const EXTRA_SEGMENTS = 2;

/**
 * Segments of data in a request, unless configured otherwise: a chain may not be longer than its queue,
 * which QEMU's vhost-user-blk makes 128 long.
 */
export const DEFAULT_SEG_MAX = 128 - EXTRA_SEGMENTS;

/** More segments than readv(2) takes (IOV_MAX) could not go to the kernel in one piece. */
export const MOST_SEGMENTS = 1024;

/** Ranges of one discard or write zeroes. */
export const MAX_RANGES = 32;

/** Linux moves no more bytes than this in one call (MAX_RW_COUNT): no request shall be longer. */
const MOST_BYTES = 2 ** 31 - 4096;

/** Features that say nothing without the configuration space (§5.2.4). */
export const CONFIG_FEATURES = bitMask(
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_WRITE_ZEROES,
);

/** What a device offers for a disk, with so many queues. */
export function offeredFeatures(info: DiskInfo, queues: number): bigint {
  let features = bitMask(
    VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_BLK_SIZE,
    VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_CONFIG_WCE,
  );
  if (queues > 1) features |= bitMask(VIRTIO_BLK_F_MQ);
  if (info.lifetime !== undefined) features |= bitMask(VIRTIO_BLK_F_LIFETIME);
  if (info.readonly) return features | bitMask(VIRTIO_BLK_F_RO);
  if (info.discardBytes > 0) features |= bitMask(VIRTIO_BLK_F_DISCARD);
  if (info.writeZeroes) features |= bitMask(VIRTIO_BLK_F_WRITE_ZEROES);
  return features;
}

/** Bytes that one segment may have if `segMax` of them are to stay within what one call moves. */
export function sizeMax(segMax: number): number {
  return 2 ** Math.floor(Math.log2(MOST_BYTES / segMax));
}

/** Sectors that one range may have: as long as one call can be, in whole units of the disk. */
export function rangeSectors(info: DiskInfo): number {
  const unit = Math.max(info.discardBytes, info.blockBytes);
  return (Math.floor(MOST_BYTES / unit) * unit || MOST_BYTES) / SECTOR_BYTES;
}

export interface ConfigState {
  readonly info: DiskInfo;
  readonly features: bigint;
  readonly segMax: number;
  readonly queues: number;
  /** The cache mode: a completed write may still be volatile. */
  readonly writeback: boolean;
}

/** The configuration space (§5.2.4); fields of features that are not offered are zero. */
export function encodeConfig(state: ConfigState): Uint8Array {
  const { info, features } = state;
  const { blockBytes } = info;
  const bytes = new Uint8Array(BLK_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  const u32 = (at: number, value: number): void => view.setUint32(at, value, true);
  const sectors = Math.floor(info.bytes / SECTOR_BYTES);
  u32(BLK_CONFIG_CAPACITY, sectors % TWO_32);
  u32(BLK_CONFIG_CAPACITY + 4, Math.floor(sectors / TWO_32));
  u32(BLK_CONFIG_SIZE_MAX, sizeMax(state.segMax));
  u32(BLK_CONFIG_SEG_MAX, state.segMax);
  u32(BLK_CONFIG_BLK_SIZE, blockBytes);
  const physical = info.physicalBlockBytes / blockBytes;
  view.setUint8(BLK_CONFIG_PHYSICAL_BLOCK_EXP, Math.floor(Math.log2(physical)));
  view.setUint16(BLK_CONFIG_MIN_IO_SIZE, Math.min(physical, 0xffff), true);
  u32(BLK_CONFIG_OPT_IO_SIZE, Math.floor(info.optimalBytes / blockBytes));
  view.setUint8(BLK_CONFIG_WRITEBACK, state.writeback ? 1 : 0);
  if (hasBit(features, VIRTIO_BLK_F_MQ)) view.setUint16(BLK_CONFIG_NUM_QUEUES, state.queues, true);
  const discards = hasBit(features, VIRTIO_BLK_F_DISCARD);
  if (discards) {
    u32(BLK_CONFIG_MAX_DISCARD_SECTORS, rangeSectors(info));
    u32(BLK_CONFIG_MAX_DISCARD_SEG, MAX_RANGES);
    u32(BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT, info.discardBytes / SECTOR_BYTES);
  }
  if (hasBit(features, VIRTIO_BLK_F_WRITE_ZEROES)) {
    u32(BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS, rangeSectors(info));
    u32(BLK_CONFIG_MAX_WRITE_ZEROES_SEG, MAX_RANGES);
    view.setUint8(BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP, discards ? 1 : 0);
  }
  return bytes;
}

/**
 * True if each write must be durable when it completes (§5.2.6.2), for a driver with these features.
 * Without FLUSH a driver could never make a volatile write stable.
 */
export function mustWriteThrough(features: bigint, writeback: boolean): boolean {
  return !writeback || !hasBit(features, VIRTIO_BLK_F_FLUSH);
}
