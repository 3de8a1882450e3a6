/** `npm run peers -- net`: DPDK's vhost switch and Sluice, with the same client, in turn. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeMachine } from '../../src/bench/machine.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import { CLIENT_MEMORY_MIB, type Sample, takeSample } from './client.ts';
import { reserveHugePages } from './hugepages.ts';
import { type Pair, type SideName, summarize, takePairs } from './pairs.ts';
import type { PeerReport, PeerRow } from './report.ts';
import { dpdkSwitch, type SwitchKind } from './switches.ts';
import { parseVersion } from './testpmd.ts';
import { BURST, framesOf, RING_SIZE, type Workload, workName } from './workload.ts';

export interface NetComparison {
  readonly testbed: Testbed;
  readonly ours: SwitchKind;
  readonly workloads: readonly Workload[];
  readonly samples: number;
  readonly clientCpu: number;
  readonly switchCpu: number;
  readonly warmup: number;
  readonly seconds: number;
  readonly keepDisturbed: boolean;
  /** Told what happens, in lines. */
  readonly progress: (line: string) => void;
}

/** Runs the whole comparison. Huge pages, sockets and processes are gone when it is over. */
export async function compareNet(options: NetComparison): Promise<PeerReport> {
  const { testbed, ours, progress, clientCpu, switchCpu, warmup, seconds } = options;
  const theirs = dpdkSwitch(testbed);
  const sides: Record<SideName, SwitchKind> = { theirs, ours };
  let version: string | undefined;

  const sampleOf = async (side: SideName, workload: Workload): Promise<Sample> => {
    const directory = mkdtempSync(join(tmpdir(), 'sluice-peers-'));
    const remove = (): void => rmSync(directory, { recursive: true, force: true });
    process.once('exit', remove);
    try {
      await using running = await sides[side].start({ directory, cpu: switchCpu, workload });
      if (side === 'theirs') version ??= parseVersion(running.process.output);
      const sample = { testbed, workload, clientCpu, switchCpu, warmup, seconds };
      return await takeSample(running, sample);
    } finally {
      process.off('exit', remove);
      remove();
    }
  };

  const hugePages = CLIENT_MEMORY_MIB + Math.max(theirs.hugePagesMib, ours.hugePagesMib);
  const giveBack = reserveHugePages(hugePages);
  process.once('exit', giveBack);
  const rows: PeerRow[] = [];
  try {
    for (const workload of options.workloads) {
      const work = workName(workload);
      const result = await takePairs({
        samples: options.samples,
        keepDisturbed: options.keepDisturbed,
        take: (side) => sampleOf(side, workload),
        seen: (side, sample) => progress(sampleLine(workload, sides[side].name, sample)),
      });
      const row = summarize({ work, unit: 'Mpps', better: 'higher' }, result);
      rows.push({ ...row, circulating: fewest(result.pairs) });
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
      seconds,
    },
    counts_disturbed: options.keepDisturbed,
    machine: describeMachine(),
  };
}

function fewest(pairs: readonly Pair<Sample>[]): { ours: number; theirs: number } {
  return {
    ours: Math.min(...pairs.map((pair) => pair.ours.circulating)),
    theirs: Math.min(...pairs.map((pair) => pair.theirs.circulating)),
  };
}

function sampleLine(workload: Workload, side: string, sample: Sample): string {
  const { value, circulating, busy, disturbed } = sample;
  const frames = framesOf(workload);
  const lost = circulating < frames ? `, ${frames - circulating} of ${frames} frames lost` : '';
  const why = disturbed === undefined ? '' : ` (disturbed: ${disturbed})`;
  const percent = Math.round(100 * busy);
  return `${workName(workload)}: ${side} ${value.toFixed(3)} Mpps, switch ${percent} % busy${lost}${why}`;
}
