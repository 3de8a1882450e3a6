/** Disks behind emulated controllers, as the daemon has them: what the configuration says holds for them too. */
// suite: takes=8
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { MiB } from '../base/bits.ts';
import { VfioUserBus } from '../driver/pci/vfio-user-bus.ts';
import type { DiskWorkSpec } from '../guest/embedded/disk-options.ts';
import { EmbeddedGuests } from '../guest/embedded/launcher.ts';
import { closeFd } from '../os/fd.ts';
import { createMemfd } from '../os/mapping.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { AHCI_BAR, AHCI_PORTS, PX_CMD, PX_CMD_FRE, PX_SIG } from '../spec/ahci.ts';
import { SIGNATURE_ATA, SIGNATURE_ATAPI } from '../spec/ata.ts';
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../spec/pci.ts';
import type { Daemon } from './daemon.ts';
import { stage as stageDaemon, until } from './testing.ts';

const DRIVE = 'web/ahci0.0';
const WORK: DiskWorkSpec = {
  rw: 'randrw',
  bs: 4096,
  iodepth: 4,
  offset: 0,
  size: MiB,
  requests: 200,
  verify: true,
};

interface Stage {
  readonly daemon: Daemon;
  readonly guests: EmbeddedGuests;
  readonly image: string;
}

/** A guest whose one drive has the disk `a`. */
async function stage(t: TestContext, disk: string): Promise<Stage> {
  const { path, socket, start } = stageDaemon(
    t,
    `disks: { a: { ${disk} } }\nguests: { web: { disk: [{ method: emulated, model: ahci, disk: a }] } }`,
  );
  const image = join(path, 'a.img');
  writeFileSync(image, Buffer.alloc(MiB));
  const daemon = await start();
  const guests = await EmbeddedGuests.start();
  t.after(() => guests[Symbol.asyncDispose]());
  await guests.attachDisk({ name: 'web', method: 'emulated', socket: socket('web-ahci0') });
  return { daemon, guests, image };
}

/** Has the guest do so many requests and tells what became of them. */
async function work({ guests }: Stage, spec: Partial<DiskWorkSpec>) {
  await guests.startDisks({ web: [{ ...WORK, ...spec }] });
  const counts = async () => {
    const { disks } = await guests.read();
    return disks['web']?.queues[0] ?? assert.fail('the guest does nothing');
  };
  await until('the end of the work', async () => (await counts()).done);
  await guests.stop(20_000);
  return await counts();
}

test('requests beyond a limit wait', async (t) => {
  const { daemon, guests } = await stage(t, 'memory: 4M, iops: 100, burst: 1');
  await guests.startDisks({ web: [{ ...WORK, requests: 1000 }] });
  await until('the burst', () => {
    const { reads, writes } = daemon.deviceCountersOf(DRIVE);
    return reads + writes >= 100;
  });
  assert.equal((await guests.read()).disks['web']?.queues[0]?.done, false);
});

test('faults happen, are counted, and the drive goes on', async (t) => {
  const made = await stage(
    t,
    'memory: 1M, faults: { rules: [{ fault: error, on: [read], every: 10 }] }',
  );
  const { failed, failure, corrupt } = await work(made, { rw: 'randread', requests: 300 });
  assert.ok(failed > 0 && failed < 300, `${failed} failed`);
  assert.match(failure ?? '', /^read of sector/);
  assert.equal(corrupt, 0);
  const { error_io: errors, reads } = made.daemon.deviceCountersOf(DRIVE);
  assert.ok(errors > 0 && reads > 0);
});

test('a cut of its power loses what no flush has made durable', async (t) => {
  const made = await stage(t, 'file: a.img, faults: { volatile: 8M }');
  const written = (): number =>
    readFileSync(made.image).reduce((sum, byte) => sum + (byte === 0 ? 0 : 1), 0);
  const requests = MiB / 4096;
  assert.equal((await work(made, { rw: 'write', requests })).failed, 0);
  assert.equal(written(), 0);
  await made.daemon.powerDisk('a', false);
  const kept = written();
  assert.ok(kept < MiB, `${kept} bytes are there`);
  // What is read back to be verified fails too.
  const { failed } = await work(made, { rw: 'write', requests });
  assert.ok(failed >= requests, `${failed} failed`);
  assert.equal(written(), kept);
  await made.daemon.powerDisk('a', true);
  const again = await work(made, { rw: 'write', requests, fsync: 1 });
  assert.equal(again.failed, 0, again.failure ?? '');
  await made.daemon.powerDisk('a', false);
  assert.ok(written() > MiB / 2);
});

test('a cdrom is one, and tells its image', async (t) => {
  const { path, socket, start } = stageDaemon(
    t,
    `disks: { iso: { file: a.iso, readonly: on }, b: { memory: 1M } }
guests: { web: { disk: [{ method: emulated, model: ahci, disk: b }, { method: emulated, model: ahci, disk: iso, cdrom: on }] } }`,
  );
  writeFileSync(join(path, 'a.iso'), Buffer.alloc(MiB));
  const daemon = await start();
  const loop = new PollLoop();
  const memory = createMemfd('sluice-test-guest', 4096);
  t.after(() => {
    loop.close();
    closeFd(memory);
  });
  const bus = VfioUserBus.connect(socket('web-ahci0'), loop, () => undefined);
  bus.writeConfig(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  bus.map(0, 4096, memory);
  // A drive tells what it is as soon as its port takes messages of it (AHCI 1.3.1 §10.1.1).
  const register = (port: number, offset: number): number => AHCI_PORTS + 0x80 * port + offset;
  for (const port of [0, 1]) bus.write(AHCI_BAR, register(port, PX_CMD), 4, PX_CMD_FRE);
  const signatures = (): number[] =>
    [0, 1].map((port) => bus.read(AHCI_BAR, register(port, PX_SIG), 4));
  await until('the signatures', () => signatures().every((signature) => signature !== 0xffff_ffff));
  assert.deepEqual(signatures(), [SIGNATURE_ATA, SIGNATURE_ATAPI]);
  bus.close();
  assert.deepEqual(
    (await daemon.disks()).map(({ disk, readonly, usedBy }) => [disk, readonly, usedBy]),
    [
      ['iso', true, ['web/ahci0.1']],
      ['b', false, ['web/ahci0.0']],
    ],
  );
});
