/**
 * Finds and ends what a test left running, however it was started: detached, double-forked or in
 * another session. Every process of a test file inherits a mark in its environment, which the
 * kernel shows in /proc/PID/environ (proc(5)).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Name of the environment variable that holds the mark. */
export const MARK = 'SLUICE_TEST_FILE';

export interface Process {
  readonly pid: number;
  /** Its arguments, separated by blanks. */
  readonly command: string;
}

/** The live processes other than this one whose environment holds `mark`. */
export function markedProcesses(mark: string): Process[] {
  const found: Process[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    // It may have ended since; a zombie has an empty environment.
    const variables = read(`/proc/${pid}/environ`)?.split('\0');
    if (variables?.includes(`${MARK}=${mark}`) !== true) continue;
    const command = read(`/proc/${pid}/cmdline`)?.split('\0').join(' ').trim() ?? '';
    found.push({ pid, command });
  }
  return found;
}

/**
 * Kills the processes with `mark` until none is left, after `grace` milliseconds in which they may
 * end by themselves. Returns those that did not.
 */
export async function endMarkedProcesses(mark: string, grace: number): Promise<Process[]> {
  const deadline = Date.now() + grace;
  let left = markedProcesses(mark);
  while (left.length > 0 && Date.now() < deadline) {
    await sleep(50);
    left = markedProcesses(mark);
  }
  const stubborn = left;
  // One that forks while being looked for is found the next time round. One that is stuck in the
  // kernel cannot be waited for.
  for (let round = 0; left.length > 0 && round < 100; round++) {
    killMarkedProcesses(left);
    await sleep(20);
    left = markedProcesses(mark);
  }
  return stubborn;
}

/** Kills processes at once; those that have just ended are no error. */
export function killMarkedProcesses(processes: readonly Process[]): void {
  for (const { pid } of processes) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') {
      return undefined;
    }
    throw error;
  }
}
