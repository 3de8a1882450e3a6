/** Which features a virtio-net driver takes of those that a device offers (VIRTIO 1.3 §5.1.3, §6). */
import { bitMask, hasBit } from '../../base/bits.ts';
import {
  OFFLOAD_FEATURES,
  offloadFeatures,
  withRequirements,
} from '../../device/virtio-net/features.ts';
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_STATUS,
} from '../../spec/virtio-net.ts';
import {
  type AgreedRing,
  agreedRing,
  DEFAULT_RING_WISHES,
  type RingWishes,
  wishedRingBits,
} from '../negotiation.ts';

/** What a driver would like; each is taken only if the device offers it. */
export interface NetWishes extends RingWishes {
  /** VIRTIO_NET_F_MRG_RXBUF: a frame may come in several buffers. */
  readonly mergeable: boolean;
  /** Checksum offload both ways. */
  readonly checksum: boolean;
  /** Segmentation offload both ways; needs checksum offload. */
  readonly segmentation: boolean;
  /** VIRTIO_NET_F_MQ */
  readonly multiqueue: boolean;
}

export const DEFAULT_NET_WISHES: NetWishes = {
  ...DEFAULT_RING_WISHES,
  mergeable: true,
  checksum: true,
  segmentation: true,
  multiqueue: true,
};

/** What was agreed on. */
export interface NetFeatures extends AgreedRing {
  /** The accepted bits, VIRTIO_F_VERSION_1 among them. */
  readonly bits: bigint;
  readonly mergeable: boolean;
  /** The driver may leave a checksum to the device. */
  readonly sendChecksum: boolean;
  /** The driver may send TCP frames larger than the MTU, over IPv4. */
  readonly sendTso4: boolean;
  /** Frames of up to 65550 bytes can arrive. */
  readonly receivesLarge: boolean;
  readonly hasMac: boolean;
  readonly hasMtu: boolean;
  readonly hasStatus: boolean;
  readonly multiqueue: boolean;
}

/**
 * Chooses features.
 * @throws SluiceError `unsupported` for a device that does not offer VIRTIO_F_VERSION_1.
 */
export function negotiateNet(offered: bigint, wishes: NetWishes): NetFeatures {
  const rings = wishedRingBits(offered, wishes);
  const ours = bitMask(
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_STATUS,
    ...(wishes.mergeable ? [VIRTIO_NET_F_MRG_RXBUF] : []),
    ...(wishes.multiqueue ? [VIRTIO_NET_F_MQ] : []),
  );
  const checksum = wishes.checksum ? OFFLOAD_FEATURES.csum : 0n;
  const segmentation = wishes.segmentation ? offloadFeatures() & ~OFFLOAD_FEATURES.csum : 0n;
  const bits = withRequirements(offered & (rings | ours | checksum | segmentation));
  const has = (feature: number): boolean => hasBit(bits, feature);
  return {
    bits,
    ...agreedRing(bits),
    mergeable: has(VIRTIO_NET_F_MRG_RXBUF),
    sendChecksum: has(VIRTIO_NET_F_CSUM),
    sendTso4: has(VIRTIO_NET_F_HOST_TSO4),
    receivesLarge:
      has(VIRTIO_NET_F_GUEST_TSO4) ||
      has(VIRTIO_NET_F_GUEST_TSO6) ||
      has(VIRTIO_NET_F_GUEST_USO4) ||
      has(VIRTIO_NET_F_GUEST_USO6),
    hasMac: has(VIRTIO_NET_F_MAC),
    hasMtu: has(VIRTIO_NET_F_MTU),
    hasStatus: has(VIRTIO_NET_F_STATUS),
    multiqueue: has(VIRTIO_NET_F_MQ),
  };
}
