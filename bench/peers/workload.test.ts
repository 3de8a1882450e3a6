import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseWorkloads, framesOf, memoryArguments, workName } from './workload.ts';

const sizes = [64, 9000];
const names = (split: boolean, packed: boolean): string[] =>
  chooseWorkloads({ sizes, split, packed, bursts: 6 }).map(workName);

test('both kinds of rings are measured, unless one is asked for', () => {
  const all = ['64 B split', '9000 B split', '64 B packed', '9000 B packed'];
  assert.deepEqual(names(false, false), all);
  assert.deepEqual(names(true, true), all);
  assert.deepEqual(names(true, false), all.slice(0, 2));
  assert.deepEqual(names(false, true), all.slice(2));
});

test('buffers grow with the frames, and only then', () => {
  assert.deepEqual(memoryArguments({ frame: 1514, packed: false, bursts: 6 }), []);
  assert.match(memoryArguments({ frame: 9000, packed: false, bursts: 6 }).join(' '), /mbuf-size/);
});

test('both ports send the first frames', () => {
  assert.equal(framesOf({ frame: 64, packed: false, bursts: 6 }), 384);
});
