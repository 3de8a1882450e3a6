import assert from 'node:assert/strict';
import { test } from 'node:test';
import { measureMemcpyLimit } from './memcpy-limit.ts';

test('the limit is measured for small and large frames, on a processor of choice', async () => {
  for (const frame of [64, 65000]) {
    const limit = await measureMemcpyLimit({ frame, footprint: 1 << 20, cpus: [0] });
    assert.ok(Number.isFinite(limit) && limit > 0, `${frame} bytes: ${limit}`);
  }
});

test('a process that fails is an error', async () => {
  await assert.rejects(measureMemcpyLimit({ frame: 0, footprint: 1, cpus: undefined }));
});
