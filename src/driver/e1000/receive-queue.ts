/**
 * Frames in (SDM §3.2): each in a buffer of its own, in front of which the driver says in a
 * virtio_net_hdr what the card has found out; with `coalesce`, TCP segments become large frames again.
 */
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { brokenDevice, USED_BATCH } from '../../ring/driver-queue.ts';
import {
  INT_RXQ0,
  RXD_EOP,
  RXD_ERROR_IPE,
  RXD_ERROR_TCPE,
  RXD_IXSM,
  RXD_TCPCS,
} from '../../spec/e1000.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_NUM_BUFFERS,
  VIRTIO_NET_HDR_F_DATA_VALID,
} from '../../spec/virtio-net.ts';
import type { BufferPool } from '../buffer-pool.ts';
import type { NetQueue, NetReceiver } from '../net-pair.ts';
import { COMPLETE, Coalescer, NOT_A_SEGMENT } from './coalescer.ts';
import type { DescriptorRing } from './descriptor-ring.ts';
import type { InterruptGate } from './interrupt-gate.ts';

/** Frames that one {@link ReceiveQueue.receive} returns at most. */
const RECEIVE_BATCH = USED_BATCH;

/** The card is told of buffers when so large a part of the ring waits for that: a trap each time. */
const RETURN_SHARE = 8;

const LENGTH_WORD = 2;
const STATUS_WORD = 3;
const DESCRIPTOR_WORDS = 4;
const ERRORS_SHIFT = 8;
/** In the status word: checksums of IP and transport were looked at, and neither was wrong. */
const CHECKED = RXD_TCPCS | RXD_IXSM | ((RXD_ERROR_TCPE | RXD_ERROR_IPE) << ERRORS_SHIFT);

/** Buffers for large frames that were put together; the ring's own are numbered before them. */
export interface LargeBuffers {
  readonly pool: BufferPool;
  /** Bytes of the largest frame. */
  readonly frame: number;
}

/** Of `buffers`, how many wait for more before the card is told of them. */
export function returnedAt(buffers: number): number {
  return Math.max(1, Math.floor(buffers / RETURN_SHARE));
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
  readonly #gate: InterruptGate;
  readonly #own: BufferPool;
  readonly #addresses: Float64Array;
  /** By descriptor: its buffer. */
  readonly #bufferOf: Uint16Array;
  readonly #memory32: Uint32Array;
  readonly #returnAt: number;
  readonly #coalescer: Coalescer | undefined;
  readonly #large: BufferPool | undefined;
  /** Large buffers that nobody has, as a stack; the coalescer's is none of them. */
  readonly #largeFree: Uint16Array;
  #largeCount = 0;
  #largeNow = -1;

  constructor(
    ring: DescriptorRing,
    gate: InterruptGate,
    memory: DriverMemory,
    own: BufferPool,
    large?: LargeBuffers,
  ) {
    this.#ring = ring;
    this.#gate = gate;
    this.#own = own;
    this.size = own.count;
    this.#memory32 = new Uint32Array(memory.arena.buffer, memory.arenaAddress, memory.size / 4);
    this.#bufferOf = new Uint16Array(ring.entries);
    this.#returnAt = returnedAt(own.count);
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
    for (let buffer = 0; buffer < this.pool.count; buffer++) this.post(buffer);
    this.#ring.publish();
  }

  post(buffer: number): void {
    const ring = this.#ring;
    if (buffer >= this.#own.count) {
      this.#largeFree[this.#largeCount++] = buffer;
      if (this.#largeNow < 0) this.#nextLarge();
      return;
    }
    if (ring.free === 0) throw brokenDevice('has no descriptor for a buffer that it returned');
    this.#bufferOf[ring.next] = buffer;
    ring.putFrom(this.#addresses, buffer, NET_HEADER_BYTES, 0, 0);
  }

  publish(): boolean {
    return this.#ring.unpublished >= this.#returnAt && this.#ring.publish();
  }

  receive(): number {
    const ring = this.#ring;
    const { first, stride } = this.#own;
    const { words, entries } = ring;
    const memory32 = this.#memory32;
    const coalescer = this.#coalescer;
    let index = ring.clean;
    let count = 0;
    // The card's own are those between; what lies behind has never had the bit set since it was given.
    while (count < RECEIVE_BATCH && index !== ring.next && ring.isDone(index)) {
      // Nowhere to put segments together: they wait until a large buffer is given back.
      if (coalescer !== undefined && coalescer.at < 0) break;
      const word = DESCRIPTOR_WORDS * index;
      const status = words[word + STATUS_WORD] as number;
      const length = (words[word + LENGTH_WORD] as number) & 0xffff;
      const buffer = this.#bufferOf[index] as number;
      index = index + 1 === entries ? 0 : index + 1;
      ring.clean = index;
      if ((status & RXD_EOP) === 0) throw brokenDevice('wrote a frame beyond its buffer');
      const at = first + buffer * stride;
      const flags = (status & CHECKED) === RXD_TCPCS ? VIRTIO_NET_HDR_F_DATA_VALID : 0;
      memory32[at >>> 2] = flags;
      memory32[(at >>> 2) + 1] = 0;
      memory32[(at + NET_HEADER_NUM_BUFFERS) >>> 2] = 1 << 16;
      if (coalescer !== undefined) {
        const taken = coalescer.take(at, length);
        if (taken !== NOT_A_SEGMENT) {
          this.post(buffer);
          if (taken === COMPLETE) this.#takeLarge(count++);
          continue;
        }
      }
      this.pieceBuffer[count] = buffer;
      this.offset[count] = at;
      this.length[count] = length;
      count++;
    }
    this.count = count;
    if (count === 0) this.publish();
    return count;
  }

  release(): void {
    for (let i = 0; i < this.count; i++) this.post(this.pieceBuffer[i] as number);
    this.count = 0;
    this.publish();
  }

  enableCalls(): boolean {
    this.#ring.publish();
    this.#gate.open(INT_RXQ0);
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
