import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import {
  formatMac,
  formatMacPair,
  isMulticast,
  isMulticastLow,
  macFromPair,
  macHigh,
  macLow,
  parseMac,
  parseStationMac,
} from './mac.ts';

const macs = fc.uint8Array({ minLength: 6, maxLength: 6 });

test('text, bytes and numbers of an address are the same address', () => {
  fc.assert(
    fc.property(macs, fc.nat(5), (mac, at) => {
      const framed = new Uint8Array(16);
      framed.set(mac, at);
      assert.deepEqual(parseMac(formatMac(mac)), mac);
      assert.deepEqual(parseMac(formatMac(mac).toUpperCase()), mac);
      assert.deepEqual(macFromPair(macLow(framed, at), macHigh(framed, at)), mac);
      assert.equal(formatMacPair(macLow(mac), macHigh(mac)), formatMac(framed, at));
      assert.equal(isMulticastLow(macLow(mac)), isMulticast(framed, at));
    }),
  );
});

test('the numbers of a pair are what the bytes give as little-endian words', () => {
  const mac = parseMac('52:54:00:12:34:56');
  const view = new DataView(mac.buffer);
  assert.equal(macLow(mac), view.getUint32(0, true));
  assert.equal(macHigh(mac), view.getUint16(4, true));
  const broadcast = parseMac('ff:ff:ff:ff:ff:ff');
  assert.deepEqual([macLow(broadcast), macHigh(broadcast)], [0xffff_ffff, 0xffff]);
});

test('what is not an address is refused with its text and a remedy', () => {
  for (const text of [
    '',
    '52:54:00:00:00',
    '52-54-00-00-00-01',
    '52:54:00:00:00:0g',
    '5:4:0:0:0:1',
  ]) {
    assert.throws(
      () => parseMac(text),
      (error) =>
        error instanceof SluiceError &&
        error.code === 'config' &&
        error.message.includes(`"${text}"`) &&
        error.remedy !== undefined,
    );
  }
});

test('a station has neither a multicast address nor all zeros', () => {
  assert.equal(formatMac(parseStationMac('52:54:00:00:00:01')), '52:54:00:00:00:01');
  for (const text of ['01:00:5e:00:00:01', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00']) {
    assert.throws(() => parseStationMac(text), SluiceError);
  }
});
