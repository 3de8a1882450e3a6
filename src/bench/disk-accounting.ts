/** From what was counted in the runs of a disk bench to what its report says. */
import type { Latency } from './bench-guests.ts';
import type { DiskErrors, DiskResults } from './report-schema.ts';
import { gbps, jainIndex, median, percent, perUnit, significant } from './statistics.ts';

/** What was counted in one run. Times are of the same window as the requests. */
export interface DiskRun {
  readonly seconds: number;
  /** Reads and writes, by guest. */
  readonly guestRequests: readonly number[];
  readonly reads: number;
  readonly writes: number;
  readonly flushes: number;
  /** Read and written. */
  readonly bytes: number;
  readonly latencyUs: Latency;
  /** As in a network run. */
  readonly laneCpuNs: number;
  readonly guestCpuNs: number;
  readonly laneWaitNs: number;
  readonly guestWaitNs: number;
  readonly laneBusyTurns: number;
  /** Accesses to registers that became messages. */
  readonly traps: number;
  readonly kicks: number;
  readonly calls: number;
  readonly laneHeapBytes: number;
  readonly guestHeapBytes: number;
  readonly errors: DiskErrors;
}

const NS_PER_SECOND = 1e9;

/** Medians over runs, each key for itself; errors are added up. */
export function summarizeDiskRuns(runs: readonly DiskRun[]): {
  readonly results: DiskResults;
  readonly errors: DiskErrors;
} {
  const over = (figure: (run: DiskRun) => number): number => significant(median(runs.map(figure)));
  const rate = (count: (run: DiskRun) => number): number => over((run) => count(run) / run.seconds);
  const share = (ns: (run: DiskRun) => number): number =>
    over((run) => percent(ns(run), run.seconds * NS_PER_SECOND));
  const each = (amount: (run: DiskRun) => number): number =>
    over((run) => perUnit(amount(run), run.reads + run.writes));
  const iops = runs.map((run) => (run.reads + run.writes) / run.seconds);
  const sum = (count: (errors: DiskErrors) => number): number =>
    runs.reduce((total, { errors }) => total + count(errors), 0);
  return {
    results: {
      iops: significant(median(iops)),
      iops_min: significant(Math.min(...iops)),
      iops_max: significant(Math.max(...iops)),
      read_iops: rate((run) => run.reads),
      write_iops: rate((run) => run.writes),
      gbps: over((run) => gbps(run.bytes, run.seconds)),
      ns_per_request: each((run) => run.laneCpuNs),
      fairness: over((run) => jainIndex(run.guestRequests)),
      per_guest_iops: (runs[0]?.guestRequests ?? []).map((_, guest) =>
        rate((run) => run.guestRequests[guest] ?? 0),
      ),
      latency_us: {
        p50: over((run) => run.latencyUs.p50),
        p99: over((run) => run.latencyUs.p99),
      },
      cpu_pct: {
        driver_domain: share((run) => run.laneCpuNs),
        device_model: 0,
        guests: share((run) => run.guestCpuNs),
      },
      waited_pct: {
        driver_domain: share((run) => run.laneWaitNs),
        guests: share((run) => run.guestWaitNs),
      },
      requests_per_turn: over((run) => perUnit(run.reads + run.writes, run.laneBusyTurns)),
      flushes_per_s: rate((run) => run.flushes),
      traps_per_s: rate((run) => run.traps),
      traps_per_request: each((run) => run.traps),
      kicks_per_s: rate((run) => run.kicks),
      interrupts_per_s: rate((run) => run.calls),
      heap_bytes_per_request: each((run) => run.laneHeapBytes),
      guest_heap_bytes_per_request: each((run) => run.guestHeapBytes),
    },
    errors: {
      failed: sum((errors) => errors.failed),
      stale: sum((errors) => errors.stale),
      corrupt: sum((errors) => errors.corrupt),
    },
  };
}
