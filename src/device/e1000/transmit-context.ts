/**
 * Offloads of frames that a driver sends (SDM §3.3.6–3.5; DS §7.2.5–7.3): the context descriptor, and
 * how its offsets become virtio_net_hdr metadata, with the headers put right in the slot.
 */
import type { Burst } from '../../net/burst.ts';
import { foldSum } from '../../net/checksum.ts';
import { read16, write16, write16le } from '../../net/frame.ts';
import {
  TXC_IPV4,
  TXC_TCP,
  TXD_CSO_SHIFT,
  TXD_CSS_SHIFT,
  TXD_IC,
  TXD_POPTS_IXSM,
  TXD_POPTS_TXSM,
  TXD_TSE,
} from '../../spec/e1000.ts';
import {
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER_BYTES,
  IPV6_PAYLOAD_LENGTH,
  TCP_CHECKSUM,
  TCP_CWR,
  TCP_FLAGS,
  UDP_CHECKSUM,
  UDP_LENGTH,
} from '../../spec/ethernet.ts';
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
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from '../../spec/virtio-net.ts';

/** Words of a context descriptor: IP checksum, transport checksum, command and length, MSS. */
export const CONTEXT_WORDS = 4;

const IP_LENGTH_MAX = 0xffff;

/**
 * Puts the offloads of frame `slot` into its slot: `command` and `options` are the second and third
 * word of its first data descriptor (`legacy`: of the legacy descriptor), its context stands at
 * `contextAt` of `words`. `shift` bytes (a tag that the device puts in) stand before the network
 * header that the offsets do not know of. False if the offsets do not fit the frame.
 */
export function applyOffloads(
  burst: Burst,
  slot: number,
  legacy: boolean,
  command: number,
  options: number,
  words: Uint32Array,
  contextAt: number,
  shift: number,
): boolean {
  const bytes = burst.slots8;
  const header = (burst.headerAt[slot] as number) - burst.slotsAt;
  if (legacy) {
    if ((command & TXD_IC) === 0) return true;
    const start = ((options >>> TXD_CSS_SHIFT) & 0xff) + shift;
    const field = ((command >>> TXD_CSO_SHIFT) & 0xff) + shift;
    return needChecksum(bytes, header, start, field, burst.frameLength[slot] as number);
  }
  const segmented = (command & TXD_TSE) !== 0;
  if (segmented && !prepareSegments(burst, slot, words, contextAt, shift)) return false;
  if (segmented || (options & TXD_POPTS_IXSM) !== 0) {
    const ip = words[contextAt] as number;
    const ipv4 = ((words[contextAt + 2] as number) & TXC_IPV4) !== 0;
    // With segmentation, each segment has its own: it is computed only where asked for.
    if ((options & TXD_POPTS_IXSM) !== 0 && (ipv4 || !segmented)) {
      if (!insertHeaderChecksum(burst, slot, ip, shift)) return false;
    }
  }
  if (!segmented && (options & TXD_POPTS_TXSM) === 0) return true;
  const transport = words[contextAt + 1] as number;
  const start = (transport & 0xff) + shift;
  const field = ((transport >>> 8) & 0xff) + shift;
  return needChecksum(bytes, header, start, field, burst.frameLength[slot] as number);
}

/** Bytes of a frame's start that its context needs to be in the slot. */
export function headerBytesNeeded(words: Uint32Array, contextAt: number): number {
  const ip = words[contextAt] as number;
  const transport = words[contextAt + 1] as number;
  return Math.max(
    ((ip >>> 8) & 0xff) + 2,
    Math.min(ip >>> 16, 0xff) + 1,
    ((transport >>> 8) & 0xff) + 2,
  );
}

/** Most payload of a segment, and bytes of its headers (DS §7.2.6). */
export function segmentSize(words: Uint32Array, contextAt: number): number {
  return (words[contextAt + 3] as number) >>> 16;
}

export function segmentHeaderBytes(words: Uint32Array, contextAt: number): number {
  return ((words[contextAt + 3] as number) >>> 8) & 0xff;
}

function needChecksum(
  bytes: Uint8Array,
  header: number,
  start: number,
  field: number,
  length: number,
): boolean {
  if (field < start || field + 2 > length) return false;
  bytes[header + NET_HEADER_FLAGS] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  write16le(bytes, header + NET_HEADER_CSUM_START, start);
  write16le(bytes, header + NET_HEADER_CSUM_OFFSET, field - start);
  return true;
}

/** IPv4's checksum (or what else a driver puts at these offsets) over bytes that are in the slot. */
function insertHeaderChecksum(burst: Burst, slot: number, offsets: number, shift: number): boolean {
  const bytes = burst.slots8;
  const frame = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
  const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
  const start = (offsets & 0xff) + shift;
  const field = ((offsets >>> 8) & 0xff) + shift;
  const end = (offsets >>> 16) + shift;
  if (end < start || end >= gathered || field + 2 > gathered || field < start) return false;
  write16(bytes, frame + field, 0);
  let sum = 0;
  for (let i = start; i < end; i += 2) sum += read16(bytes, frame + i);
  if (((end - start) & 1) === 0) sum += (bytes[frame + end] as number) << 8;
  write16(bytes, frame + field, ~foldSum(sum) & 0xffff);
  return true;
}

/**
 * Metadata of a frame that is to be cut. The driver leaves lengths out of the headers and the
 * pseudo header's sum (SDM §3.5.6); with virtio they are those of the whole frame.
 */
function prepareSegments(
  burst: Burst,
  slot: number,
  words: Uint32Array,
  contextAt: number,
  shift: number,
): boolean {
  const bytes = burst.slots8;
  const header = (burst.headerAt[slot] as number) - burst.slotsAt;
  const frame = header + NET_HEADER_BYTES;
  const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
  const length = burst.frameLength[slot] as number;
  const network = ((words[contextAt] as number) & 0xff) + shift;
  const transport = ((words[contextAt + 1] as number) & 0xff) + shift;
  const command = words[contextAt + 2] as number;
  const tcp = (command & TXC_TCP) !== 0;
  const ipv4 = (command & TXC_IPV4) !== 0;
  const headerLength = segmentHeaderBytes(words, contextAt) + shift;
  const size = segmentSize(words, contextAt);
  const field = transport + (tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
  if (size === 0 || headerLength >= length || field + 2 > gathered) return false;
  if (network + IPV6_HEADER_BYTES > gathered || transport <= network) return false;
  const counted = length - network - (ipv4 ? 0 : IPV6_HEADER_BYTES);
  if (counted > IP_LENGTH_MAX) return false;
  write16(bytes, frame + network + (ipv4 ? IPV4_TOTAL_LENGTH : IPV6_PAYLOAD_LENGTH), counted);
  const transportLength = length - transport;
  if (!tcp) write16(bytes, frame + transport + UDP_LENGTH, transportLength);
  write16(bytes, frame + field, foldSum(read16(bytes, frame + field) + transportLength));
  let type: number = VIRTIO_NET_HDR_GSO_UDP_L4;
  if (tcp) {
    type = ipv4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
    const flags = bytes[frame + transport + TCP_FLAGS] as number;
    if ((flags & TCP_CWR) !== 0) type |= VIRTIO_NET_HDR_GSO_ECN;
  }
  bytes[header + NET_HEADER_GSO_TYPE] = type;
  write16le(bytes, header + NET_HEADER_GSO_SIZE, size);
  write16le(bytes, header + NET_HEADER_HDR_LEN, headerLength);
  return true;
}
