/** Polls the roles of one guest; one that throws ends the guest, not the others. */
import { describeError, SluiceError } from '../../base/errors.ts';
import type { Poller, PollLoop } from '../../os/poll-loop.ts';
import type { Role } from './role.ts';

export class RoleRunner<R extends Role> implements Poller {
  /** Why the guest no longer runs. */
  failure: string | undefined;
  readonly #guest: string;
  readonly #loop: PollLoop;
  readonly #onLost: (reason: string) => void;
  #roles: readonly R[] = [];

  /** @param onLost called once, with the reason. */
  constructor(guest: string, loop: PollLoop, onLost: (reason: string) => void) {
    this.#guest = guest;
    this.#loop = loop;
    this.#onLost = onLost;
  }

  get roles(): readonly R[] {
    return this.#roles;
  }

  /** Begins to poll, with the first roles. */
  begin(roles: readonly R[]): void {
    this.#roles = roles;
    for (const role of roles) role.disarm();
    if (this.failure === undefined) this.#loop.addPoller(this);
  }

  /**
   * Gives the guest new roles.
   * @param make called once it is sure that the guest can take them.
   * @throws SluiceError `state` while something of the old roles is on its way.
   */
  replace(make: () => readonly R[]): void {
    if (this.failure !== undefined) {
      throw new SluiceError('state', `guest ${this.#guest} has failed: ${this.failure}`);
    }
    if (!this.drained) {
      throw new SluiceError('state', `guest ${this.#guest} has work on its way`, {
        remedy: 'stop it first',
      });
    }
    this.#roles = make();
  }

  poll(): number {
    const roles = this.#roles;
    let work = 0;
    try {
      for (let i = 0; i < roles.length; i++) work += (roles[i] as R).poll();
    } catch (error) {
      this.fail(describeError(error));
    }
    return work;
  }

  arm(): boolean {
    let pending = false;
    try {
      for (const role of this.#roles) pending = role.arm() || pending;
    } catch (error) {
      this.fail(describeError(error));
    }
    return pending;
  }

  disarm(): void {
    // The loop tells whom it has armed, even if that has failed since.
    if (this.failure !== undefined) return;
    try {
      for (const role of this.#roles) role.disarm();
    } catch (error) {
      this.fail(describeError(error));
    }
  }

  stop(): void {
    for (const role of this.#roles) role.stop();
  }

  /** True once the device has done all that it was given. */
  get drained(): boolean {
    return this.failure !== undefined || this.#roles.every((role) => role.drained);
  }

  fail(reason: string): void {
    if (this.failure !== undefined) return;
    this.failure = reason;
    this.#loop.removePoller(this);
    this.#onLost(reason);
  }

  end(): void {
    this.#loop.removePoller(this);
  }
}
