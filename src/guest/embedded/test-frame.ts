/**
 * The frames that sources send and sinks check.
 *
 *     Ethernet 14 | IPv4 20 | UDP 8 (or TCP 20) | 2 of padding | sequence 4 | checksum 4 | payload
 *
 * The source port is the flow's number, the destination port is 9 (discard, RFC 863). Sequence and
 * checksum are little-endian and lie on a multiple of four bytes, because a frame begins 12 bytes
 * (virtio_net_hdr) after the beginning of its buffer; with UDP they end the buffer's first cache
 * line. Frames above the MTU are TCP with segmentation left to the device.
 *
 * The checksum covers payload, length, flow and sequence. Payloads are written once per buffer; for
 * each frame only the two words are stamped.
 */
import { SluiceError } from '../../base/errors.ts';
import {
  ETHERNET_DESTINATION,
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE,
  ETHERNET_TYPE,
  ETHERTYPE_IPV4,
  IP_PROTOCOL_TCP,
  IP_PROTOCOL_UDP,
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_MIN_HEADER_BYTES,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  IPV4_VERSION_IHL,
  MAC_BYTES,
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_DATA_OFFSET,
  TCP_FLAGS,
  TCP_MIN_HEADER_BYTES,
  TCP_PSH,
  TCP_WINDOW,
  UDP_HEADER_BYTES,
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
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from '../../spec/virtio-net.ts';
import type { GuestRam } from './guest-ram.ts';

const L3 = ETHERNET_HEADER_BYTES;
const L4 = L3 + IPV4_MIN_HEADER_BYTES;
const STAMP_BYTES = 8;
const UDP_STAMP = L4 + UDP_HEADER_BYTES + 2;
const TCP_STAMP = L4 + TCP_MIN_HEADER_BYTES + 2;

/** The shortest frame that holds all of it, and the longest that IPv4 can carry. */
export const MIN_TEST_FRAME = UDP_STAMP + STAMP_BYTES;
export const MAX_TEST_FRAME = ETHERNET_HEADER_BYTES + 65535;

/** Flows that one sink can tell apart. */
export const MAX_FLOWS = 1024;

const DISCARD_PORT = 9;
// Two bytes of a frame, read as a little-endian word.
const ETHERTYPE_IPV4_LE = ((ETHERTYPE_IPV4 & 0xff) << 8) | (ETHERTYPE_IPV4 >>> 8);
const DISCARD_PORT_LE = DISCARD_PORT << 8;

// Offsets from the beginning of a buffer.
const TYPE_AT = NET_HEADER_BYTES + ETHERNET_TYPE;
const PROTOCOL_AT = NET_HEADER_BYTES + L3 + IPV4_PROTOCOL;
const FLOW_AT = NET_HEADER_BYTES + L4;
const PORT_AT = NET_HEADER_BYTES + L4 + 2;
const UDP_STAMP_AT = NET_HEADER_BYTES + UDP_STAMP;
const TCP_STAMP_AT = NET_HEADER_BYTES + TCP_STAMP;

const HASH_PRIME = 0x0100_0193; // FNV-1a, on words
const GOLDEN = 0x9e37_79b1; // 2^32 divided by the golden ratio, odd

export interface TestFrame {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  /** 0 to {@link MAX_FLOWS} - 1. */
  readonly flow: number;
  /** Bytes of the frame, without virtio_net_hdr. */
  readonly length: number;
  /** Frames longer than this and an Ethernet header are left to the device to cut. */
  readonly mtu: number;
  /** Frames of one flow with different seeds have different payloads. */
  readonly seed: number;
}

/** True if a frame of this length needs segmentation by the device. */
export function needsSegmentation(length: number, mtu: number): boolean {
  return length > mtu + ETHERNET_HEADER_BYTES;
}

/** Offset of the stamp from the beginning of the buffer. */
export function stampAt(length: number, mtu: number): number {
  return needsSegmentation(length, mtu) ? TCP_STAMP_AT : UDP_STAMP_AT;
}

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value & 0xff;
}

/** Ones' complement sum of big-endian words (RFC 1071), folded, not inverted. */
function sum16(bytes: Uint8Array, from: number, to: number, start = 0): number {
  let sum = start;
  for (let i = from; i < to; i += 2) {
    sum += ((bytes[i] as number) << 8) | (bytes[i + 1] as number);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/**
 * Writes virtio_net_hdr, headers and payload at `offset` of a guest's memory (a multiple of 4).
 * Returns the payload's part of the checksum, for {@link stamp}.
 * @throws SluiceError `config` for a length or flow out of range.
 */
export function buildFrame(ram: GuestRam, offset: number, frame: TestFrame): number {
  const { length, flow, mtu } = frame;
  if (!(length >= MIN_TEST_FRAME && length <= MAX_TEST_FRAME && Number.isInteger(length))) {
    throw new SluiceError('config', `test frames of ${length} bytes`, {
      remedy: `choose ${MIN_TEST_FRAME} to ${MAX_TEST_FRAME} bytes`,
    });
  }
  if (!(flow >= 0 && flow < MAX_FLOWS)) throw new SluiceError('config', `flow ${flow}`);
  const segmented = needsSegmentation(length, mtu);
  const header = ram.u8.subarray(offset, offset + NET_HEADER_BYTES);
  const bytes = ram.u8.subarray(offset + NET_HEADER_BYTES, offset + NET_HEADER_BYTES + length);
  header.fill(0);
  bytes.fill(0);
  bytes.set(frame.destination, ETHERNET_DESTINATION);
  bytes.set(frame.source, ETHERNET_SOURCE);
  put16(bytes, ETHERNET_TYPE, ETHERTYPE_IPV4);
  bytes[L3 + IPV4_VERSION_IHL] = 0x45;
  put16(bytes, L3 + IPV4_TOTAL_LENGTH, length - L3);
  put16(bytes, L3 + IPV4_FRAGMENT, 0x4000); // don't fragment
  bytes[L3 + IPV4_TTL] = 64;
  bytes[L3 + IPV4_PROTOCOL] = segmented ? IP_PROTOCOL_TCP : IP_PROTOCOL_UDP;
  for (const [at, mac] of [
    [IPV4_SOURCE, frame.source],
    [IPV4_DESTINATION, frame.destination],
  ] as const) {
    bytes[L3 + at] = 10;
    bytes.set(mac.subarray(MAC_BYTES - 3), L3 + at + 1);
  }
  put16(bytes, L3 + IPV4_CHECKSUM, ~sum16(bytes, L3, L4) & 0xffff);
  bytes[L4] = flow & 0xff;
  bytes[L4 + 1] = flow >>> 8;
  put16(bytes, L4 + 2, DISCARD_PORT);
  if (segmented) {
    const addresses = sum16(bytes, L3 + IPV4_SOURCE, L3 + IPV4_SOURCE + 8);
    bytes[L4 + TCP_DATA_OFFSET] = (TCP_MIN_HEADER_BYTES / 4) << 4;
    // Who cuts the frame leaves PSH on the last piece: so whoever puts it together finds its end.
    bytes[L4 + TCP_FLAGS] = TCP_ACK | TCP_PSH;
    put16(bytes, L4 + TCP_WINDOW, 0xffff);
    // The pseudo-header's sum; the device adds the rest (VIRTIO 1.3 §5.1.6.2).
    const pseudo = sum16(bytes, 0, 0, addresses + IP_PROTOCOL_TCP + length - L4);
    put16(bytes, L4 + TCP_CHECKSUM, pseudo);
    const headers = L4 + TCP_MIN_HEADER_BYTES;
    const view = new DataView(header.buffer, header.byteOffset, NET_HEADER_BYTES);
    view.setUint8(NET_HEADER_FLAGS, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    view.setUint8(NET_HEADER_GSO_TYPE, VIRTIO_NET_HDR_GSO_TCPV4);
    view.setUint16(NET_HEADER_HDR_LEN, headers, true);
    view.setUint16(NET_HEADER_GSO_SIZE, mtu - (headers - L3), true);
    view.setUint16(NET_HEADER_CSUM_START, L4, true);
    view.setUint16(NET_HEADER_CSUM_OFFSET, TCP_CHECKSUM, true);
  } else {
    put16(bytes, L4 + UDP_LENGTH, length - L4);
  }
  const payload = offset + stampAt(length, mtu) + STAMP_BYTES;
  fillPayload(ram.u8, payload, offset + NET_HEADER_BYTES + length, flow, frame.seed);
  return payloadHash(ram, payload, offset + NET_HEADER_BYTES + length, hashStart(flow, length));
}

/** Pseudo-random bytes (xorshift32) that depend on flow and seed. */
function fillPayload(
  bytes: Uint8Array,
  from: number,
  to: number,
  flow: number,
  seed: number,
): void {
  let state = (Math.imul(flow + 1, GOLDEN) ^ Math.imul(seed + 1, HASH_PRIME)) | 1;
  for (let i = from; i < to; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state;
  }
}

function hashStart(flow: number, length: number): number {
  return Math.imul(flow ^ GOLDEN, HASH_PRIME) ^ length;
}

/** Continues a hash over the bytes [from, to) of a guest's memory; `from` is a multiple of 4. */
function payloadHash(ram: GuestRam, from: number, to: number, start: number): number {
  const { u32, u8 } = ram;
  let hash = start;
  const words = to >>> 2;
  for (let i = from >>> 2; i < words; i++) hash = Math.imul(hash ^ (u32[i] as number), HASH_PRIME);
  for (let i = Math.max(from, words << 2); i < to; i++) {
    hash = Math.imul(hash ^ (u8[i] as number), HASH_PRIME);
  }
  return hash;
}

/** The checksum of a frame whose payload's part is `hash`. */
function checksum(hash: number, sequence: number): number {
  return (hash + Math.imul(sequence ^ GOLDEN, GOLDEN)) >>> 0;
}

/** Gives a frame its sequence number. `at` is the stamp's offset in the guest's memory, in words. */
export function stamp(u32: Uint32Array, at: number, hash: number, sequence: number): void {
  u32[at] = sequence;
  u32[at + 1] = checksum(hash, sequence);
}

/** The flow of a received frame whose buffer is at `offset`, or -1 if it is no test frame. */
export function flowOf(ram: GuestRam, offset: number, length: number): number {
  const { u16 } = ram;
  if (
    length < MIN_TEST_FRAME ||
    u16[(offset + TYPE_AT) >>> 1] !== ETHERTYPE_IPV4_LE ||
    u16[(offset + PORT_AT) >>> 1] !== DISCARD_PORT_LE
  ) {
    return -1;
  }
  const flow = u16[(offset + FLOW_AT) >>> 1] as number;
  return flow < MAX_FLOWS ? flow : -1;
}

/** Offset in words of a received test frame's stamp. */
export function stampOf(ram: GuestRam, offset: number): number {
  const tcp = ram.u8[offset + PROTOCOL_AT] === IP_PROTOCOL_TCP;
  return (offset + (tcp ? TCP_STAMP_AT : UDP_STAMP_AT)) >>> 2;
}

/**
 * True if a frame's metadata say what its kind needs: nothing for UDP, the offloads that its source
 * asked for (or less, once somebody has cut or summed it) for TCP.
 */
export function hasGoodMetadata(
  ram: GuestRam,
  offset: number,
  length: number,
  mtu: number,
): boolean {
  const word = ram.u16[offset >>> 1] as number;
  const flags = word & 0xff & ~VIRTIO_NET_HDR_F_DATA_VALID;
  const gso = word >>> 8;
  if (!needsSegmentation(length, mtu)) return flags === 0 && gso === 0;
  return (
    flags === VIRTIO_NET_HDR_F_NEEDS_CSUM &&
    gso === VIRTIO_NET_HDR_GSO_TCPV4 &&
    ram.u16[(offset + NET_HEADER_GSO_SIZE) >>> 1] !== 0
  );
}

/** Checks a received frame bit by bit; its pieces are added one after the other. */
export class FrameCheck {
  #hash = 0;
  #sequence = 0;
  #expected = 0;

  /** Begins with the first `bytes` bytes of a frame of `length`, virtio_net_hdr not counted. */
  begin(ram: GuestRam, offset: number, bytes: number, flow: number, length: number): void {
    const at = stampOf(ram, offset);
    this.#sequence = ram.u32[at] as number;
    this.#expected = ram.u32[at + 1] as number;
    const payload = (at << 2) + STAMP_BYTES;
    const end = offset + NET_HEADER_BYTES + bytes;
    this.#hash = payloadHash(ram, payload, end, hashStart(flow, length));
  }

  /** Goes on with the next piece of the payload, `offset` a multiple of 4. */
  continue(ram: GuestRam, offset: number, bytes: number): void {
    this.#hash = payloadHash(ram, offset, offset + bytes, this.#hash);
  }

  /** True if the frame is as it was sent. */
  end(): boolean {
    return checksum(this.#hash, this.#sequence) === this.#expected;
  }
}

/** Exchanges source and destination of a frame in its buffer. */
export function swapAddresses(ram: GuestRam, offset: number): void {
  const { u16 } = ram;
  const at = (offset + NET_HEADER_BYTES) >>> 1;
  for (let i = at; i < at + 3; i++) {
    const destination = u16[i] as number;
    u16[i] = u16[i + 3] as number;
    u16[i + 3] = destination;
  }
}
