/** `npm run peers -- net`: DPDK's vhost switch and Sluice, each with the same client, in turn. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeMachine } from '../../src/bench/machine.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import { CLIENT_MEMORY_MIB, type Sample, Side } from './client.ts';
import { reserveHugePages } from './hugepages.ts';
import { type Pairs, type SideName, summarize, takePairs } from './pairs.ts';
import type { PeerReport, PeerRow } from './report.ts';
import { dpdkSwitch, type SwitchKind } from './switches.ts';
import { parseVersion } from './testpmd.ts';
import { BURST, framesOf, RING_SIZE, type Workload, workName } from './workload.ts';

export interface NetComparison {
  readonly testbed: Testbed;
  readonly ours: SwitchKind;
  readonly workloads: readonly Workload[];
  /** Pairs of samples a row, and how often both sides are started anew for them. */
  readonly samples: number;
  readonly starts: number;
  readonly clientCpu: number;
  readonly switchCpu: number;
  readonly warmup: number;
  readonly seconds: number;
  readonly keepDisturbed: boolean;
  readonly maxDisturbance: number;
  /** Told what happens, in lines. */
  readonly progress: (line: string) => void;
}

interface Round extends Pairs<Sample> {
  /** Frames that were left of those that the clients began with. */
  readonly circulating: Readonly<Record<SideName, number>>;
}

/** Runs the whole comparison. Huge pages, sockets and processes are gone when it is over. */
export async function compareNet(options: NetComparison): Promise<PeerReport> {
  const { testbed, ours, progress, clientCpu, switchCpu, warmup, seconds } = options;
  const theirs = dpdkSwitch(testbed);
  const sides: Record<SideName, SwitchKind> = { theirs, ours };
  let version: string | undefined;

  /** Starts both sides, takes pairs of samples, and tells how many frames were left in the end. */
  const takeRound = async (workload: Workload, samples: number): Promise<Round> => {
    await using stack = new AsyncDisposableStack();
    const startSide = async (side: SideName): Promise<Side> => {
      const directory = mkdtempSync(join(tmpdir(), 'sluice-peers-'));
      const remove = (): void => rmSync(directory, { recursive: true, force: true });
      process.once('exit', remove);
      stack.defer(() => {
        process.off('exit', remove);
        remove();
      });
      const running = await sides[side].start({ directory, cpu: switchCpu, workload });
      if (side === 'theirs') version ??= parseVersion(running.process.output);
      try {
        return stack.use(
          await Side.start(running, {
            testbed,
            workload,
            clientCpu,
            switchCpu,
            warmup,
            seconds,
            maxDisturbance: options.maxDisturbance,
          }),
        );
      } catch (error) {
        await running[Symbol.asyncDispose]();
        throw error;
      }
    };
    const started = { theirs: await startSide('theirs'), ours: await startSide('ours') };
    const result = await takePairs({
      samples,
      keepDisturbed: options.keepDisturbed,
      take: (side) => started[side].sample(),
      seen: (side, sample) => progress(sampleLine(workload, sides[side].name, sample)),
    });
    const circulating = {
      theirs: await started.theirs.drain(),
      ours: await started.ours.drain(),
    };
    const frames = framesOf(workload);
    for (const side of ['theirs', 'ours'] as const) {
      const lost = frames - circulating[side];
      if (lost > 0)
        progress(`${workName(workload)}: ${sides[side].name} lost ${lost} of ${frames} frames`);
    }
    return { ...result, circulating };
  };

  const hugePages = 2 * CLIENT_MEMORY_MIB + theirs.hugePagesMib + ours.hugePagesMib;
  const giveBack = reserveHugePages(hugePages);
  process.once('exit', giveBack);
  const rows: PeerRow[] = [];
  try {
    for (const workload of options.workloads) {
      const work = workName(workload);
      const rounds: Round[] = [];
      for (const samples of sharesOf(options.samples, options.starts)) {
        rounds.push(await takeRound(workload, samples));
      }
      const row = summarize(
        { work, unit: 'Mpps', better: 'higher' },
        {
          pairs: rounds.flatMap(({ pairs }) => pairs),
          discarded: rounds.reduce((sum, { discarded }) => sum + discarded, 0),
        },
      );
      rows.push({
        ...row,
        circulating: {
          ours: Math.min(...rounds.map(({ circulating }) => circulating.ours)),
          theirs: Math.min(...rounds.map(({ circulating }) => circulating.theirs)),
        },
      });
    }
  } finally {
    process.off('exit', giveBack);
    giveBack();
  }
  const peer = `dpdk ${version ?? ''}`.trim();
  return {
    peer,
    rows,
    client: {
      program: `testpmd of ${peer}`,
      mode: 'io',
      ring_size: RING_SIZE,
      mrg_rxbuf: true,
      in_order: true,
      burst: BURST,
      frames: Math.max(...options.workloads.map(framesOf)),
      cpu: clientCpu,
      switch_cpu: switchCpu,
      warmup_seconds: warmup,
      starts: options.starts,
      seconds,
    },
    counts_disturbed: options.keepDisturbed,
    machine: describeMachine(),
  };
}

/** `samples` as equal parts, one for each start. */
export function sharesOf(samples: number, starts: number): number[] {
  const parts = Math.min(samples, starts);
  return Array.from({ length: parts }, (_, part) => Math.floor((samples + part) / parts));
}

function sampleLine(workload: Workload, side: string, sample: Sample): string {
  const { value, busy, disturbed } = sample;
  const why = disturbed === undefined ? '' : ` (disturbed: ${disturbed})`;
  const percent = Math.round(100 * busy);
  return `${workName(workload)}: ${side} ${value.toFixed(3)} Mpps, switch ${percent} % busy${why}`;
}
