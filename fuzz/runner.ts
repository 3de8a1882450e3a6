/**
 * Runs fuzz targets: each iteration with a seed of its own, so that a failure is repeated by its
 * seed alone, whatever ran before it.
 */
import { Random } from './random.ts';

export interface FuzzTarget {
  readonly name: string;
  /** One iteration. It fails by throwing. */
  run(random: Random): void | Promise<void>;
}

export interface FuzzOptions {
  /** The first iteration's seed; the next has the next number. */
  readonly seed: number;
  /** Stop after so many iterations, or after so long; whichever comes first. */
  readonly iterations?: number;
  readonly seconds?: number;
}

export interface FuzzResult {
  readonly iterations: number;
}

/** A failed iteration. The message says how to repeat it. */
export class FuzzFailure extends Error {
  override readonly name = 'FuzzFailure';
  readonly seed: number;

  constructor(target: string, seed: number, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    super(
      `${target}, seed ${seed}: ${reason}\nrepeat with: npm run fuzz -- ${target} --seed ${seed} --iterations 1`,
      { cause },
    );
    this.seed = seed;
  }
}

/** @throws FuzzFailure at the first iteration that fails. */
export async function fuzz(target: FuzzTarget, options: FuzzOptions): Promise<FuzzResult> {
  const { seed, iterations = Number.POSITIVE_INFINITY, seconds } = options;
  const deadline =
    seconds === undefined ? Number.POSITIVE_INFINITY : performance.now() + 1000 * seconds;
  let done = 0;
  while (done < iterations && performance.now() < deadline) {
    const own = (seed + done) >>> 0;
    try {
      await target.run(new Random(own));
    } catch (error) {
      throw new FuzzFailure(target.name, own, error);
    }
    done++;
  }
  return { iterations: done };
}

/** A seed that differs from run to run. */
export function freshSeed(): number {
  return Date.now() >>> 0;
}
