import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogLimit } from './log-limit.ts';

test('one record in each interval, the rest counted once', () => {
  const limit = new LogLimit(1000);
  assert.equal(limit.admit(0), true);
  assert.equal(limit.admit(1), false);
  assert.equal(limit.admit(999), false);
  assert.equal(limit.takeLeftOut(), 2);
  assert.equal(limit.takeLeftOut(), 0);
  assert.equal(limit.admit(1000), true);
  assert.equal(limit.takeLeftOut(), 0);
  assert.equal(limit.admit(1999), false);
  assert.equal(limit.takeLeftOut(), 1);
});
