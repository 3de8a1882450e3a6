/** What the kernel's scheduler counts for a thread, of any process of ours: asking wakes nobody. */
import { readFileSync } from 'node:fs';

export interface ThreadSchedule {
  /** Processor time, user and system together. */
  readonly cpuNs: number;
  /** Time in which the thread was ready to run and had no processor. */
  readonly waitNs: number;
}

/**
 * Reads /proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst).
 * @param thread the main thread of the process unless given.
 */
export function threadSchedule(process: number, thread: number = process): ThreadSchedule {
  const text = readFileSync(`/proc/${process}/task/${thread}/schedstat`, 'utf8');
  const [cpuNs = Number.NaN, waitNs = Number.NaN] = text.split(' ').map(Number);
  return { cpuNs, waitNs };
}
