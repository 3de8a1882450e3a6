/**
 * `sluice bench talk`: what the talk that this bench follows measured of hardware with functions of its own
 * ("IO Virtualization Performance", Intel, Xen Summit 2009), on the 82599's model.
 */
import { shortNumber } from './chart.ts';
import { describeMachine } from './machine.ts';
import { type NetOptions, parseNetOptions } from './net-options.ts';
import type { Direction, NetReport, TalkReport } from './report-schema.ts';
import { guestsText, methodName } from './text-report.ts';

/** Virtual machines in the talk, and in its successor (Dong et al., HPCA 2010). */
const MACHINES = [1, 2, 4, 8, 16, 30, 60] as const;
const TALK_MACHINES = 30;
/** In a ring, where each sends to the next, there are two at least. */
const GUESTS = MACHINES.filter((guests) => guests > 1);
/** Off, the talk's own, and around it. */
const TALK_THROTTLE = 8000;
const THROTTLES = [0, 2000, TALK_THROTTLE, 20_000, 'adaptive'] as const;
const SMALL = 64;
/** Frames a second of each guest, far enough from each other to be an interrupt each. */
const LOW_RATE = 2000;
const SECONDS = 0.5;
const RUNS = 3;

type Input = Parameters<typeof parseNetOptions>[0];

const ROWS: readonly Input[] = [
  // One guest receives at line rate what comes from outside.
  { method: 'direct', guests: 1, outside: true },
  { method: 'sriov', guests: 1, outside: true },
  // All send over both ports, to machines outside.
  ...MACHINES.map(
    (guests): Input => ({
      method: 'sriov',
      guests,
      direction: 'tx',
      outside: true,
    }),
  ),
  // They receive from there, driven by as many interrupts as in the talk, and without.
  { method: 'sriov', guests: TALK_MACHINES, outside: true },
  { method: 'sriov', guests: TALK_MACHINES, outside: true, itr: TALK_THROTTLE },
  // From guest to guest, over the wires of two ports.
  { method: 'direct', guests: 2 },
  { method: 'sriov', guests: 2 },
  // As many queues as there may be, and no wire.
  { method: 'direct', guests: 2, link: 'none' },
  { method: 'direct', guests: 2, link: 'none', queues: 4 },
  { method: 'sriov', guests: 2, link: 'none' },
  { method: 'sriov', guests: 2, link: 'none', queues: 4 },
  // All send and receive, over both ports.
  ...GUESTS.map((guests): Input => ({ method: 'sriov', guests, direction: 'both' })),
  { method: 'sriov', guests: TALK_MACHINES, direction: 'both', link: 'none' },
  // From function to function, without a wire.
  ...([2, 30, 60] as const).flatMap((guests): Input[] => [
    { method: 'sriov', guests, direction: 'both', ports: 1 },
    { method: 'sriov', guests, direction: 'both', ports: 1, frame: SMALL },
  ]),
  // Guests that are driven by interrupts.
  ...THROTTLES.map((itr): Input => ({ method: 'sriov', guests: 2, itr })),
  { method: 'sriov', guests: TALK_MACHINES, direction: 'both', ports: 1, itr: TALK_THROTTLE },
  // So few frames that each is an interrupt: how many of them a lane can serve.
  {
    method: 'sriov',
    guests: TALK_MACHINES,
    direction: 'both',
    ports: 1,
    itr: TALK_THROTTLE,
    rate: LOW_RATE,
  },
];

/** What is measured, row by row. */
export function talkRows(): NetOptions[] {
  return ROWS.map((row) => parseNetOptions({ ...row, seconds: SECONDS, runs: RUNS }));
}

/** What tells a row from the others. */
export function talkTitle({ direction, ...row }: NetOptions): string {
  const { guests, frame, queues, itr, outside, rate } = row;
  return [
    methodName(row),
    guestsText(guests),
    wayOf(direction, outside),
    `frames of ${frame} bytes`,
    ...(queues > 1 ? [`${queues} queue pairs`] : []),
    ...(itr === undefined ? [] : [`interrupts ${itr === 0 ? 'not throttled' : itr}`]),
    ...(rate === undefined ? [] : [`${rate} frames/s each`]),
  ].join(', ');
}

/** Which way frames go, and whether they come from machines outside, or go there. */
function wayOf(direction: Direction, outside: boolean | undefined): string {
  return outside === true ? `${direction} outside` : direction;
}

/** Titles of {@link talkCells}. */
export const TALK_COLUMNS = [
  'method',
  'guests',
  'way',
  'bytes',
  'queues',
  'itr',
  'rate',
  'Gb/s',
  'Mpps',
  'ns',
  'device %',
  'guests %',
  'int/s',
  'traps/s',
  'trip us',
  'way us',
  'loss %',
  'fair',
] as const;

/** The cells of one row, numbers rounded to what can be read. */
export function talkCells(row: NetReport): (string | number)[] {
  const { guests, direction, outside, frame, queues, itr, rate, results } = row;
  const figures = [
    results.gbps,
    results.mpps,
    results.ns_per_frame,
    results.cpu_pct.device_model,
    results.cpu_pct.guests,
    results.interrupts_per_s,
    results.traps_per_s,
    results.latency_us.p50,
  ].map((figure) => Number(shortNumber(figure)));
  const { delivery_us: delivery } = results;
  return [
    methodName(row),
    guests,
    wayOf(direction, outside),
    frame,
    queues,
    itr ?? 'polled',
    rate ?? '',
    ...figures,
    delivery === undefined ? '' : Number(shortNumber(delivery.p50)),
    Number(shortNumber(results.loss_pct)),
    Number(shortNumber(results.fairness)),
  ];
}

/** The report of what was measured a row at a time. */
export function talkReport(version: string, rows: readonly NetReport[]): TalkReport {
  return {
    bench: 'talk',
    version,
    date: new Date().toISOString(),
    rows: [...rows],
    machine: describeMachine(),
  };
}
