/** `npm run peers -- disk`: qemu-storage-daemon and Sluice, with the same client, in turn. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeMachine } from '../../src/bench/machine.ts';
import { median, significant } from '../../src/bench/statistics.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import { buildDiskClient, type DiskAnswer, type DiskSample, DiskSide } from './disk-client.ts';
import { DiskFiles } from './disk-files.ts';
import { type DiskServerKind, qemuDiskServer, qemuVersion } from './disk-servers.ts';
import {
  type DiskTarget,
  type DiskWork,
  diskWorkName,
  measuresOf,
  SERVER_POLL_US,
} from './disk-work.ts';
import { sharesOf } from './net.ts';
import { type Pairs, type SideName, summarize, takePairs } from './pairs.ts';
import type { DiskReport, PeerRow } from './report.ts';

export interface DiskComparison {
  readonly testbed: Testbed;
  readonly ours: DiskServerKind;
  readonly works: readonly DiskWork[];
  /** Where the files of each target are. */
  readonly directories: Readonly<Record<DiskTarget, string>>;
  /** Bytes of a file. */
  readonly bytes: number;
  /** Pairs of samples a row, and how often both sides are started anew for them. */
  readonly samples: number;
  readonly starts: number;
  readonly clientCpu: number;
  readonly serverCpu: number;
  readonly warmup: number;
  readonly seconds: number;
  readonly verify: boolean;
  readonly keepDisturbed: boolean;
  readonly maxDisturbance: number;
  /** Told what happens, in lines. */
  readonly progress: (line: string) => void;
}

/** Runs the whole comparison. Files, sockets and processes are gone when it is over. */
export async function compareDisk(options: DiskComparison): Promise<DiskReport> {
  const { testbed, ours, progress, clientCpu, serverCpu, warmup, seconds, verify } = options;
  const sides: Record<SideName, DiskServerKind> = { theirs: qemuDiskServer(testbed), ours };
  const peer = `qemu-storage-daemon ${qemuVersion(testbed)}`;
  const program = buildDiskClient(testbed);

  /** Starts both sides, each with a file of its own, and takes pairs of samples. */
  const takeRound = async (
    work: DiskWork,
    files: DiskFiles,
    samples: number,
    start: number,
  ): Promise<Pairs<DiskSample>> => {
    await using stack = new AsyncDisposableStack();
    const startSide = async (side: SideName): Promise<DiskSide> => {
      const directory = mkdtempSync(join(tmpdir(), 'sluice-peers-'));
      const remove = (): void => rmSync(directory, { recursive: true, force: true });
      process.once('exit', remove);
      stack.defer(() => {
        process.off('exit', remove);
        remove();
      });
      // Whoever has the better place on the disk has the other one at the next start.
      const [first, second] = files.paths;
      const server = await sides[side].start({
        directory,
        cpu: serverCpu,
        file: (side === 'ours') === (start % 2 === 0) ? first : second,
        direct: files.direct,
        polling: work.mode === 'poll',
      });
      return stack.use(
        await DiskSide.start(server, {
          testbed,
          program,
          cpu: clientCpu,
          work,
          verify,
          serverCpu,
          warmup,
          seconds,
          maxDisturbance: options.maxDisturbance,
        }),
      );
    };
    const started = { theirs: await startSide('theirs'), ours: await startSide('ours') };
    return await takePairs({
      samples,
      keepDisturbed: options.keepDisturbed,
      take: (side) => started[side].sample(),
      seen: (side, sample) => progress(sampleLine(work, sides[side].name, sample)),
    });
  };

  const rowsOf = async (work: DiskWork, files: DiskFiles): Promise<PeerRow[]> => {
    const rounds: Pairs<DiskSample>[] = [];
    const shares = sharesOf(options.samples, options.starts);
    for (const [start, samples] of shares.entries())
      rounds.push(await takeRound(work, files, samples, start));
    const pairs = rounds.flatMap((round) => round.pairs);
    const discarded = rounds.reduce((sum, round) => sum + round.discarded, 0);
    return measuresOf(work).map(({ value, ...head }) => {
      const valued = (sample: DiskSample): DiskSample => ({
        ...sample,
        value: value(sample.answer),
      });
      const row = summarize(head, {
        pairs: pairs.map((pair) => ({ theirs: valued(pair.theirs), ours: valued(pair.ours) })),
        discarded,
      });
      const oursSamples = pairs.map((pair) => pair.ours);
      const theirsSamples = pairs.map((pair) => pair.theirs);
      return {
        ...row,
        latency_us: { ours: latencies(oursSamples), theirs: latencies(theirsSamples) },
        server_cpu_pct: { ours: busyPercent(oursSamples), theirs: busyPercent(theirsSamples) },
      };
    });
  };

  const rows: PeerRow[] = [];
  const direct: Partial<Record<DiskTarget, boolean>> = {};
  for (const target of new Set(options.works.map((work) => work.target))) {
    const directory = options.directories[target];
    using files = new DiskFiles({ target, directory, bytes: options.bytes });
    direct[target] = files.direct;
    if (target === 'disk' && !files.direct)
      progress(`${directory} cannot O_DIRECT: both sides go through the page cache`);
    for (const work of options.works.filter((one) => one.target === target))
      rows.push(...(await rowsOf(work, files)));
  }
  return {
    peer,
    rows,
    client: {
      program: 'blkio-client',
      driver: 'virtio-blk-vhost-user',
      queues: 1,
      file_bytes: options.bytes,
      direct,
      server_poll_us: SERVER_POLL_US,
      verify,
      cpu: clientCpu,
      server_cpu: serverCpu,
      warmup_seconds: warmup,
      starts: options.starts,
      seconds,
    },
    counts_disturbed: options.keepDisturbed,
    machine: describeMachine(),
  };
}

function latencies(samples: readonly DiskSample[]): { p50: number; p99: number } {
  const of = (pick: (latency: DiskAnswer['latency_ns']) => number): number =>
    significant(median(samples.map(({ answer }) => pick(answer.latency_ns))) / 1e3);
  return { p50: of(({ p50 }) => p50), p99: of(({ p99 }) => p99) };
}

function busyPercent(samples: readonly DiskSample[]): number {
  return significant(100 * median(samples.map(({ busy }) => busy)), 3);
}

function sampleLine(work: DiskWork, side: string, sample: DiskSample): string {
  const { answer, busy, disturbed } = sample;
  const figures = measuresOf(work)
    .map(({ value, unit }) => `${significant(value(answer))} ${unit}`)
    .join(', ');
  const why = disturbed === undefined ? '' : ` (disturbed: ${disturbed})`;
  return `${diskWorkName(work)}: ${side} ${figures}, server ${Math.round(100 * busy)} % busy${why}`;
}
