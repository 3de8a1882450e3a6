/** The filters, set through the addresses that Linux's driver writes to. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parseMac } from '../../net/mac.ts';
import { EXACT, filterAddress, filterVlan, INEXACT, REJECTED } from './filter.ts';
import { RegisterFile } from './registers.ts';

class Card {
  readonly file = new RegisterFile();

  set(offset: number, value: number): void {
    this.file.write(this.file.home(offset / 4), value);
  }

  get(offset: number): number {
    return this.file.read(this.file.home(offset / 4));
  }

  address(index: number, mac: string, valid = true): void {
    const bytes = Buffer.from(parseMac(mac));
    const at = (index < 16 ? 0x5400 : 0xa200) + 8 * index;
    this.set(at, bytes.readUInt32LE(0));
    this.set(at + 4, ((valid ? 0x8000_0000 : 0) | bytes.readUInt16LE(4)) >>> 0);
  }

  takes(mac: string): number {
    return filterAddress(this.file.words, parseMac(mac), 0);
  }
}

describe('filters of the 82599', () => {
  test('take the valid addresses, the first and the last', () => {
    const card = new Card();
    card.address(0, '52:54:00:00:00:01');
    card.address(127, '52:54:00:00:00:02');
    card.address(5, '52:54:00:00:00:03', false);
    assert.equal(card.takes('52:54:00:00:00:01'), EXACT);
    assert.equal(card.takes('52:54:00:00:00:02'), EXACT);
    assert.equal(card.takes('52:54:00:00:00:03'), REJECTED);
    assert.equal(card.takes('52:54:00:00:01:01'), REJECTED);
    card.set(0x5080, 0x200);
    assert.equal(card.takes('52:54:00:00:00:03'), INEXACT);
    assert.equal(card.takes('01:00:5e:00:00:01'), REJECTED);
  });

  test('take broadcasts as FCTRL.BAM says', () => {
    const card = new Card();
    assert.equal(card.takes('ff:ff:ff:ff:ff:ff'), REJECTED);
    card.set(0x5080, 0x400);
    assert.equal(card.takes('ff:ff:ff:ff:ff:ff'), EXACT);
  });

  test('take the multicasts that a driver hashes, with each offset', () => {
    const bytes = fc.uint8Array({ minLength: 6, maxLength: 6 });
    fc.assert(
      fc.property(bytes, fc.integer({ min: 0, max: 3 }), (mac, offset) => {
        mac[0] = 1;
        const card = new Card();
        const upper = (mac[4] as number) | ((mac[5] as number) << 8);
        // As ixgbe computes it, for each type of filter.
        const hash = (upper >> ([4, 3, 2, 0][offset] as number)) & 0xfff;
        card.set(0x5200 + 4 * (hash >> 5), (1 << (hash & 31)) >>> 0);
        card.set(0x5090, offset);
        assert.equal(filterAddress(card.file.words, mac, 0), REJECTED, 'not enabled');
        card.set(0x5090, offset | 4);
        assert.equal(filterAddress(card.file.words, mac, 0), INEXACT);
        // A bit that is in the hash with every offset.
        mac[4] = (mac[4] as number) ^ 0x10;
        assert.equal(filterAddress(card.file.words, mac, 0), REJECTED, 'another hash');
        card.set(0x5080, 0x100);
        assert.equal(filterAddress(card.file.words, mac, 0), INEXACT);
      }),
      { numRuns: 100 },
    );
  });

  test('take the VLANs of the table, all while it is off', () => {
    const card = new Card();
    assert.ok(filterVlan(card.file.words, 4095));
    card.set(0x5088, 0x4000_8100);
    assert.ok(!filterVlan(card.file.words, 37));
    card.set(0xa000 + 4, 1 << 5);
    assert.ok(filterVlan(card.file.words, 37));
    assert.ok(!filterVlan(card.file.words, 5));
  });
});

describe('registers of the 82599', () => {
  test('are the same by their second addresses', () => {
    const card = new Card();
    card.set(0x2100 + 4 * 3, 0x0200_0002);
    assert.equal(card.get(0x1014 + 0x40 * 3), 0x0200_0002);
    card.set(0xea00, 0x1000);
    assert.equal(card.get(0x5480), 0x1000);
  });

  test('keep no more than their bits; counters are cleared by a read', () => {
    const card = new Card();
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0x7fff }), fc.nat(0xffff_ffff), (index, value) => {
        card.file.write(index, value);
        const read = card.file.read(index);
        assert.equal((read & ~value) >>> 0, 0);
      }),
      { numRuns: 500 },
    );
    card.file.clear();
    card.file.words[0x4074 / 4] = 7;
    card.set(0x4074, 9);
    assert.equal(card.get(0x4074), 7);
    assert.equal(card.get(0x4074), 0);
  });
});
