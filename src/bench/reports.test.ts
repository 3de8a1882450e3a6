import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { matrixReportHtml } from './html-report.ts';
import { describeMachine } from './machine.ts';
import { matrixReport } from './matrix-bench.ts';
import { summarizeNetRuns } from './net-accounting.ts';
import {
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
const matrix = matrixReportSchema.parse({
  ...matrixReport('1.2.3', [row, { ...row, guests: 8, frame: 64 }], { guests: 8, ...idle }),
  machine,
});

describe('the report of one bench', () => {
  it('names everything that was asked for and found', () => {
    const text = netReportText(row);
    for (const words of [
      'paravirtual, 2 embedded guests, frames of 1514 bytes, both, packed rings, 2 queue pairs',
      '2 Gb/s (2 to 2 in 1 runs of 1 s)',
      '12 us median, 34 us 99th',
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
    assert.match(matrixNotes(matrix), /8 guests attached: the lane takes 0\.5 %.* 40 us/);
  });

  it('is a page that loads nothing and lets no name break out', () => {
    const page = matrixReportHtml(matrix);
    assert.ok(!page.includes('<fast>'), 'a name is markup');
    assert.ok(page.includes('A &lt;fast&gt; CPU'));
    assert.doesNotMatch(page, /\b(src|href)=/);
    assert.equal(page.match(/<svg /g)?.length, 3);
    assert.equal(page.match(/<rect class="bar"/g)?.length, 3 * 2);
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
