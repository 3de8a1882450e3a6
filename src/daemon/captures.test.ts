import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { silentLogger } from '../base/log.ts';
import type { CaptureRing } from '../net/capture-ring.ts';
import { Captures } from './captures.ts';

test('a reader that does not read keeps nobody from ending', async () => {
  const captures = new Captures(silentLogger);
  // The file's header finds no room.
  const output = new PassThrough({ highWaterMark: 1 });
  const detached: string[] = [];
  const capture = captures.run(
    'web/net0',
    undefined,
    output,
    () => Promise.resolve(),
    () => {
      detached.push('web/net0');
      return Promise.resolve();
    },
  );
  const failed = assert.rejects(capture, { code: 'system' });
  await once(output, 'readable');
  await captures.close(10);
  await failed;
  assert.ok(output.destroyed);
  await assert.rejects(captures.finish('web/net0'), { code: 'not-found' });
  assert.deepEqual(detached, ['web/net0']);
});

test('what has passed before the end is written', async () => {
  const captures = new Captures(silentLogger);
  const output = new PassThrough();
  let ring: CaptureRing | undefined;
  const capture = captures.run(
    'web/net0',
    undefined,
    output,
    (given) => {
      ring = given;
      return Promise.resolve();
    },
    () => Promise.resolve(),
  );
  await once(output, 'readable');
  const frame = Uint8Array.from({ length: 60 }, (_, i) => i);
  assert.ok(ring);
  ring.bytes.set(frame, ring.reserve(frame.length, frame.length, 0, true, 0));
  ring.commit();
  await captures.finish('web/net0');
  assert.equal(ring.reserve(60, 60, 0, true, 0), -1);
  const written = Buffer.concat(await output.toArray());
  assert.ok(written.includes(frame));
  assert.deepEqual(await capture, { frames: 1, dropped: 0 });
});

test('a wire of the configuration is no capture that a client ends', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-captures-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const captures = new Captures(silentLogger);
  await captures.toFile('lan/wire', join(directory, 'all.pcapng'));
  await assert.rejects(captures.finish('lan/wire'), { code: 'not-found' });
  await captures.close();
});
