/**
 * The requests of one device that are on their way: for each slot of the request table, which chain of
 * which queue it came from and how that chain is to be completed. A structure of arrays.
 *
 * A chain of several ranges (discard, write zeroes) becomes several requests to the disk: its own
 * slot is their *parent*, and each takes a range at a time until none is left.
 */
import { RequestTable } from '../../block/requests.ts';
import type { Arena } from '../../memory/arena.ts';
import { MAX_RANGES } from './features.ts';

/** What the completion of a slot's request means. */
/** The chain is done. */
export const STEP_SINGLE = 0;
/** One of the ranges of the parent's chain is done. */
export const STEP_RANGE = 1;
/** The flush that makes the chain's ranges durable is done: so is the chain. */
export const STEP_FLUSH = 2;
/** There is no chain: the device flushes of its own accord. */
export const STEP_OWN_FLUSH = 3;

export class RequestSlots {
  readonly table: RequestTable;
  /** STEP_* */
  readonly step: Uint8Array;
  /** Queue, buffer id and descriptors of the chain. */
  readonly queue: Uint16Array;
  readonly id: Uint16Array;
  readonly span: Uint16Array;
  /** Arena address of the status byte. */
  readonly statusAt: Float64Array;
  /** Bytes written into the chain if the request succeeds, status included. */
  readonly written: Uint32Array;
  /** The device writes into the slot's segments. */
  readonly fills: Uint8Array;

  /** Of a chain with ranges: how many, which is next, how many are on their way. */
  readonly ranges: Uint8Array;
  readonly nextRange: Uint8Array;
  readonly running: Uint8Array;
  /** Its first error, or 0. */
  readonly result: Int32Array;
  readonly parent: Uint16Array;
  /** Range `k` of slot `s`, at `s * MAX_RANGES + k`: first byte, bytes, REQUEST_*. */
  readonly rangeOffset: Float64Array;
  readonly rangeBytes: Float64Array;
  readonly rangeFlags: Uint8Array;

  /** Slots that are free. */
  free: number;
  private readonly stack: Uint16Array;

  /** @param segments segments of memory that one request may have */
  constructor(arena: Arena, slots: number, segments: number) {
    this.table = new RequestTable(arena, slots, segments);
    this.step = new Uint8Array(slots);
    this.queue = new Uint16Array(slots);
    this.id = new Uint16Array(slots);
    this.span = new Uint16Array(slots);
    this.statusAt = new Float64Array(slots);
    this.written = new Uint32Array(slots);
    this.fills = new Uint8Array(slots);
    this.ranges = new Uint8Array(slots);
    this.nextRange = new Uint8Array(slots);
    this.running = new Uint8Array(slots);
    this.result = new Int32Array(slots);
    this.parent = new Uint16Array(slots);
    this.rangeOffset = new Float64Array(slots * MAX_RANGES);
    this.rangeBytes = new Float64Array(slots * MAX_RANGES);
    this.rangeFlags = new Uint8Array(slots * MAX_RANGES);
    // The slot that was given back last is taken first: its arrays are in the cache.
    this.stack = Uint16Array.from({ length: slots }, (_, i) => slots - 1 - i);
    this.free = slots;
  }

  /** A free slot; there must be one. */
  take(): number {
    this.free--;
    return this.stack[this.free] as number;
  }

  give(slot: number): void {
    this.stack[this.free] = slot;
    this.free++;
  }

  /** Gives the memory back; no request may be on its way. */
  release(): void {
    this.table.release();
  }
}
