/** The disks that a bench works on: in memory, in files that it makes, or in one that is there. */
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  type Stats,
  statfsSync,
  statSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { KiB, MiB } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import { writes } from '../guest/embedded/disk-options.ts';
import { type DiskOptions, fileOf } from './disk-options.ts';

const DEFAULT_BYTES = 256 * MiB;

/** Where Linux systems have a file system in memory, and how statfs(2) tells it. */
const TMPFS = '/dev/shm';
const TMPFS_MAGIC = 0x0102_1994;

export interface BenchDisks extends Disposable {
  /** By guest: the disk as the configuration describes it. */
  readonly documents: readonly object[];
  /** Bytes of each disk to work on; undefined: all that it has. */
  readonly bytes: number | undefined;
  /** The disks hold nothing yet, or nothing that must be kept: they are to be filled before they are read. */
  readonly fill: boolean;
}

/** @throws SluiceError for a file that is not there, or must not be written. */
export function makeDisks(options: DiskOptions): BenchDisks {
  const { guests, disk, size = DEFAULT_BYTES } = options;
  if (disk === 'memory') {
    return {
      documents: Array.from({ length: guests }, () => ({ memory: `${size / KiB}K` })),
      bytes: size,
      fill: true,
      [Symbol.dispose]: () => undefined,
    };
  }
  const path = fileOf(options);
  if (path === undefined) {
    if (typeOf(TMPFS)?.isDirectory() !== true || statfsSync(TMPFS).type !== TMPFS_MAGIC) {
      throw new SluiceError('not-found', `${TMPFS} is no tmpfs`, {
        remedy: 'name a directory on one: --disk file:DIRECTORY',
      });
    }
    return makeFiles(TMPFS, size, options);
  }
  const type = typeOf(path);
  if (type === undefined) {
    throw new SluiceError('not-found', `there is no ${path}`, {
      remedy: 'name a directory, for files that are made and removed again, or an existing file',
    });
  }
  return type.isDirectory() ? makeFiles(path, size, options) : existing(path, options);
}

function existing(path: string, options: DiskOptions): BenchDisks {
  const { guests, rw, overwrite, direct, size } = options;
  if (guests > 1) {
    throw new SluiceError('usage', `${guests} guests cannot share ${path}`, {
      remedy: 'name a directory: each guest gets a file of its own there',
    });
  }
  if (writes(rw) && !overwrite) {
    throw new SluiceError('usage', `--rw ${rw} would overwrite ${path}`, {
      remedy: 'add --overwrite if what it holds may be lost, or name a directory',
    });
  }
  return {
    documents: [{ file: resolve(path), direct, readonly: !overwrite }],
    bytes: size,
    fill: overwrite,
    [Symbol.dispose]: () => undefined,
  };
}

function makeFiles(parent: string, size: number, { guests, direct }: DiskOptions): BenchDisks {
  const directory = mkdtempSync(join(resolve(parent), 'sluice-bench-'));
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  process.once('exit', remove);
  const documents = Array.from({ length: guests }, (_, guest) => {
    const file = join(directory, `disk${guest}.img`);
    const fd = openSync(file, 'wx');
    try {
      ftruncateSync(fd, size);
    } finally {
      closeSync(fd);
    }
    return { file, direct };
  });
  return {
    documents,
    bytes: size,
    fill: true,
    [Symbol.dispose]: () => {
      process.off('exit', remove);
      remove();
    },
  };
}

function typeOf(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}
