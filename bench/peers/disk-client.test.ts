import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDiskAnswer } from './disk-client.ts';

const ANSWER = {
  seconds: 0.8,
  requests: 800,
  bytes: 3_276_800,
  iops: 1000,
  bytes_per_s: 4_096_000,
  latency_ns: { min: 1, p50: 2, p99: 3, max: 4 },
  cpu_s: 0.2,
  waits: 7,
  verified: 0,
};

test("the client's answer is read", () => {
  assert.deepEqual(parseDiskAnswer(JSON.stringify(ANSWER)), ANSWER);
});

test('another answer is refused, with what is wrong', () => {
  const { iops: _, ...without } = ANSWER;
  for (const [line, message] of [
    ['blkio-client: no', /no JSON: blkio-client: no/],
    [JSON.stringify(without), /iops/],
    [JSON.stringify({ ...ANSWER, more: 1 }), /more/],
    [JSON.stringify({ ...ANSWER, waits: -1 }), /waits/],
  ] as const) {
    assert.throws(() => parseDiskAnswer(line), { code: 'protocol', message });
  }
});
