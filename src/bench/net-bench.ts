/**
 * `sluice bench net`: a private driver domain, guests on it, some runs, one report.
 *
 * A run: round trips while nothing else moves; then traffic, of which the beginning is not counted
 * (code is compiled, TCP finds its window), then the counted seconds, then the end, after which no
 * frame is on its way.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { PORT_COUNTERS } from '../net/port.ts';
import { monotonicNs } from '../os/clock.ts';
import type { BenchGuests } from './bench-guests.ts';
import { startEmbeddedGuests } from './embedded-guests.ts';
import { flowsOf } from './flows.ts';
import { allowedCpus, describeMachine, type Placement, placeOn } from './machine.ts';
import { measureMemcpyLimit } from './memcpy-limit.ts';
import { type NetRun, summarizeNetRuns } from './net-accounting.ts';
import type { NetOptions } from './net-options.ts';
import { type DomainSample, PrivateDomain } from './private-domain.ts';
import { startRealGuests } from './real-guests.ts';
import type { NetReport } from './report-schema.ts';
import { significant } from './statistics.ts';

/** Traffic before the counted part of a run; before the first run, more. */
const WARM_UP_MS = 200;
const FIRST_WARM_UP_MS = 600;
const REAL_WARM_UP_MS = 1500;
/** What iperf3 sends longer than is counted. */
const REAL_MARGIN_MS = 1500;

/** What may be told while it goes on, and what ends it early. */
export interface BenchControl {
  readonly signal?: AbortSignal | undefined;
  /** Called with what is being done now, in a few words. */
  readonly onStep?: ((step: string) => void) | undefined;
}

/** A driver domain with guests on it, ready for runs. */
export interface NetRig extends AsyncDisposable {
  readonly domain: PrivateDomain;
  readonly guests: BenchGuests;
  readonly placement: Placement;
}

export async function startNetRig(options: NetOptions, control: BenchControl): Promise<NetRig> {
  const placement = placeOn(allowedCpus());
  control.onStep?.('starting the driver domain');
  const stack = new AsyncDisposableStack();
  try {
    const domain = stack.use(
      await PrivateDomain.start({
        guests: options.guests,
        packed: options.packed,
        queues: options.queues,
        cpus: placement.lane,
      }),
    );
    control.onStep?.(`starting ${options.guests} guests`);
    const flows = flowsOf(options.direction, options.guests);
    const { guest: kind, frame, packed, queues } = options;
    const guests = stack.use(
      kind === 'embedded'
        ? await startEmbeddedGuests({
            ...options,
            flows,
            guests: domain.guests,
            cpus: placement.guests,
          })
        : await startRealGuests({
            kind,
            guests: domain.guests,
            flows,
            frame,
            packed,
            queues,
            trafficSeconds: options.seconds + (REAL_WARM_UP_MS + REAL_MARGIN_MS) / 1000,
          }),
    );
    control.signal?.throwIfAborted();
    const owned = stack.move();
    return { domain, guests, placement, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

/** Runs the bench. Everything that it started has ended when it settles. */
export async function runNetBench(
  options: NetOptions,
  control: BenchControl = {},
): Promise<NetReport> {
  await using rig = await startNetRig(options, control);
  const { guests, placement } = rig;
  control.onStep?.('measuring the memcpy limit');
  const memcpy = await measureMemcpyLimit({
    frame: guests.copyBytes,
    footprint: guests.footprint,
    cpus: placement.lane,
  });
  const runs: NetRun[] = [];
  let retransmits = 0;
  for (let run = 0; run < options.runs; run++) {
    const done = await measureRun(rig, options, control, run);
    runs.push(done.run);
    retransmits += done.tcpRetransmits ?? 0;
  }
  const { results, errors } = summarizeNetRuns(runs);
  const embedded = options.guest === 'embedded';
  return {
    bench: 'net',
    method: options.method,
    guest: options.guest,
    guests: options.guests,
    frame: options.frame,
    direction: options.direction,
    seconds: options.seconds,
    runs: options.runs,
    packed: options.packed,
    queues: options.queues,
    verified: options.verify,
    results,
    ...(embedded
      ? { errors }
      : { tcp: { streams: flowsOf(options.direction, options.guests).length, retransmits } }),
    limit: { memcpy_gbps: significant(memcpy), footprint_bytes: guests.footprint },
    machine: describeMachine(),
  };
}

async function measureRun(
  { domain, guests }: NetRig,
  options: NetOptions,
  { signal, onStep }: BenchControl,
  index: number,
): Promise<{ readonly run: NetRun; readonly tcpRetransmits: number | undefined }> {
  const wait = (ms: number): Promise<void> => sleep(ms, undefined, { signal });
  const name = `run ${index + 1} of ${options.runs}`;
  onStep?.(`${name}: round trips`);
  const latencyUs = await guests.measureLatency();
  onStep?.(`${name}: traffic`);
  const atStart = await domain.sample();
  await guests.start();
  const warmUp = index === 0 ? FIRST_WARM_UP_MS : WARM_UP_MS;
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
      kicks: of((sample) => sumOf(sample, ['kicks'])),
      calls: of((sample) => sumOf(sample, ['calls'])),
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
    sent: sumOf(after, ['tx_frames']) - sumOf(before, ['tx_frames']),
    lost: sumOf(after, DROPS) - sumOf(before, DROPS),
  };
}

function sumOf({ ports }: DomainSample, names: readonly (typeof PORT_COUNTERS)[number][]): number {
  return ports.reduce((total, port) => names.reduce((sum, name) => sum + port[name], total), 0);
}
