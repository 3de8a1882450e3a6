/**
 * `sluice bench net --soak SECONDS`, and `disk`: work for long, while the driver domain's memory is watched.
 *
 * Two things are watched: the resident memory of the process that the lane runs in, without what is
 * mapped from files (guest memory among it), and the heap of the lane in use. Both saw: they rise until a
 * collection and fall. So the verdict rests on the slope of a line through all samples after the
 * warm-up, and what it would add up to over the whole run.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicNs } from '../os/clock.ts';
import type { BenchControl } from './bench-control.ts';
import type { DiskSample } from './disk-guests.ts';
import type { DiskOptions } from './disk-options.ts';
import { startDiskRig } from './disk-rig.ts';
import { describeMachine } from './machine.ts';
import type { NetOptions } from './net-options.ts';
import { startNetRig } from './net-rig.ts';
import type { PrivateDomain } from './private-domain.ts';
import type { DiskSoakReport, SoakReport } from './report-schema.ts';
import { gbps, percent, perUnit, significant, slope } from './statistics.ts';

const SAMPLE_MS = 1000;
/** Part of the samples, from the beginning, that the slope leaves out. */
const WARM_UP_SHARE = 0.2;
/** Growth over the run that the noise of a garbage-collected heap explains. */
const NOISE_BYTES = 4 * 2 ** 20;

/** Memory at one moment. */
interface MemorySample {
  readonly seconds: number;
  readonly residentBytes: number;
  readonly heapBytes: number;
}

export type Trend = SoakReport['driver_domain']['rss'];

/** First and last of the samples after the warm-up, and the slope between. */
export function trendOf(points: readonly (readonly [seconds: number, bytes: number])[]): Trend {
  const warm = points.slice(Math.floor(points.length * WARM_UP_SHARE));
  return {
    first_bytes: warm[0]?.[1] ?? 0,
    last_bytes: warm.at(-1)?.[1] ?? 0,
    bytes_per_minute: Math.round(slope(warm) * 60),
  };
}

/** Whether memory grows by more than noise in the course of `seconds`. */
export function verdictOf(trends: readonly Trend[], seconds: number): SoakReport['verdict'] {
  const grows = trends.some((trend) => (trend.bytes_per_minute / 60) * seconds > NOISE_BYTES);
  return grows ? 'growing' : 'steady';
}

/** What became of the driver domain's memory while it worked. */
interface Watched {
  /** Seconds that were watched. */
  readonly seconds: number;
  readonly driver_domain: { readonly rss: Trend; readonly heap: Trend };
  readonly verdict: SoakReport['verdict'];
}

async function watchMemory(
  domain: PrivateDomain,
  seconds: number,
  { signal, onStep }: BenchControl,
): Promise<Watched> {
  const began = monotonicNs();
  const elapsed = (): number => (monotonicNs() - began) / 1e9;
  const samples: MemorySample[] = [];
  while (elapsed() < seconds) {
    await sleep(Math.min(SAMPLE_MS, seconds * 1000), undefined, { signal });
    const { residentBytes, heapBytes } = await domain.memory();
    samples.push({ seconds: elapsed(), residentBytes, heapBytes });
    onStep?.(
      `${Math.round(elapsed())} of ${seconds} s, resident ${Math.round(residentBytes / 2 ** 20)} MiB`,
    );
  }
  const rss = trendOf(samples.map((sample) => [sample.seconds, sample.residentBytes]));
  const heap = trendOf(samples.map((sample) => [sample.seconds, sample.heapBytes]));
  const watched = elapsed();
  return {
    seconds: significant(watched),
    driver_domain: { rss, heap },
    verdict: verdictOf([rss, heap], watched),
  };
}

export async function runSoak(
  options: NetOptions,
  seconds: number,
  control: BenchControl = {},
): Promise<SoakReport> {
  await using rig = await startNetRig(options, control);
  const { domain, guests } = rig;
  await guests.start();
  const first = await domain.sample();
  const guestsFirst = await guests.sample(first);
  const watched = await watchMemory(domain, seconds, control);
  const last = await domain.sample();
  const guestsLast = await guests.sample(last);
  const totals = await guests.stop();
  const frames = guestsLast.frames - guestsFirst.frames;
  const bytes = guestsLast.flowBytes.reduce(
    (sum, value, flow) => sum + value - (guestsFirst.flowBytes[flow] ?? 0),
    0,
  );
  return {
    bench: 'soak',
    method: options.method,
    ...(options.model === undefined ? {} : { model: options.model }),
    guests: options.guests,
    frame: options.frame,
    direction: options.direction,
    ...watched,
    frames,
    gbps: significant(gbps(bytes, watched.seconds)),
    loss_pct: significant(percent(totals.frames?.lost ?? 0, totals.frames?.sent ?? 0)),
    errors: totals.errors ?? { reordered: 0, duplicated: 0, corrupt: 0 },
    heap_bytes_per_frame: significant(perUnit(last.laneHeapBytes - first.laneHeapBytes, frames)),
    machine: describeMachine(),
  };
}

export async function runDiskSoak(
  options: DiskOptions,
  seconds: number,
  control: BenchControl = {},
): Promise<DiskSoakReport> {
  await using rig = await startDiskRig(options, control);
  const { domain, guests } = rig;
  await guests.start();
  const first = await domain.sample();
  const guestsFirst = await guests.sample();
  const watched = await watchMemory(domain, seconds, control);
  const last = await domain.sample();
  const guestsLast = await guests.sample();
  const { failed, stale, corrupt } = await guests.stop();
  const done = ({ reads, writes }: DiskSample): number => reads + writes;
  const requests = done(guestsLast) - done(guestsFirst);
  const { method, guests: count, rw, bs, iodepth, numjobs, disk } = options;
  return {
    bench: 'disk-soak',
    ...{ method, guests: count, rw, bs, iodepth, numjobs, disk },
    ...watched,
    requests,
    iops: significant(requests / watched.seconds),
    errors: { failed, stale, corrupt },
    heap_bytes_per_request: significant(
      perUnit(last.laneHeapBytes - first.laneHeapBytes, requests),
    ),
    machine: describeMachine(),
  };
}
