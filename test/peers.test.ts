/** `npm run peers`: that both sides move the client's frames, and lose none. */
// suite: timeout=300 cores=2
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { peerReportSchema } from '../bench/peers/report.ts';
import { withoutTestbed } from './support/testbed.ts';

const MAIN = join(import.meta.dirname, '../bench/peers/main.ts');

function peers(...args: string[]) {
  const node = ['--disable-warning=ExperimentalWarning', MAIN, ...args];
  return spawnSync(process.execPath, node, { encoding: 'utf8' });
}

test('a wrong command line is told, with exit code 2', () => {
  for (const [args, message] of [
    [['nett'], /unknown command 'nett'/],
    [['net', '--sizes', '63'], /64 to 9000/],
    [['net', '--samples', '0'], /1 to 1000/],
    [['net', '--client-cpu', '0', '--switch-cpu', '0'], /a processor each/],
  ] as const) {
    const { status, stderr } = peers(...args);
    assert.match(stderr, message);
    assert.equal(status, 2);
  }
});

test("Sluice and DPDK's switch", { skip: withoutTestbed() }, () => {
  // Short, and on a machine on which other tests run: the figures say nothing, the frames do.
  const short = ['--samples', '1', '--seconds', '0.2', '--warmup', '0.2', '--allow-disturbed'];
  const { status, stdout, stderr } = peers('net', '--json', '--sizes', '64,9000', ...short);
  assert.equal(status, 0, stderr);
  const report = peerReportSchema.parse(JSON.parse(stdout));
  assert.match(report.peer, /^dpdk \d/);
  assert.deepEqual(
    report.rows.map(({ work }) => work),
    ['64 B split', '9000 B split', '64 B packed', '9000 B packed'],
  );
  const { frames } = report.client;
  for (const row of report.rows) {
    assert.ok(row.ours > 0, row.work);
    assert.deepEqual(row.circulating, { ours: frames, theirs: frames }, row.work);
  }
});
