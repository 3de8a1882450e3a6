/** Keeps what may happen very often from filling the log: one record in a while, the rest counted. */
export class LogLimit {
  readonly #intervalNs: number;
  #last = Number.NEGATIVE_INFINITY;
  #leftOut = 0;

  /** @param intervalNs least time between two records */
  constructor(intervalNs: number) {
    this.#intervalNs = intervalNs;
  }

  /** True if a record may be written at `now` (ns); else it is counted as left out. */
  admit(now: number): boolean {
    if (now - this.#last < this.#intervalNs) {
      this.#leftOut++;
      return false;
    }
    this.#last = now;
    return true;
  }

  /** How many were left out since the last time that this was asked. */
  takeLeftOut(): number {
    const count = this.#leftOut;
    this.#leftOut = 0;
    return count;
  }
}
