/** The live figures of a lane, written by it and read by everybody. */
import { getHeapStatistics } from 'node:v8';
import { CounterBlock } from '../base/counters.ts';
import { monotonicNs } from '../os/clock.ts';
import type { Poller, PollLoop } from '../os/poll-loop.ts';

export const LANE_COUNTERS = [
  /** Turns of the loop, and those in which there was work. */
  'turns',
  'busy_turns',
  /** Times the lane went to sleep, and times it woke up: the lane sleeps while they differ. */
  'sleeps',
  'wakeups',
  /** Bytes that the lane's JavaScript has allocated since it started. */
  'heap_allocated_bytes',
  /** Bytes of its heap that are in use: live, or not yet collected. */
  'heap_used_bytes',
  /** Devices that were stopped because their code threw. */
  'device_failures',
] as const;

export type LaneCounter = (typeof LANE_COUNTERS)[number];

const TURNS = LANE_COUNTERS.indexOf('turns');
const BUSY_TURNS = LANE_COUNTERS.indexOf('busy_turns');
const SLEEPS = LANE_COUNTERS.indexOf('sleeps');
const WAKEUPS = LANE_COUNTERS.indexOf('wakeups');
const HEAP = LANE_COUNTERS.indexOf('heap_allocated_bytes');
const HEAP_USED = LANE_COUNTERS.indexOf('heap_used_bytes');
const FAILURES = LANE_COUNTERS.indexOf('device_failures');

const TURNS_PER_WRITE = 1024;
/** Asking V8 for its statistics allocates: it must stay rare. */
const HEAP_INTERVAL_NS = 250e6;

/**
 * Writes the counters, as a poller that never has work: each so many turns, and whenever the lane
 * goes to sleep. It sets no timer, so an idle lane stays asleep.
 */
export class LaneCounterWriter implements Poller {
  readonly block: CounterBlock<LaneCounter>;
  readonly #loop: PollLoop;
  #turn = 0;
  #heapAt = 0;

  constructor(loop: PollLoop, shared: SharedArrayBuffer) {
    this.block = new CounterBlock(LANE_COUNTERS, shared);
    this.#loop = loop;
  }

  poll(): number {
    if (++this.#turn === TURNS_PER_WRITE) {
      this.#turn = 0;
      this.#write();
      this.#writeHeapSometimes();
    }
    return 0;
  }

  arm(): boolean {
    this.#write();
    // The loop counts the sleep that is about to begin after it has armed everybody.
    this.block.values[SLEEPS] = this.#loop.sleeps + 1;
    return false;
  }

  disarm(): void {
    this.block.values[SLEEPS] = this.#loop.sleeps;
    this.block.values[WAKEUPS] = this.#loop.sleeps;
  }

  /** Writes everything, exactly. */
  sample(): void {
    this.#write();
    this.#writeHeap();
  }

  countFailure(): void {
    this.block.values[FAILURES] = (this.block.values[FAILURES] as number) + 1;
  }

  #write(): void {
    const { values } = this.block;
    values[TURNS] = this.#loop.turns;
    values[BUSY_TURNS] = this.#loop.busyTurns;
  }

  #writeHeapSometimes(): void {
    const now = monotonicNs();
    if (now - this.#heapAt < HEAP_INTERVAL_NS) return;
    this.#heapAt = now;
    this.#writeHeap();
  }

  #writeHeap(): void {
    const { total_allocated_bytes, used_heap_size } = getHeapStatistics();
    this.block.values[HEAP] = total_allocated_bytes;
    this.block.values[HEAP_USED] = used_heap_size;
  }
}
