/**
 * Frames in (82540EM SDM §3.2; 82599 datasheet §7.1): each in a buffer of its own, in front of which the
 * driver says in a virtio_net_hdr what the card has found out; with `large`, TCP segments become large
 * frames again.
 */
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { brokenDevice, USED_BATCH } from '../../ring/driver-queue.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_NUM_BUFFERS,
  VIRTIO_NET_HDR_F_DATA_VALID,
} from '../../spec/virtio-net.ts';
import type { BufferPool } from '../buffer-pool.ts';
import type { NetQueue, NetReceiver } from '../net-pair.ts';
import type { CallGate } from './call-gate.ts';
import { COMPLETE, Coalescer, NOT_A_SEGMENT } from './coalescer.ts';
import type { DescriptorRing } from './descriptor-ring.ts';

/** Frames that one {@link ReceiveQueue.receive} returns at most. */
const RECEIVE_BATCH = USED_BATCH;

const DESCRIPTOR_WORDS = 4;
/** The last word of a virtio_net_hdr, and that a frame is in one buffer. */
const BUFFERS_WORD = NET_HEADER_NUM_BUFFERS >>> 2;
const ONE_BUFFER = 1 << 16;
/** In the status of all kinds of descriptors: the frame ends in this buffer. */
const END = 2;

/** Where a card writes what it has received into a descriptor, and what it says of checksums. */
export interface ReceiveFormat {
  readonly statusWord: number;
  /** The lower half of this word. */
  readonly lengthWord: number;
  /** Of the status word: if these bits have that value, checksums were looked at and none was wrong. */
  readonly checkedMask: number;
  readonly checked: number;
}

export interface ReceiveQueueParts {
  readonly ring: DescriptorRing;
  readonly gate: CallGate;
  readonly memory: DriverMemory;
  readonly format: ReceiveFormat;
  readonly pool: BufferPool;
  readonly large?: LargeBuffers | undefined;
  /** Buffers that wait for others before the card is told of them: as many where that is a trap. */
  readonly returnAt: number;
}

/** Buffers for large frames that were put together; the ring's own are numbered before them. */
export interface LargeBuffers {
  readonly pool: BufferPool;
  /** Bytes of the largest frame. */
  readonly frame: number;
}

export class ReceiveQueue implements NetReceiver, NetQueue {
  readonly queue: NetQueue = this;
  readonly offset = new Uint32Array(RECEIVE_BATCH);
  readonly length = new Uint32Array(RECEIVE_BATCH);
  readonly pieces = new Uint16Array(RECEIVE_BATCH).fill(1);
  readonly firstPiece = Uint16Array.from({ length: RECEIVE_BATCH }, (_, frame) => frame);
  readonly pieceBuffer = new Uint16Array(RECEIVE_BATCH);
  readonly pieceLength = new Uint32Array(RECEIVE_BATCH);
  readonly pool: NetReceiver['pool'];
  readonly size: number;
  /** Frames of the last {@link receive}. */
  count = 0;
  readonly #ring: DescriptorRing;
  readonly #gate: CallGate;
  readonly #format: ReceiveFormat;
  readonly #own: BufferPool;
  /** Where the card writes into buffer 0, and from there to the next. */
  readonly #first: number;
  readonly #stride: number;
  readonly #addresses: Float64Array;
  /** By descriptor: its buffer. */
  readonly #bufferOf: Uint16Array;
  readonly #memory32: Uint32Array;
  readonly #returnAt: number;
  /** Buffers of ours that nobody has, as a stack: their descriptors are written when there are enough of them. */
  readonly #held: Uint16Array;
  #heldCount = 0;
  readonly #coalescer: Coalescer | undefined;
  readonly #large: BufferPool | undefined;
  /** Large buffers that nobody has, as a stack; the coalescer's is none of them. */
  readonly #largeFree: Uint16Array;
  #largeCount = 0;
  #largeNow = -1;

  constructor({ ring, gate, memory, format, pool: own, large, returnAt }: ReceiveQueueParts) {
    this.#ring = ring;
    this.#gate = gate;
    this.#format = format;
    this.#own = own;
    this.#first = own.first + NET_HEADER_BYTES;
    this.#stride = own.stride;
    this.size = own.count;
    this.#memory32 = new Uint32Array(memory.arena.buffer, memory.arenaAddress, memory.size / 4);
    this.#bufferOf = new Uint16Array(ring.entries);
    this.#returnAt = returnAt;
    this.#held = new Uint16Array(own.count);
    const addresses = [...own.addresses(), ...(large?.pool.addresses() ?? [])];
    this.#addresses = Float64Array.from(addresses);
    const { first, stride } = own;
    this.pool = {
      count: addresses.length,
      first,
      stride,
      addresses: () => this.#addresses,
    };
    this.#large = large?.pool;
    this.#largeFree = new Uint16Array(large?.pool.count ?? 0);
    if (large !== undefined) {
      const bytes = new Uint8Array(memory.arena.buffer, memory.arenaAddress, memory.size);
      this.#coalescer = new Coalescer(bytes, large.frame);
    }
  }

  get outstanding(): number {
    return this.#ring.entries - 1 - this.#ring.free;
  }

  get kicks(): number {
    return this.#ring.kicks;
  }

  /** Gives all buffers to the card. Once, before anything is received. */
  fill(): void {
    // The last is put on top: they are given in order.
    for (let buffer = this.pool.count - 1; buffer >= 0; buffer--) this.post(buffer);
    this.#give();
  }

  post(buffer: number): void {
    if (buffer >= this.#own.count) {
      this.#largeFree[this.#largeCount++] = buffer;
      if (this.#largeNow < 0) this.#nextLarge();
      return;
    }
    this.#held[this.#heldCount++] = buffer;
  }

  publish(): boolean {
    return this.#heldCount >= this.#returnAt && this.#give();
  }

  /**
   * Writes descriptors for all buffers that are held. One by one, each would take the line from the card in
   * which it is to write what it receives next.
   */
  #give(): boolean {
    const ring = this.#ring;
    const held = this.#held;
    const count = this.#heldCount;
    if (count > ring.free) {
      throw brokenDevice('has no descriptor for a buffer that it returned');
    }
    for (let i = count - 1; i >= 0; i--) {
      const buffer = held[i] as number;
      this.#bufferOf[ring.next] = buffer;
      ring.putAt(this.#first + buffer * this.#stride, 0, 0);
    }
    this.#heldCount = 0;
    return ring.publish();
  }

  receive(): number {
    const coalescer = this.#coalescer;
    const count = coalescer === undefined ? this.#takeFrames() : this.#takeSegments(coalescer);
    this.count = count;
    if (count === 0) this.publish();
    return count;
  }

  /** Each descriptor is a frame. */
  #takeFrames(): number {
    const ring = this.#ring;
    const { first, stride } = this.#own;
    const { words, entries } = ring;
    const { statusWord, lengthWord, checkedMask, checked } = this.#format;
    const { offset, length, pieceBuffer } = this;
    const bufferOf = this.#bufferOf;
    const count = ring.countDone(RECEIVE_BATCH);
    let index = ring.clean;
    for (let i = 0; i < count; i++) {
      const word = DESCRIPTOR_WORDS * index;
      const status = words[word + statusWord] as number;
      if ((status & END) === 0) throw brokenDevice('wrote a frame beyond its buffer');
      const buffer = bufferOf[index] as number;
      const at = first + buffer * stride;
      this.#tell(at, (status & checkedMask) === checked);
      pieceBuffer[i] = buffer;
      offset[i] = at;
      length[i] = (words[word + lengthWord] as number) & 0xffff;
      index = index + 1 === entries ? 0 : index + 1;
    }
    ring.clean = index;
    return count;
  }

  /** Some descriptors are segments of frames, which the coalescer puts together. */
  #takeSegments(coalescer: Coalescer): number {
    const ring = this.#ring;
    const { first, stride } = this.#own;
    const { words, entries } = ring;
    const { statusWord, lengthWord, checkedMask, checked } = this.#format;
    let index = ring.clean;
    let count = 0;
    // Segments take descriptors, and are no frames yet.
    const done = ring.countDone(entries);
    for (let i = 0; i < done && count < RECEIVE_BATCH; i++) {
      // Nowhere to put segments together: they wait until a large buffer is given back.
      if (coalescer.at < 0) break;
      const word = DESCRIPTOR_WORDS * index;
      const status = words[word + statusWord] as number;
      const length = (words[word + lengthWord] as number) & 0xffff;
      const buffer = this.#bufferOf[index] as number;
      index = index + 1 === entries ? 0 : index + 1;
      // Now: a segment's buffer is given back at once.
      ring.clean = index;
      if ((status & END) === 0) throw brokenDevice('wrote a frame beyond its buffer');
      const at = first + buffer * stride;
      this.#tell(at, (status & checkedMask) === checked);
      const taken = coalescer.take(at, length);
      if (taken !== NOT_A_SEGMENT) {
        this.post(buffer);
        if (taken === COMPLETE) this.#takeLarge(count++);
        continue;
      }
      this.pieceBuffer[count] = buffer;
      this.offset[count] = at;
      this.length[count] = length;
      count++;
    }
    return count;
  }

  /**
   * The virtio_net_hdr at `at` says whether checksums were found good, and no more. Mostly it does so already:
   * the card has the line's other bytes, and a store would take it away from there.
   */
  #tell(at: number, isValid: boolean): void {
    const memory32 = this.#memory32;
    const word = at >>> 2;
    const flags = isValid ? VIRTIO_NET_HDR_F_DATA_VALID : 0;
    if (memory32[word] !== flags) memory32[word] = flags;
    if (memory32[word + 1] !== 0) memory32[word + 1] = 0;
    if (memory32[word + BUFFERS_WORD] !== ONE_BUFFER) memory32[word + BUFFERS_WORD] = ONE_BUFFER;
  }

  release(): void {
    for (let i = 0; i < this.count; i++) this.post(this.pieceBuffer[i] as number);
    this.count = 0;
    this.publish();
  }

  enableCalls(): boolean {
    this.#give();
    this.#gate.open();
    return this.#ring.clean !== this.#ring.next && this.#ring.isDone(this.#ring.clean);
  }

  disableCalls(): void {
    this.#gate.close();
  }

  /** The frame that the coalescer has finished is frame `index` of those received. */
  #takeLarge(index: number): void {
    const coalescer = this.#coalescer as Coalescer;
    this.pieceBuffer[index] = this.#largeNow;
    this.offset[index] = coalescer.at;
    this.length[index] = coalescer.length;
    this.#nextLarge();
  }

  #nextLarge(): void {
    const coalescer = this.#coalescer;
    const large = this.#large;
    if (coalescer === undefined || large === undefined) return;
    if (this.#largeCount === 0) {
      this.#largeNow = -1;
      coalescer.at = -1;
      return;
    }
    this.#largeNow = this.#largeFree[--this.#largeCount] as number;
    coalescer.at = large.first + (this.#largeNow - this.#own.count) * large.stride;
  }
}
