/** A deterministic source of randomness: the same seed gives the same run on every machine. */
export class Random {
  #state: number;

  constructor(seed: number) {
    // Neighbouring seeds are to begin far apart.
    this.#state = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) | 1;
  }

  /** 0 to 2^32 - 1 (mulberry32). */
  u32(): number {
    this.#state = (this.#state + 0x6d2b_79f5) | 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (z ^ (z >>> 14)) >>> 0;
  }

  /** 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.u32() / 2 ** 32) * limit);
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(list: readonly [T, ...T[]]): T {
    return list[this.below(list.length)] ?? list[0];
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.u32());
  }

  /** A number of `bits` bits (at most 32) of the kind that breaks things: borders, near misses. */
  nasty(bits: number): number {
    const top = 2 ** bits;
    const value = this.pick([
      () => 0,
      () => 1,
      () => top - 1,
      () => top / 2,
      () => top / 2 - 1,
      () => 2 ** this.below(bits + 1),
      () => 2 ** this.below(bits + 1) - 1,
      () => this.below(256),
      () => this.below(top),
    ])();
    return Math.min(value, top - 1);
  }
}
