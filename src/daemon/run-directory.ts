/**
 * The run directory: guests' sockets, the control socket, journals, and the lock that keeps a
 * second daemon out. Who may enter it may be a guest of Sluice (design: mode 0700, one owner).
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { SluiceError } from '../base/errors.ts';
import { cannotWrite, lockFile, openLockFile } from '../os/lock.ts';

const LOCK_NAME = 'lock';
const CONTROL_NAME = 'control.sock';
/** Where the sockets of qemu-nbd are. */
const IMAGES_NAME = 'images';
const SOCKET_SUFFIX = '.sock';

/** What the configuration says of the directory. */
export interface RunConfig {
  /** Absolute. */
  readonly path: string;
  readonly mode: number;
  readonly owner: string | number | undefined;
  readonly group: string | number | undefined;
}

/** Numbers of an owner and a group; undefined leaves what the process has. */
export interface Ownership {
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

/** What the name of a card's position journal ends in. */
const JOURNAL_SUFFIX = '.journal';
/** What the name of the file ends in that keeps the cache mode of a guest's disk. */
const CACHE_MODE_SUFFIX = '.cache';

/** What the name of the file ends in that is there while a VMM has an emulated device. */
const GUEST_MARK_SUFFIX = '.guest';
const STATE_SUFFIXES = [JOURNAL_SUFFIX, CACHE_MODE_SUFFIX, GUEST_MARK_SUFFIX];

/** File name of the position journal of a port, such as `web/net0`. */
export function journalName(port: string): string {
  return port.replaceAll('/', '-') + JOURNAL_SUFFIX;
}

/** File name of what keeps the cache mode of a disk device, such as `web/disk0`. */
export function cacheModeName(device: string): string {
  return device.replaceAll('/', '-') + CACHE_MODE_SUFFIX;
}

/** File name of what tells that a VMM has an emulated device, such as `web/net0`. */
export function guestMarkName(name: string): string {
  return name.replaceAll('/', '-') + GUEST_MARK_SUFFIX;
}

/** Removes what was kept for ports and devices, except the files named in `kept`. */
export function removeKeptStates(run: string, kept: ReadonlySet<string>): void {
  for (const file of readdirSync(run)) {
    const isState = STATE_SUFFIXES.some((suffix) => file.endsWith(suffix));
    if (isState && !kept.has(file)) rmSync(join(run, file));
  }
}

/** Whether a path is the run directory, or a file that Sluice makes in it. Both are absolute. */
export function isMadeInRunDirectory(run: string, path: string): boolean {
  const inside = relative(run, path);
  if (inside === '') return true;
  const [first = '', ...deeper] = inside.split('/');
  if (first === IMAGES_NAME) return true;
  if (deeper.length > 0) return false;
  return (
    first === LOCK_NAME || [SOCKET_SUFFIX, ...STATE_SUFFIXES].some((end) => first.endsWith(end))
  );
}

export function controlSocketPath(run: string): string {
  return join(run, CONTROL_NAME);
}

export class RunDirectory {
  readonly path: string;
  readonly ownership: Ownership;
  readonly #lockFd: number;

  /**
   * Makes the directory as configured and locks it.
   * @throws SluiceError `state` when another daemon holds the lock; `config` for an unknown owner.
   */
  constructor(run: RunConfig) {
    this.path = run.path;
    this.ownership = {
      uid: run.owner === undefined ? undefined : lookUp('/etc/passwd', 'user', run.owner),
      gid: run.group === undefined ? undefined : lookUp('/etc/group', 'group', run.group),
    };
    prepare(run, this.ownership);
    this.#lockFd = lock(join(run.path, LOCK_NAME), run.path);
  }

  /** Lets the next daemon in. The lock file stays: removing it would let two in at once. */
  release(): void {
    closeSync(this.#lockFd);
  }
}

function prepare(run: RunConfig, { uid, gid }: Ownership): void {
  try {
    mkdirSync(run.path, { recursive: true, mode: run.mode });
    const now = statSync(run.path);
    const owner = uid ?? now.uid;
    const group = gid ?? now.gid;
    if (owner !== now.uid || group !== now.gid) chownSync(run.path, owner, group);
    if ((now.mode & 0o777) !== run.mode) chmodSync(run.path, run.mode);
  } catch (error) {
    const { code = 'error', syscall = 'mkdir' } = error as NodeJS.ErrnoException;
    throw new SluiceError('system', `${code}: ${syscall} ${run.path}`, {
      cause: error,
      remedy: remedyOf(code, syscall),
    });
  }
}

function remedyOf(code: string, syscall: string): string {
  if (code === 'EEXIST' || code === 'ENOTDIR')
    return 'a file is in its place or above it: choose another path for the run directory (key run)';
  if (code === 'EPERM' && syscall === 'chown')
    return 'only root may give it to another owner or group: run sluice as root, or leave out owner and group (key run)';
  if (code === 'EPERM' && syscall === 'chmod')
    return 'only its owner may set its mode: choose a run directory of this user (key run)';
  return 'choose a run directory that this user may write to (key run)';
}

function lock(path: string, directory: string): number {
  // Opened without truncation: until the lock is ours, the content is the other daemon's.
  const fd = openLockFile(path);
  if (!lockFile(fd, path)) {
    const pid = readFileSync(path, 'utf8').trim();
    closeSync(fd);
    throw new SluiceError('state', `another sluice (pid ${pid}) runs in ${directory}`, {
      remedy: 'stop it (sluice down), or choose another run directory (key run)',
    });
  }
  try {
    ftruncateSync(fd);
    writeSync(fd, `${process.pid}\n`);
  } catch (cause) {
    closeSync(fd);
    throw cannotWrite(path, cause);
  }
  return fd;
}

/** The number of a user or group, from passwd(5) or group(5). */
function lookUp(file: string, kind: string, name: string | number): number {
  if (typeof name === 'number' || /^\d+$/.test(name)) return Number(name);
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const [entry, , number] = line.split(':');
    if (entry === name) return Number(number);
  }
  throw new SluiceError('config', `no ${kind} "${name}" in ${file}`, {
    remedy: `make the ${kind}, or give its number (key run)`,
  });
}
