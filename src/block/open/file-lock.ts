/**
 * Locks on image files, by the scheme that QEMU has for them (QEMU block/file-posix.c, since 2.10), so
 * that QEMU and qemu-img refuse what Sluice serves, and Sluice what they have open.
 *
 * Everybody shares locks on single bytes: byte 100 + p says "I do p", byte 200 + p says "nobody else
 * may do p". What one wants is refused if another open file has the opposite byte. The locks belong to
 * the open file that does the I/O: those of a killed process last until its last write is done.
 */
import { readdirSync, readFileSync, type Stats, statSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { SluiceError } from '../../base/errors.ts';
import { isByteLocked, shareByte, unlockBytes } from '../../os/byte-lock.ts';

const DOES_AT = 100;
const FORBIDS_AT = 200;
const LOCKED_BYTES = FORBIDS_AT - DOES_AT + 8;

/** Permissions, as bytes are counted (QEMU include/block/block-common.h, BLK_PERM_*). */
const CONSISTENT_READ = 0;
const WRITE = 1;
const RESIZE = 3;

/** How often a lock that is taken is tried again, in ms. */
const RETRY_MS = 25;

/** Whether a disk has its file alone, shares it with other readers, or does not ask. */
export type FileLockState = 'exclusive' | 'shared';

/** Locks an image; false if another open file stands against it, and nothing is locked then. */
export function lockImage(fd: number, path: string, readonly: boolean): boolean {
  const does = readonly ? [CONSISTENT_READ] : [CONSISTENT_READ, WRITE, RESIZE];
  const forbids = [WRITE, RESIZE];
  // First one's own, then a look at the others': of two who come at once, no two succeed.
  const own = [...does.map((p) => DOES_AT + p), ...forbids.map((p) => FORBIDS_AT + p)];
  const against = [...does.map((p) => FORBIDS_AT + p), ...forbids.map((p) => DOES_AT + p)];
  if (
    own.every((at) => shareByte(fd, at, path)) &&
    !against.some((at) => isByteLocked(fd, at, path))
  )
    return true;
  unlockBytes(fd, DOES_AT, LOCKED_BYTES, path);
  return false;
}

/**
 * Tries `attempt` until it succeeds or `waitMs` have passed; at least once. What holds a file may be a
 * dead process whose last writes are not done yet.
 */
export async function retryFor<Result>(
  waitMs: number,
  attempt: () => Result | undefined,
): Promise<Result | undefined> {
  const end = performance.now() + waitMs;
  for (;;) {
    const result = attempt();
    if (result !== undefined || performance.now() >= end) return result;
    await setTimeout(RETRY_MS);
  }
}

/** The error of a file that somebody else has. */
export function lockedError(name: string, path: string, file: Stats): SluiceError {
  const holders = openedBy(file);
  const who = holders.length === 0 ? 'another process' : `another process (${holders.join(', ')})`;
  return new SluiceError('state', `disk ${name}: ${path} is locked by ${who}`, {
    remedy: 'stop what uses it, or have all of its users open it readonly',
  });
}

const MAX_NAMED = 3;

/** Processes that have a file open, as far as this one may look: `qemu-system-x86 (1234)`. */
function openedBy(file: Stats): readonly string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    if (found.length < MAX_NAMED && hasOpen(pid, file)) found.push(`${nameOf(pid)}, pid ${pid}`);
  }
  return found;
}

function hasOpen(pid: string, file: Stats): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      const other = statSync(`/proc/${pid}/fd/${fd}`, { throwIfNoEntry: false });
      return other !== undefined && other.dev === file.dev && other.ino === file.ino;
    });
  } catch {
    // Gone meanwhile, or not ours to look at: it is only a hint for the reader of the message.
    return false;
  }
}

function nameOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    // Gone meanwhile.
    return '?';
  }
}
