import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { PollLoop } from '../os/poll-loop.ts';
import type { DiskLane } from './disk.ts';
import { type DiskLimits, LimitedDisk } from './limits.ts';
import { MemoryDisk } from './memory.ts';
import { DISK_DISCARD, DISK_FLUSH, DISK_READ, DISK_WRITE, DISK_WRITE_ZEROES } from './requests.ts';
import { DiskClient, testDisk, testLane } from './testing.ts';

const MiB = 1024 * 1024;
const SECOND = 1e9;

const memory = (lane: DiskLane, readonly = false): MemoryDisk =>
  new MemoryDisk({ kind: 'memory', name: 'mem', bytes: MiB, readonly }, lane);

testDisk(
  'limits that hold nothing up',
  ({ lane, readonly }) => new LimitedDisk(memory(lane, readonly), { iops: 1e9, bps: 1e15 }),
  { persistent: false },
);
testDisk(
  'limits that hold everything up',
  ({ lane, readonly }) =>
    new LimitedDisk(memory(lane, readonly), {
      iops: 50_000,
      iopsWrite: 20_000,
      bpsRead: 1e9,
      burst: 1e-6,
    }),
  { persistent: false, runs: 5 },
);
testDisk(
  'limits on reads',
  ({ lane, readonly }) =>
    new LimitedDisk(memory(lane, readonly), { iopsRead: 20_000, burst: 1e-6 }),
  { persistent: false, runs: 5 },
);

/** A limited disk on a loop whose clock is the test's. */
function limited(limits: DiskLimits, slots = 16): { client: DiskClient; loop: PollLoop } {
  const loop = new PollLoop();
  const lane = { arena: testLane().arena, loop, log: silentLogger };
  const client = new DiskClient(new LimitedDisk(memory(lane), limits), lane, { slots });
  loop.now = SECOND;
  client.queue.flush();
  return { client, loop };
}

/** Polls until nothing more happens at this moment. */
function settle(client: DiskClient): number {
  let count = 0;
  client.queue.flush();
  for (let quiet = 0; quiet < 2; ) {
    const polled = client.poll();
    count += polled;
    quiet = polled === 0 ? quiet + 1 : 0;
  }
  return count;
}

function end(client: DiskClient, loop: PollLoop): void {
  for (let i = 0; client.inFlight > 0; i++) {
    assert.ok(i < 1000, 'what waits passes some time');
    loop.now += 100 * SECOND;
    settle(client);
  }
  client.close();
  client.disk.close();
  loop.close();
}

test('a burst passes at once, the rest at its rate', () => {
  const { client, loop } = limited({ iops: 10, burst: 0.5 });
  const read = { op: DISK_READ, bytes: 512 };
  for (let i = 0; i < 9; i++) client.submit(read);
  assert.equal(settle(client), 5);
  assert.equal(client.queue.inFlight, 4);
  loop.now += SECOND / 10;
  assert.equal(settle(client), 1);
  // While there are tokens at all, something passes; it is paid for afterwards.
  loop.now += SECOND / 20;
  assert.equal(settle(client), 1);
  loop.now += SECOND / 20;
  assert.equal(settle(client), 0);
  end(client, loop);
});

test('bytes are counted, and those of a large request paid for afterwards', () => {
  const { client, loop } = limited({ bps: 4096, burst: 0.5 });
  client.submit({ op: DISK_WRITE, bytes: 8192, data: Buffer.alloc(8192) });
  client.submit({ op: DISK_READ, bytes: 512 });
  assert.equal(settle(client), 1);
  loop.now += 1.4 * SECOND;
  assert.equal(settle(client), 0);
  loop.now += 0.2 * SECOND;
  assert.equal(settle(client), 1);
  end(client, loop);
});

test('reads and writes are limited apart, and none holds the other up', () => {
  const { client, loop } = limited({ iopsWrite: 1 });
  const order: string[] = [];
  const write = (): number =>
    client.submit({
      op: DISK_WRITE,
      bytes: 512,
      data: Buffer.alloc(512),
      done: () => order.push('w'),
    });
  const read = (): number =>
    client.submit({ op: DISK_READ, bytes: 512, done: () => order.push('r') });
  write();
  write();
  read();
  write();
  read();
  settle(client);
  assert.deepEqual(order.toSorted(), ['r', 'r', 'w']);
  loop.now += SECOND;
  settle(client);
  assert.deepEqual(order.at(-1), 'w');
  assert.equal(client.inFlight, 1);
  end(client, loop);

  const both = limited({ iopsRead: 1, iopsWrite: 1 });
  for (const op of [DISK_READ, DISK_READ, DISK_WRITE_ZEROES, DISK_WRITE_ZEROES]) {
    both.client.submit({ op, bytes: 512 });
  }
  assert.equal(settle(both.client), 2);
  end(both.client, both.loop);

  const reads = limited({ bpsRead: 512 });
  for (const op of [DISK_READ, DISK_READ, DISK_WRITE_ZEROES, DISK_DISCARD, DISK_FLUSH]) {
    reads.client.submit({ op, bytes: op === DISK_FLUSH ? 0 : 512 });
  }
  assert.equal(settle(reads.client), 4);
  end(reads.client, reads.loop);
});

test('a flush waits behind the writes before it and costs nothing', () => {
  const { client, loop } = limited({ iops: 2, burst: 0.5 });
  const order: string[] = [];
  const flush = (name: string): number =>
    client.submit({ op: DISK_FLUSH, done: () => order.push(name) });
  const write = (name: string): number =>
    client.submit({
      op: DISK_WRITE,
      bytes: 512,
      data: Buffer.alloc(512),
      done: () => order.push(name),
    });
  flush('f0');
  write('w1');
  flush('f1');
  write('w2');
  flush('f2');
  flush('f3');
  settle(client);
  assert.deepEqual(order, ['f0', 'w1', 'f1']);
  loop.now += SECOND / 2;
  settle(client);
  assert.deepEqual(order, ['f0', 'w1', 'f1', 'w2', 'f2', 'f3']);
  end(client, loop);
});

test('discards and zeroes count as requests, not as bytes', () => {
  const { client, loop } = limited({ bpsWrite: 1024, iopsWrite: 100 });
  client.submit({ op: DISK_DISCARD, bytes: MiB });
  client.submit({ op: DISK_WRITE_ZEROES, bytes: MiB });
  client.submit({ op: DISK_WRITE, bytes: 512, data: Buffer.alloc(512) });
  assert.equal(settle(client), 3);
  end(client, loop);
  const two = limited({ iopsWrite: 2 });
  for (let i = 0; i < 2; i++) {
    two.client.submit({ op: DISK_DISCARD, bytes: 512 });
    two.client.submit({ op: DISK_WRITE_ZEROES, bytes: 512 });
  }
  assert.equal(settle(two.client), 2);
  end(two.client, two.loop);
});

test('the users of a disk share its rate in turn', () => {
  const { client, loop } = limited({ iops: 10, burst: 0.1 }, 64);
  const lane = { arena: testLane().arena, loop, log: silentLogger };
  const other = new DiskClient(client.disk, lane, { slots: 64 });
  for (let i = 0; i < 60; i++) client.submit({ op: DISK_READ, bytes: 512 });
  for (let i = 0; i < 60; i++) other.submit({ op: DISK_READ, bytes: 512 });
  for (let i = 0; i < 40; i++) {
    settle(client);
    settle(other);
    loop.now += SECOND / 10;
  }
  assert.equal(client.completed + other.completed, 40);
  assert.equal(client.completed, other.completed);
  while (other.inFlight > 0) {
    loop.now += SECOND;
    settle(client);
    settle(other);
  }
  other.close();
  end(client, loop);
});

test('no more passes than the rates allow, everything passes in the end, in order', () => {
  const rate = fc.option(fc.integer({ min: 1, max: 10_000 }), { nil: undefined });
  const limits = fc.record({
    iops: rate,
    iopsRead: rate,
    iopsWrite: rate,
    bps: fc.option(fc.integer({ min: 512, max: 10 * MiB }), { nil: undefined }),
    bpsRead: fc.option(fc.integer({ min: 512, max: 10 * MiB }), { nil: undefined }),
    bpsWrite: fc.option(fc.integer({ min: 512, max: 10 * MiB }), { nil: undefined }),
    burst: fc.constantFrom(0.01, 0.1, 1),
  });
  const step = fc.record({
    op: fc.constantFrom(DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD),
    blocks: fc.integer({ min: 1, max: 64 }),
    wait: fc.nat(SECOND / 10),
  });
  fc.assert(
    fc.property(limits, fc.array(step, { maxLength: 60 }), (limit, steps) => {
      const { client, loop } = limited(limit, 64);
      const start = loop.now;
      const passed = { reads: 0, writes: 0, bytesRead: 0, bytesWritten: 0 };
      const order: [number[], number[]] = [[], []];
      let number = 0;
      const check = (): void => {
        const seconds = (loop.now - start) / SECOND;
        const most = (per: number | undefined, largest: number): number =>
          per === undefined
            ? Number.POSITIVE_INFINITY
            : per * (seconds + limit.burst) + largest + 1e-6;
        const { reads, writes, bytesRead, bytesWritten } = passed;
        const largest = 64 * 512;
        assert.ok(reads + writes <= most(limit.iops, 1));
        assert.ok(reads <= most(limit.iopsRead, 1));
        assert.ok(writes <= most(limit.iopsWrite, 1));
        assert.ok(bytesRead + bytesWritten <= most(limit.bps, largest));
        assert.ok(bytesRead <= most(limit.bpsRead, largest));
        assert.ok(bytesWritten <= most(limit.bpsWrite, largest));
      };
      for (const { op, blocks, wait } of steps) {
        const bytes = op === DISK_FLUSH ? 0 : blocks * 512;
        const mine = number++;
        client.submit({
          op,
          bytes,
          ...(op === DISK_WRITE ? { data: Buffer.alloc(bytes) } : {}),
          done: () => {
            order[op === DISK_READ ? 0 : 1].push(mine);
            if (op === DISK_READ) {
              passed.reads++;
              passed.bytesRead += bytes;
            } else if (op !== DISK_FLUSH) {
              passed.writes++;
              passed.bytesWritten += op === DISK_WRITE ? bytes : 0;
            }
          },
        });
        settle(client);
        check();
        loop.now += wait;
        settle(client);
        check();
      }
      end(client, loop);
      for (const list of order)
        assert.deepEqual(
          list,
          list.toSorted((a, b) => a - b),
        );
      assert.equal(order[0].length + order[1].length, steps.length);
    }),
    { numRuns: 60 },
  );
});

test('the lane sleeps while requests wait', async () => {
  const lane = { ...testLane(), loop: new PollLoop() };
  const disk = new LimitedDisk(memory(lane), { iops: 50, burst: 0.001 });
  const client = new DiskClient(disk, lane);
  for (let i = 0; i < 6; i++) client.submit({ op: DISK_READ, bytes: 512 });
  await client.run(() => client.inFlight === 0, { slice: false });
  const { sleeps, turns, busyTurns } = lane.loop;
  // 6 requests, 20 ms apart: a loop that spins takes millions of turns for them.
  assert.ok(sleeps >= 4, `${sleeps} sleeps`);
  assert.equal(busyTurns, 6);
  assert.ok(turns < 100_000, `${turns} turns`);
  client.close();
  disk.close();
  lane.loop.close();
});

test('limits must be positive', () => {
  const disk = memory(testLane());
  for (const limits of [{ iops: 0 }, { bps: -1 }, { iopsRead: Number.NaN }]) {
    assert.throws(
      () => new LimitedDisk(disk, limits),
      (error) => error instanceof SluiceError && error.code === 'config',
    );
  }
  assert.throws(() => new LimitedDisk(disk, { iops: 1, burst: 0 }), SluiceError);
  disk.close();
});
