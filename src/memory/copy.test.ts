import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { MiB } from '../base/bits.ts';
import { closeFd } from '../os/fd.ts';
import { createMemfd } from '../os/mapping.ts';
import { Arena, WINDOW_BYTES } from './arena.ts';
import { COPY_JOBS, CopyQueue } from './copy.ts';

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
