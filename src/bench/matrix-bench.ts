/** `sluice bench all`: every method, over sizes of frames and numbers of guests, and the idle lane. */
import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicNs } from '../os/clock.ts';
import { describeMachine } from './machine.ts';
import { type BenchControl, startNetRig } from './net-bench.ts';
import { type NetOptions, parseNetOptions } from './net-options.ts';
import { type MatrixReport, METHODS, type NetReport } from './report-schema.ts';
import { percent, significant } from './statistics.ts';

/** Smallest and largest frame without segmentation offload, and one with. */
const FRAMES = [64, 1514, 65000] as const;
/** 30 is the number of virtual machines in the talk that this bench follows. */
const GUESTS = [2, 8, 30] as const;
const SECONDS = 0.6;
const RUNS = 3;

const IDLE_GUESTS = 8;
/** Until everybody has gone to sleep after the start. */
const SETTLE_MS = 500;
const IDLE_MS = 2000;

/** What is measured, row by row. */
export function matrixRows(): NetOptions[] {
  return METHODS.flatMap((method) =>
    GUESTS.flatMap((guests) =>
      FRAMES.map((frame) =>
        parseNetOptions({
          method,
          guests,
          frame,
          direction: 'both',
          seconds: SECONDS,
          runs: RUNS,
        }),
      ),
    ),
  );
}

/** The lane's part in a driver domain whose guests do nothing. */
export async function measureIdle(control: BenchControl = {}): Promise<MatrixReport['idle']> {
  await using rig = await startNetRig(parseNetOptions({ guests: IDLE_GUESTS }), control);
  await sleep(SETTLE_MS, undefined, { signal: control.signal });
  control.onStep?.('watching the idle lane');
  const before = await rig.domain.sample();
  const began = monotonicNs();
  await sleep(IDLE_MS, undefined, { signal: control.signal });
  const after = await rig.domain.sample();
  const ns = monotonicNs() - began;
  return {
    guests: IDLE_GUESTS,
    lane_cpu_pct: significant(percent(after.laneCpuNs - before.laneCpuNs, ns)),
    // The samples themselves wake it; of the first, the sleep after it is counted.
    wakeups_per_s: significant(Math.max(0, after.laneSleeps - before.laneSleeps - 1) / (ns / 1e9)),
  };
}

/** The parts of the report, which may be measured one at a time. */
export function matrixReport(
  version: string,
  rows: readonly NetReport[],
  idle: MatrixReport['idle'],
): MatrixReport {
  return {
    bench: 'all',
    version,
    date: new Date().toISOString(),
    rows: [...rows],
    idle,
    machine: describeMachine(),
  };
}
