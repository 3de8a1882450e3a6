/**
 * Frames out (SDM §3.3, §3.4): buffers that begin with a virtio_net_hdr become data descriptors, and a
 * context descriptor before them where the last one does not say what they need.
 */
import { SluiceError } from '../../base/errors.ts';
import { foldSum } from '../../net/checksum.ts';
import { read16, read16le, write16 } from '../../net/frame.ts';
import type { DriverMemory, SegmentList } from '../../ring/driver-queue.ts';
import { USED_BATCH } from '../../ring/driver-queue.ts';
import {
  INT_TXQ0,
  TXC_IPV4,
  TXC_TCP,
  TXD_EOP,
  TXD_EXTENDED,
  TXD_POPTS_IXSM,
  TXD_POPTS_TXSM,
  TXD_RS,
  TXD_TSE,
  TXD_TYPE_DATA,
} from '../../spec/e1000.ts';
import {
  ETHERNET_HEADER_BYTES,
  IP_PROTOCOL_TCP,
  IPV4_CHECKSUM,
  IPV4_MIN_HEADER_BYTES,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
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
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from '../../spec/virtio-net.ts';
import type { NetQueue, NetTransmitter } from '../net-pair.ts';
import type { DescriptorRing } from './descriptor-ring.ts';
import type { InterruptGate } from './interrupt-gate.ts';

/** Frames that one {@link TransmitQueue.reap} returns at most. */
const REAP_BATCH = USED_BATCH;

/** Bytes of a data descriptor: what Linux's drivers put into one. */
const MOST_BYTES = 8192;

/** The card reports one frame of so many, and the last that it was told of: a write each to the guest's memory. */
const REPORT_EVERY = 16;

const CONTEXT_WORDS = 4;
const COMMAND_WORD = 2;
const DESCRIPTOR_WORDS = 4;
const L3 = ETHERNET_HEADER_BYTES;

/** Descriptors of a frame of so many bytes, its context included. */
export function descriptorsOf(bytes: number): number {
  return 1 + Math.ceil(bytes / MOST_BYTES);
}

export class TransmitQueue implements NetTransmitter, NetQueue {
  readonly queue: NetQueue = this;
  readonly done = new Uint32Array(REAP_BATCH);
  readonly size: number;
  /** Frames on their way. */
  outstanding = 0;
  readonly #ring: DescriptorRing;
  readonly #gate: InterruptGate;
  readonly #bytes: Uint8Array;
  readonly #guestAddress: number;
  /** By descriptor: 1 and the tag of the frame that ends there; 0 elsewhere. */
  readonly #tags: Uint32Array;
  /** Descriptors that will be reported, oldest first, and the frames up to each. */
  readonly #reports: Uint32Array;
  readonly #reportFrames: Uint32Array;
  #firstReport = 0;
  #reportCount = 0;
  /** Frames since the last that is reported, and the descriptor where the last of them ends. */
  #unreported = 0;
  #lastEnd = 0;
  /** The context that the card has. */
  readonly #context = new Uint32Array(CONTEXT_WORDS);
  readonly #wanted = new Uint32Array(CONTEXT_WORDS);

  constructor(ring: DescriptorRing, gate: InterruptGate, memory: DriverMemory) {
    this.#ring = ring;
    this.#gate = gate;
    this.size = ring.entries - 1;
    this.#bytes = new Uint8Array(memory.arena.buffer, memory.arenaAddress, memory.size);
    this.#guestAddress = memory.guestAddress;
    this.#tags = new Uint32Array(ring.entries);
    this.#reports = new Uint32Array(ring.entries);
    this.#reportFrames = new Uint32Array(ring.entries);
  }

  get kicks(): number {
    return this.#ring.kicks;
  }

  send(addresses: Float64Array, index: number, length: number, tag: number): boolean {
    const ring = this.#ring;
    const bytes = length - NET_HEADER_BYTES;
    if (ring.free < descriptorsOf(bytes)) return false;
    const options = this.#prepare((addresses[index] as number) - this.#guestAddress, bytes);
    this.#putData(addresses, index, NET_HEADER_BYTES, bytes, options, true);
    this.#end(tag);
    return true;
  }

  sendPieces(pieces: SegmentList, tag: number): boolean {
    const ring = this.#ring;
    const { address, length, count } = pieces;
    let needed = 0;
    let bytes = -NET_HEADER_BYTES;
    for (let i = 0; i < count; i++) {
      needed += descriptorsOf(length[i] as number);
      bytes += length[i] as number;
    }
    if (ring.free < needed) return false;
    const options = this.#prepare((address[0] as number) - this.#guestAddress, bytes);
    for (let i = 0; i < count; i++) {
      const skip = i === 0 ? NET_HEADER_BYTES : 0;
      this.#putData(address, i, skip, (length[i] as number) - skip, options, i === count - 1);
    }
    this.#end(tag);
    return true;
  }

  flush(): void {
    this.publish();
  }

  publish(): boolean {
    if (this.#unreported > 0) this.#report();
    return this.#ring.publish();
  }

  reap(): number {
    const ring = this.#ring;
    const { done } = this;
    let count = 0;
    while (this.#reportCount > 0) {
      const frames = this.#reportFrames[this.#firstReport] as number;
      const last = this.#reports[this.#firstReport] as number;
      if (count + frames > REAP_BATCH || !ring.isDone(last)) break;
      const end = last + 1 === ring.entries ? 0 : last + 1;
      for (let i = ring.clean; i !== end; i = i + 1 === ring.entries ? 0 : i + 1) {
        const tag = this.#tags[i] as number;
        if (tag === 0) continue;
        this.#tags[i] = 0;
        done[count++] = tag - 1;
      }
      ring.clean = end;
      this.#firstReport = this.#firstReport + 1 === ring.entries ? 0 : this.#firstReport + 1;
      this.#reportCount--;
    }
    this.outstanding -= count;
    return count;
  }

  enableCalls(): boolean {
    this.publish();
    this.#gate.open(INT_TXQ0);
    return this.#reportCount > 0 && this.#ring.isDone(this.#reports[this.#firstReport] as number);
  }

  disableCalls(): void {
    this.#gate.close();
  }

  /** Data descriptors for bytes [offset, offset + bytes) of a piece. */
  #putData(
    addresses: Float64Array,
    index: number,
    offset: number,
    bytes: number,
    options: number,
    isLast: boolean,
  ): void {
    const ring = this.#ring;
    const command = TXD_EXTENDED | TXD_TYPE_DATA | ((options & SEGMENTED) !== 0 ? TXD_TSE : 0);
    const popts = options & (TXD_POPTS_IXSM | TXD_POPTS_TXSM);
    let done = 0;
    while (done < bytes) {
      const part = bytes - done < MOST_BYTES ? bytes - done : MOST_BYTES;
      const end = isLast && done + part === bytes ? TXD_EOP : 0;
      this.#lastEnd = ring.next;
      ring.putFrom(addresses, index, offset + done, command | end | part, popts);
      done += part;
    }
  }

  /** The frame is complete in the ring. */
  #end(tag: number): void {
    this.#tags[this.#lastEnd] = tag + 1;
    this.outstanding++;
    this.#unreported++;
    if (this.#unreported === REPORT_EVERY) this.#report();
  }

  /** Asks for a report of the last frame, and so of all before it. */
  #report(): void {
    const ring = this.#ring;
    const word = DESCRIPTOR_WORDS * this.#lastEnd + COMMAND_WORD;
    ring.words[word] = (ring.words[word] as number) | TXD_RS;
    const at = (this.#firstReport + this.#reportCount) % ring.entries;
    this.#reports[at] = this.#lastEnd;
    this.#reportFrames[at] = this.#unreported;
    this.#reportCount++;
    this.#unreported = 0;
  }

  /** Options of the frame whose virtio_net_hdr is at `offset` of the memory; its context, if it needs one. */
  #prepare(offset: number, length: number): number {
    const bytes = this.#bytes;
    const flags = bytes[offset + NET_HEADER_FLAGS] as number;
    const gso = bytes[offset + NET_HEADER_GSO_TYPE] as number;
    if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0 && gso === VIRTIO_NET_HDR_GSO_NONE) return 0;
    const start = read16le(bytes, offset + NET_HEADER_CSUM_START);
    const field = start + read16le(bytes, offset + NET_HEADER_CSUM_OFFSET);
    const wanted = this.#wanted;
    wanted[1] = start | (field << 8);
    if (gso === VIRTIO_NET_HDR_GSO_NONE) {
      wanted[0] = 0;
      wanted[2] = TXD_EXTENDED;
      wanted[3] = 0;
      this.#putContext();
      return TXD_POPTS_TXSM;
    }
    if (gso !== VIRTIO_NET_HDR_GSO_TCPV4) {
      throw new SluiceError(
        'unsupported',
        `the driver segments TCP over IPv4 only, not type ${gso}`,
      );
    }
    const headers = read16le(bytes, offset + NET_HEADER_HDR_LEN);
    const frame = offset + NET_HEADER_BYTES;
    // SDM §3.5.6: no length in the header, none in the sum over the pseudo header, no checksum.
    write16(bytes, frame + L3 + IPV4_TOTAL_LENGTH, 0);
    write16(bytes, frame + L3 + IPV4_CHECKSUM, 0);
    let pseudo: number = IP_PROTOCOL_TCP;
    for (let i = 0; i < 8; i += 2) pseudo += read16(bytes, frame + L3 + IPV4_SOURCE + i);
    write16(bytes, frame + field, foldSum(pseudo));
    wanted[0] = L3 | ((L3 + IPV4_CHECKSUM) << 8) | ((L3 + IPV4_MIN_HEADER_BYTES - 1) << 16);
    wanted[2] = TXD_EXTENDED | TXD_TSE | TXC_TCP | TXC_IPV4 | (length - headers);
    wanted[3] = (headers << 8) | (read16le(bytes, offset + NET_HEADER_GSO_SIZE) << 16);
    this.#putContext();
    return SEGMENTED | TXD_POPTS_IXSM | TXD_POPTS_TXSM;
  }

  #putContext(): void {
    const context = this.#context;
    const wanted = this.#wanted;
    if (
      context[0] === wanted[0] &&
      context[1] === wanted[1] &&
      context[2] === wanted[2] &&
      context[3] === wanted[3]
    ) {
      return;
    }
    context.set(wanted);
    this.#ring.put(
      wanted[0] as number,
      wanted[1] as number,
      wanted[2] as number,
      wanted[3] as number,
    );
  }
}

/** In options: beside the bits of the descriptor. */
const SEGMENTED = 0x1;
