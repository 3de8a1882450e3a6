/** The monotonic clock, read without allocating. */
import { libc, pinned } from './libc.ts';

const CLOCK_MONOTONIC = 1;
const timespec = pinned(16);
const words = new Uint32Array(timespec.buffer);

/** What {@link readClock} read last, in ns, at index 0: a number that a function returned would be allocated. */
export const clock = new Float64Array(1);

/** Reads the clock into {@link clock} (clock_gettime(2), CLOCK_MONOTONIC); exact below 2^53. */
export function readClock(): void {
  libc.clock_gettime(CLOCK_MONOTONIC, timespec.address);
  clock[0] =
    ((words[0] as number) + (words[1] as number) * 4294967296) * 1e9 + (words[2] as number);
}

/** Nanoseconds since some fixed point. Not for the hot path: see {@link clock}. */
export function monotonicNs(): number {
  readClock();
  return clock[0] as number;
}
