import assert from 'node:assert/strict';
import test from 'node:test';
import * as net from './ethernet.ts';

test('headers end where their last field ends', () => {
  assert.equal(net.ETHERNET_TYPE + 2, net.ETHERNET_HEADER_BYTES);
  assert.equal(net.ETHERNET_SOURCE - net.ETHERNET_DESTINATION, net.MAC_BYTES);
  assert.equal(net.ARP_TARGET_IP + 4, net.ARP_BYTES);
  assert.equal(net.IPV4_DESTINATION + 4, net.IPV4_MIN_HEADER_BYTES);
  assert.equal(net.IPV6_DESTINATION + 16, net.IPV6_HEADER_BYTES);
  assert.equal(net.TCP_URGENT + 2, net.TCP_MIN_HEADER_BYTES);
  assert.equal(net.UDP_CHECKSUM + 2, net.UDP_HEADER_BYTES);
});

test('the largest headers are what their four-bit length fields allow', () => {
  assert.equal(net.IPV4_MAX_HEADER_BYTES, 0xf * 4);
  assert.equal(net.TCP_MAX_HEADER_BYTES, 0xf * 4);
});

test('the parts of tag control information fill sixteen bits and do not overlap', () => {
  const priority = net.VLAN_PRIORITY_MAX << net.VLAN_PRIORITY_SHIFT;
  assert.equal(net.VLAN_ID_MASK + net.VLAN_DEI + priority, 0xffff);
  assert.equal(net.VLAN_ID_MASK & net.VLAN_DEI, 0);
  assert.equal(net.VLAN_ID_MASK + 1, net.VLAN_IDS);
});

test('TCP flags are eight distinct bits', () => {
  const flags = [
    net.TCP_FIN,
    net.TCP_SYN,
    net.TCP_RST,
    net.TCP_PSH,
    net.TCP_ACK,
    net.TCP_URG,
    net.TCP_ECE,
    net.TCP_CWR,
  ];
  assert.equal(
    flags.reduce((mask, flag) => mask | flag, 0),
    0xff,
  );
});
