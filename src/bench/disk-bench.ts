/**
 * `sluice bench disk`: a private driver domain, guests on its disks, some runs, one report.
 *
 * The disks are filled once, so that what is read was written. A run: work, of which the beginning is
 * not counted (code is compiled), then the counted seconds, then the end, after which no request is on
 * its way.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { BlockCounter } from '../device/virtio-blk/counters.ts';
import { monotonicNs } from '../os/clock.ts';
import type { BenchControl } from './bench-control.ts';
import { type DiskRun, summarizeDiskRuns } from './disk-accounting.ts';
import { type DiskSample, latencyOf } from './disk-guests.ts';
import type { DiskOptions } from './disk-options.ts';
import { type DiskRig, startDiskRig } from './disk-rig.ts';
import { measureIdle } from './idle.ts';
import { describeMachine } from './machine.ts';
import { BRIEF_WINDOWS, measureMemcpyLimit } from './memcpy-limit.ts';
import type { DomainSample } from './private-domain.ts';
import type { DiskReport } from './report-schema.ts';
import { significant } from './statistics.ts';

/** Work before the counted part of a run; before the first run, more: filling has warmed most of it up. */
const WARM_UP_MS = 100;
const FIRST_WARM_UP_MS = 300;

/** The memory limit is measured over no more than this: beyond, nothing changes any more. */
const MOST_FOOTPRINT = 1024 * 2 ** 20;

/**
 * Runs the bench. Everything that it started has ended when it settles.
 * @param withIdle also watch the lane while nothing moves.
 */
export async function runDiskBench(
  options: DiskOptions,
  control: BenchControl = {},
  withIdle = true,
): Promise<DiskReport> {
  await using rig = await startDiskRig(options, control);
  const { guests, placement } = rig;
  const footprint = Math.min(guests.footprint, MOST_FOOTPRINT);
  control.onStep?.('measuring the memcpy limit');
  const memcpy = await measureMemcpyLimit({
    frame: options.bs,
    footprint,
    cpus: placement.lane,
    windows: withIdle ? undefined : BRIEF_WINDOWS,
  });
  const idle = withIdle ? await measureIdle(rig, control) : undefined;
  const runs: DiskRun[] = [];
  let failure: string | undefined;
  for (let run = 0; run < options.runs; run++) {
    const done = await measureRun(rig, options, control, run);
    runs.push(done.run);
    failure ??= done.failure;
  }
  const { results, errors } = summarizeDiskRuns(runs);
  return {
    bench: 'disk',
    method: options.method,
    guest: options.guest,
    guests: options.guests,
    rw: options.rw,
    bs: options.bs,
    iodepth: options.iodepth,
    numjobs: options.numjobs,
    rwmixread: options.rwmixread,
    fsync: options.fsync,
    disk: options.disk,
    disk_bytes: guests.diskBytes[0] ?? 0,
    direct: options.direct,
    runtime: options.runtime,
    runs: options.runs,
    packed: options.packed,
    verified: options.verify,
    results,
    errors: { ...errors, ...(failure === undefined ? {} : { first: failure }) },
    ...(idle === undefined ? {} : { idle }),
    limit: { memcpy_gbps: significant(memcpy), footprint_bytes: footprint },
    machine: describeMachine(),
  };
}

async function measureRun(
  { domain, guests }: DiskRig,
  options: DiskOptions,
  { signal, onStep }: BenchControl,
  index: number,
): Promise<{ readonly run: DiskRun; readonly failure: string | undefined }> {
  const wait = (ms: number): Promise<void> => sleep(ms, undefined, { signal });
  onStep?.(`run ${index + 1} of ${options.runs}`);
  await guests.start();
  await wait(index === 0 ? FIRST_WARM_UP_MS : WARM_UP_MS);

  const domainBefore = await domain.sample();
  const before = await guests.sample();
  const began = monotonicNs();
  await wait(options.runtime * 1000);
  const domainAfter = await domain.sample();
  const after = await guests.sample();
  const seconds = (monotonicNs() - began) / 1e9;
  const { failure, failed, stale, corrupt } = await guests.stop();
  const domainOf = (count: (sample: DomainSample) => number): number =>
    count(domainAfter) - count(domainBefore);
  const guestsOf = (count: (sample: DiskSample) => number): number => count(after) - count(before);
  return {
    run: {
      seconds,
      guestRequests: after.requests.map((count, guest) => count - (before.requests[guest] ?? 0)),
      reads: guestsOf((sample) => sample.reads),
      writes: guestsOf((sample) => sample.writes),
      flushes: guestsOf((sample) => sample.flushes),
      bytes: guestsOf((sample) => sample.bytes),
      latencyUs: latencyOf(after.latency, before.latency),
      laneCpuNs: domainOf((sample) => sample.laneCpuNs),
      guestCpuNs: guestsOf((sample) => sample.cpuNs),
      laneWaitNs: domainOf((sample) => sample.laneWaitNs),
      guestWaitNs: guestsOf((sample) => sample.waitNs),
      laneBusyTurns: domainOf((sample) => sample.laneBusyTurns),
      traps: domainOf((sample) => sample.trapReads + sample.trapWrites),
      kicks: domainOf((sample) => countOf(sample, 'kicks')),
      calls: domainOf((sample) => countOf(sample, 'calls') + sample.interrupts),
      laneHeapBytes: domainOf((sample) => sample.laneHeapBytes),
      guestHeapBytes: guestsOf((sample) => sample.heapBytes),
      errors: { failed, stale, corrupt },
    },
    failure,
  };
}

function countOf({ devices }: DomainSample, name: BlockCounter): number {
  return devices.reduce((total, device) => total + device[name], 0);
}
