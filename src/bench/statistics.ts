/** The arithmetic of reports: medians, fairness, rates. Units as in the report's keys. */
import { SluiceError } from '../base/errors.ts';

const BITS_PER_BYTE = 8;

/** The middle value; of an even number of values the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  if (upper === undefined) throw new SluiceError('state', 'there is no median of no values');
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

/**
 * Jain's fairness index (R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984): (sum x)^2 / (n * sum x^2),
 * 1 where all have the same, 1/n where one has all. 1 where nobody has anything.
 */
export function jainIndex(shares: readonly number[]): number {
  const sum = shares.reduce((total, share) => total + share, 0);
  const squares = shares.reduce((total, share) => total + share * share, 0);
  return squares === 0 ? 1 : (sum * sum) / (shares.length * squares);
}

/** The sum by the number of values; 0 of none. */
export function mean(values: readonly number[]): number {
  return perUnit(
    values.reduce((sum, value) => sum + value, 0),
    values.length,
  );
}

/** 10^9 bits a second. */
export function gbps(bytes: number, seconds: number): number {
  return (bytes * BITS_PER_BYTE) / seconds / 1e9;
}

/** 10^6 frames a second. */
export function mpps(frames: number, seconds: number): number {
  return frames / seconds / 1e6;
}

/** Share in percent; 0 of nothing is 0. */
export function percent(part: number, whole: number): number {
  return whole === 0 ? 0 : (100 * part) / whole;
}

/** `value` by `count`; 0 where nothing was counted. */
export function perUnit(value: number, count: number): number {
  return count === 0 ? 0 : value / count;
}

/** Rounded to so many significant digits: what is printed claims no more than was measured. */
export function significant(value: number, digits = 4): number {
  return Number(value.toPrecision(digits));
}

/** Slope of the least-squares line through the points (x, y), in y units for each x unit. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const n = points.length;
  if (n < 2) return 0;
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / n;
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / n;
  const covariance = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  const variance = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return variance === 0 ? 0 : covariance / variance;
}
