/** The lane while nothing moves, and how long a frame or request takes that wakes everybody. */
import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicNs } from '../os/clock.ts';
import type { BenchControl } from './bench-control.ts';
import type { Latency } from './bench-guests.ts';
import type { PrivateDomain } from './private-domain.ts';
import type { IdleReport } from './report-schema.ts';
import { percent, significant } from './statistics.ts';

/** Until everybody has gone to sleep. */
const SETTLE_MS = 200;
const IDLE_MS = 1000;

/** A driver domain, and guests of which each can find it asleep. */
export interface IdleRig {
  readonly domain: PrivateDomain;
  readonly guests: {
    warmUp?(): Promise<void>;
    measureAsleepLatency(): Promise<Latency | undefined>;
    measureWakeup?(): Promise<Latency | undefined>;
  };
}

/** Undefined for guests that are never idle. */
export async function measureIdle(
  { domain, guests }: IdleRig,
  { signal, onStep }: BenchControl,
): Promise<IdleReport | undefined> {
  await guests.warmUp?.();
  onStep?.('idle: round trips from sleep');
  const latency = await guests.measureAsleepLatency();
  if (latency === undefined) return undefined;
  onStep?.('idle: wake-ups');
  const wakeup = await guests.measureWakeup?.();
  onStep?.('idle: watching the lane');
  await sleep(SETTLE_MS, undefined, { signal });
  const before = await domain.sample();
  const began = monotonicNs();
  await sleep(IDLE_MS, undefined, { signal });
  const after = await domain.sample();
  const ns = monotonicNs() - began;
  return {
    lane_cpu_pct: significant(percent(after.laneCpuNs - before.laneCpuNs, ns)),
    // After the first sample, which wakes it, it goes to sleep once more.
    wakeups_per_s: significant(Math.max(0, after.laneSleeps - before.laneSleeps - 1) / (ns / 1e9)),
    ...(wakeup === undefined
      ? {}
      : { wakeup_us: { p50: significant(wakeup.p50), p99: significant(wakeup.p99) } }),
    round_trip_us: { p50: significant(latency.p50), p99: significant(latency.p99) },
  };
}
