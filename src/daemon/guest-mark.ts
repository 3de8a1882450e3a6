/**
 * A file that is there while a VMM is connected to an emulated device. If Sluice ends, or replaces the
 * device, the VMM's client does not come back (QEMU's vfio-user has no reconnection): a guest that still
 * runs has lost the device, and the file tells the next Sluice so.
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { describeError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

export class GuestMark {
  /** Its last VMM was disconnected by Sluice, and none has connected since. */
  lost: boolean;
  readonly #path: string;
  readonly #log: Logger;

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
    this.lost = existsSync(path);
  }

  /** A VMM has come, or gone by itself. */
  set(connected: boolean): void {
    this.lost = false;
    try {
      if (connected) writeFileSync(this.#path, '');
      else rmSync(this.#path, { force: true });
    } catch (error) {
      // What it tells is for the operator alone: the guest is served.
      this.#log.warn(`${this.#path} cannot be written: ${describeError(error)}`);
    }
  }
}
