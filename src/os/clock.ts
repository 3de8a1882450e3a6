/** The monotonic clock, read without allocating, and how punctual a thread is to be woken by it. */
import { systemCall, systemError } from './libc.ts';

/** prctl(2) on x86-64 and arm64 (asm/unistd_64.h, asm-generic/unistd.h), and PR_SET_TIMERSLACK. */
const SYS_PRCTL = process.arch === 'x64' ? 157 : 167;
const PR_SET_TIMERSLACK = 29;

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

/**
 * How much later than it asked for the kernel may wake the calling thread, in ns, to save wake-ups: 50,000
 * unless said (PR_SET_TIMERSLACK(2const)).
 */
export function setTimerSlack(nanoseconds: number): void {
  if (systemCall(SYS_PRCTL, PR_SET_TIMERSLACK, nanoseconds) === -1) {
    throw systemError('prctl', 'PR_SET_TIMERSLACK');
  }
}
