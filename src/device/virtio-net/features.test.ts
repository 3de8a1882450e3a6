import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { bitMask } from '../../base/bits.ts';
import {
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_MRG_RXBUF,
} from '../../spec/virtio-net.ts';
import {
  OFFLOAD_FEATURES,
  type OffloadName,
  offeredFeatures,
  offloadFeatures,
  withRequirements,
} from './features.ts';

describe('features', () => {
  it('of the device stand on their own feet', () => {
    const offered = offeredFeatures(1, true);
    assert.equal(withRequirements(offered), offered);
  });

  it('without what they rest on are taken out, others stay', () => {
    const { csum, tso4, tso6, ecn, uso } = OFFLOAD_FEATURES;
    const other = bitMask(VIRTIO_NET_F_MRG_RXBUF);
    assert.equal(withRequirements(other | tso4 | tso6 | ecn | uso), other);
    assert.equal(withRequirements(csum | ecn | uso), csum | uso);
    assert.equal(withRequirements(csum | tso6 | ecn), csum | tso6 | ecn);
  });

  it('of any choice of offloads come whole or not at all', () => {
    const names = Object.keys(OFFLOAD_FEATURES) as OffloadName[];
    fc.assert(
      fc.property(fc.subarray(names), (chosen) => {
        const kept = withRequirements(offloadFeatures(chosen));
        for (const name of names) {
          const part = kept & OFFLOAD_FEATURES[name];
          assert.ok(part === 0n || (part === OFFLOAD_FEATURES[name] && chosen.includes(name)));
        }
        const ecn = bitMask(VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_GUEST_ECN);
        const segmented = chosen.includes('tso4') || chosen.includes('tso6');
        const wanted = chosen.includes('ecn') && chosen.includes('csum') && segmented;
        assert.equal((kept & ecn) !== 0n, wanted);
      }),
    );
  });
});
