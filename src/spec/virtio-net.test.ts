import assert from 'node:assert/strict';
import test from 'node:test';
import * as net from './virtio-net.ts';

/** Checks that fields lie one behind the other without gaps and end at `bytes`. */
function assertLayout(
  fields: readonly (readonly [offset: number, bytes: number])[],
  bytes: number,
) {
  let next = 0;
  for (const [offset, length] of fields) {
    assert.equal(offset, next);
    next += length;
  }
  assert.equal(next, bytes);
}

test('virtio_net_hdr has the layout of §5.1.6', () => {
  assertLayout(
    [
      [net.NET_HEADER_FLAGS, 1],
      [net.NET_HEADER_GSO_TYPE, 1],
      [net.NET_HEADER_HDR_LEN, 2],
      [net.NET_HEADER_GSO_SIZE, 2],
      [net.NET_HEADER_CSUM_START, 2],
      [net.NET_HEADER_CSUM_OFFSET, 2],
      [net.NET_HEADER_NUM_BUFFERS, 2],
    ],
    net.NET_HEADER_BYTES,
  );
  assert.equal(net.NET_HEADER_LEGACY_BYTES, net.NET_HEADER_NUM_BUFFERS);
});

test('virtio_net_config has the layout of §5.1.4', () => {
  assertLayout(
    [
      [net.NET_CONFIG_MAC, 6],
      [net.NET_CONFIG_STATUS, 2],
      [net.NET_CONFIG_MAX_QUEUE_PAIRS, 2],
      [net.NET_CONFIG_MTU, 2],
      [net.NET_CONFIG_SPEED, 4],
      [net.NET_CONFIG_DUPLEX, 1],
      [net.NET_CONFIG_RSS_MAX_KEY_SIZE, 1],
      [net.NET_CONFIG_RSS_MAX_INDIRECTION, 2],
      [net.NET_CONFIG_HASH_TYPES, 4],
      [net.NET_CONFIG_TUNNEL_TYPES, 4],
    ],
    net.NET_CONFIG_BYTES,
  );
});

test('feature bits are distinct and below 64', () => {
  const bits = Object.entries(net)
    .filter(([name]) => name.startsWith('VIRTIO_NET_F_'))
    .map(([, bit]) => bit as number);
  assert.equal(new Set(bits).size, bits.length);
  assert.ok(bits.every((bit) => bit >= 0 && bit < 64));
});

test('queues of a pair lie side by side', () => {
  assert.deepEqual([net.receiveQueue(0), net.transmitQueue(0), net.receiveQueue(1)], [0, 1, 2]);
});
