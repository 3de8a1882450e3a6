/** `sluice bench all`: every method, over sizes of frames and numbers of guests, and the idle lane. */
import { SluiceError } from '../base/errors.ts';
import { measureIdle } from './idle.ts';
import { describeMachine } from './machine.ts';
import { type NetOptions, parseNetOptions } from './net-options.ts';
import { type BenchControl, startNetRig } from './net-rig.ts';
import { type MatrixReport, METHODS, type NetReport } from './report-schema.ts';

/** Smallest and largest frame without segmentation offload, and one with. */
const FRAMES = [64, 1514, 65000] as const;
/** 30 is the number of virtual machines in the talk that this bench follows. */
const GUESTS = [2, 8, 30] as const;
const SECONDS = 0.5;
const RUNS = 3;

const IDLE_GUESTS = 8;

/** What is measured, row by row. */
export function matrixRows(): NetOptions[] {
  return METHODS.flatMap((method) =>
    GUESTS.flatMap((guests) =>
      FRAMES.map((frame) =>
        parseNetOptions({ method, guests, frame, direction: 'both', seconds: SECONDS, runs: RUNS }),
      ),
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
  idle: MatrixReport['idle'],
): MatrixReport {
  return {
    bench: 'all',
    version,
    date: new Date().toISOString(),
    rows: [...rows],
    idle,
    machine: describeMachine(),
  };
}
