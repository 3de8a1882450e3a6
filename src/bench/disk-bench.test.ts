// suite: takes=45
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runDiskBench } from './disk-bench.ts';
import { parseDiskOptions } from './disk-options.ts';
import { diskReportSchema, diskSoakReportSchema } from './report-schema.ts';
import { runDiskSoak } from './soak-bench.ts';

const MiB = 2 ** 20;
const place = mkdtempSync(join(tmpdir(), 'sluice-'));
after(() => rmSync(place, { recursive: true }));

const BASE = { size: 2 * MiB, runtime: 0.3, runs: 1, verify: true } as const;

for (const options of [
  { rw: 'randrw', guests: 1, iodepth: 8, disk: 'memory' },
  { rw: 'write', guests: 2, bs: 131072, iodepth: 4, packed: true, disk: 'memory' },
  { rw: 'randwrite', guests: 1, numjobs: 2, fsync: 4, iodepth: 1, disk: 'tmpfs' },
  { rw: 'readwrite', guests: 8, bs: 512, iodepth: 2, disk: `file:${place}` },
  { rw: 'randrw', guests: 1, iodepth: 32, fsync: 50, disk: 'memory', method: 'emulated' },
  { rw: 'randwrite', guests: 3, bs: 65536, iodepth: 1, disk: 'tmpfs', method: 'emulated' },
] as const) {
  const { disk, ...work } = options;
  const name = Object.entries(work).map(([key, value]) => `${key} ${value}`);
  test(`${name.join(', ')} on ${disk.replace(place, 'DIR')}: what is read was written`, async () => {
    const report = await runDiskBench(parseDiskOptions({ ...BASE, ...options }));
    diskReportSchema.parse(report);
    assert.deepEqual(report.errors, { failed: 0, stale: 0, corrupt: 0 });
    const { results, idle } = report;
    assert.equal(results.per_guest_iops.length, options.guests);
    assert.ok(results.per_guest_iops.every((iops) => iops > 0));
    assert.equal(results.read_iops > 0, options.rw === 'randrw' || options.rw === 'readwrite');
    assert.ok(results.write_iops > 0);
    assert.equal(results.flushes_per_s > 0, 'fsync' in options);
    assert.ok(results.latency_us.p50 > 0 && results.latency_us.p99 >= results.latency_us.p50);
    assert.ok(results.ns_per_request > 0);
    const isEmulated = 'method' in options;
    assert.equal(report.method, isEmulated ? 'emulated' : 'paravirtual');
    assert.equal(results.traps_per_s > 0, isEmulated);
    // Two writes of registers for as many requests as were issued at once, and a read for those that ended.
    if (isEmulated && options.iodepth === 1) assert.ok(results.traps_per_request >= 2);
    if (isEmulated && options.iodepth > 1) assert.ok(results.traps_per_request < 2);
    assert.equal(results.kicks_per_s > 0 && isEmulated, false);
    assert.ok((idle?.round_trip_us.p50 ?? 0) > 0);
    assert.deepEqual(readdirSync(place), [], 'files are left behind');
  });
}

test('an existing file is only read, keeps what a verifying run has left, and may be given up', async () => {
  const file = join(place, 'kept.img');
  writeFileSync(file, Buffer.alloc(MiB));
  const options = { ...BASE, size: undefined, disk: `file:${file}`, iodepth: 4 };
  await assert.rejects(runDiskBench(parseDiskOptions({ ...options, rw: 'write' })), {
    code: 'usage',
    message: /overwrite/,
  });
  const before = statSync(file).mtimeMs;
  await runDiskBench(parseDiskOptions({ ...options, rw: 'read' }), {}, false);
  assert.equal(statSync(file).mtimeMs, before);
  await runDiskBench(parseDiskOptions({ ...options, rw: 'randwrite', overwrite: true }), {}, false);
  // Another domain and another guest: all that tells them what to find is in the file.
  const { errors, disk_bytes } = await runDiskBench(
    parseDiskOptions({ ...options, rw: 'read' }),
    {},
    false,
  );
  assert.equal(disk_bytes, MiB);
  assert.deepEqual(errors, { failed: 0, stale: 0, corrupt: 0 });
  rmSync(file);
});

test('an interrupted bench leaves nothing behind', async () => {
  const abort = new AbortController();
  const reason = new Error('enough');
  const running = runDiskBench(parseDiskOptions({ ...BASE, disk: `file:${place}`, runtime: 60 }), {
    signal: abort.signal,
    onStep: (step) => {
      if (step.startsWith('run')) abort.abort(reason);
    },
  });
  await assert.rejects(running, (error: Error) => error === reason || error.name === 'AbortError');
  assert.deepEqual(readdirSync(place), []);
});

test('a soak counts and watches', async () => {
  const report = await runDiskSoak(
    parseDiskOptions({ ...BASE, rw: 'randrw', disk: 'memory', iodepth: 4 }),
    1,
  );
  diskSoakReportSchema.parse(report);
  assert.ok(report.requests > 0 && report.driver_domain.rss.last_bytes > 0);
  assert.deepEqual(report.errors, { failed: 0, stale: 0, corrupt: 0 });
});
