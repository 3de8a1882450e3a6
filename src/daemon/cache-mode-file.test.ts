import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CacheModeFile } from './cache-mode-file.ts';

test('a choice is kept, until the configuration says otherwise', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'web-disk0.cache');
  const open = (configured: 'writeback' | 'writethrough'): CacheModeFile =>
    new CacheModeFile(path, configured);
  assert.equal(open('writeback').load(), undefined);
  open('writeback').save(false);
  assert.equal(open('writeback').load(), false);
  assert.equal(open('writethrough').load(), undefined);
  open('writeback').save(true);
  assert.equal(open('writeback').load(), true);
  assert.deepEqual(readdirSync(directory), ['web-disk0.cache']);
  writeFileSync(path, 'writeback perhaps');
  assert.equal(open('writeback').load(), undefined);
  rmSync(path);
  mkdirSync(path);
  assert.throws(() => open('writeback').load(), { code: 'system', message: /^EISDIR: read / });
  assert.throws(() => open('writeback').save(true), { code: 'system', message: /^EISDIR: write / });
});
