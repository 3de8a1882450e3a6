/** What a disk is worked with, in the words of fio(1). */
import { SluiceError } from '../../base/errors.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';

export const READ_WRITE = [
  'read',
  'write',
  'randread',
  'randwrite',
  'rw',
  'readwrite',
  'randrw',
] as const;

export type ReadWrite = (typeof READ_WRITE)[number];

/** The work of one queue. */
export interface DiskWorkSpec {
  /** Sequential or random, reads or writes or both. */
  readonly rw: ReadWrite;
  /** Bytes of one request. */
  readonly bs: number;
  /** Requests on their way at once. */
  readonly iodepth: number;
  /** Percentage of reads where both are done; 50 unless given. */
  readonly rwmixread?: number;
  /** The bytes of the disk that this queue works on: from `offset`, `size` of them. */
  readonly offset: number;
  readonly size: number;
  /** Requests in all; no end unless given. */
  readonly requests?: number;
  /** Stamp what is written, check what is read, and read everything written once more at the end. */
  readonly verify?: boolean;
  /** A flush after so many writes; 0, or not given: none. */
  readonly fsync?: number;
  /** Microseconds from a completion to the next request; for an `iodepth` of 1. */
  readonly thinktime?: number;
  /** Of the random numbers; the same seed gives the same requests. */
  readonly seed?: number;
}

/** What a queue has done since its work began. All numbers are exact. */
export interface DiskCounts {
  readonly reads: number;
  readonly writes: number;
  readonly flushes: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
  /** Requests that the device answered with an error. */
  readonly failed: number;
  /** The first of them, in words. */
  readonly failure: string | undefined;
  /** Reads that were checked; blocks among them that are of an older write; those that are damaged. */
  readonly verified: number;
  readonly stale: number;
  readonly corrupt: number;
  /** Of reads and writes, in nanoseconds: pairs for `Histogram.addCounts`. */
  readonly latency: readonly (readonly [bucket: number, count: number])[];
  /** All `requests` are done. */
  readonly done: boolean;
}

export const NO_DISK_COUNTS: DiskCounts = {
  reads: 0,
  writes: 0,
  flushes: 0,
  readBytes: 0,
  writtenBytes: 0,
  failed: 0,
  failure: undefined,
  verified: 0,
  stale: 0,
  corrupt: 0,
  latency: [],
  done: true,
};

/** Blocks that a verifying queue can keep account of. */
export const MAX_VERIFIED_BLOCKS = 2 ** 26;

export function writes(rw: ReadWrite): boolean {
  return rw !== 'read' && rw !== 'randread';
}

export function reads(rw: ReadWrite): boolean {
  return rw !== 'write' && rw !== 'randwrite';
}

export function isRandom(rw: ReadWrite): boolean {
  return rw.startsWith('rand');
}

/**
 * Whole blocks that the work is spread over.
 * @throws SluiceError `config` for work that cannot be done on a disk of `diskBytes`.
 */
export function blocksOf(spec: DiskWorkSpec, diskBytes: number): number {
  const { bs, offset, size } = spec;
  if (!(Number.isInteger(bs) && bs > 0 && bs % SECTOR_BYTES === 0)) {
    throw new SluiceError('config', `requests of ${bs} bytes to a disk`, {
      remedy: `choose a multiple of ${SECTOR_BYTES}`,
    });
  }
  if (!(offset >= 0 && offset % SECTOR_BYTES === 0 && offset + size <= diskBytes)) {
    throw new SluiceError(
      'config',
      `bytes ${offset} to ${offset + size} of a disk of ${diskBytes}`,
    );
  }
  const blocks = Math.floor(size / bs);
  if (blocks < 1) throw new SluiceError('config', `requests of ${bs} bytes in ${size} bytes`);
  if (spec.verify === true && blocks > MAX_VERIFIED_BLOCKS) {
    throw new SluiceError('config', `${blocks} blocks to verify`, {
      remedy: `choose at most ${MAX_VERIFIED_BLOCKS}: a smaller size, or larger blocks`,
    });
  }
  return blocks;
}
