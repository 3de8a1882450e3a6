/** `npm run peers`: that both sides move the client's frames and lose none, and keep its data. */
// suite: cores=1.5 takes=90 timeout=600
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildDiskClient, DiskClient } from '../bench/peers/disk-client.ts';
import { PeerProcess } from '../bench/peers/peer-process.ts';
import { diskReportSchema, emulatedReportSchema, peerReportSchema } from '../bench/peers/report.ts';
import { allowedCpus } from '../src/bench/machine.ts';
import { SharedDirectories } from '../src/guest/guest-process.ts';
import { findTestbed } from '../src/guest/testbed.ts';
import { socketDirectory, withoutTestbed } from './support/testbed.ts';

const MAIN = join(import.meta.dirname, '../bench/peers/main.ts');

function peers(...args: string[]) {
  const node = ['--disable-warning=ExperimentalWarning', MAIN, ...args];
  return spawnSync(process.execPath, node, { encoding: 'utf8' });
}

test('a wrong command line is told, with exit code 2', () => {
  for (const [args, message] of [
    [['nett'], /unknown command 'nett'/],
    [['net', '--sizes', '63'], /64 to 9000/],
    [['net', '--samples', '0'], /1 to 1000/],
    [['net', '--works', '63 B'], /no work is named 63 B \(There are: 64 B split/],
    [['net', '--client-cpu', '0', '--switch-cpu', '0'], /a processor each/],
    [['disk', '--targets', 'floppy'], /some of tmpfs,disk/],
    [['disk', '--size', '9'], /multiple of 8 MiB/],
    [['disk', '--depths', '2'], /some of 1,32,8/],
    [['disk', '--rw', 'read', '--depths', '1'], /sequential ones 8/],
    [['disk', '--directory', './there-is-none'], /there-is-none is not a directory/],
    [['disk', '--client-cpu', '0', '--server-cpu', '0'], /a processor each/],
    [['emulated', '--kinds', 'usb'], /some of traps,net,nic,disk/],
    [['emulated', '--lane-cpu', '0', '--other-cpu', '0'], /a processor each/],
  ] as const) {
    const { status, stderr } = peers(...args);
    assert.match(stderr, message);
    assert.equal(status, 2);
  }
});

test("Sluice and DPDK's switch", { skip: withoutTestbed() }, () => {
  // Short, and on a machine on which other tests run: the figures say nothing, the frames do.
  const short = ['--samples', '1', '--seconds', '0.2', '--warmup', '0.2', '--allow-disturbed'];
  // Each size and each kind of rings.
  const works = ['--sizes', '64,9000', '--works', '64 B split,9000 B packed'];
  const { status, stdout, stderr } = peers('net', '--json', ...works, ...short);
  assert.equal(status, 0, stderr);
  const report = peerReportSchema.parse(JSON.parse(stdout));
  assert.match(report.peer, /^dpdk \d/);
  assert.deepEqual(
    report.rows.map(({ work }) => work),
    ['64 B split', '9000 B packed'],
  );
  const { frames } = report.client;
  for (const row of report.rows) {
    assert.ok(row.ours > 0, row.work);
    assert.deepEqual(row.circulating, { ours: frames, theirs: frames }, row.work);
  }
});

test('Sluice and qemu-storage-daemon, with all data checked', { skip: withoutTestbed() }, () => {
  const short = ['--samples', '1', '--starts', '1', '--seconds', '0.2', '--warmup', '0.2'];
  const small = ['--targets', 'tmpfs', '--size', '8', '--rw', 'randwrite,read', '--depths', '8,32'];
  const { status, stdout, stderr } = peers(
    ...['disk', '--json', '--verify', '--allow-disturbed', ...small, ...short],
  );
  assert.equal(status, 0, stderr);
  const report = diskReportSchema.parse(JSON.parse(stdout));
  assert.match(report.peer, /^qemu-storage-daemon \d/);
  assert.deepEqual(
    report.rows.map(({ work, unit }) => `${work}: ${unit}`),
    ['', ' polling'].flatMap((mode) => [
      `tmpfs 4 KiB randwrite depth 32${mode}: kIOPS`,
      `tmpfs 128 KiB read depth 8${mode}: GB/s`,
    ]),
  );
  for (const row of report.rows) {
    assert.ok(row.ours > 0, row.work);
    assert.ok((row.latency_us?.ours.p50 ?? 0) > 0, row.work);
    assert.ok((row.server_cpu_pct?.ours ?? 0) > 0, row.work);
  }
});

test("Sluice's emulated devices and QEMU's own", { skip: withoutTestbed() }, () => {
  const short = ['--samples', '1', '--seconds', '1', '--traps', '100', '--allow-disturbed'];
  // Each device, each way, and each kind of request.
  const works = [
    '82540 TCP to guest',
    '82574 TCP from guest',
    'sriov TCP to guest',
    'direct TCP from guest',
    'ahci 4 KiB randread depth 32',
    'ahci 128 KiB write depth 8',
  ];
  const { status, stdout, stderr } = peers(
    ...['emulated', '--json', '--works', works.join(',')],
    ...short,
  );
  assert.equal(status, 0, stderr);
  const report = emulatedReportSchema.parse(JSON.parse(stdout));
  assert.match(report.peer, /^qemu \d/);
  assert.deepEqual(
    report.rows.map(({ work }) => work.replace(', against igb', '')),
    works,
  );
  for (const { work, ours, theirs, traps_per_unit: traps } of report.rows) {
    assert.ok(ours > 0 && theirs > 0, work);
    // The 82599's driver writes to pages that it shares with the card, and traps for interrupts only.
    if (work.includes('igb')) continue;
    // The others' tell of each request, and of frames now and then.
    assert.ok(traps.writes > (work.startsWith('ahci') ? 1 : 0), `${work}: ${traps.writes} writes`);
    assert.ok(traps.reads > 0, work);
  }
  assert.deepEqual(
    report.traps.map(({ processors, median }) => [processors, median > 0]),
    [
      ['shared', true],
      ['apart', true],
    ],
  );
});

test('a disk that forgets what was written is found out', { skip: withoutTestbed() }, async (t) => {
  const testbed = findTestbed();
  const socket = join(socketDirectory(t), 'disk.sock');
  const shared = new SharedDirectories();
  const command = [
    ...['qemu-storage-daemon', '--blockdev'],
    'driver=null-co,node-name=none,size=1048576,read-zeroes=on',
    '--export',
    `type=vhost-user-blk,id=export0,node-name=none,writable=on,addr.type=unix,addr.path=${shared.inside(socket)}`,
  ];
  await using server = new PeerProcess({
    name: 'qemu-storage-daemon',
    command: [testbed.enter, ...shared.options(), '--', ...command],
  });
  await server.until('socket', 20_000, () => existsSync(socket) || undefined);
  const options = {
    testbed,
    program: buildDiskClient(testbed),
    cpu: allowedCpus()[0] ?? 0,
    work: { target: 'tmpfs', mode: 'interrupt', rw: 'randread', bs: 4096, depth: 4 },
  } as const;
  {
    await using careless = await DiskClient.start(socket, { ...options, verify: false });
    const answer = await careless.run(0, 0.1);
    assert.ok(answer.requests > 0);
    assert.equal(answer.verified, 0);
  }
  await using careful = await DiskClient.start(socket, { ...options, verify: true });
  await assert.rejects(careful.run(0, 0.1), { message: /wrong data at byte \d+ of the disk/ });
});
