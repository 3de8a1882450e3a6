import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import { closeFd } from '../os/fd.ts';
import { createMemfd } from '../os/mapping.ts';
import { Arena } from './arena.ts';
import { DMA_DONE, DMA_FAULT, DMA_PENDING, DMA_REFUSED, MAX_DMA_COPY } from './dma.ts';
import { DmaDomain, type DmaMapDescription, type RemoteMemory } from './dma-domain.ts';
import { DMA_FAULTS_KEPT } from './dma-faults.ts';
import { DmaFiles } from './dma-files.ts';
import { DMA_PAGE, DmaPageTable, MAX_DMA_NODES } from './dma-page-table.ts';

const PAGES = 64;
const arena = Arena.create();
const files = new DmaFiles(arena);
const fd = createMemfd('dma-test', PAGES * DMA_PAGE);
const lane = arena.allocate(2 * MAX_DMA_COPY);
after(() => closeFd(fd));

function domainOf(remote?: RemoteMemory): DmaDomain {
  const domain = new DmaDomain({ name: 'f', files, ...(remote === undefined ? {} : { remote }) });
  domain.busMaster = true;
  return domain;
}

function map(
  iova: number,
  pages: number,
  more: Partial<DmaMapDescription> = {},
): DmaMapDescription {
  return { iova, length: pages * DMA_PAGE, readable: true, writable: true, offset: 0, ...more };
}

const codeOf = (code: string) => (error: unknown) =>
  error instanceof SluiceError && error.code === code;

interface Asked {
  readonly kind: string;
  readonly iova: number;
  readonly length: number;
  readonly operation: number;
}

/** Remembers what was asked of it; answers nothing by itself. */
class Asking implements RemoteMemory {
  maxBytes = 4096;
  room = Number.POSITIVE_INFINITY;
  readonly asked: Asked[] = [];

  read(iova: number, length: number, _to: number, operation: number): boolean {
    return this.#ask({ kind: 'read', iova, length, operation });
  }

  write(iova: number, length: number, _from: number, operation: number): boolean {
    return this.#ask({ kind: 'write', iova, length, operation });
  }

  #ask(asked: Asked): boolean {
    if (this.asked.length >= this.room) return false;
    this.asked.push(asked);
    return true;
  }
}

describe('DMA domain', () => {
  test('a file is mapped once, however often it is shared', () => {
    const domain = domainOf();
    const other = domainOf();
    for (let page = 0; page < PAGES; page++) {
      domain.map(map(page * 2 * DMA_PAGE, 1, { offset: page * DMA_PAGE }), fd);
    }
    other.map(map(0, PAGES), fd);
    assert.equal(files.count, 1);
    const at = domain.translate(6 * DMA_PAGE + 5, 10, true);
    assert.equal(at, other.translate(3 * DMA_PAGE + 5, 10, true));
    domain.clear();
    assert.equal(files.count, 1);
    other.clear();
    assert.equal(files.count, 0);
  });

  test('maps that lie one behind the other are one piece, others are not', () => {
    const domain = domainOf();
    domain.map(map(0, 1), fd);
    domain.map(map(DMA_PAGE, 1, { offset: DMA_PAGE }), fd);
    domain.map(map(2 * DMA_PAGE, 1, { offset: 5 * DMA_PAGE }), fd);
    assert.notEqual(domain.translate(100, 2 * DMA_PAGE - 100, true), -1);
    assert.equal(domain.translate(100, 2 * DMA_PAGE, true), -1);
    arena.bytes.fill(7, lane, lane + 3 * DMA_PAGE);
    assert.equal(domain.write(0, 3 * DMA_PAGE, lane, 1), DMA_DONE);
    assert.equal(arena.bytes[domain.translate(3 * DMA_PAGE - 1, 1, false)], 7);
    domain.clear();
  });

  test('at the highest addresses bytes come from where they are and go where they belong', () => {
    const domain = domainOf();
    const top = 2 ** 53 - DMA_PAGE;
    domain.map(map(top, 1), fd);
    // An odd address, so that a sum of both would be rounded.
    const from = lane + 4097;
    const bytes = Uint8Array.from({ length: 40 }, (_, i) => i + 1);
    arena.bytes.set(bytes, from);
    assert.equal(domain.write(top + DMA_PAGE - 40, 40, from, 1), DMA_DONE);
    const at = domain.translate(top + DMA_PAGE - 40, 40, false);
    assert.deepEqual(arena.bytes.slice(at, at + 40), bytes);
    arena.bytes.fill(0, from, from + 40);
    assert.equal(domain.read(top + DMA_PAGE - 40, 40, from, 1), DMA_DONE);
    assert.deepEqual(arena.bytes.slice(from, from + 40), bytes);
    domain.clear();
  });

  test('what is refused is recorded, with the reason', () => {
    const domain = domainOf();
    domain.map(map(0, 1, { writable: false }), fd);
    domain.map(map(DMA_PAGE, 1, { readable: false }), fd);
    const before = Buffer.from(arena.bytes.subarray(lane, lane + 16));
    assert.equal(domain.translate(0, 1, true), -1);
    assert.equal(domain.faults.total, 0);
    assert.equal(domain.write(0, 1, lane, 0), DMA_REFUSED);
    assert.equal(domain.read(DMA_PAGE - 1, 2, lane, 0), DMA_REFUSED);
    assert.equal(domain.read(2 * DMA_PAGE, 1, lane, 0), DMA_REFUSED);
    assert.equal(domain.read(0, MAX_DMA_COPY + 1, lane, 0), DMA_REFUSED);
    domain.busMaster = false;
    assert.equal(domain.translate(0, 1, false), -1);
    assert.equal(domain.read(0, 1, lane, 0), DMA_REFUSED);
    assert.deepEqual(
      domain.faults
        .list()
        .map(({ function: name, iova, length, direction, reason }) => [
          name,
          iova,
          length,
          direction,
          reason,
        ]),
      [
        ['f', 0, 1, 'write', 'write to a read-only map'],
        ['f', DMA_PAGE - 1, 2, 'read', 'read of a write-only map'],
        ['f', 2 * DMA_PAGE, 1, 'read', 'not mapped'],
        ['f', 0, MAX_DMA_COPY + 1, 'read', 'bad address'],
        ['f', 0, 1, 'read', 'bus master off'],
      ],
    );
    assert.deepEqual(Buffer.from(arena.bytes.subarray(lane, lane + 16)), before);
    domain.clear();
  });

  test('the fault log keeps the last and counts all', () => {
    const { faults } = domainOf();
    for (let i = 0; i < DMA_FAULTS_KEPT + 10; i++) faults.record(i, 1, false, DMA_FAULT.unmapped);
    const list = faults.list();
    assert.equal(faults.total, DMA_FAULTS_KEPT + 10);
    assert.equal(faults.byReason[DMA_FAULT.unmapped], DMA_FAULTS_KEPT + 10);
    assert.deepEqual([list.length, list[0]?.iova, list.at(-1)?.iova], [256, 10, 265]);
  });

  test('maps that make no sense are refused, and nothing is kept of them', () => {
    const domain = domainOf();
    domain.map(map(DMA_PAGE, 2), fd);
    const bad: [Partial<DmaMapDescription>, string][] = [
      [{ iova: 2 * DMA_PAGE }, 'state'],
      [{ iova: 0, length: 16 * DMA_PAGE }, 'state'],
      [{ iova: 5 }, 'memory'],
      [{ length: 0 }, 'memory'],
      [{ length: 100 }, 'memory'],
      [{ offset: 100 }, 'memory'],
      [{ iova: 2 ** 53 - DMA_PAGE, length: 2 * DMA_PAGE }, 'memory'],
      [{ iova: -DMA_PAGE }, 'memory'],
      [{ iova: 2 ** 40, offset: (PAGES - 1) * DMA_PAGE, length: 2 * DMA_PAGE }, 'memory'],
    ];
    for (const [change, code] of bad) {
      assert.throws(() => domain.map(map(2 ** 30, 1, change), fd), codeOf(code));
    }
    assert.throws(() => domain.unmap(DMA_PAGE, DMA_PAGE), codeOf('memory'));
    assert.throws(() => domain.unmap(0, 2 * DMA_PAGE), codeOf('memory'));
    assert.throws(() => domain.unmap(3 * DMA_PAGE, DMA_PAGE), codeOf('not-found'));
    assert.equal(domain.count, 1);
    domain.unmap(DMA_PAGE, 2 * DMA_PAGE);
    assert.equal(files.count, 0);
  });

  test('memory without a descriptor is copied by messages', () => {
    const remote = new Asking();
    const domain = domainOf(remote);
    domain.map(map(0, 1), fd);
    domain.map(map(DMA_PAGE, 3), undefined);
    const done: [number, boolean][] = [];
    domain.onDone = (tag, ok) => done.push([tag, ok]);
    assert.equal(domain.translate(DMA_PAGE, 1, false), -1);
    assert.equal(domain.read(DMA_PAGE - 10, 20 + DMA_PAGE, lane, 42), DMA_PENDING);
    assert.deepEqual(
      remote.asked.map(({ iova, length }) => [iova, length]),
      [
        [DMA_PAGE, 4096],
        [2 * DMA_PAGE, 10],
      ],
    );
    const operation = remote.asked[0]?.operation as number;
    domain.complete(operation, true);
    assert.deepEqual(done, []);
    domain.complete(operation, true);
    domain.complete(operation, true);
    assert.deepEqual(done, [[42, true]]);
    remote.room = 3;
    assert.equal(domain.write(DMA_PAGE, 2 * DMA_PAGE, lane, 43), DMA_PENDING);
    domain.complete(remote.asked[2]?.operation as number, true);
    assert.deepEqual(done[1], [43, false], 'a piece that could not be asked for');
    assert.equal(domain.write(DMA_PAGE, 1, lane, 44), DMA_REFUSED);
    assert.deepEqual(
      domain.faults.list().map(({ reason }) => reason),
      ['refused by the guest', 'refused by the guest'],
    );
    assert.equal(domain.pending, 0);
    domain.clear();
  });

  test('written pages are told once', () => {
    const domain = domainOf();
    domain.map(map(0, 16), fd);
    domain.write(0, 1, lane, 0);
    domain.logging = true;
    domain.write(3 * DMA_PAGE - 1, 2, lane, 0);
    domain.markWritten(domain.translate(9 * DMA_PAGE, 1, true), 1);
    const bitmap = new Uint8Array(2);
    domain.takeDirty(0, 16 * DMA_PAGE, DMA_PAGE, bitmap);
    assert.deepEqual([...bitmap], [0b1100, 0b10]);
    const again = new Uint8Array(2);
    domain.takeDirty(0, 16 * DMA_PAGE, DMA_PAGE, again);
    assert.deepEqual([...again], [0, 0]);
    domain.clear();
  });

  test('a changed map or bus master voids what was translated', () => {
    const domain = domainOf();
    domain.map(map(0, 1), fd);
    domain.translate(0, 1, true);
    const { generation } = domain;
    domain.unmap(0, DMA_PAGE);
    assert.notEqual(domain.generation, generation);
    assert.equal(domain.translate(0, 1, true), -1);
  });

  test('who was refused is told that there are more maps', () => {
    const domain = domainOf();
    domain.map(map(0, 1), fd);
    const { generation } = domain;
    assert.equal(domain.translate(DMA_PAGE, 1, true), -1);
    domain.map(map(DMA_PAGE, 1, { offset: DMA_PAGE }), fd);
    assert.ok(domain.generation > generation);
    assert.notEqual(domain.translate(DMA_PAGE, 1, true), -1);
    domain.clear();
  });

  test('maps scattered over all addresses end at a bound', () => {
    const table = new DmaPageTable();
    let added = 0;
    const step = 2 ** 37 + DMA_PAGE * 65;
    assert.throws(() => {
      for (let start = 0; start < 2 ** 53; start += step, added++) {
        table.add(start, start + DMA_PAGE, added);
      }
    }, codeOf('memory'));
    assert.ok(added > 10000 && table.nodes <= MAX_DMA_NODES);
    assert.equal(table.find((added - 1) * step), added - 1);
    assert.equal(table.find(added * step), -1);
    for (let i = 0; i < added; i++) table.remove(i * step, i * step + DMA_PAGE);
    assert.equal(table.nodes, 1);
  });
});

test('any maps and accesses: as a list of ranges has it', () => {
  const page = fc.oneof(
    fc.nat(200),
    fc.nat(100).map((n) => 2 ** 18 - 50 + n),
    fc.nat(100).map((n) => 2 ** 36 - 50 + n),
  );
  const step = fc.record({
    kind: fc.constantFrom('map', 'map', 'unmap', 'unmap range', 'ask', 'ask'),
    page,
    pages: fc.integer({ min: 1, max: 40 }),
    offset: fc.nat(20),
    flags: fc.integer({ min: 0, max: 3 }),
    inPage: fc.nat(DMA_PAGE - 1),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const domain = domainOf();
      /** Page to [page of the file, flags]; and the maps. */
      const model = new Map<number, readonly [number, number]>();
      let maps: { page: number; pages: number }[] = [];
      try {
        for (const { kind, page: first, pages, offset, flags, inPage } of steps) {
          const iova = first * DMA_PAGE;
          if (kind === 'map') {
            const list = Array.from({ length: pages }, (_, i) => first + i);
            const isFree = list.every((p) => !model.has(p));
            const description = map(iova, pages, {
              offset: offset * DMA_PAGE,
              readable: (flags & 1) !== 0,
              writable: (flags & 2) !== 0,
            });
            if (!isFree) {
              assert.throws(() => domain.map(description, fd), codeOf('state'));
              continue;
            }
            domain.map(description, fd);
            maps.push({ page: first, pages });
            for (const [i, p] of list.entries()) model.set(p, [offset + i, flags]);
          } else if (kind === 'unmap') {
            const taken = maps.splice(first % Math.max(maps.length, 1), 1)[0];
            if (taken === undefined) continue;
            domain.unmap(taken.page * DMA_PAGE, taken.pages * DMA_PAGE);
            for (let i = 0; i < taken.pages; i++) model.delete(taken.page + i);
          } else if (kind === 'unmap range') {
            const end = first + pages;
            const isIn = (one: { page: number; pages: number }): boolean =>
              one.page >= first && one.page + one.pages <= end;
            const touched = maps.filter((one) => one.page < end && one.page + one.pages > first);
            const unmap = (): void => domain.unmap(iova, pages * DMA_PAGE);
            if (touched.length === 0) assert.throws(unmap, codeOf('not-found'));
            else if (!touched.every(isIn)) assert.throws(unmap, codeOf('memory'));
            else {
              unmap();
              maps = maps.filter((one) => !isIn(one));
              for (let p = first; p < end; p++) model.delete(p);
            }
          } else {
            const length = Math.max(1, pages * DMA_PAGE - inPage * 2);
            const write = (flags & 1) !== 0;
            const start = iova + inPage;
            const wanted = write ? 2 : 1;
            const list: (readonly [number, number] | undefined)[] = [];
            for (let p = first; p * DMA_PAGE < start + length; p++) list.push(model.get(p));
            const allowed = list.every((entry) => entry !== undefined && (entry[1] & wanted) !== 0);
            const filePage = list[0]?.[0] ?? 0;
            const onePiece = allowed && list.every((entry, i) => entry?.[0] === filePage + i);
            const at = domain.translate(start, length, write);
            const base = files.at(at)?.address ?? 0;
            assert.equal(at, onePiece ? base + filePage * DMA_PAGE + inPage : -1);
            assert.equal(domain.check(start, length, write) === -1, allowed);
          }
        }
        assert.equal(domain.count, maps.length);
      } finally {
        domain.clear();
      }
      assert.equal(files.count, 0);
    }),
    { numRuns: 300 },
  );
});
