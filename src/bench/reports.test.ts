import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { summarizeDiskRuns } from './disk-accounting.ts';
import { DISK_COLUMNS, diskCells, diskReportText } from './disk-text.ts';
import { matrixReportHtml } from './html-report.ts';
import { describeMachine } from './machine.ts';
import { matrixReport } from './matrix-bench.ts';
import { summarizeNetRuns } from './net-accounting.ts';
import {
  type DiskReport,
  diskReportSchema,
  matrixReportSchema,
  type NetReport,
  netReportSchema,
  type SoakReport,
  soakReportSchema,
} from './report-schema.ts';
import {
  busyNote,
  MATRIX_COLUMNS,
  matrixCells,
  matrixNotes,
  netReportText,
  soakReportText,
} from './text-report.ts';

const machine = { ...describeMachine(), cpu: 'A <fast> CPU' };
const { results, errors } = summarizeNetRuns([
  {
    seconds: 1,
    guestBytes: [125e6, 125e6],
    frames: 1e6,
    sent: 1e6,
    lost: 0,
    latencyUs: { p50: 12, p99: 34 },
    laneCpuNs: 1e9,
    guestCpuNs: 5e8,
    laneWaitNs: 0,
    guestWaitNs: 0,
    laneBusyTurns: 10,
    traps: 25e4,
    kicks: 0,
    calls: 0,
    laneHeapBytes: 0,
    errors: { reordered: 0, duplicated: 0, corrupt: 7 },
  },
]);
const idle = { lane_cpu_pct: 0.5, wakeups_per_s: 2, round_trip_us: { p50: 40, p99: 90 } };
const row: NetReport = netReportSchema.parse({
  bench: 'net',
  method: 'paravirtual',
  guest: 'embedded',
  guests: 2,
  frame: 1514,
  direction: 'both',
  seconds: 1,
  runs: 1,
  packed: true,
  queues: 2,
  verified: true,
  results,
  errors,
  idle,
  limit: { memcpy_gbps: 40, footprint_bytes: 2 ** 20 },
  machine,
} satisfies NetReport);
const diskRun = {
  seconds: 2,
  guestRequests: [30000, 10000],
  reads: 30000,
  writes: 10000,
  flushes: 20,
  bytes: 40000 * 4096,
  latencyUs: { p50: 21, p99: 43 },
  laneCpuNs: 1e9,
  guestCpuNs: 4e8,
  laneWaitNs: 0,
  guestWaitNs: 0,
  laneBusyTurns: 4000,
  traps: 30000,
  kicks: 10,
  calls: 200,
  laneHeapBytes: 80000,
  guestHeapBytes: 0,
  errors: { failed: 1, stale: 0, corrupt: 3 },
};
const disks = summarizeDiskRuns([diskRun, { ...diskRun, reads: 10000 }, diskRun]);
const disk: DiskReport = diskReportSchema.parse({
  bench: 'disk',
  method: 'paravirtual',
  guest: 'embedded',
  guests: 2,
  rw: 'randrw',
  bs: 4096,
  iodepth: 8,
  numjobs: 2,
  rwmixread: 75,
  fsync: 500,
  disk: 'tmpfs',
  disk_bytes: 2 ** 26,
  direct: false,
  runtime: 2,
  runs: 3,
  packed: true,
  verified: true,
  ...disks,
  errors: { ...disks.errors, first: 'read of sector <8> ended with status 1' },
  idle,
  limit: { memcpy_gbps: 10, footprint_bytes: 2 ** 27 },
  machine,
} satisfies DiskReport);
const matrix = matrixReportSchema.parse({
  ...matrixReport('1.2.3', [row, { ...row, guests: 8, frame: 64 }], [disk], { guests: 8, ...idle }),
  machine,
});

describe('the report of one bench', () => {
  it('names everything that was asked for and found', () => {
    const text = netReportText(row);
    for (const words of [
      'paravirtual, 2 embedded guests, frames of 1514 bytes, both, packed rings, 2 queue pairs',
      '2 Gb/s (2 to 2 in 1 runs of 1 s)',
      '12 us median, 34 us 99th',
      '250000 traps/s (0.25 a frame)',
      '7 corrupt (every frame checked)',
      'throughput is 0.05 of it',
      'round trip from sleep 40 us',
      'A <fast> CPU',
    ]) {
      assert.ok(text.includes(words), `${words}\nin\n${text}`);
    }
  });

  it('tells when the figures are not those of the lane alone', () => {
    assert.equal(busyNote([row]), undefined);
    const busy = { ...row, results: { ...results, waited_pct: { driver_domain: 1, guests: 30 } } };
    assert.match(busyNote([row, busy]) ?? '', /30 %/);
    assert.match(netReportText(busy), /busy/);
  });

  it('has the keys of the contract', () => {
    const { driver_domain, device_model, guests } = row.results.cpu_pct;
    assert.deepEqual([driver_domain, device_model, guests], [100, 0, 50]);
    assert.throws(() => netReportSchema.parse({ ...row, results: { ...results, gbps: -1 } }));
    assert.throws(() => netReportSchema.parse({ ...row, unknown: 1 }));
  });
});

describe('the report of one disk bench', () => {
  it('names everything that was asked for and found', () => {
    const text = diskReportText(disk);
    for (const words of [
      'paravirtual, 2 embedded guests, randrw, 4096 bytes, iodepth 8, numjobs 2, fsync 500, tmpfs of 64 MiB, packed rings',
      '20000 a second (10000 to 20000 in 3 runs of 2 s): 15000 reads, 5000 writes',
      '0.655 Gb/s',
      '21 us median, 43 us 99th',
      '25000 ns of the lane each, 10 in a turn',
      '0.8 (Jain), by guest 15000 5000',
      '10 flushes/s, 15000 traps/s (0.75 a request)',
      '2 bytes of heap a request',
      'throughput is 0.0655 of it',
      '3 requests failed (read of sector <8> ended with status 1), 0 blocks stale, 9 corrupt',
      'a read from sleep 40 us',
    ]) {
      assert.ok(text.includes(words), `${words}\nin\n${text}`);
    }
  });

  it('has a cell under each title', () => {
    const cells = diskCells(disk);
    assert.equal(cells.length, DISK_COLUMNS.length);
    const under = (title: (typeof DISK_COLUMNS)[number]): unknown =>
      cells[DISK_COLUMNS.indexOf(title)];
    assert.equal(under('kIOPS'), 20);
    assert.equal(under('memcpy'), 0.0655);
    assert.equal(under('p99 us'), 43);
    assert.equal(under('lane %'), 50);
    assert.equal(under('traps'), 0.75);
    assert.equal(under('fair'), 0.8);
  });
});

describe('the report of the matrix', () => {
  it('has a cell under each title', () => {
    const cells = matrixCells(row);
    assert.equal(cells.length, MATRIX_COLUMNS.length);
    const under = (title: (typeof MATRIX_COLUMNS)[number]): unknown =>
      cells[MATRIX_COLUMNS.indexOf(title)];
    assert.equal(under('method'), 'paravirtual');
    assert.equal(under('memcpy'), 0.05);
    assert.equal(under('ns'), 1000);
    assert.equal(under('guests %'), 50);
    assert.equal(under('trip us'), 12);
    assert.equal(under('traps'), 0.25);
    const emulated = matrixCells({ ...row, method: 'emulated', model: '82540' });
    assert.equal(emulated[0], 'emulated (82540)');
    const vf = { ...row, method: 'sriov', model: '82599', ports: 2, link: '10G' } as const;
    assert.equal(matrixCells(vf)[0], 'sriov (82599, 10G)');
    assert.equal(matrixCells({ ...vf, link: 'none' })[0], 'sriov (82599)');
    assert.equal(
      matrixCells({ ...vf, ports: 1 })[0],
      'sriov (82599, one port)',
      'no wire is crossed',
    );
    assert.match(matrixNotes(matrix), /8 guests attached: the lane takes 0\.5 %.* 40 us/);
  });

  it('is a page that loads nothing and lets no name break out', () => {
    const page = matrixReportHtml(matrix);
    assert.ok(!page.includes('<fast>'), 'a name is markup');
    assert.ok(page.includes('A &lt;fast&gt; CPU'));
    assert.doesNotMatch(page, /\b(src|href)=/);
    assert.equal(page.match(/<svg /g)?.length, 6);
    assert.equal(page.match(/<rect class="bar"/g)?.length, 3 * 2 + 3);
    const data = /<script type="application\/json" id="report">(.*)<\/script>/.exec(page)?.[1];
    assert.deepEqual(JSON.parse(data ?? ''), matrix);
  });
});

describe('the report of a soak', () => {
  it('shows what the verdict rests on', () => {
    const trend = { first_bytes: 2 ** 20, last_bytes: 3 * 2 ** 20, bytes_per_minute: 2048 };
    const report: SoakReport = soakReportSchema.parse({
      bench: 'soak',
      method: 'paravirtual',
      guests: 2,
      frame: 1514,
      direction: 'rx',
      seconds: 600,
      frames: 1000,
      gbps: 1,
      loss_pct: 0,
      errors,
      driver_domain: { rss: trend, heap: { ...trend, bytes_per_minute: -1024 } },
      heap_bytes_per_frame: 0,
      verdict: 'steady',
      machine,
    } satisfies SoakReport);
    const text = soakReportText(report);
    assert.match(text, /resident +1 MiB -> 3 MiB, 2\.0 KiB a minute/);
    assert.match(text, /heap in use +1 MiB -> 3 MiB, -1\.0 KiB a minute/);
    assert.match(text, /verdict +steady/);
  });
});
