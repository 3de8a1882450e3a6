/** A logger for what strangers can make happen as often as they like: some lines a second, the rest counted. */
import { type LogFields, type Logger, type LogLevel, loggerTo } from './log.ts';

const SECOND_NS = 1e9;

/**
 * Passes `lines` records a second on to `log`. How many were left out is told before the next that is
 * passed on. `now` is a clock in ns.
 */
export function limitedLogger(log: Logger, now: () => number, lines: number): Logger {
  let since = Number.NEGATIVE_INFINITY;
  let passed = 0;
  let leftOut = 0;
  return loggerTo((level: LogLevel, message: string, fields: LogFields) => {
    const time = now();
    if (time - since >= SECOND_NS) {
      if (leftOut > 0) log.warn(`${leftOut} messages were left out`);
      since = time;
      passed = 0;
      leftOut = 0;
    }
    if (passed === lines) {
      leftOut++;
      return;
    }
    passed++;
    log[level](message, fields);
  });
}
