import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  chooseDiskWorks,
  DISK_DEPTHS,
  DISK_MODES,
  DISK_RWS,
  DISK_TARGETS,
  type DiskWork,
  type DiskWorkChoice,
  diskWorkName,
  measuresOf,
} from './disk-work.ts';

const everything: DiskWorkChoice = {
  targets: DISK_TARGETS,
  modes: DISK_MODES,
  rws: DISK_RWS,
  depths: DISK_DEPTHS,
};

test('all works are there, each with a name of its own', () => {
  const names = chooseDiskWorks(everything).map(diskWorkName);
  assert.equal(names.length, 24);
  assert.equal(new Set(names).size, 24);
  assert.deepEqual(names.slice(0, 6), [
    'tmpfs 4 KiB randread depth 1',
    'tmpfs 4 KiB randread depth 32',
    'tmpfs 4 KiB randwrite depth 1',
    'tmpfs 4 KiB randwrite depth 32',
    'tmpfs 128 KiB read depth 8',
    'tmpfs 128 KiB write depth 8',
  ]);
  assert.ok(names.includes('disk 128 KiB write depth 8 polling'));
});

test('fewer works can be asked for, by each of their properties', () => {
  const names = (choice: Partial<DiskWorkChoice>): string[] =>
    chooseDiskWorks({ ...everything, ...choice }).map(diskWorkName);
  assert.deepEqual(names({ targets: ['disk'], modes: ['poll'], depths: [32] }), [
    'disk 4 KiB randread depth 32 polling',
    'disk 4 KiB randwrite depth 32 polling',
  ]);
  assert.deepEqual(names({ rws: ['read'], modes: ['interrupt'] }), [
    'tmpfs 128 KiB read depth 8',
    'disk 128 KiB read depth 8',
  ]);
  assert.deepEqual(names({ rws: ['read'], depths: [1] }), []);
});

test('a work makes rows of rate, of latency, or of bandwidth', () => {
  const figures = { iops: 250_000, bytes_per_s: 4e9, latency_ns: { p50: 6500, p99: 20_000 } };
  const work: DiskWork = { target: 'tmpfs', mode: 'interrupt', rw: 'read', bs: 4096, depth: 1 };
  const rows = (changes: Partial<DiskWork>) =>
    measuresOf({ ...work, ...changes }).map(({ unit, better, value }) => [
      unit,
      better,
      value(figures),
    ]);
  assert.deepEqual(rows({ rw: 'randread' }), [
    ['kIOPS', 'higher', 250],
    ['us', 'lower', 6.5],
  ]);
  assert.deepEqual(rows({ rw: 'randread', depth: 32 }), [['kIOPS', 'higher', 250]]);
  assert.deepEqual(rows({ bs: 128 * 1024, depth: 8 }), [['GB/s', 'higher', 4]]);
});
