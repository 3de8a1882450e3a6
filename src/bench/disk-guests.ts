/** Embedded guests as the guests of a disk bench: their threads count and time requests themselves. */
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../base/errors.ts';
import { Histogram } from '../base/histogram.ts';
import {
  type DiskCounts,
  type DiskWorkSpec,
  NO_DISK_COUNTS,
} from '../guest/embedded/disk-options.ts';
import type { EmbeddedGuests } from '../guest/embedded/launcher.ts';
import type { DiskGuestInfo, ProcessReading } from '../guest/embedded/protocol.ts';
import { threadSchedule } from '../os/schedule.ts';
import type { Latency } from './bench-guests.ts';
import { type DiskOptions, jobBytes } from './disk-options.ts';
import { type Member, startGuestProcesses } from './guest-processes.ts';
import type { DomainDisk } from './private-domain.ts';
import { mean } from './statistics.ts';

/** Requests on their way at once while a disk is filled. */
const FILL_DEPTH = 32;
const LOOK_MS = 20;
/** A disk that has done nothing for so long will not do it. */
const STUCK_MS = 30_000;
/** What verifying guests read once more at the end of a run takes its time. */
const STOP_MS = 600_000;

/** Long enough for guest and lane to go to sleep between two requests. */
const ASLEEP_THINKTIME_US = 2000;
const ASLEEP_REQUESTS = 200;

/** Counts of all guests since they were started. */
export interface DiskSample {
  /** Reads and writes by guest. */
  readonly requests: readonly number[];
  readonly reads: number;
  readonly writes: number;
  readonly flushes: number;
  readonly bytes: number;
  readonly latency: DiskCounts['latency'];
  readonly cpuNs: number;
  /** Time in which guests were ready to run and had no processor, in the mean of their threads. */
  readonly waitNs: number;
  /** Bytes that the guests' JavaScript has allocated. */
  readonly heapBytes: number;
}

/** What was wrong in a run. */
export interface DiskTotals {
  readonly failed: number;
  readonly failure: string | undefined;
  readonly stale: number;
  readonly corrupt: number;
  readonly verified: number;
}

export interface DiskGuestsOptions {
  readonly work: DiskOptions;
  readonly disks: readonly DomainDisk[];
  /** Bytes of each disk to work on; undefined: all that it has. */
  readonly bytes: number | undefined;
  /** Processors for the guests; undefined leaves it to the kernel. */
  readonly cpus: readonly number[] | undefined;
}

/** Starts guests, one process for each processor that they may use, and attaches them. */
export async function startDiskGuests(options: DiskGuestsOptions): Promise<DiskGuests> {
  const { work, disks, cpus } = options;
  const slots = Math.max(work.iodepth, FILL_DEPTH);
  const started = await startGuestProcesses(disks, cpus, async (home, { name, socket }) => {
    const info = await home.attachDisk({
      name,
      method: work.method,
      socket,
      slots,
      requestBytes: work.bs,
      ...(work.method === 'emulated' ? {} : ringsFor(work, slots)),
    });
    if (work.packed && !info.packed) {
      throw new SluiceError('unsupported', `guest ${name} was offered no packed rings`);
    }
    return info;
  });
  return new DiskGuests(options, started.processes, started.members, started.lost);
}

/** What a guest wants of a virtio-blk device. */
function ringsFor({ numjobs, packed }: DiskOptions, slots: number) {
  const queueSize = Math.max(128, 2 ** Math.ceil(Math.log2(slots)));
  return { queues: numjobs, queueSize, wishes: { packed } };
}

export class DiskGuests implements AsyncDisposable {
  /** Bytes of all disks together that are worked on, and of the guests' buffers for them. */
  readonly footprint: number;
  readonly #options: DiskGuestsOptions;
  readonly #processes: readonly EmbeddedGuests[];
  readonly #members: readonly Member<DiskGuestInfo>[];
  /** Guests that lost their device; filled as it happens. */
  readonly #lost: readonly string[];
  /** Differs from run to run, so that no run writes what the last has written. */
  #seed = 1;

  constructor(
    options: DiskGuestsOptions,
    processes: readonly EmbeddedGuests[],
    members: readonly Member<DiskGuestInfo>[],
    lost: readonly string[],
  ) {
    this.#options = options;
    this.#processes = processes;
    this.#members = members;
    this.#lost = lost;
    const { numjobs, iodepth, bs } = options.work;
    this.footprint = members.reduce(
      (sum, { info }) => sum + numjobs * (this.#jobBytes(info) + iodepth * bs),
      0,
    );
  }

  /** Bytes of the disk of each guest that are worked on. */
  get diskBytes(): readonly number[] {
    return this.#members.map(({ info }) => this.#options.bytes ?? info.bytes);
  }

  /** Writes each disk once, from the beginning to the end. */
  async fill(signal: AbortSignal | undefined): Promise<void> {
    const { bs, verify } = this.#options.work;
    await this.#complete(
      (base, bytes) => ({
        ...base,
        rw: 'write',
        iodepth: FILL_DEPTH,
        verify,
        requests: bytes / bs,
      }),
      signal,
    );
  }

  /** Single reads that find guest and lane asleep, in microseconds. */
  async measureAsleepLatency(): Promise<Latency> {
    const counts = await this.#complete(
      (base, _bytes, guest, job) => ({
        ...base,
        rw: 'randread',
        iodepth: 1,
        thinktime: ASLEEP_THINKTIME_US,
        requests: guest === 0 && job === 0 ? ASLEEP_REQUESTS : 0,
      }),
      undefined,
    );
    return latencyOf(counts.flatMap(({ latency }) => latency));
  }

  async start(): Promise<void> {
    const { rw, iodepth, rwmixread, fsync, verify } = this.#options.work;
    await this.#start((base) => ({ ...base, rw, iodepth, rwmixread, fsync, verify }));
  }

  async sample(): Promise<DiskSample> {
    const readings = await this.#read();
    const byGuest = this.#members.map((member) => this.#countsOf(readings, member));
    const all = byGuest.flat();
    const sum = (of: (counts: DiskCounts) => number): number =>
      all.reduce((total, counts) => total + of(counts), 0);
    return {
      requests: byGuest.map((queues) =>
        queues.reduce((total, { reads, writes }) => total + reads + writes, 0),
      ),
      reads: sum(({ reads }) => reads),
      writes: sum(({ writes }) => writes),
      flushes: sum(({ flushes }) => flushes),
      bytes: sum(({ readBytes, writtenBytes }) => readBytes + writtenBytes),
      latency: all.flatMap(({ latency }) => latency),
      cpuNs: readings.reduce((total, { cpuUs }) => total + cpuUs * 1000, 0),
      waitNs: mean(this.#processes.map(({ pid }) => threadSchedule(pid).waitNs)),
      heapBytes: readings.reduce((total, { heapBytes }) => total + heapBytes, 0),
    };
  }

  /** Ends the work; settles when all of it is done, and verified where that was asked for. */
  async stop(): Promise<DiskTotals> {
    await Promise.all(this.#processes.map((process) => process.stop(STOP_MS)));
    const readings = await this.#read();
    const all = this.#members.flatMap((member) => this.#countsOf(readings, member));
    const sum = (of: (counts: DiskCounts) => number): number =>
      all.reduce((total, counts) => total + of(counts), 0);
    return {
      failed: sum(({ failed }) => failed),
      failure: all.find(({ failure }) => failure !== undefined)?.failure,
      stale: sum(({ stale }) => stale),
      corrupt: sum(({ corrupt }) => corrupt),
      verified: sum(({ verified }) => verified),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#processes.map((process) => process.close()));
  }

  /** Has all queues do so many requests; their counts. @throws SluiceError if one of them fails */
  async #complete(
    specOf: (base: JobBase, bytes: number, guest: number, job: number) => DiskWorkSpec,
    signal: AbortSignal | undefined,
  ): Promise<readonly DiskCounts[]> {
    await this.#start(specOf);
    let last = -1;
    let changed = performance.now();
    for (;;) {
      await sleep(LOOK_MS, undefined, { signal });
      const readings = await this.#read();
      const counts = this.#members.flatMap((member) => this.#countsOf(readings, member));
      const requests = counts.reduce((sum, { reads, writes }) => sum + reads + writes, 0);
      if (requests !== last) changed = performance.now();
      last = requests;
      if (counts.every(({ done }) => done)) {
        const { failed, failure, corrupt, stale } = await this.stop();
        if (failed > 0) throw new SluiceError('state', `${failed} requests failed: ${failure}`);
        if (corrupt + stale > 0) {
          throw new SluiceError('state', `${corrupt + stale} blocks were not as they were written`);
        }
        return counts;
      }
      if (performance.now() - changed > STUCK_MS) {
        throw new SluiceError('state', `the disks have done nothing for ${STUCK_MS / 1000} s`);
      }
    }
  }

  async #start(
    specOf: (base: JobBase, bytes: number, guest: number, job: number) => DiskWorkSpec,
  ): Promise<void> {
    const { numjobs, bs } = this.#options.work;
    const work = this.#members.map(({ info }, guest) => {
      const size = this.#jobBytes(info);
      return Array.from({ length: numjobs }, (_, job) => {
        const base = { bs, offset: job * size, size, seed: this.#seed++ };
        return specOf(base, size, guest, job);
      });
    });
    await Promise.all(
      this.#processes.map((process) =>
        process.startDisks(
          Object.fromEntries(
            this.#members.flatMap(({ home, info }, guest) =>
              home === process ? [[info.name, work[guest] ?? []] as const] : [],
            ),
          ),
        ),
      ),
    );
  }

  #jobBytes(info: DiskGuestInfo): number {
    const { work, bytes } = this.#options;
    const size = jobBytes(Math.min(bytes ?? info.bytes, info.bytes), work);
    if (size === 0) {
      throw new SluiceError(
        'usage',
        `${work.numjobs} jobs with requests of ${work.bs} bytes on a disk of ${info.bytes}`,
      );
    }
    return size;
  }

  async #read(): Promise<ProcessReading[]> {
    const [lost] = this.#lost;
    if (lost !== undefined) throw new SluiceError('state', lost);
    return await Promise.all(this.#processes.map((process) => process.read()));
  }

  #countsOf(
    readings: readonly ProcessReading[],
    { home, info }: Member<DiskGuestInfo>,
  ): readonly DiskCounts[] {
    return readings[this.#processes.indexOf(home)]?.disks[info.name]?.queues ?? [NO_DISK_COUNTS];
  }
}

type JobBase = Pick<DiskWorkSpec, 'bs' | 'offset' | 'size' | 'seed'>;

/** Median and 99th percentile of what was recorded after `before`, in microseconds. */
export function latencyOf(
  after: DiskCounts['latency'],
  before: DiskCounts['latency'] = [],
): Latency {
  const histogram = new Histogram();
  histogram.addCounts(after);
  histogram.addCounts(before, -1);
  return { p50: histogram.quantile(0.5) / 1000, p99: histogram.quantile(0.99) / 1000 };
}
