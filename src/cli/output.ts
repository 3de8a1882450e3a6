/** What commands print: tables for people, JSON for programs, errors in one line. */
import { styleText } from 'node:util';
import Table from 'cli-table3';
import { describeError, SluiceError } from '../base/errors.ts';

let whenOutputFails: ((error: Error) => void) | undefined;

/** Has `act` done when standard output cannot be written, instead of what was to be done before. */
export function onOutputFailure(act: (error: Error) => void): void {
  if (whenOutputFails !== undefined) process.stdout.off('error', whenOutputFails);
  // Streams tell it later, by this event, whatever they write to.
  process.stdout.on('error', act);
  whenOutputFails = act;
}

/** What commands do about it: they end at once, and quietly where just nobody reads on (`| head`). */
export function endForOutputFailure(error: Error, json: boolean): never {
  // The exit code of a failure that was told before stays.
  if ((error as NodeJS.ErrnoException).code === 'EPIPE') process.exit();
  const remedy = 'make room there, or send it elsewhere';
  const message = `cannot write standard output: ${error.message}`;
  printError(new SluiceError('system', message, { cause: error, remedy }), json);
  process.exit(1);
}

/** Prints one JSON value. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

const BARE = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
} as const;

/** Prints rows under a head, without lines; numbers to the right. */
export function printTable(
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
  empty: string,
): void {
  if (rows.length === 0) {
    process.stdout.write(`${empty}\n`);
    return;
  }
  const isNumber = head.map((_, column) => rows.every((row) => typeof row[column] === 'number'));
  const table = new Table({
    head: head.map((title) => styleText('bold', title, { stream: process.stdout })),
    chars: BARE,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
    colAligns: isNumber.map((right) => (right ? 'right' : 'left')),
  });
  for (const row of rows) table.push(row.map(String));
  const lines = table.toString().split('\n');
  process.stdout.write(`${lines.map((line) => line.trimEnd()).join('\n')}\n`);
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** `20 GiB`, `1.5 MiB`: at most three digits after the point, rounded. */
export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toFixed(3))} ${UNITS[unit]}`;
}

/** Prints an error: what, where, remedy. The stack only with SLUICE_DEBUG. */
export function printError(error: unknown, json: boolean): void {
  if (json) {
    const { code, message, remedy } =
      error instanceof SluiceError
        ? error
        : { code: 'state', message: describeError(error), remedy: undefined };
    process.stderr.write(
      `${JSON.stringify({ error: { code, message, ...(remedy === undefined ? {} : { remedy }) } })}\n`,
    );
  } else {
    for (const line of describeError(error).split('\n')) process.stderr.write(`sluice: ${line}\n`);
  }
  if (process.env['SLUICE_DEBUG'] !== undefined && error instanceof Error) {
    for (
      let at: unknown = error;
      at !== undefined;
      at = at instanceof Error ? at.cause : undefined
    ) {
      process.stderr.write(`${at instanceof Error ? at.stack : String(at)}\n`);
    }
  }
}
