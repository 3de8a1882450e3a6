/** Which features a virtio-blk driver takes of those that a device offers (VIRTIO 1.3 §5.2.3, §6). */
import { bitMask, hasBit } from '../../base/bits.ts';
import {
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
} from '../../spec/virtio-blk.ts';
import {
  type AgreedRing,
  agreedRing,
  DEFAULT_RING_WISHES,
  type RingWishes,
  wishedRingBits,
} from '../negotiation.ts';

/** What a driver would like; each is taken only if the device offers it. */
export interface BlkWishes extends RingWishes {
  /** VIRTIO_BLK_F_FLUSH: without it, writes are durable when they complete (§5.2.6.2). */
  readonly flush: boolean;
  /** VIRTIO_BLK_F_CONFIG_WCE: the driver can turn the cache off and on. */
  readonly cacheControl: boolean;
  /** VIRTIO_BLK_F_DISCARD */
  readonly discard: boolean;
  /** VIRTIO_BLK_F_WRITE_ZEROES */
  readonly writeZeroes: boolean;
  /** VIRTIO_BLK_F_MQ */
  readonly multiqueue: boolean;
}

export const DEFAULT_BLK_WISHES: BlkWishes = {
  ...DEFAULT_RING_WISHES,
  flush: true,
  cacheControl: true,
  discard: true,
  writeZeroes: true,
  multiqueue: true,
};

/** What was agreed on. */
export interface BlkFeatures extends AgreedRing {
  /** The accepted bits, VIRTIO_F_VERSION_1 among them. */
  readonly bits: bigint;
  readonly readonly: boolean;
  /** Segments are limited in size, and in number. */
  readonly sizeMax: boolean;
  readonly segMax: boolean;
  readonly blockSize: boolean;
  readonly topology: boolean;
  readonly flush: boolean;
  readonly cacheControl: boolean;
  readonly discard: boolean;
  readonly writeZeroes: boolean;
  readonly multiqueue: boolean;
}

/**
 * Chooses features.
 * @throws SluiceError `unsupported` for a device that does not offer VIRTIO_F_VERSION_1.
 */
export function negotiateBlk(offered: bigint, wishes: BlkWishes): BlkFeatures {
  const rings = wishedRingBits(offered, wishes);
  const ours = bitMask(
    VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_SEG_MAX,
    // To be accepted if offered (§5.2.6.1).
    VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_BLK_SIZE,
    VIRTIO_BLK_F_TOPOLOGY,
    ...(wishes.flush ? [VIRTIO_BLK_F_FLUSH] : []),
    ...(wishes.cacheControl ? [VIRTIO_BLK_F_CONFIG_WCE] : []),
    ...(wishes.discard ? [VIRTIO_BLK_F_DISCARD] : []),
    ...(wishes.writeZeroes ? [VIRTIO_BLK_F_WRITE_ZEROES] : []),
    ...(wishes.multiqueue ? [VIRTIO_BLK_F_MQ] : []),
  );
  const bits = offered & (rings | ours);
  const has = (feature: number): boolean => hasBit(bits, feature);
  return {
    bits,
    ...agreedRing(bits),
    readonly: has(VIRTIO_BLK_F_RO),
    sizeMax: has(VIRTIO_BLK_F_SIZE_MAX),
    segMax: has(VIRTIO_BLK_F_SEG_MAX),
    blockSize: has(VIRTIO_BLK_F_BLK_SIZE),
    topology: has(VIRTIO_BLK_F_TOPOLOGY),
    flush: has(VIRTIO_BLK_F_FLUSH),
    cacheControl: has(VIRTIO_BLK_F_CONFIG_WCE),
    discard: has(VIRTIO_BLK_F_DISCARD),
    writeZeroes: has(VIRTIO_BLK_F_WRITE_ZEROES),
    multiqueue: has(VIRTIO_BLK_F_MQ),
  };
}
