/** The command line of `npm run peers -- emulated`. */
import { spawnSync } from 'node:child_process';
import type { Command } from 'commander';
import { SluiceError } from '../../src/base/errors.ts';
import { findTestbed } from '../../src/guest/testbed.ts';
import { compareEmulated, KINDS, type Kind } from './emulated.ts';
import { chooseProcessors, namesOf, numberFrom, someOf } from './options.ts';
import { emulatedReportSchema, emulatedReportText } from './report.ts';

/** What others may take of a processor in a sample that counts, unless another share is asked for. */
const MAX_DISTURBANCE_PERCENT = 10;

interface EmulatedOptions {
  readonly json?: true;
  readonly kinds: readonly Kind[];
  readonly works?: readonly string[];
  readonly samples: number;
  readonly seconds: number;
  readonly traps: number;
  readonly directory: string;
  readonly laneCpu?: number;
  readonly otherCpu?: number;
  readonly maxDisturbance: number;
  readonly allowDisturbed?: true;
  readonly inside?: true;
}

/** @param program the `sluice` to measure */
export function addEmulatedCommand(parent: Command, program: string): void {
  parent
    .command('emulated')
    .description("QEMU's own e1000, e1000e, igb and AHCI and Sluice's devices, in one guest")
    .option('--json', 'print the report as JSON')
    .option('--kinds <list>', 'what is measured', someOf(KINDS), KINDS)
    .option('--works <parts>', 'only rows whose name has one of these parts in it', namesOf)
    .option(
      '--samples <n>',
      'pairs of samples a row, fewer than 5 are for trying',
      numberFrom(1, 1000, true),
      5,
    )
    .option('--seconds <s>', 'length of a sample', numberFrom(1, 3600, true), 3)
    .option('--traps <n>', 'traps of a sample', numberFrom(1, 1e9, true), 20_000)
    .option('--directory <path>', "where the disks' files are made", '/dev/shm')
    .option('--lane-cpu <n>', 'processor of the lane, for traps', numberFrom(0, 4095, true))
    .option('--other-cpu <n>', 'another processor, for traps', numberFrom(0, 4095, true))
    .option(
      '--max-disturbance <percent>',
      'how much of a processor others may take in a sample that counts',
      numberFrom(0, 10_000, false),
      MAX_DISTURBANCE_PERCENT,
    )
    .option('--allow-disturbed', 'count disturbed samples too: to try it on a busy machine')
    .option('--inside', 'it runs in a network namespace of its own already')
    .action((options: EmulatedOptions) => emulated(options, program));
}

async function emulated(options: EmulatedOptions, program: string): Promise<void> {
  const testbed = findTestbed();
  const { client: other, other: lane } = chooseProcessors({
    other: 'lane',
    clientCpu: options.otherCpu,
    otherCpu: options.laneCpu,
  });
  if (options.inside === undefined) {
    // Its taps and addresses end with the namespace, and are nobody else's.
    const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1), '--inside'];
    const { status, error } = spawnSync('unshare', ['--net', ...words], { stdio: 'inherit' });
    if (error !== undefined) {
      throw new SluiceError('not-found', `unshare (util-linux) cannot be started`, {
        cause: error,
      });
    }
    process.exitCode = status ?? 1;
    return;
  }
  const report = await compareEmulated({
    testbed,
    program,
    kinds: options.kinds,
    works: options.works,
    samples: options.samples,
    seconds: options.seconds,
    traps: options.traps,
    laneCpu: lane,
    otherCpu: other,
    directory: options.directory,
    maxDisturbance: options.maxDisturbance / 100,
    keepDisturbed: options.allowDisturbed === true,
    progress: (line) => console.error(line),
  });
  const checked = emulatedReportSchema.parse(report);
  process.stdout.write(
    options.json
      ? `${JSON.stringify(checked, undefined, 1)}\n`
      : `\n${emulatedReportText(checked)}`,
  );
}
