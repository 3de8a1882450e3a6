import assert from 'node:assert/strict';
import test from 'node:test';
import { megabitBucket } from './megabit-bucket.ts';

const SECOND = 1e9;

test('a long run converges to the rate', () => {
  const bucket = megabitBucket(100, 0);
  let passed = 0;
  for (let now = 0; now <= 10 * SECOND; now += 50_000) {
    bucket.refill(now);
    if (bucket.take(12_112)) passed += 12_112;
  }
  const expected = 10 * 100e6 + bucket.burst;
  assert.ok(Math.abs(passed - expected) <= 12_112 * 2, `${passed} bits against ${expected}`);
});
