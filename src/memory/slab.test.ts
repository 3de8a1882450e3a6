import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MiB } from '../base/bits.ts';
import { Arena } from './arena.ts';
import { Slab } from './slab.ts';

test('records do not overlap, are aligned, and come again after they were given back', () => {
  const arena = Arena.create();
  const slab = new Slab(arena, 100, 'test');
  assert.equal(slab.recordBytes, 128);
  const count = (2 * MiB) / 128 + 10;
  const taken = Array.from({ length: count }, () => slab.take());
  assert.equal(new Set(taken).size, count);
  for (const at of taken) {
    assert.equal(at % 64, 0);
    arena.bytes.fill(1, at, at + slab.recordBytes);
  }
  const sorted = taken.toSorted((a, b) => a - b);
  for (const [i, at] of sorted.entries()) {
    if (i > 0) assert.ok(at - (sorted[i - 1] as number) >= 128);
  }
  slab.give(taken[3] as number);
  assert.equal(slab.take(), taken[3]);
});
