import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import { MiB } from '../base/bits.ts';
import { closeFd } from '../os/fd.ts';
import { createMemfd } from '../os/mapping.ts';
import { machineMemory } from '../os/memory-size.ts';
import { Arena } from './arena.ts';
import { DirtyLog } from './dirty-log.ts';
import { GuestMemory, MAX_MEMORY_SLOTS } from './guest-memory.ts';

const arena = Arena.create();
const PAGE = 4096;
const fd = createMemfd('guest', 64 * MiB);
after(() => closeFd(fd));

const region = (
  guestAddress: number,
  size: number,
  mmapOffset = 0,
  userAddress = 0x7f00_0000_0000 + guestAddress,
) => ({
  guestAddress,
  size,
  userAddress,
  mmapOffset,
});

describe('GuestMemory', () => {
  test('translates what lies wholly in one region, and nothing else', () => {
    const memory = new GuestMemory(arena);
    const first = memory.add(region(0x1000, 0x3000), fd);
    memory.add(region(0x10_0000, 0x1000, 0x8000), fd);
    assert.equal(memory.translate(0x1000, 0x3000), first.arenaAddress);
    assert.equal(memory.translate(0x3fff, 1), first.arenaAddress + 0x2fff);
    for (const [address, length] of [
      [0xfff, 1],
      [0x1000, 0x3001],
      [0x4000, 1],
      [0x0f_ffff, 2],
      [2 ** 52, 1],
      [-1, 1],
    ] as const) {
      assert.equal(memory.translate(address, length), -1);
    }
    memory.clear();
  });

  test('takes no more memory than the guest may have, in all regions together', () => {
    const memory = new GuestMemory(arena, 'normal', 4 * PAGE);
    memory.add(region(0, 3 * PAGE), fd);
    assert.throws(() => memory.add(region(8 * PAGE, 2 * PAGE), fd), {
      code: 'memory',
      message: `${5 * PAGE} bytes of memory for one guest, on a machine that has ${4 * PAGE}`,
    });
    memory.add(region(8 * PAGE, PAGE), fd);
    memory.clear();
  });

  test('does not take a sparse file larger than the machine', () => {
    const sparse = createMemfd('sparse', 2 ** 45, false);
    const memory = new GuestMemory(arena);
    assert.throws(() => memory.add(region(0, 2 ** 39 + machineMemory()), sparse), {
      message: /for one guest, on a machine that has \d+$/,
    });
    closeFd(sparse);
  });

  test('agrees with a byte-by-byte model of its regions', () => {
    const page = fc.nat(40);
    const pages = fc.integer({ min: 1, max: 12 });
    fc.assert(
      fc.property(
        fc.array(fc.record({ page, pages, remove: fc.boolean() }), { maxLength: 25 }),
        fc.array(
          fc.record({ address: fc.nat(60 * PAGE), length: fc.integer({ min: 1, max: 9 * PAGE }) }),
          { minLength: 20, maxLength: 20 },
        ),
        (steps, questions) => {
          const memory = new GuestMemory(arena);
          /** Which region each page of the guest belongs to. */
          const model = new Map<number, number>();
          const kept: { id: number; page: number; pages: number }[] = [];
          for (const [id, step] of steps.entries()) {
            if (step.remove && kept.length > 0) {
              const gone = kept.splice(step.page % kept.length, 1)[0] as {
                id: number;
                page: number;
                pages: number;
              };
              memory.remove(
                gone.page * PAGE,
                0x7f00_0000_0000 + gone.page * PAGE,
                gone.pages * PAGE,
              );
              for (let p = gone.page; p < gone.page + gone.pages; p++) model.delete(p);
              continue;
            }
            const wanted = Array.from({ length: step.pages }, (_, i) => step.page + i);
            const free = wanted.every((p) => !model.has(p));
            const add = (): unknown =>
              memory.add(region(step.page * PAGE, step.pages * PAGE, step.page * PAGE), fd);
            if (!free) {
              assert.throws(add, { code: 'memory' });
              continue;
            }
            add();
            kept.push({ id, page: step.page, pages: step.pages });
            for (const p of wanted) model.set(p, id);
          }
          for (const { address, length } of questions) {
            const owner = model.get(Math.floor(address / PAGE));
            const last = model.get(Math.floor((address + length - 1) / PAGE));
            let whole = owner !== undefined && owner === last;
            for (let p = Math.floor(address / PAGE); whole && p * PAGE < address + length; p++)
              whole = model.get(p) === owner;
            const at = memory.translate(address, length);
            assert.equal(at >= 0, whole);
            assert.equal(memory.translateUser(0x7f00_0000_0000 + address, length), at);
            if (at < 0) continue;
            assert.equal(memory.guestAddressOf(at), address);
            // The file's byte at the same offset as the guest address: what one side writes, another mapping shows.
            arena.view.setUint8(at, address & 0xff);
            const other = arena.mapFile(fd, 1, address);
            assert.equal(arena.view.getUint8(other), address & 0xff);
            arena.unmap(other, 1);
          }
          memory.clear();
        },
      ),
      { numRuns: 60 },
    );
  });

  test('refuses empty, wrapping, overlapping, oversized and one too many regions, and maps nothing then', () => {
    const memory = new GuestMemory(arena);
    memory.add(region(0, PAGE), fd);
    const bad = [
      region(PAGE, 0),
      region(PAGE, -PAGE),
      region(2 ** 53, PAGE),
      region(2 ** 52 - PAGE / 2, PAGE),
      region(PAGE, 65 * MiB),
      region(PAGE, PAGE, 64 * MiB),
      region(PAGE / 2, PAGE),
      region(8 * PAGE, PAGE, 0, 0x7f00_0000_0000),
    ];
    for (const one of bad) assert.throws(() => memory.add(one, fd), { code: 'memory' });
    for (let i = 1; i < MAX_MEMORY_SLOTS; i++) memory.add(region(i * PAGE, PAGE), fd);
    assert.throws(() => memory.add(region(MAX_MEMORY_SLOTS * PAGE, PAGE), fd), /more than 32/);
    assert.equal(memory.regions.length, MAX_MEMORY_SLOTS);
    memory.clear();
  });

  test('takes a file that could shrink with isolation normal, and refuses it with strict', () => {
    const open = createMemfd('open', MiB, false);
    const normal = new GuestMemory(arena, 'normal');
    assert.equal(normal.add(region(0, MiB), open).sealed, false);
    normal.clear();
    const strict = new GuestMemory(arena, 'strict');
    assert.throws(() => strict.add(region(0, MiB), open), /seal=on|refused under isolation/);
    assert.equal(strict.add(region(0, MiB), fd).sealed, true);
    strict.clear();
    closeFd(open);
  });

  test('changes its generation whenever a range is taken away', () => {
    const memory = new GuestMemory(arena);
    memory.add(region(0, PAGE), fd);
    const before = memory.generation;
    memory.remove(0, 0x7f00_0000_0000, PAGE);
    assert.notEqual(memory.generation, before);
    assert.throws(() => memory.remove(0, 0x7f00_0000_0000, PAGE), { code: 'memory' });
  });

  test('keeps no descriptor', () => {
    const count = (): number => readdirSync('/proc/self/fd').length;
    const before = count();
    const memory = new GuestMemory(arena);
    for (let i = 0; i < 10; i++) memory.add(region(i * PAGE, PAGE), fd);
    memory.clear();
    assert.equal(count(), before);
  });
});

describe('DirtyLog', () => {
  test('marks exactly the pages that a write touches', () => {
    fc.assert(
      fc.property(fc.nat(100 * PAGE), fc.nat(5 * PAGE), (address, length) => {
        const log = DirtyLog.inMemory(16);
        log.mark(address, length);
        for (let page = 0; page < 128; page++) {
          const touched =
            length > 0 && page * PAGE < address + length && (page + 1) * PAGE > address;
          assert.equal(log.isMarked(page * PAGE), touched);
        }
      }),
    );
  });

  test('leaves pages past its end alone', () => {
    const log = DirtyLog.inMemory(1);
    log.mark(7 * PAGE, 10 * PAGE);
    assert.equal(log.isMarked(7 * PAGE), true);
    assert.equal(log.isMarked(8 * PAGE), false);
  });

  test('is shared with whoever maps the same file', () => {
    const shared = createMemfd('log', PAGE);
    const log = DirtyLog.map(shared, PAGE, 0);
    const other = DirtyLog.map(shared, PAGE, 0);
    log.mark(3 * PAGE, 1);
    assert.equal(other.isMarked(3 * PAGE), true);
    log.release();
    assert.equal(log.isMarked(3 * PAGE), false);
    assert.equal(other.isMarked(3 * PAGE), true);
    other.release();
    assert.throws(() => DirtyLog.map(shared, PAGE, 1), { code: 'protocol' });
    closeFd(shared);
  });

  test('is fed by the memory of the guest with guest addresses', () => {
    const memory = new GuestMemory(arena);
    const { arenaAddress } = memory.add(region(8 * PAGE, 4 * PAGE), fd);
    assert.equal(memory.logging, false);
    const log = DirtyLog.inMemory(8);
    memory.dirtyLog = log;
    assert.equal(memory.logging, true);
    memory.markWritten(arenaAddress + PAGE, 1);
    assert.equal(log.isMarked(9 * PAGE), true);
    assert.equal(log.isMarked(8 * PAGE), false);
    memory.clear();
  });
});
