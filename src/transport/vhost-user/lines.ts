/** How a ring's kicks come in. The line owns its descriptor. */

import { EPOLLET, EPOLLIN } from '../../os/epoll.ts';
import { closeFd, drainEventFd, setNonBlocking, signalKind } from '../../os/fd.ts';
import type { PollLoop, Timer } from '../../os/poll-loop.ts';
import { refuseKind } from '../signal-line.ts';

/** How often a ring is looked at that has no kick descriptor, while the loop sleeps. */
export const POLLED_RING_US = 1000;

/** Most kicks that are read from a pipe at once. */
const READS_PER_KICK = 64;

/** Wakes the loop when the driver kicks. */
export class KickLine {
  readonly #loop: PollLoop;
  readonly #onKick: () => void;
  #fd = -1;
  #timer: Timer | undefined;
  #isSet = false;

  constructor(loop: PollLoop, onKick: () => void) {
    this.#loop = loop;
    this.#onKick = onKick;
  }

  /** The front-end has said how it kicks. */
  get isSet(): boolean {
    return this.#isSet;
  }

  /** Waits on a descriptor, which is the line's from now on even if this fails. */
  attach(fd: number): void {
    this.clear();
    try {
      const kind = signalKind(fd);
      if (kind === 'other') refuseKind('kick', 'eventfd or pipe');
      const isPipe = kind === 'pipe';
      if (isPipe) setNonBlocking(fd);
      // Edge-triggered, an eventfd need not be read: User-Mode Linux passes a blocking one. A pipe
      // must be, or its writer would block; and one whose writer has gone is told of once.
      this.#loop.epoll.add(fd, EPOLLIN | EPOLLET, () => {
        if (isPipe) for (let i = 0; i < READS_PER_KICK && drainEventFd(fd); i++);
        this.#onKick();
      });
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    this.#fd = fd;
    this.#isSet = true;
  }

  /** The front-end will not kick: the loop looks at the ring from time to time. */
  attachPolling(): void {
    this.clear();
    this.#isSet = true;
    const wake = (): void => {
      this.#timer = this.#loop.setTimer(POLLED_RING_US, wake);
    };
    wake();
  }

  clear(): void {
    this.#isSet = false;
    this.#timer?.cancel();
    this.#timer = undefined;
    const fd = this.#fd;
    this.#fd = -1;
    if (fd === -1) return;
    this.#loop.epoll.remove(fd);
    closeFd(fd);
  }
}
