/**
 * The headers of segments: those of a TCP or UDP frame that is to be cut up are checked once and
 * become a template, of which each segment gets a copy with its own lengths, number and checksums.
 */
import type { Arena } from '../memory/arena.ts';
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  IP_PROTOCOL_TCP,
  IP_PROTOCOL_UDP,
  IPV4_CHECKSUM,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET_MASK,
  IPV4_ID,
  IPV4_MIN_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  IPV6_DESTINATION_OPTIONS,
  IPV6_HEADER_BYTES,
  IPV6_HOP_BY_HOP,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_ROUTING,
  IPV6_SOURCE,
  TCP_CHECKSUM,
  TCP_CWR,
  TCP_DATA_OFFSET,
  TCP_FIN,
  TCP_FLAGS,
  TCP_MIN_HEADER_BYTES,
  TCP_PSH,
  TCP_SEQUENCE,
  UDP_CHECKSUM,
  UDP_HEADER_BYTES,
  UDP_LENGTH,
} from '../spec/ethernet.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_CSUM_OFFSET,
  NET_HEADER_CSUM_START,
  NET_HEADER_FLAGS,
  NET_HEADER_NUM_BUFFERS,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
} from '../spec/virtio-net.ts';
import { foldSum } from './checksum.ts';
import { networkOffset, read16, write16, write16le } from './frame.ts';

/** Most bytes of headers, virtio_net_hdr included, that a frame may have to be segmented. */
export const MAX_HEADER_BYTES = 496;

const IP_LENGTH_MAX = 0xffff;

/** The sum of big-endian words; `length` is even. */
function sumWords(bytes: Uint8Array, at: number, length: number): number {
  let sum = 0;
  for (let i = at; i < at + length; i += 2) sum += read16(bytes, i);
  return sum;
}

export class SegmentHeaders {
  /** Arena address of the template: virtio_net_hdr, then the frame's headers. */
  readonly at: number;
  readonly #bytes: Uint8Array;
  /** Bytes of the template, virtio_net_hdr included. */
  length = 0;
  /** Offsets in a segment, virtio_net_hdr included, of its network and transport headers. */
  #network = 0;
  #transport = 0;
  #ipv4 = false;
  #tcp = false;
  /** Sums over what is the same in all segments, big-endian, not folded. */
  #ipSum = 0;
  #pseudoSum = 0;
  #transportSum = 0;
  #id = 0;
  #sequence = 0;
  #flags = 0;
  #complete = true;

  constructor(arena: Arena) {
    this.at = arena.allocate(MAX_HEADER_BYTES, 'sluice-segment-headers');
    this.#bytes = new Uint8Array(arena.buffer, this.at, MAX_HEADER_BYTES);
  }

  /**
   * Takes the bytes at {@link at} (`available` of them, of a frame whose transport header should
   * stand at `start`) as template. False if they are not the headers of a TCP (or UDP) frame, which
   * is not a fragment.
   *
   * @param size most payload bytes of a segment
   * @param complete give segments their transport checksum; else leave it to the receiver
   */
  parse(available: number, start: number, udp: boolean, size: number, complete: boolean): boolean {
    const bytes = this.#bytes;
    const network = networkOffset(bytes, NET_HEADER_BYTES, available - NET_HEADER_BYTES);
    if (network < 0) return false;
    const ip = NET_HEADER_BYTES + network;
    const transport = NET_HEADER_BYTES + start;
    const type = read16(bytes, ip - 2);
    const protocol = udp ? IP_PROTOCOL_UDP : IP_PROTOCOL_TCP;
    this.#ipv4 = type === ETHERTYPE_IPV4;
    if (this.#ipv4) {
      if (!isIpv4Of(bytes, ip, transport, protocol, available)) return false;
    } else if (type !== ETHERTYPE_IPV6 || !isIpv6Of(bytes, ip, transport, protocol, available)) {
      return false;
    }
    if (transport + (udp ? UDP_HEADER_BYTES : TCP_MIN_HEADER_BYTES) > available) return false;
    const words = (bytes[transport + TCP_DATA_OFFSET] as number) >>> 4;
    const transportLength = udp ? UDP_HEADER_BYTES : 4 * words;
    if (!udp && transportLength < TCP_MIN_HEADER_BYTES) return false;
    this.length = transport + transportLength;
    if (this.length > available) return false;
    const counted = this.length + size - ip - (this.#ipv4 ? 0 : IPV6_HEADER_BYTES);
    if (counted > IP_LENGTH_MAX) return false;
    this.#network = ip;
    this.#transport = transport;
    this.#tcp = !udp;
    this.#complete = complete;
    this.#prepare(start, protocol);
    return true;
  }

  /** Clears in the template what each segment has of its own, and sums up the rest. */
  #prepare(start: number, protocol: number): void {
    const bytes = this.#bytes;
    const ip = this.#network;
    const transport = this.#transport;
    const checksum = this.#tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    bytes.fill(0, 0, NET_HEADER_BYTES);
    bytes[NET_HEADER_NUM_BUFFERS] = 1;
    if (!this.#complete) {
      bytes[NET_HEADER_FLAGS] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
      write16le(bytes, NET_HEADER_CSUM_START, start);
      write16le(bytes, NET_HEADER_CSUM_OFFSET, checksum);
    }
    if (this.#ipv4) {
      this.#id = read16(bytes, ip + IPV4_ID);
      write16(bytes, ip + IPV4_TOTAL_LENGTH, 0);
      write16(bytes, ip + IPV4_ID, 0);
      write16(bytes, ip + IPV4_CHECKSUM, 0);
      this.#ipSum = sumWords(bytes, ip, transport - ip);
      this.#pseudoSum = protocol + sumWords(bytes, ip + IPV4_SOURCE, 8);
    } else {
      // A routing header with addresses left would change the destination (RFC 8200 §8.1):
      // isIpv6Of lets none of these pass.
      this.#pseudoSum = protocol + sumWords(bytes, ip + IPV6_SOURCE, 32);
    }
    write16(bytes, transport + checksum, 0);
    if (this.#tcp) {
      const high = read16(bytes, transport + TCP_SEQUENCE);
      this.#sequence = (high << 16) | read16(bytes, transport + TCP_SEQUENCE + 2);
      this.#flags = bytes[transport + TCP_FLAGS] as number;
      bytes.fill(0, transport + TCP_SEQUENCE, transport + TCP_SEQUENCE + 4);
      bytes[transport + TCP_FLAGS] = 0;
    } else {
      write16(bytes, transport + UDP_LENGTH, 0);
    }
    this.#transportSum = sumWords(bytes, transport, this.length - transport);
  }

  /**
   * Completes a copy of the template at `at` in `out`.
   *
   * @param index number of the segment, from 0
   * @param offset of its payload in the frame's payload
   * @param payload bytes of it
   * @param payloadSum folded sum of the payload's big-endian words (used when complete)
   */
  finish(
    out: Uint8Array,
    at: number,
    index: number,
    offset: number,
    payload: number,
    last: boolean,
    payloadSum: number,
  ): void {
    const ip = at + this.#network;
    const transport = at + this.#transport;
    const length = this.length - this.#transport + payload;
    if (this.#ipv4) {
      const total = this.#transport - this.#network + length;
      const id = (this.#id + index) & 0xffff;
      write16(out, ip + IPV4_TOTAL_LENGTH, total);
      write16(out, ip + IPV4_ID, id);
      write16(out, ip + IPV4_CHECKSUM, ~foldSum(this.#ipSum + total + id) & 0xffff);
    } else {
      const extensions = this.#transport - this.#network - IPV6_HEADER_BYTES;
      write16(out, ip + IPV6_PAYLOAD_LENGTH, extensions + length);
    }
    const pseudo = this.#pseudoSum + length;
    let sum = pseudo + this.#transportSum + payloadSum;
    if (this.#tcp) {
      const sequence = (this.#sequence + offset) | 0;
      const high = sequence >>> 16;
      const low = sequence & 0xffff;
      // The end of the data is in the last segment, the answer to congestion in the first
      // (RFC 3168 §6.1.2).
      let flags = this.#flags;
      if (!last) flags &= ~(TCP_FIN | TCP_PSH);
      if (index !== 0) flags &= ~TCP_CWR;
      write16(out, transport + TCP_SEQUENCE, high);
      write16(out, transport + TCP_SEQUENCE + 2, low);
      out[transport + TCP_FLAGS] = flags;
      sum += high + low + flags;
    } else {
      write16(out, transport + UDP_LENGTH, length);
      sum += length;
    }
    const field = transport + (this.#tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
    if (!this.#complete) {
      write16(out, field, foldSum(pseudo));
      return;
    }
    const checksum = ~foldSum(sum) & 0xffff;
    // In UDP zero says that there is no checksum (RFC 768).
    write16(out, field, checksum === 0 && !this.#tcp ? 0xffff : checksum);
  }
}

function isIpv4Of(
  bytes: Uint8Array,
  ip: number,
  transport: number,
  protocol: number,
  available: number,
): boolean {
  if (ip + IPV4_MIN_HEADER_BYTES > available) return false;
  const first = bytes[ip] as number;
  const length = 4 * (first & 0xf);
  if (first >>> 4 !== 4 || length < IPV4_MIN_HEADER_BYTES || ip + length !== transport)
    return false;
  const fragment = read16(bytes, ip + IPV4_FRAGMENT);
  if ((fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET_MASK)) !== 0) return false;
  return bytes[ip + IPV4_PROTOCOL] === protocol;
}

function isIpv6Of(
  bytes: Uint8Array,
  ip: number,
  transport: number,
  protocol: number,
  available: number,
): boolean {
  if (ip + IPV6_HEADER_BYTES > available || (bytes[ip] as number) >>> 4 !== 6) return false;
  let next = bytes[ip + IPV6_NEXT_HEADER] as number;
  let at = ip + IPV6_HEADER_BYTES;
  while (at < transport) {
    if (next !== IPV6_HOP_BY_HOP && next !== IPV6_ROUTING && next !== IPV6_DESTINATION_OPTIONS) {
      return false;
    }
    if (at + 8 > available) return false;
    // Segments left in a routing header: the pseudo header has an address that is not in the
    // IPv6 header's destination.
    if (next === IPV6_ROUTING && bytes[at + 3] !== 0) return false;
    next = bytes[at] as number;
    at += 8 * ((bytes[at + 1] as number) + 1);
  }
  return at === transport && next === protocol;
}
