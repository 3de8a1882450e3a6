/** The files that are served: one for each side, full of data, gone after the comparison. */
import { randomFillSync } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fdatasyncSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../src/base/errors.ts';
import type { DiskTarget } from './disk-work.ts';

/** statfs(2), f_type of tmpfs (linux/magic.h, TMPFS_MAGIC). */
const TMPFS_MAGIC = 0x01021994;
const PIECE_BYTES = 1 << 23;
const NAME = 'sluice-peers-disk-';

export interface DiskFilesOptions {
  readonly target: DiskTarget;
  readonly directory: string;
  /** Of each of the two files: whole pieces of 8 MiB. */
  readonly bytes: number;
}

/** What a process that was killed left behind: its number is in the name. */
function sweep(directory: string): void {
  for (const name of readdirSync(directory)) {
    const pid = name.startsWith(NAME) ? Number.parseInt(name.slice(NAME.length), 10) : Number.NaN;
    if (pid > 0 && !existsSync(`/proc/${pid}`))
      rmSync(join(directory, name), { recursive: true, force: true });
  }
}

/** Whether files there can be read and written past the page cache. */
function takesDirect(file: string): boolean {
  try {
    closeSync(openSync(file, constants.O_RDWR | constants.O_DIRECT));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return false;
    throw error;
  }
}

export class DiskFiles implements Disposable {
  /** Paths of two files of the same size. */
  readonly paths: readonly [string, string];
  /** They are to be opened with O_DIRECT: on a real file system that can. */
  readonly direct: boolean;
  readonly #remove: () => void;

  /**
   * Writes them.
   * @throws SluiceError `usage` for a directory that is not of the target's kind
   * @throws SluiceError `state` for lack of space
   */
  constructor({ target, directory, bytes }: DiskFilesOptions) {
    const { type, bavail, bsize } = statfsSync(directory);
    if ((type === TMPFS_MAGIC) !== (target === 'tmpfs')) {
      throw new SluiceError('usage', `${directory} is ${target === 'disk' ? '' : 'not '}a tmpfs`, {
        remedy: 'Choose directories with --tmpfs and --directory.',
      });
    }
    sweep(directory);
    if (2 * bytes > bavail * bsize) {
      throw new SluiceError('state', `${directory} has no room for two files of ${bytes} bytes`, {
        remedy: 'Choose another directory or a smaller --size.',
      });
    }
    const place = mkdtempSync(join(directory, `${NAME}${process.pid}-`));
    this.#remove = () => rmSync(place, { recursive: true, force: true });
    process.once('exit', this.#remove);
    this.paths = [join(place, 'a.img'), join(place, 'b.img')];
    // Holes and blocks that were never written are read without any disk or copy.
    const piece = randomFillSync(Buffer.alloc(PIECE_BYTES));
    for (const path of this.paths) {
      const fd = openSync(path, 'wx', 0o600);
      for (let at = 0; at < bytes; at += PIECE_BYTES) writeSync(fd, piece, 0, PIECE_BYTES, at);
      fdatasyncSync(fd);
      closeSync(fd);
    }
    this.direct = target === 'disk' && takesDirect(this.paths[0]);
  }

  [Symbol.dispose](): void {
    process.off('exit', this.#remove);
    this.#remove();
  }
}
