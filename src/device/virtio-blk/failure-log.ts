/** Tells the log of requests that failed: which disk, which sector, why. Not more than once a second. */

import type { LogFields, Logger, LogLevel } from '../../base/log.ts';
import { LogLimit } from '../../base/log-limit.ts';
import type { PollLoop, Timer } from '../../os/poll-loop.ts';

const INTERVAL_US = 1_000_000;

export class FailureLog {
  readonly #log: Logger;
  readonly #loop: PollLoop;
  readonly #limit = new LogLimit(INTERVAL_US * 1000);
  readonly #subject: string;
  #timer: Timer | undefined;

  /** @param subject whose requests they are, such as `web/disk0: disk root` */
  constructor(subject: string, log: Logger, loop: PollLoop) {
    this.#subject = subject;
    this.#log = log;
    this.#loop = loop;
  }

  /** `describe` is called only if there is to be a record. */
  write(level: LogLevel, describe: () => { message: string; fields: LogFields }): void {
    if (this.#limit.admit(this.#loop.now)) {
      const { message, fields } = describe();
      this.#log[level](`${this.#subject}: ${message}`, fields);
      return;
    }
    this.#timer ??= this.#loop.setTimer(INTERVAL_US, () => {
      this.#timer = undefined;
      this.#tellLeftOut();
    });
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#tellLeftOut();
  }

  #tellLeftOut(): void {
    const count = this.#limit.takeLeftOut();
    if (count > 0) this.#log.warn(`${this.#subject}: ${count} more requests failed`);
  }
}
