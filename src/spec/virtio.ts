/**
 * Virtual I/O Device (VIRTIO) 1.3: what every device and every ring shares.
 * Feature bits of single device types stand in `virtio-net.ts` and `virtio-blk.ts`.
 */

/** Device types (§5). */
export const VIRTIO_ID_NET = 1;
export const VIRTIO_ID_BLOCK = 2;

/** Device-independent feature bits (§6), as bit numbers. */
export const VIRTIO_F_NOTIFY_ON_EMPTY = 24; // legacy (§2.7.7.1 of 0.9.5)
export const VIRTIO_F_ANY_LAYOUT = 27; // legacy: framing is free
export const VIRTIO_F_INDIRECT_DESC = 28;
export const VIRTIO_F_EVENT_IDX = 29;
export const VIRTIO_F_VERSION_1 = 32;
export const VIRTIO_F_ACCESS_PLATFORM = 33;
export const VIRTIO_F_RING_PACKED = 34;
export const VIRTIO_F_IN_ORDER = 35;
export const VIRTIO_F_ORDER_PLATFORM = 36;

/** Descriptor flags (§2.7.5, §2.8.13). */
export const VIRTQ_DESC_F_NEXT = 1;
export const VIRTQ_DESC_F_WRITE = 2;
export const VIRTQ_DESC_F_INDIRECT = 4;
/** Packed rings only. */
export const VIRTQ_DESC_F_AVAIL = 1 << 7;
export const VIRTQ_DESC_F_USED = 1 << 15;

/** Split ring: the driver wants no calls (§2.7.6), the device no kicks (§2.7.8). */
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
export const VIRTQ_USED_F_NO_NOTIFY = 1;

/** Packed ring event suppression flags (§2.8.14). */
export const RING_EVENT_FLAGS_ENABLE = 0;
export const RING_EVENT_FLAGS_DISABLE = 1;
export const RING_EVENT_FLAGS_DESC = 2;

/** A descriptor of either ring: address 8, length 4, then flags/next or id/flags. */
export const DESCRIPTOR_BYTES = 16;

/** Largest queue size of both ring kinds (§2.7, §2.8). */
export const MAX_QUEUE_SIZE = 32768;

/** Bytes of the three areas of a split ring (§2.7), event index included. */
export function splitRingBytes(size: number): {
  readonly descriptor: number;
  readonly driver: number;
  readonly device: number;
} {
  return { descriptor: DESCRIPTOR_BYTES * size, driver: 6 + 2 * size, device: 6 + 8 * size };
}

/** Bytes of the three areas of a packed ring (§2.8): the ring and two event structures. */
export function packedRingBytes(size: number): {
  readonly descriptor: number;
  readonly driver: number;
  readonly device: number;
} {
  return { descriptor: DESCRIPTOR_BYTES * size, driver: 4, device: 4 };
}
