/** What Linux's drivers test of a card (ethtool -t), and what they read when they probe it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MiB } from '../../base/bits.ts';
import { TestDriver } from '../../driver/e1000/testing.ts';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import {
  BMCR_POWER_DOWN,
  BMSR_LINK,
  CTRL_RST,
  type E1000RegisterName,
  EEPROM_SUM,
  EEPROM_WORDS,
  EERD_DONE_82574,
  EERD_START,
  INT_LSC,
  INT_OTHER,
  INT_RXQ0,
  INT_TXDW,
  PHY_BMCR,
  PHY_BMSR,
  PHY_ID1,
  PHY_ID2,
  PHY_PAGE,
  STATUS_LU,
} from '../../spec/e1000.ts';
import { E1000 } from './e1000.ts';
import { E1000_MODELS, type E1000Model } from './function.ts';
import { TestMemory } from './testing.ts';

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);
let cards = 0;

function card(model: E1000Model): TestDriver {
  const name = `card${cards++}`;
  const device = new E1000({ name, model, path, mac: parseMac('52:54:00:12:34:56') });
  return new TestDriver(device, new TestMemory(arena, 2 * MiB));
}

/** Register, bits that are kept, bits that are written: those of Linux's e1000_reg_test. */
const PATTERNS: readonly [E1000RegisterName, number, number][] = [
  ['FCAL', 0xffff_ffff, 0xffff_ffff],
  ['FCAH', 0x0000_ffff, 0xffff_ffff],
  ['FCT', 0x0000_ffff, 0xffff_ffff],
  ['VET', 0x0000_ffff, 0xffff_ffff],
  ['RDTR', 0x0000_ffff, 0xffff_ffff],
  ['RDBAH', 0xffff_ffff, 0xffff_ffff],
  ['RDLEN', 0x000f_ff80, 0x000f_ffff],
  ['RDH', 0x0000_ffff, 0x0000_ffff],
  ['RDT', 0x0000_ffff, 0x0000_ffff],
  ['FCRTH', 0x0000_fff8, 0x0000_fff8],
  ['FCTTV', 0x0000_ffff, 0x0000_ffff],
  ['TIPG', 0x3fff_ffff, 0x3fff_ffff],
  ['TDBAH', 0xffff_ffff, 0xffff_ffff],
  ['TDLEN', 0x000f_ff80, 0x000f_ffff],
  ['RDBAL', 0xffff_fff0, 0xffff_ffff],
  ['TXCW', 0xc000_ffff, 0x0000_ffff],
  ['TDBAL', 0xffff_fff0, 0xffff_ffff],
  ['TIDV', 0x0000_ffff, 0x0000_ffff],
];
const VALUES = [0x5a5a_5a5a, 0xa5a5_a5a5, 0, 0xffff_ffff];

for (const model of E1000_MODELS) {
  describe(model, () => {
    test('passes the drivers’ register test', () => {
      const driver = card(model);
      const check = (name: E1000RegisterName, keeps: number, writes: number, index = 0): void => {
        for (const value of VALUES) {
          driver.set(name, value & writes, index);
          const expected = (value & writes & keeps) >>> 0;
          assert.equal(driver.get(name, index), expected, `${name} ${index}`);
        }
      };
      const status = driver.get('STATUS');
      driver.set('STATUS', 0xffff_f833);
      assert.equal(driver.get('STATUS'), status);
      for (const [name, keeps, writes] of PATTERNS) check(name, keeps, writes);
      driver.set('RCTL', 0);
      assert.equal(driver.get('RCTL'), 0);
      driver.set('RCTL', 0x06df_b3fe);
      assert.equal(driver.get('RCTL') & 0x06df_b3fe, 0x06df_b3fe);
      for (let i = 0; i < 16; i++) check('RA', 0x8003_ffff, 0xffff_ffff, 2 * i + 1);
      for (let i = 0; i < 128; i++) check('MTA', 0xffff_ffff, 0xffff_ffff, i);
      driver.run();
      assert.deepEqual(driver.memory.faults, []);
    });

    test('has an EEPROM whose sum is right, by microwire and by EERD', () => {
      const driver = card(model);
      const shift = model === '82574' ? 2 : 8;
      let sum = 0;
      for (let i = 0; i < EEPROM_WORDS; i++) {
        const word = driver.eeprom(i);
        driver.set('EERD', EERD_START | (i << shift));
        assert.equal(driver.get('EERD') >>> 16, word, `word ${i}`);
        sum += word;
      }
      assert.equal(sum & 0xffff, EEPROM_SUM);
      assert.equal(driver.eeprom(0), 0x5452);
      assert.notEqual(driver.get('EERD') & (model === '82574' ? EERD_DONE_82574 : 0x10), 0);
    });

    test('takes its address from the EEPROM after a reset', () => {
      const driver = card(model);
      driver.set('RA', 0);
      driver.set('ITR', 100);
      driver.set('CTRL', driver.get('CTRL') | CTRL_RST);
      assert.equal(driver.get('RA'), 0x1200_5452);
      assert.equal(driver.get('RA', 1), 0x8000_5634);
      assert.equal(driver.get('ITR'), 0);
      assert.equal(driver.get('CTRL') & CTRL_RST, 0);
    });

    test('has a PHY with a link at 1000 Mb/s', () => {
      const driver = card(model);
      assert.equal(driver.phy(PHY_ID1), 0x0141);
      assert.equal(driver.phy(PHY_ID2), model === '82574' ? 0x0cb1 : 0x0c20);
      assert.notEqual(driver.phy(PHY_BMSR) & BMSR_LINK, 0);
      assert.equal(driver.get('STATUS') & 0xc3, 0x83);
      driver.set('IMS', INT_LSC);
      driver.device.setLink(false);
      assert.equal(driver.get('STATUS') & STATUS_LU, 0);
      assert.ok(driver.line);
      assert.notEqual(driver.get('ICR') & INT_LSC, 0);
      assert.ok(!driver.line);
      driver.device.setLink(true);
      driver.setPhy(PHY_BMCR, 0x1140 | BMCR_POWER_DOWN);
      assert.equal(driver.phy(PHY_BMSR) & BMSR_LINK, 0);
    });

    test('has the PHY registers of IEEE 802.3 on every page', () => {
      const driver = card(model);
      driver.setPhy(PHY_PAGE, 1);
      driver.setPhy(16, 0x1234);
      driver.setPhy(PHY_BMCR, 0x4140);
      driver.setPhy(PHY_PAGE, 0);
      assert.equal(driver.phy(PHY_BMCR), 0x4140);
      // One page, or a register of another.
      assert.equal(driver.phy(16) === 0x1234, model === '82540');
    });

    test('passes the drivers’ interrupt test', () => {
      const driver = card(model);
      driver.set('IMC', 0xffff_ffff);
      for (let i = 0; i < 10; i++) {
        const cause = 1 << i;
        driver.set('IMC', cause);
        driver.set('ICS', cause);
        assert.ok(!driver.line, `masked ${i}`);
        driver.set('IMS', cause);
        driver.set('ICS', cause);
        assert.ok(driver.line, `enabled ${i}`);
        assert.notEqual(driver.get('ICR') & cause, 0);
        assert.ok(!driver.line);
        driver.set('IMC', ~cause & 0x7fff);
        driver.set('ICS', ~cause & 0x7fff);
        assert.ok(!driver.line, `others ${i}`);
      }
    });

    test('throttles the line', () => {
      const driver = card(model);
      driver.set('ITR', 0xffff);
      driver.set('IMS', INT_TXDW);
      driver.set('ICS', INT_TXDW);
      assert.ok(driver.line);
      driver.get('ICR');
      driver.set('ICS', INT_TXDW);
      driver.device.poll();
      assert.ok(!driver.line);
      assert.equal(driver.device.arm(), false);
      loop.now += 0xffff * 256;
      driver.device.poll();
      assert.ok(driver.line);
      driver.set('CTRL', CTRL_RST);
    });
  });
}

test('the 82574 sends MSI-X by IVAR, clears by EIAC, masks by IAM', () => {
  const driver = card('82574');
  const { device } = driver;
  let at = device.readConfig(0x34, 1);
  while (at !== 0 && device.readConfig(at, 1) !== 0x11) at = device.readConfig(at + 1, 1);
  assert.notEqual(at, 0);
  device.writeConfig(at + 2, 2, 0x8000);
  driver.set('EIAC', 0x01f0_0000);
  driver.set('IVAR', 0x000a_0908);
  driver.set('IAM', 0xffff_ffff);
  driver.set('CTRL_EXT', 0x0900_0000);
  driver.set('IMS', INT_RXQ0 | INT_OTHER);
  driver.set('ICS', INT_RXQ0);
  assert.deepEqual(driver.msix, [0]);
  assert.equal(driver.get('IMS') & INT_RXQ0, 0, 'masked');
  driver.set('ICS', INT_RXQ0);
  assert.deepEqual(driver.msix, [0]);
  driver.set('IMS', INT_RXQ0);
  assert.deepEqual(driver.msix, [0, 0]);
  driver.device.setLink(false);
  assert.deepEqual(driver.msix, [0, 0, 2]);
  assert.ok(!driver.line);
});

test('registers are reached by I/O space too, as Linux resets an 82540EM', () => {
  const driver = card('82540');
  const { device } = driver;
  driver.set('ITR', 100);
  device.writeBar(1, 0, 4, 0);
  assert.equal(device.readBar(1, 4, 4), driver.get('CTRL'));
  device.writeBar(1, 4, 4, driver.get('CTRL') | CTRL_RST);
  assert.equal(driver.get('ITR'), 0);
  device.writeBar(1, 0, 4, 0xffff_fffc);
  assert.equal(device.readBar(1, 4, 4), 0);
});

test('any access of any width is answered', () => {
  for (const model of E1000_MODELS) {
    const { device } = card(model);
    for (let offset = 0; offset < 0x20000; offset += 97) {
      for (const length of [1, 2, 4]) {
        if (offset + length > 0x20000) continue;
        device.writeBar(0, offset, length, 0xffff_ffff);
        const value = device.readBar(0, offset, length);
        assert.ok(value >= 0 && value <= 0xffff_ffff);
      }
      device.poll();
    }
  }
});
