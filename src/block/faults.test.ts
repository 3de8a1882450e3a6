import assert from 'node:assert/strict';
import { constants } from 'node:os';
import test from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { type DiskLane, SECTOR_BYTES } from './disk.ts';
import type { FaultPlan, FaultRule } from './fault-plan.ts';
import { FaultyDisk } from './faults.ts';
import { MemoryDisk } from './memory.ts';
import { DISK_DISCARD, DISK_FLUSH, DISK_READ, DISK_WRITE, DISK_WRITE_ZEROES } from './requests.ts';
import { DiskClient, DiskModel, testDisk, testLane } from './testing.ts';

const { EIO, ENOSPC, ETIMEDOUT } = constants.errno;
const MiB = 1024 * 1024;
const MS = 1e6;

const memory = (lane: DiskLane, readonly = false, blockBytes = SECTOR_BYTES): MemoryDisk =>
  new MemoryDisk({ kind: 'memory', name: 'mem', bytes: MiB, readonly, blockBytes }, lane);

testDisk(
  'faults that never happen',
  ({ lane, readonly }) =>
    new FaultyDisk(memory(lane, readonly), {
      rules: [
        { fault: 'error', probability: 0 },
        { fault: 'torn', probability: 0 },
      ],
    }),
  { persistent: false },
);
testDisk(
  'delays',
  ({ lane, readonly }) =>
    new FaultyDisk(memory(lane, readonly), {
      rules: [{ fault: 'delay', us: 10, randomUs: 300, probability: 0.3 }],
    }),
  { persistent: false, runs: 5 },
);

interface Faulty {
  readonly client: DiskClient;
  readonly disk: FaultyDisk;
  readonly loop: PollLoop;
}

/** A faulty disk on a loop whose clock is the test's. */
function faulty(plan: FaultPlan, blockBytes = SECTOR_BYTES): Faulty {
  const loop = new PollLoop();
  const lane = { arena: testLane().arena, loop, log: silentLogger };
  const disk = new FaultyDisk(memory(lane, false, blockBytes), plan);
  return { client: new DiskClient(disk, lane), disk, loop };
}

function end({ client, disk, loop }: Faulty): void {
  client.close();
  disk.close();
  loop.close();
}

const REQUESTS = [DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES];

async function resultOf(client: DiskClient, op: number, sector = 0): Promise<number> {
  const bytes = op === DISK_FLUSH ? 0 : SECTOR_BYTES;
  const offset = op === DISK_FLUSH ? 0 : sector * SECTOR_BYTES;
  const data = op === DISK_WRITE ? { data: Buffer.alloc(bytes, 1) } : {};
  return (await client.request({ op, offset, bytes, ...data })).result;
}

test('errors come on the requests that a rule is about, and do nothing', async () => {
  const rules: [FaultRule, number[]][] = [
    [{ fault: 'error', on: ['read'] }, [-EIO, 0, 0, 0, 0]],
    [{ fault: 'error', on: ['write', 'flush'], errno: 'ENOSPC' }, [0, -ENOSPC, -ENOSPC, 0, 0]],
    [
      { fault: 'error', on: ['discard', 'write_zeroes'], errno: ETIMEDOUT },
      [0, 0, 0, -ETIMEDOUT, -ETIMEDOUT],
    ],
    [{ fault: 'error' }, [-EIO, -EIO, -EIO, -EIO, -EIO]],
    [{ fault: 'error', from: 10 }, [0, 0, 0, 0, 0]],
    [{ fault: 'error', to: 1 }, [-EIO, -EIO, 0, -EIO, -EIO]],
  ];
  for (const [rule, expected] of rules) {
    const made = faulty({ rules: [rule] });
    const results: number[] = [];
    for (const op of REQUESTS) results.push(await resultOf(made.client, op));
    assert.deepEqual(results, expected);
    assert.equal(made.disk.counts.errors, expected.filter((result) => result !== 0).length);
    end(made);
  }
  const made = faulty({ rules: [{ fault: 'error', on: ['write'], every: 2 }] });
  await made.client.write(0, Buffer.alloc(512, 1));
  assert.equal(await resultOf(made.client, DISK_WRITE, 0), -EIO);
  assert.ok((await made.client.read(0, 512)).every((byte) => byte === 1));
  end(made);
});

test('what is dropped completes well, and is not done', async () => {
  const made = faulty({ rules: [{ fault: 'drop', every: 2 }] });
  for (const op of REQUESTS) assert.equal(await resultOf(made.client, op), 0);
  // Of write, flush, discard, write zeroes: the second and the fourth.
  assert.equal(made.disk.counts.drops, 2);
  await made.client.write(0, Buffer.alloc(512, 1));
  await made.client.write(0, Buffer.alloc(512, 2));
  assert.ok((await made.client.read(0, 512)).every((byte) => byte === 1));
  assert.equal(made.disk.counts.errors, 0);
  end(made);
});

test('a range of sectors is hit by what touches it', async () => {
  const made = faulty({ rules: [{ fault: 'error', on: ['read'], from: 8, to: 10 }] });
  const read = async (sector: number, count: number): Promise<number> => {
    const range = { offset: sector * SECTOR_BYTES, bytes: count * SECTOR_BYTES };
    return (await made.client.request({ op: DISK_READ, ...range })).result;
  };
  assert.deepEqual(
    [await read(7, 1), await read(7, 2), await read(9, 1), await read(10, 1), await read(0, 64)],
    [0, -EIO, -EIO, 0, -EIO],
  );
  end(made);
});

test('every n-th request, and the first rule that applies', async () => {
  const made = faulty({
    rules: [
      { fault: 'error', every: 3, errno: 'ENOSPC' },
      { fault: 'error', every: 2 },
    ],
  });
  const results: number[] = [];
  for (let i = 0; i < 6; i++) results.push(await resultOf(made.client, DISK_READ));
  assert.deepEqual(results, [0, -EIO, -ENOSPC, -EIO, 0, -ENOSPC]);
  end(made);
});

test('one seed gives the same faults again, another others', async () => {
  const run = async (seed: number): Promise<string> => {
    const made = faulty({ seed, rules: [{ fault: 'error', probability: 0.3 }] });
    const results: number[] = [];
    for (let i = 0; i < 200; i++) results.push(await resultOf(made.client, DISK_READ));
    end(made);
    const failed = results.filter((result) => result !== 0).length;
    assert.ok(failed > 30 && failed < 90, `${failed} of 200 failed`);
    return results.join();
  };
  assert.equal(await run(1), await run(1));
  assert.notEqual(await run(1), await run(2));
});

test('a torn write has put some of its blocks on the disk, and fails', async () => {
  for (const blockBytes of [512, 4096]) {
    const made = faulty({ rules: [{ fault: 'torn' }] }, blockBytes);
    const { client } = made;
    const model = new DiskModel(MiB);
    const blocks = 8;
    const bytes = blocks * blockBytes;
    const kept = new Set<number>();
    for (let round = 0; round < 60; round++) {
      const offset = blockBytes * (round % 5);
      const before = await client.read(0, MiB);
      const data = model.write(offset, bytes);
      const segments = [1, 700, bytes - 701];
      const { result } = await client.request({ op: DISK_WRITE, offset, bytes, data, segments });
      assert.equal(result, -EIO);
      const after = await client.read(0, MiB);
      let news = 0;
      for (let at = 0; at < MiB; at += blockBytes) {
        const block = after.subarray(at, at + blockBytes);
        if (block.equals(before.subarray(at, at + blockBytes))) continue;
        assert.ok(at >= offset && at < offset + bytes, 'only the range of the write changes');
        assert.ok(block.equals(data.subarray(at - offset, at - offset + blockBytes)));
        news++;
      }
      kept.add(news);
    }
    assert.ok(!kept.has(blocks), 'never all of it');
    assert.ok(kept.has(0) && kept.size >= 6, `${[...kept].join()} blocks were written`);
    assert.equal(made.disk.counts.torn, 60);
    end(made);
  }
});

test('delays add up and hold a request back until they have passed', () => {
  const made = faulty({
    rules: [
      { fault: 'delay', us: 1000 },
      { fault: 'delay', us: 1000, on: ['write'] },
      { fault: 'error', on: ['flush'] },
    ],
  });
  const { client, loop } = made;
  const start = loop.now;
  const order: string[] = [];
  const data = Buffer.alloc(512);
  client.submit({ op: DISK_WRITE, bytes: 512, data, done: () => order.push('write') });
  client.submit({ op: DISK_READ, bytes: 512, done: () => order.push('read') });
  client.submit({ op: DISK_FLUSH, done: (result) => order.push(`flush ${result}`) });
  client.queue.flush();
  for (const [at, expected] of [
    [0.9, []],
    [1, ['flush -5', 'read']],
    [1.9, []],
    [2, ['write']],
  ] as const) {
    loop.now = start + at * MS;
    client.poll();
    client.poll();
    assert.deepEqual(order.splice(0).toSorted(), expected);
  }
  end(made);
});

test('the lane sleeps while a request is held back', async () => {
  const made = faulty({ rules: [{ fault: 'delay', us: 20_000 }] });
  const { client, loop } = made;
  for (let i = 0; i < 4; i++) client.submit({ op: DISK_READ, bytes: 512 });
  await client.run(() => client.inFlight === 0, { slice: false });
  assert.ok(loop.sleeps > 0);
  assert.ok(loop.turns < 100_000, `${loop.turns} turns`);
  end(made);
});

test('random delays change the order, and each request still completes once', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), async (seed) => {
      const made = faulty({ seed, rules: [{ fault: 'delay', randomUs: 500 }] });
      const done: number[] = [];
      for (let i = 0; i < 16; i++) {
        made.client.submit({ op: DISK_READ, bytes: 512, done: () => done.push(i) });
      }
      await made.client.drain();
      assert.deepEqual(
        done.toSorted((a, b) => a - b),
        [...Array(16).keys()],
      );
      end(made);
      return done.some((value, index) => value !== index);
    }),
    { numRuns: 5 },
  );
});

test('plans that make no sense are refused by name', () => {
  const disk = memory(testLane());
  const bad: FaultRule[] = [
    { fault: 'smoke' as 'error' },
    { fault: 'error', every: 0 },
    { fault: 'error', every: 1.5 },
    { fault: 'error', probability: 1.1 },
    { fault: 'error', errno: 'ENOSUCH' },
    { fault: 'error', errno: -5 },
    { fault: 'error', from: 5, to: 5 },
    { fault: 'error', on: ['trim' as 'discard'] },
    { fault: 'torn', on: ['read'] },
    { fault: 'delay' },
    { fault: 'delay', us: -1 },
  ];
  for (const rule of bad) {
    assert.throws(
      () => new FaultyDisk(disk, { rules: [{ fault: 'error' }, rule] }),
      (error) =>
        error instanceof SluiceError &&
        error.code === 'config' &&
        error.message.startsWith('fault rule 1: ') &&
        error.remedy !== undefined,
      JSON.stringify(rule),
    );
  }
  disk.close();
});
