import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseVf, parseVfWords } from './vf-words.ts';

const words = (text: string) => parseVfWords(text.split(' '));

test('which function: as ip link names a device, then vf NUM', () => {
  assert.deepEqual(parseVf(['nic0/0', 'vf', '3', 'vlan', '10']), {
    port: 'nic0/0',
    vf: 3,
    rest: ['vlan', '10'],
  });
  assert.deepEqual(parseVf(['nic0/1', 'vf', '0']).rest, []);
});

describe('what names no function is refused:', () => {
  for (const [phrase, message] of [
    [[], /^nothing is no port/],
    [['nic0', 'vf', '3'], /^nic0 is no port/],
    [['nic0/0'], /^expected vf NUM after nic0\/0/],
    [['nic0/0', '3'], /^expected vf NUM/],
    [['nic0/0', 'vf', 'three'], /^expected vf NUM/],
    [['nic0/0', 'vf', '-1'], /^expected vf NUM/],
    [['nic0/0', 'vf', '63'], /^vf 63: expected the number of a virtual function, 0 to 62$/],
    [['nic0/0', 'vf', '4096'], /^vf 4096: expected the number of a virtual function/],
  ] as const) {
    test(phrase.join(' ') || 'nothing', () => {
      assert.throws(() => parseVf(phrase), { code: 'usage', message });
    });
  }
});

test('every word of ip link set DEV vf NUM', () => {
  assert.deepEqual(
    words(
      'mac 52:54:00:00:00:0A vlan 10 qos 3 proto 802.1ad max_tx_rate 1000 min_tx_rate 10 spoofchk off query_rss on state disable trust on',
    ),
    {
      mac: '52:54:00:00:00:0A',
      vlan: 10,
      qos: 3,
      proto: '802.1ad',
      max_tx_rate: 1000,
      min_tx_rate: 10,
      spoofchk: 'off',
      query_rss: 'on',
      state: 'disable',
      trust: 'on',
    },
  );
});

test('the old word rate, and zeros that take an address back', () => {
  assert.deepEqual(words('rate 500'), { max_tx_rate: 500 });
  assert.deepEqual(words('mac 00:00:00:00:00:00'), { mac: '00:00:00:00:00:00' });
});

test('a VLAN comes with its priority and protocol: 0 and 802.1Q unless they are said', () => {
  assert.deepEqual(words('vlan 10'), { vlan: 10, qos: 0, proto: '802.1Q' });
  assert.deepEqual(words('vlan 0'), { vlan: 0, qos: 0, proto: '802.1Q' });
  assert.deepEqual(words('trust off'), { trust: 'off' });
});

test('what is told to say instead is what the card takes', () => {
  assert.throws(() => words('proto 802.1ad'), { remedy: 'as in: vlan 10 proto 802.1Q' });
});

describe('what cannot be said is refused:', () => {
  for (const [text, message] of [
    ['vlna 10', /^vlna is none of mac, vlan, .*did you mean "vlan"\?$/],
    ['vlan', /^vlan without its value$/],
    ['vlan 4095', /^vlan 4095: expected a VLAN id/],
    ['vlan ten', /^vlan ten: expected a VLAN id/],
    ['vlan 10 qos 8', /^qos 8: expected a priority, 0 to 7/],
    ['qos 3', /^qos without vlan$/],
    ['proto 802.1Q', /^proto without vlan$/],
    ['vlan 10 proto 802.1x', /^proto 802\.1x: expected one of 802\.1Q, 802\.1ad/],
    ['mac 01:00:5e:00:00:01', /^mac .*: expected a unicast MAC address/],
    ['rate 10 max_tx_rate 20', /^max_tx_rate is said twice$/],
    ['max_tx_rate -1', /^max_tx_rate -1: expected a rate/],
    ['spoofchk maybe', /^spoofchk maybe: expected on or off/],
    ['state up', /^state up: expected one of auto, enable, disable/],
  ] as const) {
    test(text, () => assert.throws(() => words(text), { code: 'usage', message }));
  }
});
