// suite: takes=20
import assert from 'node:assert/strict';
import {
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { MiB } from '../base/bits.ts';
import { silentLogger } from '../base/log.ts';
import { serveNbd } from '../block/nbd/testing.ts';
import { openFileDisk } from '../block/open/file.ts';
import type { DiskWorkSpec } from '../guest/embedded/disk-options.ts';
import { EmbeddedGuests } from '../guest/embedded/launcher.ts';
import { closeFd } from '../os/fd.ts';
import type { Daemon } from './daemon.ts';
import { stage as stageDaemon, until } from './testing.ts';

/** A directory with a configuration, a raw disk `a.img` and another `b.img`. */
function stage(t: TestContext, text: string) {
  const made = stageDaemon(t, text);
  for (const name of ['a.img', 'b.img']) {
    writeFileSync(join(made.path, name), '');
    truncateSync(join(made.path, name), 4 * MiB);
  }
  return made;
}

/** Embedded guests behind these devices, named after them. */
async function attach(
  t: TestContext,
  daemon: Daemon,
  ...devices: readonly string[]
): Promise<EmbeddedGuests> {
  const guests = await EmbeddedGuests.start();
  t.after(() => guests[Symbol.asyncDispose]());
  for (const name of devices) await guests.attachDisk({ name, socket: socketOf(daemon, name) });
  return guests;
}

function socketOf(daemon: Daemon, device: string): string {
  const found = daemon.config.guests
    .flatMap(({ disk }) => disk)
    .find((guestDisk) => guestDisk.device === device);
  return found?.socket ?? assert.fail(`no device ${device}`);
}

/** Has a guest do so many requests and tells what became of them. */
async function work(guests: EmbeddedGuests, guest: string, spec: Partial<DiskWorkSpec>) {
  await guests.startDisks({ [guest]: [{ ...WORK, ...spec }] });
  const counts = async () => {
    const { disks } = await guests.read();
    return disks[guest]?.queues[0] ?? assert.fail(`${guest} does nothing`);
  };
  await until('the end of the work', async () => (await counts()).done);
  return await counts();
}

const WORK: DiskWorkSpec = {
  rw: 'randrw',
  bs: 4096,
  iodepth: 4,
  offset: 0,
  size: MiB,
  requests: 200,
  verify: true,
};

const disk = (name: string): string => `{ method: paravirtual, disk: ${name} }`;
const guest = (name: string, ...disks: readonly string[]): string =>
  `${name}: { disk: [${disks.map(disk).join(', ')}] }`;

test('what a guest writes is on the disk, and counted', async (t) => {
  const { path, start } = stage(
    t,
    `disks: { file: { file: a.img }, memory: { memory: 4M, serial: S } }\nguests: { ${guest('web', 'file', 'memory')} }`,
  );
  const daemon = await start();
  const guests = await attach(t, daemon, 'web/disk0', 'web/disk1');
  for (const device of ['web/disk0', 'web/disk1']) {
    const { reads, writes, failed, corrupt } = await work(guests, device, {});
    assert.deepEqual({ failed, corrupt }, { failed: 0, corrupt: 0 });
    const counters = daemon.deviceCountersOf(device);
    assert.ok(counters.reads >= reads && reads > 0);
    assert.equal(counters.writes, writes);
    assert.equal(counters.write_bytes, writes * 4096);
  }
  assert.ok(readFileSync(join(path, 'a.img')).some((byte) => byte !== 0));
  const devices = await daemon.devices();
  assert.deepEqual(
    devices.map(({ device, disk: name, connected, running }) => [device, name, connected, running]),
    [
      ['web/disk0', 'file', true, true],
      ['web/disk1', 'memory', true, true],
    ],
  );
  const [file, memory] = await daemon.disks();
  assert.equal(file?.bytes, 4 * MiB);
  assert.equal(file?.source, join(path, 'a.img'));
  assert.equal(file?.details['lock'], 'exclusive');
  assert.deepEqual(file?.usedBy, ['web/disk0']);
  assert.equal(memory?.serial, 'S');
  assert.deepEqual(
    (await daemon.rings()).map(({ port, direction, started }) => [port, direction, started]),
    [
      ['web/disk0', 'request', true],
      ['web/disk1', 'request', true],
    ],
  );
});

test('a disk that cannot be opened is told with what needs it, and nothing is left', async (t) => {
  const { path, write, start } = stage(
    t,
    `disks: { ok: { file: a.img }, no: { file: none.img } }\nguests: { ${guest('a', 'ok')}, ${guest('b', 'no')} }`,
  );
  await assert.rejects(start(), (error: Error) => {
    assert.match(
      error.message,
      /^add disk no: disk no: .*none\.img does not exist \(.*\)\nadd device b\/disk0: it needs disk no$/,
    );
    return true;
  });
  assert.deepEqual(readdirSync(join(path, 'run')), ['lock']);
  write(`disks: { ok: { file: a.img } }\nguests: { ${guest('a', 'ok')} }`);
  await start();
});

test('a start that fails leaves what a former run has captured', async (t) => {
  const lan = 'switches: { lan: { wire: { capture: all.pcapng } } }';
  const { path, write, start } = stage(
    t,
    `${lan}\ndisks: { no: { file: none.img } }\nguests: { ${guest('b', 'no')} }`,
  );
  const file = join(path, 'all.pcapng');
  writeFileSync(file, 'former frames');
  await assert.rejects(start(), /none\.img does not exist/);
  assert.equal(readFileSync(file, 'utf8'), 'former frames');
  write(lan);
  await (await start()).stop();
  assert.ok(!readFileSync(file).includes('former frames'));
});

test('a reload with a bad disk leaves the others at work, and can be completed', async (t) => {
  const one = `a: { file: a.img }`;
  const { path, write, start } = stage(t, `disks: { ${one} }\nguests: { ${guest('a', 'a')} }`);
  const daemon = await start();
  const guests = await attach(t, daemon, 'a/disk0');
  await guests.startDisks({ 'a/disk0': [{ ...WORK, requests: Number.MAX_SAFE_INTEGER }] });
  rmSync(join(path, 'b.img'));
  write(
    `disks: { ${one}, b: { file: b.img }, c: { memory: 1M } }\nguests: { ${guest('a', 'a')}, ${guest('b', 'b')}, ${guest('c', 'c')} }`,
  );
  const { done, failed } = await daemon.reload();
  assert.deepEqual(done, ['add disk c', 'add device c/disk0']);
  assert.deepEqual(
    failed.map(({ action }) => action),
    ['add disk b', 'add device b/disk0'],
  );
  assert.deepEqual(
    (await daemon.disks()).map(({ disk, usedBy }) => [disk, usedBy]),
    [
      ['a', ['a/disk0']],
      ['b', []],
      ['c', ['c/disk0']],
    ],
  );
  const { reads } = daemon.deviceCountersOf('a/disk0');
  await until('more reads', () => daemon.deviceCountersOf('a/disk0').reads > reads + 100);
  writeFileSync(join(path, 'b.img'), Buffer.alloc(MiB));
  assert.deepEqual(await daemon.reload(), {
    done: ['add disk b', 'add device b/disk0'],
    failed: [],
  });
});

test('a disk that goes is let go of when its last requests are complete', async (t) => {
  const slow = 'faults: { rules: [{ fault: delay, us: 300000 }] }';
  const { path, write, start } = stage(
    t,
    `disks: { a: { file: a.img, ${slow} } }\nguests: { ${guest('web', 'a')} }`,
  );
  const daemon = await start();
  const guests = await attach(t, daemon, 'web/disk0');
  await guests.startDisks({ 'web/disk0': [{ ...WORK, rw: 'write', verify: false }] });
  await until('a kick', () => daemon.deviceCountersOf('web/disk0').kicks > 0);
  write('disks: { a: { file: a.img } }');
  const { done, failed } = await daemon.reload();
  assert.deepEqual(failed, []);
  assert.deepEqual(done, ['remove device web/disk0', 'remove disk a']);
  // What was on its way has been written, and nobody has the file any more.
  assert.ok(readFileSync(join(path, 'a.img')).some((byte) => byte !== 0));
  const again = await openFileDisk({
    name: 'a',
    path: join(path, 'a.img'),
    engine: 'io_uring',
    log: silentLogger,
  });
  closeFd(again.fd);
  assert.ok(!existsSync(join(path, 'run/web-disk0.sock')));
});

test('the daemon ends when what is on its way to disks is complete', async (t) => {
  const { path, start } = stage(
    t,
    `disks: { a: { file: a.img, faults: { rules: [{ fault: delay, us: 300000 }] } } }\nguests: { ${guest('web', 'a')} }`,
  );
  const daemon = await start();
  const guests = await attach(t, daemon, 'web/disk0');
  await guests.startDisks({ 'web/disk0': [{ ...WORK, rw: 'write', verify: false }] });
  await until('a kick', () => daemon.deviceCountersOf('web/disk0').kicks > 0);
  await daemon.stop();
  assert.equal(await daemon.ended, undefined);
  assert.ok(readFileSync(join(path, 'a.img')).some((byte) => byte !== 0));
  assert.deepEqual(readdirSync(join(path, 'run')), ['lock']);
});

test('a server that has vanished does not keep the daemon from ending, even amid a reload', async (t) => {
  const { path, write, start } = stage(t, '');
  const server = await serveNbd(join(path, 'nbd.sock'));
  const uri = `nbd+unix:///?socket=${join(path, 'nbd.sock')}`;
  write(`disks: { far: { nbd: "${uri}", reconnect: 2 } }\nguests: { ${guest('web', 'far')} }`);
  const daemon = await start();
  const guests = await attach(t, daemon, 'web/disk0');
  assert.equal((await work(guests, 'web/disk0', { size: 64 * 1024 })).failed, 0);
  await guests.stop();
  await server[Symbol.asyncDispose]();
  await guests.startDisks({ 'web/disk0': [{ ...WORK, size: 64 * 1024, iodepth: 1 }] });
  await until('a kick', () => daemon.deviceCountersOf('web/disk0').kicks > 0);
  write('disks: {}');
  const reload = daemon.reload();
  await daemon.stop();
  const { failed } = await reload;
  assert.match(failed[0]?.error ?? '', /^sluice is ending/);
});

test('two guests on two lanes read one disk, which is open in both', async (t) => {
  const { start } = stage(
    t,
    `lanes: 2\ndisks: { cd: { file: a.img, readonly: on } }\nguests: { ${guest('a', 'cd')}, ${guest('b', 'cd')} }`,
  );
  const daemon = await start();
  const guests = await attach(t, daemon, 'a/disk0', 'b/disk0');
  for (const name of ['a/disk0', 'b/disk0']) {
    const counts = await work(guests, name, { rw: 'randread', verify: false });
    assert.deepEqual([counts.reads, counts.failed], [200, 0]);
  }
  const [cd] = await daemon.disks();
  assert.deepEqual(cd?.lanes.toSorted(), [0, 1]);
  assert.equal(cd?.readonly, true);
  assert.equal(cd?.counters.reads, 400);
});

test('a disk grows; it shrinks only when that is asked for', async (t) => {
  const { path, start } = stage(
    t,
    `disks: { a: { file: a.img }, m: { memory: 1M }, spare: { file: b.img } }\nguests: { ${guest('web', 'a', 'm')} }`,
  );
  const daemon = await start();
  await daemon.resizeDisk('a', 8 * MiB, false);
  assert.equal(statSync(join(path, 'a.img')).size, 8 * MiB);
  assert.equal((await daemon.disks())[0]?.bytes, 8 * MiB);
  const guests = await attach(t, daemon);
  const info = await guests.attachDisk({ name: 'g', socket: socketOf(daemon, 'web/disk0') });
  assert.equal(info.bytes, 8 * MiB);
  await assert.rejects(daemon.resizeDisk('a', 2 * MiB, false), { code: 'config' });
  assert.equal((await daemon.disks())[0]?.bytes, 8 * MiB);
  await daemon.resizeDisk('a', 2 * MiB, true);
  assert.equal((await daemon.disks())[0]?.bytes, 2 * MiB);
  await assert.rejects(daemon.resizeDisk('m', 2 * MiB, false), {
    code: 'unsupported',
    message: 'disk m: a disk of kind memory has one size',
  });
  await assert.rejects(daemon.resizeDisk('spare', 2 * MiB, false), {
    code: 'state',
    message: 'disk spare is not open: no guest has it',
  });
  await assert.rejects(daemon.resizeDisk('spar', 2 * MiB, false), {
    code: 'not-found',
    message: 'no disk spar; did you mean "spare"?',
  });
});

test('requests beyond a limit wait', async (t) => {
  const { start } = stage(
    t,
    `disks: { a: { memory: 4M, iops: 100, burst: 1 } }\nguests: { ${guest('web', 'a')} }`,
  );
  const daemon = await start();
  const guests = await attach(t, daemon, 'web/disk0');
  await guests.startDisks({ 'web/disk0': [{ ...WORK, requests: 1000 }] });
  await until('the burst', () => {
    const { reads, writes } = daemon.deviceCountersOf('web/disk0');
    return reads + writes >= 100;
  });
  const reading = await guests.read();
  assert.equal(reading.disks['web/disk0']?.queues[0]?.done, false);
});

test('what a guest chose for its cache outlives the daemon, until another configuration', async (t) => {
  const text = (cache: string): string =>
    `disks: { a: { file: a.img, cache: ${cache} } }\nguests: { ${guest('web', 'a')} }`;
  const { write, start } = stage(t, text('writeback'));
  const modeFor = async (writeback?: boolean): Promise<boolean> => {
    const daemon = await start();
    const guests = await EmbeddedGuests.start();
    const info = await guests.attachDisk({
      name: 'g',
      socket: socketOf(daemon, 'web/disk0'),
      ...(writeback === undefined ? {} : { writeback }),
    });
    await guests[Symbol.asyncDispose]();
    await daemon.stop();
    return info.writeback;
  };
  assert.equal(await modeFor(), true);
  assert.equal(await modeFor(false), false);
  assert.equal(await modeFor(), false);
  write(text('writethrough'));
  assert.equal(await modeFor(true), true);
  write(text('writeback'));
  assert.equal(await modeFor(), true);
});
