import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeMachine } from './machine.ts';
import { summarizeNetRuns } from './net-accounting.ts';
import { type NetReport, netReportSchema, talkReportSchema } from './report-schema.ts';
import { TALK_COLUMNS, talkCells, talkReport, talkRows, talkTitle } from './talk-bench.ts';

const { results, errors } = summarizeNetRuns(
  [
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
      traps: 8000,
      kicks: 0,
      calls: 8000,
      laneHeapBytes: 0,
      errors: { reordered: 0, duplicated: 0, corrupt: 0 },
    },
  ],
  { laneIs: 'device_model', itr: 8000, deliveryUs: { p50: 1.5, p99: 3 } },
);
const row: NetReport = netReportSchema.parse({
  bench: 'net',
  method: 'sriov',
  model: '82599',
  ports: 2,
  link: '10G',
  itr: 8000,
  guest: 'embedded',
  guests: 2,
  frame: 1514,
  direction: 'rx',
  seconds: 1,
  runs: 1,
  packed: false,
  queues: 1,
  verified: false,
  results,
  errors,
  limit: { memcpy_gbps: 40, footprint_bytes: 1 },
  machine: { ...describeMachine(), cpu: 'a processor' },
});

test('every row is a bench that can be, and no two are the same', () => {
  const rows = talkRows();
  assert.equal(new Set(rows.map((one) => JSON.stringify(one))).size, rows.length);
  const guestsOf = (wanted: (row: (typeof rows)[number]) => boolean): number[] =>
    rows.filter(wanted).map(({ guests }) => guests);
  const shared = { method: 'sriov', ports: 2, link: '10G', frame: 1514, itr: undefined } as const;
  const isShared = (row: (typeof rows)[number]): boolean =>
    Object.entries(shared).every(([key, value]) => row[key as keyof typeof shared] === value);
  assert.deepEqual(
    guestsOf((row) => isShared(row) && row.outside && row.direction === 'tx'),
    [1, 2, 4, 8, 16, 30, 60],
    'all send over both ports to machines outside',
  );
  assert.deepEqual(
    guestsOf((row) => isShared(row) && !row.outside && row.direction === 'both'),
    [2, 4, 8, 16, 30, 60],
  );
  assert.deepEqual(
    rows.flatMap(({ guests, itr }) => (guests === 2 && itr !== undefined ? [itr] : [])),
    [0, 2000, 8000, 20_000, 'adaptive'],
  );
  assert.ok(rows.some(({ guests, itr, outside }) => guests === 30 && itr === 8000 && outside));
  assert.ok(rows.some(({ guests, itr, rate }) => guests === 30 && itr === 8000 && rate === 2000));
  const titles = rows.map(talkTitle);
  assert.equal(new Set(titles).size, rows.length, 'no two rows look the same');
  assert.ok(titles.includes('direct (82599, 10G), 2 guests, rx, frames of 1514 bytes'));
  assert.ok(titles.includes('sriov (82599, 10G), 1 guest, tx outside, frames of 1514 bytes'));
  assert.ok(titles.some((title) => title.endsWith('interrupts adaptive')));
});

test('a row has a cell for each column, and is told apart', () => {
  const cells = talkCells(row);
  assert.equal(cells.length, TALK_COLUMNS.length);
  const under = (title: (typeof TALK_COLUMNS)[number]) => cells[TALK_COLUMNS.indexOf(title)];
  assert.equal(under('method'), 'sriov (82599, 10G)');
  assert.equal(under('itr'), 8000);
  assert.equal(under('int/s'), 8000);
  assert.equal(under('device %'), 100);
  assert.equal(under('way us'), 1.5);
  assert.equal(under('trip us'), 12);
  assert.equal(under('fair'), 1);
  assert.equal(under('way'), 'rx');
  assert.equal(talkCells({ ...row, outside: true })[TALK_COLUMNS.indexOf('way')], 'rx outside');
  const { itr: _, ...polled } = row;
  assert.equal(talkCells(polled)[TALK_COLUMNS.indexOf('itr')], 'polled');
});

test('the report has the form that is promised', () => {
  talkReportSchema.parse(talkReport('1.2.3', [row]));
});
