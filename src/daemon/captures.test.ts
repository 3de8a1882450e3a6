import assert from 'node:assert/strict';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { silentLogger } from '../base/log.ts';
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
  assert.deepEqual(detached, ['web/net0']);
});
