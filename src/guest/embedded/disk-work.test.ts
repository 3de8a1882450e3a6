import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { MockBlkDevice, type MockBlkOptions } from '../../driver/virtio-blk/testing.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from '../../spec/virtio-blk.ts';
import { type DiskWorkSpec, READ_WRITE } from './disk-options.ts';
import { DiskWork } from './disk-work.ts';

const DISK = 64 * 4096;
const BASE: DiskWorkSpec = { rw: 'randrw', bs: 4096, iodepth: 8, offset: 0, size: DISK, seed: 7 };
const loop = new PollLoop();

function rig(more: Partial<DiskWorkSpec> = {}, options: Partial<MockBlkOptions> = {}) {
  const mock = new MockBlkDevice({
    queues: 1,
    queueSize: 64,
    slots: 16,
    requestBytes: 16384,
    diskBytes: DISK,
    ...options,
  });
  const queue = mock.driver.queues[0];
  assert.ok(queue !== undefined);
  const start = (again: Partial<DiskWorkSpec> = {}): DiskWork =>
    new DiskWork({ queue, loop, diskBytes: DISK }, { ...BASE, ...more, ...again });
  return { mock, start, work: start() };
}

/** Turns of work and device; the device finishes in the order that `next` gives. */
function turns(
  mock: MockBlkDevice,
  work: DiskWork,
  count: number,
  next: (pending: number) => number = () => 0,
): void {
  for (let turn = 0; turn < count; turn++) {
    work.poll();
    mock.run(next);
  }
}

/** Until the work is drained. */
function finish(mock: MockBlkDevice, work: DiskWork): void {
  work.stop();
  for (let turn = 0; turn < 1000 && !work.drained; turn++) turns(mock, work, 1);
  assert.ok(work.drained);
}

describe('DiskWork', () => {
  for (const rw of READ_WRITE) {
    it(`${rw}: does what it is called`, () => {
      const { mock, work } = rig({ rw, requests: 200 });
      turns(mock, work, 200);
      const { reads, writes, readBytes, writtenBytes, failed, done, latency } = work.counts();
      assert.equal(reads + writes, 200);
      assert.equal(readBytes + writtenBytes, 200 * 4096);
      assert.equal(failed, 0);
      assert.ok(done);
      assert.equal(
        latency.reduce((sum, [, count]) => sum + count, 0),
        200,
      );
      const of = (type: number): number => mock.history.filter((one) => one === type).length;
      assert.deepEqual([of(VIRTIO_BLK_T_IN), of(VIRTIO_BLK_T_OUT)], [reads, writes]);
      if (rw.endsWith('read')) assert.equal(writes, 0);
      else if (rw.endsWith('rw') || rw === 'readwrite') assert.ok(reads > 50 && writes > 50);
      else assert.equal(reads, 0);
      finish(mock, work);
      mock.release();
    });
  }

  it('keeps as many requests on their way as it was told, block after block', () => {
    const { mock, work } = rig({ rw: 'read', iodepth: 5, offset: 8192, size: 3 * 4096 });
    work.poll();
    mock.take();
    assert.deepEqual(
      mock.pending.map(({ sector }) => sector),
      [16, 24, 32, 16, 24],
    );
    mock.finish(2);
    mock.publish();
    work.poll();
    mock.take();
    assert.deepEqual(
      mock.pending.map(({ sector }) => sector),
      [16, 24, 16, 24, 32],
    );
    finish(mock, work);
    mock.release();
  });

  it('stays within its part of the disk, and reaches all of it', () => {
    const { mock, work } = rig({ rw: 'randread', offset: 4096, size: 10 * 4096 + 100 });
    const seen = new Set<number>();
    for (let turn = 0; turn < 200; turn++) {
      work.poll();
      mock.take();
      for (const { sector } of mock.pending) seen.add(sector);
      mock.run();
    }
    assert.deepEqual(
      [...seen].sort((a, b) => a - b),
      Array.from({ length: 10 }, (_, block) => 8 + 8 * block),
    );
    finish(mock, work);
    mock.release();
  });

  it('mixes reads and writes as told, and flushes after so many writes', () => {
    const { mock, work } = rig({ rwmixread: 75, fsync: 10, requests: 4000 });
    turns(mock, work, 2000);
    const { reads, writes, flushes } = work.counts();
    assert.equal(reads + writes, 4000);
    assert.ok(reads > 2800 && reads < 3200, `${reads} reads of 4000`);
    assert.equal(flushes, Math.floor(writes / 10));
    assert.equal(mock.history.filter((type) => type === VIRTIO_BLK_T_FLUSH).length, flushes);
    finish(mock, work);
    mock.release();
  });

  it('verifies with any order of completions, and reads everything once more', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...READ_WRITE),
        fc.integer({ min: 1, max: 16 }),
        fc.constantFrom(512, 4096, 12288),
        fc.boolean(),
        fc.array(fc.nat(), { minLength: 1, maxLength: 50 }),
        (rw, iodepth, bs, packed, orders) => {
          const { mock, start } = rig(
            { rw, iodepth, bs, verify: true, size: 20 * bs },
            { wishes: { packed } },
          );
          const work = start();
          let order = 0;
          turns(mock, work, 60, (pending) => (orders[order++ % orders.length] as number) % pending);
          const during = work.counts();
          finish(mock, work);
          const after = work.counts();
          assert.deepEqual([after.corrupt, after.stale, after.failed], [0, 0, 0]);
          assert.equal(during.verified, during.reads);
          if (after.writes > 0) assert.ok(after.verified > during.verified);
          // Another run, that does not know what the first has written, finds it whole.
          const again = start({ rw: 'read', requests: 20, seed: 8 });
          turns(mock, again, 30);
          assert.deepEqual([again.counts().verified, again.counts().corrupt], [20, 0]);
          mock.release();
        },
      ),
      { numRuns: 40 },
    );
  });

  it('sees damage, lost writes and old content', () => {
    for (const [harm, key] of [
      [(at: Uint8Array) => at.fill((at[100] as number) ^ 1, 100, 101), 'corrupt'],
      [(at: Uint8Array) => at.fill(0), 'stale'],
      [(at: Uint8Array, old: Uint8Array) => at.set(old), 'stale'],
      [(at: Uint8Array, old: Uint8Array) => at.set(old.subarray(0, 512), 0), 'stale'],
      [(at: Uint8Array, _: Uint8Array, other: Uint8Array) => at.set(other), 'corrupt'],
    ] as const) {
      const { mock, work } = rig({ rw: 'write', verify: true, requests: 128 });
      let old = mock.content.slice();
      for (let turn = 0; turn < 40; turn++) {
        // The first pass, of which the last eight were done and not yet seen.
        if (work.counts().writes === 56) old = mock.content.slice();
        turns(mock, work, 1);
      }
      assert.equal(work.counts().writes, 128);
      const block = (content: Uint8Array, index: number): Uint8Array =>
        content.subarray(index * 4096, (index + 1) * 4096);
      harm(block(mock.content, 5), block(old, 5), block(mock.content, 6).slice());
      finish(mock, work);
      const counts = work.counts();
      assert.equal(counts.verified, 64);
      assert.deepEqual(
        [counts.corrupt, counts.stale],
        key === 'corrupt' ? [1, 0] : [0, 1],
        String(harm),
      );
      mock.release();
    }
  });

  it('counts what fails and goes on; a block in doubt is no error', () => {
    const { mock, work } = rig({ rw: 'write', verify: true, requests: 128, iodepth: 1 });
    turns(mock, work, 70);
    mock.bad.add(9 * 8);
    turns(mock, work, 20);
    mock.bad.clear();
    turns(mock, work, 60);
    const counts = work.counts();
    assert.equal(counts.failed, 1);
    assert.match(counts.failure ?? '', /write of sector 72 ended with status 1/);
    finish(mock, work);
    assert.deepEqual([work.counts().corrupt, work.counts().stale], [0, 0]);
    mock.release();
  });

  it('asks for calls only while it waits', () => {
    const { mock, work } = rig({ rw: 'read', requests: 3, iodepth: 2 });
    work.disarm();
    turns(mock, work, 1);
    assert.equal(mock.calls, 0);
    // Two are finished already.
    assert.equal(work.arm(), true);
    work.disarm();
    work.poll();
    assert.equal(work.arm(), false);
    mock.run();
    assert.equal(mock.calls, 1);
    work.disarm();
    work.poll();
    assert.equal(work.arm(), false);
    work.stop();
    assert.ok(work.drained);
    mock.release();
  });

  it('refuses work that cannot be done', () => {
    const { mock, start } = rig();
    for (const [spec, message] of [
      [{ bs: 1000 }, /1000 bytes/],
      [{ bs: 0 }, /0 bytes/],
      [{ bs: 32768 }, /attached for/],
      [{ iodepth: 17 }, /17 requests/],
      [{ offset: 512, size: DISK }, /of a disk of/],
      [{ offset: -512 }, /-512/],
      [{ size: 4095 }, /4096 bytes in 4095/],
    ] as const) {
      assert.throws(() => start(spec), { code: 'config', message }, JSON.stringify(spec));
    }
    mock.release();
  });
});
