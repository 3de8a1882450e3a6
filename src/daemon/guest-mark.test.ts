import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { loggerTo, silentLogger } from '../base/log.ts';
import { GuestMark } from './guest-mark.ts';

function place(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-mark-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return join(directory, 'web-net0.guest');
}

test('a VMM that was there when Sluice ended is lost, until one connects', (t) => {
  const path = place(t);
  const first = new GuestMark(path, silentLogger);
  assert.equal(first.lost, false);
  first.set(true);
  assert.equal(first.lost, false);
  const next = new GuestMark(path, silentLogger);
  assert.equal(next.lost, true);
  next.set(true);
  assert.equal(next.lost, false);
});

test('a VMM that went by itself is not lost', (t) => {
  const path = place(t);
  const mark = new GuestMark(path, silentLogger);
  mark.set(true);
  mark.set(false);
  assert.equal(existsSync(path), false);
  assert.equal(new GuestMark(path, silentLogger).lost, false);
});

test('a directory that cannot be written is told, and the guest served', (t) => {
  const lines: string[] = [];
  const log = loggerTo((level, message) => lines.push(`${level}: ${message}`));
  const path = join(place(t), 'not', 'there');
  new GuestMark(path, log).set(true);
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^warn: .*not\/there cannot be written: ENOENT/);
});
