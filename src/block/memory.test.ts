import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { SluiceError } from '../base/errors.ts';
import { MemoryDisk } from './memory.ts';
import { DISK_READ, DISK_WRITE } from './requests.ts';
import { DiskClient, testDisk, testLane } from './testing.ts';

const MiB = 1024 * 1024;
const lane = testLane();

testDisk(
  'memory',
  ({ lane, bytes, readonly }) =>
    new MemoryDisk({ kind: 'memory', name: 'mem', bytes, readonly }, lane),
  { persistent: false },
);

testDisk(
  'memory with blocks of 4 KiB',
  ({ lane, bytes, readonly }) =>
    new MemoryDisk({ kind: 'memory', name: 'mem', bytes, readonly, blockBytes: 4096 }, lane),
  { persistent: false },
);

/** KiB that the memory files named `sluice-disk` take (proc_pid_smaps(5)). */
function residentKiB(): number {
  let kib = 0;
  let counts = false;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) counts = line.includes('/memfd:sluice-disk');
    else if (counts && line.startsWith('Rss:')) kib += Number(line.split(/\s+/)[1]);
  }
  return kib;
}

test('takes memory for what is written only, and gives it back', async () => {
  const before = residentKiB();
  const disk = new MemoryDisk({ kind: 'memory', name: 'mem', bytes: 256 * MiB }, lane);
  const client = new DiskClient(disk, lane);
  await client.read(200 * MiB, MiB);
  await client.write(0, Buffer.alloc(16 * MiB, 1));
  const full = residentKiB() - before;
  assert.ok(full >= 16 * 1024, `${full} KiB after writing 16 MiB`);
  await client.discard(0, 16 * MiB);
  const discarded = residentKiB() - before;
  assert.ok(discarded <= full - 15 * 1024, `${discarded} KiB of ${full} KiB after a discard`);
  await client.write(0, Buffer.alloc(16 * MiB, 1));
  await client.writeZeroes(0, 16 * MiB);
  const zeroed = residentKiB() - before;
  assert.ok(zeroed <= full - 15 * 1024, `${zeroed} KiB of ${full} KiB after writing zeroes`);
  client.close();
  disk.close();
  assert.equal(residentKiB(), before);
});

test('is not closed while a device uses it', () => {
  const disk = new MemoryDisk({ kind: 'memory', name: 'mem', bytes: MiB }, lane);
  const client = new DiskClient(disk, lane);
  assert.throws(
    () => disk.close(),
    (error) => error instanceof SluiceError && error.code === 'state',
  );
  client.close();
  disk.close();
});

test('sends nothing before the burst is flushed', () => {
  const disk = new MemoryDisk({ kind: 'memory', name: 'mem', bytes: MiB }, lane);
  const client = new DiskClient(disk, lane);
  let done = 0;
  client.submit({ op: DISK_WRITE, bytes: 512, data: Buffer.alloc(512), done: () => done++ });
  assert.equal(client.queue.poll(), 0);
  assert.equal(client.queue.arm(), false);
  client.queue.flush();
  assert.equal(client.queue.arm(), true);
  client.queue.disarm();
  client.submit({ op: DISK_READ, bytes: 512, done: () => done++ });
  assert.equal(client.poll(), 1);
  assert.equal(client.poll(), 1);
  assert.equal(done, 2);
  client.close();
  disk.close();
});

test('refuses sizes that it cannot have', () => {
  for (const bytes of [0, -512, 513, Number.NaN, 2 ** 52]) {
    assert.throws(
      () => new MemoryDisk({ kind: 'memory', name: 'mem', bytes }, lane),
      (error) =>
        error instanceof SluiceError && error.code === 'config' && /mem/.test(error.message),
    );
  }
  assert.throws(
    () => new MemoryDisk({ kind: 'memory', name: 'mem', bytes: 512, blockBytes: 4096 }, lane),
    SluiceError,
  );
});
