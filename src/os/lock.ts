/** Locks on whole files that the kernel gives up when their holder ends: flock(2). */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { SluiceError } from '../base/errors.ts';
import { EAGAIN, errno, libc, systemError } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** Locks an open file for this process; false when another holds it. Ends when the file is closed. */
export function lockFile(fd: number, path: string): boolean {
  if (libc.flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  if (errno[0] === EAGAIN) return false;
  throw systemError('flock', path);
}

/**
 * Opens or makes a file to be locked and then written, mode 0600; its content stays. The directory may
 * belong to another user, who must not be able to name a file of ours that is truncated then: links are
 * not followed.
 * @throws SluiceError `system` if it cannot be opened or is anything but a plain file of one name
 */
export function openLockFile(path: string): number {
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  let fd: number;
  try {
    fd = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
  } catch (cause) {
    const { code = 'error' } = cause as NodeJS.ErrnoException;
    throw new SluiceError('system', `${code}: open ${path}`, {
      cause,
      remedy: code === 'ELOOP' ? 'it is a symbolic link: remove it' : 'see that it can be written',
    });
  }
  const found = fstatSync(fd);
  if (found.isFile() && found.nlink === 1) return fd;
  closeSync(fd);
  throw new SluiceError('system', `${path} is not a plain file of one name`, {
    remedy: 'remove it',
  });
}

/**
 * Makes an open file `bytes` long and gives each of them a place on its file system: a mapping of it
 * then faults nowhere, however full the file system becomes. Content within the size stays.
 * @throws SluiceError `system` if there is no room
 */
export function allocateFile(fd: number, path: string, bytes: number): void {
  const content = Buffer.alloc(bytes);
  try {
    readSync(fd, content, 0, bytes, 0);
    ftruncateSync(fd, bytes);
    let done = 0;
    while (done < bytes) done += writeSync(fd, content, done, bytes - done, done);
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

/** The error of writing a file. */
export function cannotWrite(path: string, cause: unknown): SluiceError {
  const { code = 'error', syscall = 'write' } = cause as NodeJS.ErrnoException;
  return new SluiceError('system', `${code}: ${syscall} ${path}`, {
    cause,
    remedy: 'make room on its file system, or choose another run directory (key run)',
  });
}
