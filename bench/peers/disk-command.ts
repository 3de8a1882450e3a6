/** The command line of `npm run peers -- disk`. */
import { statSync } from 'node:fs';
import { type Command, InvalidArgumentError } from 'commander';
import { SluiceError } from '../../src/base/errors.ts';
import { findTestbed } from '../../src/guest/testbed.ts';
import { compareDisk } from './disk.ts';
import { commandDiskServer, sluiceDiskServer } from './disk-servers.ts';
import {
  chooseDiskWorks,
  DISK_DEPTHS,
  DISK_MODES,
  DISK_RWS,
  DISK_TARGETS,
  type DiskMode,
  type DiskRw,
  type DiskTarget,
} from './disk-work.ts';
import { chooseProcessors, numberFrom, someOf } from './options.ts';
import { MAX_DISTURBANCE } from './processor-time.ts';
import { diskReportSchema, diskReportText } from './report.ts';

const MIB = 1 << 20;
/** Sizes of files are whole multiples of this. */
const SIZE_STEP_MIB = 8;
const MAX_SIZE_MIB = 1 << 20;

export interface DiskOptions {
  readonly json?: true;
  readonly targets: readonly DiskTarget[];
  readonly modes: readonly DiskMode[];
  readonly rw: readonly DiskRw[];
  readonly depths: readonly number[];
  readonly tmpfs: string;
  readonly directory?: string;
  readonly size: number;
  readonly samples: number;
  readonly starts: number;
  readonly seconds: number;
  readonly warmup: number;
  readonly clientCpu?: number;
  readonly serverCpu?: number;
  readonly ours?: string;
  readonly verify?: true;
  readonly maxDisturbance: number;
  readonly allowDisturbed?: true;
}

function sizeMib(text: string): number {
  const size = numberFrom(SIZE_STEP_MIB, MAX_SIZE_MIB, true)(text);
  if (size % SIZE_STEP_MIB !== 0)
    throw new InvalidArgumentError(`Expected a multiple of ${SIZE_STEP_MIB} MiB.`);
  return size;
}

function depths(text: string): number[] {
  return someOf(DISK_DEPTHS.map(String))(text).map(Number);
}

function checkDirectory(path: string): string {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new SluiceError('usage', `${path} is not a directory`, {
      remedy: 'Choose existing directories with --tmpfs and --directory.',
    });
  }
  return path;
}

/** @param program the `sluice` to measure */
export function addDiskCommand(parent: Command, program: string): void {
  parent
    .command('disk')
    .description('qemu-storage-daemon and Sluice, at the same client on libblkio')
    .option('--json', 'print the report as JSON')
    .option('--targets <list>', 'where the file is', someOf(DISK_TARGETS), DISK_TARGETS)
    .option('--modes <list>', 'who sleeps', someOf(DISK_MODES), DISK_MODES)
    .option('--rw <list>', "what is done, in fio's words", someOf(DISK_RWS), DISK_RWS)
    .option('--depths <list>', 'requests on their way', depths, DISK_DEPTHS)
    .option('--tmpfs <path>', 'a directory on a tmpfs', '/dev/shm')
    .option('--directory <path>', 'a directory on the disk (default: where the testbed is)')
    .option('--size <MiB>', "size of each side's file", sizeMib, 512)
    .option(
      '--samples <n>',
      'pairs of samples a row, fewer than 5 are for trying',
      numberFrom(1, 1000, true),
      10,
    )
    .option(
      '--starts <n>',
      'how often both sides are started anew for these samples',
      numberFrom(1, 100, true),
      2,
    )
    .option('--seconds <s>', 'length of a sample', numberFrom(0.1, 3600, false), 0.7)
    .option(
      '--warmup <s>',
      'time before the first sample of a start',
      numberFrom(0, 3600, false),
      2,
    )
    .option(
      '--client-cpu <n>',
      'processor of the client (default: the last)',
      numberFrom(0, 4095, true),
    )
    .option(
      '--server-cpu <n>',
      'processor of the server (default: the first)',
      numberFrom(0, 4095, true),
    )
    .option('--ours <command>', 'measure this instead of Sluice: it serves $FILE at $SOCKET')
    .option('--verify', 'check all data: the figures are those of the checks then')
    .option(
      '--max-disturbance <percent>',
      "how much of its processor's time a side may lose in a sample that counts",
      numberFrom(0, 100, false),
      100 * MAX_DISTURBANCE,
    )
    .option('--allow-disturbed', 'count disturbed samples too: to try it on a busy machine')
    .action((options: DiskOptions) => disk(options, program));
}

async function disk(options: DiskOptions, program: string): Promise<void> {
  const { client, other } = chooseProcessors({
    other: 'server',
    clientCpu: options.clientCpu,
    otherCpu: options.serverCpu,
  });
  const works = chooseDiskWorks({
    targets: options.targets,
    modes: options.modes,
    rws: options.rw,
    depths: options.depths,
  });
  if (works.length === 0) {
    throw new SluiceError('usage', `${options.rw.join(', ')} is not measured at those depths`, {
      remedy: 'Random requests have depths 1 and 32, sequential ones 8.',
    });
  }
  const tmpfs = checkDirectory(options.tmpfs);
  const given = options.directory === undefined ? undefined : checkDirectory(options.directory);
  const testbed = findTestbed();
  const report = await compareDisk({
    testbed,
    ours: options.ours === undefined ? sluiceDiskServer(program) : commandDiskServer(options.ours),
    works,
    directories: { tmpfs, disk: given ?? testbed.directory },
    bytes: options.size * MIB,
    samples: options.samples,
    starts: options.starts,
    clientCpu: client,
    serverCpu: other,
    warmup: options.warmup,
    seconds: options.seconds,
    verify: options.verify === true,
    maxDisturbance: options.maxDisturbance / 100,
    keepDisturbed: options.allowDisturbed === true,
    progress: (line) => console.error(line),
  });
  const checked = diskReportSchema.parse(report);
  process.stdout.write(
    options.json ? `${JSON.stringify(checked, undefined, 1)}\n` : `\n${diskReportText(checked)}`,
  );
}
