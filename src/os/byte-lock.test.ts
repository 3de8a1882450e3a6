import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isByteLocked, shareByte, unlockBytes } from './byte-lock.ts';
import { duplicateFd } from './fd.ts';

test('locks belong to the open file: shared by its descriptors, seen by others', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-lock-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'file');
  writeFileSync(path, '');
  const [a, b] = [openSync(path, 'r+'), openSync(path, 'r+')];
  assert.ok(shareByte(a, 100, path));
  assert.equal(isByteLocked(a, 100, path), false, 'not against oneself');
  assert.equal(isByteLocked(b, 100, path), true);
  assert.equal(isByteLocked(b, 101, path), false);
  assert.ok(shareByte(b, 100, path), 'shared');
  assert.equal(isByteLocked(a, 100, path), true);
  unlockBytes(b, 0, 1000, path);
  assert.equal(isByteLocked(a, 100, path), false);

  const second = duplicateFd(a);
  closeSync(a);
  assert.equal(isByteLocked(b, 100, path), true, 'another descriptor of the open file is left');
  closeSync(second);
  assert.equal(isByteLocked(b, 100, path), false);
  closeSync(b);
});

test('names the file that cannot be locked', () => {
  assert.throws(() => shareByte(-1, 100, 'the file'), /EBADF: fcntl the file/);
});
