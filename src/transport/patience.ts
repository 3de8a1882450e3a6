/** How a client waits for what its peer answers: for so long, and asleep where it can. */
import { SluiceError } from '../base/errors.ts';
import { monotonicNs } from '../os/clock.ts';
import { PollFd } from '../os/poll-fd.ts';
import type { ByteChannel } from './channel.ts';

/** Longest wait for an answer, in milliseconds. */
const DEFAULT_TIMEOUT_MS = 5000;
/** Longest sleep before the time is looked at, in milliseconds. */
const MAX_SLEEP_MS = 1000;

export interface PatienceOptions {
  /** Longest wait for an answer, in milliseconds; default 5000. */
  readonly timeoutMs?: number;
  /** Called instead of sleeping: has the peer, in this very thread, go on. */
  readonly pump?: () => void;
}

export class Patience {
  readonly #peer: string;
  readonly #waiter: PollFd;
  readonly #timeoutMs: number;
  readonly #pump: (() => void) | undefined;

  /** @param peer what errors call the other side */
  constructor(peer: string, channel: ByteChannel, options: PatienceOptions) {
    this.#peer = peer;
    this.#waiter = new PollFd(channel.fd);
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#pump = options.pump;
  }

  /** Until when an answer to what is asked now may come. */
  deadline(): number {
    return monotonicNs() + this.#timeoutMs * 1e6;
  }

  /**
   * Lets time pass until the peer may have done something.
   * @throws SluiceError `state` if the deadline has passed
   */
  wait(deadline: number): void {
    const left = (deadline - monotonicNs()) / 1e6;
    if (left <= 0) {
      throw new SluiceError('state', `${this.#peer} has not answered for ${this.#timeoutMs} ms`);
    }
    if (this.#pump !== undefined) this.#pump();
    else this.#waiter.wait(Math.min(Math.ceil(left), MAX_SLEEP_MS));
  }

  goneError(): SluiceError {
    return new SluiceError('state', `${this.#peer} has closed the connection`);
  }
}
