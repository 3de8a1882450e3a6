import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limitedLogger } from './limited-logger.ts';
import { loggerTo } from './log.ts';

test('a limited logger passes so many records a second and counts the rest', () => {
  const written: string[] = [];
  let now = 0;
  const log = limitedLogger(
    loggerTo((level, message, fields) =>
      written.push(`${level} ${message}${JSON.stringify(fields)}`),
    ),
    () => now,
    2,
  );
  for (let i = 0; i < 5; i++) log.warn(`a${i}`, { i });
  assert.deepEqual(written.splice(0), ['warn a0{"i":0}', 'warn a1{"i":1}']);
  now = 999_999_999;
  log.error('b');
  assert.deepEqual(written, []);
  now = 1_000_000_000;
  log.info('c');
  assert.deepEqual(written.splice(0), ['warn 4 messages were left out{}', 'info c{}']);
  now = 2_500_000_000;
  log.info('d');
  assert.deepEqual(written, ['info d{}']);
});
