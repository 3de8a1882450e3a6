import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wireFrameRate } from './wire-rate.ts';

test('a machine outside sends what a wire of 10 Gb/s carries, and no more', () => {
  // 24 bytes around each frame: preamble, check sequence and gap.
  assert.equal(wireFrameRate({ frame: 1514 }), 10e9 / (8 * 1538));
  assert.equal(wireFrameRate({ frame: 60, link: '10G' }), 10e9 / (8 * 84));
  assert.equal(wireFrameRate({ frame: 64, link: 'none' }), undefined);
});

test('a large frame is one of many on the wire, each with headers of its own', () => {
  const frame = 14 + 20 + 20 + 3 * 1460;
  assert.equal(wireFrameRate({ frame }), 10e9 / (8 * 3 * (1514 + 24)));
});
