/** The driver of a virtual function against the port that it belongs to: what they say by the mailbox. */
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { MiB } from '../../base/bits.ts';
import { TEST_BASE, TestMemory } from '../../device/e1000/testing.ts';
import { IxgbeCard } from '../../device/ixgbe/card.ts';
import type { NicFunction } from '../../device/ixgbe/nic-function.ts';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { formatMac, parseMac } from '../../net/mac.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import {
  IXGBE_API_15,
  IXGBE_XCAST_ALL_MULTICAST,
  IXGBE_XCAST_MULTICAST,
  IXGBE_XCAST_PROMISCUOUS,
} from '../../spec/ixgbe-mailbox.ts';
import { IxgbeDriver } from '../ixgbe/ixgbe-driver.ts';
import { type IxgbeDriverOptions, planIxgbe } from '../ixgbe/plan.ts';
import { DirectBus } from '../pci/testing.ts';
import { IxgbevfDriver } from './ixgbevf-driver.ts';

const OWN = parseMac('52:54:00:00:00:01');
const GIVEN = parseMac('52:54:00:00:00:02');
const OTHER = parseMac('52:54:00:00:00:03');
const PORT = parseMac('52:54:00:00:99:00');
const OPTIONS: IxgbeDriverOptions = {
  sendBytes: 1514,
  sendFrames: 16,
  receiveBuffers: 16,
  mtu: 1500,
  pairs: 1,
};

const path = createDataPath(Arena.create(), new PollLoop());
const ends: (() => void)[] = [];

afterEach(() => {
  for (const end of ends.splice(0)) end();
});

function card(mode: 'direct' | 'sriov'): IxgbeCard {
  const made = new IxgbeCard({ name: 'nic0/0', path, mode, port: 0, mac: PORT, link: 'none' });
  ends.push(() => made.close());
  return made;
}

function bus(device: NicFunction) {
  const memory = new TestMemory(path.arena, 2 * MiB);
  const made = new DirectBus(device, memory);
  ends.unshift(() => made.close());
  return { bus: made, memory: memory.driver };
}

function vf(
  settings: Parameters<IxgbeCard['createVf']>[1] = {},
  more: Partial<IxgbeDriverOptions> = {},
) {
  const port = card('sriov');
  const device = port.createVf(3, settings);
  ends.unshift(() => port.removeVf(3).close());
  const { bus: to, memory } = bus(device);
  const driver = new IxgbevfDriver(planIxgbe({ ...OPTIONS, ...more }, TEST_BASE), memory, to, OWN);
  return { port, device, driver, bus: to };
}

test('the address is the one that the port’s owner gave, or one that it grants', () => {
  const given = vf({ mac: formatMac(GIVEN) });
  assert.deepEqual(given.driver.mac, GIVEN);
  assert.equal(given.driver.api, IXGBE_API_15);
  assert.equal(given.driver.setMac(OTHER), false, 'an address that was given stays');
  assert.deepEqual(given.driver.mac, GIVEN);
});

test('without one the driver asks for its own, and may change it', () => {
  const { driver } = vf();
  assert.deepEqual(driver.mac, OWN);
  assert.equal(driver.setMac(OTHER), true);
  assert.deepEqual(driver.mac, OTHER);
});

test('the link is up as long as the cable is in', () => {
  const { driver, port } = vf();
  driver.start();
  assert.equal(driver.linkUp, true);
  const { notices } = driver;
  port.setLink(false);
  assert.equal(driver.linkUp, false);
  assert.ok(driver.notices > notices, 'it is told by an interrupt');
  port.setLink(true);
  assert.equal(driver.linkUp, true);
});

test('a link that is disabled is down whatever the cable', () => {
  const { driver } = vf({ state: 'disable' });
  driver.start();
  assert.equal(driver.linkUp, false);
});

test('VLANs and multicast are granted, promiscuous mode with trust only', () => {
  const { driver, port } = vf();
  driver.start();
  assert.equal(driver.setVlan(10, true), true);
  assert.equal(driver.setVlan(10, false), true);
  assert.equal(driver.setMulticast([0x123, 0x456, 0x789]), true);
  assert.equal(driver.setMode(IXGBE_XCAST_PROMISCUOUS), IXGBE_XCAST_MULTICAST);
  port.setVf(3, { trust: true });
  assert.equal(driver.setMode(IXGBE_XCAST_ALL_MULTICAST), IXGBE_XCAST_ALL_MULTICAST);
  assert.equal(driver.setMode(IXGBE_XCAST_PROMISCUOUS), IXGBE_XCAST_PROMISCUOUS);
});

test('as many queues are used as are planned, and there are', () => {
  assert.equal(vf({}, { pairs: 2 }).driver.pairs.length, 2);
  assert.equal(vf({}, { pairs: 3 }).driver.pairs.length, 2);
  assert.equal(vf({}, { pairs: 1 }).driver.pairs.length, 1);
});

test('frames that are longer than the port takes are refused', () => {
  const { driver } = vf({}, { mtu: 15_000, receiveBuffers: 4, sendFrames: 4 });
  assert.throws(() => driver.start(), /refused frames of 15018 bytes/);
});

test('either driver knows the other’s function from its own', () => {
  const { pf } = card('direct');
  assert.ok(pf !== undefined);
  const { bus: to, memory } = bus(pf);
  const plan = planIxgbe(OPTIONS, TEST_BASE);
  assert.throws(
    () => new IxgbevfDriver(plan, memory, to, OWN),
    /8086:10fb, not a virtual function/,
  );
  const driver = new IxgbeDriver(plan, memory, to);
  assert.deepEqual(driver.mac, PORT);
  driver.start();
  assert.equal(driver.linkUp, true);
  const many = planIxgbe({ ...OPTIONS, pairs: 16 }, TEST_BASE);
  assert.throws(() => new IxgbeDriver(many, memory, to), /16 queue pairs/);
});

test('a port’s driver is told when its link goes and comes', () => {
  const port = card('direct');
  assert.ok(port.pf !== undefined);
  const { bus: to, memory } = bus(port.pf);
  const driver = new IxgbeDriver(planIxgbe(OPTIONS, TEST_BASE), memory, to);
  driver.start();
  const before = driver.linkChanges;
  port.setLink(false);
  assert.deepEqual([driver.linkUp, driver.linkChanges], [false, before + 1]);
  port.setLink(true);
  assert.deepEqual([driver.linkUp, driver.linkChanges], [true, before + 2]);
});

test('registers of queues are stored without traps, all others by one each', () => {
  const { driver, bus: to } = vf({ mac: formatMac(GIVEN) });
  driver.start();
  const [reads, writes] = [to.reads, to.writes];
  const [pair] = driver.pairs;
  assert.ok(pair !== undefined);
  pair.transmit.send(pair.sendPool.addresses(), 0, 12 + 60, 0);
  pair.transmit.flush();
  assert.deepEqual([to.reads, to.writes], [reads, writes]);
  driver.vectors.throttle(0, 8000);
  assert.equal(to.writes, writes + 1);
  driver.vectors.open(0);
  driver.vectors.open(0);
  assert.equal(to.writes, writes + 2, 'a vector that is open is not opened again');
});

test('a driver hears that its function is to be reset', () => {
  const { driver, port } = vf();
  driver.start();
  let revoked = 0;
  driver.onRevoked = () => revoked++;
  port.setLink(false);
  assert.equal(revoked, 0, 'that something has changed is no more than that');
  port.setVf(3, { mac: formatMac(OTHER) });
  assert.equal(revoked, 1);
});
