import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ApiReply } from '../control/api.ts';
import { newPortCounters } from '../net/port.ts';
import { vfLines, vfsText } from './show-vfs.ts';

type Vf = ApiReply<'vfs'>[number];

const PLAIN: Vf = {
  function: 'nic0/0/vf3',
  nic: 'nic0/0',
  vf: 3,
  port: 'web/net0',
  socket: '/run/web-net0.sock',
  lane: 0,
  connected: true,
  running: true,
  address: '52:54:00:00:00:03',
  link: true,
  mac: null,
  vlan: 0,
  qos: 0,
  proto: '802.1Q',
  max_tx_rate: 0,
  min_tx_rate: 0,
  spoofchk: true,
  query_rss: false,
  state: 'auto',
  trust: false,
  api: null,
  mode: 'none',
  vlans: [],
  macvlans: [],
  spoofed: 0,
  counters: newPortCounters().snapshot(),
};

test('a function as ip -s link show tells of it', () => {
  const counters = {
    ...PLAIN.counters,
    rx_bytes: 123456789,
    rx_frames: 1000,
    rx_drop_no_buffer: 2,
    rx_drop_too_big: 1,
    tx_bytes: 64,
    tx_frames: 1,
    tx_drop_vlan: 4,
  };
  assert.deepEqual(vfLines({ ...PLAIN, counters, spoofed: 7 }), [
    '    vf 3     link/ether 52:54:00:00:00:03 brd ff:ff:ff:ff:ff:ff, spoof checking on, link-state auto, trust off, query_rss off',
    '        web/net0 running, link up',
    '    RX: bytes  packets  dropped',
    '    123456789  1000     3',
    '    TX: bytes  packets  dropped  spoofed',
    '    64         1        4        7',
  ]);
});

test('what was set is told in the words of ip link', () => {
  const [line] = vfLines({
    ...PLAIN,
    vlan: 10,
    qos: 3,
    proto: '802.1ad',
    max_tx_rate: 1000,
    min_tx_rate: 100,
    spoofchk: false,
    query_rss: true,
    state: 'disable',
    trust: true,
  });
  assert.match(
    line ?? '',
    /ff:ff, vlan 10, qos 3, vlan protocol 802\.1ad, max_tx_rate 1000Mbps, min_tx_rate 100Mbps, spoof checking off, link-state disable, trust on, query_rss on$/,
  );
});

test('what its guest asked for is told, if one uses it', () => {
  const asked = {
    ...PLAIN,
    api: '1.5',
    mode: 'promiscuous',
    vlans: [10, 20],
    macvlans: ['52:54:00:00:aa:01'],
  } as const;
  const [, line] = vfLines(asked);
  assert.equal(
    line,
    '        web/net0 running, link up, mailbox API 1.5, mode promiscuous, vlans 10 20, macvlans 52:54:00:00:aa:01',
  );
  const [, idle] = vfLines({ ...asked, mode: 'multicast', vlans: [], macvlans: [] });
  assert.equal(idle, '        web/net0 running, link up, mailbox API 1.5, mode multicast');
});

test('functions are told by port, in the order of their numbers', () => {
  const text = vfsText([
    { ...PLAIN, vf: 7 },
    { ...PLAIN, nic: 'nic0/1', vf: 1 },
    { ...PLAIN, vf: 0, connected: false, running: false, link: false },
  ]);
  assert.deepEqual(
    text.split('\n').flatMap((line) => /^(nic.*| {4}vf \d+| {8}web.*)/.exec(line)?.[1] ?? []),
    [
      'nic0/0:',
      '    vf 0',
      '        web/net0 waiting, link down',
      '    vf 7',
      '        web/net0 running, link up',
      'nic0/1:',
      '    vf 1',
      '        web/net0 running, link up',
    ],
  );
  assert.equal(vfsText([]), 'no virtual functions\n');
});
