/** Raw files and block devices as disks, the main thread's part: open, lock, size, resize, describe. */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  type Stats,
  statfsSync,
  statSync,
} from 'node:fs';
import { alignUp } from '../../base/bits.ts';
import { describeError, SluiceError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import {
  type BlockDevice,
  blockDevice,
  blockDeviceBytes,
  directAlignment,
  queueFigure,
} from '../../os/block-device.ts';
import { closeFd } from '../../os/fd.ts';
import { allocateRange, readVector } from '../../os/file-io.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../../os/io-ring.ts';
import { ioUringRefusal } from '../../os/io-uring.ts';
import { EOPNOTSUPP, pinned } from '../../os/libc.ts';
import { PAGE } from '../../os/mapping.ts';
import { type DiskInfo, SECTOR_BYTES } from '../disk.ts';
import type { FileTraits } from '../file-state.ts';
import { type FileWorkerHandle, startFileWorker, stopFileWorker } from '../file-worker.ts';
import { type FileLockState, lockedError, lockImage, retryFor } from './file-lock.ts';
import { bytesOfTable, TABLE_BYTES } from './file-partitions.ts';

/** Who does a file's I/O: the kernel by io_uring, or a thread of ours by pread and pwrite. */
export type FileEngine = 'io_uring' | 'worker';

export interface FileDiskOptions {
  /** As the configuration names it. */
  readonly name: string;
  readonly path: string;
  readonly readonly?: boolean;
  /** Past the page cache (O_DIRECT). Default: false. */
  readonly direct?: boolean;
  /** Logical block; O_DIRECT may demand a larger one. Default: {@link SECTOR_BYTES}. */
  readonly blockBytes?: number;
  /** Whether blocks are given back. Default: true. */
  readonly discard?: boolean;
  /** Default: io_uring, or a worker where it is forbidden. */
  readonly engine?: FileEngine;
  /** How long a file may go on being locked: a daemon that died may still have writes on their way. */
  readonly lockWaitMs?: number;
  readonly log: Logger;
}

export const DEFAULT_LOCK_WAIT_MS = 5000;

/** An open disk, for the lane. Can be posted. Belongs to whoever makes a `FileDisk` of it. */
export interface FileDiskDescription {
  readonly kind: 'file';
  readonly name: string;
  readonly path: string;
  readonly fd: number;
  /** A block device of the host, no file. */
  readonly isDevice: boolean;
  readonly info: DiskInfo;
  /** What the file has; a readonly one may end within the last block. */
  readonly fileBytes: number;
  readonly traits: FileTraits;
  readonly engine: FileEngine;
  readonly worker: FileWorkerHandle | undefined;
  readonly lock: FileLockState;
}

/** For `sluice disk info`. */
export interface FileDiskReport {
  readonly path: string;
  readonly bytes: number;
  /** What it takes on its file system: less than `bytes` if it has holes. Undefined for a device. */
  readonly allocatedBytes: number | undefined;
  readonly isDevice: boolean;
  readonly readonly: boolean;
  readonly direct: boolean;
  readonly engine: FileEngine;
  readonly lock: FileLockState;
}

/** Linux magic.h: what is on it lies in memory. */
const TMPFS_MAGIC = 0x0102_1994;
const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
const LARGEST_BLOCK = 4096;

/**
 * Opens and locks a disk. To be called by the main thread.
 * @throws SluiceError `not-found`, `config`, `system`, `unsupported`, or `state` when it stays locked
 */
export async function openFileDisk(options: FileDiskOptions): Promise<FileDiskDescription> {
  const { name, path, readonly = false, lockWaitMs = DEFAULT_LOCK_WAIT_MS } = options;
  const fd = await openLocked(options, lockWaitMs);
  try {
    const description = describeOpen(options, fd);
    checkTable(name, path, description.info.bytes, options.log);
    const refusal = options.engine === undefined ? ioUringRefusal() : undefined;
    if (refusal !== undefined) {
      options.log.warn('io_uring cannot be used: a thread reads and writes in its place', {
        disk: name,
        reason: refusal,
      });
    }
    const engine = options.engine ?? (refusal === undefined ? 'io_uring' : 'worker');
    return {
      ...description,
      engine,
      worker: engine === 'worker' ? startFileWorker(fd, name, options.log) : undefined,
      lock: readonly ? 'shared' : 'exclusive',
    };
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** Closes what {@link openFileDisk} opened, where no lane has made a `FileDisk` of it. */
export function abandonFileDisk({ fd, worker }: FileDiskDescription): void {
  if (worker !== undefined) stopFileWorker(worker);
  closeFd(fd);
}

/** A descriptor of the file, locked. */
async function openLocked(options: FileDiskOptions, waitMs: number): Promise<number> {
  const { name, path, readonly = false } = options;
  const opened = await retryFor(waitMs, () => openFile(options));
  if (opened === undefined) {
    throw new SluiceError('state', `disk ${name}: ${path} is mounted, or another has it alone`, {
      remedy: 'unmount it, or stop what uses it',
    });
  }
  try {
    const locked = await retryFor(waitMs, () => lockImage(opened, path, readonly) || undefined);
    if (locked === true) return opened;
    throw lockedError(name, path, fstatSync(opened));
  } catch (error) {
    closeFd(opened);
    throw error;
  }
}

/** Opens what the path names; undefined for a block device that somebody has alone. */
function openFile(options: FileDiskOptions): number | undefined {
  const { name, path, readonly = false, direct = false } = options;
  const { O_RDONLY, O_RDWR, O_DIRECT, O_EXCL, O_NONBLOCK } = constants;
  try {
    const stat = statSync(path);
    if (!stat.isFile() && !stat.isBlockDevice()) throw wrongKind(name, path, stat);
    // Of a device: fails while it is mounted.
    const alone = stat.isBlockDevice() && !readonly ? O_EXCL : 0;
    // io_uring hands to a thread what might have to wait, and takes tmpfs for such unless the file
    // says that it does not: ten times the latency for a copy in memory.
    const atOnce = isInMemory(path) ? O_NONBLOCK : 0;
    const access = readonly ? O_RDONLY : O_RDWR;
    return openSync(path, access | alone | atOnce | (direct ? O_DIRECT : 0));
  } catch (cause) {
    if (cause instanceof SluiceError) throw cause;
    if ((cause as NodeJS.ErrnoException).code === 'EBUSY') return undefined;
    throw openError(options, cause);
  }
}

function isInMemory(path: string): boolean {
  return statfsSync(path).type === TMPFS_MAGIC;
}

function wrongKind(name: string, path: string, stat: Stats): SluiceError {
  const kind = stat.isDirectory() ? 'a directory' : 'neither a file nor a block device';
  return new SluiceError('config', `disk ${name}: ${path} is ${kind}`, {
    remedy: 'name a raw image file or a block device',
  });
}

function openError(options: FileDiskOptions, cause: unknown): SluiceError {
  const { name, path, readonly = false, direct = false } = options;
  const { code = 'error' } = cause as NodeJS.ErrnoException;
  const fail = (kind: 'not-found' | 'system' | 'unsupported', what: string, remedy: string) =>
    new SluiceError(kind, `disk ${name}: ${path} ${what}`, { cause, remedy });
  switch (code) {
    case 'ENOENT':
      return fail('not-found', 'does not exist', `make it: truncate -s 10G ${path}`);
    case 'EACCES':
    case 'EPERM':
      return fail(
        'system',
        `must not be opened ${readonly ? 'for reading' : 'for writing'} (${code})`,
        readonly
          ? 'give this user the right to read it'
          : 'give this user the right, or set readonly: on',
      );
    case 'EROFS':
      return fail('system', 'is on a read-only file system', 'set readonly: on');
    case 'EINVAL':
      if (direct) return fail('unsupported', 'is where there is no O_DIRECT', 'set direct: off');
      break;
  }
  return fail('system', `cannot be opened (${code})`, 'see that it can be read and written');
}

/** What an open file is as a disk. */
function describeOpen(
  options: FileDiskOptions,
  fd: number,
): Omit<FileDiskDescription, 'engine' | 'worker' | 'lock'> {
  const { name, path, readonly = false, direct = false, discard = true } = options;
  const stat = fstatSync(fd, { bigint: true });
  const device = stat.isBlockDevice() ? blockDevice(fd, path) : undefined;
  if (device?.readonly === true && !readonly) {
    throw new SluiceError('config', `disk ${name}: ${path} is a read-only device`, {
      remedy: 'set readonly: on',
    });
  }
  const fileBytes = device?.bytes ?? Number(stat.size);
  const alignment = direct ? alignmentOf(fd, path, device) : { memory: 1, offset: 1 };
  const blockBytes = Math.max(options.blockBytes ?? SECTOR_BYTES, alignment.offset);
  checkSize(options, fileBytes, blockBytes);
  const unit = device?.physicalBytes ?? Number(stat.blksize);
  const physicalBlockBytes = unit > LARGEST_BLOCK ? LARGEST_BLOCK : Math.max(unit, blockBytes);
  const punch = !readonly && (device === undefined ? canPunch(fd, fileBytes) : canGive(stat.rdev));
  const granularity = device === undefined ? 0 : queueFigure(stat.rdev, 'discard_granularity');
  return {
    kind: 'file',
    name,
    path,
    fd,
    isDevice: device !== undefined,
    fileBytes,
    info: {
      bytes: alignUp(fileBytes, blockBytes),
      readonly,
      blockBytes,
      physicalBlockBytes,
      optimalBytes: alignUp(device?.optimalBytes ?? 0, blockBytes),
      discardBytes: punch && discard ? alignUp(Math.max(granularity, unit), blockBytes) : 0,
      writeZeroes: !readonly,
      volatileCache: !readonly,
    },
    traits: {
      direct,
      memoryAlignment: alignment.memory,
      memoryOnly: device === undefined && isInMemory(path),
      punch: punch && discard,
      zeroRange: !readonly,
    },
  };
}

function checkSize(options: FileDiskOptions, bytes: number, blockBytes: number): void {
  const { name, path, readonly = false } = options;
  if (bytes === 0) {
    throw new SluiceError('config', `disk ${name}: ${path} is empty`, {
      remedy: `give it a size: truncate -s 10G ${path}`,
    });
  }
  if (bytes % blockBytes === 0 || readonly) return;
  const what = `has ${bytes} bytes, which is no multiple of its block of ${blockBytes}`;
  throw new SluiceError('config', `disk ${name}: ${path} ${what}`, {
    remedy: `fill it up: truncate -s %${blockBytes} ${path}`,
  });
}

/** What O_DIRECT demands. */
function alignmentOf(
  fd: number,
  path: string,
  device: BlockDevice | undefined,
): { readonly memory: number; readonly offset: number } {
  const known = directAlignment(fd, path);
  if (known !== undefined) return known;
  // A kernel that does not tell: what can be read of the first block is what can be read.
  const memory = pinned(2 * PAGE);
  const vector = pinned(16);
  const iovec = new BigUint64Array(vector.buffer);
  iovec[0] = BigInt(alignUp(Number(memory.address), PAGE));
  let bytes = device?.logicalBytes ?? SECTOR_BYTES;
  for (; bytes < LARGEST_BLOCK; bytes *= 2) {
    iovec[1] = BigInt(bytes);
    if (readVector(fd, vector.address, 1, 0) >= 0) break;
  }
  // Named after the loop, the buffer lives as long as the kernel is given its address.
  return { memory: Math.min(bytes, memory.buffer.byteLength), offset: bytes };
}

/** Whether a file can have holes: asked for behind its end, where there is nothing to lose. */
function canPunch(fd: number, bytes: number): boolean {
  return allocateRange(fd, PUNCH, alignUp(bytes, PAGE), PAGE) !== -EOPNOTSUPP;
}

/** Whether a block device gives blocks back, and has zeroes there then. */
function canGive(device: bigint): boolean {
  return (
    queueFigure(device, 'discard_max_bytes') > 0 &&
    queueFigure(device, 'write_zeroes_max_bytes') > 0
  );
}

/** A disk that is smaller than its partition table says was cut off, or is still to grow. */
function checkTable(name: string, path: string, bytes: number, log: Logger): void {
  // A descriptor of its own, because of O_DIRECT. It takes no lock with it.
  const fd = openSync(path, constants.O_RDONLY);
  try {
    const start = Buffer.alloc(TABLE_BYTES);
    const read = readSync(fd, start, 0, TABLE_BYTES, 0);
    const needed = bytesOfTable(start.subarray(0, read));
    if (needed <= bytes) return;
    log.warn('a disk is smaller than its partition table says: was it cut off?', {
      disk: name,
      path,
      bytes,
      needed,
    });
  } finally {
    closeSync(fd);
  }
}

/**
 * Gives a file another size. The lane is told by `FileDisk.refreshSize`: after a growth; before the
 * file shrinks, with the new size, so that nothing is written behind its new end.
 * @param shrink whether what lies behind a smaller size may be lost
 */
export function resizeFileDisk(
  disk: Pick<FileDiskDescription, 'name' | 'path' | 'fd' | 'isDevice' | 'info'>,
  bytes: number,
  shrink = false,
): void {
  const { name, path, fd, isDevice, info } = disk;
  const refuse = (code: 'config' | 'unsupported', why: string, remedy: string): SluiceError =>
    new SluiceError(code, `disk ${name}: ${why}`, { remedy });
  if (isDevice)
    throw refuse('unsupported', `${path} is a block device`, 'resize it by its own tools');
  if (info.readonly) throw refuse('config', 'it is readonly', 'set readonly: off');
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % info.blockBytes !== 0) {
    const why = `${bytes} bytes are no multiple of its block of ${info.blockBytes}`;
    throw refuse('config', why, 'choose a size in whole blocks');
  }
  const now = fstatSync(fd).size;
  if (bytes < now && !shrink) {
    const why = `${bytes} bytes are less than the ${now} that it has`;
    throw refuse('config', why, 'what lies behind is lost: ask for that with --shrink');
  }
  try {
    ftruncateSync(fd, bytes);
  } catch (cause) {
    const why = `${path} cannot have ${bytes} bytes (${describeError(cause)})`;
    throw new SluiceError('system', `disk ${name}: ${why}`, {
      cause,
      remedy: 'see what its file system allows',
    });
  }
}

/** What a disk is now. */
export function describeFileDisk(disk: FileDiskDescription): FileDiskReport {
  const { path, fd, isDevice, info, traits, engine, lock } = disk;
  const stat = fstatSync(fd);
  return {
    path,
    bytes: isDevice ? blockDeviceBytes(fd, path) : alignUp(stat.size, info.blockBytes),
    // st_blocks counts 512 bytes each, whatever the file system's block (stat(2)).
    allocatedBytes: isDevice ? undefined : stat.blocks * 512,
    isDevice,
    readonly: info.readonly,
    direct: traits.direct,
    engine,
    lock,
  };
}
