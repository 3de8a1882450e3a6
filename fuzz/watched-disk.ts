/**
 * A disk that watches what it is asked for: each request must be one that the interface allows, in
 * memory of the guest, in a slot of its own. It can hold requests back, and lose its device.
 */
import assert from 'node:assert/strict';
import type { Disk, DiskInfo, DiskQueue, DiskQueueOptions } from '../src/block/disk.ts';
import { DISK_READ, DISK_WRITE, type RequestTable } from '../src/block/requests.ts';

export class WatchedDisk implements Disk {
  /** Nothing completes. */
  held = false;
  /** Requests on their way. */
  inFlight = 0;
  readonly #disk: Disk;
  readonly #mayUse: (address: number, length: number, write: boolean) => boolean;
  #queues: WatchedQueue[] = [];

  /** @param mayUse whether the disk may read memory, or write it */
  constructor(disk: Disk, mayUse: (address: number, length: number, write: boolean) => boolean) {
    this.#disk = disk;
    this.#mayUse = mayUse;
  }

  get name(): string {
    return this.#disk.name;
  }

  get info(): DiskInfo {
    return this.#disk.info;
  }

  onChange(listener: () => void): { readonly remove: () => void } {
    return this.#disk.onChange(listener);
  }

  open(options: DiskQueueOptions): DiskQueue {
    const queue = new WatchedQueue(this, this.#disk, options);
    this.#queues.push(queue);
    return queue;
  }

  /** The devices are gone, as when their process is killed: nobody is told of what completes. */
  abandon(): void {
    for (const queue of this.#queues) queue.abandoned = true;
    this.#queues = [];
  }

  /** Whether a request on its way has memory there. */
  uses(isThere: (address: number) => boolean): boolean {
    return this.#queues.some((queue) => queue.uses(isThere));
  }

  close(): void {
    this.#disk.close();
  }

  /** For {@link WatchedQueue}. */
  check(table: RequestTable, slot: number): void {
    const op = table.op[slot] as number;
    const { bytes, readonly, blockBytes } = this.info;
    const offset = table.offset[slot] as number;
    const length = table.bytes[slot] as number;
    assert.ok(offset >= 0 && length >= 0 && offset + length <= bytes, 'beyond the disk');
    assert.ok(offset % blockBytes === 0 && length % blockBytes === 0, 'not in whole blocks');
    assert.ok(!readonly || op === DISK_READ || length === 0, 'a change of a readonly disk');
    if (op !== DISK_READ && op !== DISK_WRITE) return;
    let total = 0;
    for (let k = 0; k < (table.count[slot] as number); k++) {
      const address = table.address[slot * table.segments + k] as number;
      const part = table.length[slot * table.segments + k] as number;
      const isGood: boolean = part > 0 && this.#mayUse(address, part, op === DISK_READ);
      assert.ok(isGood, 'memory that is not the guest’s');
      total += part;
    }
    assert.equal(total, length, 'segments that are not the range');
  }
}

class WatchedQueue implements DiskQueue {
  abandoned = false;
  readonly #watched: WatchedDisk;
  readonly #requests: RequestTable;
  readonly #queue: DiskQueue;
  readonly #slots = new Set<number>();

  constructor(watched: WatchedDisk, disk: Disk, options: DiskQueueOptions) {
    this.#watched = watched;
    this.#requests = options.requests;
    this.#queue = disk.open({
      ...options,
      sink: {
        complete: (slot, result) => {
          assert.ok(this.#slots.delete(slot), 'a completion of what is not on its way');
          watched.inFlight--;
          if (!this.abandoned) options.sink.complete(slot, result);
        },
      },
    });
  }

  get inFlight(): number {
    return this.#slots.size;
  }

  uses(isThere: (address: number) => boolean): boolean {
    const { op, count, address, segments } = this.#requests;
    for (const slot of this.#slots) {
      if (op[slot] !== DISK_READ && op[slot] !== DISK_WRITE) continue;
      for (let k = 0; k < (count[slot] as number); k++) {
        if (isThere(address[slot * segments + k] as number)) return true;
      }
    }
    return false;
  }

  submit(slot: number): void {
    assert.ok(!this.#slots.has(slot), 'a slot that is on its way already');
    this.#watched.check(this.#requests, slot);
    this.#slots.add(slot);
    this.#watched.inFlight++;
    this.#queue.submit(slot);
  }

  flush(): void {
    this.#queue.flush();
  }

  poll(): number {
    return this.#watched.held ? 0 : this.#queue.poll();
  }

  arm(): boolean {
    return this.#queue.arm();
  }

  disarm(): void {
    this.#queue.disarm();
  }

  close(): void {
    assert.equal(this.inFlight, 0);
    this.#queue.close();
  }
}
