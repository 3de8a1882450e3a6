/**
 * Does for a frame in software what its receiver cannot take as metadata: completes a checksum, or
 * cuts a TCP or UDP frame into segments (VIRTIO 1.3 §5.1.6.2; for IPv6, RFC 8200; RFC 9293 §3.7).
 *
 * What comes out stands in a burst of its own: headers written by us in its slots, the payload still
 * where the sender has it. Protocol:
 *
 *     if (software.start(burst, slot, port.offloads) === 0) …count tx_drop_bad_offload
 *     while (!software.fill()) { …hand software.out over, do its copies, flush; software.out.clear() }
 *     …hand over what is left in software.out
 *
 * Several frames may be started one after the other before `out` is handed over. The source burst
 * must stay until then. {@link SoftwareOffload.handOver} does all this for one frame.
 */
import type { Arena } from '../memory/arena.ts';
import type { CopyQueue } from '../memory/copy.ts';
import { BATCH, MORE_SEGMENTS } from '../ring/chain-batch.ts';
import { TCP_MAX_HEADER_BYTES, UDP_HEADER_BYTES } from '../spec/ethernet.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_CSUM_OFFSET,
  NET_HEADER_CSUM_START,
  NET_HEADER_GSO_SIZE,
  NET_HEADER_GSO_TYPE,
  NET_HEADER_NUM_BUFFERS,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from '../spec/virtio-net.ts';
import { Burst, SLOT_HEADROOM } from './burst.ts';
import { Checksum, foldSum, swap16 } from './checksum.ts';
import { read16le } from './frame.ts';
import { OFFLOAD_CSUM } from './port.ts';
import { MAX_HEADER_BYTES, SegmentHeaders } from './segment-headers.ts';

const SLOT_BYTES = MAX_HEADER_BYTES + SLOT_HEADROOM;
const CSUM_BYTES = 2;

/**
 * Most segments of one frame: a guest could have one frame of 64 KiB become as many frames of one
 * byte, and the lane has others to serve. 64 KiB at a segment size of 64 stay possible.
 */
export const MAX_SEGMENTS = 1024;

/** Who takes frames that were made fit for it: a port, or what stands for one. */
export interface FrameTaker {
  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void;
}

export class SoftwareOffload {
  /** What came out; to be cleared by whoever handed it over. */
  readonly out: Burst;
  readonly #copies: CopyQueue;
  readonly #checksum: Checksum;
  readonly #headers: SegmentHeaders;
  /** The frame in work: segments that are still to come, and how it is cut. */
  #left = 0;
  #source: Burst;
  #slot = 0;
  #segmenting = false;
  #complete = true;
  #size = 0;
  #payload = 0;
  #done = 0;
  #segments = 0;
  /** Checksum only: where it is computed from, and where it goes, as offsets in the frame. */
  #csumStart = 0;
  #csumField = 0;
  /** Where the next payload byte is: -2 in the slot, -1 in the chain's first segment, then the others. */
  #piece = 0;
  #pieceAt = 0;
  #pieceLeft = 0;
  /** 0, 1, 2 … 63, where WebAssembly sees them. */
  readonly #all: Uint8Array;
  /** By frame of `out`: bytes of payload, and their sum (little-endian). */
  readonly #length = new Uint32Array(BATCH);
  readonly #sum = new Uint32Array(BATCH);

  constructor(arena: Arena, copies: CopyQueue) {
    this.out = new Burst(arena, copies, { slotBytes: SLOT_BYTES });
    this.#source = this.out;
    this.#copies = copies;
    this.#checksum = new Checksum(arena);
    this.#headers = new SegmentHeaders(arena);
    this.#all = new Uint8Array(arena.buffer, arena.allocate(BATCH, 'sluice-frame-list'), BATCH);
    for (let index = 0; index < BATCH; index++) this.#all[index] = index;
  }

  /**
   * Hands frame `slot` of a burst over to `to`, which takes the offloads `mask`, made fit for it: as one
   * frame with its checksum, or as segments. When it returns, the copies are done. Returns how many frames
   * it became; 0 if its headers are not what the metadata say, and nothing was handed over.
   */
  handOver(burst: Burst, slot: number, mask: number, to: FrameTaker, tagged: boolean): number {
    const { out } = this;
    const frames = this.start(burst, slot, mask);
    if (frames === 0) return 0;
    for (let done = false; !done; ) {
      done = this.fill();
      to.deliver(out, this.#all, out.count, tagged);
      // The headers lie in slots that are used again: what was queued must be done.
      out.copies.flush();
      out.clear();
    }
    return frames;
  }

  /**
   * Begins with frame `slot` of a burst, for a receiver that takes the offloads `mask`. Its metadata
   * have passed `classifyOffload`. Returns how many frames it becomes: 1 for a checksum; 0 if the
   * headers are not what the metadata say, and nothing follows.
   */
  start(burst: Burst, slot: number, mask: number): number {
    const header = (burst.headerAt[slot] as number) - burst.slotsAt;
    const bytes = burst.slots8;
    const gso = bytes[header + NET_HEADER_GSO_TYPE] as number;
    const csumStart = read16le(bytes, header + NET_HEADER_CSUM_START);
    this.#source = burst;
    this.#slot = slot;
    this.#left = 0;
    this.#done = 0;
    this.#complete = (mask & OFFLOAD_CSUM) === 0;
    this.#segmenting = gso !== VIRTIO_NET_HDR_GSO_NONE;
    if (this.#segmenting) {
      const size = read16le(bytes, header + NET_HEADER_GSO_SIZE);
      return this.#startSegments(gso === VIRTIO_NET_HDR_GSO_UDP_L4, csumStart, size);
    }
    const field = csumStart + read16le(bytes, header + NET_HEADER_CSUM_OFFSET);
    const headerLength = Math.max(
      burst.headerLength[slot] as number,
      NET_HEADER_BYTES + field + CSUM_BYTES,
    );
    const length = NET_HEADER_BYTES + (burst.frameLength[slot] as number);
    if (headerLength > MAX_HEADER_BYTES || headerLength > length) return 0;
    this.#csumStart = csumStart;
    this.#csumField = field;
    this.#seek(headerLength);
    this.#payload = length - headerLength;
    this.#left = 1;
    return 1;
  }

  #startSegments(udp: boolean, start: number, size: number): number {
    const burst = this.#source;
    const slot = this.#slot;
    const length = NET_HEADER_BYTES + (burst.frameLength[slot] as number);
    const most = NET_HEADER_BYTES + start + (udp ? UDP_HEADER_BYTES : TCP_MAX_HEADER_BYTES);
    if (size === 0 || most > MAX_HEADER_BYTES) return 0;
    const available = Math.min(most, length);
    this.#copyHeader(this.#headers.at, available);
    this.#copies.flush();
    if (!this.#headers.parse(available, start, udp, size, this.#complete)) return 0;
    this.#payload = length - this.#headers.length;
    const segments = Math.ceil(this.#payload / size);
    if (segments > MAX_SEGMENTS) return 0;
    this.#size = size;
    this.#segments = segments;
    this.#left = segments;
    this.#seek(this.#headers.length);
    return segments;
  }

  /**
   * Adds to `out` what is still to come of the frame. True when that is all; false if `out` is full
   * and must be handed over and cleared first.
   */
  fill(): boolean {
    const { out } = this;
    const first = out.chains.count;
    while (this.#left > 0 && out.chains.count < BATCH && this.#hasRoom()) {
      if (this.#segmenting) this.#addSegment();
      else this.#addWhole();
    }
    const end = out.chains.count;
    if (end === first) return this.#left === 0;
    this.#copies.flush();
    for (let i = first; i < end; i++) {
      if (this.#segmenting) this.#finishSegment(i, this.#segments - this.#left - (end - i));
      else this.#finishChecksum(i);
    }
    return this.#left === 0;
  }

  /** Pieces of one frame are no more than its bytes, and no more than the source has. */
  #hasRoom(): boolean {
    const { chains } = this.out;
    return chains.count === 0 || chains.moreCount + this.#most() <= MORE_SEGMENTS;
  }

  #most(): number {
    const pieces = 2 + (this.#source.chains.more[this.#slot] as number);
    return this.#segmenting ? Math.min(pieces, this.#size) : pieces;
  }

  #addSegment(): void {
    const index = this.#addFrame(this.#headers.length);
    const length = Math.min(this.#size, this.#payload - this.#done);
    this.#copies.push(this.out.headerAt[index] as number, this.#headers.at, this.#headers.length);
    this.#takePayload(index, length);
    this.out.needs[index] = this.#complete ? 0 : OFFLOAD_CSUM;
    this.#done += length;
    this.#left--;
  }

  #finishSegment(index: number, segment: number): void {
    const { out } = this;
    this.#headers.finish(
      out.slots8,
      (out.headerAt[index] as number) - out.slotsAt,
      segment,
      segment * this.#size,
      this.#length[index] as number,
      segment === this.#segments - 1,
      swap16(this.#sum[index] as number),
    );
  }

  #addWhole(): void {
    const field = NET_HEADER_BYTES + this.#csumField + CSUM_BYTES;
    const length = Math.max(this.#source.headerLength[this.#slot] as number, field);
    const index = this.#addFrame(length);
    this.#copyHeader(this.out.headerAt[index] as number, length);
    this.#takePayload(index, this.#payload);
    this.out.needs[index] = 0;
    this.#left--;
  }

  /** Completes a checksum: the driver has put the pseudo header's sum into its field (§5.1.6.2). */
  #finishChecksum(index: number): void {
    const { out } = this;
    const bytes = out.slots8;
    const header = (out.headerAt[index] as number) - out.slotsAt;
    const from = NET_HEADER_BYTES + this.#csumStart;
    const length = (out.headerLength[index] as number) - from;
    const rest = this.#sum[index] as number;
    const sum =
      this.#checksum.sum(out.slotsAt + header + from, length) +
      ((length & 1) === 0 ? rest : swap16(rest));
    // Zero and its complement are the same sum; in UDP zero says that there is none (RFC 768).
    const checksum = ~foldSum(sum) & 0xffff || 0xffff;
    const field = header + NET_HEADER_BYTES + this.#csumField;
    bytes[field] = checksum & 0xff;
    bytes[field + 1] = checksum >>> 8;
    bytes.fill(0, header, header + NET_HEADER_BYTES);
    bytes[header + NET_HEADER_NUM_BUFFERS] = 1;
  }

  /** Adds a frame without payload to `out`, with `headerLength` bytes in its slot. */
  #addFrame(headerLength: number): number {
    const { out } = this;
    const { chains } = out;
    const index = chains.add(0, 0);
    chains.moreStart[index] = chains.moreCount;
    out.headerAt[index] = out.slotsAt + index * out.slotBytes + SLOT_HEADROOM;
    out.headerLength[index] = headerLength;
    out.skip[index] = 0;
    out.frameLength[index] = headerLength - NET_HEADER_BYTES;
    out.tci[index] = this.#source.tci[this.#slot] as number;
    return index;
  }

  /**
   * Queues the copy of the frame's first `length` bytes (virtio_net_hdr included): the slot's, and
   * what it has not, from the sender's memory, read once.
   */
  #copyHeader(to: number, length: number): void {
    const burst = this.#source;
    const slot = this.#slot;
    const gathered = Math.min(burst.headerLength[slot] as number, length);
    this.#copies.push(to, burst.headerAt[slot] as number, gathered);
    if (length > gathered) {
      burst.copyFromChain(slot, burst.skip[slot] as number, length - gathered, to + gathered);
    }
  }

  /** Makes byte `offset` of the frame (virtio_net_hdr included) the next to be taken. */
  #seek(offset: number): void {
    const burst = this.#source;
    const gathered = burst.headerLength[this.#slot] as number;
    if (offset < gathered) {
      this.#piece = -2;
      this.#pieceAt = (burst.headerAt[this.#slot] as number) + offset;
      this.#pieceLeft = gathered - offset;
      return;
    }
    this.#piece = -2;
    this.#pieceLeft = 0;
    this.#advance((burst.skip[this.#slot] as number) + offset - gathered);
  }

  /** Goes on to the chain's byte `skip`, counted from the beginning of the next segment. */
  #advance(skip: number): void {
    const { chains } = this.#source;
    let left = skip;
    do {
      this.#piece++;
      if (this.#piece < 0) {
        this.#pieceAt = chains.address[this.#slot] as number;
        this.#pieceLeft = chains.length[this.#slot] as number;
      } else {
        const at = (chains.moreStart[this.#slot] as number) + this.#piece;
        this.#pieceAt = chains.moreAddress[at] as number;
        this.#pieceLeft = chains.moreLength[at] as number;
      }
      const part = Math.min(left, this.#pieceLeft);
      this.#pieceAt += part;
      this.#pieceLeft -= part;
      left -= part;
    } while (this.#pieceLeft === 0 && this.#piece + 1 < (chains.more[this.#slot] as number));
  }

  /** Makes the next `length` bytes the payload of frame `index` of `out`, and sums them up if needed. */
  #takePayload(index: number, length: number): void {
    const { out } = this;
    const { chains } = out;
    let left = length;
    let sum = 0;
    while (left > 0) {
      if (this.#pieceLeft === 0) {
        this.#advance(this.#piece === -2 ? (this.#source.skip[this.#slot] as number) : 0);
      }
      const part = Math.min(left, this.#pieceLeft);
      const address = this.#pieceAt;
      if (chains.length[index] === 0) {
        chains.address[index] = address;
        chains.length[index] = part;
      } else {
        const more = chains.moreCount++;
        chains.moreAddress[more] = address;
        chains.moreLength[more] = part;
        chains.more[index] = (chains.more[index] as number) + 1;
        chains.shaped = true;
      }
      if (this.#complete) {
        const partSum = this.#checksum.sum(address, part);
        // What begins at an odd place has its bytes on the other side of the words.
        sum += ((length - left) & 1) === 0 ? partSum : swap16(partSum);
      }
      this.#pieceAt += part;
      this.#pieceLeft -= part;
      left -= part;
    }
    chains.total[index] = length;
    chains.readable[index] = 1 + (chains.more[index] as number);
    out.frameLength[index] = (out.frameLength[index] as number) + length;
    this.#length[index] = length;
    this.#sum[index] = foldSum(sum);
  }
}
