/** Locks on whole files that the kernel gives up when their holder ends: flock(2). */
import { EAGAIN, errno, libc, systemError } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** Locks an open file for this process; false when another holds it. Ends when the file is closed. */
export function lockFile(fd: number, path: string): boolean {
  if (libc.flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  if (errno() === EAGAIN) return false;
  throw systemError('flock', path);
}
