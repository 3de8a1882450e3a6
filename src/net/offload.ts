/**
 * Offload metadata of frames (virtio_net_hdr, VIRTIO 1.3 §5.1.6): what a receiver must be able to
 * take, and whether the metadata agree with the frame at all.
 */
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  IP_PROTOCOL_TCP,
  IP_PROTOCOL_UDP,
  IPV4_MIN_HEADER_BYTES,
  IPV4_PROTOCOL,
  IPV6_HEADER_BYTES,
  TCP_CHECKSUM,
  TCP_MIN_HEADER_BYTES,
  UDP_CHECKSUM,
  UDP_HEADER_BYTES,
} from '../spec/ethernet.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_CSUM_OFFSET,
  NET_HEADER_CSUM_START,
  NET_HEADER_FLAGS,
  NET_HEADER_GSO_SIZE,
  NET_HEADER_GSO_TYPE,
  NET_HEADER_HDR_LEN,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from '../spec/virtio-net.ts';
import type { Burst } from './burst.ts';
import { networkOffset, read16, read16le, write16le } from './frame.ts';
import {
  OFFLOAD_CSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
} from './port.ts';

/** What {@link classifyOffload} returns for metadata that contradict the frame. */
export const BAD_OFFLOAD = -1;

const CSUM_BYTES = 2;

/**
 * The offloads that a receiver of frame `slot` must be able to take (a mask of OFFLOAD_*), or
 * {@link BAD_OFFLOAD}. Reads the slot only, with or without the frame's tag.
 *
 * What a receiver would have to believe the sender is taken out of the header: flags but
 * NEEDS_CSUM (a driver must not set them, §5.1.6.2.1), and a hdr_len that cannot be (it is a
 * hint, §5.1.6.2.2).
 *
 * A header without flags and type needs nothing; the caller tests that case itself.
 */
export function classifyOffload(burst: Burst, slot: number): number {
  const bytes = burst.slots8;
  const header = (burst.headerAt[slot] as number) - burst.slotsAt;
  const frameLength = burst.frameLength[slot] as number;
  const needsCsum = ((bytes[header] as number) & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
  const gso = bytes[header + NET_HEADER_GSO_TYPE] as number;
  bytes[header + NET_HEADER_FLAGS] = needsCsum ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0;
  if (!needsCsum) {
    // §5.1.6.2.1: a segmentation type demands NEEDS_CSUM.
    if (gso !== VIRTIO_NET_HDR_GSO_NONE) return BAD_OFFLOAD;
    write16le(bytes, header + NET_HEADER_HDR_LEN, 0);
    return 0;
  }
  const start = read16le(bytes, header + NET_HEADER_CSUM_START);
  const offset = read16le(bytes, header + NET_HEADER_CSUM_OFFSET);
  if (start + offset + CSUM_BYTES > frameLength) return BAD_OFFLOAD;
  const frame = header + NET_HEADER_BYTES;
  const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
  const network = networkOffset(bytes, frame, gathered);
  if (network < 0 || start < network) return BAD_OFFLOAD;
  if (gso === VIRTIO_NET_HDR_GSO_NONE) {
    write16le(bytes, header + NET_HEADER_HDR_LEN, 0);
    return OFFLOAD_CSUM;
  }
  if (read16le(bytes, header + NET_HEADER_GSO_SIZE) === 0) return BAD_OFFLOAD;
  return classifySegmentation(bytes, header, gso, network, start, offset, gathered, frameLength);
}

function classifySegmentation(
  bytes: Uint8Array,
  header: number,
  gso: number,
  network: number,
  start: number,
  offset: number,
  gathered: number,
  frameLength: number,
): number {
  const frame = header + NET_HEADER_BYTES;
  const type = read16(bytes, frame + network - 2);
  const kind = gso & ~VIRTIO_NET_HDR_GSO_ECN;
  const udp = kind === VIRTIO_NET_HDR_GSO_UDP_L4;
  let mask: number;
  if (type === ETHERTYPE_IPV4 && (udp || kind === VIRTIO_NET_HDR_GSO_TCPV4)) {
    const protocolAt = network + IPV4_PROTOCOL;
    if (start < network + IPV4_MIN_HEADER_BYTES || protocolAt >= gathered) return BAD_OFFLOAD;
    if (bytes[frame + protocolAt] !== (udp ? IP_PROTOCOL_UDP : IP_PROTOCOL_TCP)) return BAD_OFFLOAD;
    mask = udp ? OFFLOAD_USO4 : OFFLOAD_TSO4;
  } else if (type === ETHERTYPE_IPV6 && (udp || kind === VIRTIO_NET_HDR_GSO_TCPV6)) {
    if (start < network + IPV6_HEADER_BYTES) return BAD_OFFLOAD;
    mask = udp ? OFFLOAD_USO6 : OFFLOAD_TSO6;
  } else {
    return BAD_OFFLOAD;
  }
  if (gso !== kind) {
    if (udp) return BAD_OFFLOAD;
    mask |= OFFLOAD_ECN;
  }
  const least = start + (udp ? UDP_HEADER_BYTES : TCP_MIN_HEADER_BYTES);
  if (offset !== (udp ? UDP_CHECKSUM : TCP_CHECKSUM) || least >= frameLength) return BAD_OFFLOAD;
  const headerLength = read16le(bytes, header + NET_HEADER_HDR_LEN);
  if (headerLength < least || headerLength > frameLength) {
    write16le(bytes, header + NET_HEADER_HDR_LEN, least);
  }
  return mask | OFFLOAD_CSUM;
}
