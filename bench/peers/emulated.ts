/** `npm run peers -- emulated`: QEMU's own cards and drives and ours, in one guest, in turn. */
import { readFileSync } from 'node:fs';
import { describeMachine } from '../../src/bench/machine.ts';
import { treeCpuNs } from '../../src/bench/process-tree.ts';
import { median, perUnit, significant } from '../../src/bench/statistics.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import { qemuVersion } from './disk-servers.ts';
import {
  CARDS,
  type DiskWork,
  EmulatedRig,
  type GuestProcessor,
  type Work,
} from './emulated-rig.ts';
import { worksNamed } from './options.ts';
import { type Measured, type SideName, summarize, takePairs } from './pairs.ts';
import { parseProcessor } from './processor-time.ts';
import type { EmulatedReport } from './report.ts';
import { measureTraps } from './traps.ts';

export const KINDS = ['traps', 'net', 'nic', 'disk'] as const;
export type Kind = (typeof KINDS)[number];

const DISK_WORKS: readonly DiskWork[] = [
  { rw: 'randread', bs: 4096, iodepth: 32 },
  { rw: 'randwrite', bs: 4096, iodepth: 32 },
  { rw: 'read', bs: 131072, iodepth: 8 },
  { rw: 'write', bs: 131072, iodepth: 8 },
];
const DISK_BYTES = 512 * 2 ** 20;

export interface EmulatedComparison {
  readonly testbed: Testbed;
  /** The `sluice` to measure. */
  readonly program: string;
  readonly kinds: readonly Kind[];
  /** Parts of the names of rows that are measured; undefined: all. Traps are no row. */
  readonly works: readonly string[] | undefined;
  readonly samples: number;
  readonly seconds: number;
  /** Traps of a sample. */
  readonly traps: number;
  readonly laneCpu: number;
  readonly otherCpu: number;
  readonly directory: string;
  /** The part of the machine's time that others may take in a sample that counts. */
  readonly maxDisturbance: number;
  readonly keepDisturbed: boolean;
  readonly progress: (line: string) => void;
}

interface Sample extends Measured {
  readonly work: Work;
}

interface Task {
  readonly work: string;
  readonly unit: 'Gb/s' | 'IOPS';
  run(rig: EmulatedRig, side: SideName): Promise<Work>;
}

/** In a network namespace of its own. */
export async function compareEmulated(options: EmulatedComparison): Promise<EmulatedReport> {
  const { kinds, progress, samples, seconds } = options;
  const tasks = worksNamed(tasksOf(kinds, seconds), ({ work }) => work, options.works);
  const traps = kinds.includes('traps') ? await measureTraps(options) : [];
  const rows: EmulatedReport['rows'] = [];
  if (tasks.length > 0) {
    await using rig = await EmulatedRig.start({ ...options, diskBytes: DISK_BYTES });
    for (const task of tasks) {
      // The first run of each is for caches and TCP's window.
      for (const side of ['theirs', 'ours'] as const) await task.run(rig, side);
      const { pairs, discarded } = await takePairs<Sample>({
        samples,
        keepDisturbed: options.keepDisturbed,
        take: async (side) => {
          const before = othersNs();
          const start = performance.now();
          const work = await task.run(rig, side);
          const part = (othersNs() - before) / ((performance.now() - start) * 1e6);
          return { value: work.value, work, disturbed: disturbedBy(part, options.maxDisturbance) };
        },
        seen: (side, { value, work, disturbed }) => {
          const why = disturbed === undefined ? '' : ` (disturbed: ${disturbed})`;
          progress(
            `${task.work}: ${side} ${significant(value)} ${task.unit}, the guest ${Math.round(100 * work.processor.guest)} % busy${trapText(work)}${why}`,
          );
        },
      });
      const of = (kind: 'reads' | 'writes'): number =>
        significant(
          median(pairs.map(({ ours: { work } }) => perUnit(work.traps?.[kind] ?? 0, work.units))),
          3,
        );
      const head = { work: task.work, unit: task.unit, better: 'higher' } as const;
      const busy = (side: SideName, part: keyof GuestProcessor): number =>
        significant(100 * median(pairs.map((pair) => pair[side].work.processor[part])), 3);
      const both = (part: keyof GuestProcessor) => ({
        ours: busy('ours', part),
        theirs: busy('theirs', part),
      });
      rows.push({
        ...summarize(head, { pairs, discarded }),
        traps_per_unit: { reads: of('reads'), writes: of('writes') },
        guest_cpu_pct: both('guest'),
        guest_thread_pct: both('thread'),
      });
    }
  }
  return {
    peer: `qemu ${qemuVersion(options.testbed)}`,
    rows,
    traps,
    client: {
      program: 'iperf3 and fio in a Linux guest of QEMU',
      seconds,
      file_bytes: DISK_BYTES,
      lane_cpu: options.laneCpu,
      other_cpu: options.otherCpu,
    },
    counts_disturbed: options.keepDisturbed,
    machine: describeMachine(),
  };
}

function tasksOf(kinds: readonly Kind[], seconds: number): Task[] {
  const net: Task[] = CARDS.flatMap(({ name, kind, qemu }, card) =>
    (kinds.includes(kind) ? (['to', 'from'] as const) : []).map((way) => ({
      work: `${name} TCP ${way} guest${kind === 'nic' ? `, against ${qemu}` : ''}`,
      unit: 'Gb/s',
      run: (rig, side) => rig.stream(card, side, way === 'to', seconds),
    })),
  );
  const disk: Task[] = DISK_WORKS.map((work) => ({
    work: `ahci ${work.bs / 1024} KiB ${work.rw} depth ${work.iodepth}`,
    unit: 'IOPS',
    run: (rig, side) => rig.requests(work, side, seconds),
  }));
  return [...net, ...(kinds.includes('disk') ? disk : [])];
}

function trapText({ traps, units }: Work): string {
  if (traps === undefined) return '';
  const each = (count: number): number => significant(perUnit(count, units), 3);
  return `, ${each(traps.reads)} reads and ${each(traps.writes)} writes a unit`;
}

/** Processor time that neither we nor what we started took, the host's share of it among it. */
function othersNs(): number {
  const { user, nice, system, steal } = parseProcessor(readFileSync('/proc/stat', 'utf8'), 'cpu');
  return (user + nice + system + steal) * 1e9 - treeCpuNs([process.pid]);
}

function disturbedBy(part: number, most: number): string | undefined {
  if (part <= most) return undefined;
  return `others took ${Math.round(100 * part)} % of a processor`;
}
