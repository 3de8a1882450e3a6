/**
 * `sluice bench all`: every method, over sizes of frames and requests and numbers of guests, and the
 * idle lane.
 */
import { MiB } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import type { BenchControl } from './bench-control.ts';
import { type DiskOptions, parseDiskOptions } from './disk-options.ts';
import { measureIdle } from './idle.ts';
import { describeMachine } from './machine.ts';
import { type NetOptions, parseNetOptions } from './net-options.ts';
import { startNetRig } from './net-rig.ts';
import {
  DISK_METHODS,
  type DiskMethod,
  type DiskReport,
  type MatrixReport,
  METHODS,
  type Method,
  type NetReport,
} from './report-schema.ts';

/** Smallest and largest frame without segmentation offload, and one with. */
const FRAMES = [64, 1514, 65000] as const;
/** Guests, which of the frames, and what else is not as usual. */
interface NetWork extends Pick<NetOptions, 'link' | 'ports'> {
  readonly guests: number;
  readonly frames: readonly number[];
}

/** By method. 30 is the number of virtual machines in the talk that this bench follows. */
const NET_WORK: Readonly<Record<Method, readonly NetWork[]>> = {
  paravirtual: [
    { guests: 2, frames: FRAMES },
    { guests: 8, frames: [1514] },
    { guests: 30, frames: [1514] },
  ],
  emulated: [
    { guests: 2, frames: [64, 1514] },
    { guests: 8, frames: [1514] },
  ],
  direct: [{ guests: 2, frames: [1514] }],
  // On one port there is no wire between the functions.
  sriov: [
    { guests: 2, frames: [64], ports: 1 },
    { guests: 30, frames: [1514] },
    { guests: 30, frames: [1514], ports: 1 },
  ],
};
const SECONDS = 0.2;
const RUNS = 2;

const IDLE_GUESTS = 8;

/** What is measured, row by row. */
export function matrixRows(): NetOptions[] {
  return METHODS.flatMap((method) =>
    NET_WORK[method].flatMap(({ frames, ...work }) =>
      frames.map((frame) =>
        parseNetOptions({
          ...work,
          method,
          frame,
          direction: 'both',
          seconds: SECONDS,
          runs: RUNS,
        }),
      ),
    ),
  );
}

/** Single small requests, many of them, large ones one after the other, and many guests. */
const DISK_WORK = [
  { rw: 'randread', bs: 4096, iodepth: 1, guests: 1 },
  { rw: 'randread', bs: 4096, iodepth: 32, guests: 1 },
  { rw: 'read', bs: 131072, iodepth: 8, guests: 1 },
  { rw: 'randwrite', bs: 4096, iodepth: 32, guests: 1 },
  { rw: 'randread', bs: 4096, iodepth: 32, guests: 8 },
] as const;
/** How many of them, the first ones, are measured of a method. */
const DISK_ROWS: Readonly<Record<DiskMethod, number>> = { paravirtual: 5, emulated: 2 };
const DISK_BYTES = 32 * MiB;
const DISK_SECONDS = 0.2;
const DISK_RUNS = 2;

/** What is measured of disks, row by row: in memory, so that it is Sluice that is measured. */
export function matrixDiskRows(): DiskOptions[] {
  return DISK_METHODS.flatMap((method) =>
    DISK_WORK.slice(0, DISK_ROWS[method]).map((work) =>
      parseDiskOptions({
        ...work,
        method,
        disk: 'memory',
        size: DISK_BYTES / work.guests,
        runtime: DISK_SECONDS,
        runs: DISK_RUNS,
      }),
    ),
  );
}

/** The lane of a driver domain whose guests do nothing. */
export async function measureIdleDomain(control: BenchControl = {}): Promise<MatrixReport['idle']> {
  await using rig = await startNetRig(parseNetOptions({ guests: IDLE_GUESTS }), control);
  const idle = await measureIdle(rig, control);
  if (idle === undefined) throw new SluiceError('state', 'the idle lane was not measured');
  return { guests: IDLE_GUESTS, ...idle };
}

/** The report of what was measured a row at a time. */
export function matrixReport(
  version: string,
  rows: readonly NetReport[],
  disks: readonly DiskReport[],
  idle: MatrixReport['idle'],
): MatrixReport {
  return {
    bench: 'all',
    version,
    date: new Date().toISOString(),
    rows: [...rows],
    disks: [...disks],
    idle,
    machine: describeMachine(),
  };
}
