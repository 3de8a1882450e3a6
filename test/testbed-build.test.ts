/** Builds the testbed before the suites that need it start. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import test from 'node:test';

const root = resolve(import.meta.dirname, '..');
const script = resolve(root, 'scripts/testbed');

function testbed(verb: string): { status: number | null; output: string } {
  const { status, stdout, stderr, error } = spawnSync(script, [verb], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 30,
  });
  if (error !== undefined) throw error;
  return { status, output: `${stdout}${stderr}`.trim() };
}

test('the testbed is built', (t) => {
  assert.ok(existsSync(script), `${script} is missing`);
  const found = testbed('status');
  if (found.status === 0) return;
  if (process.getuid?.() !== 0 && process.env['CI'] !== 'true') {
    t.skip(`only root can build it; ${found.output}`);
    return;
  }
  const built = testbed('build');
  assert.equal(built.status, 0, `scripts/testbed build failed:\n${built.output.slice(-4000)}`);
  const after = testbed('status');
  assert.equal(after.status, 0, after.output);
});
