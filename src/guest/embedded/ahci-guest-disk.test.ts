import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import type { Disk } from '../../block/disk.ts';
import { FaultyDisk } from '../../block/faults.ts';
import { MemoryDisk } from '../../block/memory.ts';
import { Ahci } from '../../device/ahci/ahci.ts';
import { AtaDisk } from '../../device/ahci/ata-disk.ts';
import { Cdrom } from '../../device/ahci/cdrom.ts';
import { Arena } from '../../memory/arena.ts';
import { DmaFiles } from '../../memory/dma-files.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { VfioUserServer } from '../../transport/vfio-user/server.ts';
import type { DiskWorkSpec } from './disk-options.ts';
import { EmbeddedGuests } from './launcher.ts';
import type { DiskGuestReading, DiskGuestSpec } from './protocol.ts';

const DISK = 4 * 2 ** 20;
const identity = { serial: 'S', model: 'Sluice disk', firmware: '1' };

/** A controller behind a vfio-user socket in this process, whose loop runs in slices between Node's events. */
class Domain {
  readonly directory = mkdtempSync(join(tmpdir(), 'sluice-'));
  readonly loop = new PollLoop({ idlePollUs: 20 });
  readonly arena = Arena.create();
  readonly controllers: Ahci[] = [];
  readonly servers: VfioUserServer[] = [];
  readonly #lane = { arena: this.arena, loop: this.loop, log: silentLogger };
  readonly #files = new DmaFiles(this.arena);
  #running = true;

  constructor() {
    this.#slice();
  }

  /** Drives by port. Returns the socket. */
  add(drives: readonly (Disk | undefined)[], isCdrom = false): string {
    const index = this.controllers.length;
    const controller = new Ahci({ name: `ahci${index}`, ...this.#lane });
    for (const [port, disk] of drives.entries()) {
      if (disk === undefined) continue;
      controller.insert(
        port,
        isCdrom
          ? new Cdrom({ disk, identity })
          : new AtaDisk({ disk, identity, now: () => this.loop.now }),
      );
    }
    this.loop.addPoller(controller);
    const path = join(this.directory, `${index}.sock`);
    const parts = { loop: this.loop, log: silentLogger, files: this.#files };
    this.controllers.push(controller);
    this.servers.push(new VfioUserServer({ ...parts, path, function: controller }));
    return path;
  }

  memory(readonly = false): MemoryDisk {
    return new MemoryDisk({ kind: 'memory', name: 'm', bytes: DISK, readonly }, this.#lane);
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
  iodepth: 32,
  offset: 0,
  size: DISK,
  verify: true,
};

describe('embedded guests with disks behind AHCI controllers', () => {
  let domain: Domain;
  let guests: EmbeddedGuests;
  const lost: [string, string][] = [];

  before(async () => {
    domain = new Domain();
    guests = await EmbeddedGuests.start({
      idlePollUs: 20,
      onLost: (guest, reason) => lost.push([guest, reason]),
    });
  });

  after(async () => {
    await guests.close();
    domain.close();
  });

  const specOf = (socket: string, more: Partial<DiskGuestSpec> = {}): DiskGuestSpec => ({
    name: 'g',
    method: 'emulated',
    socket,
    ...more,
  });

  async function until(
    done: (reading: DiskGuestReading) => boolean,
    name = 'g',
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
    ['32 at once', {}, {}],
    ['one at a time', {}, { iodepth: 1, requests: 300 }],
    ['segments of 510 bytes', { segmentBytes: 510 }, {}],
    ['large', { requestBytes: 131072 }, { bs: 131072 }],
    ['flushes between them', {}, { fsync: 3 }],
    ['without a cache', { writeback: false }, { fsync: 4, iodepth: 4 }],
    ['the second port', { port: 1, slots: 5 }, { iodepth: 5 }],
  ] as const) {
    it(`reads what it has written: ${name}`, async () => {
      const disk = domain.memory();
      const info = await guests.attachDisk(
        specOf(domain.add('port' in more ? [undefined, disk] : [disk]), more),
      );
      assert.equal(info.bytes, DISK);
      assert.equal(info.writeback, !('writeback' in more));
      const requests = 'requests' in spec ? spec.requests : 2000;
      await guests.startDisks({ g: [{ ...WORK, ...spec, requests }] });
      await until(({ queues }) => queues[0]?.done === true);
      await guests.stop(20_000);
      const reading = (await guests.read()).disks['g'];
      const counts = reading?.queues[0];
      assert.ok(reading !== undefined && counts !== undefined);
      assert.equal(counts.reads + counts.writes, requests);
      assert.deepEqual(
        [counts.failed, counts.corrupt, counts.stale],
        [0, 0, 0],
        counts.failure ?? 'wrong content',
      );
      assert.ok(counts.verified > counts.reads);
      if ('fsync' in spec) assert.equal(counts.flushes, Math.floor(counts.writes / spec.fsync));
      assert.ok(reading.kicks > 0 && reading.kicks <= requests + counts.flushes + counts.verified);
      await guests.detach('g');
    });
  }

  it('sleeps between requests that are far apart, and is woken by interrupts', async () => {
    await guests.attachDisk(specOf(domain.add([domain.memory()])));
    const before = await guests.read();
    await guests.startDisks({
      g: [{ ...WORK, rw: 'randread', iodepth: 1, thinktime: 3000, requests: 20 }],
    });
    await until(({ queues }) => queues[0]?.done === true);
    const after = await guests.read();
    assert.ok(after.sleeps - before.sleeps >= 20, `${after.sleeps - before.sleeps} sleeps`);
    await guests.stop();
    await guests.detach('g');
  });

  it('goes on after requests that fail, and tells which did', async () => {
    const disk = new FaultyDisk(domain.memory(), {
      rules: [{ fault: 'error', on: ['read'], from: 128, to: 136, every: 2 }],
    });
    await guests.attachDisk(specOf(domain.add([disk])));
    // Few blocks, so that the bad one is read some thirty times.
    await guests.startDisks({ g: [{ ...WORK, size: 64 * 4096, requests: 4000 }] });
    await until(({ queues }) => queues[0]?.done === true);
    await guests.stop(20_000);
    const counts = (await guests.read()).disks['g']?.queues[0];
    assert.ok(counts !== undefined && counts.failed > 0);
    assert.match(counts.failure ?? '', /^read of sector 128 ended with status 64$/);
    assert.deepEqual([counts.corrupt, counts.stale], [0, 0]);
    await guests.detach('g');
  });

  it('is told that a readonly disk takes no writes', async () => {
    await guests.attachDisk(specOf(domain.add([domain.memory(true)])));
    await guests.startDisks({ g: [{ ...WORK, rw: 'write', iodepth: 4, requests: 10 }] });
    await until(({ queues }) => queues[0]?.done === true);
    await guests.stop(20_000);
    const counts = (await guests.read()).disks['g']?.queues[0];
    assert.equal(counts?.failed, 10);
    assert.match(counts?.failure ?? '', /ended with status 4$/);
    await guests.detach('g');
  });

  it('refuses what there is not', async () => {
    const socket = domain.add([domain.memory()]);
    const cases: readonly [Partial<DiskGuestSpec>, string, RegExp][] = [
      [{ queues: 2 }, 'config', /one queue|queues/],
      [{ slots: 33 }, 'config', /33 requests/],
      [{ port: 1 }, 'not-found', /no drive/],
      [{ port: 6 }, 'not-found', /no port 6/],
      [{ requestBytes: 511 }, 'config', /511/],
    ];
    for (const [more, code, message] of cases) {
      await assert.rejects(guests.attachDisk(specOf(socket, more)), { code, message });
    }
    const cdrom = domain.add([domain.memory(true)], true);
    await assert.rejects(guests.attachDisk(specOf(cdrom)), { code: 'unsupported' });
  });

  it('tells of a drive that is taken out, and of a controller that goes away', async () => {
    await guests.attachDisk(specOf(domain.add([domain.memory()])));
    await guests.startDisks({ g: [{ ...WORK, verify: false }] });
    await until(({ queues }) => (queues[0]?.reads ?? 0) > 100);
    domain.controllers.at(-1)?.remove(0, () => undefined);
    while (lost.length === 0) await new Promise((next) => setTimeout(next, 5));
    assert.match(lost[0]?.[1] ?? '', /no drive/);
    await guests.stop();
    await guests.detach('g');
    await guests.attachDisk(specOf(domain.add([domain.memory()]), { name: 'h' }));
    await guests.startDisks({ h: [{ ...WORK, verify: false }] });
    await until(({ queues }) => (queues[0]?.reads ?? 0) > 100, 'h');
    domain.servers.at(-1)?.close();
    while (lost.length === 1) await new Promise((next) => setTimeout(next, 5));
    assert.equal(lost[1]?.[0], 'h');
    await guests.stop();
  });
});
