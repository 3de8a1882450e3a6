import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DirtyLog } from '../memory/dirty-log.ts';
import { VIRTQ_DESC_F_WRITE } from '../spec/virtio.ts';
import { MockDriver } from './mock-driver.ts';
import { PAIR_BASE, RingPair } from './ring-pair.ts';

/** Bytes of a log that reaches to the end of the pair's memory: one bit for each page of 4 KiB. */
const LOG_BYTES = (2 * PAIR_BASE) / 4096 / 8;

for (const packed of [false, true]) {
  describe(`dirty log, ${packed ? 'packed' : 'split'} ring`, () => {
    for (const batched of [false, true]) {
      it(`${batched ? 'a batch' : 'one buffer'}: pages are marked when they have been written, not before`, () => {
        const pair = new RingPair({ packed, size: 8, direction: 'writable' });
        const driver = new MockDriver(pair);
        const { device, memory } = pair;
        const log = DirtyLog.inMemory(LOG_BYTES);
        memory.dirtyLog = log;
        device.forget();
        const first = pair.buffers + 8192;
        const second = first + 16384;
        for (const address of [first, second]) {
          driver.offer({ address, length: 8192, flags: VIRTQ_DESC_F_WRITE });
        }
        assert.equal(driver.collect(), 2);
        driver.batch.written.fill(100);
        if (batched) device.completeWritten(driver.batch, 0, 2);
        else for (const slot of [0, 1]) device.complete(driver.batch, slot, 100);
        // The copies are done between completion and publication.
        for (const address of [first, second, pair.layout.device, pair.layout.descriptor]) {
          assert.ok(!log.isMarked(address));
        }
        device.publish();
        assert.ok(log.isMarked(first));
        assert.ok(log.isMarked(second));
        assert.ok(!log.isMarked(first + 8192), 'what was not written is not marked');
        assert.ok(log.isMarked(packed ? pair.layout.descriptor : pair.layout.device));
        pair.release();
      });
    }
  });
}
