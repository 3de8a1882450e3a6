import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { markedProcesses } from './processes.ts';
import { FileReport, markOf, type ReportEvent, runFile, summary } from './report.ts';

/** Runs a test file with this text as `npm test` does. */
async function runText(
  text: string,
  timeout = 60,
): Promise<{ report: FileReport; events: ReportEvent[]; mark: string }> {
  // By this variable node:test knows a file that it runs itself; there it refuses to run others.
  // Now that this file's own report has begun, it can go.
  delete process.env['NODE_TEST_CONTEXT'];
  const root = mkdtempSync(join(tmpdir(), 'sluice-report-'));
  try {
    mkdirSync(join(root, 'src'));
    writeFileSync(join(root, 'src/a.test.ts'), `import test from 'node:test';\n${text}`);
    const file = 'src/a.test.ts';
    const suite = { file, guests: false, exclusive: false, cores: 1, takes: 1, timeout };
    const report = new FileReport(suite);
    const options = { root, runId: `report-test-${process.pid}-${root}` };
    await runFile(report, options);
    const events = await Array.fromAsync(report.events());
    return { report, events, mark: markOf(suite, options) };
  } finally {
    rmSync(root, { recursive: true });
  }
}

function failures(events: readonly ReportEvent[]): string {
  return events
    .filter(({ type }) => type === 'test:fail')
    .map(({ data }) => String((data['details'] as { error: Error }).error.message))
    .join('\n');
}

const ORPHAN = `
  import { spawn } from 'node:child_process';
  const child = spawn('sleep', ['600'], { detached: true, stdio: 'ignore' });
  child.unref();`;

test('a file is a suite of its tests, and is counted', async () => {
  const { report, events } = await runText("test('a', () => {}); test('b', { skip: true });");
  assert.deepEqual(
    events
      .filter(({ type }) => type === 'test:pass')
      .map(({ data }) => `${String(data['nesting'])} ${String(data['name'])}`),
    ['1 a', '1 b', '0 src/a.test.ts'],
  );
  const { tests, pass, skipped, fail } = report.counts;
  assert.deepEqual({ tests, pass, skipped, fail }, { tests: 2, pass: 1, skipped: 1, fail: 0 });
});

test('a failing test fails its file', async () => {
  const { report, events } = await runText("test('a', () => { throw new Error('broken'); });");
  assert.equal(report.counts.fail, 1);
  assert.match(failures(events), /broken/);
  assert.equal(events.at(-1)?.type, 'test:fail');
});

test('a file that fails outside of its tests has failed', async () => {
  const { report, events } = await runText("throw new Error('broken');");
  assert.equal(report.counts.fail, 1);
  assert.equal(events.at(-1)?.type, 'test:fail');
});

test('a file that does not end is killed with its children and named', async () => {
  const text = `${ORPHAN}
    process.on('SIGTERM', () => {});
    test('quick', () => {});
    test('slow', () => new Promise((resolve) => setTimeout(resolve, 600_000)));`;
  const { report, events, mark } = await runText(text, 2);
  assert.match(failures(events), /no end within 2 s during 'slow': killed/);
  assert.equal(report.counts.fail, 1);
  assert.equal(report.counts.pass, 1);
  assert.deepEqual(markedProcesses(mark), []);
});

test('a process left behind is killed and fails the file', async () => {
  const { report, events, mark } = await runText(`${ORPHAN}\ntest('a', () => {});`);
  assert.match(failures(events), /left processes running.*sleep 600/);
  assert.equal(report.counts.fail, 1);
  assert.deepEqual(markedProcesses(mark), []);
});

test('the closing lines are those of node:test', () => {
  const counts = { tests: 3, suites: 0, pass: 1, fail: 1, cancelled: 0, skipped: 1, todo: 0 };
  assert.deepEqual(
    [...summary(counts, 5)].map(({ data }) => data['message']),
    [
      'tests 3',
      'suites 0',
      'pass 1',
      'fail 1',
      'cancelled 0',
      'skipped 1',
      'todo 0',
      'duration_ms 5',
    ],
  );
});
