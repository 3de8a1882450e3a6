/** Guests that go in the middle of their requests, again and again, leave nothing behind. */
import assert from 'node:assert/strict';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { KiB, MiB } from '../base/bits.ts';
import { silentLogger } from '../base/log.ts';
import { EmbeddedGuests } from '../guest/embedded/launcher.ts';
import { loadConfig } from './config.ts';
import { Daemon } from './daemon.ts';

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

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 30_000;
  while (!(await condition())) {
    if (Date.now() > end) assert.fail(`waited in vain for ${what}`);
    await delay(5);
  }
}

async function start(t: TestContext): Promise<{ path: string; daemon: Daemon }> {
  const path = mkdtempSync(join(tmpdir(), 'sluice-churn-'));
  const image = join(path, 'a.img');
  const file = join(path, 'sluice.yaml');
  writeFileSync(image, '');
  truncateSync(image, 4 * MiB);
  writeFileSync(
    file,
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
  const daemon = await Daemon.start(loadConfig(file), silentLogger);
  t.after(async () => {
    await daemon.stop();
    rmSync(path, { recursive: true });
  });
  return { path, daemon };
}

/** A guest takes the disks, works, and is gone in the middle of it. */
async function visit(path: string, daemon: Daemon): Promise<void> {
  const guests = await EmbeddedGuests.start();
  try {
    for (const name of DEVICES)
      await guests.attachDisk({
        name,
        socket: join(path, 'run', `${name.replace('/', '-')}.sock`),
      });
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
  const { path, daemon } = await start(t);
  for (let round = 0; round < WARM; round++) await visit(path, daemon);
  const before = holdings();
  for (let round = 0; round < ROUNDS; round++) await visit(path, daemon);
  const after = holdings();
  assert.equal(after.descriptors, before.descriptors);
  // Neighbours are one or several as they come; one that each round leaves would be as many as rounds.
  assert.ok(before.mappings > 0);
  assert.ok(after.mappings - before.mappings < ROUNDS, `${before.mappings}, ${after.mappings}`);
  assert.ok(after.shared - before.shared < 4 * KiB, `${before.shared}, ${after.shared} KiB`);
  assert.deepEqual(daemon.faults, []);
});
