/**
 * Lane memory of one function's queues for guest memory that is reached by messages only: descriptors
 * on their way, one frame that is sent, and frames of one turn of one receive queue. Taken when the
 * first queue needs it, which with guests that share their memory by descriptor is never.
 */
import type { Arena } from '../../memory/arena.ts';
import { IXGBE_DESCRIPTOR_BYTES } from '../../spec/ixgbe-descriptors.ts';
import { WINDOW } from './queue-parts.ts';

/** Bytes of the descriptors of one turn. */
const WINDOW_BYTES = WINDOW * IXGBE_DESCRIPTOR_BYTES;
/** A head that is written back. */
const HEAD_BYTES = 4;
/** One transmit window, fetched and written back receive windows. */
const WINDOWS = 3;
/** The largest frame that a driver can send: 40 descriptors (§7.2.1.1) hold no more of IP's 64 KiB. */
export const TRANSMIT_BOUNCE_BYTES = 128 * 1024;
export const RECEIVE_BOUNCE_BYTES = 256 * 1024;

/** Pieces of frames in the receiving part: at most one a page of frame, and one a buffer. */
const PIECES = 512;
/** Nobody has the frame's memory. */
const FREE = -1;

/** A queue with a frame here. */
export interface BounceHolder {
  /**
   * Gives the memory up, unless an access is on its way or the queue is about to go on: its driver may have
   * disabled it, or turned it away. True if it did.
   */
  yield(): boolean;
}

export class QueueBounce {
  readonly #arena: Arena;
  readonly #queues: number;
  /** Pieces of received frames on their way to the guest: where to, from which arena address. */
  readonly pieceIova = new Float64Array(PIECES);
  readonly pieceFrom = new Float64Array(PIECES);
  readonly pieceLength = new Uint32Array(PIECES);
  pieces = 0;
  #at = 0;
  #transmitOwner: BounceHolder | undefined;
  #receiveOwner = FREE;

  constructor(arena: Arena, queues: number) {
    this.#arena = arena;
    this.#queues = queues;
  }

  /** A queue of the function has met memory that is reached by messages: receive queues prefetch. */
  get used(): boolean {
    return this.#at !== 0;
  }

  /** Arena address of a window of transmit descriptors. */
  transmitWindow(queue: number): number {
    return this.#take() + WINDOWS * queue * WINDOW_BYTES;
  }

  receiveWindow(queue: number): number {
    return this.#take() + (WINDOWS * queue + 1) * WINDOW_BYTES;
  }

  /** Of receive descriptors that are written back. */
  doneWindow(queue: number): number {
    return this.#take() + (WINDOWS * queue + 2) * WINDOW_BYTES;
  }

  /** Of the word that a transmit queue writes back instead of descriptors. */
  headWord(queue: number): number {
    return this.#take() + WINDOWS * this.#queues * WINDOW_BYTES + HEAD_BYTES * queue;
  }

  /** The {@link TRANSMIT_BOUNCE_BYTES} for one frame, or -1 while another queue has a use for them. */
  takeTransmit(queue: BounceHolder): number {
    const owner = this.#transmitOwner;
    if (owner !== undefined && owner !== queue && !owner.yield()) return -1;
    this.#transmitOwner = queue;
    return this.#take() + this.#ringBytes();
  }

  giveTransmit(queue: BounceHolder): void {
    if (this.#transmitOwner === queue) this.#transmitOwner = undefined;
  }

  /** The {@link RECEIVE_BOUNCE_BYTES}, or -1 while another queue has them. */
  takeReceive(queue: number): number {
    if (this.#receiveOwner !== FREE && this.#receiveOwner !== queue) return -1;
    this.#receiveOwner = queue;
    return this.#take() + this.#ringBytes() + TRANSMIT_BOUNCE_BYTES;
  }

  giveReceive(queue: number): void {
    if (this.#receiveOwner !== queue) return;
    this.#receiveOwner = FREE;
    this.pieces = 0;
  }

  /** The queue has pieces here. */
  hasReceive(queue: number): boolean {
    return this.#receiveOwner === queue;
  }

  /** Gives the memory back. No DMA is on its way. */
  release(): void {
    if (this.#at === 0) return;
    this.#arena.unmap(this.#at, this.#bytes());
    this.#at = 0;
  }

  #take(): number {
    if (this.#at === 0) this.#at = this.#arena.allocate(this.#bytes(), 'sluice-ixgbe-bounce');
    return this.#at;
  }

  #ringBytes(): number {
    return this.#queues * (WINDOWS * WINDOW_BYTES + HEAD_BYTES);
  }

  #bytes(): number {
    return this.#ringBytes() + TRANSMIT_BOUNCE_BYTES + RECEIVE_BOUNCE_BYTES;
  }
}
