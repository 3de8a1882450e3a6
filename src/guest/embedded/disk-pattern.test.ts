import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  checkSectors,
  crc32c,
  SECTORS_CORRUPT,
  SECTORS_GOOD,
  SECTORS_STALE,
  SECTORS_UNKNOWN,
  stampSectors,
} from './disk-pattern.ts';

const RUN = 0xdead_beef;

function stamped(sector: number, sectors: number, sequence: number, run = RUN) {
  const words = new Uint32Array(sectors * 128);
  stampSectors(words, 0, sectors * 512, Float64Array.of(sector), 0, run, sequence);
  return words;
}

function check(words: Uint32Array, sector: number, sequence: number): number {
  return checkSectors(words, 0, words.byteLength, Float64Array.of(sector), 0, RUN, sequence);
}

describe('crc32c', () => {
  it('has the values of RFC 3720, appendix B.4', () => {
    const of = (bytes: Uint8Array): number =>
      ~crc32c(new Uint32Array(bytes.buffer), 0, bytes.length / 4, -1) >>> 0;
    assert.equal(of(new Uint8Array(32)), 0x8a91_36aa);
    assert.equal(of(new Uint8Array(32).fill(0xff)), 0x62a8_ab43);
    assert.equal(of(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd_794e);
  });
});

describe('sectors', () => {
  it('are good where they were written, and only there', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 45 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 2 ** 32 - 1 }),
        (sector, count, sequence) => {
          const words = stamped(sector, count, sequence);
          assert.equal(check(words, sector, sequence), SECTORS_GOOD);
          assert.equal(check(words, sector, 0), SECTORS_GOOD);
          assert.equal(check(words, sector + 1, sequence), SECTORS_CORRUPT);
          assert.equal(check(words, sector + 2 ** 32, sequence), SECTORS_CORRUPT);
          assert.equal(check(words, sector, sequence === 1 ? 2 : sequence - 1), SECTORS_STALE);
        },
      ),
    );
  });

  it('are corrupt with any bit changed', () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 * 4096 - 1 }), (bit) => {
        const words = stamped(77, 2, 5);
        words[bit >>> 5] = (words[bit >>> 5] as number) ^ (1 << (bit & 31));
        assert.equal(check(words, 77, 5), SECTORS_CORRUPT);
      }),
    );
  });

  it('tell an old write, a lost one, a torn one and none from each other', () => {
    assert.equal(check(stamped(9, 4, 5), 9, 6), SECTORS_STALE);
    assert.equal(check(stamped(9, 4, 5, RUN - 1), 9, 5), SECTORS_STALE);
    assert.equal(check(new Uint32Array(512), 9, 6), SECTORS_STALE);
    assert.equal(check(new Uint32Array(512), 9, 0), SECTORS_UNKNOWN);
    const torn = stamped(9, 4, 6);
    torn.set(stamped(9, 4, 5).subarray(0, 128));
    assert.equal(check(torn, 9, 6), SECTORS_STALE);
    assert.equal(check(torn, 9, 0), SECTORS_GOOD);
    assert.equal(check(new Uint32Array(512).fill(1), 9, 6), SECTORS_CORRUPT);
  });
});
