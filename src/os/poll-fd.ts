/** Waiting for one descriptor alone: poll(2). */
import { EBADF, EFAULT, EINVAL, ENOMEM, errno, libc, pinned, systemError } from './libc.ts';

const POLLIN = 0x001;
const POLLRDHUP = 0x2000;

/**
 * Whether a wait that failed was only interrupted, which io_uring does often. Anything but what poll(2) and
 * epoll_wait(2) fail with else is taken for it: see `errno`.
 */
export function wasInterrupted(number: number): boolean {
  return number !== EBADF && number !== EFAULT && number !== EINVAL && number !== ENOMEM;
}

/**
 * A descriptor that is waited for again and again: until it can be read, or the other end has gone. Negative:
 * none, and only time passes. A receive that waits would be woken whenever the other end has read, too.
 */
export class PollFd {
  /** struct pollfd: fd 4, events 2, revents 2. */
  readonly #memory = pinned(8);
  /** A struct timespec. */
  readonly #time = pinned(16);
  readonly #timespec = new BigInt64Array(this.#time.buffer);
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
    const view = new DataView(this.#memory.buffer);
    view.setInt32(0, fd, true);
    view.setInt16(4, POLLIN | POLLRDHUP, true);
  }

  /**
   * Sleeps for so many milliseconds at most (0: only looks). True if there is something. A call of three
   * arguments: it allocates nothing.
   */
  wait(ms: number): boolean {
    return this.#isReady(libc.poll(this.#memory.address, 1, ms), errno[0]);
  }

  /** The same for so many nanoseconds: less than a second. */
  waitNs(nanoseconds: number): boolean {
    this.#timespec[1] = BigInt(Math.ceil(nanoseconds));
    return this.#isReady(libc.ppoll(this.#memory.address, 1, this.#time.address, 0n), errno[0]);
  }

  #isReady(result: number, number: number): boolean {
    if (result !== -1) return result > 0;
    if (wasInterrupted(number)) return false;
    throw systemError('poll', `fd ${this.#fd}`);
  }
}
