/**
 * What the card tells of a received frame besides its bytes (§7.1.6.2, §7.1.11): its type, its
 * checksums, and how long its headers are, where they are to be split off (§7.1.10).
 */
import { networkOffset, read16 } from '../../net/frame.ts';
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  IP_PROTOCOL_SCTP,
  IP_PROTOCOL_TCP,
  IP_PROTOCOL_UDP,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET_MASK,
  IPV4_MIN_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV6_HEADER_BYTES,
  IPV6_NEXT_HEADER,
  TCP_DATA_OFFSET,
  TCP_MIN_HEADER_BYTES,
  UDP_HEADER_BYTES,
} from '../../spec/ethernet.ts';
import {
  IXGBE_PSRTYPE_IPV4,
  IXGBE_PSRTYPE_IPV6,
  IXGBE_PSRTYPE_L2,
  IXGBE_PSRTYPE_TCP,
  IXGBE_PSRTYPE_UDP,
} from '../../spec/ixgbe.ts';
import {
  IXGBE_RXD_ERROR_IP,
  IXGBE_RXD_ERROR_L4,
  IXGBE_RXD_IP_CHECKED,
  IXGBE_RXD_L4_CHECKED,
  IXGBE_RXD_TYPE_IPV4,
  IXGBE_RXD_TYPE_IPV4_OPTIONS,
  IXGBE_RXD_TYPE_IPV6,
  IXGBE_RXD_TYPE_SCTP,
  IXGBE_RXD_TYPE_TCP,
  IXGBE_RXD_TYPE_UDP,
  IXGBE_RXD_UDP_CHECKED,
} from '../../spec/ixgbe-descriptors.ts';
import { VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM } from '../../spec/virtio-net.ts';
import { CHECKED_IP, CHECKED_L4, CHECKED_UDP, WRONG_IP, WRONG_L4 } from '../receive-checksum.ts';

/** Status and error bits of what `ReceiveChecksum.verify` found, as a signed number of 32 bits. */
export function checksumStatus(checked: number): number {
  if (checked === 0) return 0;
  return (
    ((checked & CHECKED_IP) !== 0 ? IXGBE_RXD_IP_CHECKED : 0) |
    ((checked & CHECKED_L4) !== 0 ? IXGBE_RXD_L4_CHECKED : 0) |
    ((checked & CHECKED_UDP) !== 0 ? IXGBE_RXD_UDP_CHECKED : 0) |
    ((checked & WRONG_IP) !== 0 ? IXGBE_RXD_ERROR_IP : 0) |
    ((checked & WRONG_L4) !== 0 ? IXGBE_RXD_ERROR_L4 : 0)
  );
}

/** As {@link checksumStatus} of a frame from within the card: its sender left the checksum to it, or nothing is told. */
export function localStatus(bytes: Uint8Array, header: number, type: number): number {
  const good = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
  if (((bytes[header] as number) & good) === 0) return 0;
  return (
    ((type & IXGBE_RXD_TYPE_IPV4) !== 0 ? IXGBE_RXD_IP_CHECKED : 0) |
    ((type & (IXGBE_RXD_TYPE_TCP | IXGBE_RXD_TYPE_UDP)) !== 0 ? IXGBE_RXD_L4_CHECKED : 0) |
    ((type & IXGBE_RXD_TYPE_UDP) !== 0 ? IXGBE_RXD_UDP_CHECKED : 0)
  );
}

/** IXGBE_RXD_TYPE_* of a frame whose first `length` bytes are at `at`; 0: nothing that the card knows. */
export function packetType(bytes: Uint8Array, at: number, length: number): number {
  const network = networkOffset(bytes, at, length);
  if (network < 0) return 0;
  const ip = at + network;
  const left = length - network;
  const type = read16(bytes, ip - 2);
  if (type === ETHERTYPE_IPV4 && left >= IPV4_MIN_HEADER_BYTES) {
    const header = 4 * ((bytes[ip] as number) & 0xf);
    if (header < IPV4_MIN_HEADER_BYTES) return 0;
    const options = header > IPV4_MIN_HEADER_BYTES ? IXGBE_RXD_TYPE_IPV4_OPTIONS : 0;
    const fragment = read16(bytes, ip + IPV4_FRAGMENT);
    const whole = (fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET_MASK)) === 0;
    const transport = whole ? transportType(bytes[ip + IPV4_PROTOCOL] as number) : 0;
    return IXGBE_RXD_TYPE_IPV4 | options | transport;
  }
  if (type === ETHERTYPE_IPV6 && left >= IPV6_HEADER_BYTES) {
    return IXGBE_RXD_TYPE_IPV6 | transportType(bytes[ip + IPV6_NEXT_HEADER] as number);
  }
  return 0;
}

function transportType(protocol: number): number {
  if (protocol === IP_PROTOCOL_TCP) return IXGBE_RXD_TYPE_TCP;
  if (protocol === IP_PROTOCOL_UDP) return IXGBE_RXD_TYPE_UDP;
  return protocol === IP_PROTOCOL_SCTP ? IXGBE_RXD_TYPE_SCTP : 0;
}

/**
 * Bytes of the headers that `wanted` (PSRTYPE, §8.2.3.7.4) has split off a frame, of the innermost kind
 * that it names; 0 if there are none. `length` bytes of the frame are at `at`.
 */
export function splitLength(bytes: Uint8Array, at: number, length: number, wanted: number): number {
  const network = networkOffset(bytes, at, length);
  if (network < 0) return 0;
  const l2 = (wanted & IXGBE_PSRTYPE_L2) !== 0 ? network : 0;
  const type = packetType(bytes, at, length);
  const ipv4 = (type & IXGBE_RXD_TYPE_IPV4) !== 0;
  const ipv6 = (type & IXGBE_RXD_TYPE_IPV6) !== 0;
  if (!ipv4 && !ipv6) return l2;
  const header = ipv4 ? 4 * ((bytes[at + network] as number) & 0xf) : IPV6_HEADER_BYTES;
  const transport = network + header;
  if (transport > length) return l2;
  const ip = (wanted & (ipv4 ? IXGBE_PSRTYPE_IPV4 : IXGBE_PSRTYPE_IPV6)) !== 0 ? transport : l2;
  if ((type & IXGBE_RXD_TYPE_UDP) !== 0 && (wanted & IXGBE_PSRTYPE_UDP) !== 0) {
    const end = transport + UDP_HEADER_BYTES;
    return end <= length ? end : ip;
  }
  if ((type & IXGBE_RXD_TYPE_TCP) !== 0 && (wanted & IXGBE_PSRTYPE_TCP) !== 0) {
    if (transport + TCP_MIN_HEADER_BYTES > length) return ip;
    return transport + 4 * ((bytes[at + transport + TCP_DATA_OFFSET] as number) >>> 4);
  }
  return ip;
}
