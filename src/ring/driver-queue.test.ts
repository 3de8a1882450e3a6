import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { MAX_QUEUE_SIZE } from '../spec/virtio.ts';
import type { ChainBatch } from './chain-batch.ts';
import { layOutQueue, SegmentList } from './driver-queue.ts';
import { RingPair, type RingPairOptions } from './ring-pair.ts';

/** A buffer as the model knows it. */
interface ModelBuffer {
  readonly id: number;
  readonly segments: readonly (readonly [number, number])[];
  readonly readable: number;
}

/** What a collected chain holds, in guest physical terms, with pieces that touch put together. */
function segmentsOf(pair: RingPair, batch: ChainBatch, slot: number): [number, number, boolean][] {
  const out: [number, number, boolean][] = [];
  const count = 1 + (batch.more[slot] as number);
  for (let i = 0; i < count; i++) {
    const at = (batch.moreStart[slot] as number) + i - 1;
    const address = (i === 0 ? batch.address[slot] : batch.moreAddress[at]) as number;
    const length = (i === 0 ? batch.length[slot] : batch.moreLength[at]) as number;
    const guest = pair.memory.guestAddressOf(address);
    const writable = i >= (batch.readable[slot] as number);
    const last = out.at(-1);
    const joins = last !== undefined && last[0] + last[1] === guest && last[2] === writable;
    if (joins && guest === pair.border) last[1] += length;
    else out.push([guest, length, writable]);
  }
  return out;
}

function modelSegments(buffer: ModelBuffer): [number, number, boolean][] {
  return buffer.segments.map(([address, length], i) => [address, length, i >= buffer.readable]);
}

interface Step {
  readonly kind: 'add' | 'publish' | 'device' | 'collect' | 'sleep' | 'doze';
  readonly count: number;
  readonly lengths: readonly number[];
  readonly readable: number;
  readonly indirect: boolean;
  readonly seed: number;
}

const lengthArbitrary = fc.integer({ min: 1, max: 5000 });

const stepArbitrary: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('add', 'add', 'publish', 'device', 'collect', 'sleep', 'doze'),
  count: fc.integer({ min: 1, max: 80 }),
  // Most frames have one segment.
  lengths: fc.oneof(
    fc.array(lengthArbitrary, { minLength: 1, maxLength: 1 }),
    fc.array(lengthArbitrary, { minLength: 1, maxLength: 6 }),
  ),
  readable: fc.nat(6),
  indirect: fc.boolean(),
  seed: fc.nat(),
});

const optionsArbitrary: fc.Arbitrary<RingPairOptions> = fc
  .record({
    packed: fc.boolean(),
    eventIdx: fc.boolean(),
    indirect: fc.boolean(),
    inOrder: fc.boolean(),
    windowed: fc.boolean(),
    exponent: fc.integer({ min: 0, max: 7 }),
    odd: fc.integer({ min: 1, max: 150 }),
    direction: fc.constantFrom('readable', 'writable', 'both'),
  })
  .map(({ exponent, odd, ...rest }) => ({
    ...rest,
    size: rest.packed ? odd : 2 ** exponent,
    indirectLength: rest.indirect ? 4 : 0,
  }));

/** Both ends of a ring against lists of what must be in it. */
class Model {
  readonly pair: RingPair;
  readonly options: RingPairOptions;
  readonly batch: ChainBatch;
  readonly list = new SegmentList(16);
  added: ModelBuffer[] = [];
  visible: ModelBuffer[] = [];
  /** Completed and published by the device: id and bytes written. */
  used: [number, number][] = [];
  held = new Map<number, number>();
  place = 0;
  moved = 0;
  deviceAsleep = false;
  driverAsleep = false;

  constructor(options: RingPairOptions) {
    this.options = options;
    this.pair = new RingPair(options);
    this.batch = this.pair.newBatch();
    this.pair.device.disableKicks();
    this.pair.driver.disableCalls();
  }

  /**
   * Addresses that walk through the buffers' memory, over the border of the regions as well; or the
   * same one again, as a driver with few buffers gives.
   */
  address(length: number, again: boolean): number {
    const { buffers, end } = this.pair;
    if (again) return buffers;
    const room = end - buffers - length;
    this.place = (this.place + 7919) % room;
    return buffers + this.place;
  }

  add(step: Step): void {
    const { driver } = this.pair;
    const segments = step.lengths.map(
      (length) => [this.address(length, step.seed % 2 === 0), length] as const,
    );
    const { direction } = this.options;
    const readable =
      direction === 'readable'
        ? segments.length
        : direction === 'writable'
          ? 0
          : Math.min(step.readable, segments.length);
    const before = driver.free;
    let id: number;
    let taken: number;
    if (segments.length === 1) {
      const [address, length] = segments[0] as readonly [number, number];
      id = driver.add(address, length, readable === 0);
      taken = 1;
    } else {
      this.list.clear();
      for (const [i, [address, length]] of segments.entries()) {
        this.list.push(address, length, i >= readable);
      }
      id = driver.addChain(this.list, step.indirect);
      const table =
        step.indirect &&
        this.options.indirect === true &&
        segments.length <= Math.min(4, this.options.size);
      taken = table ? 1 : segments.length;
    }
    if (taken > before) {
      assert.equal(id, -1);
      assert.equal(driver.free, before);
      return;
    }
    assert.ok(id >= 0 && id < driver.size);
    assert.ok(!this.held.has(id), `id ${id} twice`);
    this.held.set(id, taken);
    assert.equal(driver.free, before - taken);
    this.added.push({ id, segments, readable });
  }

  publish(): void {
    const kicksBefore = this.pair.kicks;
    const kicked = this.pair.driver.publish();
    assert.equal(this.pair.kicks - kicksBefore, kicked ? 1 : 0);
    this.visible.push(...this.added);
    if (this.deviceAsleep && this.added.length > 0) {
      assert.ok(kicked, 'a device that asked for a kick was not kicked');
      this.wakeDevice();
    }
    this.added = [];
  }

  wakeDevice(): void {
    if (!this.deviceAsleep) return;
    this.deviceAsleep = false;
    this.pair.device.disableKicks();
  }

  wakeDriver(): void {
    if (!this.driverAsleep) return;
    this.driverAsleep = false;
    this.pair.driver.disableCalls();
  }

  device(step: Step): void {
    this.wakeDevice();
    const { device } = this.pair;
    assert.equal(device.pending(), this.visible.length > 0);
    this.batch.clear();
    const want = Math.min(step.count, 64);
    const count = device.collect(this.batch, want);
    assert.equal(count, Math.min(want, this.visible.length));
    for (let slot = 0; slot < count; slot++) {
      const buffer = this.visible[slot] as ModelBuffer;
      assert.equal(this.batch.id[slot], buffer.id);
      assert.deepEqual(segmentsOf(this.pair, this.batch, slot), modelSegments(buffer));
    }
    // Some go back unused, as when the receiver has no room.
    const keep = step.seed % 4 === 0 ? Math.floor(count / 2) : count;
    device.rewind(this.batch, keep);
    const slots = Array.from({ length: keep }, (_, i) => i);
    if (this.options.direction === 'readable' && step.seed % 3 === 1) {
      // As a network device gives sent frames back: all at once.
      device.completeRange(this.batch, 0, keep);
      for (const slot of slots.splice(0)) this.used.push([this.batch.id[slot] as number, 0]);
    }
    if (step.seed % 3 === 2) {
      // As it gives received ones: all at once, each with its length.
      for (const slot of slots) this.batch.written[slot] = (step.seed + slot) % 3000;
      device.completeWritten(this.batch, 0, keep);
      for (const slot of slots.splice(0)) {
        this.used.push([this.batch.id[slot] as number, (step.seed + slot) % 3000]);
      }
    }
    if (this.options.inOrder !== true && step.seed % 3 === 0) slots.reverse();
    for (const slot of slots) {
      const written = step.seed % 5 === 0 ? 0 : (step.seed + slot) % 3000;
      device.complete(this.batch, slot, written);
      this.used.push([this.batch.id[slot] as number, written]);
    }
    this.visible.splice(0, keep);
    const callsBefore = this.pair.calls;
    device.publish();
    if (this.driverAsleep && keep > 0) {
      assert.ok(this.pair.calls > callsBefore, 'a driver that asked for a call was not called');
      this.wakeDriver();
    }
  }

  collect(step: Step): void {
    this.wakeDriver();
    const { driver } = this.pair;
    assert.equal(driver.pending(), this.used.length > 0);
    const count = driver.collectUsed(step.count);
    assert.equal(count, Math.min(step.count, 64, this.used.length));
    for (const [i, [id, written]] of this.used.splice(0, count).entries()) {
      assert.equal(driver.usedId[i], id);
      assert.equal(driver.usedLength[i], written);
      this.held.delete(id);
    }
    this.moved += count;
    let taken = 0;
    for (const descriptors of this.held.values()) taken += descriptors;
    assert.equal(driver.free, driver.size - taken);
    assert.equal(driver.outstanding, this.held.size);
  }

  run(step: Step): void {
    if (step.kind === 'add') this.add(step);
    else if (step.kind === 'publish') this.publish();
    else if (step.kind === 'device') this.device(step);
    else if (step.kind === 'collect') this.collect(step);
    else if (step.kind === 'sleep') {
      const more = this.pair.device.enableKicks();
      assert.equal(more, this.visible.length > 0);
      this.deviceAsleep = !more;
      if (more) this.pair.device.disableKicks();
    } else {
      const more = this.pair.driver.enableCalls();
      assert.equal(more, this.used.length > 0);
      this.driverAsleep = !more;
      if (more) this.pair.driver.disableCalls();
    }
  }
}

describe('driver and device on one ring', () => {
  it('agree with lists, whatever the features, sizes, shapes and order of steps', () => {
    fc.assert(
      fc.property(
        optionsArbitrary,
        fc.array(stepArbitrary, { minLength: 1, maxLength: 120 }),
        fc.integer({ min: 1, max: 12 }),
        (options, steps, rounds) => {
          const model = new Model(options);
          try {
            for (let round = 0; round < rounds; round++) for (const step of steps) model.run(step);
          } finally {
            model.pair.release();
          }
        },
      ),
      { numRuns: 150 },
    );
  });

  for (const packed of [false, true]) {
    for (const eventIdx of [false, true]) {
      for (const inOrder of [false, true]) {
        const name = `${packed ? 'packed' : 'split'}${eventIdx ? ', event index' : ''}${inOrder ? ', in order' : ''}`;
        for (const size of packed ? [1, 3, 255, MAX_QUEUE_SIZE] : [1, 2, 256, MAX_QUEUE_SIZE]) {
          it(`wraps its indexes twice: ${name}, ${size} descriptors`, () => {
            const model = new Model({ packed, eventIdx, inOrder, size });
            const step: Step = {
              kind: 'add',
              count: 64,
              lengths: [100],
              readable: 1,
              indirect: false,
              seed: 1,
            };
            // 2^16 is where the split ring's indexes wrap; the packed ring's wrap at its size.
            const total = Math.max(2 * size, 2 ** 17) + 5;
            for (let turn = 0; model.moved < total; turn++) {
              if (turn % 7 === 0) model.run({ ...step, kind: 'sleep' });
              if (turn % 5 === 0) model.run({ ...step, kind: 'doze' });
              const burst = Math.min(1 + (turn % 64), model.pair.driver.free);
              for (let i = 0; i < burst; i++) model.pair.driver.add(model.pair.buffers, 60, false);
              // Only counts are followed here: the shapes are the other test's matter.
              const kicked = model.pair.driver.publish();
              assert.ok(!model.deviceAsleep || kicked, 'lost kick');
              model.wakeDevice();
              model.batch.clear();
              assert.equal(model.pair.device.collect(model.batch, 64), burst);
              const calls = model.pair.calls;
              model.pair.device.completeRange(model.batch, 0, burst);
              model.pair.device.publish();
              assert.ok(!model.driverAsleep || model.pair.calls > calls, 'lost call');
              model.wakeDriver();
              assert.equal(model.pair.driver.collectUsed(64), burst);
              assert.equal(model.pair.driver.outstanding, 0);
              model.moved += burst;
            }
            model.pair.release();
          });
        }
      }
    }
  }

  it('kicks and calls nobody who polls', () => {
    for (const packed of [false, true]) {
      for (const eventIdx of [false, true]) {
        const model = new Model({ packed, eventIdx, size: 64 });
        const { driver, device } = model.pair;
        for (let turn = 0; turn < 1000; turn++) {
          driver.add(model.pair.buffers, 60, false);
          driver.publish();
          model.batch.clear();
          device.collect(model.batch, 64);
          device.completeRange(model.batch, 0, 1);
          device.publish();
          driver.collectUsed(64);
        }
        // The split ring's event indexes begin at 0, which is the first buffer's.
        const first = eventIdx && !packed ? 1 : 0;
        assert.ok(model.pair.kicks <= first);
        assert.ok(model.pair.calls <= first);
        model.pair.release();
      }
    }
  });

  it('calls nobody who has begun to poll again', () => {
    for (const packed of [false, true]) {
      for (const eventIdx of [false, true]) {
        const pair = new RingPair({ packed, eventIdx, size: 16, direction: 'readable' });
        const batch = pair.newBatch();
        for (let turn = 0; turn < 100; turn++) {
          assert.equal(pair.driver.enableCalls(), false);
          pair.driver.disableCalls();
          pair.driver.add(pair.buffers, 60, false);
          pair.driver.publish();
          batch.clear();
          assert.equal(pair.device.collect(batch, 64), 1);
          pair.device.completeRange(batch, 0, 1);
          pair.device.publish();
          assert.equal(pair.driver.collectUsed(64), 1);
        }
        assert.equal(pair.calls, 0);
        pair.release();
      }
    }
  });

  it('rewrites a descriptor of which only address, length or direction differs', () => {
    for (const packed of [false, true]) {
      const pair = new RingPair({ packed, size: 1 });
      const batch = pair.newBatch();
      const buffers = [
        [pair.buffers, 100, false],
        [pair.buffers, 100, true],
        [pair.buffers, 100, false],
        [pair.buffers, 101, false],
        [pair.buffers + 1, 101, false],
        [pair.buffers + 1, 101, false],
      ] as const;
      for (const [address, length, writable] of buffers) {
        pair.driver.add(address, length, writable);
        pair.driver.publish();
        batch.clear();
        pair.device.collect(batch, 1);
        assert.deepEqual(segmentsOf(pair, batch, 0), [[address, length, writable]]);
        pair.device.complete(batch, 0, 0);
        pair.device.publish();
        pair.driver.collectUsed(1);
      }
      pair.release();
    }
  });

  it('takes one used entry for several buffers in order', () => {
    for (const packed of [false, true]) {
      const pair = new RingPair({ packed, inOrder: true, size: 16 });
      const { driver, layout } = pair;
      const base = pair.driverMemory.guestAddress;
      const view = pair.bytes();
      let usedIdx = 0;
      let at = 0;
      let wrap = true;
      for (let round = 0; round < 20; round++) {
        const ids = [100, 200, 300, 400, 500].map((length) =>
          driver.add(pair.buffers, length, true),
        );
        driver.publish();
        // Two entries: one for the first three buffers, one for the other two (§2.7.9, §2.8.9).
        for (const [first, count] of [
          [0, 3],
          [3, 2],
        ] as const) {
          const last = ids[first + count - 1] as number;
          if (packed) {
            const slot = layout.descriptor - base + 16 * at;
            view.setUint32(slot + 8, 77, true);
            view.setUint16(slot + 12, last, true);
            view.setUint16(slot + 14, wrap ? 0x8080 : 0, true);
            at += count;
            if (at >= 16) {
              at -= 16;
              wrap = !wrap;
            }
          } else {
            const entry = layout.device - base + 4 + 8 * (usedIdx % 16);
            view.setUint32(entry, last, true);
            view.setUint32(entry + 4, 77, true);
            usedIdx += count;
            view.setUint16(layout.device - base + 2, usedIdx, true);
          }
        }
        // In two goes, the first of which ends within an entry.
        assert.equal(driver.collectUsed(2), 2);
        assert.ok(driver.pending());
        assert.deepEqual([...driver.usedId.subarray(0, 2)], ids.slice(0, 2));
        assert.deepEqual([...driver.usedLength.subarray(0, 2)], [100, 200]);
        assert.equal(driver.collectUsed(64), 3);
        assert.deepEqual([...driver.usedId.subarray(0, 3)], ids.slice(2));
        assert.deepEqual([...driver.usedLength.subarray(0, 3)], [77, 400, 77]);
        assert.equal(driver.free, 16);
      }
      pair.release();
    }
  });

  it('refuses what a broken device gives back', () => {
    for (const packed of [false, true]) {
      for (const inOrder of [false, true]) {
        const pair = new RingPair({ packed, inOrder, size: 16 });
        const { driver, layout } = pair;
        const base = pair.driverMemory.guestAddress;
        const view = pair.bytes();
        driver.add(pair.buffers, 100, true);
        driver.publish();
        if (packed) {
          view.setUint16(12, 9, true);
          view.setUint16(14, 0x8080, true);
        } else {
          view.setUint32(layout.device - base + 4, 9, true);
          view.setUint16(layout.device - base + 2, 1, true);
        }
        assert.throws(() => driver.collectUsed(64), { code: 'ring' });
        pair.release();
      }
    }
  });
});

describe('layOutQueue', () => {
  it('keeps the parts apart and aligned', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 15 }),
        fc.boolean(),
        fc.nat(8),
        (exp, packed, table) => {
          const size = 2 ** exp;
          const layout = layOutQueue(4096, size, packed, table);
          const driverBytes = packed ? 4 : 6 + 2 * size;
          const deviceBytes = packed ? 4 : 6 + 8 * size;
          assert.ok(layout.driver >= layout.descriptor + 16 * size);
          assert.ok(layout.device >= layout.driver + driverBytes);
          assert.equal(layout.descriptor % 16, 0);
          assert.equal(layout.driver % 4, 0);
          assert.equal(layout.device % 4, 0);
          if (table > 0) assert.ok(layout.indirect >= layout.device + deviceBytes);
          assert.ok(layout.bytes >= (table > 0 ? layout.indirect - 4096 + 16 * table * size : 0));
        },
      ),
    );
  });

  it('refuses sizes that the standard does not allow', () => {
    for (const size of [0, -1, 1.5, 32769, 65536]) {
      assert.throws(() => layOutQueue(0, size, true), { code: 'ring' });
      assert.throws(() => layOutQueue(0, size, false), { code: 'ring' });
    }
    assert.throws(() => layOutQueue(0, 3, false), { code: 'ring' });
    assert.equal(layOutQueue(0, 3, true).size, 3);
  });
});
