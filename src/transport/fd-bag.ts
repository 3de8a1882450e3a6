/** File descriptors that came with a message and have no owner yet. */
import { closeFd } from '../os/fd.ts';

/**
 * Owns descriptors until somebody takes them. Whoever makes a bag closes it in a `finally`: what was
 * not taken by then is closed.
 */
export class FdBag {
  #fds: number[];

  constructor(fds: readonly number[] = []) {
    this.#fds = [...fds];
  }

  get count(): number {
    return this.#fds.length;
  }

  add(fds: readonly number[]): void {
    this.#fds.push(...fds);
  }

  /** The descriptor at `index`, still owned by the bag. */
  peek(index: number): number {
    const fd = this.#fds[index];
    if (fd === undefined) throw new RangeError(`descriptor ${index} of ${this.#fds.length}`);
    return fd;
  }

  /** The first descriptor, or -1 without one; from now on the caller's to close. */
  take(): number {
    return this.#fds.shift() ?? -1;
  }

  close(): void {
    const fds = this.#fds;
    this.#fds = [];
    for (const fd of fds) closeFd(fd);
  }
}
