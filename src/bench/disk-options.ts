/** What is asked of a disk bench, in fio's words, with its defaults and limits. */
import { z } from 'zod';
import { KiB, MiB } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import { SECTOR_BYTES } from '../block/disk.ts';
import { MAX_VERIFIED_BLOCKS, READ_WRITE } from '../guest/embedded/disk-options.ts';
import { AHCI_MAX_SLOTS } from '../spec/ahci.ts';
import { MAX_GUESTS } from './net-options.ts';
import { parseOptions } from './parse-options.ts';
import { DISK_GUEST_KINDS, DISK_METHODS } from './report-schema.ts';

export const MAX_IODEPTH = 1024;
export const MAX_JOBS = 64;
const MAX_BLOCK = 16 * MiB;
const MAX_RUNTIME = 3600;

const FILE = 'file:';

const diskOptionsSchema = z.strictObject({
  method: z.enum(DISK_METHODS).default('paravirtual'),
  guest: z.enum(DISK_GUEST_KINDS).default('embedded'),
  guests: z.int().min(1).max(MAX_GUESTS).default(1),
  rw: z.enum(READ_WRITE).default('randread'),
  /** Bytes of a request. */
  bs: z.int().min(SECTOR_BYTES).max(MAX_BLOCK).multipleOf(SECTOR_BYTES).default(4096),
  /** Requests on their way at once, of each job. */
  iodepth: z.int().min(1).max(MAX_IODEPTH).default(32),
  /** Queues of each guest's disk, each with a job of its own. */
  numjobs: z.int().min(1).max(MAX_JOBS).default(1),
  /** Seconds of one run. */
  runtime: z.number().min(0.1).max(MAX_RUNTIME).default(3),
  runs: z.int().min(1).max(100).default(3),
  rwmixread: z.int().min(0).max(100).default(50),
  fsync: z.int().min(0).default(0),
  /** Bytes of each guest's disk that are worked on; undefined: 256 MiB, or an existing file as it is. */
  size: z.int().min(KiB).multipleOf(KiB).optional(),
  /** `memory`, `tmpfs` or `file:PATH`. */
  disk: z
    .string()
    .regex(/^(memory|tmpfs|file:.+)$/, 'expected memory, tmpfs or file:PATH')
    .default('memory'),
  direct: z.boolean().default(false),
  packed: z.boolean().default(false),
  verify: z.boolean().default(false),
  /** What an existing file holds may be lost. */
  overwrite: z.boolean().default(false),
});

export type DiskOptions = z.output<typeof diskOptionsSchema>;

/** The file of `file:PATH`; undefined for the others. */
export function fileOf({ disk }: DiskOptions): string | undefined {
  return disk.startsWith(FILE) ? disk.slice(FILE.length) : undefined;
}

/**
 * Bytes of a size as fio takes them: a number, or with a unit (powers of 1024) such as 4k or 1M.
 * NaN if it is none.
 */
export function parseBytes(text: string): number {
  const match = /^(\d+)([kmgt]?)(i?b)?$/i.exec(text.trim());
  if (match === null) return Number.NaN;
  const power = ' kmgt'.indexOf((match[2] ?? '').toLowerCase() || ' ');
  return Number(match[1]) * KiB ** power;
}

/** Fills in defaults. @throws SluiceError `usage` naming the option and what it may be. */
export function parseDiskOptions(input: z.input<typeof diskOptionsSchema>): DiskOptions {
  const options = parseOptions(diskOptionsSchema, input, 'see sluice bench disk --help');
  const { bs, numjobs, size, disk, direct } = options;
  if (options.method === 'emulated') checkDrive(options);
  if (direct && disk === 'memory') {
    throw usage('--direct is for files', 'leave it out, or give --disk file:PATH');
  }
  if (options.overwrite && fileOf(options) === undefined) {
    throw usage('--overwrite is for files', 'leave it out, or give --disk file:PATH');
  }
  if (size !== undefined && jobBytes(size, options) < bs) {
    throw usage(
      `--size ${size}: ${numjobs} jobs with requests of ${bs} bytes do not fit`,
      `choose ${numjobs * bs} or more`,
    );
  }
  if (options.verify && size !== undefined && size / numjobs / bs > MAX_VERIFIED_BLOCKS) {
    throw usage(`--size ${size} is too large to verify`, 'choose a smaller one, or a larger --bs');
  }
  return options;
}

/** What a drive behind an AHCI controller has not. */
function checkDrive({ method, packed, numjobs, iodepth }: DiskOptions): void {
  if (packed || numjobs > 1) {
    throw usage(
      `--packed and --numjobs are for virtqueues, not for --method ${method}`,
      'leave them out: a drive has one queue',
    );
  }
  if (iodepth > AHCI_MAX_SLOTS) {
    throw usage(
      `--iodepth ${iodepth}: a drive has ${AHCI_MAX_SLOTS} tags`,
      `choose ${AHCI_MAX_SLOTS} or less`,
    );
  }
}

/** Bytes of `size` that one job works on: whole requests. */
export function jobBytes(
  size: number,
  { numjobs, bs }: Pick<DiskOptions, 'numjobs' | 'bs'>,
): number {
  return Math.floor(size / numjobs / bs) * bs;
}

function usage(message: string, remedy: string): SluiceError {
  return new SluiceError('usage', message, { remedy });
}
