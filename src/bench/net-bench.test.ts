// suite: cores=1.5 takes=55
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runNetBench } from './net-bench.ts';
import { parseNetOptions } from './net-options.ts';
import { netReportSchema } from './report-schema.ts';
import { runSoak } from './soak-bench.ts';

/** Far below what any machine does: what is lost at this rate was lost by a fault. */
const PACE = 2000;

// Other benches may run beside these.
const place = mkdtempSync(join(tmpdir(), 'sluice-'));
process.env['TMPDIR'] = place;
after(() => rmSync(place, { recursive: true }));

for (const { packed, frame, direction, queues } of [
  { packed: false, frame: 64, direction: 'rx', queues: 1 },
  { packed: true, frame: 1514, direction: 'tx', queues: 2 },
  { packed: false, frame: 65000, direction: 'both', queues: 1 },
] as const) {
  const rings = packed ? 'packed' : 'split';
  test(`frames of ${frame} bytes, ${direction}, ${rings} rings, arrive once, whole and in order`, async () => {
    const report = await runNetBench(
      parseNetOptions({
        frame,
        packed,
        direction,
        queues,
        seconds: 1,
        runs: 1,
        verify: true,
        rate: PACE,
      }),
    );
    netReportSchema.parse(report);
    assert.deepEqual(report.errors, { reordered: 0, duplicated: 0, corrupt: 0 });
    assert.equal(report.results.loss_pct, 0);
    assert.equal(report.results.per_guest_gbps.length, direction === 'both' ? 2 : 1);
    assert.ok(report.results.gbps > 0 && report.results.mpps > 0);
    assert.ok(report.results.latency_us.p50 > 0);
    assert.ok(report.results.latency_us.p99 >= report.results.latency_us.p50);
    assert.ok(report.results.cpu_pct.driver_domain > 0 && report.results.cpu_pct.guests > 0);
    assert.ok(report.limit.memcpy_gbps > 0);
    assert.ok((report.idle?.round_trip_us.p50 ?? 0) > 0);
    assert.ok((report.idle?.wakeup_us?.p50 ?? 0) > 0);
  });
}

for (const { model, frame, direction, guests } of [
  { model: '82574', frame: 64, direction: 'tx', guests: 2 },
  { model: '82540', frame: 1514, direction: 'both', guests: 3 },
  { model: '82574', frame: 20000, direction: 'rx', guests: 2 },
] as const) {
  test(`through emulated cards (${model}), frames of ${frame} bytes arrive once, whole and in order`, async () => {
    const report = await runNetBench(
      parseNetOptions({
        method: 'emulated',
        model,
        frame,
        direction,
        guests,
        seconds: 1,
        runs: 1,
        verify: true,
        rate: PACE / 4,
      }),
    );
    netReportSchema.parse(report);
    assert.deepEqual([report.method, report.model], ['emulated', model]);
    assert.deepEqual(report.errors, { reordered: 0, duplicated: 0, corrupt: 0 });
    const { results } = report;
    assert.equal(results.loss_pct, 0);
    assert.ok(results.gbps > 0 && results.per_guest_gbps.every((gbps) => gbps > 0));
    assert.ok(results.latency_us.p50 > 0);
    // A tail for each burst, at least; single frames take one each, and an interrupt for the receiver.
    assert.ok(results.traps_per_s > 0 && results.traps_per_frame > 0);
    assert.ok(results.interrupts_per_s > 0, 'guests that sleep between frames are woken');
    assert.equal(results.kicks_per_s, 0, 'a tail is a trap, no kick');
    assert.ok((report.idle?.wakeup_us?.p50 ?? 0) > 0);
  });
}

for (const { name, withIdle = false, ...options } of [
  { name: 'ports of their own', method: 'direct', frame: 1514, withIdle: true },
  {
    name: 'virtual functions of two ports',
    method: 'sriov',
    frame: 64,
    direction: 'both',
    guests: 3,
  },
  {
    name: 'functions of one port',
    method: 'sriov',
    frame: 20000,
    guests: 2,
    ports: 1,
    link: 'none',
  },
  {
    name: 'interrupts and several queues',
    method: 'sriov',
    frame: 300,
    guests: 2,
    queues: 2,
    itr: 8000,
  },
  { name: 'interrupts that adapt', method: 'direct', frame: 1514, guests: 2, itr: 'adaptive' },
] as const) {
  test(`through functions of an 82599 (${name}), frames arrive once, whole and in order`, async () => {
    // Who waits for interrupts must hold in its ring what a late sender makes up for.
    const rate = 'itr' in options ? PACE / 4 : PACE;
    const report = await runNetBench(
      parseNetOptions({ ...options, seconds: 0.5, runs: 1, verify: true, rate }),
      {},
      withIdle,
    );
    netReportSchema.parse(report);
    assert.deepEqual([report.method, report.model], [options.method, '82599']);
    assert.deepEqual(report.errors, { reordered: 0, duplicated: 0, corrupt: 0 });
    const { results } = report;
    assert.equal(results.loss_pct, 0);
    assert.ok(results.gbps > 0 && results.per_guest_gbps.every((gbps) => gbps > 0));
    assert.ok(results.latency_us.p50 > 0);
    assert.equal(results.cpu_pct.driver_domain, 0);
    assert.ok(results.cpu_pct.device_model > 0, 'the lane plays the card');
    assert.ok(results.interrupts_per_s > 0, 'guests that sleep between frames are woken');
    // Who is woken has asked for it by a trap, and does nothing else by one.
    const { traps_per_s: traps, interrupts_per_s: interrupts } = results;
    assert.ok(traps <= 1.5 * interrupts + 100, `${traps} traps, ${interrupts} interrupts a second`);
    assert.equal(results.itr, 'itr' in options && options.itr === 'adaptive' ? 0 : 8000);
    if (results.delivery_us !== undefined) assert.ok(results.delivery_us.p50 > 0);
    assert.equal(report.idle !== undefined, withIdle);
  });
}

for (const { direction, guests, ...options } of [
  { method: 'sriov', direction: 'tx', guests: 3, frame: 1514 },
  { method: 'sriov', direction: 'both', guests: 1, frame: 64 },
  { method: 'direct', direction: 'rx', guests: 1, frame: 20000 },
] as const) {
  test(`${direction} of ${guests} with machines outside (${options.method}): frames arrive once, whole and in order`, async () => {
    const report = await runNetBench(
      parseNetOptions({
        ...options,
        direction,
        guests,
        outside: true,
        seconds: 0.5,
        runs: 1,
        verify: true,
        rate: PACE,
      }),
      {},
      false,
    );
    netReportSchema.parse(report);
    assert.equal(report.outside, true);
    assert.deepEqual(report.errors, { reordered: 0, duplicated: 0, corrupt: 0 });
    const { results } = report;
    assert.equal(results.loss_pct, 0);
    assert.equal(results.per_guest_gbps.length, direction === 'both' ? 2 * guests : guests);
    assert.ok(results.per_guest_gbps.every((gbps) => gbps > 0));
    assert.ok(results.fairness > 0.9, 'what each guest sends is told apart at the far end');
    assert.ok(results.latency_us.p50 > 0);
  });
}

test('a ring of guests has a rate for each, and memory is watched while it runs', async () => {
  const options = parseNetOptions({ guests: 5, direction: 'both', frame: 100, rate: PACE });
  const report = await runSoak(options, 2);
  assert.ok(report.frames > 0);
  assert.equal(report.loss_pct, 0);
  assert.ok(report.driver_domain.rss.last_bytes > 0);
  assert.ok(report.driver_domain.heap.last_bytes > 0);
});

test('an interrupted bench ends with the reason and leaves nothing behind', async () => {
  const abort = new AbortController();
  const reason = new Error('enough');
  await assert.rejects(
    runNetBench(parseNetOptions({ seconds: 60 }), {
      signal: abort.signal,
      onStep: (step) => {
        if (step.includes('traffic')) abort.abort(reason);
      },
    }),
    (error: Error) => error === reason || error.cause === reason,
  );
  assert.deepEqual(readdirSync(place), []);
});
