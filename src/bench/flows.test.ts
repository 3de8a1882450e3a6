import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flowsOf, outsideFlowsOf } from './flows.ts';

test('both is a ring in which each guest sends once and receives once', () => {
  assert.deepEqual(flowsOf('both', 2), [
    { from: 1, to: 0 },
    { from: 0, to: 1 },
  ]);
  const flows = flowsOf('both', 5);
  for (const end of ['from', 'to'] as const) {
    assert.deepEqual(flows.map((flow) => flow[end]).sort(), [0, 1, 2, 3, 4]);
  }
  assert.ok(flows.every(({ from, to }) => from !== to));
});

test('rx and tx are pairs, seen from the first of each', () => {
  assert.deepEqual(flowsOf('rx', 4), [
    { from: 1, to: 0 },
    { from: 3, to: 2 },
  ]);
  assert.deepEqual(flowsOf('tx', 4), [
    { from: 0, to: 1 },
    { from: 2, to: 3 },
  ]);
  assert.throws(() => flowsOf('rx', 3), { code: 'usage' });
  for (const direction of ['rx', 'tx', 'both'] as const) {
    assert.throws(() => flowsOf(direction, 1), { code: 'usage' });
  }
});

test('outside, each guest has a machine, which others may have too', () => {
  assert.deepEqual(outsideFlowsOf('tx', [3, 4, 3]), [
    { from: 0, to: 3 },
    { from: 1, to: 4 },
    { from: 2, to: 3 },
  ]);
  assert.deepEqual(outsideFlowsOf('rx', [1]), [{ from: 1, to: 0 }]);
  assert.deepEqual(outsideFlowsOf('both', [1]), [
    { from: 1, to: 0 },
    { from: 0, to: 1 },
  ]);
});
