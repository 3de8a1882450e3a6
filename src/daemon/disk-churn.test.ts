/** Guests that go in the middle of their requests, again and again, leave nothing behind. */
// suite: takes=10
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { KiB, MiB } from '../base/bits.ts';
import { EmbeddedGuests } from '../guest/embedded/launcher.ts';
import type { Daemon } from './daemon.ts';
import { stage, until } from './testing.ts';

/** Some for warming up, some to be counted. */
const WARM = 2;
const ROUNDS = 8;
const DEVICES = ['web/disk0', 'web/disk1', 'web/disk2'];

interface Holdings {
  readonly descriptors: number;
  /** Of files: guests' memory, rings of io_uring, the daemon's own. */
  readonly mappings: number;
  /** KiB of shared memory in use: guests' and the daemon's. */
  readonly shared: number;
}

function holdings(): Holdings {
  const status = readFileSync('/proc/self/status', 'utf8');
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    // Anonymous ones are Node's, too, and come and go.
    mappings: readFileSync('/proc/self/maps', 'utf8').match(/memfd:|anon_inode:/g)?.length ?? 0,
    shared: Number(/^RssShmem:\s+(\d+)/m.exec(status)?.[1]),
  };
}

type Serving = { readonly daemon: Daemon; readonly socket: (name: string) => string };

async function serve(t: TestContext): Promise<Serving> {
  const { path, socket, start } = stage(
    t,
    `disks:
  plain: { file: a.img }
  slow: { memory: 4M, faults: { rules: [{ fault: delay, us: 20000, random_us: 20000 }] } }
  volatile: { memory: 4M, iops: 20000, faults: { volatile: 1M, rules: [{ fault: error, every: 7 }] } }
guests:
  web:
    disk:
      - { method: paravirtual, disk: plain, queues: 2 }
      - { method: paravirtual, disk: slow, packed: on }
      - { method: paravirtual, disk: volatile }`,
  );
  const image = join(path, 'a.img');
  writeFileSync(image, '');
  truncateSync(image, 4 * MiB);
  return { daemon: await start(), socket };
}

/** A guest takes the disks, works, and is gone in the middle of it. */
async function visit({ daemon, socket }: Serving): Promise<void> {
  const guests = await EmbeddedGuests.start();
  try {
    for (const name of DEVICES)
      await guests.attachDisk({ name, socket: socket(name.replace('/', '-')) });
    const before = DEVICES.map((name) => daemon.deviceCountersOf(name).kicks);
    const work = {
      rw: 'randrw',
      bs: 4 * KiB,
      iodepth: 16,
      offset: 0,
      size: 256 * KiB,
      fsync: 5,
    } as const;
    await guests.startDisks(Object.fromEntries(DEVICES.map((name) => [name, [work]])));
    await until('requests', () =>
      DEVICES.every((name, index) => daemon.deviceCountersOf(name).kicks > (before[index] ?? 0)),
    );
  } finally {
    process.kill(guests.pid, 'SIGKILL');
    await guests.close();
  }
  await until('the devices to be free', async () =>
    (await daemon.devices()).every(({ connected, memoryBytes }) => !connected && memoryBytes === 0),
  );
}

test('guests that are killed amid their requests leave no descriptor, mapping or memory', async (t) => {
  const serving = await serve(t);
  for (let round = 0; round < WARM; round++) await visit(serving);
  const before = holdings();
  for (let round = 0; round < ROUNDS; round++) await visit(serving);
  const after = holdings();
  assert.equal(after.descriptors, before.descriptors);
  // Neighbours are one or several as they come; one that each round leaves would be as many as rounds.
  assert.ok(before.mappings > 0);
  assert.ok(after.mappings - before.mappings < ROUNDS, `${before.mappings}, ${after.mappings}`);
  assert.ok(after.shared - before.shared < 4 * KiB, `${before.shared}, ${after.shared} KiB`);
  assert.deepEqual(serving.daemon.faults, []);
});
