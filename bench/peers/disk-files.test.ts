import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { DiskFiles } from './disk-files.ts';
import type { DiskTarget } from './disk-work.ts';

const BYTES = 1 << 23;
const TMPFS_MAGIC = 0x01021994;

/** An empty directory, and which target it is good for. */
function place(t: TestContext): { directory: string; target: DiskTarget; other: DiskTarget } {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-test-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const tmpfs = statfsSync(directory).type === TMPFS_MAGIC;
  return tmpfs
    ? { directory, target: 'tmpfs', other: 'disk' }
    : { directory, target: 'disk', other: 'tmpfs' };
}

test('two files are full of data, without holes, and gone in the end', (t) => {
  const { directory, target } = place(t);
  {
    using files = new DiskFiles({ target, directory, bytes: BYTES });
    for (const path of files.paths) {
      const { size, blocks } = statSync(path);
      assert.equal(size, BYTES);
      assert.ok(blocks * 512 >= BYTES, 'it has holes');
      assert.ok(
        readFileSync(path)
          .subarray(-4096)
          .some((byte) => byte !== 0),
      );
    }
    assert.equal(new Set(files.paths).size, 2);
  }
  assert.deepEqual(readdirSync(directory), []);
});

test('what a killed comparison left is removed, what another one uses is not', (t) => {
  const { directory, target } = place(t);
  const { pid } = spawnSync('true');
  const left = join(directory, `sluice-peers-disk-${pid}-abcdef`);
  const used = join(directory, `sluice-peers-disk-${process.ppid}-abcdef`);
  const foreign = join(directory, `${pid}`);
  for (const path of [left, used, foreign]) mkdirSync(path);
  using _files = new DiskFiles({ target, directory, bytes: BYTES });
  assert.deepEqual([left, used, foreign].map(existsSync), [false, true, true]);
});

test('a directory of the other kind is refused', (t) => {
  const { directory, other } = place(t);
  assert.throws(() => new DiskFiles({ target: other, directory, bytes: BYTES }), {
    code: 'usage',
    message: /tmpfs/,
  });
});

test('files that do not fit are refused before they are written', (t) => {
  const { directory, target } = place(t);
  const { bavail, bsize } = statfsSync(directory);
  const bytes = Math.ceil((bavail * bsize) / BYTES) * BYTES;
  assert.throws(() => new DiskFiles({ target, directory, bytes }), {
    code: 'state',
    message: /no room/,
  });
  assert.deepEqual(readdirSync(directory), []);
});
