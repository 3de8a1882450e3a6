import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { getHeapStatistics } from 'node:v8';
import { silentLogger as log } from '../base/log.ts';
import { ioUringRefusal } from '../os/io-uring.ts';
import { FileDisk } from './file.ts';
import { openFileDisk } from './open/file.ts';
import { DISK_READ, DISK_WRITE, RequestTable } from './requests.ts';
import { testLane } from './testing.ts';

const DEPTH = 64;
const ROUND = 64_000;
const BLOCK = 512;
/** A number on the heap takes 12 bytes or more. A burst may cost a few, for its system call. */
const LIMIT = 8;

for (const segments of [1, 3]) {
  test(`nothing is allocated for a request of ${segments} segments`, {
    skip: ioUringRefusal() ?? false,
  }, async (t) => {
    const directory = mkdtempSync('/dev/shm/sluice-file-');
    t.after(() => rmSync(directory, { recursive: true }));
    const path = join(directory, 'image');
    writeFileSync(path, '');
    // Offsets beyond 2^32 are numbers that do not fit a small integer.
    truncateSync(path, 2 ** 40);
    const { arena, loop } = testLane();
    const disk = new FileDisk(await openFileDisk({ name: 'root', path, log }), testLane());
    const table = new RequestTable(arena, DEPTH, segments);
    const memory = arena.allocate(DEPTH * segments * BLOCK);
    const addresses = Float64Array.from({ length: DEPTH }, (_, i) => memory + i * segments * BLOCK);
    let done = 0;
    let failed = 0;
    const sink = {
      complete: (_slot: number, result: number): void => {
        done++;
        if (result !== 0) failed++;
      },
    };
    const queue = disk.open({ requests: table, sink, loop });
    const run = (): void => {
      for (let i = 0; i < ROUND; i += DEPTH) {
        for (let slot = 0; slot < DEPTH; slot++) {
          const op = (slot & 1) === 0 ? DISK_READ : DISK_WRITE;
          table.begin(slot, op, 0, 0, segments * BLOCK);
          table.offset[slot] = (slot & 7) * 2 ** 36 + slot * 4096;
          for (let k = 0; k < segments; k++) table.addFrom(slot, addresses, slot, k * BLOCK, BLOCK);
          queue.submit(slot);
        }
        queue.flush();
        while (queue.inFlight > 0) queue.poll();
      }
    };
    let perRequest = Number.POSITIVE_INFINITY;
    let attempts = 0;
    for (; perRequest >= LIMIT && attempts < 10; attempts++) {
      const before = getHeapStatistics().total_allocated_bytes;
      run();
      perRequest = (getHeapStatistics().total_allocated_bytes - before) / ROUND;
    }
    t.diagnostic(`${perRequest} bytes a request`);
    assert.ok(perRequest < LIMIT, `${perRequest} bytes a request`);
    assert.equal(done, attempts * ROUND);
    assert.equal(failed, 0);
    queue.close();
    disk.close();
    table.release();
    arena.unmap(memory, DEPTH * segments * BLOCK);
  });
}
