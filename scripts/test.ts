/**
 * `npm test`: every check and every test of the repository, one report, one closing summary.
 *
 *   npm test                     all
 *   npm test -- unit             what needs no testbed: checks, unit and property tests
 *   npm test -- WORD…            the files whose path contains one of the words
 *   SLUICE_TEST_MATRIX=full      the larger matrix of the real-guest tests
 *
 * Exit codes: 0 all passed, 1 something failed, 2 no file answers to the words.
 */
import { randomUUID } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { spec } from 'node:test/reporters';
import { findSuites, nextSuite, type Suite, selectSuites } from './gate/plan.ts';
import { killMarkedProcesses, markedProcesses } from './gate/processes.ts';
import {
  FileReport,
  markOf,
  noCounts,
  type ReportEvent,
  type RunOptions,
  runFile,
  summary,
} from './gate/report.ts';

const options: RunOptions = { root: resolve(import.meta.dirname, '..'), runId: randomUUID() };
const cores = availableParallelism();
const suites = selectSuites(findSuites(options.root, cores), process.argv.slice(2));
if (suites.length === 0) {
  console.error(`no test file's path contains ${process.argv.slice(2).join(' or ')}`);
  process.exit(2);
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  process.on(signal, () => {
    for (const suite of suites) killMarkedProcesses(markedProcesses(markOf(suite, options)));
    process.exit(code);
  });
}

const counts = noCounts();

/**
 * Starts the files as cores become free, and yields what they report file after file in the order
 * of their start: the eldest that runs is shown live.
 */
async function* runAll(): AsyncGenerator<ReportEvent> {
  const began = performance.now();
  const waiting: Suite[] = [...suites];
  const running: Suite[] = [];
  const started: FileReport[] = [];
  const startAll = (): void => {
    for (;;) {
      const suite = nextSuite(waiting, running, cores);
      if (suite === undefined) return;
      waiting.splice(waiting.indexOf(suite), 1);
      running.push(suite);
      const report = new FileReport(suite);
      started.push(report);
      runFile(report, options).then(() => {
        running.splice(running.indexOf(suite), 1);
        startAll();
      }, crash);
    }
  };
  startAll();
  // When a file has ended, the next has been started.
  for (let report = started.shift(); report !== undefined; report = started.shift()) {
    yield* report.events();
    for (const name of Object.keys(counts) as (keyof typeof counts)[]) {
      counts[name] += report.counts[name];
    }
    // Lets the end of the file start what waited for it.
    await new Promise((next) => setImmediate(next));
  }
  yield* summary(counts, performance.now() - began);
}

/** A fault of the runner itself. */
function crash(error: unknown): never {
  throw error;
}

await pipeline(Readable.from(runAll()), new spec(), process.stdout, { end: false });
process.exitCode = counts.fail + counts.cancelled === 0 ? 0 : 1;
