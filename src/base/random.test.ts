import assert from 'node:assert/strict';
import test from 'node:test';
import { Random } from './random.ts';

const take = (random: Random, count: number): number[] =>
  Array.from({ length: count }, () => random.u32());

test('a seed gives one sequence, another seed another', () => {
  assert.deepEqual(take(new Random(7), 100), take(new Random(7), 100));
  assert.notDeepEqual(take(new Random(7), 4), take(new Random(8), 4));
});

test('values are spread over their range', () => {
  const random = new Random(1);
  const seen = new Uint32Array(10);
  for (let i = 0; i < 10_000; i++) {
    const value = random.below(10);
    assert.ok(Number.isInteger(value) && value >= 0 && value < 10);
    seen[value] = (seen[value] as number) + 1;
  }
  assert.ok(
    seen.every((count) => count > 800 && count < 1200),
    seen.join(),
  );
});

test('chances are kept', () => {
  const random = new Random(3);
  const hits = (probability: number): number =>
    Array.from({ length: 10_000 }, () => random.chance(probability)).filter(Boolean).length;
  assert.equal(hits(0), 0);
  assert.equal(hits(1), 10_000);
  const half = hits(0.25);
  assert.ok(half > 2300 && half < 2700, `${half}`);
});
