/**
 * Locks on single bytes of a file that belong to the open file, not to the process: fcntl(2), "open
 * file description locks". The kernel gives them up when the last user of the open file has gone: its
 * descriptors, and whatever I/O of a dead process is still on its way.
 */
import { EACCES, EAGAIN, errno, libc, systemError } from './libc.ts';

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;

const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** struct flock of 64-bit Linux: type 0, whence 2, start 8, length 16, pid 24. */
const FLOCK_BYTES = 32;

function flock(type: number, at: number, length: number): DataView {
  const lock = new DataView(new ArrayBuffer(FLOCK_BYTES));
  lock.setInt16(0, type, true);
  lock.setBigInt64(8, BigInt(at), true);
  lock.setBigInt64(16, BigInt(length), true);
  return lock;
}

function apply(fd: number, command: number, lock: DataView): number {
  return libc.fcntl64(fd, command, new Uint8Array(lock.buffer));
}

/** Locks a byte together with whoever else shares it. False if somebody has it alone. */
export function shareByte(fd: number, at: number, path: string): boolean {
  if (apply(fd, F_OFD_SETLK, flock(F_RDLCK, at, 1)) !== -1) return true;
  const number = errno[0];
  if (number === EAGAIN || number === EACCES) return false;
  throw systemError('fcntl', path);
}

/** Gives up what this open file has locked of `length` bytes from `at` on. */
export function unlockBytes(fd: number, at: number, length: number, path: string): void {
  if (apply(fd, F_OFD_SETLK, flock(F_UNLCK, at, length)) === -1) throw systemError('fcntl', path);
}

/** Whether another open file has a lock on a byte, shared or not. */
export function isByteLocked(fd: number, at: number, path: string): boolean {
  const lock = flock(F_WRLCK, at, 1);
  if (apply(fd, F_OFD_GETLK, lock) === -1) throw systemError('fcntl', path);
  return lock.getInt16(0, true) !== F_UNLCK;
}
