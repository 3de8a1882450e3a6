/**
 * Lane memory of one function's queues for guest memory that is reached by messages only: descriptors
 * on their way, and one frame in each direction. Taken when the first queue needs it, which with
 * guests that share their memory by descriptor is never.
 */
import type { Arena } from '../../memory/arena.ts';
import { IXGBE_DESCRIPTOR_BYTES } from '../../spec/ixgbe-descriptors.ts';
import { WINDOW } from './queue-parts.ts';

/** Bytes of the descriptors of one turn. */
const WINDOW_BYTES = WINDOW * IXGBE_DESCRIPTOR_BYTES;
/** One transmit window, fetched and written back receive windows. */
const WINDOWS = 3;
/** The largest frame that a driver can send: 40 descriptors (§7.2.1.1) hold no more of IP's 64 KiB. */
export const TRANSMIT_BOUNCE_BYTES = 128 * 1024;
export const RECEIVE_BOUNCE_BYTES = 256 * 1024;

/** Nobody has the frame's memory. */
const FREE = -1;

export class QueueBounce {
  readonly #arena: Arena;
  readonly #queues: number;
  #at = 0;
  #transmitOwner = FREE;
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

  /** The {@link TRANSMIT_BOUNCE_BYTES} for one frame, or -1 while another queue has them. */
  takeTransmit(queue: number): number {
    if (this.#transmitOwner !== FREE && this.#transmitOwner !== queue) return -1;
    this.#transmitOwner = queue;
    return this.#take() + this.#windowsBytes();
  }

  giveTransmit(queue: number): void {
    if (this.#transmitOwner === queue) this.#transmitOwner = FREE;
  }

  /** The {@link RECEIVE_BOUNCE_BYTES}, or -1 while another queue has them. */
  takeReceive(queue: number): number {
    if (this.#receiveOwner !== FREE && this.#receiveOwner !== queue) return -1;
    this.#receiveOwner = queue;
    return this.#take() + this.#windowsBytes() + TRANSMIT_BOUNCE_BYTES;
  }

  giveReceive(queue: number): void {
    if (this.#receiveOwner === queue) this.#receiveOwner = FREE;
  }

  /** Gives the memory back. No DMA is on its way. */
  close(): void {
    if (this.#at === 0) return;
    this.#arena.unmap(this.#at, this.#bytes());
    this.#at = 0;
  }

  #take(): number {
    if (this.#at === 0) this.#at = this.#arena.allocate(this.#bytes(), 'sluice-ixgbe-bounce');
    return this.#at;
  }

  #windowsBytes(): number {
    return WINDOWS * this.#queues * WINDOW_BYTES;
  }

  #bytes(): number {
    return this.#windowsBytes() + TRANSMIT_BOUNCE_BYTES + RECEIVE_BOUNCE_BYTES;
  }
}
