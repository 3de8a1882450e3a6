/**
 * What tests with real guests share: when they run, and a place for their sockets.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { missingTestbed } from '../../src/guest/testbed.ts';

/** What cleans up after a test: node:test's context, or a suite's `after`. */
export interface Cleanup {
  after(hook: () => void | Promise<void>): void;
}

/**
 * The `skip` option of a suite that needs real guests: the reason why there can be none, else
 * false. In CI nothing is skipped: what is missing makes the suite fail.
 */
export function withoutTestbed(): string | false {
  if (process.env['CI'] === 'true') return false;
  return missingTestbed() ?? false;
}

/** Whether the larger matrix is asked for: more shapes of what each run looks at. */
export function isMatrix(): boolean {
  return process.env['SLUICE_TEST_MATRIX'] === 'full';
}

/** The `skip` option of a suite of the larger matrix (`SLUICE_TEST_MATRIX=full`). */
export function withoutMatrix(): string | false {
  if (!isMatrix()) return 'only with SLUICE_TEST_MATRIX=full';
  return withoutTestbed();
}

/** A directory for sockets that is gone after the test. */
export function socketDirectory(t: Cleanup): string {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-test-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
