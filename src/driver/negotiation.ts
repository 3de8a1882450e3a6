/** What every virtio driver negotiates: the features of the rings (VIRTIO 1.3 §6). */
import { bitMask, hasBit } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import type { RingFeatures } from '../ring/driver-queue.ts';
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from '../spec/virtio.ts';

/** What a driver would like of its rings; each is taken only if the device offers it. */
export interface RingWishes {
  /** VIRTIO_F_RING_PACKED */
  readonly packed: boolean;
  /** VIRTIO_F_EVENT_IDX */
  readonly eventIdx: boolean;
  /** VIRTIO_F_INDIRECT_DESC */
  readonly indirect: boolean;
  /** VIRTIO_F_IN_ORDER */
  readonly inOrder: boolean;
}

export const DEFAULT_RING_WISHES: RingWishes = {
  packed: false,
  eventIdx: true,
  indirect: true,
  inOrder: true,
};

/** The ring features that were agreed on. */
export interface AgreedRing {
  readonly packed: boolean;
  readonly ring: RingFeatures;
}

/**
 * The bits to ask for, VIRTIO_F_VERSION_1 among them.
 * @throws SluiceError `unsupported` for a device that does not offer VIRTIO_F_VERSION_1.
 */
export function wishedRingBits(offered: bigint, wishes: RingWishes): bigint {
  if (!hasBit(offered, VIRTIO_F_VERSION_1)) {
    throw new SluiceError('unsupported', 'the device is a legacy one: no VIRTIO_F_VERSION_1');
  }
  return bitMask(
    VIRTIO_F_VERSION_1,
    ...(wishes.packed ? [VIRTIO_F_RING_PACKED] : []),
    ...(wishes.eventIdx ? [VIRTIO_F_EVENT_IDX] : []),
    ...(wishes.indirect ? [VIRTIO_F_INDIRECT_DESC] : []),
    ...(wishes.inOrder ? [VIRTIO_F_IN_ORDER] : []),
  );
}

/** What accepted bits say of the rings. */
export function agreedRing(bits: bigint): AgreedRing {
  return {
    packed: hasBit(bits, VIRTIO_F_RING_PACKED),
    ring: {
      eventIdx: hasBit(bits, VIRTIO_F_EVENT_IDX),
      indirect: hasBit(bits, VIRTIO_F_INDIRECT_DESC),
      inOrder: hasBit(bits, VIRTIO_F_IN_ORDER),
    },
  };
}
