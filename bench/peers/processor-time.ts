/**
 * Did a process have its processor? Of a thread that polls, the kernel knows how long it ran and how
 * long it was ready and waited for others to get off its processor (proc(5), schedstat); of a
 * virtual machine's processor, how long the host took it away (proc(5), stat: steal).
 */
import { readdirSync, readFileSync } from 'node:fs';

/** Jiffies a second in /proc/stat: USER_HZ, 100 on every architecture that Sluice runs on. */
const USER_HZ = 100;

/** Seconds since some fixed point. */
export interface ThreadTime {
  readonly ran: number;
  readonly waited: number;
}

export interface ProcessorSnapshot {
  /** Monotonic, in seconds. */
  readonly at: number;
  /** By the thread's directory in /proc. */
  readonly threads: ReadonlyMap<string, ThreadTime>;
  /** Seconds that the host took from the processor. */
  readonly stolen: number;
}

/** How a process and its processor did between two snapshots, as parts of the time between them. */
export interface Occupancy {
  /** Processor time of the busiest thread. */
  readonly busiest: number;
  /** Processor time of the process's other threads. */
  readonly others: number;
  /** What the busiest thread waited for the processor while none of its own process had it. */
  readonly kept: number;
  readonly stolen: number;
}

/** /proc/PID/task/TID/schedstat: nanoseconds run, nanoseconds ready, time slices. */
export function parseSchedstat(text: string): ThreadTime {
  const [ran = 0, waited = 0] = text.trim().split(' ').map(Number);
  return { ran: ran / 1e9, waited: waited / 1e9 };
}

/** What a processor did since it started, in seconds. Together they are all of that time. */
export interface ProcessorTimes {
  readonly user: number;
  readonly nice: number;
  readonly system: number;
  readonly idle: number;
  readonly iowait: number;
  readonly irq: number;
  readonly softirq: number;
  /** The host took it away. */
  readonly steal: number;
}

/** The line of `name` in /proc/stat: `cpu` for all processors together, `cpu0` for the first. */
export function parseProcessor(text: string, name: string): ProcessorTimes {
  const line = new RegExp(`^${name} +(.*)$`, 'm').exec(text)?.[1];
  if (line === undefined) throw new Error(`/proc/stat: no line of ${name}`);
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] =
    line.split(' ').map((ticks) => Number(ticks) / USER_HZ);
  return { user, nice, system, idle, iowait, irq, softirq, steal };
}

/** What `read` returns, or undefined if the process or thread has ended meanwhile. */
function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
}

/** Reads a file of a process or thread; empty if that has ended meanwhile. */
function readOf(path: string): string {
  return unlessGone(() => readFileSync(path, 'utf8')) ?? '';
}

/** The threads of a process and of all that descend from it, by their directories in /proc. */
export function threadsBelow(root: number): string[] {
  const threads: string[] = [];
  const processes = [String(root)];
  for (const pid of processes) {
    for (const id of unlessGone(() => readdirSync(`/proc/${pid}/task`)) ?? []) {
      const thread = `/proc/${pid}/task/${id}`;
      threads.push(thread);
      processes.push(
        ...readOf(`${thread}/children`)
          .split(' ')
          .filter((child) => child !== ''),
      );
    }
  }
  return threads;
}

/** The times of {@link threadsBelow}. */
function threadTimes(root: number): Map<string, ThreadTime> {
  const threads = new Map<string, ThreadTime>();
  for (const thread of threadsBelow(root)) {
    threads.set(thread, parseSchedstat(readOf(`${thread}/schedstat`)));
  }
  return threads;
}

/** Where the process of `root` and its descendants stand, and the processor they are bound to. */
export function takeSnapshot(root: number, cpu: number): ProcessorSnapshot {
  const threads = threadTimes(root);
  const { steal } = parseProcessor(readFileSync('/proc/stat', 'utf8'), `cpu${cpu}`);
  return { at: performance.now() / 1e3, threads, stolen: steal };
}

/**
 * Begins to watch the process of `root` and its descendants. What it returns tells, as often as it is
 * called, which part of the time since then the busiest of their threads ran.
 */
export function busiestThread(root: number): () => number {
  const before = threadTimes(root);
  const start = performance.now();
  return () => {
    const seconds = (performance.now() - start) / 1e3;
    const ran = [...threadTimes(root)].map(
      ([thread, now]) => now.ran - (before.get(thread)?.ran ?? 0),
    );
    return Math.max(0, ...ran) / seconds;
  };
}

/**
 * What happened between two snapshots of the same process. A wait shows only once it is over, so
 * `later`, taken some time after the second, tells of one that was not over then.
 */
export function occupancy(
  before: ProcessorSnapshot,
  after: ProcessorSnapshot,
  later: ProcessorSnapshot,
): Occupancy {
  const time = after.at - before.at;
  const none: ThreadTime = { ran: 0, waited: 0 };
  let sum = 0;
  let busiest = 0;
  let waited = 0;
  for (const [id, now] of after.threads) {
    const start = before.threads.get(id) ?? none;
    const ran = now.ran - start.ran;
    sum += ran;
    if (ran < busiest) continue;
    busiest = ran;
    waited = Math.max(now.waited, later.threads.get(id)?.waited ?? 0) - start.waited;
  }
  const others = sum - busiest;
  return {
    busiest: busiest / time,
    others: others / time,
    // A wait for one's own threads (garbage collection, compilation) is the program's cost.
    kept: Math.max(0, waited - others) / time,
    stolen: (after.stolen - before.stolen) / time,
  };
}

/**
 * The part of its processor's time that a process may lose to others in a sample that counts, unless
 * another is asked for: services of an ordinary machine take more than one percent now and then.
 */
export const MAX_DISTURBANCE = 0.03;

/** Why a sample does not count, undefined if it does. `name` is whose processor it is. */
export function disturbance(
  name: string,
  seen: Occupancy,
  most: number = MAX_DISTURBANCE,
): string | undefined {
  const part = (value: number): string => `${(100 * value).toFixed(1)} % of the time`;
  if (seen.kept > most) return `others had ${name}'s processor ${part(seen.kept)}`;
  if (seen.stolen > most) return `the host took ${name}'s processor ${part(seen.stolen)}`;
  return undefined;
}
