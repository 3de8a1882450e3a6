import assert from 'node:assert/strict';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { allocateFile, openLockFile } from './lock.ts';

test('a file of holes gets a place for each byte, and keeps its content', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-lock-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'file');
  writeFileSync(path, 'content');
  const fd = openLockFile(path);
  const bytes = 5 * 4096;
  allocateFile(fd, path, bytes);
  assert.ok(statSync(path).blocks * 512 >= bytes);
  assert.equal(readFileSync(path).toString('latin1'), 'content'.padEnd(bytes, '\0'));
  allocateFile(fd, path, 4);
  assert.equal(readFileSync(path, 'utf8'), 'cont');
  closeSync(fd);
});

test('a full file system is told with the file and the remedy', () => {
  const fd = openSync('/dev/full', 'r+');
  try {
    assert.throws(() => allocateFile(fd, '/run/x', 8), {
      code: 'system',
      message: /^(ENOSPC|EINVAL): \w+ \/run\/x$/,
      remedy: /^make room/,
    });
  } finally {
    closeSync(fd);
  }
});
