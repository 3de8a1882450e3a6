import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  allowedCpus,
  describeMachine,
  machineSchema,
  parseCpuList,
  placeMachines,
  placeOn,
} from './machine.ts';

test('the machine is described in full', () => {
  const machine = machineSchema.parse(describeMachine());
  assert.equal(machine.node, process.version);
});

test('lists of processors are read as the kernel writes them', () => {
  assert.deepEqual(parseCpuList('0'), [0]);
  assert.deepEqual(parseCpuList('0-3'), [0, 1, 2, 3]);
  assert.deepEqual(parseCpuList('0-1,4,6-7\n'), [0, 1, 4, 6, 7]);
  assert.deepEqual(parseCpuList(''), []);
  assert.ok(allowedCpus().length >= 1);
});

test('the lane has a processor of its own where there are two', () => {
  assert.deepEqual(placeOn([0, 1]), { lane: [1], guests: [0] });
  assert.deepEqual(placeOn([2, 3, 8]), { lane: [8], guests: [2, 3] });
  assert.deepEqual(placeOn([5]), { lane: undefined, guests: undefined });
});

test('each virtual machine keeps to one processor, the lane to one that is left', () => {
  assert.deepEqual(placeMachines([0, 1, 2], 2), { lane: [2], guests: [[0], [1]] });
  assert.deepEqual(placeMachines([0, 1, 2, 3], 2), { lane: [3], guests: [[0], [1]] });
  assert.deepEqual(placeMachines([0, 1], 2), { lane: undefined, guests: [[0], [1]] });
  assert.deepEqual(placeMachines([4, 6], 3), { lane: undefined, guests: [[4], [6], [4]] });
  assert.deepEqual(placeMachines([5], 2), { lane: undefined, guests: [undefined, undefined] });
});
