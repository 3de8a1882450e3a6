import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rarpAnnouncement } from './rarp.ts';

test('test_rarp_announcement', () => {
  // Written down by hand after RFC 903 and RFC 826.
  const hex =
    'ffffffffffff525400000001' +
    '8035' +
    '0001080006040003' +
    '52540000000100000000' +
    '52540000000100000000';
  const frame = rarpAnnouncement(Uint8Array.from([0x52, 0x54, 0, 0, 0, 1]));
  assert.equal(frame.length, 60);
  assert.equal(Buffer.from(frame).toString('hex'), hex.padEnd(120, '0'));
});
