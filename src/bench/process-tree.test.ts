import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseStat, treeCpuNs } from './process-tree.ts';

test('a line of /proc/PID/stat is read whatever the process is called', () => {
  const line = '42 (a) b (c)) S 7 42 42 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 100 5 6\n';
  assert.deepEqual(parseStat(line), { pid: 42, parent: 7, ns: 1e9 });
});

test('a tree is its roots and all below them, each once', () => {
  const all = [
    { pid: 5, parent: 4, ns: 16 },
    { pid: 2, parent: 1, ns: 1 },
    { pid: 3, parent: 2, ns: 2 },
    { pid: 4, parent: 3, ns: 4 },
    { pid: 9, parent: 1, ns: 8 },
  ];
  assert.equal(treeCpuNs([2], all), 23);
  assert.equal(treeCpuNs([2, 3], all), 23);
  assert.equal(treeCpuNs([9], all), 8);
  assert.equal(treeCpuNs([77], all), 0);
});

test('this process has taken time', () => {
  const until = process.cpuUsage().user + 100_000;
  while (process.cpuUsage().user < until);
  assert.ok(treeCpuNs([process.pid]) >= 50e6);
});
