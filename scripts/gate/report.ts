/**
 * Runs test files with node:test, a process each, and joins what they report to one report with one
 * closing summary. Each file appears as a suite of the files' tests.
 */

import { join } from 'node:path';
import { run } from 'node:test';
import type { Suite } from './plan.ts';
import { endMarkedProcesses, killMarkedProcesses, MARK, markedProcesses } from './processes.ts';

/** An event of node:test, as its reporters read them. */
export interface ReportEvent {
  readonly type: string;
  readonly data: Record<string, unknown>;
}

/** How many tests ended in which way; the names are those of the closing lines. */
export interface Counts {
  tests: number;
  suites: number;
  pass: number;
  fail: number;
  cancelled: number;
  skipped: number;
  todo: number;
}

export function noCounts(): Counts {
  return { tests: 0, suites: 0, pass: 0, fail: 0, cancelled: 0, skipped: 0, todo: 0 };
}

// Each file's processes get time to end by themselves after its last test.
const GRACE_MS = 2000;

/** Where processes of tests keep modules as they were compiled: most of their start is that otherwise. */
const COMPILED = 'node_modules/.cache/sluice-test';

/** Events of one file, read while they come in. */
export class FileReport {
  readonly suite: Suite;
  readonly counts: Counts = noCounts();
  readonly #events: ReportEvent[] = [];
  #ended = false;
  #wake: () => void = () => undefined;

  constructor(suite: Suite) {
    this.suite = suite;
  }

  push(type: string, data: Record<string, unknown>): void {
    this.#events.push({ type, data });
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** All events from the first to the end of the file; to be read once. */
  async *events(): AsyncGenerator<ReportEvent> {
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) {
        yield event;
      } else if (this.#ended) {
        return;
      } else {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        await promise;
      }
    }
  }
}

/** What a file's run is told. */
export interface RunOptions {
  readonly root: string;
  /** Tells this run from others on the machine. */
  readonly runId: string;
}

/** Mark of the processes of one file's run. */
export function markOf(suite: Suite, { runId }: RunOptions): string {
  return `${runId}:${suite.file}`;
}

/**
 * Runs one file to its end, or kills it when its time is over. A process that it leaves behind is
 * killed, and is a failure.
 */
export async function runFile(report: FileReport, options: RunOptions): Promise<void> {
  const { suite, counts } = report;
  const path = join(options.root, suite.file);
  const mark = markOf(suite, options);
  const began = performance.now();
  const abort = new AbortController();
  const watchdog = setTimeout(() => {
    abort.abort();
    // The signal to end may be ignored.
    killMarkedProcesses(markedProcesses(mark));
  }, suite.timeout * 1000);

  report.push('test:start', { name: suite.file, nesting: 0, file: path });
  // Tests begun and not ended, for the message of the watchdog.
  const open = new Map<unknown, unknown>();
  const events = run({
    files: [path],
    cwd: options.root,
    isolation: 'process',
    execArgv: ['--disable-warning=ExperimentalWarning'],
    env: { NODE_COMPILE_CACHE: join(options.root, COMPILED), ...process.env, [MARK]: mark },
    signal: abort.signal,
  }) as AsyncIterable<ReportEvent>;
  for await (const { type, data } of events) {
    // The file's own test: node:test reports it where the file fails outside of its tests.
    const isFile = data['name'] === path && data['nesting'] === 0;
    if (type === 'test:summary') {
      if (data['file'] === undefined) addCounts(counts, data['counts'] as Record<string, number>);
    } else if (type === 'test:diagnostic' && data['file'] === undefined) {
      // The closing lines of this file alone.
    } else if (type === 'test:plan' && data['nesting'] === 0) {
      // Likewise.
    } else if (isFile && abort.signal.aborted && type === 'test:fail') {
      // Told below, with the reason.
    } else {
      if (!isFile && type === 'test:dequeue') open.set(data['testId'], data['name']);
      if (!isFile && type === 'test:complete') open.delete(data['testId']);
      const nested = typeof data['nesting'] === 'number' ? { nesting: data['nesting'] + 1 } : {};
      report.push(type, { ...data, ...nested });
    }
  }
  clearTimeout(watchdog);

  if (abort.signal.aborted) {
    const names = [...open.values()].map((name) => `'${String(name)}'`).join(' in ');
    const during = names === '' ? '' : ` during ${names}`;
    // node:test counts the file as cancelled.
    counts.fail += counts.cancelled;
    counts.cancelled = 0;
    fail(report, path, `no end within ${suite.timeout} s${during}: killed`);
  }
  const left = await endMarkedProcesses(mark, abort.signal.aborted ? 0 : GRACE_MS);
  if (left.length > 0 && !abort.signal.aborted) {
    const names = left.map(({ pid, command }) => `${pid} ${command}`).join('; ');
    counts.tests++;
    counts.fail++;
    fail(report, path, `left processes running, which were killed: ${names}`);
  }

  const failed = counts.fail + counts.cancelled > 0;
  const duration_ms = roundMs(performance.now() - began);
  const error = failed ? { error: subtestsFailed() } : {};
  report.push(failed ? 'test:fail' : 'test:pass', {
    name: suite.file,
    nesting: 0,
    testNumber: 1,
    file: path,
    details: { duration_ms, type: 'suite', ...error },
  });
  report.end();
}

function fail(report: FileReport, path: string, message: string): void {
  const error = Object.assign(new Error(message), { stack: `Error: ${message}` });
  const cause = Object.assign(new Error(message, { cause: error }), {
    code: 'ERR_TEST_FAILURE',
    failureType: 'testCodeFailure',
  });
  report.push('test:start', { name: report.suite.file, nesting: 1, file: path });
  report.push('test:fail', {
    name: report.suite.file,
    nesting: 1,
    testNumber: 1,
    file: path,
    line: 1,
    column: 1,
    details: { duration_ms: 0, type: 'test', error: cause },
  });
}

// Reporters show such a failure by its tests and not once more by itself.
function subtestsFailed(): Error {
  return Object.assign(new Error('a test of this file failed'), {
    code: 'ERR_TEST_FAILURE',
    failureType: 'subtestsFailed',
  });
}

function addCounts(counts: Counts, of: Readonly<Record<string, number>>): void {
  counts.tests += of['tests'] ?? 0;
  counts.suites += of['suites'] ?? 0;
  counts.pass += of['passed'] ?? 0;
  counts.fail += of['failed'] ?? 0;
  counts.cancelled += of['cancelled'] ?? 0;
  counts.skipped += of['skipped'] ?? 0;
  counts.todo += of['todo'] ?? 0;
}

/** Milliseconds to the microsecond, as node:test measures. */
function roundMs(duration: number): number {
  return Number(duration.toFixed(3));
}

/** The closing lines of a whole run, as node:test prints them. */
export function* summary(counts: Counts, durationMs: number): Generator<ReportEvent> {
  for (const [name, count] of Object.entries({ ...counts, duration_ms: roundMs(durationMs) })) {
    yield {
      type: 'test:diagnostic',
      data: { nesting: 0, message: `${name} ${count}`, level: 'info' },
    };
  }
}
