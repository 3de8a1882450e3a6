import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import { MemoryDisk } from '../../block/memory.ts';
import { VirtioBlk } from '../../device/virtio-blk/virtio-blk.ts';
import { Arena } from '../../memory/arena.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { VhostUserServer } from '../../transport/vhost-user/server.ts';
import type { DiskWorkSpec } from './disk-options.ts';
import { EmbeddedGuests } from './launcher.ts';
import type { DiskGuestReading, DiskGuestSpec } from './protocol.ts';

const DISK = 4 * 2 ** 20;

/** Disks in memory behind vhost-user sockets in this process, whose loop runs in slices between Node's events. */
class Domain {
  readonly directory = mkdtempSync(join(tmpdir(), 'sluice-'));
  readonly loop = new PollLoop({ idlePollUs: 20 });
  readonly arena = Arena.create();
  readonly devices: VirtioBlk[] = [];
  readonly servers: VhostUserServer[] = [];
  readonly disks: MemoryDisk[] = [];
  #running = true;

  constructor(queues: readonly { readonly queues: number; readonly readonly?: boolean }[]) {
    const { arena, loop } = this;
    for (const [index, { queues: count, readonly = false }] of queues.entries()) {
      const lane = { arena, loop, log: silentLogger };
      const disk = new MemoryDisk(
        { kind: 'memory', name: `disk${index}`, bytes: DISK, readonly },
        lane,
      );
      const device = new VirtioBlk({ name: `disk${index}`, disk, queues: count, ...lane });
      loop.addPoller(device);
      this.disks.push(disk);
      this.devices.push(device);
      this.servers.push(new VhostUserServer({ path: this.socket(index), device, ...lane }));
    }
    this.#slice();
  }

  socket(index: number): string {
    return join(this.directory, `${index}.sock`);
  }

  close(): void {
    this.#running = false;
    for (const server of this.servers) server.close();
    this.loop.close();
    rmSync(this.directory, { recursive: true });
  }

  #slice(): void {
    if (!this.#running) return;
    this.loop.setTimer(2000, () => this.loop.stop());
    this.loop.run();
    setImmediate(() => this.#slice());
  }
}

const WORK: DiskWorkSpec = {
  rw: 'randrw',
  bs: 4096,
  iodepth: 16,
  offset: 0,
  size: DISK,
  verify: true,
};

describe('embedded guests with disks over vhost-user sockets', () => {
  let domain: Domain;
  let guests: EmbeddedGuests;
  const lost: [string, string][] = [];

  before(async () => {
    domain = new Domain([{ queues: 2 }, { queues: 1 }, { queues: 1, readonly: true }]);
    guests = await EmbeddedGuests.start({
      idlePollUs: 20,
      onLost: (guest, reason) => lost.push([guest, reason]),
    });
  });

  after(async () => {
    await guests.close();
    domain.close();
  });

  const specOf = (index: number, more: Partial<DiskGuestSpec> = {}): DiskGuestSpec => ({
    name: `g${index}`,
    socket: domain.socket(index),
    ...more,
  });

  async function until(
    name: string,
    done: (reading: DiskGuestReading) => boolean,
  ): Promise<DiskGuestReading> {
    for (;;) {
      const reading = (await guests.read()).disks[name];
      assert.ok(reading !== undefined);
      assert.equal(reading.failure, undefined);
      if (done(reading)) return reading;
      await new Promise((next) => setTimeout(next, 5));
    }
  }

  for (const [name, more, spec] of [
    ['split', {}, {}],
    ['packed', { wishes: { packed: true } }, {}],
    ['split, plain', { wishes: { eventIdx: false, indirect: false } }, {}],
    ['packed, plain', { wishes: { packed: true, eventIdx: false, indirect: false } }, {}],
    ['segments of 512 bytes', { segmentBytes: 512 }, {}],
    [
      'segments of 512 bytes in chains',
      { segmentBytes: 512, wishes: { indirect: false }, queueSize: 512 },
      {},
    ],
    ['packed, large', { requestBytes: 131072, wishes: { packed: true } }, { bs: 131072 }],
    ['without a cache', { writeback: false }, { fsync: 4 }],
    ['without FLUSH', { wishes: { flush: false } }, {}],
  ] as const) {
    it(`reads what it has written: ${name}`, async () => {
      const info = await guests.attachDisk(specOf(1, more));
      assert.equal(info.bytes, DISK);
      const packed = 'wishes' in more && 'packed' in more.wishes;
      assert.equal(info.packed, packed);
      await guests.startDisks({ g1: [{ ...WORK, ...spec, requests: 3000 }] });
      await until('g1', ({ queues }) => queues[0]?.done === true);
      await guests.stop(20_000);
      const counts = (await guests.read()).disks['g1']?.queues[0];
      assert.ok(counts !== undefined);
      assert.equal(counts.reads + counts.writes, 3000);
      assert.deepEqual(
        [counts.failed, counts.corrupt, counts.stale],
        [0, 0, 0],
        counts.failure ?? 'wrong content',
      );
      // The last pass as well.
      assert.ok(counts.verified > counts.reads);
      await guests.detach('g1');
    });
  }

  it('works two queues of one disk, and several guests, side by side', async () => {
    const half = DISK / 2;
    await guests.attachDisk(specOf(0, { queues: 2, wishes: { packed: true } }));
    await guests.attachDisk(specOf(1));
    await guests.startDisks({
      g0: [
        { ...WORK, size: half, requests: 2000 },
        { ...WORK, offset: half, size: half, requests: 2000 },
      ],
      g1: [{ ...WORK, requests: 2000 }],
    });
    for (const name of ['g0', 'g1']) {
      await until(name, ({ queues }) => queues.every(({ done }) => done));
    }
    await guests.stop(20_000);
    const { disks } = await guests.read();
    const all = [...(disks['g0']?.queues ?? []), ...(disks['g1']?.queues ?? [])];
    assert.equal(all.length, 3);
    for (const counts of all) {
      assert.equal(counts.reads + counts.writes, 2000);
      assert.deepEqual(
        [counts.failed, counts.corrupt, counts.stale],
        [0, 0, 0],
        counts.failure ?? 'wrong content',
      );
    }
    await guests.detach('g0');
    await guests.detach('g1');
  });

  it('finds content whole that another guest has written before', async () => {
    await guests.attachDisk(specOf(1));
    const blocks = DISK / 4096;
    await guests.startDisks({ g1: [{ ...WORK, rw: 'write', requests: blocks }] });
    await until('g1', ({ queues }) => queues[0]?.done === true);
    await guests.stop(20_000);
    await guests.detach('g1');
    await guests.attachDisk(specOf(1, { wishes: { packed: true } }));
    await guests.startDisks({ g1: [{ ...WORK, rw: 'read', requests: blocks }] });
    const { queues } = await until('g1', ({ queues: [first] }) => first?.done === true);
    assert.deepEqual([queues[0]?.verified, queues[0]?.corrupt], [blocks, 0]);
    await guests.stop();
    await guests.detach('g1');
  });

  it('sleeps between requests that are far apart, and is woken by calls', async () => {
    await guests.attachDisk(specOf(1));
    const before = await guests.read();
    await guests.startDisks({
      g1: [{ ...WORK, rw: 'randread', iodepth: 1, thinktime: 3000, requests: 20 }],
    });
    const reading = await until('g1', ({ queues }) => queues[0]?.done === true);
    const after = await guests.read();
    assert.ok(after.sleeps - before.sleeps >= 20, `${after.sleeps - before.sleeps} sleeps`);
    assert.ok(reading.kicks > 0);
    await guests.stop();
    await guests.detach('g1');
  });

  it('refuses what the disk does not have', async () => {
    await assert.rejects(guests.attachDisk(specOf(1, { queues: 2 })), {
      code: 'unsupported',
      message: /2 queues on a disk with 1/,
    });
    await assert.rejects(guests.attachDisk(specOf(1, { requestBytes: 2 ** 32, slots: 1 })), {
      code: 'config',
    });
    const info = await guests.attachDisk(specOf(2));
    assert.ok(info.readonly);
    await assert.rejects(guests.startDisks({ g2: [WORK] }), {
      code: 'config',
      message: /readonly/,
    });
    await assert.rejects(guests.startDisks({ g2: [WORK, WORK] }), { code: 'config' });
    await assert.rejects(guests.startDisks({ g1: [WORK] }), { code: 'not-found' });
    await assert.rejects(guests.attachDisk(specOf(2)), { code: 'state' });
    await guests.detach('g2');
  });

  it('tells of a device that goes away', async () => {
    await guests.attachDisk(specOf(0));
    await guests.startDisks({ g0: [{ ...WORK, verify: false }] });
    await until('g0', ({ queues }) => (queues[0]?.reads ?? 0) > 100);
    domain.servers[0]?.close();
    while (lost.length === 0) await new Promise((next) => setTimeout(next, 5));
    assert.equal(lost[0]?.[0], 'g0');
    const reading = (await guests.read()).disks['g0'];
    assert.match(reading?.failure ?? '', /closed by the device/);
    await guests.stop();
  });
});
