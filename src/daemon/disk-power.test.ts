/** Disks that lose their power, as the daemon has them. */
// suite: takes=10
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { MiB } from '../base/bits.ts';
import { silentLogger } from '../base/log.ts';
import { EmbeddedGuests } from '../guest/embedded/launcher.ts';
import { loadConfig } from './config.ts';
import { Daemon } from './daemon.ts';

interface Stage {
  readonly file: string;
  readonly daemon: Daemon;
  /** Has the guest write all of the disk once, and tells how many requests failed. */
  write(fsync?: number): Promise<number>;
  /** Bytes of the image that are not zero. */
  written(): number;
}

async function stage(t: TestContext, faults: string): Promise<Stage> {
  const path = mkdtempSync(join(tmpdir(), 'sluice-power-'));
  const image = join(path, 'a.img');
  const file = join(path, 'sluice.yaml');
  writeFileSync(image, Buffer.alloc(MiB));
  writeFileSync(
    file,
    `disks: { a: { file: a.img, faults: { ${faults} } }, b: { memory: 1M }, spare: { memory: 1M } }
guests: { web: { disk: [{ method: paravirtual, disk: a }, { method: paravirtual, disk: b }] } }`,
  );
  const daemon = await Daemon.start(loadConfig(file), silentLogger);
  const guests = await EmbeddedGuests.start();
  t.after(async () => {
    await guests[Symbol.asyncDispose]();
    await daemon.stop();
    rmSync(path, { recursive: true });
  });
  await guests.attachDisk({ name: 'a', socket: join(path, 'run/web-disk0.sock') });
  return {
    file,
    daemon,
    written: () => readFileSync(image).reduce((sum, byte) => sum + (byte === 0 ? 0 : 1), 0),
    write: async (fsync) => {
      await guests.startDisks({
        a: [
          {
            rw: 'write',
            bs: 4096,
            iodepth: 4,
            offset: 0,
            size: MiB,
            requests: MiB / 4096,
            verify: true,
            ...(fsync === undefined ? {} : { fsync }),
          },
        ],
      });
      for (;;) {
        const queue = (await guests.read()).disks['a']?.queues[0];
        if (queue?.done !== true) continue;
        await guests.stop();
        return queue.failed;
      }
    },
  };
}

const powerOf = async ({ daemon }: Stage): Promise<unknown> => (await daemon.disks())[0]?.power;

test('a cut loses what no flush has made durable, and requests fail until power is back', async (t) => {
  const made = await stage(t, 'volatile: 8M');
  const { daemon } = made;
  assert.equal(await made.write(), 0);
  assert.equal(made.written(), 0);
  assert.equal(await powerOf(made), 'on');
  await daemon.powerDisk('a', false);
  assert.equal(await powerOf(made), 'off');
  const kept = made.written();
  assert.ok(kept < MiB, `${kept} bytes are there`);
  assert.equal(await made.write(), MiB / 4096);
  assert.equal(made.written(), kept);
  await assert.rejects(daemon.powerDisk('a', false), { code: 'state' });
  await daemon.powerDisk('a', true);
  await assert.rejects(daemon.powerDisk('a', true), { code: 'state' });
  assert.equal(await made.write(1), 0);
  assert.ok(made.written() > kept);
  await daemon.powerDisk('a', false);
  assert.ok(made.written() > MiB / 2);
});

test('the orderly end of a daemon loses nothing', async (t) => {
  const made = await stage(t, 'volatile: 8M');
  assert.equal(await made.write(), 0);
  assert.equal(made.written(), 0);
  await made.daemon.stop();
  assert.ok(made.written() > MiB / 2);
});

test('a reload that takes the cache away loses nothing', async (t) => {
  const made = await stage(t, 'volatile: 8M');
  assert.equal(await made.write(), 0);
  writeFileSync(made.file, 'disks: { a: { file: a.img } }');
  assert.deepEqual((await made.daemon.reload()).failed, []);
  assert.ok(made.written() > MiB / 2);
  assert.equal(await powerOf(made), null);
  assert.ok(existsSync(made.file));
});

test('a disk that drops its flushes has nothing of what it was given', async (t) => {
  const made = await stage(t, 'volatile: 8M, rules: [{ fault: drop, on: [flush] }]');
  assert.equal(await made.write(1), 0);
  assert.equal(made.written(), 0);
});

test('only disks with a volatile cache lose their power', async (t) => {
  const { daemon } = await stage(t, 'volatile: 8M');
  await assert.rejects(daemon.powerDisk('b', false), {
    code: 'unsupported',
    message: 'disk b cannot lose its power',
  });
  await assert.rejects(daemon.powerDisk('spare', false), { code: 'state' });
  await assert.rejects(daemon.powerDisk('c', false), { code: 'not-found' });
});
