/** The daemon's log: pino, one JSON object a line; on a terminal one readable line each. */
import { styleText } from 'node:util';
import { pino } from 'pino';
import { type LogFields, type Logger, type LogLevel, loggerTo } from '../base/log.ts';

const COLOURS = { debug: 'gray', info: 'green', warn: 'yellow', error: 'red' } as const;
const HIDDEN = new Set(['level', 'time', 'pid', 'hostname', 'msg']);

/** @param format `pretty` for people; default: `pretty` if standard error is a terminal. */
export function createLog(format?: 'json' | 'pretty'): Logger {
  const pretty = format === 'pretty' || (format === undefined && process.stderr.isTTY);
  const options = {
    level: process.env['SLUICE_DEBUG'] === undefined ? 'info' : 'debug',
    formatters: { level: (label: string) => ({ level: label }) },
  };
  const log = pretty
    ? pino(options, { write: (line: string) => process.stderr.write(prettyLine(line)) })
    : pino(options, pino.destination({ dest: 2, sync: true }));
  return loggerTo((level: LogLevel, message: string, fields: LogFields) =>
    log[level]({ ...fields }, message),
  );
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
