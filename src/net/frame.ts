/** Reading and writing the fields of a frame's headers in bytes. */
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_SERVICE_VLAN,
  ETHERTYPE_VLAN,
  VLAN_TAG_BYTES,
} from '../spec/ethernet.ts';

/** The largest frame: an IP packet of 64 KiB (a GSO frame; VIRTIO 1.3 §5.1.6.3.1) with two tags. */
export const MAX_FRAME_BYTES = ETHERNET_HEADER_BYTES + 2 * VLAN_TAG_BYTES + 65535;

/** Tags that may stand before the EtherType: a service tag and a customer tag. */
const MAX_TAGS = 2;

/** A big-endian u16, as in network headers. */
export function read16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

export function write16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value & 0xff;
}

/** A little-endian u16, as in virtio_net_hdr. */
export function read16le(bytes: Uint8Array, at: number): number {
  return (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
}

/** Four bytes as they stand in memory: addresses, to be compared. */
export function read32le(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] as number) |
      ((bytes[at + 1] as number) << 8) |
      ((bytes[at + 2] as number) << 16) |
      ((bytes[at + 3] as number) << 24)) >>>
    0
  );
}

export function write16le(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value & 0xff;
  bytes[at + 1] = value >>> 8;
}

/**
 * Offset of the network header in a frame whose bytes begin at `at`, behind up to two tags; the
 * EtherType stands two bytes before it. Looks at no more than `length` bytes of the frame; -1 if
 * these end before the EtherType.
 */
export function networkOffset(bytes: Uint8Array, at: number, length: number): number {
  let offset = ETHERNET_HEADER_BYTES;
  for (let tags = 0; ; tags++) {
    if (offset > length) return -1;
    const type = read16(bytes, at + offset - 2);
    const tag = type === ETHERTYPE_VLAN || type === ETHERTYPE_SERVICE_VLAN;
    if (!tag || tags === MAX_TAGS) return offset;
    offset += VLAN_TAG_BYTES;
  }
}
