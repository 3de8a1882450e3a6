import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { describe, test } from 'node:test';
import { closeFd, identify } from '../../os/fd.ts';
import { INFLIGHT_SPLIT, INFLIGHT_VERSION } from '../../spec/vhost-user.ts';
import { InflightArea, inflightRegionBytes } from './inflight.ts';

describe('in-flight area', () => {
  test('test_region_sizes', () => {
    // 16 + 128 * 16 and 32 + 128 * 32, rounded up to 64.
    assert.equal(inflightRegionBytes(128, false), 2112);
    assert.equal(inflightRegionBytes(128, true), 4160);
    assert.equal(inflightRegionBytes(1, false), 64);
  });

  test('test_what_was_noted_outlives_the_area', () => {
    const before = readdirSync('/proc/self/fd').length;
    const shape = { queues: 3, queueSize: 256, packed: false };
    const { area, fd } = InflightArea.create(shape);
    const region = area.region(2);
    region.set16(INFLIGHT_SPLIT.version, INFLIGHT_VERSION);
    region.set8(region.bytes - 1, 77);
    assert.ok(!area.isInitialized(1));
    area.release();
    const description = { ...shape, mmapSize: identify(fd).size, mmapOffset: 0, padded: true };
    const again = InflightArea.map(description, false, fd);
    assert.ok(again.isInitialized(2));
    assert.equal(again.region(2).get8(again.region(2).bytes - 1), 77);
    again.forgetPositions();
    assert.ok(!again.isInitialized(2));
    again.region(1).set16(INFLIGHT_SPLIT.version, INFLIGHT_VERSION);
    again.region(1).set8(INFLIGHT_SPLIT.headerBytes + 255 * INFLIGHT_SPLIT.entryBytes, 1);
    again.forgetPositions();
    assert.ok(again.isInitialized(1), 'a request is in flight there');
    again.release();
    closeFd(fd);
    assert.equal(readdirSync('/proc/self/fd').length, before);
  });

  test('test_bad_areas_are_refused', () => {
    const shape = { queues: 2, queueSize: 128, packed: false };
    const { area, fd } = InflightArea.create(shape);
    area.release();
    const good = { ...shape, mmapSize: identify(fd).size, mmapOffset: 0, padded: true };
    for (const bad of [
      { ...good, mmapSize: 4223 },
      { ...good, mmapSize: good.mmapSize + 1 },
      { ...good, mmapOffset: 4096 },
      { ...good, mmapOffset: 1 },
      { ...good, queues: 0 },
      { ...good, queueSize: 0 },
      { ...good, queueSize: 40000 },
      { ...good, queues: 60000 },
    ]) {
      assert.throws(() => InflightArea.map(bad, false, fd), { code: 'protocol' });
    }
    assert.throws(() => InflightArea.map(good, true, fd), { code: 'protocol' });
    closeFd(fd);
  });
});
