/** A device's way to its disk: what was submitted is sent once a turn. */
import type { DiskQueue } from '../../block/disk.ts';

export class Submitter {
  private readonly queue: DiskQueue;
  /** Something was submitted since {@link send}. */
  private pending = false;

  constructor(queue: DiskQueue) {
    this.queue = queue;
  }

  submit(slot: number): void {
    this.queue.submit(slot);
    this.pending = true;
  }

  /** Sends on its way what was submitted since the last time. */
  send(): void {
    if (!this.pending) return;
    this.pending = false;
    this.queue.flush();
  }
}
