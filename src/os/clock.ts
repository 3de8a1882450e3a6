/** The monotonic clock, read without allocating. */

/**
 * What {@link readClock} read last, in ns, at index 0: a number that a function returned would be
 * allocated.
 */
export const clock = new Float64Array(1);

// performance.now() counts from the start of the thread; all threads are to see the same clock.
const origin = Number(process.hrtime.bigint()) - performance.now() * 1e6;

/** Reads the clock into {@link clock} (CLOCK_MONOTONIC). */
export function readClock(): void {
  clock[0] = origin + performance.now() * 1e6;
}

/** Nanoseconds since some fixed point, the same for all threads. Not for the hot path: see {@link clock}. */
export function monotonicNs(): number {
  readClock();
  return clock[0] as number;
}
