/** Processor time of processes of the host with all their children (proc(5), /proc/PID/stat). */
import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ: what the kernel counts times in for user space, 100 on every architecture of Linux we run on. */
const TICKS_PER_SECOND = 100;
const NS_PER_TICK = 1e9 / TICKS_PER_SECOND;

export interface ProcessTime {
  readonly pid: number;
  readonly parent: number;
  /** Of the process and of its children that have ended and were waited for. */
  readonly ns: number;
}

/** Reads a line of /proc/PID/stat. The name in parentheses may hold anything, parentheses too. */
export function parseStat(line: string): ProcessTime {
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
  // Field 3 of the manual, the state, is the first here: utime, stime, cutime, cstime are 14 to 17.
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return { pid: Number.parseInt(line, 10), parent: Number(fields[1]), ns: ticks * NS_PER_TICK };
}

/** Nanoseconds of processor time that the processes `roots` and all below them have taken. */
export function treeCpuNs(roots: readonly number[], all = allProcesses()): number {
  const members = new Set(roots);
  for (let size = 0; size !== members.size; ) {
    size = members.size;
    for (const { pid, parent } of all) if (members.has(parent)) members.add(pid);
  }
  return all.reduce((sum, { pid, ns }) => (members.has(pid) ? sum + ns : sum), 0);
}

function allProcesses(): ProcessTime[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        return [parseStat(readFileSync(`/proc/${name}/stat`, 'utf8'))];
      } catch (error) {
        // It has ended since the directory was read.
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'ENOENT' || code === 'ESRCH') return [];
        throw error;
      }
    });
}
