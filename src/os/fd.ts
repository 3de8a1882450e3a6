/** File descriptors: close, flags, small reads and writes, eventfds, pipes, whole-file locks. */
import { fstatSync, readlinkSync } from 'node:fs';
import { check, EAGAIN, EINTR, errno, libc, pinned, systemError } from './libc.ts';

const F_DUPFD_CLOEXEC = 1030;
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = O_NONBLOCK;
const EFD_CLOEXEC = O_CLOEXEC;

/** Closes a descriptor. Linux frees it even when close reports an error, so nothing is retried. */
export function closeFd(fd: number): void {
  if (libc.close(fd) === -1 && errno[0] !== EINTR) throw systemError('close', `fd ${fd}`);
}

export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeFd(fd);
}

/** A second descriptor for the same open file, close-on-exec. */
export function duplicateFd(fd: number): number {
  return check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 0), 'fcntl', `fd ${fd}`);
}

export function setNonBlocking(fd: number): void {
  const flags = check(libc.fcntl(fd, F_GETFL, 0), 'fcntl', `fd ${fd}`);
  check(libc.fcntl(fd, F_SETFL, flags | O_NONBLOCK), 'fcntl', `fd ${fd}`);
}

/** Size in bytes and identity of the file behind a descriptor. */
export interface FileIdentity {
  readonly size: number;
  /** Device and inode: equal for two descriptors of one file. */
  readonly id: string;
}

export function identify(fd: number): FileIdentity {
  const stat = fstatSync(fd, { bigint: true });
  return { size: Number(stat.size), id: `${stat.dev}:${stat.ino}` };
}

/** A new eventfd, non-blocking and close-on-exec, counting from zero (eventfd(2)). */
export function createEventFd(): number {
  return check(libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd', '');
}

/** A new pipe, close-on-exec. */
export function createPipe(): { readonly read: number; readonly write: number } {
  const ends = new Int32Array(2);
  check(libc.pipe2(ends, O_CLOEXEC), 'pipe2', '');
  return { read: ends[0] as number, write: ends[1] as number };
}

const one = pinned(8);
new Uint8Array(one.buffer)[0] = 1;
const drained = pinned(8);

/**
 * Signals an eventfd: adds one. True unless the descriptor refuses the write for a reason other
 * than "already full", which leaves the reader just as awake. User-Mode Linux hands over a
 * socket in its place and wants the same eight bytes.
 */
export function signalEventFd(fd: number): boolean {
  return libc.write(fd, one.address, 8) === 8 || errno[0] === EAGAIN;
}

/** What stands behind a descriptor, as far as signalling goes. */
export type SignalKind = 'eventfd' | 'pipe' | 'other';

/**
 * Tells eventfds and unnamed pipes from everything else. The kernel names both in a form that no path
 * has (proc(5)), and is not made to ask a file system, which may belong to somebody who never answers.
 */
export function signalKind(fd: number): SignalKind {
  const name = readlinkSync(`/proc/self/fd/${fd}`);
  if (name.startsWith('anon_inode:[eventfd')) return 'eventfd';
  return name.startsWith('pipe:[') ? 'pipe' : 'other';
}

/** Takes the count out of a non-blocking eventfd; true if it was above zero. */
export function drainEventFd(fd: number): boolean {
  return libc.read(fd, drained.address, 8) === 8;
}
