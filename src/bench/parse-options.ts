/** Fills in the defaults of a bench's options, and says what is wrong in the words of the command line. */
import { z } from 'zod';
import { SluiceError } from '../base/errors.ts';

/**
 * @param schema of the options, by the names that commander gives them
 * @throws SluiceError `usage` naming the option and what it may be, with `remedy`:
 * `--guests: 0 is not from 1 to 256`
 */
export function parseOptions<Schema extends z.ZodObject>(
  schema: Schema,
  input: z.input<Schema>,
  remedy: string,
): z.output<Schema> {
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const name = issue?.path.join('.') ?? '';
  const option = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const value = (input as Readonly<Record<string, unknown>>)[name];
  const message = outOfRange(schema.shape[name], value) ?? issue?.message;
  throw new SluiceError('usage', `--${option}: ${message}`, { remedy });
}

/** What is to be said of a number that is below the least or above the most; else undefined. */
function outOfRange(schema: unknown, value: unknown): string | undefined {
  const number = numberOf(schema);
  if (typeof value !== 'number' || number === undefined) return undefined;
  const { minValue, maxValue } = number;
  if (minValue === null || maxValue === null || (value >= minValue && value <= maxValue)) {
    return undefined;
  }
  // Whole numbers without an upper bound have the largest safe one as theirs.
  const isOpen = maxValue >= Number.MAX_SAFE_INTEGER;
  return `${value} is not ${isOpen ? `${minValue} or more` : `from ${minValue} to ${maxValue}`}`;
}

/** The schema of a number, without its default; undefined for other values. */
function numberOf(schema: unknown): z.ZodNumber | undefined {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
    return numberOf(schema.unwrap());
  }
  return schema instanceof z.ZodNumber ? schema : undefined;
}
