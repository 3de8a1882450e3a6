/** The hash, against the verification suite of Microsoft's "Verifying the RSS Hash Calculation". */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import * as ixgbe from '../../spec/ixgbe.ts';
import * as descriptors from '../../spec/ixgbe-descriptors.ts';
import { Rss, rssQueue } from './rss.ts';

const path = createDataPath(Arena.create(), new PollLoop());

const KEY = Buffer.from(
  '6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa',
  'hex',
);
const ALL =
  ixgbe.IXGBE_MRQC_IPV4 |
  ixgbe.IXGBE_MRQC_IPV4_TCP |
  ixgbe.IXGBE_MRQC_IPV4_UDP |
  ixgbe.IXGBE_MRQC_IPV6 |
  ixgbe.IXGBE_MRQC_IPV6_TCP |
  ixgbe.IXGBE_MRQC_IPV6_UDP;

function keyed(key: Buffer = KEY): Rss {
  const rss = new Rss(path);
  rss.setKey(Uint32Array.from({ length: 10 }, (_, i) => key.readUInt32LE(4 * i)));
  return rss;
}

function ipv4(protocol: number, tag = false): Buffer {
  const bytes = Buffer.alloc(tag ? 68 : 64);
  const at = tag ? 18 : 14;
  if (tag) bytes.writeUInt16BE(0x8100, 12);
  bytes.writeUInt16BE(0x0800, at - 2);
  bytes[at] = 0x45;
  bytes[at + 9] = protocol;
  bytes.set([66, 9, 149, 187, 161, 142, 100, 80], at + 12);
  bytes.writeUInt16BE(2794, at + 20);
  bytes.writeUInt16BE(1766, at + 22);
  return bytes;
}

function ipv6(protocol: number): Buffer {
  const bytes = Buffer.alloc(80);
  bytes.writeUInt16BE(0x86dd, 12);
  bytes[14] = 0x60;
  bytes[20] = protocol;
  bytes.set(Buffer.from('3ffe250102001fff0000000000000007', 'hex'), 22);
  bytes.set(Buffer.from('3ffe2501020000030000000000000001', 'hex'), 38);
  bytes.writeUInt16BE(2794, 54);
  bytes.writeUInt16BE(1766, 56);
  return bytes;
}

describe('receive side scaling', () => {
  const rows = [
    ['IPv4', ipv4(1), descriptors.IXGBE_RXD_RSS_IPV4, 0x323e8fc2],
    ['TCP over IPv4', ipv4(6), descriptors.IXGBE_RXD_RSS_IPV4_TCP, 0x51ccc178],
    ['UDP over IPv4, tagged', ipv4(17, true), descriptors.IXGBE_RXD_RSS_IPV4_UDP, 0x51ccc178],
    ['IPv6', ipv6(58), descriptors.IXGBE_RXD_RSS_IPV6, 0x2cc18cd5],
    ['TCP over IPv6', ipv6(6), descriptors.IXGBE_RXD_RSS_IPV6_TCP, 0x40207d3d],
    ['UDP over IPv6', ipv6(17), descriptors.IXGBE_RXD_RSS_IPV6_UDP, 0x40207d3d],
  ] as const;
  for (const [name, frame, type, hash] of rows) {
    test(`hashes ${name}`, () => {
      const rss = keyed();
      assert.equal(rss.classify(frame, 0, frame.length, ALL), type);
      assert.equal(rss.hash[0], hash);
    });
  }

  test('hashes no ports of fragments, and none that were not asked for', () => {
    const rss = keyed();
    const fragment = ipv4(6);
    fragment[20] = 0x20;
    assert.equal(rss.classify(fragment, 0, 64, ALL), descriptors.IXGBE_RXD_RSS_IPV4);
    assert.equal(rss.hash[0], 0x323e8fc2);
    const only = rss.classify(ipv4(6), 0, 64, ixgbe.IXGBE_MRQC_IPV4 | ixgbe.IXGBE_MRQC_IPV4_UDP);
    assert.equal(only, descriptors.IXGBE_RXD_RSS_IPV4);
    assert.equal(rss.classify(ipv4(6), 0, 64, ixgbe.IXGBE_MRQC_IPV6), 0);
    assert.equal(rss.hash[0], 0);
  });

  test('is linear: a bit of the input adds 32 bits of the key', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 40, maxLength: 40 }),
        fc.integer({ min: 0, max: 95 }),
        (key, index) => {
          const rss = keyed(Buffer.from(key));
          const frame = ipv4(6);
          rss.classify(frame, 0, 64, ALL);
          const before = rss.hash[0] as number;
          const at = 26 + (index >>> 3);
          frame[at] = (frame[at] as number) ^ (0x80 >>> (index & 7));
          rss.classify(frame, 0, 64, ALL);
          const bits = BigInt(`0x${Buffer.from(key).toString('hex')}`);
          const expected = Number((bits >> BigInt(320 - 32 - index)) & 0xffff_ffffn);
          assert.equal((before ^ (rss.hash[0] as number)) >>> 0, expected);
        },
      ),
      { numRuns: 50 },
    );
  });

  test('takes any bytes of any length', () => {
    const rss = keyed();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        assert.ok(rss.classify(bytes, 0, bytes.length, ALL) <= 8);
      }),
      { numRuns: 200 },
    );
  });

  test('looks the queue up by the lowest seven bits', () => {
    const table = Uint32Array.from(
      { length: 32 },
      (_, i) => (0x0302_0100 + i * 0x0101_0101) & 0x0f0f_0f0f,
    );
    assert.equal(rssQueue(table, 0, 0x51ccc178), (0x78 >>> 2) & 15);
    assert.equal(rssQueue(table, 0, 0xffff_ff83), 3);
  });
});
