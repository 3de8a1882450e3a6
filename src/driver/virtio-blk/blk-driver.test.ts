import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { packedRingBytes, splitRingBytes, VIRTIO_F_VERSION_1 } from '../../spec/virtio.ts';
import { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP } from '../../spec/virtio-blk.ts';
import { planBlkDriver } from './blk-driver.ts';
import { parseBlkConfig } from './config.ts';
import { DEFAULT_BLK_WISHES, negotiateBlk } from './negotiation.ts';
import { COLLECT_BATCH, HEADER_STRIDE, type RequestQueue, STATUS_NONE } from './request-queue.ts';
import { configSpace, MockBlkDevice } from './testing.ts';

const BASE = 0x1_0000_0000;
const ALL = 2n ** 64n - 1n;
const SECTOR = 512;

const VARIANTS = [
  ['split', {}],
  ['packed', { packed: true }],
  ['split, plain', { indirect: false, eventIdx: false }],
  ['packed, plain', { packed: true, indirect: false, eventIdx: false }],
] as const;

function queueOf(mock: MockBlkDevice, index = 0): RequestQueue {
  const queue = mock.driver.queues[index];
  assert.ok(queue !== undefined);
  return queue;
}

/** Runs what was submitted; the slots that came back, in order. */
function finish(mock: MockBlkDevice, queue: RequestQueue): number[] {
  queue.publish();
  mock.run();
  return [...queue.done.subarray(0, queue.collect())];
}

describe('negotiateBlk', () => {
  it('takes what is offered and wished, and nothing else', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: ALL }),
        fc.record({
          packed: fc.boolean(),
          eventIdx: fc.boolean(),
          indirect: fc.boolean(),
          inOrder: fc.boolean(),
          flush: fc.boolean(),
          cacheControl: fc.boolean(),
          discard: fc.boolean(),
          writeZeroes: fc.boolean(),
          multiqueue: fc.boolean(),
        }),
        (random, wishes) => {
          const offered = random | (1n << BigInt(VIRTIO_F_VERSION_1));
          const features = negotiateBlk(offered, wishes);
          assert.equal(features.bits & ~offered, 0n);
          for (const key of ['packed', 'flush', 'discard', 'writeZeroes', 'multiqueue'] as const) {
            if (features[key]) assert.ok(wishes[key], key);
          }
          assert.equal(features.readonly, (offered & (1n << 5n)) !== 0n);
        },
      ),
    );
  });

  it('refuses a legacy device', () => {
    const offered = ALL & ~(1n << BigInt(VIRTIO_F_VERSION_1));
    assert.throws(() => negotiateBlk(offered, DEFAULT_BLK_WISHES), { code: 'unsupported' });
  });
});

describe('parseBlkConfig', () => {
  const all = negotiateBlk(ALL, DEFAULT_BLK_WISHES);

  it('reads each field in its unit', () => {
    const space = configSpace({ diskBytes: 2 ** 45, sizeMax: 65536, segMax: 30, queues: 4 });
    assert.deepEqual(parseBlkConfig(space, all), {
      bytes: 2 ** 45,
      segmentBytes: 65536,
      segments: 30,
      blockBytes: 512,
      physicalBlockBytes: 4096,
      optimalBytes: 65536,
      writeback: true,
      queues: 4,
      discard: { sectors: 2048, ranges: 16, alignment: 8 },
      writeZeroes: { sectors: 4096, ranges: 4, mayUnmap: true },
    });
  });

  it('takes nothing from fields whose feature was not negotiated', () => {
    const features = negotiateBlk(1n << BigInt(VIRTIO_F_VERSION_1), DEFAULT_BLK_WISHES);
    const config = parseBlkConfig(configSpace({ diskBytes: 1024, queues: 4 }), features);
    assert.equal(config.bytes, 1024);
    assert.equal(config.queues, 1);
    assert.equal(config.writeback, false);
    assert.equal(config.discard.sectors, 0);
    assert.ok(config.segments > 1);
  });

  it('refuses a space that ends too early', () => {
    const short = configSpace({ diskBytes: 1024 }).subarray(0, 34);
    assert.throws(() => parseBlkConfig(short, all), { code: 'unsupported', message: /34 bytes/ });
  });
});

describe('planBlkDriver', () => {
  it('lays queues, headers and data out without overlap', () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 4, max: 9 }),
        fc.integer({ min: 1, max: 300 }),
        fc.nat(),
        (packed, queues, exponent, sectors, seed) => {
          const features = negotiateBlk(ALL, { ...DEFAULT_BLK_WISHES, packed });
          const queueSize = 2 ** exponent;
          const slots = 1 + (seed % queueSize);
          const requestBytes = sectors * SECTOR;
          const config = parseBlkConfig(configSpace({ diskBytes: 2 ** 30, segMax: 4 }), features);
          const plan = planBlkDriver(
            features,
            config,
            { queues, queueSize, slots, requestBytes },
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
          for (const { headers, data } of plan.places) {
            assert.equal(data % 4096, 0);
            parts.push([BASE + headers, slots * HEADER_STRIDE]);
            parts.push([BASE + data, slots * requestBytes]);
          }
          parts.sort((a, b) => a[0] - b[0]);
          let end = 0;
          for (const [start, bytes] of parts) {
            assert.ok(start >= end && start >= BASE);
            end = start + bytes;
          }
          assert.ok(end <= BASE + plan.bytes);
        },
      ),
    );
  });

  it('refuses requests that device or queue cannot carry', () => {
    const features = negotiateBlk(ALL, { ...DEFAULT_BLK_WISHES, indirect: false });
    const config = parseBlkConfig(
      configSpace({ diskBytes: 2 ** 20, sizeMax: 4096, segMax: 4 }),
      features,
    );
    const options = { queues: 1, queueSize: 16, slots: 2, requestBytes: 16384 };
    assert.equal(planBlkDriver(features, config, options, BASE).segments, 4);
    for (const [change, message] of [
      [{ requestBytes: 16385 }, /at most|4 segments/],
      [{ slots: 3 }, /3 requests of 6 descriptors/],
      [{ slots: 0 }, /0 requests/],
      [{ queueSize: 4 }, /queue of 4/],
      [{ queueSize: 24 }, /24/],
    ] as const) {
      assert.throws(
        () =>
          planBlkDriver({ ...features, packed: false }, config, { ...options, ...change }, BASE),
        message,
      );
    }
  });
});

describe('RequestQueue', () => {
  for (const [name, wishes] of VARIANTS) {
    it(`${name}: agrees with a model, whatever the order of completions`, () => {
      const slots = 8;
      const sectors = 64;
      const mock = new MockBlkDevice({
        queues: 2,
        queueSize: 64,
        slots,
        requestBytes: 8 * SECTOR,
        segmentBytes: 3 * SECTOR,
        diskBytes: sectors * SECTOR,
        wishes,
      });
      const model = new Uint8Array(sectors * SECTOR);
      const step = fc.record({
        queue: fc.integer({ min: 0, max: 1 }),
        op: fc.constantFrom('read', 'write', 'discard', 'flush'),
        sector: fc.integer({ min: 0, max: sectors - 8 }),
        sectors: fc.integer({ min: 1, max: 8 }),
        fill: fc.integer({ min: 1, max: 255 }),
        order: fc.nat(),
      });
      fc.assert(
        fc.property(fc.array(step, { minLength: 1, maxLength: slots }), (steps) => {
          // Requests on their way at once must not overlap: each step has a stripe of its own.
          const stripe = Math.floor(sectors / slots);
          const expected: (Uint8Array | undefined)[] = [];
          for (const [slot, { queue: index, op, fill, ...wanted }] of steps.entries()) {
            const queue = queueOf(mock, index);
            const sector = slot * stripe + (wanted.sector % stripe);
            const count = Math.min(wanted.sectors, (slot + 1) * stripe - sector);
            const range = model.subarray(sector * SECTOR, (sector + count) * SECTOR);
            queue.sector[slot] = sector;
            queue.bytes[slot] = count * SECTOR;
            if (op === 'write') {
              queue.dataOf(slot, count * SECTOR).fill(fill);
              range.fill(fill);
              assert.ok(queue.write(slot));
            } else if (op === 'discard') {
              queue.setRange(slot, 0, sector, count);
              range.fill(0);
              assert.ok(queue.discard(slot, 1));
            } else if (op === 'flush') {
              assert.ok(queue.flush(slot));
            } else {
              expected[slot] = range.slice();
              assert.ok(queue.read(slot));
            }
          }
          const orders = steps.map(({ order }) => order);
          for (const queue of mock.driver.queues) queue.publish();
          assert.equal(
            mock.run((pending) => (orders.pop() ?? 0) % pending),
            steps.length,
          );
          const back = mock.driver.queues.flatMap((queue, index) =>
            [...queue.done.subarray(0, queue.collect())].map((slot) => ({ queue, index, slot })),
          );
          assert.deepEqual(
            back.map(({ slot }) => slot).sort((a, b) => a - b),
            steps.map((_, slot) => slot),
          );
          for (const { queue, index, slot } of back) {
            assert.equal(steps[slot]?.queue, index);
            assert.equal(queue.status[slot], VIRTIO_BLK_S_OK);
            const content = expected[slot];
            if (content === undefined) continue;
            assert.deepEqual(Buffer.from(queue.dataOf(slot, content.length)), Buffer.from(content));
            assert.equal(queue.written[slot], content.length + 1);
          }
          assert.deepEqual(Buffer.from(mock.content), Buffer.from(model));
          for (const { queue } of mock.driver.queues) assert.equal(queue.free, queue.size);
        }),
        { numRuns: 200 },
      );
      mock.release();
    });

    it(`${name}: is full when the ring is, and goes on afterwards`, () => {
      const indirect = !('indirect' in wishes);
      const slots = indirect ? 128 : Math.floor(128 / 3);
      const mock = new MockBlkDevice({
        queues: 1,
        queueSize: 128,
        slots,
        requestBytes: SECTOR,
        diskBytes: 2 ** 20,
        wishes,
      });
      assert.equal(mock.features.ring.indirect, indirect);
      const queue = queueOf(mock);
      for (let round = 0; round < 20; round++) {
        for (let slot = 0; slot < slots; slot++) {
          queue.sector[slot] = slot;
          queue.bytes[slot] = SECTOR;
          assert.ok(queue.read(slot));
        }
        // The same request once more: only the ring can say no.
        assert.equal(queue.read(0), false);
        queue.publish();
        const back: number[] = [];
        for (let turn = 0; turn < 4; turn++) {
          mock.run((pending) => pending - 1);
          for (let count = queue.collect(); count > 0; count = queue.collect()) {
            assert.ok(count <= COLLECT_BATCH);
            back.push(...queue.done.subarray(0, count));
          }
        }
        assert.deepEqual(
          back.sort((a, b) => a - b),
          Array.from({ length: slots }, (_, slot) => slot),
        );
      }
      mock.release();
    });
  }

  it('carries sectors beyond 32 bits, serial numbers, ranges and unknown types', () => {
    const mock = new MockBlkDevice({
      queues: 1,
      queueSize: 16,
      slots: 2,
      requestBytes: 4096,
      diskBytes: 2 ** 20,
    });
    const queue = queueOf(mock);
    queue.sector[0] = 2 ** 33 + 5;
    queue.bytes[0] = SECTOR;
    queue.read(0);
    queue.publish();
    mock.take();
    assert.equal(mock.pending[0]?.sector, 2 ** 33 + 5);
    assert.deepEqual(finish(mock, queue), [0]);
    assert.equal(queue.status[0], VIRTIO_BLK_S_IOERR);

    queue.getId(1);
    assert.deepEqual(finish(mock, queue), [1]);
    assert.equal(queue.text(1), 'mock');

    mock.content.fill(7);
    queue.setRange(0, 0, 1, 2, true);
    queue.setRange(0, 1, 5, 1);
    queue.writeZeroes(0, 2);
    finish(mock, queue);
    const zeroed = Array.from({ length: 8 }, (_, sector) => mock.content[sector * SECTOR] === 0);
    assert.deepEqual(zeroed, [false, true, true, false, false, true, false, false]);

    queue.submit(0, 99, 16, false);
    finish(mock, queue);
    assert.equal(queue.status[0], VIRTIO_BLK_S_UNSUPP);
    mock.release();
  });

  it('tells a status that was never written from success', () => {
    const mock = new MockBlkDevice({
      queues: 1,
      queueSize: 16,
      slots: 1,
      requestBytes: SECTOR,
      diskBytes: 2 ** 20,
    });
    const queue = queueOf(mock);
    queue.bytes[0] = SECTOR;
    queue.read(0);
    assert.deepEqual(finish(mock, queue), [0]);
    assert.equal(queue.status[0], VIRTIO_BLK_S_OK);
    queue.read(0);
    queue.publish();
    mock.take();
    mock.forget(0);
    mock.publish();
    assert.equal(queue.collect(), 1);
    assert.equal(queue.status[0], STATUS_NONE);
    mock.release();
  });
});
