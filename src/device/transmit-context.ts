/**
 * Offloads of frames that a driver sends through one of Intel's cards (82540: SDM §3.3.6–3.5; 82574: DS
 * §7.2.5–7.3; 82599: datasheet §7.2.4, §7.2.5): what a context descriptor says, however it is laid out,
 * and how its offsets become virtio_net_hdr metadata, with the headers put right in the slot.
 */
import type { Burst } from '../net/burst.ts';
import { foldSum } from '../net/checksum.ts';
import { read16, write16, write16le } from '../net/frame.ts';
import {
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER_BYTES,
  IPV6_PAYLOAD_LENGTH,
  TCP_CHECKSUM,
  TCP_CWR,
  TCP_FLAGS,
  UDP_CHECKSUM,
  UDP_LENGTH,
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
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from '../spec/virtio-net.ts';

/**
 * What a context descriptor says, in words of an array: where the IP header begins, where its checksum
 * goes, and its last byte; where the transport header begins, and where its checksum goes; CONTEXT_IPV4
 * and CONTEXT_TCP; with segmentation, bytes of all headers, and most payload of a segment.
 */
export const CONTEXT_IP = 0;
export const CONTEXT_IP_FIELD = 1;
export const CONTEXT_IP_END = 2;
export const CONTEXT_L4 = 3;
export const CONTEXT_L4_FIELD = 4;
export const CONTEXT_FLAGS = 5;
export const CONTEXT_HEADER_BYTES = 6;
export const CONTEXT_SEGMENT_BYTES = 7;
export const CONTEXT_WORDS = 8;

/** Flags of a context. */
export const CONTEXT_IPV4 = 1;
export const CONTEXT_TCP = 2;

/** What a frame's data descriptors ask for. */
export const WORK_IP = 1;
export const WORK_L4 = 2;
export const WORK_SEGMENT = 4;

const IP_LENGTH_MAX = 0xffff;

/**
 * Puts the offloads `work` of frame `slot` into its slot; the frame's context stands at `at` of
 * `context`. `shift` bytes (a tag that the device puts in) stand before the network header that the
 * offsets do not know of. False if the offsets do not fit the frame.
 */
export function applyOffloads(
  burst: Burst,
  slot: number,
  work: number,
  context: Uint32Array,
  at: number,
  shift: number,
): boolean {
  const segmented = (work & WORK_SEGMENT) !== 0;
  if (segmented && !prepareSegments(burst, slot, context, at, shift)) return false;
  if ((work & WORK_IP) !== 0) {
    // With segmentation, each segment has its own: it is computed only where asked for.
    const ipv4 = ((context[at + CONTEXT_FLAGS] as number) & CONTEXT_IPV4) !== 0;
    if ((ipv4 || !segmented) && !insertHeaderChecksum(burst, slot, context, at, shift))
      return false;
  }
  if (!segmented && (work & WORK_L4) === 0) return true;
  return needChecksum(
    burst,
    slot,
    (context[at + CONTEXT_L4] as number) + shift,
    (context[at + CONTEXT_L4_FIELD] as number) + shift,
  );
}

/** Bytes of a frame's start that its context needs to be in the slot. */
export function headerBytesNeeded(context: Uint32Array, at: number): number {
  return Math.max(
    (context[at + CONTEXT_IP_FIELD] as number) + 2,
    Math.min(context[at + CONTEXT_IP_END] as number, 0xff) + 1,
    (context[at + CONTEXT_L4_FIELD] as number) + 2,
  );
}

/**
 * Has the checksum from byte `start` of frame `slot` on put in at `field`, by whoever receives it or
 * makes it fit for a receiver. False if they do not fit the frame.
 */
export function needChecksum(burst: Burst, slot: number, start: number, field: number): boolean {
  if (field < start || field + 2 > (burst.frameLength[slot] as number)) return false;
  const bytes = burst.slots8;
  const header = (burst.headerAt[slot] as number) - burst.slotsAt;
  bytes[header + NET_HEADER_FLAGS] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  write16le(bytes, header + NET_HEADER_CSUM_START, start);
  write16le(bytes, header + NET_HEADER_CSUM_OFFSET, field - start);
  return true;
}

/** IPv4's checksum (or what else a driver puts at these offsets) over bytes that are in the slot. */
function insertHeaderChecksum(
  burst: Burst,
  slot: number,
  context: Uint32Array,
  at: number,
  shift: number,
): boolean {
  const bytes = burst.slots8;
  const frame = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
  const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
  const start = (context[at + CONTEXT_IP] as number) + shift;
  const field = (context[at + CONTEXT_IP_FIELD] as number) + shift;
  const end = (context[at + CONTEXT_IP_END] as number) + shift;
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
  context: Uint32Array,
  at: number,
  shift: number,
): boolean {
  const bytes = burst.slots8;
  const header = (burst.headerAt[slot] as number) - burst.slotsAt;
  const frame = header + NET_HEADER_BYTES;
  const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
  const length = burst.frameLength[slot] as number;
  const network = (context[at + CONTEXT_IP] as number) + shift;
  const transport = (context[at + CONTEXT_L4] as number) + shift;
  const flags = context[at + CONTEXT_FLAGS] as number;
  const tcp = (flags & CONTEXT_TCP) !== 0;
  const ipv4 = (flags & CONTEXT_IPV4) !== 0;
  const headerLength = (context[at + CONTEXT_HEADER_BYTES] as number) + shift;
  const size = context[at + CONTEXT_SEGMENT_BYTES] as number;
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
    const tcpFlags = bytes[frame + transport + TCP_FLAGS] as number;
    if ((tcpFlags & TCP_CWR) !== 0) type |= VIRTIO_NET_HDR_GSO_ECN;
  }
  bytes[header + NET_HEADER_GSO_TYPE] = type;
  write16le(bytes, header + NET_HEADER_GSO_SIZE, size);
  write16le(bytes, header + NET_HEADER_HDR_LEN, headerLength);
  return true;
}
