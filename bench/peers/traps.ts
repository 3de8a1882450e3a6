/**
 * How long a trap takes: from a client's request for a register to the answer, with the lane on the
 * client's processor and on another.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { median, significant } from '../../src/bench/statistics.ts';
import { SluiceUp } from './emulated-rig.ts';
import { PeerProcess } from './peer-process.ts';

const CLIENT = join(import.meta.dirname, 'trap-client.ts');
const TIMEOUT_MS = 60_000;

const answerSchema = z.object({ median: z.number(), p99: z.number() });

export const trapSchema = z.strictObject({
  processors: z.enum(['shared', 'apart']).describe('Whether client and lane share a processor.'),
  median: z.number().describe('Medians of the samples, in microseconds.'),
  p99: z.number(),
  traps: z.int().describe('Traps of a sample.'),
  samples: z.int(),
});

export type TrapRow = z.output<typeof trapSchema>;

export interface TrapOptions {
  readonly program: string;
  readonly laneCpu: number;
  readonly otherCpu: number;
  readonly samples: number;
  readonly traps: number;
  readonly progress: (line: string) => void;
}

export async function measureTraps(options: TrapOptions): Promise<TrapRow[]> {
  const { program, laneCpu, otherCpu, samples, traps, progress } = options;
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
    const answers: z.output<typeof answerSchema>[] = [];
    for (let sample = 0; sample < samples; sample++) {
      const answer = await trap(sluice.socket('guest/net0'), cpu, traps);
      progress(`trap, ${processors}: ${significant(answer.median, 3)} us`);
      answers.push(answer);
    }
    const of = (key: 'median' | 'p99'): number =>
      significant(median(answers.map((answer) => answer[key])), 3);
    rows.push({ processors, median: of('median'), p99: of('p99'), traps, samples });
  }
  return rows;
}

async function trap(socket: string, cpu: number, traps: number) {
  const node = [process.execPath, '--disable-warning=ExperimentalWarning'];
  await using client = new PeerProcess({
    name: 'trap client',
    command: [...node, CLIENT, socket, String(cpu), String(traps)],
  });
  const line = await client.until(
    'an answer',
    TIMEOUT_MS,
    () => /\{.*\}/.exec(client.answers)?.[0],
  );
  return answerSchema.parse(JSON.parse(line));
}
