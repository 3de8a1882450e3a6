import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { DiskInfo } from '../../block/disk.ts';
import { DISK_DISCARD, DISK_FLUSH, DISK_READ, DISK_WRITE } from '../../block/requests.ts';
import { AtaDisk } from '../../device/ahci/ata-disk.ts';
import { Cdrom } from '../../device/ahci/cdrom.ts';
import { AhciGuest, MEMORY_IOVA, pattern } from '../../device/ahci/testing.ts';
import { FakeDisk } from '../../device/virtio-blk/testing.ts';
import * as ahci from '../../spec/ahci.ts';
import * as ata from '../../spec/ata.ts';
import { REQUEST_OK } from '../disk-requests.ts';
import { AhciDisk } from './ahci-disk.ts';
import { Hba } from './hba.ts';
import { type PortMemoryOptions, planPort } from './port-memory.ts';
import { type AhciRequestQueue, REQUEST_LOST } from './request-queue.ts';

const identity = { serial: 'SN 17', model: 'Sluice disk', firmware: '1.0' };
const EIO = 5;
/** The driver looks at the registers unasked after so long. */
const LONG_NS = 1e9;

function rig(
  t: { after(f: () => void): void },
  info: Partial<DiskInfo> = {},
  options: Partial<PortMemoryOptions> = {},
) {
  const fake = new FakeDisk({ bytes: 2 * 1024 * 1024, ...info });
  fake.content.set(pattern(fake.content.length, 0));
  const guest = new AhciGuest(new AtaDisk({ disk: fake, identity, now: () => 0 }));
  t.after(() => {
    fake.choose = (pending) => pending;
    guest.close();
  });
  const hba = new Hba(guest.registers, 'the controller');
  const clock = { now: 0 };
  const plan = planPort({ slots: 32, requestBytes: 65536, ...options }, MEMORY_IOVA);
  const disk = new AhciDisk({ hba, port: 0, plan, memory: guest.memory, clock });
  hba.enableInterrupts();
  const { queue } = disk;
  const data = (slot: number, bytes: number): Buffer =>
    disk.port.memory.view(plan.data + slot * queue.wordsPerSlot * 4, bytes);
  return { guest, fake, disk, queue, clock, data };
}

type Rig = ReturnType<typeof rig>;

function place(queue: AhciRequestQueue, slot: number, sector: number, bytes: number): void {
  queue.sector[slot] = sector;
  queue.bytes[slot] = bytes;
}

/** Turns until so many requests have ended: slots with their status, in the order of the slots. */
function finish({ guest, queue }: Pick<Rig, 'guest' | 'queue'>, count: number): number[][] {
  const ended: number[][] = [];
  queue.publish();
  guest.until('the requests', () => {
    const done = queue.collect();
    for (let i = 0; i < done; i++) {
      const slot = queue.done[i] as number;
      ended.push([slot, queue.status[slot] as number]);
    }
    return ended.length >= count;
  });
  assert.equal(ended.length, count);
  return ended.sort(([a = 0], [b = 0]) => a - b);
}

test('a drive is brought up and tells what it is', (t) => {
  const { disk } = rig(t, { physicalBlockBytes: 4096 });
  assert.deepEqual(disk.info, {
    model: 'Sluice disk',
    serial: 'SN 17',
    firmware: '1.0',
    bytes: 2 * 1024 * 1024,
    blockBytes: 512,
    physicalBlockBytes: 4096,
    queueDepth: 32,
    trimBlocks: 8,
    hasWriteCache: true,
    writeCache: true,
  });
});

test('32 requests take two writes of registers, and their ends one read', (t) => {
  const { guest, queue, fake } = rig(t);
  guest.bus.reads = 0;
  guest.bus.writes = 0;
  for (let slot = 0; slot < 32; slot++) {
    place(queue, slot, slot * 8, 4096);
    assert.ok(queue.read(slot));
  }
  assert.equal(queue.outstanding, 32);
  queue.publish();
  guest.turn();
  assert.equal(fake.seen.length, 32);
  guest.turn();
  assert.equal(queue.collect(), 32);
  assert.equal(queue.collect(), 0);
  assert.equal(queue.outstanding, 0);
  assert.deepEqual([guest.bus.reads, guest.bus.writes], [1, 2]);
});

test('what is written in any order, by any pieces, is read', () => {
  const segments = fc.constantFrom(510, 4096, 65536);
  const step = fc.record({
    op: fc.constantFrom('read', 'write', 'write', 'flush'),
    block: fc.nat(15),
    publish: fc.boolean(),
    turns: fc.nat(3),
  });
  const shape = fc.record({
    steps: fc.array(step, { maxLength: 60 }),
    segments,
    far: fc.boolean(),
    blockBytes: fc.constantFrom(512, 4096),
    order: fc.nat(2),
  });
  fc.assert(
    fc.property(shape, ({ steps, segments: segmentBytes, far, blockBytes, order }) => {
      const cleanups: (() => void)[] = [];
      const made = rig(
        { after: (f) => cleanups.push(f) },
        { blockBytes },
        { slots: 8, requestBytes: 8192, segmentBytes },
      );
      const { guest, fake, queue, data } = made;
      guest.space.far = far;
      guest.space.generation++;
      fake.choose = (pending) => {
        if (order === 0) return pending;
        return order === 1 ? pending.slice(-1) : pending.filter((_, i) => i % 2 === 0);
      };
      const model = new Map<number, number>();
      const busy = new Map<number, { block: number; expected?: Buffer | undefined }>();
      const free = [7, 6, 5, 4, 3, 2, 1, 0];
      const collect = (): void => {
        const count = queue.collect();
        for (let i = 0; i < count; i++) {
          const slot = queue.done[i] as number;
          assert.equal(queue.status[slot], REQUEST_OK);
          const expected = busy.get(slot)?.expected;
          if (expected !== undefined) assert.ok(data(slot, 8192).equals(expected));
          assert.ok(busy.delete(slot));
          free.push(slot);
        }
      };
      const contentOf = (block: number): Buffer => {
        const seed = model.get(block);
        return seed === undefined
          ? pattern(2 * 1024 * 1024, 0).subarray(block * 8192, (block + 1) * 8192)
          : pattern(8192, seed);
      };
      for (const [i, { op, block, publish, turns }] of steps.entries()) {
        const slot = free.at(-1);
        const isBusy = [...busy.values()].some((other) => other.block === block);
        if (slot !== undefined && (op === 'flush' || !isBusy)) {
          place(queue, slot, block * 16, 8192);
          if (op === 'write') data(slot, 8192).set(pattern(8192, i + 1));
          if (queue[op as 'read' | 'write' | 'flush'](slot)) {
            free.pop();
            if (op === 'write') model.set(block, i + 1);
            const expected = op === 'read' ? contentOf(block) : undefined;
            busy.set(slot, { block: op === 'flush' ? -1 : block, expected });
          }
        }
        if (publish) queue.publish();
        for (let turn = 0; turn < turns; turn++) guest.turn();
        collect();
      }
      guest.until('the rest', () => {
        queue.publish();
        collect();
        return busy.size === 0;
      });
      assert.equal(queue.outstanding, 0);
      assert.equal(queue.recoveries, 0);
      for (const cleanup of cleanups) cleanup();
    }),
    { numRuns: 40 },
  );
});

test('a flush waits for what came before it, and all that comes after it waits for the flush', (t) => {
  const made = rig(t);
  const { guest, fake, queue } = made;
  let held = true;
  fake.choose = (pending) => (held ? [] : pending);
  place(queue, 0, 0, 4096);
  place(queue, 2, 8, 4096);
  assert.ok(queue.write(0));
  assert.ok(queue.flush(1));
  assert.equal(queue.read(2), false);
  assert.equal(queue.flush(3), false);
  queue.publish();
  for (let i = 0; i < 5; i++) {
    guest.turn();
    assert.equal(queue.collect(), 0);
  }
  assert.deepEqual(
    fake.seen.map(({ op }) => op),
    [DISK_WRITE],
  );
  held = false;
  assert.deepEqual(finish(made, 2), [
    [0, REQUEST_OK],
    [1, REQUEST_OK],
  ]);
  assert.ok(queue.read(2));
  finish(made, 1);
  assert.deepEqual(
    fake.seen.map(({ op }) => op),
    [DISK_WRITE, DISK_FLUSH, DISK_READ],
  );
});

describe('recovers', () => {
  test('from requests that fail: the others are done', (t) => {
    const made = rig(t);
    const { queue, fake, data } = made;
    fake.result = ({ op, offset }) =>
      op === DISK_READ && (offset === 5 * 4096 || offset === 9 * 4096) ? -EIO : undefined;
    for (let slot = 0; slot < 16; slot++) {
      place(queue, slot, slot * 8, 4096);
      queue.read(slot);
    }
    const ended = finish(made, 16);
    for (const [slot = 0, status] of ended) {
      assert.equal(status, slot === 5 || slot === 9 ? ata.ERROR_UNC : REQUEST_OK, `slot ${slot}`);
      if (status !== REQUEST_OK) continue;
      const wanted = pattern(2 * 1024 * 1024, 0).subarray(slot * 4096, (slot + 1) * 4096);
      assert.ok(data(slot, 4096).equals(wanted));
    }
    assert.equal(queue.recoveries, 2);
  });

  test('from a range beyond the end, and from a flush that fails', (t) => {
    const made = rig(t);
    const { queue, fake } = made;
    place(queue, 3, 4096, 4096);
    queue.read(3);
    assert.deepEqual(finish(made, 1), [[3, ata.ERROR_IDNF]]);
    fake.result = ({ op }) => (op === DISK_FLUSH ? -EIO : undefined);
    queue.flush(7);
    assert.deepEqual(finish(made, 1), [[7, ata.ERROR_ABRT]]);
    place(queue, 3, 0, 4096);
    queue.read(3);
    assert.deepEqual(finish(made, 1), [[3, REQUEST_OK]]);
  });

  for (const finds of ['asleep', 'awake'] as const) {
    test(`from memory that is not the guest's: ${finds}`, (t) => {
      const made = rig(t);
      const { guest, queue, clock, disk } = made;
      place(queue, 0, 0, 4096);
      place(queue, 1, 8, 4096);
      queue.read(0);
      queue.read(1);
      const { plan } = disk.port.memory;
      disk.port.memory
        .view(plan.tables + plan.tableBytes + ahci.AHCI_TABLE_PRDT, 8)
        .writeBigUInt64LE(0x1000n);
      queue.publish();
      for (let i = 0; i < 5; i++) guest.turn();
      assert.equal(queue.collect(), 0, 'there is no FIS');
      if (finds === 'asleep') assert.equal(queue.enableCalls(), true);
      else clock.now += LONG_NS;
      const ended = finish(made, 2);
      assert.deepEqual(ended[1], [1, REQUEST_LOST]);
      // The table was spoiled: a slot's is written anew only if its length changes.
      place(queue, 1, 8, 8192);
      queue.read(1);
      assert.deepEqual(finish(made, 1), [[1, REQUEST_OK]]);
    });
  }
});

test('interrupts come when they were asked for, and not again until then', (t) => {
  const made = rig(t);
  const { guest, fake, queue } = made;
  const one = (): void => {
    place(queue, 0, 0, 4096);
    queue.read(0);
    queue.publish();
  };
  one();
  assert.equal(queue.enableCalls(), false);
  assert.equal(guest.intx, false);
  for (let i = 0; i < 3; i++) guest.turn();
  assert.equal(guest.intx, true);
  assert.equal(queue.collect(), 1);
  assert.equal(guest.intx, true, 'it is not acknowledged while the driver is awake');
  // Ended before the driver wants to sleep: there is something to collect.
  one();
  for (let i = 0; i < 3; i++) guest.turn();
  assert.equal(queue.enableCalls(), true);
  assert.equal(guest.intx, false);
  assert.equal(queue.collect(), 1);
  fake.choose = () => [];
  one();
  assert.equal(queue.enableCalls(), false);
  for (let i = 0; i < 3; i++) guest.turn();
  assert.equal(guest.intx, false);
  fake.choose = (pending) => pending;
  guest.turn();
  assert.equal(guest.intx, true);
  assert.equal(queue.collect(), 1);
});

test('TRIM, FLUSH and the cache', (t) => {
  const { disk, fake } = rig(t, { discardBytes: 4096 });
  disk.trim(8, 64);
  disk.flush();
  assert.deepEqual(
    fake.seen.map(({ op, offset, bytes }) => [op, offset, bytes]),
    [
      [DISK_DISCARD, 4096, 32768],
      [DISK_FLUSH, 0, 0],
    ],
  );
  disk.setWriteCache(false);
  assert.equal(disk.info.writeCache, false);
  disk.setWriteCache(true);
  assert.equal(disk.info.writeCache, true);
  assert.throws(() => disk.trim(4095, 8), { code: 'state', message: /0x6 failed/ });
  disk.flush();
});

test('a long range is taken apart', (t) => {
  const { disk, fake } = rig(t, { bytes: 70_000 * 512, discardBytes: 512 });
  fake.seen.length = 0;
  disk.trim(100, 69_000);
  assert.deepEqual(
    fake.seen.map(({ offset, bytes }) => [offset / 512, bytes / 512]),
    [
      [100, 65535],
      [65635, 3465],
    ],
  );
});

test("the port can be stopped: its memory is the guest's alone", (t) => {
  const { disk, guest } = rig(t);
  disk.close();
  const running = ahci.PX_CMD_ST | ahci.PX_CMD_CR | ahci.PX_CMD_FRE | ahci.PX_CMD_FR;
  assert.equal(guest.port(ahci.PX_CMD) & running, 0);
});

test('what does not suit is refused', (t) => {
  for (const [options, message] of [
    [{ slots: 0, requestBytes: 4096 }, /0 requests/],
    [{ slots: 33, requestBytes: 4096 }, /33 requests/],
    [{ slots: 1, requestBytes: 4095 }, /4095/],
    [{ slots: 1, requestBytes: 4096, segmentBytes: 0 }, /segments of 0/],
    [{ slots: 1, requestBytes: 2 ** 23, segmentBytes: 2 }, /segments/],
  ] as const) {
    assert.throws(() => planPort(options, MEMORY_IOVA), { code: 'config', message });
  }
  assert.throws(() => planPort({ slots: 1, requestBytes: 4096 }, 512), { code: 'config' });
  assert.throws(() => rig(t, { blockBytes: 4096 }, { requestBytes: 512 }), {
    code: 'unsupported',
    message: /blocks of 4096/,
  });
  assert.throws(() => rig(t, { discardBytes: 0 }).disk.trim(0, 8), { code: 'unsupported' });
  const guest = new AhciGuest(new Cdrom({ disk: undefined, identity }));
  t.after(() => guest.close());
  const hba = new Hba(guest.registers, 'the controller');
  const plan = planPort({ slots: 1, requestBytes: 4096 }, MEMORY_IOVA);
  const make = (port: number): AhciDisk =>
    new AhciDisk({ hba, port, plan, memory: guest.memory, clock: { now: 0 } });
  assert.throws(() => make(0), { code: 'unsupported', message: /no disk/ });
  assert.throws(() => make(1), { code: 'not-found', message: /no drive/ });
  assert.throws(() => make(6), { code: 'not-found', message: /no port 6/ });
});
