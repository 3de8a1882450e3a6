/** A fence around one device's code: what it throws ends the device, not the lane. */
import type { Poller } from '../os/poll-loop.ts';

/**
 * Polls `inner` until it throws; then `onFailure` is called, once, and `inner` is left alone.
 */
export class GuardedPoller implements Poller {
  readonly #inner: Poller;
  readonly #onFailure: (error: unknown) => void;
  #failed = false;

  constructor(inner: Poller, onFailure: (error: unknown) => void) {
    this.#inner = inner;
    this.#onFailure = onFailure;
  }

  get failed(): boolean {
    return this.#failed;
  }

  poll(): number {
    if (this.#failed) return 0;
    try {
      return this.#inner.poll();
    } catch (error) {
      this.fail(error);
      return 0;
    }
  }

  arm(): boolean {
    if (this.#failed) return false;
    try {
      return this.#inner.arm();
    } catch (error) {
      this.fail(error);
      return false;
    }
  }

  disarm(): void {
    if (this.#failed) return;
    try {
      this.#inner.disarm();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Ends it for what its code threw elsewhere than in its turns. */
  fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#onFailure(error);
  }
}
