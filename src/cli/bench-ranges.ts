/** Checks the numbers that a bench is given, and says what they may be in the words of the command. */
import { z } from 'zod';
import { SluiceError } from '../base/errors.ts';

/**
 * @param schema of the options, by the names that commander gives them
 * @throws SluiceError `usage`: `--guests: 0 is not from 1 to 256`
 */
export function checkRanges(schema: z.ZodObject, flags: object): void {
  for (const [name, value] of Object.entries(flags)) {
    const number = numberOf(schema.shape[name]);
    if (typeof value !== 'number' || number === undefined) continue;
    const { minValue, maxValue } = number;
    if (minValue === null || maxValue === null || (value >= minValue && value <= maxValue))
      continue;
    const option = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new SluiceError(
      'usage',
      `--${option}: ${value} is not ${rangeText(minValue, maxValue)}`,
      {
        remedy: 'see the --help of this bench',
      },
    );
  }
}

/** The schema of a number, without its default; undefined for other values. */
function numberOf(schema: unknown): z.ZodNumber | undefined {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
    return numberOf(schema.unwrap());
  }
  return schema instanceof z.ZodNumber ? schema : undefined;
}

/** Whole numbers without an upper bound have the largest safe one as theirs. */
function rangeText(least: number, most: number): string {
  return most >= Number.MAX_SAFE_INTEGER ? `${least} or more` : `from ${least} to ${most}`;
}
