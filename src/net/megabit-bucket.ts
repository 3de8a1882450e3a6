/** Rate limits of the network: megabits a second. */
import { TokenBucket } from '../base/token-bucket.ts';

/**
 * A burst is this much of the rate: a guest that had no processor for so long loses nothing of it,
 * and one that shares its processors with others often has none for tens of milliseconds.
 */
const BURST_S = 0.05;
/** A burst holds a TSO frame at least (64 KiB of IP and the headers before it). */
const LEAST_BURST_BITS = 8 * (65536 + 64);

/** A bucket of bits for a limit in megabits (10^6) a second, as iproute2's max_tx_rate counts. */
export function megabitBucket(megabits: number, now: number): TokenBucket {
  const rate = megabits * 1e6;
  return new TokenBucket({ rate, burst: Math.max(rate * BURST_S, LEAST_BURST_BITS) }, now);
}
