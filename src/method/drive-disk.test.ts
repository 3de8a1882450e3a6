import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Disk, DiskInfo, DiskQueue, DiskQueueOptions } from '../block/disk.ts';
import { MemoryDisk } from '../block/memory.ts';
import { DISK_FLUSH, DISK_READ, DISK_WRITE, REQUEST_FUA, RequestTable } from '../block/requests.ts';
import { testDisk, testLane } from '../block/testing.ts';
import { newBlockCounters } from '../device/virtio-blk/counters.ts';
import { DriveDisk } from './drive-disk.ts';

const EIO = 5;
const ENOSPC = 28;

testDisk(
  'a drive',
  ({ lane, readonly }) =>
    new DriveDisk(
      new MemoryDisk({ kind: 'memory', name: 'mem', bytes: 1024 * 1024, readonly }, lane),
      { counters: newBlockCounters(), writeback: true, discard: true },
    ),
  { persistent: false, runs: 5 },
);

/** A disk that keeps what it is given, and completes it as the test says. */
class Held implements Disk {
  readonly name = 'held';
  info: DiskInfo = {
    bytes: 4096,
    readonly: false,
    blockBytes: 512,
    physicalBlockBytes: 512,
    optimalBytes: 0,
    discardBytes: 512,
    writeZeroes: true,
    volatileCache: true,
  };
  options: DiskQueueOptions | undefined;
  readonly flags: number[] = [];

  onChange(): { readonly remove: () => void } {
    return { remove: () => undefined };
  }

  open(options: DiskQueueOptions): DiskQueue {
    this.options = options;
    return {
      inFlight: 0,
      submit: (slot) => this.flags.push(options.requests.flags[slot] as number),
      flush: () => undefined,
      poll: () => 0,
      arm: () => false,
      disarm: () => undefined,
      close: () => undefined,
    };
  }

  close(): void {
    this.options = undefined;
  }
}

test('requests are counted as they end, writes made durable, discarding is not offered', () => {
  const { arena, loop } = testLane();
  const requests = new RequestTable(arena, 2, 1);
  const base = new Held();
  const counters = newBlockCounters();
  const drive = new DriveDisk(base, { counters, writeback: false, discard: false });
  assert.equal(drive.info.discardBytes, 0);
  const told: number[] = [];
  const queue = drive.open({
    requests,
    loop,
    sink: { complete: (_, result) => told.push(result) },
  });
  for (const [op, result] of [
    [DISK_READ, 0],
    [DISK_WRITE, 0],
    [DISK_FLUSH, 0],
    [DISK_WRITE, -EIO],
    [DISK_WRITE, -ENOSPC],
  ] as const) {
    requests.begin(0, op, 0, 0, op === DISK_FLUSH ? 0 : 1024);
    queue.submit(0);
    base.options?.sink.complete(0, result);
  }
  assert.deepEqual(base.flags, [0, REQUEST_FUA, 0, REQUEST_FUA, REQUEST_FUA]);
  assert.deepEqual(told, [0, 0, 0, -EIO, -ENOSPC]);
  const counted = Object.entries(counters.snapshot()).filter(([, count]) => count > 0);
  assert.deepEqual(Object.fromEntries(counted), {
    reads: 1,
    read_bytes: 1024,
    writes: 1,
    write_bytes: 1024,
    flushes: 1,
    error_io: 1,
    error_no_space: 1,
  });
  // A resize is seen.
  base.info = { ...base.info, bytes: 8192 };
  assert.equal(drive.info.bytes, 8192);
  requests.release();
});
