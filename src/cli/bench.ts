/** `sluice bench net`, `sluice bench disk` and `sluice bench all`: measure the methods. */
import { closeSync, existsSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { describeError, SluiceError } from '../base/errors.ts';
import type { BenchControl } from '../bench/bench-control.ts';
import { shortNumber } from '../bench/chart.ts';
import { runDiskBench } from '../bench/disk-bench.ts';
import { type DiskOptions, parseBytes, parseDiskOptions } from '../bench/disk-options.ts';
import { DISK_COLUMNS, diskCells, diskReportText, diskSoakReportText } from '../bench/disk-text.ts';
import { matrixReportHtml } from '../bench/html-report.ts';
import {
  matrixDiskRows,
  matrixReport,
  matrixRows,
  measureIdleDomain,
} from '../bench/matrix-bench.ts';
import { runNetBench } from '../bench/net-bench.ts';
import { type NetOptions, parseNetOptions } from '../bench/net-options.ts';
import {
  CARD_MODELS,
  DIRECTIONS,
  DISK_GUEST_KINDS,
  DISK_METHODS,
  type DiskReport,
  GUEST_KINDS,
  LINKS,
  type MatrixReport,
  METHODS,
  type NetReport,
} from '../bench/report-schema.ts';
import { runDiskSoak, runSoak } from '../bench/soak-bench.ts';
import { TALK_COLUMNS, talkCells, talkReport, talkRows, talkTitle } from '../bench/talk-bench.ts';
import {
  busyNote,
  MATRIX_COLUMNS,
  matrixCells,
  matrixNotes,
  methodName,
  netReportText,
  soakReportText,
} from '../bench/text-report.ts';
import { READ_WRITE } from '../guest/embedded/disk-options.ts';
import { printJson, printTable } from './output.ts';
import { runSteps } from './progress.ts';

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) {
    throw new InvalidArgumentError('Not a number.');
  }
  return value;
}

function throttle(text: string): number | 'adaptive' {
  return text === 'adaptive' ? text : number(text);
}

/** A number of bytes, with a unit or without. */
function bytes(text: string): number {
  const value = parseBytes(text);
  if (Number.isNaN(value)) throw new InvalidArgumentError('Not a size, such as 4096, 4k or 1M.');
  return value;
}

/** The commands. `version` goes into reports. */
export function benchCommand(version: string): Command {
  return new Command('bench')
    .description('measure the methods')
    .addCommand(netCommand())
    .addCommand(diskCommand())
    .addCommand(allCommand(version))
    .addCommand(talkCommand(version));
}

function netCommand(): Command {
  return new Command('net')
    .description('throughput, loss, round trips and processor time between guests')
    .addOption(
      new Option('--method <method>', 'how guests get their card')
        .choices(METHODS)
        .default('paravirtual'),
    )
    .addOption(
      new Option('--model <model>', 'which card (default: 82574 emulated; else 82599)').choices(
        CARD_MODELS,
      ),
    )
    .addOption(
      new Option('--guest <kind>', 'who the guests are: part of Sluice, or Linux (needs root)')
        .choices(GUEST_KINDS)
        .default('embedded'),
    )
    .option('--guests <n>', 'number of guests', number, 2)
    .option('--frame <bytes>', 'bytes of a frame, no check sequence; above 1514: TSO', number, 1514)
    .addOption(
      new Option('--direction <direction>', 'as the first guest of each pair sees it; both: a ring')
        .choices(DIRECTIONS)
        .default('rx'),
    )
    .option('--seconds <seconds>', 'length of a run', number, 3)
    .option('--runs <n>', 'number of runs; medians are reported', number, 3)
    .option('--packed', 'packed rings', false)
    .option('--queues <n>', 'queue pairs of each guest', number, 1)
    .option('--verify', 'check every frame to the last byte', false)
    .option('--ports <n>', 'sriov: ports of each NIC that are used, in turn (default: 2)', number)
    .addOption(
      new Option(
        '--link <link>',
        'direct, sriov: what the wire of a port carries (default: 10G)',
      ).choices(LINKS),
    )
    .option(
      '--outside',
      'direct, sriov: exchange frames with machines beyond the wires instead of with each other',
      false,
    )
    .option(
      '--ring <n>',
      'receive buffers of each queue pair (default: 512, fewer where many guests share the caches)',
      number,
    )
    .option(
      '--itr <n|adaptive>',
      'direct, sriov: guests look for frames after interrupts only, so many a second; 0: no bound',
      throttle,
    )
    .option(
      '--doorbell-poll <us>',
      'direct, sriov: how long an idle lane may leave a doorbell unseen; 0: it never sleeps',
      number,
    )
    .option('--rate <frames>', 'frames a second of each sender, instead of all it can', number)
    .option('--soak <seconds>', 'run once for so long, and watch memory instead', number)
    .option('--json', 'print one JSON object', false)
    .action(runNet);
}

type OptionalFlag = 'rate' | 'model' | 'ports' | 'link' | 'ring' | 'itr' | 'doorbellPoll';

interface NetFlags
  extends Omit<NetOptions, OptionalFlag>,
    Partial<{ readonly [Key in OptionalFlag]: NonNullable<NetOptions[Key]> }> {
  readonly soak?: number;
  readonly json: boolean;
}

async function runNet({ json, soak, ...flags }: NetFlags): Promise<void> {
  const options = parseNetOptions(flags);
  checkSoak(soak);
  if (soak !== undefined && options.guest !== 'embedded') {
    throw new SluiceError('usage', '--soak is for embedded guests', {
      remedy: 'leave it out, or use --guest embedded',
    });
  }
  const measure = async (control: BenchControl): Promise<Measured> => {
    if (soak !== undefined) {
      const report = await runSoak(options, soak, control);
      // A leak is a failure, also for a script that only looks at the exit code.
      return { json: report, text: soakReportText(report), bad: report.verdict === 'growing' };
    }
    const report = await runNetBench(options, control);
    return { json: report, text: netReportText(report), bad: false };
  };
  await runOne(soak === undefined ? 'bench net' : 'soak', json, measure);
}

/** What one bench has found: its report, in two forms. */
interface Measured {
  readonly json: object;
  readonly text: string;
  /** The command has failed by it. */
  readonly bad: boolean;
}

function checkSoak(seconds: number | undefined): void {
  if (seconds === undefined || seconds >= 1) return;
  throw new SluiceError('usage', '--soak takes seconds from 1 on', {
    remedy: 'for example --soak 600',
  });
}

/** Runs one bench and prints its report. */
async function runOne(
  title: string,
  json: boolean,
  measure: (control: BenchControl) => Promise<Measured>,
): Promise<void> {
  let found: Measured | undefined;
  // One step: only where it can be watched is there something to show.
  await runSteps(json || !process.stdout.isTTY, [
    {
      title,
      run: async (control) => {
        found = await measure(control);
        return undefined;
      },
    },
  ]);
  if (found === undefined) throw new SluiceError('state', `${title} found nothing`);
  if (found.bad) process.exitCode = 1;
  if (json) printJson(found.json);
  else process.stdout.write(found.text);
}

function diskCommand(): Command {
  return new Command('disk')
    .description("requests, latency and processor time of guests' disks; options as fio names them")
    .addOption(
      new Option('--method <method>', 'how guests get their disk')
        .choices(DISK_METHODS)
        .default('paravirtual'),
    )
    .addOption(
      new Option('--guest <kind>', 'who the guests are')
        .choices(DISK_GUEST_KINDS)
        .default('embedded'),
    )
    .option('--guests <n>', 'number of guests, each with a disk of its own', number, 1)
    .addOption(
      new Option('--rw <rw>', 'in order or at random, reads, writes or both')
        .choices(READ_WRITE)
        .default('randread'),
    )
    .option('--bs <bytes>', 'bytes of a request, such as 4k', bytes, 4096)
    .option('--iodepth <n>', 'requests on their way at once, of each job', number, 32)
    .option('--numjobs <n>', 'queues of each disk, each with a job of its own', number, 1)
    .option('--runtime <seconds>', 'length of a run', number, 3)
    .option('--runs <n>', 'number of runs; medians are reported', number, 3)
    .option('--rwmixread <percent>', 'percentage of reads, where both are done', number, 50)
    .option('--fsync <n>', 'a flush after so many writes', number, 0)
    .option('--size <bytes>', 'bytes of each disk to work on, such as 1G (default: 256M)', bytes)
    .option(
      '--disk <disk>',
      'memory, tmpfs, or file:PATH (a directory for files that are removed again, or an existing file)',
      'memory',
    )
    .option('--direct', 'files: past the page cache of the host', false)
    .option('--packed', 'packed rings', false)
    .option(
      '--verify',
      'check each block when it is read, and all that were written at the end',
      false,
    )
    .option('--overwrite', 'what an existing file holds may be lost', false)
    .option('--soak <seconds>', 'run once for so long, and watch memory instead', number)
    .option('--json', 'print one JSON object', false)
    .action(runDisk);
}

interface DiskFlags extends Omit<DiskOptions, 'size'> {
  readonly size?: number;
  readonly soak?: number;
  readonly json: boolean;
}

async function runDisk({ json, soak, ...flags }: DiskFlags): Promise<void> {
  const options = parseDiskOptions(flags);
  checkSoak(soak);
  const measure = async (control: BenchControl): Promise<Measured> => {
    if (soak === undefined) {
      const report = await runDiskBench(options, control);
      return { json: report, text: diskReportText(report), bad: isWrong(report) };
    }
    const report = await runDiskSoak(options, soak, control);
    const bad = report.verdict === 'growing' || isWrong(report);
    return { json: report, text: diskSoakReportText(report), bad };
  };
  await runOne(soak === undefined ? 'bench disk' : 'soak', json, measure);
}

/** Lost or damaged data are a failure, also for a script that only looks at the exit code. */
function isWrong({ errors }: Pick<DiskReport, 'errors'>): boolean {
  return errors.failed + errors.stale + errors.corrupt > 0;
}

function allCommand(version: string): Command {
  return new Command('all')
    .description('every method, over sizes of frames and requests, and numbers of guests')
    .option('--report <file>', 'write a report with charts (HTML); the JSON goes beside it')
    .option('--json', 'print one JSON object', false)
    .action((flags: AllFlags) => runAll(version, flags));
}

interface AllFlags {
  readonly report?: string;
  readonly json: boolean;
}

async function runAll(version: string, { report: file, json }: AllFlags): Promise<void> {
  const rows: NetReport[] = [];
  const disks: DiskReport[] = [];
  let idle: MatrixReport['idle'] | undefined;
  if (file !== undefined) checkReport(file);
  await runSteps(json, [
    ...matrixRows().map((options) => ({
      title: `${methodName(options)}, ${options.guests} guests, frames of ${options.frame} bytes`,
      run: async (control: BenchControl) => {
        const row = await runNetBench(options, control, false);
        rows.push(row);
        return rateText(row);
      },
    })),
    ...matrixDiskRows().map((options) => ({
      title: `${options.method}, ${options.guests === 1 ? 'a guest' : `${options.guests} guests`}, ${options.rw} of ${options.bs} bytes, depth ${options.iodepth}`,
      run: async (control: BenchControl) => {
        const row = await runDiskBench(options, control, false);
        disks.push(row);
        return `${shortNumber(row.results.iops)} requests/s, ${shortNumber(row.results.latency_us.p50)} us`;
      },
    })),
    {
      title: 'idle',
      run: async (control: BenchControl) => {
        idle = await measureIdleDomain(control);
        return `${shortNumber(idle.lane_cpu_pct)} % of a processor`;
      },
    },
  ]);
  if (idle === undefined) throw new SluiceError('state', 'the idle lane was not measured');
  const report = matrixReport(version, rows, disks, idle);
  // What took so long to measure is printed first: it is not lost if the file cannot be written.
  if (json) printJson(report);
  else printMatrix(report, rows, disks);
  if (file === undefined) return;
  writeReport(report, file);
  if (!json) process.stdout.write(`Report with charts: ${resolve(file)}\n`);
}

function printMatrix(
  report: MatrixReport,
  rows: readonly NetReport[],
  disks: readonly DiskReport[],
): void {
  process.stdout.write('\n');
  printTable(MATRIX_COLUMNS, rows.map(matrixCells), 'no rows');
  process.stdout.write('\n');
  printTable(DISK_COLUMNS, disks.map(diskCells), 'no rows');
  process.stdout.write(`\n${matrixNotes(report)}`);
}

function talkCommand(version: string): Command {
  return new Command('talk')
    .description('direct and sriov as the reference talk measured them: guests, throttles, queues')
    .option('--json', 'print one JSON object', false)
    .action(({ json }: { readonly json: boolean }) => runTalk(version, json));
}

async function runTalk(version: string, json: boolean): Promise<void> {
  const rows: NetReport[] = [];
  await runSteps(
    json,
    talkRows().map((options) => ({
      title: talkTitle(options),
      run: async (control: BenchControl) => {
        const row = await runNetBench(options, control, false);
        rows.push(row);
        return rateText(row);
      },
    })),
  );
  if (json) {
    printJson(talkReport(version, rows));
    return;
  }
  process.stdout.write('\n');
  printTable(TALK_COLUMNS, rows.map(talkCells), 'no rows');
  const note = busyNote(rows);
  if (note !== undefined) process.stdout.write(`\n${note}\n`);
}

/** What is told of a bench that is over. */
function rateText({ results }: NetReport): string {
  return `${shortNumber(results.gbps)} Gb/s, ${shortNumber(results.ns_per_frame)} ns a frame`;
}

/** Before the run, which is long: whether the report can be written. Leaves no file behind. */
function checkReport(file: string): void {
  try {
    mkdirSync(dirname(resolve(file)), { recursive: true });
    for (const path of [file, jsonBeside(file)]) {
      const isNew = !existsSync(path);
      closeSync(openSync(path, 'a'));
      if (isNew) rmSync(path);
    }
  } catch (error) {
    throw reportFailed(file, error);
  }
}

function writeReport(report: MatrixReport, file: string): void {
  try {
    writeFileSync(file, matrixReportHtml(report));
    writeFileSync(jsonBeside(file), `${JSON.stringify(report, undefined, 2)}\n`);
  } catch (error) {
    throw reportFailed(file, error);
  }
}

function jsonBeside(file: string): string {
  return `${file.replace(/\.html?$/, '')}.json`;
}

function reportFailed(file: string, error: unknown): SluiceError {
  return new SluiceError('system', `--report ${file} cannot be written: ${describeError(error)}`, {
    cause: error,
    remedy: 'name a file in a directory that you may write to',
  });
}
