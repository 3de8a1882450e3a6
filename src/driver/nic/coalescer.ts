/**
 * Puts the segments of a TCP stream together again (what Linux calls GRO): a card of this kind gets frames
 * as they were on a wire, and a guest wants them large.
 *
 * A frame is the segments up to one with PSH, which who cuts a frame leaves on its last segment only.
 * They must follow one another; where the last ones are missing (a card without buffers drops the rest of
 * a burst) the frame is given up, as TCP would have it sent again.
 */
import { read16, write16, write16le } from '../../net/frame.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_TYPE,
  ETHERTYPE_IPV4,
  IP_PROTOCOL_TCP,
  IPV4_MIN_HEADER_BYTES,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  IPV4_VERSION_IHL,
  TCP_CHECKSUM,
  TCP_DATA_OFFSET,
  TCP_FLAGS,
  TCP_MIN_HEADER_BYTES,
  TCP_PSH,
  TCP_SEQUENCE,
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
  VIRTIO_NET_HDR_GSO_TCPV4,
} from '../../spec/virtio-net.ts';

const L3 = ETHERNET_HEADER_BYTES;
const L4 = L3 + IPV4_MIN_HEADER_BYTES;
/** Segments with options are left as they are. */
const HEADERS = L4 + TCP_MIN_HEADER_BYTES;
const NO_OPTIONS = 0x45;
/** Addresses and ports tell streams apart. */
const STREAM_BYTES = 12;

/** What became of a segment. */
export const NOT_A_SEGMENT = 0;
/** Taken; the frame goes on. */
export const TAKEN = 1;
/** Taken; the frame is complete. */
export const COMPLETE = 2;
/** Belongs to a frame that cannot become whole. */
export const GIVEN_UP = 3;

export class Coalescer {
  /** Where the frame is put together, its virtio_net_hdr first: offset in the guest's memory. */
  at = -1;
  /** Bytes of the frame, without virtio_net_hdr. */
  length = 0;
  /** Segments of frames that were given up. */
  lost = 0;
  readonly #bytes: Uint8Array;
  readonly #most: number;
  /** In the midst of a frame: the sequence number that comes next, and payload of its first segment. */
  #open = false;
  #expected = 0;
  #segment = 0;

  /** @param most bytes of the largest frame */
  constructor(bytes: Uint8Array, most: number) {
    this.#bytes = bytes;
    this.#most = most;
  }

  /**
   * Takes the frame of `length` bytes whose virtio_net_hdr is at `from`, if it is a segment. Frames are
   * put together at {@link at}, which the caller sets before, and anew after each that is complete.
   */
  take(from: number, length: number): number {
    const bytes = this.#bytes;
    const frame = from + NET_HEADER_BYTES;
    if (!isSegment(bytes, frame, length)) return NOT_A_SEGMENT;
    const total = read16(bytes, frame + L3 + IPV4_TOTAL_LENGTH) + L3;
    const payload = total - HEADERS;
    if (total > length || payload <= 0) return NOT_A_SEGMENT;
    const push = ((bytes[frame + L4 + TCP_FLAGS] as number) & TCP_PSH) !== 0;
    const sequence = read32(bytes, frame + L4 + TCP_SEQUENCE);
    if (!this.#open) {
      if (push) return NOT_A_SEGMENT;
      return this.#begin(from, total, payload, sequence);
    }
    if (sequence !== this.#expected || !this.#sameStream(frame)) {
      this.#giveUp();
      return push ? GIVEN_UP : this.#begin(from, total, payload, sequence);
    }
    if (this.length + payload > this.#most) {
      this.#giveUp();
      return GIVEN_UP;
    }
    const to = this.at + NET_HEADER_BYTES + this.length;
    bytes.copyWithin(to, frame + HEADERS, frame + total);
    this.length += payload;
    this.#expected = (sequence + payload) >>> 0;
    if (!push) return TAKEN;
    this.#finish();
    return COMPLETE;
  }

  #begin(from: number, total: number, payload: number, sequence: number): number {
    if (total > this.#most) return GIVEN_UP;
    this.#bytes.copyWithin(this.at, from, from + NET_HEADER_BYTES + total);
    this.#open = true;
    this.length = total;
    this.#segment = payload;
    this.#expected = (sequence + payload) >>> 0;
    return TAKEN;
  }

  #giveUp(): void {
    this.lost++;
    this.#open = false;
  }

  /** The headers are those of a frame that is to be cut. */
  #finish(): void {
    const bytes = this.#bytes;
    const { at } = this;
    const frame = at + NET_HEADER_BYTES;
    this.#open = false;
    write16(bytes, frame + L3 + IPV4_TOTAL_LENGTH, this.length - L3);
    bytes[frame + L4 + TCP_FLAGS] = (bytes[frame + L4 + TCP_FLAGS] as number) | TCP_PSH;
    bytes[at + NET_HEADER_FLAGS] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    bytes[at + NET_HEADER_GSO_TYPE] = VIRTIO_NET_HDR_GSO_TCPV4;
    write16le(bytes, at + NET_HEADER_HDR_LEN, HEADERS);
    write16le(bytes, at + NET_HEADER_GSO_SIZE, this.#segment);
    write16le(bytes, at + NET_HEADER_CSUM_START, L4);
    write16le(bytes, at + NET_HEADER_CSUM_OFFSET, TCP_CHECKSUM);
  }

  #sameStream(frame: number): boolean {
    const bytes = this.#bytes;
    const own = this.at + NET_HEADER_BYTES + L3 + IPV4_SOURCE;
    const other = frame + L3 + IPV4_SOURCE;
    for (let i = 0; i < STREAM_BYTES; i++) if (bytes[own + i] !== bytes[other + i]) return false;
    return true;
  }
}

function isSegment(bytes: Uint8Array, frame: number, length: number): boolean {
  return (
    length > HEADERS &&
    read16(bytes, frame + ETHERNET_TYPE) === ETHERTYPE_IPV4 &&
    bytes[frame + L3 + IPV4_VERSION_IHL] === NO_OPTIONS &&
    bytes[frame + L3 + IPV4_PROTOCOL] === IP_PROTOCOL_TCP &&
    (bytes[frame + L4 + TCP_DATA_OFFSET] as number) >>> 4 === TCP_MIN_HEADER_BYTES / 4
  );
}

function read32(bytes: Uint8Array, at: number): number {
  return read16(bytes, at) * 65536 + read16(bytes, at + 2);
}
