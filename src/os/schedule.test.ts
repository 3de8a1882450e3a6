import assert from 'node:assert/strict';
import { test } from 'node:test';
import { threadSchedule } from './schedule.ts';

test('a thread that works takes processor time, and waiting is counted apart', () => {
  const before = threadSchedule(process.pid);
  const until = process.threadCpuUsage().user + 50_000;
  while (process.threadCpuUsage().user < until);
  const after = threadSchedule(process.pid);
  assert.ok(after.cpuNs - before.cpuNs >= 40e6);
  assert.ok(Number.isInteger(after.waitNs) && after.waitNs >= before.waitNs);
});

test('a process that is not there is an error', () => {
  assert.throws(() => threadSchedule(2 ** 30), { code: 'ENOENT' });
});
