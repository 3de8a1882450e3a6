/**
 * `sluice bench net`: a private driver domain, guests on it, some runs, one report.
 *
 * A run: round trips while nothing else moves; then traffic, of which the beginning is not counted
 * (code is compiled, TCP finds its window), then the counted seconds, then the end, after which no
 * frame is on its way.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { DEFAULT_INTERRUPTS } from '../guest/embedded/ixgbe-guest-card.ts';
import { PORT_COUNTERS } from '../net/port.ts';
import { monotonicNs } from '../os/clock.ts';
import type { BenchControl } from './bench-control.ts';
import type { Latency } from './bench-guests.ts';
import { flowsOf } from './flows.ts';
import { measureIdle } from './idle.ts';
import { describeMachine } from './machine.ts';
import { BRIEF_WINDOWS, measureMemcpyLimit } from './memcpy-limit.ts';
import { type NetRun, summarizeNetRuns } from './net-accounting.ts';
import { hasNic, type NetOptions } from './net-options.ts';
import { type NetRig, REAL_WARM_UP_MS, startNetRig } from './net-rig.ts';
import type { DomainSample } from './private-domain.ts';
import type { NetReport } from './report-schema.ts';
import { significant } from './statistics.ts';

/** Traffic before the counted part of a run; before the first run, more: less where there are many benches. */
const WARM_UP_MS = 100;
const FIRST_WARM_UP_MS = 600;
const BRIEF_WARM_UP_MS = 300;

/**
 * Runs the bench. Everything that it started has ended when it settles.
 * @param isWhole false: one of many, without what takes longest: the lane while nothing moves, and the whole
 * warm-up.
 */
export async function runNetBench(
  options: NetOptions,
  control: BenchControl = {},
  isWhole = true,
): Promise<NetReport> {
  await using rig = await startNetRig(options, control);
  const { guests, laneCpus } = rig;
  control.onStep?.('measuring the memcpy limit');
  const memcpy = await measureMemcpyLimit({
    frame: guests.copyBytes,
    footprint: guests.footprint,
    cpus: laneCpus,
    windows: isWhole ? undefined : BRIEF_WINDOWS,
  });
  const idle = isWhole ? await measureIdle(rig, control) : undefined;
  const delivery = hasNic(options.method) ? await measureDelivery(rig, control) : undefined;
  const runs: NetRun[] = [];
  let retransmits = 0;
  for (let run = 0; run < options.runs; run++) {
    const warmUp = run > 0 ? WARM_UP_MS : isWhole ? FIRST_WARM_UP_MS : BRIEF_WARM_UP_MS;
    const done = await measureRun(rig, options, control, { index: run, warmUp });
    runs.push(done.run);
    retransmits += done.tcpRetransmits ?? 0;
  }
  const { results, errors } = summarizeNetRuns(runs, {
    laneIs: hasNic(options.method) ? 'device_model' : 'driver_domain',
    itr: throttleOf(options),
    deliveryUs: delivery,
  });
  const embedded = options.guest === 'embedded';
  return {
    bench: 'net',
    method: options.method,
    ...(options.model === undefined ? {} : { model: options.model }),
    ...(options.ports === undefined ? {} : { ports: options.ports }),
    ...(options.link === undefined ? {} : { link: options.link }),
    ...(options.outside ? { outside: true } : {}),
    ...(options.itr === undefined ? {} : { itr: options.itr }),
    ...(options.rate === undefined ? {} : { rate: options.rate }),
    ...(options.doorbellPoll === undefined ? {} : { doorbell_poll_us: options.doorbellPoll }),
    guest: options.guest,
    guests: options.guests,
    frame: options.frame,
    direction: options.direction,
    seconds: options.seconds,
    runs: options.runs,
    packed: options.packed,
    queues: options.queues,
    verified: options.verify,
    ...(guests.rings === undefined
      ? {}
      : {
          rings: {
            receive_buffers: guests.rings.receiveBuffers,
            send_frames: guests.rings.sendFrames,
          },
        }),
    results,
    ...(embedded
      ? { errors }
      : { tcp: { streams: flowsOf(options.direction, options.guests).length, retransmits } }),
    ...(idle === undefined ? {} : { idle }),
    limit: { memcpy_gbps: significant(memcpy), footprint_bytes: guests.footprint },
    machine: describeMachine(),
  };
}

async function measureDelivery(
  { guests }: NetRig,
  { onStep }: BenchControl,
): Promise<Latency | undefined> {
  onStep?.('deliveries');
  return await guests.measureDelivery?.();
}

function throttleOf({ method, itr }: NetOptions): number {
  if (!hasNic(method) || itr === 'adaptive') return 0;
  return itr ?? DEFAULT_INTERRUPTS;
}

async function measureRun(
  { domain, guests }: NetRig,
  options: NetOptions,
  { signal, onStep }: BenchControl,
  { index, warmUp }: { readonly index: number; readonly warmUp: number },
): Promise<{ readonly run: NetRun; readonly tcpRetransmits: number | undefined }> {
  const wait = (ms: number): Promise<void> => sleep(ms, undefined, { signal });
  const name = `run ${index + 1} of ${options.runs}`;
  onStep?.(`${name}: round trips`);
  const latencyUs = await guests.measureLatency();
  onStep?.(`${name}: traffic`);
  const atStart = await domain.sample();
  await guests.start();
  await wait(options.guest === 'embedded' ? warmUp : REAL_WARM_UP_MS);

  const domainBefore = await domain.sample();
  const guestsBefore = await guests.sample(domainBefore);
  const began = monotonicNs();
  await wait(options.seconds * 1000);
  const domainAfter = await domain.sample();
  const guestsAfter = await guests.sample(domainAfter);
  const seconds = (monotonicNs() - began) / 1e9;

  const totals = await guests.stop();
  const frames = totals.frames ?? portLosses(atStart, await domain.sample());
  const of = (count: (sample: DomainSample) => number): number =>
    count(domainAfter) - count(domainBefore);
  return {
    run: {
      seconds,
      guestBytes: guestsAfter.flowBytes.map(
        (bytes, flow) => bytes - (guestsBefore.flowBytes[flow] ?? 0),
      ),
      frames: guestsAfter.frames - guestsBefore.frames,
      ...frames,
      latencyUs,
      laneCpuNs: of((sample) => sample.laneCpuNs),
      guestCpuNs: guestsAfter.cpuNs - guestsBefore.cpuNs,
      laneWaitNs: of((sample) => sample.laneWaitNs),
      laneBusyTurns: of((sample) => sample.laneBusyTurns),
      guestWaitNs:
        guestsAfter.waitNs === undefined
          ? undefined
          : guestsAfter.waitNs - (guestsBefore.waitNs ?? 0),
      traps: of((sample) => sample.trapReads + sample.trapWrites),
      kicks: of((sample) => sumOf(guestPorts(sample, options), ['kicks'])),
      calls: of((sample) => sumOf(guestPorts(sample, options), ['calls'])),
      laneHeapBytes: of((sample) => sample.laneHeapBytes),
      errors: totals.errors ?? { reordered: 0, duplicated: 0, corrupt: 0 },
    },
    tcpRetransmits: totals.tcpRetransmits,
  };
}

const DROPS = PORT_COUNTERS.filter((name) => name.includes('_drop_'));

/** What the ports saw sent and did not deliver, between two samples. */
function portLosses(
  before: DomainSample,
  after: DomainSample,
): { readonly sent: number; readonly lost: number } {
  return {
    sent: sumOf(after.ports, ['tx_frames']) - sumOf(before.ports, ['tx_frames']),
    lost: sumOf(after.ports, DROPS) - sumOf(before.ports, DROPS),
  };
}

/** Without those of machines outside. */
function guestPorts({ ports }: DomainSample, { guests }: NetOptions): DomainSample['ports'] {
  return ports.slice(0, guests);
}

function sumOf(
  ports: DomainSample['ports'],
  names: readonly (typeof PORT_COUNTERS)[number][],
): number {
  return ports.reduce((total, port) => names.reduce((sum, name) => sum + port[name], total), 0);
}
