/** From what was counted in the runs of a network bench to what its report says. */
import type { NetErrors, NetResults } from './report-schema.ts';
import { gbps, jainIndex, median, mpps, percent, perUnit, significant } from './statistics.ts';

/** What was counted in one run. Times are of the same window as the frames. */
export interface NetRun {
  readonly seconds: number;
  /** Bytes of frames that were delivered, by guest of the report's per_guest_gbps. */
  readonly guestBytes: readonly number[];
  /** Frames that were delivered, all together. */
  readonly frames: number;
  /** Of the whole run, with its beginning and its end, so that none are on their way. */
  readonly sent: number;
  readonly lost: number;
  readonly latencyUs: { readonly p50: number; readonly p99: number };
  /** Processor time of the lane's thread and of the guests' processes. */
  readonly laneCpuNs: number;
  readonly guestCpuNs: number;
  /** Time in which the lane's thread was ready to run and had no processor. */
  readonly laneWaitNs: number;
  /** The same of the guests' threads, in the mean; undefined where it was not measured. */
  readonly guestWaitNs: number | undefined;
  /** Turns of the lane's loop that found work. */
  readonly laneBusyTurns: number;
  /** Accesses to registers that became messages. */
  readonly traps: number;
  readonly kicks: number;
  readonly calls: number;
  /** Bytes that the lane's JavaScript allocated; undefined where it was not measured. */
  readonly laneHeapBytes: number | undefined;
  readonly errors: NetErrors;
}

const NS_PER_SECOND = 1e9;

/** What all runs of a bench have in common. */
export interface RunFacts {
  /** Whose work the lane does on the data path. */
  readonly laneIs: 'driver_domain' | 'device_model';
  /** Interrupts a second that guests are throttled to; 0: no throttle, or one that adapts. */
  readonly itr: number;
  readonly deliveryUs?: { readonly p50: number; readonly p99: number } | undefined;
}

/** Medians over runs, each key for itself. */
export function summarizeNetRuns(
  runs: readonly NetRun[],
  { laneIs, itr, deliveryUs }: RunFacts = { laneIs: 'driver_domain', itr: 0 },
): {
  readonly results: NetResults;
  readonly errors: NetErrors;
} {
  const over = (figure: (run: NetRun) => number): number => significant(median(runs.map(figure)));
  const rate = (count: (run: NetRun) => number): number => over((run) => count(run) / run.seconds);
  const share = (ns: (run: NetRun) => number): number =>
    over((run) => percent(ns(run), run.seconds * NS_PER_SECOND));
  const rates = runs.map(gbpsOf);
  const perGuest = runs[0]?.guestBytes ?? [];
  const sum = (count: (errors: NetErrors) => number): number =>
    runs.reduce((total, { errors }) => total + count(errors), 0);
  return {
    results: {
      gbps: significant(median(rates)),
      gbps_min: significant(Math.min(...rates)),
      gbps_max: significant(Math.max(...rates)),
      mpps: over((run) => mpps(run.frames, run.seconds)),
      ns_per_frame: over((run) => perUnit(run.laneCpuNs, run.frames)),
      loss_pct: over((run) => percent(run.lost, run.sent)),
      fairness: over((run) => jainIndex(run.guestBytes)),
      per_guest_gbps: perGuest.map((_, guest) =>
        over((run) => gbps(run.guestBytes[guest] ?? 0, run.seconds)),
      ),
      latency_us: {
        p50: over((run) => run.latencyUs.p50),
        p99: over((run) => run.latencyUs.p99),
      },
      ...(deliveryUs === undefined
        ? {}
        : {
            delivery_us: {
              p50: significant(deliveryUs.p50),
              p99: significant(deliveryUs.p99),
            },
          }),
      cpu_pct: {
        driver_domain: 0,
        device_model: 0,
        [laneIs]: share((run) => run.laneCpuNs),
        guests: share((run) => run.guestCpuNs),
      },
      waited_pct: {
        driver_domain: share((run) => run.laneWaitNs),
        guests: runs.some((run) => run.guestWaitNs === undefined)
          ? null
          : share((run) => run.guestWaitNs ?? 0),
      },
      frames_per_turn: over((run) => perUnit(run.frames, run.laneBusyTurns)),
      traps_per_s: rate((run) => run.traps),
      traps_per_frame: over((run) => perUnit(run.traps, run.frames)),
      kicks_per_s: rate((run) => run.kicks),
      interrupts_per_s: rate((run) => run.calls),
      itr,
      heap_bytes_per_frame: runs.some((run) => run.laneHeapBytes === undefined)
        ? null
        : over((run) => perUnit(run.laneHeapBytes ?? 0, run.frames)),
    },
    errors: {
      reordered: sum((errors) => errors.reordered),
      duplicated: sum((errors) => errors.duplicated),
      corrupt: sum((errors) => errors.corrupt),
    },
  };
}

function gbpsOf(run: NetRun): number {
  return gbps(
    run.guestBytes.reduce((total, bytes) => total + bytes, 0),
    run.seconds,
  );
}
