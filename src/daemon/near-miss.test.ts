import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { editDistance, nearest } from './near-miss.ts';

test('edit distances', () => {
  assert.equal(editDistance('vlan', 'vlan'), 0);
  assert.equal(editDistance('vlan', 'vlna'), 1);
  assert.equal(editDistance('memory', 'memroy'), 1);
  assert.equal(editDistance('', 'abc'), 3);
  assert.equal(editDistance('kitten', 'sitting'), 3);
});

test('a distance is symmetric, and zero only between equal words', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (a, b) => {
      assert.equal(editDistance(a, b), editDistance(b, a));
      assert.equal(editDistance(a, b) === 0, a === b);
    }),
  );
});

test('the nearest word, if any is near', () => {
  assert.equal(nearest('swich', ['queues', 'switch', 'mac']), 'switch');
  assert.equal(nearest('LAN', ['lan']), 'lan');
  assert.equal(nearest('elephant', ['queues', 'switch', 'mac']), undefined);
  assert.equal(nearest('x', []), undefined);
});
