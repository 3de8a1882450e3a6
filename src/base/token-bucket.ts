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
  #tokens: number;
  #at: number;

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
    this.#tokens = options.burst;
    this.#at = now;
  }

  /** Tokens there are; negative while a debt is paid. */
  get tokens(): number {
    return this.#tokens;
  }

  /** Lets in what has flowed since the last time. A clock that went back lets nothing in. */
  refill(now: number): void {
    const passed = now - this.#at;
    if (passed <= 0) return;
    this.#at = now;
    const tokens = this.#tokens + passed * this.#perNs;
    this.#tokens = tokens < this.burst ? tokens : this.burst;
  }

  /** True, and `amount` is taken, if it may pass. */
  take(amount: number): boolean {
    if (this.#tokens <= 0) return false;
    this.#tokens -= amount;
    return true;
  }

  /** Nanoseconds after the last {@link refill} until something may pass again; 0 if it may now. */
  waitNs(): number {
    if (this.#tokens > 0) return 0;
    return Math.floor(-this.#tokens / this.#perNs) + 1;
  }
}
