import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseMac } from '../../net/mac.ts';
import { IXGBE_EERD_DONE } from '../../spec/ixgbe.ts';
import { EEPROM_WORDS, Eeprom } from './eeprom.ts';

function reader(eeprom: Eeprom): (address: number) => number {
  return (address) => {
    const value = eeprom.read((address << 2) | 1);
    assert.notEqual(value & IXGBE_EERD_DONE, 0);
    return value >>> 16;
  };
}

describe('the EEPROM of an 82599', () => {
  for (const port of [0, 1] as const) {
    test(`of port ${port} has a sum that drivers accept, a module list and the address`, () => {
      const word = reader(new Eeprom(parseMac('52:54:00:12:34:56'), port));
      let sum = 0;
      for (let i = 0; i <= 0x3f; i++) sum += word(i);
      for (let i = 3; i < 15; i++) {
        const area = word(i);
        if (area === 0 || area === 0xffff) continue;
        for (let w = 1; w <= word(area); w++) sum += word(area + w);
      }
      assert.equal(sum & 0xffff, 0xbaba);
      const area = word(11 + port);
      const mac = [word(area + 1), word(area + 2), word(area + 3)];
      assert.deepEqual(mac, [0x5452, 0x1200, 0x5634]);
      // As a driver finds the sequence of a direct attach cable.
      let at = word(0x2b) + 1;
      while (word(at) !== 3 + port) {
        assert.notEqual(word(at), 0xffff, 'the list has the module');
        at += 2;
      }
      assert.equal(word(word(at + 1) + 1), 0xffff, 'a sequence of nothing');
      const firmware = word(0x0f);
      assert.ok(word(word(firmware + 4) + 7) > 5, 'not a pre-production card');
      assert.equal(word(firmware + 2), 0xffff, 'no link establishment by firmware');
    });
  }

  test('reads ones beyond its end, keeps what is written and asks for a start bit', () => {
    const eeprom = new Eeprom(parseMac('52:54:00:12:34:56'), 0);
    const word = reader(eeprom);
    assert.equal(word(EEPROM_WORDS), 0xffff);
    eeprom.write(((0xabcd << 16) | (0x300 << 2) | 1) >>> 0);
    assert.equal(word(0x300), 0xabcd);
    eeprom.write(((0x1111 << 16) | (0x300 << 2)) >>> 0);
    eeprom.write(((0x2222 << 16) | (0x3fff << 2) | 1) >>> 0);
    assert.equal(word(0x300), 0xabcd);
    assert.equal(word(0x3fff), 0xffff);
  });
});
