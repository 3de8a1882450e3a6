import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type NetRun, summarizeNetRuns } from './net-accounting.ts';
import { netErrorsSchema, netResultsSchema } from './report-schema.ts';

const run: NetRun = {
  seconds: 2,
  guestBytes: [250e6, 750e6],
  frames: 1e6,
  sent: 4e6,
  lost: 1e6,
  latencyUs: { p50: 10, p99: 30 },
  laneCpuNs: 1e9,
  guestCpuNs: 3e9,
  laneWaitNs: 0.1e9,
  guestWaitNs: 0.2e9,
  laneBusyTurns: 50_000,
  traps: 3e5,
  kicks: 10,
  calls: 40,
  laneHeapBytes: 1e6,
  errors: { reordered: 1, duplicated: 2, corrupt: 3 },
};

describe('the summary of runs', () => {
  it('has the units that its keys promise', () => {
    const { results, errors } = summarizeNetRuns([run]);
    netResultsSchema.parse(results);
    netErrorsSchema.parse(errors);
    assert.deepEqual(results, {
      gbps: 4,
      gbps_min: 4,
      gbps_max: 4,
      mpps: 0.5,
      ns_per_frame: 1000,
      loss_pct: 25,
      fairness: 0.8,
      per_guest_gbps: [1, 3],
      latency_us: { p50: 10, p99: 30 },
      cpu_pct: { driver_domain: 50, device_model: 0, guests: 150 },
      waited_pct: { driver_domain: 5, guests: 10 },
      frames_per_turn: 20,
      traps_per_s: 150_000,
      traps_per_frame: 0.3,
      kicks_per_s: 5,
      interrupts_per_s: 20,
      itr: 0,
      heap_bytes_per_frame: 1,
    });
  });

  it('is made of medians, and adds errors up', () => {
    const twice = { ...run, guestBytes: [500e6, 1500e6], frames: 2e6 };
    const none = { ...run, guestBytes: [0, 0], frames: 0, laneHeapBytes: 0 };
    const { results, errors } = summarizeNetRuns([twice, none, run]);
    assert.deepEqual([results.gbps_min, results.gbps, results.gbps_max], [0, 4, 8]);
    assert.deepEqual(results.per_guest_gbps, [1, 3]);
    assert.equal(results.mpps, 0.5);
    assert.deepEqual(errors, { reordered: 3, duplicated: 6, corrupt: 9 });
  });

  it('says whose the lane is, and what was measured once for all runs', () => {
    const { results } = summarizeNetRuns([run], {
      laneIs: 'device_model',
      itr: 8000,
      deliveryUs: { p50: 1.23456, p99: 5 },
    });
    netResultsSchema.parse(results);
    assert.deepEqual(results.cpu_pct, { driver_domain: 0, device_model: 50, guests: 150 });
    assert.equal(results.itr, 8000);
    assert.deepEqual(results.delivery_us, { p50: 1.235, p99: 5 });
  });

  it('says where nothing was measured', () => {
    const { results } = summarizeNetRuns([
      run,
      { ...run, laneHeapBytes: undefined, guestWaitNs: undefined },
    ]);
    assert.equal(results.heap_bytes_per_frame, null);
    assert.equal(results.waited_pct.guests, null);
  });
});
