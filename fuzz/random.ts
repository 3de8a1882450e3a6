/** Randomness for fuzzing: the numbers that break things come more often. */
import { Random as EvenRandom } from '../src/base/random.ts';

export class Random extends EvenRandom {
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
