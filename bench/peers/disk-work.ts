/** What the disk client does, row by row: the same for both sides. */

export const DISK_TARGETS = ['tmpfs', 'disk'] as const;
export const DISK_MODES = ['interrupt', 'poll'] as const;
export const DISK_RWS = ['randread', 'randwrite', 'read', 'write'] as const;

/** Where the file lies that is served: in memory, or in a directory of a real file system. */
export type DiskTarget = (typeof DISK_TARGETS)[number];
/**
 * `interrupt`: the client sleeps until it is called, the server polls and sleeps as it does by
 * default. `poll`: neither ever sleeps while there is work.
 */
export type DiskMode = (typeof DISK_MODES)[number];
/** As fio's `rw`. */
export type DiskRw = (typeof DISK_RWS)[number];

export interface DiskWork {
  readonly target: DiskTarget;
  readonly mode: DiskMode;
  readonly rw: DiskRw;
  /** Bytes of a request. */
  readonly bs: number;
  /** Requests on their way. */
  readonly depth: number;
}

const KIB = 1024;
const RANDOM_BS = 4 * KIB;
const SEQUENTIAL_BS = 128 * KIB;
const SEQUENTIAL_DEPTH = 8;
const RANDOM_DEPTHS: readonly number[] = [1, 32];

/** How long a server that polls looks for more work before it sleeps, in microseconds. */
export const SERVER_POLL_US = 10_000;

/** All works that are measured unless fewer are asked for. */
const ALL_WORKS: readonly DiskWork[] = DISK_TARGETS.flatMap((target) =>
  DISK_MODES.flatMap((mode) =>
    DISK_RWS.flatMap((rw) =>
      rw.startsWith('rand')
        ? RANDOM_DEPTHS.map((depth) => ({ target, mode, rw, bs: RANDOM_BS, depth }))
        : [{ target, mode, rw, bs: SEQUENTIAL_BS, depth: SEQUENTIAL_DEPTH }],
    ),
  ),
);

export const DISK_DEPTHS: readonly number[] = [...new Set(ALL_WORKS.map(({ depth }) => depth))];

export interface DiskWorkChoice {
  readonly targets: readonly DiskTarget[];
  readonly modes: readonly DiskMode[];
  readonly rws: readonly DiskRw[];
  readonly depths: readonly number[];
}

/** Those works that are asked for. */
export function chooseDiskWorks({ targets, modes, rws, depths }: DiskWorkChoice): DiskWork[] {
  return ALL_WORKS.filter(
    ({ target, mode, rw, depth }) =>
      targets.includes(target) &&
      modes.includes(mode) &&
      rws.includes(rw) &&
      depths.includes(depth),
  );
}

/** `tmpfs 4 KiB randread depth 1`, `disk 128 KiB write depth 8 polling` */
export function diskWorkName({ target, mode, rw, bs, depth }: DiskWork): string {
  const polling = mode === 'poll' ? ' polling' : '';
  return `${target} ${bs / KIB} KiB ${rw} depth ${depth}${polling}`;
}

/** What the client tells of one sample. Times in nanoseconds unless they say otherwise. */
export interface DiskFigures {
  readonly iops: number;
  readonly bytes_per_s: number;
  readonly latency_ns: { readonly p50: number; readonly p99: number };
}

/** A row that a work makes. */
export interface DiskMeasure {
  readonly work: string;
  readonly unit: 'kIOPS' | 'GB/s' | 'us';
  readonly better: 'higher' | 'lower';
  /** The row's value of what the client told. */
  value(figures: DiskFigures): number;
}

/** What is told of a work: bandwidth of large requests, rate of small ones, latency of single ones. */
export function measuresOf(work: DiskWork): DiskMeasure[] {
  const name = diskWorkName(work);
  if (work.bs >= SEQUENTIAL_BS) {
    const value = (figures: DiskFigures): number => figures.bytes_per_s / 1e9;
    return [{ work: name, unit: 'GB/s', better: 'higher', value }];
  }
  const rate: DiskMeasure = {
    work: name,
    unit: 'kIOPS',
    better: 'higher',
    value: ({ iops }) => iops / 1e3,
  };
  if (work.depth > 1) return [rate];
  const latency: DiskMeasure = {
    work: `${name} latency`,
    unit: 'us',
    better: 'lower',
    value: ({ latency_ns }) => latency_ns.p50 / 1e3,
  };
  return [rate, latency];
}
