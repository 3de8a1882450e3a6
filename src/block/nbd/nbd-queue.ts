/** A device's way to an NBD disk: its requests from when they are submitted until they complete. */
import { SluiceError } from '../../base/errors.ts';
import type { DiskQueue, DiskQueueOptions, DiskSink } from '../disk.ts';
import type { RequestTable } from '../requests.ts';

/** What of a request is next. */
export const STAGE_NEW = 0;
/** Pieces of its range. */
export const STAGE_RANGE = 1;
/** A flush that makes it durable, where the server knows no FUA. */
export const STAGE_FLUSH = 2;

/** The disk, as its queues see it. */
export interface NbdQueueOwner {
  /** A request was submitted to a queue. */
  enqueue(queue: number, slot: number): void;
  flush(): void;
  /** Looks for replies. */
  progress(): void;
  arm(): boolean;
  disarm(): void;
  release(queue: number): void;
}

export class NbdQueue implements DiskQueue {
  /** Its number in the disk. */
  readonly index: number;
  readonly requests: RequestTable;
  inFlight = 0;
  /** STAGE_*. */
  readonly stage: Uint8Array;
  /** 1: it waits for (more of) it to be issued. */
  readonly waiting: Uint8Array;
  /** Bytes that pieces were made for. */
  readonly issued: Float64Array;
  /** Pieces on their way. */
  readonly outstanding: Uint32Array;
  /** 0 or a negative errno. */
  readonly result: Int32Array;
  /** When its connection was first lost, in ns; 0: never. */
  readonly since: Float64Array;
  readonly #owner: NbdQueueOwner;
  readonly #sink: DiskSink;
  /** Requests that are done and not told: a ring. */
  readonly #doneSlot: Uint32Array;
  readonly #doneResult: Int32Array;
  #doneHead = 0;
  #doneCount = 0;
  #open = true;

  constructor(index: number, owner: NbdQueueOwner, options: DiskQueueOptions) {
    const { slots } = options.requests;
    this.index = index;
    this.requests = options.requests;
    this.#owner = owner;
    this.#sink = options.sink;
    this.stage = new Uint8Array(slots);
    this.waiting = new Uint8Array(slots);
    this.issued = new Float64Array(slots);
    this.outstanding = new Uint32Array(slots);
    this.result = new Int32Array(slots);
    this.since = new Float64Array(slots);
    this.#doneSlot = new Uint32Array(slots);
    this.#doneResult = new Int32Array(slots);
  }

  submit(slot: number): void {
    this.inFlight++;
    this.stage[slot] = STAGE_NEW;
    this.issued[slot] = 0;
    this.outstanding[slot] = 0;
    this.result[slot] = 0;
    this.since[slot] = 0;
    this.waiting[slot] = 1;
    this.#owner.enqueue(this.index, slot);
  }

  flush(): void {
    this.#owner.flush();
  }

  poll(): number {
    this.#owner.progress();
    let count = 0;
    while (this.#doneCount > 0) {
      const head = this.#doneHead;
      this.#doneHead = head + 1 === this.requests.slots ? 0 : head + 1;
      this.#doneCount--;
      this.inFlight--;
      count++;
      this.#sink.complete(this.#doneSlot[head] as number, this.#doneResult[head] as number);
    }
    return count;
  }

  arm(): boolean {
    return this.#owner.arm() || this.#doneCount > 0;
  }

  disarm(): void {
    this.#owner.disarm();
  }

  /** The request is done; the sink is told by the next {@link poll}. */
  done(slot: number): void {
    const tail = (this.#doneHead + this.#doneCount++) % this.requests.slots;
    this.#doneSlot[tail] = slot;
    this.#doneResult[tail] = this.result[slot] as number;
  }

  close(): void {
    if (!this.#open) return;
    if (this.inFlight > 0) {
      throw new SluiceError('state', `${this.inFlight} requests are in flight`);
    }
    this.#open = false;
    this.#owner.release(this.index);
  }
}
