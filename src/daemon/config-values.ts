/** Forms of single values in the configuration file; each says what it expects. */
import { z } from 'zod';
import { GiB, KiB, MiB, TiB } from '../base/bits.ts';
import { describeError } from '../base/errors.ts';

export function integer(min: number, max: number, what: string) {
  const error = `expected ${what}, ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
}

export function text(pattern: RegExp, what: string) {
  const error = `expected ${what}`;
  // What comes after it looks at texts of this form only.
  return z.string({ error }).regex(pattern, { error, abort: true });
}

export function choice<const Values extends readonly [string, ...string[]]>(values: Values) {
  const error = `expected ${values.length === 1 ? '' : 'one of '}${values.join(', ')}`;
  return z.enum(values, { error });
}

/** `true`, `false`, or as iproute2 writes them: `on`, `off` (in YAML 1.2 these are strings). */
export const onOff = z.union([z.boolean(), z.enum(['on', 'off'])], {
  error: 'expected on or off (or true, false)',
});

export function isOn(value: boolean | 'on' | 'off'): boolean {
  return value === true || value === 'on';
}

const NAME =
  'a name of up to 32 letters, digits, "_", "." and "-", beginning with a letter or digit';

export const NAME_EXPECTED = `expected ${NAME}`;

export const name = text(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$/, NAME);

/** Where the run directory is unless it is said. */
export const DEFAULT_RUN_PATH = './run';

export const path = text(/^[^\0]+$/, 'a path');

const UNITS: Readonly<Record<string, number>> = { K: KiB, M: MiB, G: GiB, T: TiB };

/** A size with its unit (powers of 1024), such as `512M`. */
export const SIZE_PATTERN = /^[1-9][0-9]{0,9}[KMGT]$/;

/** Bytes of a size that {@link SIZE_PATTERN} fits. */
export function bytesOf(size: string): number {
  return Number(size.slice(0, -1)) * (UNITS[size.slice(-1)] ?? Number.NaN);
}

export const size = text(SIZE_PATTERN, 'a size with its unit, such as 512M or 2G').refine(
  (value) => Number.isSafeInteger(bytesOf(value)),
  { error: 'expected a size below 8192T' },
);

/** Why something cannot be, in words; undefined if it can. */
export function problemOf(check: () => unknown): string | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    return describeError(error);
  }
}
