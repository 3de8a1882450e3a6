/**
 * `npm run peers -- net|disk|emulated`: Sluice beside its peers, with the same client, in one run.
 * docs/peers.md says how it is measured.
 */
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { describeError, SluiceError } from '../../src/base/errors.ts';
import { findTestbed } from '../../src/guest/testbed.ts';
import { addDiskCommand } from './disk-command.ts';
import { addEmulatedCommand } from './emulated-command.ts';
import { compareNet } from './net.ts';
import { chooseProcessors, namesOf, numberFrom, worksNamed } from './options.ts';
import { MAX_DISTURBANCE } from './processor-time.ts';
import { peerReportSchema, peerReportText } from './report.ts';
import { commandSwitch, sluiceSwitch } from './switches.ts';
import {
  chooseWorkloads,
  DEFAULT_BURSTS,
  MAX_BURSTS,
  MAX_FRAME,
  MIN_FRAME,
  workName,
} from './workload.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const SIZES: readonly number[] = [64, 512, 1514, 9000];
const SLUICE = join(import.meta.dirname, '../../bin/sluice');

interface NetOptions {
  readonly json?: true;
  readonly samples: number;
  readonly sizes: readonly number[];
  readonly split?: true;
  readonly packed?: true;
  readonly works?: readonly string[];
  readonly bursts: number;
  readonly seconds: number;
  readonly starts: number;
  readonly maxDisturbance: number;
  readonly warmup: number;
  readonly clientCpu?: number;
  readonly switchCpu?: number;
  readonly ours?: string;
  readonly allowDisturbed?: true;
}

function frameSizes(text: string): number[] {
  return text.split(',').map(numberFrom(MIN_FRAME, MAX_FRAME, true));
}

async function net(options: NetOptions): Promise<void> {
  const { client, other } = chooseProcessors({
    other: 'switch',
    clientCpu: options.clientCpu,
    otherCpu: options.switchCpu,
  });
  const report = await compareNet({
    testbed: findTestbed(),
    ours: options.ours === undefined ? sluiceSwitch(SLUICE) : commandSwitch(options.ours),
    workloads: worksNamed(
      chooseWorkloads({
        sizes: options.sizes,
        split: options.split === true,
        packed: options.packed === true,
        bursts: options.bursts,
      }),
      workName,
      options.works,
    ),
    samples: options.samples,
    starts: options.starts,
    clientCpu: client,
    switchCpu: other,
    warmup: options.warmup,
    seconds: options.seconds,
    maxDisturbance: options.maxDisturbance / 100,
    keepDisturbed: options.allowDisturbed === true,
    progress: (line) => console.error(line),
  });
  const checked = peerReportSchema.parse(report);
  process.stdout.write(
    options.json ? `${JSON.stringify(checked, undefined, 1)}\n` : `\n${peerReportText(checked)}`,
  );
}

function program(): Command {
  const command = new Command('peers')
    .description('Measures Sluice beside its peers: the same client, in turn, in one run.')
    .exitOverride();
  command
    .command('net')
    .description("DPDK's vhost switch and Sluice, between two ports of dpdk-testpmd")
    .option('--json', 'print the report as JSON')
    .option(
      '--samples <n>',
      'pairs of samples a row, fewer than 5 are for trying',
      numberFrom(1, 1000, true),
      12,
    )
    .option(
      '--starts <n>',
      'how often both sides are started anew for these samples',
      numberFrom(1, 100, true),
      3,
    )
    .option('--sizes <bytes>', 'frame sizes', frameSizes, SIZES)
    .option('--works <parts>', 'only rows whose name has one of these parts in it', namesOf)
    .option('--split', 'split rings only')
    .option('--packed', 'packed rings only')
    .option(
      '--bursts <n>',
      'bursts of frames that each port begins with',
      numberFrom(1, MAX_BURSTS, true),
      DEFAULT_BURSTS,
    )
    .option('--seconds <s>', 'length of a sample', numberFrom(0.1, 3600, false), 1)
    .option(
      '--warmup <s>',
      'time before the first sample of a start',
      numberFrom(0, 3600, false),
      4,
    )
    .option(
      '--client-cpu <n>',
      'processor of the client (default: the last)',
      numberFrom(0, 4095, true),
    )
    .option(
      '--switch-cpu <n>',
      'processor of the switch (default: the first)',
      numberFrom(0, 4095, true),
    )
    .option('--ours <command>', 'measure this instead of Sluice: it serves $SOCKET0 and $SOCKET1')
    .option(
      '--max-disturbance <percent>',
      "how much of its processor's time a side may lose in a sample that counts",
      numberFrom(0, 100, false),
      100 * MAX_DISTURBANCE,
    )
    .option('--allow-disturbed', 'count disturbed samples too: to try it on a busy machine')
    .action(net);
  addDiskCommand(command, SLUICE);
  addEmulatedCommand(command, SLUICE);
  return command;
}

async function main(): Promise<number> {
  try {
    await program().parseAsync();
    return 0;
  } catch (error) {
    // Commander has told the user already; its help is no error.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
    console.error(`peers: ${describeError(error)}`);
    return error instanceof SluiceError && error.code === 'usage' ? EXIT_USAGE : EXIT_FAILED;
  }
}

// Handlers of 'exit' end the processes and give back what was taken.
for (const [signal, number] of [
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
] as const) {
  process.once(signal, () => process.exit(128 + number));
}
const code = await main();
if (code !== 0) process.exitCode = code;
