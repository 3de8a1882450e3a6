/** The monotonic clock, read without allocating. */
import { libc, pinned } from './libc.ts';

const CLOCK_MONOTONIC = 1;
const timespec = new Uint8Array(pinned(16).buffer);
const words = new Uint32Array(timespec.buffer);

/** Nanoseconds since some fixed point (clock_gettime(2), CLOCK_MONOTONIC); exact below 2^53. */
export function monotonicNs(): number {
  libc.clock_gettime(CLOCK_MONOTONIC, timespec);
  return ((words[0] as number) + (words[1] as number) * 4294967296) * 1e9 + (words[2] as number);
}
