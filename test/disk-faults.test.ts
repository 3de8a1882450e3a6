/**
 * What goes wrong with disks, and what the guest, the log, `sluice show` and exit codes say of it: a
 * full file system, I/O errors, servers that vanish, disks that are taken away under load, images
 * that cannot be opened. A disk beside them is at work all the time and must notice nothing.
 */
// suite: cores=0.5 takes=45 timeout=900
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmdirSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { stringify } from 'yaml';
import { MiB } from '../src/base/bits.ts';
import { serveNbd } from '../src/block/nbd/testing.ts';
import { startUml } from '../src/guest/uml.ts';
import { type Outcome, Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { type Cleanup, socketDirectory, withoutTestbed } from './support/testbed.ts';

/** Requests a second of the disk beside, each way: work all the time, and a processor for the others. */
const STEADY_IOPS = 100;
const launcher = new URL('../bin/sluice', import.meta.url).pathname;
/** The guest's disks, in the order in which it has them: vda, vdb … */
const NAMES = ['steady', 'full', 'flaky', 'patient', 'hasty', 'gone'] as const;
const FULL_BYTES = 64 * MiB;
const ROOM = '4m';

type Disks = NonNullable<SluiceConfig['disks']>;

/** A file of zeroes that takes no room. */
function image(path: string, bytes: number): string {
  writeFileSync(path, '');
  truncateSync(path, bytes);
  return path;
}

/** A file system of a few MiB in a directory that is gone after the test. */
function smallFileSystem(t: Cleanup): string {
  const path = mkdtempSync(join(tmpdir(), 'sluice-small-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${ROOM},mode=755`, 'tmpfs', path]);
  t.after(() => {
    // Lazily: whoever has files there open when a test has failed keeps them.
    execFileSync('umount', ['-l', path]);
    rmdirSync(path);
  });
  return path;
}

/** The records of a daemon's log about a disk: level, message and fields. */
function recordsOf(sluice: Sluice, pattern: RegExp): string[] {
  return sluice.log.split('\n').filter((line) => pattern.test(line));
}

test('a guest whose disks fail', { skip: withoutTestbed() }, async (t) => {
  const directory = socketDirectory(t);
  const small = smallFileSystem(t);
  const patient = { path: join(directory, 'patient.nbd'), bytes: 4 * MiB };
  const hasty = { path: join(directory, 'hasty.nbd'), bytes: 4 * MiB };
  const servers = {
    patient: await serveNbd(patient.path, { bytes: patient.bytes }),
    hasty: await serveNbd(hasty.path, { bytes: hasty.bytes }),
  };
  t.after(async () => {
    await servers.patient[Symbol.asyncDispose]();
    await servers.hasty[Symbol.asyncDispose]();
  });
  const disks: Disks = {
    steady: { file: image(join(directory, 'steady.img'), 16 * MiB) },
    full: { file: image(join(small, 'full.img'), FULL_BYTES) },
    flaky: {
      memory: '16M',
      faults: {
        rules: [
          { fault: 'error', on: ['read'], from: 2048, to: 2056 },
          { fault: 'error', on: ['flush'], every: 2 },
        ],
      },
    },
    patient: { nbd: servers.patient.uri, reconnect: 60 },
    hasty: { nbd: servers.hasty.uri, reconnect: 1 },
    gone: { file: image(join(directory, 'gone.img'), 16 * MiB) },
  };
  const config: SluiceConfig = {
    disks,
    guests: {
      uml: { disk: NAMES.map((disk) => ({ method: 'paravirtual' as const, disk })) },
    },
  };
  const sluice = await Sluice.start(t, config);
  const guest = startUml({
    name: 'uml-disk-faults',
    memory: 256,
    disk: NAMES.map((_, index) => ({ socket: sluice.socket(`uml/disk${index}`) })),
  });
  t.after(async () => {
    await guest.kill();
  });
  await guest.booted();

  const countersOf = async (name: string) =>
    (await sluice.show('disks')).find(({ disk }) => disk === name)?.counters ??
    assert.fail(`no disk ${name}`);
  const write = (device: string, seek: number, flags = 'oflag=direct') =>
    guest.run(`dd if=/dev/zero of=/dev/${device} bs=64k count=1 seek=${seek} ${flags}`);

  const steady = guest.run(
    `fio --name=steady --filename=/dev/vda --size=16M --rw=randrw --bs=4k --direct=1 --iodepth=4
      --ioengine=libaio --rate_iops=${STEADY_IOPS} --verify=crc32c --verify_fatal=1 --time_based --runtime=600
      --output=/tmp/steady.log --trigger-file=/tmp/steady.end --trigger=true`.replaceAll('\n', ' '),
    { timeoutMs: 300_000 },
  );
  /** The disk beside has done requests since the last look, and none failed. */
  let before = 0;
  const beside = async (): Promise<void> => {
    await until('the disk beside', async () => {
      const { reads, writes } = await countersOf('steady');
      const goesOn = reads + writes > before;
      before = reads + writes;
      return goesOn;
    });
    assert.equal((await countersOf('steady')).error_io, 0);
  };

  await t.test(
    'a full file system is an I/O error, told with disk, sector and reason',
    async () => {
      const { code, stderr } = await guest.run(
        'dd if=/dev/urandom of=/dev/vdb bs=64k count=512 oflag=direct',
      );
      assert.notEqual(code, 0);
      assert.match(stderr, /Input\/output error|No space left/);
      assert.ok((await countersOf('full')).error_no_space > 0);
      assert.notEqual(
        recordsOf(sluice, /uml\/disk1.*disk full.* sectors at sector \d+ failed: ENOSPC/).length,
        0,
        sluice.log,
      );
      // What is there can be read, and what is given back can be written again.
      await guest.sh('dd if=/dev/vdb of=/dev/null bs=64k count=16 iflag=direct');
      await guest.sh('blkdiscard /dev/vdb');
      assert.equal((await write('vdb', 900)).code, 0);
      await beside();
    },
  );

  await t.test('read and flush errors reach the guest', async () => {
    const read = (skip: number) =>
      guest.run(`dd if=/dev/vdc of=/dev/null bs=4k count=1 skip=${skip} iflag=direct`);
    assert.notEqual((await read(256)).code, 0);
    assert.equal((await read(255)).code, 0);
    const codes: number[] = [];
    for (let i = 0; i < 4; i++) codes.push((await write('vdc', i, 'conv=fsync')).code);
    assert.ok(codes.includes(1) && codes.includes(0), codes.join());
    assert.ok((await countersOf('flaky')).error_io >= 2);
    const told = (what: string): boolean =>
      recordsOf(sluice, new RegExp(`disk flaky.*${what}`)).length > 0;
    assert.ok(told('of 8 sectors at sector 2048 failed: EIO'), sluice.log);
    // The log has one record of them a second.
    await until('the log to tell of a flush', async () => {
      await write('vdc', 0, 'conv=fsync');
      return told('flush failed: EIO');
    });
    await beside();
  });

  await t.test('a server that vanishes and comes back is a pause', async () => {
    assert.equal((await write('vdd', 0)).code, 0);
    await servers.patient[Symbol.asyncDispose]();
    const pending = write('vdd', 1);
    await until('the log to tell', () =>
      recordsOf(sluice, /connection to the NBD server is lost/).some((line) =>
        line.includes('patient'),
      ),
    );
    await delay(1500);
    await beside();
    servers.patient = await serveNbd(patient.path, { bytes: patient.bytes });
    assert.equal((await pending).code, 0);
    assert.equal((await countersOf('patient')).error_io, 0);
  });

  await t.test('a server that stays away is an I/O error, until it is back', async () => {
    assert.equal((await write('vde', 0)).code, 0);
    await servers.hasty[Symbol.asyncDispose]();
    assert.notEqual((await write('vde', 1)).code, 0);
    assert.ok((await countersOf('hasty')).error_io > 0);
    assert.notEqual(recordsOf(sluice, /NBD server is gone: requests fail/).length, 0, sluice.log);
    await beside();
    servers.hasty = await serveNbd(hasty.path, { bytes: hasty.bytes });
    await until('the server to be used', async () => (await write('vde', 2)).code === 0);
  });

  await t.test('a disk that is taken away under load is gone, and nothing else is', async () => {
    // Linux waits for ever for what was on its way to a virtio disk that goes without notice.
    await guest.sh(
      '(while dd if=/dev/zero of=/dev/vdf bs=64k count=64 oflag=direct conv=nocreat; do :; done) >/dev/null 2>&1 &',
    );
    const { writes } = await countersOf('gone');
    await until('the load', async () => (await countersOf('gone')).writes > writes + 100);
    const { gone: _, ...kept } = disks;
    const report = await sluice.reload({
      disks: kept,
      guests: {
        uml: {
          disk: NAMES.filter((name) => name !== 'gone').map((disk) => ({
            method: 'paravirtual' as const,
            disk,
          })),
        },
      },
    });
    assert.deepEqual(report.done, ['remove device uml/disk5', 'remove disk gone']);
    assert.deepEqual(
      (await sluice.show('disks')).map(({ disk }) => disk).toSorted(),
      NAMES.filter((name) => name !== 'gone').toSorted(),
    );
    await beside();
    assert.equal((await write('vde', 3)).code, 0);
  });

  assert.deepEqual(await sluice.show('faults'), []);
  await t.test('the daemon ends well with requests in flight', async () => {
    await beside();
    await sluice.stop();
    // What its kernel makes of a device that is gone is the guest's own affair.
    await guest.kill();
    await steady.catch(() => undefined);
  });
});

/** Runs `sluice up` with these disks until it ends by itself, or else serves. */
async function up(
  t: TestContext,
  disks: Disks,
  user?: number,
): Promise<Outcome & { readonly serves: boolean }> {
  const directory = socketDirectory(t);
  const file = join(directory, 'sluice.yaml');
  chmodSync(directory, 0o777);
  const names = [...Object.keys(disks), 'other'];
  writeFileSync(
    file,
    stringify({
      run: join(directory, 'run'),
      disks: { ...disks, other: { memory: '1M' } },
      guests: { web: { disk: names.map((disk) => ({ method: 'paravirtual', disk })) } },
    }),
  );
  const asUser = user === undefined ? [] : [`--reuid=${user}`, `--regid=${user}`, '--clear-groups'];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...asUser, launcher, 'up', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  const closed = once(child, 'close');
  const serves = new Promise<true>((done) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      if (stdout.includes('web-disk0.sock')) done(true);
    });
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const served = await Promise.race([serves, closed.then(() => false)]);
  if (served) child.kill('SIGTERM');
  const [code] = (await closed) as [number | null];
  return { code: code ?? -1, stdout, stderr, serves: served };
}

test('images that cannot be served: exit code 1, which disk, why, and what to do', async (t) => {
  const directory = socketDirectory(t);
  const { code, stderr, serves } = await up(t, {
    missing: { file: join(directory, 'none.img') },
    place: { file: directory },
    empty: { file: image(join(directory, 'empty.img'), 0) },
    odd: { file: image(join(directory, 'odd.img'), MiB + 100) },
    far: { nbd: `nbd+unix:///?socket=${directory}/none.sock` },
  });
  assert.deepEqual({ code, serves }, { code: 1, serves: false }, stderr);
  const told: Readonly<Record<string, RegExp>> = {
    missing: /none\.img does not exist \(.+\)/,
    place: /is a directory/,
    empty: /empty\.img is empty \(.+\)/,
    odd: /odd\.img has 1048676 bytes, which is no multiple of .* 512 \(.+\)/,
    far: /none\.sock.* \(.+\)/,
  };
  const lines = stderr.trim().split('\n');
  for (const [name, reason] of Object.entries(told)) {
    const about = lines.filter((line) => line.includes(`add disk ${name}: disk ${name}`));
    assert.equal(about.length, 1, stderr);
    assert.match(about[0] ?? '', reason);
  }
  // Each of them, and its device: nothing of the good one, and no stack.
  assert.equal(lines.length, 2 * Object.keys(told).length, stderr);
});

test('an image without permission', {
  skip: process.getuid?.() !== 0 && 'needs root, to be somebody else',
}, async (t) => {
  const directory = socketDirectory(t);
  chmodSync(directory, 0o755);
  const file = image(join(directory, 'secret.img'), MiB);
  chmodSync(file, 0o600);
  const { code, stderr } = await up(t, { secret: { file } }, 65_534);
  assert.equal(code, 1, stderr);
  assert.match(
    stderr,
    /disk secret: .*secret\.img must not be opened for writing \(EACCES\) \(.+\)/,
  );
});

test('images that are served all the same: readonly of any size, cut off in a partition', async (t) => {
  const directory = socketDirectory(t);
  const odd = image(join(directory, 'odd.img'), MiB + 100);
  const cut = image(join(directory, 'cut.img'), 2 * MiB);
  // An MBR with one partition of Linux, sectors 2048 to 16383.
  const mbr = Buffer.alloc(512);
  mbr[446 + 4] = 0x83;
  mbr.writeUInt32LE(2048, 446 + 8);
  mbr.writeUInt32LE(14_336, 446 + 12);
  mbr.writeUInt16LE(0xaa55, 510);
  writeFileSync(cut, mbr);
  truncateSync(cut, 2 * MiB);
  const { code, serves, stderr } = await up(t, {
    odd: { file: odd, readonly: true },
    cut: { file: cut },
  });
  assert.deepEqual({ code, serves }, { code: 0, serves: true }, stderr);
  assert.match(stderr, /partition table/);
  assert.match(stderr, /cut\.img/);
});

test('an image that another Sluice serves is refused, and free when that has ended', async (t) => {
  const directory = socketDirectory(t);
  const file = image(join(directory, 'shared.img'), MiB);
  const config: SluiceConfig = {
    disks: { root: { file } },
    guests: { web: { disk: [{ method: 'paravirtual', disk: 'root' }] } },
  };
  const first = await Sluice.start(t, config);
  const { code, stderr } = await up(t, { root: { file } });
  assert.equal(code, 1);
  assert.match(stderr, /disk root: .*shared\.img is locked by another process/);
  assert.match(stderr, new RegExp(String(first.pid)));
  await first.stop();
  assert.equal((await up(t, { root: { file } })).code, 0);
});
