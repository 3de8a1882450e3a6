/** Waiting for one descriptor alone: poll(2). */
import { check, EINTR, errno, libc, pinned } from './libc.ts';

const POLLIN = 0x001;
const POLLRDHUP = 0x2000;

/**
 * A descriptor that is waited for again and again: until it can be read, or the other end has gone. Negative:
 * none, and only time passes. A receive that waits would be woken whenever the other end has read, too.
 */
export class PollFd {
  /** struct pollfd: fd 4, events 2, revents 2. */
  readonly #memory = pinned(8);
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
    const view = new DataView(this.#memory.buffer);
    view.setInt32(0, fd, true);
    view.setInt16(4, POLLIN | POLLRDHUP, true);
  }

  /** Sleeps for so many milliseconds at most. True if there is something. */
  wait(ms: number): boolean {
    const ready = libc.poll(this.#memory.address, 1, ms);
    if (ready === -1 && errno() === EINTR) return false;
    return check(ready, 'poll', `fd ${this.#fd}`) > 0;
  }
}
