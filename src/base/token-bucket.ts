/**
 * A token bucket: tokens flow in at a rate up to a burst; what passes takes them out.
 *
 * Something passes while there are tokens at all and may take more than there are: so what is
 * larger than the burst (a TSO frame, a long read) passes too, and the debt delays those after it.
 * Over any time t no more than rate * t + burst + the largest amount passes.
 *
 * Units are the caller's: bits, bytes, frames or requests. Time is in ns and passed in, once a
 * burst. Nothing is allocated after the construction.
 */
import { SluiceError } from './errors.ts';

const NS_PER_S = 1e9;

/** Indexes of a bucket's state. */
const TOKENS = 0;
const AT = 1;

export interface TokenBucketOptions {
  /** Units a second. */
  readonly rate: number;
  /** Units that may pass at once after a pause. */
  readonly burst: number;
}

export class TokenBucket {
  readonly rate: number;
  readonly burst: number;
  readonly #perNs: number;
  /** Tokens, and when they were counted: a fraction in a property would be allocated at each change. */
  readonly #state: Float64Array;

  /** @throws SluiceError `config` unless rate and burst are positive numbers. */
  constructor(options: TokenBucketOptions, now: number) {
    for (const [name, value] of Object.entries(options)) {
      if (!(value > 0 && value < Number.POSITIVE_INFINITY)) {
        throw new SluiceError('config', `a rate limit with a ${name} of ${value}`, {
          remedy: 'give a positive number, or leave the limit out',
        });
      }
    }
    this.rate = options.rate;
    this.burst = options.burst;
    this.#perNs = options.rate / NS_PER_S;
    this.#state = Float64Array.of(options.burst, now);
  }

  /** Tokens there are; negative while a debt is paid. */
  get tokens(): number {
    return this.#state[TOKENS] as number;
  }

  /** Lets in what has flowed since the last time. A clock that went back lets nothing in. */
  refill(now: number): void {
    const state = this.#state;
    const passed = now - (state[AT] as number);
    if (passed <= 0) return;
    state[AT] = now;
    const tokens = (state[TOKENS] as number) + passed * this.#perNs;
    state[TOKENS] = tokens < this.burst ? tokens : this.burst;
  }

  /** True, and `amount` is taken, if it may pass. */
  take(amount: number): boolean {
    const state = this.#state;
    const tokens = state[TOKENS] as number;
    if (tokens <= 0) return false;
    state[TOKENS] = tokens - amount;
    return true;
  }

  /** Takes `amount` whatever there is: of what has passed already. */
  spend(amount: number): void {
    const state = this.#state;
    state[TOKENS] = (state[TOKENS] as number) - amount;
  }

  /** Nanoseconds after the last {@link refill} until something may pass again; 0 if it may now. */
  waitNs(): number {
    const { tokens } = this;
    return tokens > 0 ? 0 : Math.floor(-tokens / this.#perNs) + 1;
  }
}
