import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addCrc32c, CRC32C_START, finishCrc32c } from './crc32c.ts';

function crc32c(bytes: Uint8Array): number {
  return finishCrc32c(addCrc32c(CRC32C_START, bytes, 0, bytes.length));
}

test('known sums', () => {
  assert.equal(crc32c(Buffer.from('123456789')), 0xe306_9283);
  // RFC 7143 appendix A.4.
  assert.equal(crc32c(Buffer.alloc(32)), 0x8a91_36aa);
  assert.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8_ab43);
  assert.equal(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => i))), 0x46dd_794e);
});

test('a sum in parts is the sum of the whole', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat({ max: 100 }), (bytes, cut) => {
      const first = Math.min(cut, bytes.length);
      const part = addCrc32c(CRC32C_START, bytes, 0, first);
      const whole = addCrc32c(part, bytes, first, bytes.length - first);
      assert.equal(finishCrc32c(whole), crc32c(bytes));
    }),
  );
});
