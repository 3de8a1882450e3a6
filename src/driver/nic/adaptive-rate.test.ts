import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AdaptiveRate } from './adaptive-rate.ts';

test('the rate of interrupts follows the bytes that come in a microsecond', () => {
  const rate = new AdaptiveRate();
  assert.equal(rate.perSecond, 20_000);
  assert.equal(rate.note(15_000, 1e6), false, 'between its bounds a class stays');
  assert.equal(rate.note(1_000_000, 1e6), true);
  assert.equal(rate.perSecond, 8_000);
  assert.equal(rate.note(1_000_000, 1e6), false, 'there is none below');
  assert.equal(rate.note(0, 1e6), true);
  assert.equal(rate.note(0, 1e6), true);
  assert.equal(rate.perSecond, 100_000);
  assert.equal(rate.note(0, 0), false, 'nor above');
});
