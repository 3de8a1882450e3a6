import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { packedRingBytes, splitRingBytes, VIRTIO_F_RING_PACKED } from '../../spec/virtio.ts';
import { DEFAULT_NET_WISHES, negotiateNet } from './negotiation.ts';
import { LARGE_RECEIVE_BYTES, planNetDriver, receiveBytesFor } from './net-driver.ts';

const BASE = 0x1_0000_0000;
const ALL = 2n ** 64n - 1n;

describe('planNetDriver', () => {
  it('lays queues and buffers out without overlap', () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 0, max: 10 }),
        fc.integer({ min: 1, max: 70000 }),
        fc.integer({ min: 1, max: 70000 }),
        fc.nat(),
        (packed, queuePairs, exponent, sendBytes, receiveBytes, seed) => {
          const features = negotiateNet(ALL, { ...DEFAULT_NET_WISHES, packed });
          const queueSize = 2 ** exponent;
          const sendFrames = 1 + (seed % queueSize);
          const receiveBuffers = 1 + (Math.floor(seed / 7) % queueSize);
          const plan = planNetDriver(
            features,
            { queuePairs, queueSize, sendBytes, sendFrames, receiveBytes, receiveBuffers },
            BASE,
          );
          const parts: [number, number][] = [];
          for (const layout of plan.queues) {
            const bytes = packed ? packedRingBytes(queueSize) : splitRingBytes(queueSize);
            parts.push(
              [layout.descriptor, bytes.descriptor],
              [layout.driver, bytes.driver],
              [layout.device, bytes.device],
              [layout.indirect, 16 * layout.indirectLength * queueSize],
            );
          }
          for (const { receive, send } of plan.pools) {
            parts.push([BASE + receive, receiveBuffers * receiveBytes]);
            parts.push([BASE + send, sendFrames * (12 + sendBytes)]);
          }
          parts.sort((a, b) => a[0] - b[0]);
          let end = 0;
          for (const [start, bytes] of parts.filter(([start]) => start !== 0)) {
            assert.ok(start >= end && start >= BASE);
            end = start + bytes;
          }
          assert.ok(end <= BASE + plan.bytes);
        },
      ),
    );
  });

  it('refuses more buffers than descriptors', () => {
    const features = negotiateNet(ALL & ~(1n << BigInt(VIRTIO_F_RING_PACKED)), DEFAULT_NET_WISHES);
    const options = {
      queuePairs: 1,
      queueSize: 64,
      sendBytes: 1514,
      sendFrames: 64,
      receiveBytes: 1536,
      receiveBuffers: 64,
    };
    assert.equal(planNetDriver(features, options, BASE).queues.length, 2);
    for (const wrong of [{ sendFrames: 65 }, { receiveBuffers: 65 }, { sendFrames: 0 }]) {
      assert.throws(() => planNetDriver(features, { ...options, ...wrong }, BASE), {
        code: 'config',
      });
    }
    assert.throws(() => planNetDriver(features, { ...options, queueSize: 100 }, BASE), {
      code: 'ring',
    });
  });
});

describe('receiveBytesFor', () => {
  it('holds the largest frame where buffers cannot be merged', () => {
    const merged = negotiateNet(ALL, DEFAULT_NET_WISHES);
    const single = negotiateNet(ALL, { ...DEFAULT_NET_WISHES, mergeable: false });
    const small = negotiateNet(ALL, {
      ...DEFAULT_NET_WISHES,
      mergeable: false,
      segmentation: false,
    });
    assert.equal(receiveBytesFor(1514, merged), 1536);
    assert.ok(receiveBytesFor(1514, single) >= LARGE_RECEIVE_BYTES);
    assert.equal(receiveBytesFor(1514, small), 1536);
    assert.ok(receiveBytesFor(65000, merged) >= 65012);
  });
});
