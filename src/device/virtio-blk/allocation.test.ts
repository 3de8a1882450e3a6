import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapStatistics } from 'node:v8';
import type { DiskQueue, DiskQueueOptions } from '../../block/disk.ts';
import { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from '../../spec/virtio-blk.ts';
import { BlkGuest, FakeDisk } from './testing.ts';

const DEPTH = 8;
const ROUND = 100_000;
/**
 * A number on the heap takes 12 bytes or more. The statistics count memory that is set aside as
 * allocated, up to half a megabyte: less than this, spread over a round.
 */
const LIMIT = 8;

/** Does nothing, without allocating anything. */
class NullQueue implements DiskQueue {
  inFlight = 0;
  readonly #slots = new Uint16Array(256);
  readonly #options: DiskQueueOptions;

  constructor(options: DiskQueueOptions) {
    this.#options = options;
  }

  submit(slot: number): void {
    this.#slots[this.inFlight++] = slot;
  }

  flush(): void {
    // Everything is done when it is polled.
  }

  poll(): number {
    const count = this.inFlight;
    this.inFlight = 0;
    for (let i = 0; i < count; i++) this.#options.sink.complete(this.#slots[i] as number, 0);
    return count;
  }

  arm(): boolean {
    return this.inFlight > 0;
  }

  disarm(): void {
    // Nothing was armed.
  }

  close(): void {
    assert.equal(this.inFlight, 0);
  }
}

class NullDisk extends FakeDisk {
  override open(options: DiskQueueOptions): DiskQueue {
    return new NullQueue(options);
  }
}

for (const packed of [false, true]) {
  test(`nothing is allocated for a request, ${packed ? 'packed' : 'split'} ring`, () => {
    const ring = { packed, size: 64, indirect: true, indirectLength: 64 };
    const guest = new BlkGuest({ disk: new NullDisk(), ring });
    const { queue } = guest;
    const { driver } = queue.pair;
    const requests = [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT].map((type) => {
      const at = queue.take(4096 + 17);
      const header = Buffer.alloc(16);
      header.writeUInt32LE(type, 0);
      queue.write(at, header);
      return queue.segments(at, 16, 4096, type === VIRTIO_BLK_T_IN);
    });
    const [read, write] = requests;
    assert.ok(read && write);
    const run = (): void => {
      for (let i = 0; i < ROUND; i += DEPTH) {
        for (let k = 0; k < DEPTH; k++) driver.addChain((k & 1) === 0 ? read : write, true);
        driver.publish();
        guest.device.poll();
        driver.collectUsed(DEPTH);
      }
    };
    // Until the engine has compiled everything, which takes as long as it takes.
    let perRequest = Number.POSITIVE_INFINITY;
    let attempts = 0;
    for (; perRequest >= LIMIT && attempts < 10; attempts++) {
      const before = getHeapStatistics().total_allocated_bytes;
      run();
      perRequest = (getHeapStatistics().total_allocated_bytes - before) / ROUND;
    }
    assert.ok(perRequest < LIMIT, `${perRequest} bytes a request`);
    assert.equal(guest.counter('reads'), (attempts * ROUND) / 2);
    assert.equal(guest.counter('writes'), (attempts * ROUND) / 2);
    guest.close();
  });
}
