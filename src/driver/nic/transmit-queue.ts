/**
 * Frames out: buffers that begin with a virtio_net_hdr become data descriptors, and a context descriptor
 * before them where the last one does not say what they need (82540EM SDM §3.3; 82599 datasheet §7.2.3).
 * What stands in both is the matter of the card's own class.
 */
import { foldSum } from '../../net/checksum.ts';
import { read16, write16 } from '../../net/frame.ts';
import type { DriverMemory, SegmentList } from '../../ring/driver-queue.ts';
import { USED_BATCH } from '../../ring/driver-queue.ts';
import {
  ETHERNET_HEADER_BYTES,
  IP_PROTOCOL_TCP,
  IPV4_CHECKSUM,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
} from '../../spec/ethernet.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_FLAGS,
  NET_HEADER_GSO_TYPE,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
} from '../../spec/virtio-net.ts';
import type { NetQueue, NetTransmitter } from '../net-pair.ts';
import type { CallGate } from './call-gate.ts';
import type { DescriptorRing } from './descriptor-ring.ts';

/** Frames that one {@link CardTransmitQueue.reap} returns at most. */
const REAP_BATCH = USED_BATCH;

/** The card reports one frame of so many, and the last that it was told of: a write each to the guest's memory. */
const REPORT_EVERY = 16;

const CONTEXT_WORDS = 4;
const DESCRIPTOR_WORDS = 4;
const COMMAND_WORD = 2;
const L3 = ETHERNET_HEADER_BYTES;

/** In data descriptors of all kinds: the frame's end, and that the card is to say when it is done. */
const END = 0x0100_0000;
const REPORT = 0x0800_0000;

/** Descriptors of a frame of so many bytes, its context included. @param most bytes of one of them */
export function descriptorsFor(bytes: number, most: number): number {
  return bytes <= most ? 2 : 1 + Math.ceil(bytes / most);
}

export abstract class CardTransmitQueue implements NetTransmitter, NetQueue {
  readonly queue: NetQueue = this;
  readonly done = new Uint32Array(REAP_BATCH);
  readonly size: number;
  /** Frames on their way. */
  outstanding = 0;
  /** What the frame's data descriptors have beside address and length: third and fourth word. */
  protected command = 0;
  protected options = 0;
  protected readonly bytes: Uint8Array;
  /** The context that the next frame needs, for {@link putContext}. */
  protected readonly wanted = new Uint32Array(CONTEXT_WORDS);
  readonly #ring: DescriptorRing;
  readonly #gate: CallGate;
  /** Bytes of one data descriptor. */
  readonly #most: number;
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

  /** @param most bytes of one data descriptor */
  constructor(ring: DescriptorRing, gate: CallGate, memory: DriverMemory, most: number) {
    this.#ring = ring;
    this.#gate = gate;
    this.#most = most;
    this.size = ring.entries - 1;
    this.bytes = new Uint8Array(memory.arena.buffer, memory.arenaAddress, memory.size);
    this.#guestAddress = memory.guestAddress;
    this.#tags = new Uint32Array(ring.entries);
    this.#reports = new Uint32Array(ring.entries);
    this.#reportFrames = new Uint32Array(ring.entries);
  }

  /** Sets {@link command} and {@link options} for a frame of `length` bytes that is sent as it is. */
  protected abstract preparePlain(length: number): void;

  /**
   * The same for a frame whose virtio_net_hdr, at `offset` of the memory, asks the card for something, and
   * puts the context that it needs.
   */
  protected abstract prepareOffload(offset: number, length: number): void;

  get kicks(): number {
    return this.#ring.kicks;
  }

  send(addresses: Float64Array, index: number, length: number, tag: number): boolean {
    const ring = this.#ring;
    const bytes = length - NET_HEADER_BYTES;
    if (ring.free < descriptorsFor(bytes, this.#most)) return false;
    const offset = ((addresses[index] as number) - this.#guestAddress) | 0;
    this.#prepare(offset, bytes);
    this.#putData(offset + NET_HEADER_BYTES, bytes, true);
    this.#end(tag);
    return true;
  }

  sendPlain(addresses: Float64Array, index: number, length: number, tag: number): boolean {
    const ring = this.#ring;
    const bytes = length - NET_HEADER_BYTES;
    if (ring.free < descriptorsFor(bytes, this.#most)) return false;
    const offset = ((addresses[index] as number) - this.#guestAddress) | 0;
    this.preparePlain(bytes);
    this.#putData(offset + NET_HEADER_BYTES, bytes, true);
    this.#end(tag);
    return true;
  }

  sendPieces(pieces: SegmentList, tag: number): boolean {
    const ring = this.#ring;
    const { address, length, count } = pieces;
    let needed = 0;
    let bytes = -NET_HEADER_BYTES;
    for (let i = 0; i < count; i++) {
      needed += descriptorsFor(length[i] as number, this.#most);
      bytes += length[i] as number;
    }
    if (ring.free < needed) return false;
    this.#prepare(((address[0] as number) - this.#guestAddress) | 0, bytes);
    for (let i = 0; i < count; i++) {
      const offset = ((address[i] as number) - this.#guestAddress) | 0;
      const skip = i === 0 ? NET_HEADER_BYTES : 0;
      this.#putData(offset + skip, (length[i] as number) - skip, i === count - 1);
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
    this.#gate.open();
    return this.#reportCount > 0 && this.#ring.isDone(this.#reports[this.#firstReport] as number);
  }

  disableCalls(): void {
    this.#gate.close();
  }

  /** As the frame's virtio_net_hdr at `offset` has it. */
  #prepare(offset: number, length: number): void {
    const { bytes } = this;
    const needsChecksum =
      ((bytes[offset + NET_HEADER_FLAGS] as number) & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
    const isPlain =
      !needsChecksum && bytes[offset + NET_HEADER_GSO_TYPE] === VIRTIO_NET_HDR_GSO_NONE;
    if (isPlain) this.preparePlain(length);
    else this.prepareOffload(offset, length);
  }

  /** Data descriptors for bytes [offset, offset + bytes) of the memory: a piece. */
  #putData(offset: number, bytes: number, isLast: boolean): void {
    const ring = this.#ring;
    const most = this.#most;
    const { command, options } = this;
    let done = 0;
    while (done < bytes) {
      const part = bytes - done < most ? bytes - done : most;
      const end = isLast && done + part === bytes ? END : 0;
      this.#lastEnd = ring.next;
      ring.putAt(offset + done, command | end | part, options);
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
    ring.words[word] = (ring.words[word] as number) | REPORT;
    const at = (this.#firstReport + this.#reportCount) % ring.entries;
    this.#reports[at] = this.#lastEnd;
    this.#reportFrames[at] = this.#unreported;
    this.#reportCount++;
    this.#unreported = 0;
  }

  /** {@link wanted} becomes the card's context, if it is not already. */
  protected putContext(): void {
    const context = this.#context;
    const { wanted } = this;
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

  /**
   * What the card wants to find in the headers of a frame that it cuts (TCP over IPv4 without options; SDM
   * §3.5.6, 82599 §7.2.4.2): no length and no checksum in IP's, and in TCP's the sum over the pseudo
   * header without a length. `frame` and `field`: where the frame and TCP's checksum are.
   */
  protected prepareHeaders(frame: number, field: number): void {
    const { bytes } = this;
    write16(bytes, frame + L3 + IPV4_TOTAL_LENGTH, 0);
    write16(bytes, frame + L3 + IPV4_CHECKSUM, 0);
    let pseudo: number = IP_PROTOCOL_TCP;
    for (let i = 0; i < 8; i += 2) pseudo += read16(bytes, frame + L3 + IPV4_SOURCE + i);
    write16(bytes, field, foldSum(pseudo));
  }
}
