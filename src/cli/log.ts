/** The daemon's log: pino, one JSON object a line; on a terminal one readable line each. */
import { writeSync } from 'node:fs';
import { styleText } from 'node:util';
import { pino } from 'pino';
import { type LogFields, type Logger, type LogLevel, loggerTo } from '../base/log.ts';

const COLOURS = { debug: 'gray', info: 'green', warn: 'yellow', error: 'red' } as const;
const STDERR = 2;
/** How long a record waits for room in a pipe whose reader is slow, and how often it looks. */
const PATIENCE_MS = 100;
const PAUSE_MS = 5;
const HIDDEN = new Set(['level', 'time', 'pid', 'hostname', 'msg']);

/**
 * A log that cannot be written (a full file system, a reader that is gone, a closed terminal) does not
 * disturb the daemon: its records are lost, and told by their number when there is room again.
 * @param format `pretty` for people; default: `pretty` if standard error is a terminal.
 */
export function createLog(format?: 'json' | 'pretty'): Logger {
  const pretty = format === 'pretty' || (format === undefined && process.stderr.isTTY);
  const options = {
    level: process.env['SLUICE_DEBUG'] === undefined ? 'info' : 'debug',
    formatters: { level: (label: string) => ({ level: label }) },
  };
  const sink = new LogSink((lost) => log.warn({ lost }, 'records of the log were lost'));
  const log = pino(options, {
    write: (line: string) => sink.write(pretty ? prettyLine(line) : line),
  });
  return loggerTo((level: LogLevel, message: string, fields: LogFields) =>
    log[level]({ ...fields }, message),
  );
}

/** Standard error, which may fail. pino's own destination would throw, or stop for good. */
class LogSink {
  readonly #resumed: (lost: number) => void;
  #lost = 0;
  /** The last line was written in part. */
  #torn = false;

  /** @param resumed told of the lines that were lost, when one could be written again */
  constructor(resumed: (lost: number) => void) {
    this.#resumed = resumed;
  }

  write(line: string): void {
    const bytes = Buffer.from(this.#torn ? `\n${line}` : line);
    const written = writeAll(bytes, this.#lost === 0 ? PATIENCE_MS : 0);
    if (written < bytes.length) {
      this.#torn ||= written > 0;
      this.#lost++;
      return;
    }
    const lost = this.#lost;
    this.#torn = false;
    this.#lost = 0;
    if (lost > 0) this.#resumed(lost);
  }
}

/** Returns how many of the bytes could be written. */
function writeAll(bytes: Buffer, patienceMs: number): number {
  let written = 0;
  let waited = 0;
  while (written < bytes.length) {
    try {
      written += writeSync(STDERR, bytes, written);
    } catch (error) {
      // Where the log cannot be written there is nowhere to tell why.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || waited >= patienceMs) break;
      sleep(PAUSE_MS);
      waited += PAUSE_MS;
    }
  }
  return written;
}

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** `12:00:00.000 info  message  key=value` */
export function prettyLine(line: string): string {
  const record = JSON.parse(line) as Readonly<Record<string, unknown>>;
  const level = String(record['level']) as LogLevel;
  const time = new Date(Number(record['time'])).toTimeString().slice(0, 8);
  const millis = String(Number(record['time']) % 1000).padStart(3, '0');
  const fields = Object.entries(record)
    .filter(([name]) => !HIDDEN.has(name))
    .map(
      ([name, value]) =>
        `${name}=${typeof value === 'string' && !/[\s"]/.test(value) ? value : JSON.stringify(value)}`,
    );
  const stream = process.stderr;
  return [
    `${styleText('gray', `${time}.${millis}`, { stream })} ${styleText(COLOURS[level], level.padEnd(5), { stream })} ${String(record['msg'])}`,
    ...fields.map((field) => styleText('gray', field, { stream })),
  ]
    .join('  ')
    .concat('\n');
}
