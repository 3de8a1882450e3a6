import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { bitMask } from '../../base/bits.ts';
import { VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from '../../spec/virtio.ts';
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_MRG_RXBUF,
} from '../../spec/virtio-net.ts';
import { DEFAULT_NET_WISHES, negotiateNet } from './negotiation.ts';

describe('negotiateNet', () => {
  it('never takes what is not offered, nor offloads without the checksum that they need', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        fc.record({
          packed: fc.boolean(),
          eventIdx: fc.boolean(),
          indirect: fc.boolean(),
          inOrder: fc.boolean(),
          mergeable: fc.boolean(),
          checksum: fc.boolean(),
          segmentation: fc.boolean(),
          multiqueue: fc.boolean(),
        }),
        (random, wishes) => {
          const offered = random | bitMask(VIRTIO_F_VERSION_1);
          const features = negotiateNet(offered, wishes);
          const has = (number: number): boolean => (features.bits & bitMask(number)) !== 0n;
          assert.equal(features.bits & ~offered, 0n);
          assert.ok(has(VIRTIO_F_VERSION_1));
          assert.equal(has(VIRTIO_F_RING_PACKED), features.packed);
          if (!wishes.packed) assert.ok(!features.packed);
          if (!wishes.mergeable) assert.ok(!has(VIRTIO_NET_F_MRG_RXBUF));
          if (has(VIRTIO_NET_F_HOST_TSO4)) assert.ok(has(VIRTIO_NET_F_CSUM));
          if (has(VIRTIO_NET_F_HOST_ECN)) {
            assert.ok(has(VIRTIO_NET_F_HOST_TSO4) || has(VIRTIO_NET_F_HOST_TSO6));
          }
          if (features.receivesLarge) assert.ok(has(VIRTIO_NET_F_GUEST_CSUM));
          if (has(VIRTIO_NET_F_GUEST_TSO4)) assert.ok(features.receivesLarge);
          if (has(VIRTIO_NET_F_GUEST_USO6)) assert.ok(features.receivesLarge);
          if (!wishes.segmentation) assert.ok(!features.sendTso4 && !features.receivesLarge);
        },
      ),
    );
  });

  it('refuses a legacy device', () => {
    assert.throws(() => negotiateNet(bitMask(VIRTIO_NET_F_CSUM), DEFAULT_NET_WISHES), {
      code: 'unsupported',
    });
  });
});
