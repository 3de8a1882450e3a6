import assert from 'node:assert/strict';
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { RunDirectory } from './run-directory.ts';

function place(t: { after: (f: () => void) => void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return join(directory, 'deep', 'run');
}

const OPTIONS = { mode: 0o700, owner: undefined, group: undefined };

test('the directory is made with its mode, and corrected when it is there', (t) => {
  const path = place(t);
  new RunDirectory({ ...OPTIONS, path }).release();
  assert.equal(statSync(path).mode & 0o777, 0o700);
  new RunDirectory({ ...OPTIONS, path, mode: 0o750 }).release();
  assert.equal(statSync(path).mode & 0o777, 0o750);
});

test('one at a time: the second is told who the first is', (t) => {
  const path = place(t);
  const first = new RunDirectory({ ...OPTIONS, path });
  assert.throws(() => new RunDirectory({ ...OPTIONS, path }), {
    code: 'state',
    message: `another sluice (pid ${process.pid}) runs in ${path}`,
  });
  assert.equal(readFileSync(join(path, 'lock'), 'utf8'), `${process.pid}\n`);
  first.release();
  new RunDirectory({ ...OPTIONS, path }).release();
});

test('owner and group by name or number; unknown ones are told', (t) => {
  const path = place(t);
  const { uid, gid } = statSync('/etc/passwd');
  const run = new RunDirectory({
    ...OPTIONS,
    path,
    owner: process.getuid?.(),
    group: String(process.getgid?.()),
  });
  assert.deepEqual(run.ownership, { uid: process.getuid?.(), gid: process.getgid?.() });
  run.release();
  if (process.getuid?.() === 0) {
    const named = new RunDirectory({ ...OPTIONS, path, owner: 'root', group: 'root' });
    assert.deepEqual(named.ownership, { uid, gid });
    named.release();
  }
  assert.throws(() => new RunDirectory({ ...OPTIONS, path, owner: 'no-such-user' }), {
    code: 'config',
    message: 'no user "no-such-user" in /etc/passwd',
  });
});

test('a directory that cannot be made is told with its errno', () => {
  assert.throws(() => new RunDirectory({ ...OPTIONS, path: '/dev/null/run' }), {
    code: 'system',
    message: /^ENOTDIR: mkdir \/dev\/null/,
  });
});

test('a file in the place of the directory is told with what helps', (t) => {
  const path = place(t);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, 'content');
  assert.throws(() => new RunDirectory({ ...OPTIONS, path }), {
    code: 'system',
    message: `EEXIST: mkdir ${path}`,
    remedy: /^a file is in its place or above it: .* \(key run\)$/,
  });
});

test('a link in the place of the lock is not followed: its target keeps its content', (t) => {
  const path = place(t);
  mkdirSync(path, { recursive: true });
  const precious = join(path, 'precious');
  writeFileSync(precious, 'content');
  for (const link of [symlinkSync, linkSync]) {
    link(precious, join(path, 'lock'));
    assert.throws(() => new RunDirectory({ ...OPTIONS, path }), { code: 'system' });
    assert.equal(readFileSync(precious, 'utf8'), 'content');
    rmSync(join(path, 'lock'));
  }
});
