import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { MiB } from '../base/bits.ts';
import { closeFd } from '../os/fd.ts';
import { createMemfd } from '../os/mapping.ts';
import { Arena, WINDOW_BYTES } from './arena.ts';
import { COPY_JOBS, CopyQueue, FRAME_TABLE, TABLE_FRAMES } from './copy.ts';

const arena = Arena.create();
const copies = new CopyQueue(arena);
const low = arena.allocate(8 * MiB);
const fd = createMemfd('window', WINDOW_BYTES);
// Fills the rest of the window, so that the next mapping lies above it.
const filler = arena.mapFile(fd, WINDOW_BYTES - 64 * MiB, 0);
const above = arena.mapFile(fd, 256 * MiB, 0);
closeFd(fd);

function pattern(at: number, length: number, seed: number): void {
  for (let i = 0; i < length; i++) arena.view.setUint8(at + i, (i * 7 + seed) & 0xff);
}

function checkCopy(from: number, to: number, length: number): void {
  pattern(from, length, length);
  pattern(to - 16, length + 32, 1);
  const before = Buffer.from(arena.bytes.slice(to - 16, to + length + 16));
  copies.push(to, from, length);
  copies.flush();
  const after = Buffer.from(arena.bytes.slice(to - 16, to + length + 16));
  assert.deepEqual(
    after.subarray(16, 16 + length),
    Buffer.from(arena.bytes.slice(from, from + length)),
  );
  assert.deepEqual(after.subarray(0, 16), before.subarray(0, 16));
  assert.deepEqual(after.subarray(16 + length), before.subarray(16 + length));
}

describe('CopyQueue', () => {
  test('the ranges are where the test wants them', () => {
    assert.ok(low < WINDOW_BYTES && filler < WINDOW_BYTES && above >= WINDOW_BYTES);
  });

  test('copies every length up to 2100 at every alignment, and no byte more', () => {
    for (let length = 0; length <= 2100; length++) {
      checkCopy(low + 4096 + (length % 67), low + 2 * MiB + ((length * 5) % 61), length);
    }
  });

  test('copies in the window, out of it, into it and above it', () => {
    const places = [low, above];
    fc.assert(
      fc.property(
        fc.nat(1),
        fc.nat(1),
        fc.nat(5000),
        fc.nat(5000),
        fc.integer({ min: 0, max: 70000 }),
        (source, target, from, to, length) => {
          checkCopy(
            (places[source] as number) + 64 + from,
            (places[target] as number) + 4 * MiB + to,
            length,
          );
        },
      ),
      { numRuns: 100 },
    );
  });

  test('does jobs in order, and by itself when the table is full', () => {
    const cell = low + 100;
    for (let i = 0; i < COPY_JOBS; i++) {
      arena.view.setUint32(low + 4096 + 4 * i, i, true);
      copies.push(cell, low + 4096 + 4 * i, 4);
    }
    assert.equal(arena.view.getUint32(cell, true), COPY_JOBS - 1);
    copies.push(cell, low + 4096, 4);
    assert.equal(arena.view.getUint32(cell, true), COPY_JOBS - 1);
    copies.flush();
    assert.equal(arena.view.getUint32(cell, true), 0);
  });
});

/** A frame table as arrays, at an arena address. */
function tableAt(at: number) {
  const words = (offset: number): Uint32Array =>
    new Uint32Array(arena.buffer, at + offset, TABLE_FRAMES);
  const floats = (offset: number): Float64Array =>
    new Float64Array(arena.buffer, at + offset, TABLE_FRAMES);
  return {
    at,
    address: floats(FRAME_TABLE.address),
    headerAt: floats(FRAME_TABLE.headerAt),
    total: words(FRAME_TABLE.total),
    headerLength: words(FRAME_TABLE.headerLength),
    skip: words(FRAME_TABLE.skip),
    frameLength: words(FRAME_TABLE.frameLength),
    more: words(FRAME_TABLE.more),
    length: words(FRAME_TABLE.length),
    written: words(FRAME_TABLE.written),
    sum: new Uint32Array(arena.buffer, at + FRAME_TABLE.bytes, 1),
    tci: new Uint16Array(arena.buffer, at + FRAME_TABLE.tci, TABLE_FRAMES),
    needs: new Uint8Array(arena.buffer, at + FRAME_TABLE.needs, TABLE_FRAMES),
  };
}

const frames = tableAt(low);
const buffers = tableAt(low + 4096);
const listAt = low + 8192;
const stationAt = low + 8192 + 64;
const slotsAt = low + 16384;
const STRIDE = 128;
const GUARD = 0xee;

/** Where frame or buffer `index` lies: `far` of them above the window. */
function place(index: number, far: boolean, side: number): number {
  return (far ? above : low + MiB) + side * 2 * MiB + index * 4096;
}

describe('frame tables', () => {
  test('frames are delivered, header and rest, up to the first that does not fit the plain way', () => {
    const frame = fc.record({
      total: fc.oneof(fc.integer({ min: 12, max: 120 }), fc.integer({ min: 12, max: 3000 })),
      grown: fc.constantFrom(0, 4),
      room: fc.constantFrom(0, 1, 500, -1),
      // What lies where the virtio_net_hdr goes: the same one, or one that differs in a byte.
      before: fc.oneof(fc.constant('other'), fc.constant('same'), fc.nat(11)),
      odd: fc.constantFrom('', '', '', '', '', '', 'pieces', 'far frame', 'far buffer'),
    });
    fc.assert(
      fc.property(
        fc.array(frame, { minLength: 1, maxLength: 20 }),
        fc.nat(3),
        fc.nat(2),
        (list, first, next) => {
          const count = list.length;
          const order = Array.from({ length: count }, (_, i) => count - 1 - i);
          arena.bytes.set(order, listAt);
          for (const [i, { total, grown, odd }] of list.entries()) {
            const at = place(i, odd === 'far frame', 0);
            pattern(at, total, i);
            const head = Math.min(total, 80);
            const headerAt = slotsAt + i * STRIDE;
            pattern(headerAt, head + grown, i + 100);
            frames.address[i] = at;
            frames.headerAt[i] = headerAt;
            frames.total[i] = total;
            frames.headerLength[i] = head + grown;
            frames.skip[i] = head;
            frames.more[i] = odd === 'pieces' ? 1 : 0;
          }
          const expected: Buffer[] = [];
          const untouched: Buffer[] = [];
          let stopped = false;
          for (let k = first; k < count; k++) {
            const i = order[k] as number;
            const { total, grown, room, before, odd } = list[i] as (typeof list)[number];
            const slot = next + k - first;
            const bytes = total + grown;
            const at = place(slot, odd === 'far buffer', 1);
            buffers.address[slot] = at;
            buffers.length[slot] = bytes + room;
            buffers.written[slot] = 0;
            arena.bytes.fill(GUARD, at, at + bytes + 64);
            if (before !== 'other') {
              const header = frames.headerAt[i] as number;
              arena.bytes.copyWithin(at, header, header + 12);
              if (before !== 'same')
                arena.view.setUint8(at + before, ~arena.view.getUint8(at + before));
            }
            untouched.push(Buffer.from(arena.bytes.slice(at, at + 12)));
            const tooShort = (frames.headerLength[i] as number) < 20;
            stopped ||= odd !== '' || room < 0 || tooShort;
            if (stopped) continue;
            const header = frames.headerAt[i] as number;
            const head = frames.headerLength[i] as number;
            const from = frames.address[i] as number;
            expected.push(
              Buffer.concat([
                arena.bytes.slice(header, header + head),
                arena.bytes.slice(from + (frames.skip[i] as number), from + total),
              ]),
            );
          }
          const end = next + Math.max(0, count - first);
          const done = copies.deliver(frames.at, listAt, first, count, buffers.at, next, end);
          assert.equal(done, expected.length);
          for (const [k, bytes] of expected.entries()) {
            const at = buffers.address[next + k] as number;
            assert.deepEqual(Buffer.from(arena.bytes.slice(at, at + bytes.length)), bytes);
            assert.equal(arena.bytes[at + bytes.length], GUARD);
            assert.equal(buffers.written[next + k], bytes.length);
          }
          const lengths = expected.reduce((sum, { length }) => sum + length - 12, 0);
          assert.equal(buffers.sum[0], lengths);
          for (let k = done; next + k < end; k++) {
            const at = buffers.address[next + k] as number;
            assert.deepEqual(Buffer.from(arena.bytes.slice(at, at + 12)), untouched[k]);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test('no more frames are delivered than there are buffers', () => {
    for (let i = 0; i < 4; i++) {
      frames.address[i] = place(i, false, 0);
      frames.headerAt[i] = slotsAt;
      frames.total[i] = 76;
      frames.headerLength[i] = 76;
      frames.skip[i] = 76;
      frames.more[i] = 0;
      buffers.address[i] = place(i, false, 1);
      buffers.length[i] = 2000;
    }
    arena.bytes.set([0, 1, 2, 3], listAt);
    assert.equal(copies.deliver(frames.at, listAt, 0, 4, buffers.at, 1, 3), 2);
    assert.equal(copies.deliver(frames.at, listAt, 0, 4, buffers.at, 3, 3), 0);
  });

  test('frames are alike until one is not', () => {
    const station = [0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1];
    const make = (i: number): number => {
      const at = slotsAt + i * STRIDE;
      arena.bytes.fill(0, at, at + STRIDE);
      arena.bytes.set(station, at + 12);
      arena.bytes.set([8, 0], at + 24);
      frames.frameLength[i] = 60 + i;
      return at;
    };
    arena.bytes.set(station, stationAt);
    const odd: readonly ((at: number, i: number) => void)[] = [
      (at) => arena.bytes.set([1], at),
      (at) => arena.bytes.set([1], at + 1),
      (at) => arena.bytes.set([0x81, 0], at + 24),
      (_, i) => {
        frames.frameLength[i] = 13;
      },
      (_, i) => {
        frames.frameLength[i] = 65558;
      },
      ...station.map((byte, k) => (at: number) => arena.bytes.set([byte ^ 1], at + 12 + k)),
    ];
    const alike = (first: number): number =>
      copies.alike(frames.at, first, 8, slotsAt, STRIDE, 14, 65557, stationAt, 0x2007);
    for (const spoil of odd) {
      for (let which = 0; which < 8; which++) {
        for (let i = 0; i < 8; i++) {
          const at = make(i);
          if (i === which) spoil(at, i);
        }
        frames.tci.fill(1);
        frames.needs.fill(1);
        assert.equal(alike(0), which);
        assert.deepEqual(
          [...frames.tci.subarray(0, 9)],
          Array.from({ length: 9 }, (_, i) => (i < which ? 0x2007 : 1)),
        );
        assert.deepEqual(
          [...frames.needs.subarray(0, 9)],
          Array.from({ length: 9 }, (_, i) => (i < which ? 0 : 1)),
        );
        const sum = Array.from({ length: which }, (_, i) => 60 + i).reduce((a, b) => a + b, 0);
        assert.equal(frames.sum[0], sum);
        assert.equal(alike(which + 1), 8);
      }
    }
  });
});
