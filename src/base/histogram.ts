/**
 * A histogram of durations with a relative error below 1 %: 64 steps for each power of two, in one
 * typed array, so that recording allocates nothing.
 */

const STEP_BITS = 6;
const STEPS = 1 << STEP_BITS;
/** Values are cut off here: 2^31 - 1. */
const LARGEST = 0x7fff_ffff;

/** Values up to 2 × STEPS have a step each; above, 64 steps for each of the powers 2^7 … 2^30. */
const BUCKETS = 2 * STEPS + (31 - STEP_BITS - 1) * STEPS;

function bucketOf(value: number): number {
  if (value < 2 * STEPS) return value;
  const shift = 31 - Math.clz32(value) - STEP_BITS;
  return shift * STEPS + (value >>> shift);
}

/** The middle of a bucket. */
function middleOf(bucket: number): number {
  if (bucket < 2 * STEPS) return bucket;
  const shift = Math.floor(bucket / STEPS) - 1;
  const low = (bucket - shift * STEPS) * 2 ** shift;
  return low + 2 ** shift / 2;
}

export class Histogram {
  readonly #buckets = new Uint32Array(BUCKETS);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Records a value of 0 to 2^31 - 1, in whatever unit the caller uses; larger ones count as that. */
  record(value: number): void {
    const whole = value < LARGEST ? Math.max(0, Math.floor(value)) : LARGEST;
    const bucket = bucketOf(whole);
    this.#buckets[bucket] = (this.#buckets[bucket] as number) + 1;
    this.#count++;
  }

  /** The value below or at which `fraction` (0 to 1) of the records lie; 0 without records. */
  quantile(fraction: number): number {
    if (this.#count === 0) return 0;
    const wanted = Math.max(1, Math.ceil(fraction * this.#count));
    let seen = 0;
    for (const [bucket, count] of this.#buckets.entries()) {
      seen += count;
      if (seen >= wanted) return middleOf(bucket);
    }
    return LARGEST;
  }

  /** The buckets that are not empty, as pairs of number and count: for {@link addCounts} elsewhere. */
  counts(): (readonly [bucket: number, count: number])[] {
    const found: [number, number][] = [];
    this.#buckets.forEach((count, bucket) => {
      if (count !== 0) found.push([bucket, count]);
    });
    return found;
  }

  /** Adds another histogram's records; `sign` -1 takes them away again. */
  addCounts(counts: readonly (readonly [bucket: number, count: number])[], sign: 1 | -1 = 1): void {
    for (const [bucket, count] of counts) {
      this.#buckets[bucket] = (this.#buckets[bucket] as number) + sign * count;
      this.#count += sign * count;
    }
  }

  clear(): void {
    this.#buckets.fill(0);
    this.#count = 0;
  }
}
