/**
 * How long a trap takes: from a client's request for a register to the answer, with the lane on the
 * client's processor and on another. And how long the same client waits for a server in C that does
 * nothing but answer, in turn with the lane: most of a trap is what the machine takes to go from one
 * process to another, and machines differ.
 */
import { z } from 'zod';
import { median, significant } from '../../src/bench/statistics.ts';
import { SharedDirectories } from '../../src/guest/guest-process.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import { buildProgram } from './c-program.ts';
import { SluiceUp } from './emulated-rig.ts';
import { PeerProcess } from './peer-process.ts';

const TIMEOUT_MS = 60_000;

const timesSchema = z.strictObject({ median: z.number(), p99: z.number() });

/** One line of the client's. */
const answerSchema = timesSchema.extend({ traps: z.int().positive() });

type Answer = z.output<typeof answerSchema>;

export const trapSchema = z.strictObject({
  processors: z.enum(['shared', 'apart']).describe('Whether client and lane share a processor.'),
  median: z.number().describe('Medians of the samples, in microseconds.'),
  p99: z.number(),
  floor: timesSchema.describe('The same with a server in C that does nothing but answer.'),
  traps: z.int().describe('Traps of a sample, of the shortest.'),
  samples: z.int(),
});

export type TrapRow = z.output<typeof trapSchema>;

export interface TrapOptions {
  readonly testbed: Testbed;
  readonly program: string;
  readonly laneCpu: number;
  readonly otherCpu: number;
  readonly samples: number;
  readonly traps: number;
  readonly progress: (line: string) => void;
}

export async function measureTraps(options: TrapOptions): Promise<TrapRow[]> {
  const { testbed, program, laneCpu, otherCpu, samples, traps, progress } = options;
  const client = buildProgram(testbed, 'trap-client');
  await using sluice = await SluiceUp.start(program, {
    lanes: [{ cpus: [laneCpu] }],
    switches: { lan: {} },
    guests: { guest: { net: [{ method: 'emulated', model: '82574', switch: 'lan' }] } },
  });
  const rows: TrapRow[] = [];
  for (const [processors, cpu] of [
    ['shared', laneCpu],
    ['apart', otherCpu],
  ] as const) {
    const lane: Answer[] = [];
    const floor: Answer[] = [];
    for (let sample = 0; sample < samples; sample++) {
      const shared = new SharedDirectories();
      const head = [shared.inside(client), String(cpu), String(traps)];
      const socket = shared.inside(sluice.socket('guest/net0'));
      const command = (tail: readonly string[]): readonly string[] => [
        ...[testbed.enter, ...shared.options(), '--', ...head, ...tail],
      ];
      const ours = await ask(command(['--socket', socket]));
      const bare = await ask(command(['--echo', String(laneCpu)]));
      progress(`trap, ${processors}: ${text(ours.median)} us, the machine ${text(bare.median)} us`);
      lane.push(ours);
      floor.push(bare);
    }
    const least = Math.min(...lane.map((answer) => answer.traps));
    rows.push({ processors, ...medians(lane), floor: medians(floor), traps: least, samples });
  }
  return rows;
}

/** A line on a row, for a terminal or a log. */
export function trapText({ processors, median: us, p99, floor }: TrapRow): string {
  const where = processors === 'shared' ? 'on one processor' : 'on two processors';
  return `A trap takes ${us} us (99th percentile ${p99}), client and lane ${where}; the machine alone takes ${floor.median} us of that (${floor.p99}).`;
}

const text = (us: number): number => significant(us, 3);

function medians(answers: readonly Answer[]): z.output<typeof timesSchema> {
  const of = (key: 'median' | 'p99'): number => text(median(answers.map((answer) => answer[key])));
  return { median: of('median'), p99: of('p99') };
}

/** Runs a client to its end. */
async function ask(command: readonly string[]): Promise<Answer> {
  await using client = new PeerProcess({ name: 'trap-client', command });
  const line = await client.until(
    'an answer',
    TIMEOUT_MS,
    () => /\{.*\}/.exec(client.answers)?.[0],
  );
  return answerSchema.parse(JSON.parse(line));
}
