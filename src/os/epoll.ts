/** Waiting for descriptors: epoll(7). */
import { closeFd } from './fd.ts';
import { check, errno, libc, pinned, systemError } from './libc.ts';
import { PollFd, wasInterrupted } from './poll-fd.ts';

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

export const EPOLLIN = 0x001;
export const EPOLLOUT = 0x004;
export const EPOLLHUP = 0x010;
export const EPOLLRDHUP = 0x2000;
/** Reports a change once. An eventfd then never needs to be read: each write is a new event. */
export const EPOLLET = 0x8000_0000;

// struct epoll_event is packed on x86-64 only (uapi/linux/eventpoll.h).
const PACKED = process.arch === 'x64';
const EVENT_BYTES = PACKED ? 12 : 16;
const DATA_OFFSET = PACKED ? 4 : 8;

const MAX_EVENTS = 64;

export type EpollHandler = (events: number) => void;

/**
 * A set of descriptors, each with what to do when it is ready. `wait` calls the handlers.
 * A handler may add and remove descriptors, its own included.
 */
export class Epoll {
  readonly fd: number;
  readonly #handlers = new Map<number, EpollHandler>();
  /** Guards against a descriptor number reused within one round of events. */
  readonly #eventMemory = pinned(EVENT_BYTES * MAX_EVENTS);
  readonly #events = new DataView(this.#eventMemory.buffer);
  /**
   * The set as a descriptor that is waited for: a look that finds nothing, as a busy loop takes thousands
   * a second, then allocates nothing.
   */
  readonly #self: PollFd;
  readonly #change = new DataView(new ArrayBuffer(EVENT_BYTES));
  readonly #changeBytes = new Uint8Array(this.#change.buffer);
  readonly #generations = new Map<number, number>();
  #generation = 0;

  constructor() {
    this.fd = check(libc.epoll_create1(EPOLL_CLOEXEC), 'epoll_create1', '');
    this.#self = new PollFd(this.fd);
  }

  add(fd: number, events: number, handler: EpollHandler): void {
    this.#generation = (this.#generation + 1) >>> 0;
    this.#control(EPOLL_CTL_ADD, fd, events, this.#generation);
    this.#generations.set(fd, this.#generation);
    this.#handlers.set(fd, handler);
  }

  /** Changes which events are waited for. */
  modify(fd: number, events: number): void {
    this.#control(EPOLL_CTL_MOD, fd, events, this.#generations.get(fd) ?? 0);
  }

  /** Must come before the descriptor is closed. */
  remove(fd: number): void {
    this.#handlers.delete(fd);
    this.#generations.delete(fd);
    this.#control(EPOLL_CTL_DEL, fd, 0, 0);
  }

  has(fd: number): boolean {
    return this.#handlers.has(fd);
  }

  /**
   * Waits until something is ready or `timeout` milliseconds passed (0: only looks; -1: for
   * ever) and calls the handlers. Returns how many descriptors were ready.
   */
  wait(timeout: number): number {
    if (timeout === 0 && !this.#self.wait(0)) return 0;
    return this.#take(timeout);
  }

  /** Waits as {@link wait} does, for at most so many nanoseconds: less than a second. */
  waitNs(nanoseconds: number): number {
    return this.#self.waitNs(nanoseconds) ? this.#take(0) : 0;
  }

  close(): void {
    this.#handlers.clear();
    closeFd(this.fd);
  }

  #take(timeout: number): number {
    const count = libc.epoll_wait(this.fd, this.#eventMemory.address, MAX_EVENTS, timeout);
    if (count === -1) {
      if (wasInterrupted(errno[0])) return 0;
      throw systemError('epoll_wait', `fd ${this.fd}`);
    }
    for (let i = 0; i < count; i++) {
      const at = i * EVENT_BYTES;
      const events = this.#events.getUint32(at, true);
      const fd = this.#events.getInt32(at + DATA_OFFSET, true);
      const generation = this.#events.getUint32(at + DATA_OFFSET + 4, true);
      if (this.#generations.get(fd) === generation) this.#handlers.get(fd)?.(events);
    }
    return count;
  }

  #control(operation: number, fd: number, events: number, generation: number): void {
    this.#change.setUint32(0, events, true);
    this.#change.setInt32(DATA_OFFSET, fd, true);
    this.#change.setUint32(DATA_OFFSET + 4, generation, true);
    check(libc.epoll_ctl(this.fd, operation, fd, this.#changeBytes), 'epoll_ctl', `fd ${fd}`);
  }
}
