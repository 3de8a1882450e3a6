import assert from 'node:assert/strict';
import { test } from 'node:test';
import { trendOf, verdictOf } from './soak-bench.ts';

const MiB = 2 ** 20;

/** Ten minutes, a sample a second, of a heap that saws between two heights and leaks a little. */
function saw(leakPerMinute: number): [number, number][] {
  return Array.from({ length: 600 }, (_, second) => [
    second,
    20 * MiB + (second % 30) * 0.1 * MiB + (leakPerMinute / 60) * second,
  ]);
}

test('a heap that saws is steady, one that leaks below the saw is growing', () => {
  assert.equal(verdictOf([trendOf(saw(0))], 600), 'steady');
  assert.equal(verdictOf([trendOf(saw(0)), trendOf(saw(MiB))], 600), 'growing');
});

test('what is taken at the start is no trend', () => {
  const points: [number, number][] = Array.from({ length: 100 }, (_, second) => [
    second,
    second < 15 ? second * 10 * MiB : 150 * MiB,
  ]);
  const trend = trendOf(points);
  assert.equal(trend.bytes_per_minute, 0);
  assert.deepEqual([trend.first_bytes, trend.last_bytes], [150 * MiB, 150 * MiB]);
});

test('no samples are no growth', () => {
  assert.deepEqual(trendOf([]), { first_bytes: 0, last_bytes: 0, bytes_per_minute: 0 });
});
