import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../../base/errors.ts';
import { macHigh, macLow, parseMac } from '../../net/mac.ts';
import {
  IXGBE_API_10,
  IXGBE_API_11,
  IXGBE_API_12,
  IXGBE_API_13,
  IXGBE_API_15,
  IXGBE_API_16,
  IXGBE_API_17,
  IXGBE_API_20,
  IXGBE_LINK_SPEED_10G,
  IXGBE_MESSAGE_ACK,
  IXGBE_MESSAGE_CLEAR_TO_SEND,
  IXGBE_MESSAGE_NACK,
  IXGBE_PF_CONTROL,
  IXGBE_VF_API_NEGOTIATE,
  IXGBE_VF_FEATURES_NEGOTIATE,
  IXGBE_VF_GET_LINK_STATE,
  IXGBE_VF_GET_PF_LINK_STATE,
  IXGBE_VF_GET_QUEUES,
  IXGBE_VF_GET_RETA,
  IXGBE_VF_GET_RSS_KEY,
  IXGBE_VF_IPSEC_ADD,
  IXGBE_VF_IPSEC_DEL,
  IXGBE_VF_RESET,
  IXGBE_VF_SET_LPE,
  IXGBE_VF_SET_MAC,
  IXGBE_VF_SET_MACVLAN,
  IXGBE_VF_SET_MULTICAST,
  IXGBE_VF_SET_VLAN,
  IXGBE_VF_UPDATE_XCAST_MODE,
  IXGBE_VFMAILBOX_PF_ACK,
  IXGBE_VFMAILBOX_PF_STATUS,
  IXGBE_VFMAILBOX_REQUEST,
  IXGBE_VFMAILBOX_VF_OWNS,
  IXGBE_XCAST_ALL_MULTICAST,
  IXGBE_XCAST_MULTICAST,
  IXGBE_XCAST_NONE,
  IXGBE_XCAST_PROMISCUOUS,
} from '../../spec/ixgbe-mailbox.ts';
import { isAcked, isNacked, TestPort, type TestVf } from './testing-vf-policy.ts';
import { NOBODY, WIRE } from './veb.ts';

const ADD = 1 << 16;
const MAC = '52:54:00:00:00:03';
const OTHER = '52:54:00:00:00:04';

/** An address as messages have it: two words. */
function words(mac: string): [number, number] {
  const bytes = parseMac(mac);
  return [macLow(bytes), macHigh(bytes)];
}

function pool({ veb }: TestPort, mac: string, vlan = 0): number {
  return veb.route(WIRE, ...words(mac), vlan);
}

/** A port with one VF, whose driver has begun. */
function begun(settings = {}, api = IXGBE_API_17): { port: TestPort; vf: TestVf } {
  const port = new TestPort();
  const vf = port.add(3, settings);
  vf.driver.begin(api);
  return { port, vf };
}

test('RESET is answered with the address, without leave to send', () => {
  const port = new TestPort();
  const answer = port.add(3, { mac: MAC }).driver.ask(IXGBE_VF_RESET);
  assert.equal(answer[0], (IXGBE_VF_RESET | IXGBE_MESSAGE_ACK) >>> 0);
  assert.deepEqual(answer.slice(1, 3), words(MAC));
  assert.equal(answer[3], 0, 'which bits of addresses are hashed');
  assert.equal(pool(port, MAC), 3);
});

test('RESET without an address is refused one: the driver makes its own', () => {
  const port = new TestPort();
  const { driver } = port.add(3);
  const answer = driver.ask(IXGBE_VF_RESET);
  assert.equal(answer[0], (IXGBE_VF_RESET | IXGBE_MESSAGE_NACK) >>> 0);
  assert.ok(isAcked(driver.ask(IXGBE_VF_SET_MAC, ...words(OTHER))));
  assert.equal(pool(port, OTHER), 3);
});

test('a first address is told like one that is set, but may be changed', () => {
  const port = new TestPort();
  const { driver } = port.add(3, {}, parseMac(MAC));
  assert.deepEqual(driver.begin(IXGBE_API_13).slice(1, 3), words(MAC));
  assert.ok(isAcked(driver.ask(IXGBE_VF_SET_MAC, ...words(OTHER))));
  assert.equal(pool(port, MAC), NOBODY);
  assert.equal(pool(port, OTHER), 3);
  assert.deepEqual(driver.ask(IXGBE_VF_RESET).slice(1, 3), words(MAC), 'a reset brings it back');
});

test('nothing is done for a VF that was not reset', () => {
  const port = new TestPort();
  const { driver } = port.add(3);
  const answer = driver.ask(IXGBE_VF_SET_MAC, ...words(OTHER));
  assert.equal(answer[0], (IXGBE_VF_SET_MAC | IXGBE_MESSAGE_NACK) >>> 0, 'and no leave to send');
  assert.equal(pool(port, OTHER), NOBODY);
});

test('versions 1.0 to 1.7 are agreed upon, others are not', () => {
  for (let version = 0; version < 12; version++) {
    const { vf } = begun();
    const answer = vf.driver.ask(IXGBE_VF_API_NEGOTIATE, version);
    const expected = version <= IXGBE_API_17 && version !== IXGBE_API_20;
    assert.equal(isAcked(answer), expected, `version ${version}`);
  }
});

test('a reset ends what was agreed upon', () => {
  const { port, vf } = begun();
  assert.equal(port.policy.describe(3).api, '1.7');
  vf.driver.ask(IXGBE_VF_RESET);
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_GET_QUEUES)), 'API 1.0 has not got it');
  port.policy.functionReset(3);
  assert.equal(port.policy.describe(3).api, undefined);
});

test('messages of later versions than agreed upon are refused', () => {
  const since: [number, number][] = [
    [IXGBE_VF_GET_QUEUES, IXGBE_API_11],
    [IXGBE_VF_GET_RETA, IXGBE_API_12],
    [IXGBE_VF_GET_RSS_KEY, IXGBE_API_12],
    [IXGBE_VF_UPDATE_XCAST_MODE, IXGBE_API_12],
    [IXGBE_VF_GET_LINK_STATE, IXGBE_API_12],
    [IXGBE_VF_GET_PF_LINK_STATE, IXGBE_API_16],
    [IXGBE_VF_FEATURES_NEGOTIATE, IXGBE_API_17],
  ];
  for (const [request, first] of since) {
    for (let api = IXGBE_API_10; api <= IXGBE_API_17; api++) {
      if (api === IXGBE_API_20) continue;
      const { vf } = begun({ query_rss: true }, api);
      const answer = vf.driver.ask(request, 0);
      assert.equal(isAcked(answer), api >= first, `message ${request}, version ${api}`);
    }
  }
});

test('unknown messages and IPsec are refused, and the next is answered', () => {
  const { vf } = begun();
  for (const request of [
    0,
    0x07,
    0x0f,
    0x13,
    0x99,
    0xffff,
    IXGBE_VF_IPSEC_ADD,
    IXGBE_VF_IPSEC_DEL,
  ]) {
    assert.ok(isNacked(vf.driver.ask(request, 1, 2, 3)), `message ${request}`);
  }
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_GET_QUEUES)));
});

test('an answer that comes back is no request', () => {
  const { vf } = begun();
  vf.driver.has(IXGBE_VFMAILBOX_PF_STATUS);
  vf.driver.send([(IXGBE_VF_GET_QUEUES | IXGBE_MESSAGE_ACK) >>> 0]);
  assert.ok(vf.driver.has(IXGBE_VFMAILBOX_PF_ACK));
  assert.ok(!vf.driver.has(IXGBE_VFMAILBOX_PF_STATUS));
});

test('the address that is set cannot be changed without trust', () => {
  const { port, vf } = begun({ mac: MAC });
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_SET_MAC, ...words(OTHER))));
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_MAC, ...words(MAC))), 'the same one');
  assert.match(port.logged.join(), /nic0\/0\/vf3.*52:54:00:00:00:03/);
  port.policy.set(3, { trust: true });
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_MAC, ...words(OTHER))));
  assert.equal(pool(port, OTHER), 3);
  assert.equal(pool(port, MAC), NOBODY);
  assert.equal(port.policy.describe(3).address, OTHER);
});

test('addresses that a guest chose end with its trust, and where one is set', () => {
  const { port, vf } = begun({ mac: MAC, trust: true });
  const further = '52:54:00:00:00:77';
  vf.driver.ask(IXGBE_VF_SET_MAC, ...words(OTHER));
  vf.driver.ask(IXGBE_VF_SET_MACVLAN | ADD, ...words(further));
  assert.deepEqual([pool(port, OTHER), pool(port, further)], [3, 3]);
  port.policy.set(3, { trust: false });
  assert.deepEqual(
    [MAC, OTHER, further].map((mac) => pool(port, mac)),
    [3, NOBODY, NOBODY],
  );
  assert.equal(vf.driver.read()[0], IXGBE_PF_CONTROL, 'it is to begin anew');
  port.policy.set(3, { trust: true });
  vf.driver.begin(IXGBE_API_13);
  vf.driver.ask(IXGBE_VF_SET_MAC, ...words(OTHER));
  port.policy.set(3, { vlan: 5 });
  assert.equal(pool(port, MAC, 5), 3, 'in another network it begins with its own');
  assert.equal(vf.driver.read()[0], IXGBE_PF_CONTROL, 'and is told so');
  const free = port.add(4);
  free.driver.begin(IXGBE_API_13);
  free.driver.ask(IXGBE_VF_SET_MACVLAN | ADD, ...words(further));
  assert.equal(pool(port, further), 4);
  port.policy.set(4, { mac: OTHER });
  assert.deepEqual([pool(port, OTHER), pool(port, further)], [4, NOBODY]);
});

test('addresses of groups and zeros are refused', () => {
  const { vf } = begun({ trust: true });
  for (const mac of ['01:00:5e:00:00:01', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00']) {
    assert.ok(isNacked(vf.driver.ask(IXGBE_VF_SET_MAC, ...words(mac))), mac);
    assert.ok(isNacked(vf.driver.ask(IXGBE_VF_SET_MACVLAN | ADD, ...words(mac))), mac);
  }
});

test('a guest cannot take another VF’s address', () => {
  const port = new TestPort();
  const one = port.add(1, { mac: MAC });
  const other = port.add(2, { trust: true });
  one.driver.begin(IXGBE_API_13);
  other.driver.begin(IXGBE_API_13);
  assert.ok(isNacked(other.driver.ask(IXGBE_VF_SET_MAC, ...words(MAC))));
  assert.ok(isNacked(other.driver.ask(IXGBE_VF_SET_MACVLAN | ADD, ...words(MAC))));
  assert.equal(pool(port, MAC), 1);
});

test('the administrator’s address is taken from a guest that chose it', () => {
  const port = new TestPort();
  const one = port.add(1);
  one.driver.begin(IXGBE_API_13);
  one.driver.ask(IXGBE_VF_SET_MAC, ...words(MAC));
  port.add(2, { mac: MAC });
  assert.equal(pool(port, MAC), 2);
  assert.equal(one.mailbox.readWord(0), IXGBE_PF_CONTROL, 'it is to begin anew');
});

test('multicast hashes come two in a word, and take the place of those before', () => {
  const { port, vf } = begun();
  const group = (hash: number): number => port.veb.route(WIRE, 1, hash << 4, 0);
  const list = [0x123, 0xfff, 0x001];
  const packed = [0x123 | (0xfff << 16), 0x001];
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_MULTICAST | (3 << 16), ...packed)));
  for (const hash of list) assert.equal(group(hash), 3, `${hash}`);
  assert.equal(group(0x124), NOBODY);
  vf.driver.ask(IXGBE_VF_SET_MULTICAST | (1 << 16), 0x124);
  assert.equal(group(0x123), NOBODY);
  assert.equal(group(0x124), 3);
});

test('a count of hashes that no message holds is cut', () => {
  const { vf } = begun();
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_MULTICAST | (255 << 16), ...new Array(15).fill(0))));
});

test('VLANs are added and removed, 0 does not matter', () => {
  const { port, vf } = begun({ mac: MAC });
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_VLAN | ADD, 10)));
  assert.equal(pool(port, MAC, 10), 3);
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_VLAN | ADD, 0)));
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_VLAN, 0)));
  assert.equal(pool(port, MAC), 3);
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_VLAN, 10)));
  assert.equal(pool(port, MAC, 10), NOBODY);
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_SET_VLAN | ADD, 4095)));
});

test('one guest cannot keep the others from a VLAN for ever', () => {
  const { port, vf } = begun();
  let added = 0;
  for (let vlan = 1; vlan < 200; vlan++) {
    if (isAcked(vf.driver.ask(IXGBE_VF_SET_VLAN | ADD, vlan))) added++;
  }
  assert.equal(added, 64, 'the table of the card');
  port.add(4, { vlan: 1000, mac: OTHER });
  assert.equal(pool(port, OTHER, 1000), 4, 'what the administrator sets has its place');
});

test('with a VLAN of the port guests have none of their own, and see no tags', () => {
  const { port, vf } = begun({ mac: MAC, vlan: 20, qos: 5 });
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_SET_VLAN | ADD, 10)));
  assert.equal(pool(port, MAC, 20), 3);
  assert.equal(pool(port, MAC), NOBODY);
  assert.equal(port.policy.portTci(3), 20 | (5 << 13));
  assert.equal(vf.driver.ask(IXGBE_VF_GET_QUEUES)[3], 1);
});

test('a VLAN of the port takes the place of the guest’s, and gives it back untagged', () => {
  const { port, vf } = begun({ mac: MAC });
  vf.driver.ask(IXGBE_VF_SET_VLAN | ADD, 10);
  port.policy.set(3, { vlan: 20 });
  assert.equal(pool(port, MAC, 10), NOBODY);
  assert.equal(pool(port, MAC, 20), 3);
  port.policy.set(3, { vlan: 21 });
  assert.equal(pool(port, MAC, 20), NOBODY);
  port.policy.set(3, { vlan: 0 });
  assert.equal(pool(port, MAC, 21), NOBODY);
  assert.equal(pool(port, MAC), 3);
  assert.deepEqual(port.changed, [3, 3, 3, 3]);
});

test('frames may be as long as the API has them', () => {
  const { port, vf } = begun({ mac: MAC });
  assert.equal(vf.longest, 1514);
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_LPE, 9018)));
  assert.equal(vf.longest, 9014);
  for (const bytes of [0, 67, 9729, 0xffff_ffff]) {
    assert.ok(isNacked(vf.driver.ask(IXGBE_VF_SET_LPE, bytes)), `${bytes}`);
  }
  vf.driver.begin(IXGBE_API_10);
  assert.equal(vf.longest, 1514, 'after a reset');
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_SET_LPE, 9018)));
  assert.equal(pool(port, MAC), NOBODY, 'it gets nothing');
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_LPE, 1518)));
  assert.equal(pool(port, MAC), 3);
});

test('further addresses: a list is begun, continued and cleared', () => {
  const { port, vf } = begun();
  const macs = [1, 2, 3].map((i) => `52:54:00:00:01:0${i}`);
  for (const [i, mac] of macs.entries()) {
    assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_MACVLAN | ((i + 1) << 16), ...words(mac))));
  }
  for (const mac of macs) assert.equal(pool(port, mac), 3);
  assert.deepEqual(port.policy.describe(3).macvlans, macs);
  vf.driver.ask(IXGBE_VF_SET_MACVLAN | ADD, ...words(OTHER));
  assert.equal(pool(port, macs[0] as string), NOBODY, 'a new list');
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_MACVLAN)));
  assert.equal(pool(port, OTHER), NOBODY);
});

test('further addresses are refused where one is set, and have an end', () => {
  const { port, vf } = begun({ mac: MAC });
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_SET_MACVLAN | ADD, ...words(OTHER))));
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_MACVLAN)), 'there are none to clear');
  port.policy.set(3, { trust: true });
  let added = 0;
  for (let i = 1; i < 200; i++) {
    const answer = vf.driver.ask(IXGBE_VF_SET_MACVLAN | (i << 16), 0x5254, i);
    if (isAcked(answer)) added++;
  }
  assert.equal(added, 16);
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_SET_MAC, ...words(OTHER))), 'its own has a place');
});

test('all VFs together find a place for their own addresses, whatever some ask for', () => {
  const port = new TestPort();
  for (let i = 0; i < 63; i++) {
    const vf = port.add(i, { trust: true });
    vf.driver.begin(IXGBE_API_13);
    for (let k = 1; k <= 16; k++) {
      vf.driver.ask(IXGBE_VF_SET_MACVLAN | (k << 16), 0x5254 + (i << 16), k << 8);
    }
  }
  for (let i = 0; i < 63; i++) port.policy.set(i, { mac: `52:54:00:00:02:${hex(i)}` });
  for (let i = 0; i < 63; i++) assert.equal(pool(port, `52:54:00:00:02:${hex(i)}`), i);
});

test('queues, redirection table and key are told', () => {
  const { port, vf } = begun({ query_rss: true });
  assert.deepEqual(vf.driver.ask(IXGBE_VF_GET_QUEUES).slice(1, 5), [2, 2, 0, 0]);
  // Sixteen entries of two bits, queues 0 and 1 in turn.
  assert.deepEqual(vf.driver.ask(IXGBE_VF_GET_RETA).slice(1, 9), new Array(8).fill(0x4444_4444));
  const key = vf.driver.ask(IXGBE_VF_GET_RSS_KEY).slice(1, 11);
  assert.deepEqual(key, Array.from(port.policy.rss.key));
  port.policy.set(3, { query_rss: false });
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_GET_RETA)));
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_GET_RSS_KEY)));
});

test('modes beyond multicast are for trusted VFs', () => {
  const { port, vf } = begun({ mac: MAC });
  const ask = (mode: number): number =>
    vf.driver.ask(IXGBE_VF_UPDATE_XCAST_MODE, mode)[1] as number;
  const [far, high] = words(OTHER);
  assert.equal(ask(IXGBE_XCAST_PROMISCUOUS), IXGBE_XCAST_MULTICAST);
  assert.equal(port.veb.route(WIRE, far, high, 0), NOBODY);
  port.policy.set(3, { trust: true });
  assert.equal(ask(IXGBE_XCAST_ALL_MULTICAST), IXGBE_XCAST_ALL_MULTICAST);
  assert.equal(port.veb.route(WIRE, 0x1, 0x5678, 0), 3, 'any multicast');
  assert.equal(port.veb.route(WIRE, far, high, 0), NOBODY);
  assert.equal(ask(IXGBE_XCAST_PROMISCUOUS), IXGBE_XCAST_PROMISCUOUS);
  assert.equal(port.veb.route(WIRE, far, high, 0), 3);
  assert.equal(port.policy.describe(3).mode, 'promiscuous');
  port.policy.set(3, { trust: false });
  assert.equal(port.veb.route(WIRE, far, high, 0), NOBODY, 'trust that ends takes the mode along');
  assert.equal(port.policy.describe(3).mode, 'multicast');
  assert.equal(ask(IXGBE_XCAST_NONE), IXGBE_XCAST_NONE);
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_UPDATE_XCAST_MODE, 4)));
});

test('API 1.2 has no promiscuous mode', () => {
  const { vf } = begun({ trust: true }, IXGBE_API_12);
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_UPDATE_XCAST_MODE, IXGBE_XCAST_PROMISCUOUS)));
  assert.ok(isAcked(vf.driver.ask(IXGBE_VF_UPDATE_XCAST_MODE, IXGBE_XCAST_ALL_MULTICAST)));
});

test('the link follows the wire, or is up or down for ever', () => {
  const expected = { auto: [1, 0], enable: [1, 1], disable: [0, 0] } as const;
  for (const state of ['auto', 'enable', 'disable'] as const) {
    const { port, vf } = begun({ state, mac: MAC });
    for (const [down, up] of expected[state].entries()) {
      port.policy.setWireLink(down === 0);
      assert.equal(vf.link, up === 1, state);
      assert.equal(vf.driver.ask(IXGBE_VF_GET_LINK_STATE)[1], up, state);
      const told = vf.driver.ask(IXGBE_VF_GET_PF_LINK_STATE);
      assert.deepEqual(told.slice(1, 3), [IXGBE_LINK_SPEED_10G, up]);
      assert.equal(pool(port, MAC), up === 1 ? 3 : NOBODY, state);
    }
  }
});

test('a change of the wire’s link is told, with leave to send', () => {
  const { port, vf } = begun();
  vf.driver.has(IXGBE_VFMAILBOX_PF_STATUS);
  port.policy.setWireLink(false);
  assert.ok(vf.driver.has(IXGBE_VFMAILBOX_PF_STATUS));
  assert.equal(vf.driver.read()[0], (IXGBE_PF_CONTROL | IXGBE_MESSAGE_CLEAR_TO_SEND) >>> 0);
  port.policy.setWireLink(false);
  assert.ok(!vf.driver.has(IXGBE_VFMAILBOX_PF_STATUS), 'nothing has changed');
});

test('a change of state makes the driver begin anew, as with Linux’s ixgbe', () => {
  const { port, vf } = begun();
  port.policy.set(3, { state: 'disable' });
  assert.equal(vf.driver.read()[0], IXGBE_PF_CONTROL, 'no leave to send');
  assert.equal(vf.driver.read()[0], IXGBE_MESSAGE_NACK, 'reading on, it is told so');
  assert.ok(isNacked(vf.driver.ask(IXGBE_VF_GET_QUEUES)));
  vf.driver.begin(IXGBE_API_17);
  assert.equal(vf.driver.ask(IXGBE_VF_GET_LINK_STATE)[1], 0);
});

test('an address that is set at run time is the VF’s once its driver began anew', () => {
  const { port, vf } = begun();
  port.policy.set(3, { mac: MAC });
  assert.equal(vf.driver.read()[0], IXGBE_PF_CONTROL);
  assert.deepEqual(vf.driver.begin(IXGBE_API_17).slice(1, 3), words(MAC));
});

test('features: none of those that are asked for', () => {
  const { vf } = begun();
  const answer = vf.driver.ask(IXGBE_VF_FEATURES_NEGOTIATE, 3);
  assert.ok(isAcked(answer));
  assert.equal(answer[1], 0);
});

test('the protocol of API 1.5: the words are given back after the acknowledgement', () => {
  const { vf } = begun({ mac: MAC }, IXGBE_API_15);
  const { mailbox, driver } = vf;
  mailbox.writeControl(IXGBE_VFMAILBOX_VF_OWNS);
  mailbox.readControl();
  mailbox.writeWord(0, IXGBE_VF_GET_LINK_STATE);
  mailbox.writeControl(IXGBE_VFMAILBOX_VF_OWNS | IXGBE_VFMAILBOX_REQUEST);
  assert.ok(driver.has(IXGBE_VFMAILBOX_PF_ACK));
  mailbox.writeControl(0);
  assert.ok(driver.has(IXGBE_VFMAILBOX_PF_STATUS));
  assert.ok(isAcked(driver.read()));
});

test('settings are all taken, or none', () => {
  const { port } = begun({ mac: MAC, vlan: 10 });
  const before = port.policy.describe(3);
  assert.throws(
    () => port.policy.set(3, { vlan: 20, min_tx_rate: 5, max_tx_rate: 3 }),
    SluiceError,
  );
  assert.throws(() => port.policy.set(3, { spoofchk: false, proto: '802.1ad' }), SluiceError);
  assert.deepEqual(port.policy.describe(3), before);
  assert.equal(pool(port, MAC, 10), 3);
});

test('settings in place of others end what is not among them', () => {
  const { port } = begun({ mac: MAC, vlan: 10, qos: 3, max_tx_rate: 100, trust: true });
  port.policy.replace(3, {
    ...port.policy.settings(3),
    vlan: 0,
    qos: 0,
    max_tx_rate: 0,
    trust: false,
  });
  const now = port.policy.describe(3);
  assert.deepEqual([now.vlan, now.qos, now.max_tx_rate, now.trust], [0, 0, 0, false]);
  assert.equal(pool(port, MAC), 3);
});

test('two VFs that contradict each other are refused, and named', () => {
  const { port } = begun({ mac: MAC });
  assert.throws(() => port.add(4, { mac: MAC }), /vf3.*vf4/);
  port.add(4, { mac: MAC, vlan: 5 });
  assert.throws(() => port.policy.set(4, { vlan: 0 }), /vf3.*vf4/);
  assert.throws(() => port.policy.set(9, {}), /no VF 9/);
});

test('sources are checked as it is set', () => {
  const { port } = begun({ mac: MAC });
  const may = (mac: string): boolean => port.veb.allowsSource(3, ...words(mac));
  assert.ok(may(MAC));
  assert.ok(!may(OTHER));
  port.policy.set(3, { spoofchk: false });
  assert.ok(may(OTHER));
});

test('a VF that is removed is nobody’s neighbour any more', () => {
  const { port, vf } = begun({ mac: MAC, vlan: 10 });
  port.policy.remove(3);
  assert.equal(pool(port, MAC, 10), NOBODY);
  vf.driver.send([IXGBE_VF_RESET]);
  assert.ok(!vf.driver.has(IXGBE_VFMAILBOX_PF_STATUS));
  port.add(3, { mac: MAC });
  assert.equal(pool(port, MAC), 3);
});

test('whatever a guest sends, it is answered at once and others keep what they have', () => {
  const word = fc.oneof(
    fc.nat(0x12),
    fc.integer({ min: 0, max: 0xffff_ffff }),
    fc.constantFrom(...words(MAC), ...words(OTHER)),
  );
  const message = fc.tuple(
    fc.oneof(
      fc.tuple(fc.nat(0x13), fc.nat(3)).map(([request, info]) => request | (info << 16)),
      fc.integer({ min: 0, max: 0xffff_ffff }),
    ),
    fc.array(word, { maxLength: 15 }),
  );
  fc.assert(
    fc.property(fc.array(message, { maxLength: 40 }), fc.boolean(), (messages, trust) => {
      const port = new TestPort();
      port.add(1, { mac: MAC });
      const { driver } = port.add(2, { trust, mac: OTHER });
      driver.begin(IXGBE_API_17);
      for (const [request, rest] of messages) {
        driver.send([request, ...rest]);
        assert.ok(driver.has(IXGBE_VFMAILBOX_PF_ACK));
        const isAnswer = request >>> 30 !== 0;
        assert.equal(driver.has(IXGBE_VFMAILBOX_PF_STATUS), !isAnswer);
      }
      assert.ok(port.veb.inVlan(1, 0));
      port.policy.functionReset(2);
      assert.equal(pool(port, MAC), 1);
      assert.equal(pool(port, OTHER), 2);
      assert.deepEqual(port.veb.vlansOf(2), []);
      assert.equal(port.veb.addressCount, 2);
    }),
    { numRuns: 200 },
  );
});

function hex(value: number): string {
  return value.toString(16).padStart(2, '0');
}
