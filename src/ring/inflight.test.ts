import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import { INFLIGHT_PACKED, INFLIGHT_SPLIT } from '../spec/vhost-user.ts';
import { VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED } from '../spec/virtio.ts';
import { ChainBatch } from './chain-batch.ts';
import { createDeviceQueue } from './create.ts';
import type { DeviceQueue } from './device-queue.ts';
import { SegmentList } from './driver-queue.ts';
import { InflightRegion } from './inflight-region.ts';
import { checkBatch, MockDriver } from './mock-driver.ts';
import { RingPair } from './ring-pair.ts';

const REGION_BYTES = 4096;

/** A region that tells of each store, before and after. */
class WatchedRegion extends InflightRegion {
  watch: () => void = () => undefined;
  readonly memory: Uint8Array;

  constructor(bytes: Uint8Array = new Uint8Array(REGION_BYTES)) {
    const memory = Uint8Array.from(bytes);
    super(memory.buffer, 0, REGION_BYTES);
    this.memory = memory;
  }

  override set8(at: number, value: number): void {
    this.watch();
    super.set8(at, value);
    this.watch();
  }

  override set16(at: number, value: number): void {
    this.watch();
    super.set16(at, value);
    this.watch();
  }

  override set32(at: number, value: number): void {
    this.watch();
    super.set32(at, value);
    this.watch();
  }

  override set64(at: number, from: Float64Array): void {
    this.watch();
    super.set64(at, from);
    this.watch();
  }
}

interface Offered {
  readonly id: number;
  readonly span: number;
  /** Where its first segment lies. */
  readonly address: number;
}

/** What outlives the back-end, and what its driver knows. */
interface Moment {
  readonly ring: Uint8Array;
  readonly region: Uint8Array;
  /** Chains that the driver has made available and not taken back, oldest first. */
  readonly outstanding: readonly Offered[];
  /** Where the driver looks for the next used one: index (split), index and wrap counter (packed). */
  readonly place: number;
}

interface Shape {
  readonly packed: boolean;
  readonly size: number;
  readonly indirect: boolean;
  readonly eventIdx: boolean;
}

interface Step {
  readonly kind: 'offer' | 'collect' | 'complete' | 'publish' | 'consume';
  readonly count: number;
  readonly seed: number;
}

/** A guest and its ring, and one back-end after another. */
class Rig {
  readonly shape: Shape;
  readonly pair: RingPair;
  readonly list = new SegmentList(8);
  readonly moments: Moment[] = [];
  outstanding: Offered[] = [];
  place: number;
  #lastAddress: number;

  constructor(shape: Shape) {
    this.shape = shape;
    this.pair = new RingPair({ ...shape, indirectLength: shape.indirect ? 3 : 0 });
    this.place = shape.packed ? 0x8000 : 0;
    this.#lastAddress = this.pair.buffers;
  }

  get ring(): Uint8Array {
    const { arena, driverMemory, layout } = this.pair;
    return new Uint8Array(arena.buffer, driverMemory.arenaAddress, layout.bytes);
  }

  /** A back-end takes over, with what the former one has left. */
  start(region: InflightRegion): DeviceQueue {
    const { arena, memory, layout } = this.pair;
    return createDeviceQueue({
      ...this.shape,
      inOrder: false,
      arena,
      memory,
      descriptor: memory.translate(layout.descriptor, 1),
      driver: memory.translate(layout.driver, 1),
      device: memory.translate(layout.device, 1),
      direction: 'both',
      interrupt: { signal: () => undefined },
      position: this.shape.packed ? { avail: 0x8000, used: 0x8000 } : { avail: 0, used: 0 },
      inflight: region,
    });
  }

  offer(segments: number, seed: number): void {
    const { driver, packed, size } = { driver: this.pair.driver, ...this.shape };
    const count = 1 + (segments % Math.min(3, size));
    const indirect = this.shape.indirect && seed % 2 === 0;
    this.list.clear();
    this.#lastAddress += 64;
    const address = this.#lastAddress;
    for (let i = 0; i < count; i++) this.list.push(address + i * 8, 8, i > seed % 3);
    const id = driver.addChain(this.list, indirect);
    if (id === -1) return;
    // A chain of one needs no table.
    const span = packed ? (indirect && count > 1 ? 1 : count) : 1;
    this.outstanding.push({ id, span, address });
    driver.publish();
  }

  consume(count: number): void {
    const { driver } = this.pair;
    const found = driver.collectUsed(count);
    for (let i = 0; i < found; i++) this.#took(driver.usedId[i] as number);
  }

  /** Keeps what would be left if the back-end were killed now. */
  keep(region: Uint8Array): void {
    const last = this.moments.at(-1);
    const isSame =
      last !== undefined &&
      Buffer.compare(last.region, region) === 0 &&
      Buffer.compare(last.ring, this.ring) === 0;
    if (isSame) return;
    this.moments.push({
      ring: Uint8Array.from(this.ring),
      region: Uint8Array.from(region),
      outstanding: [...this.outstanding],
      place: this.place,
    });
  }

  restore(moment: Moment): void {
    this.ring.set(moment.ring);
    this.outstanding = [...moment.outstanding];
    this.place = moment.place;
  }

  /** What the driver would take back now: ids, in order. */
  visible(): number[] {
    const { layout, driverMemory } = this.pair;
    const view = this.pair.bytes();
    const at = (address: number): number => address - driverMemory.guestAddress;
    const ids: number[] = [];
    let { place } = this;
    if (!this.shape.packed) {
      const idx = view.getUint16(at(layout.device) + 2, true);
      for (; place !== idx; place = (place + 1) & 0xffff) {
        ids.push(view.getUint32(at(layout.device) + 4 + (place % layout.size) * 8, true));
        assert.ok(ids.length <= layout.size, 'more used entries than chains');
      }
      return ids;
    }
    for (;;) {
      const index = place & 0x7fff;
      const flags = view.getUint16(at(layout.descriptor) + index * 16 + 14, true);
      const both = place >= 0x8000 ? VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED : 0;
      if ((flags & (VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED)) !== both) return ids;
      const id = view.getUint16(at(layout.descriptor) + index * 16 + 12, true);
      const known = this.outstanding.find((chain) => chain.id === id);
      assert.ok(known !== undefined && !ids.includes(id), `id ${id} came back without being out`);
      ids.push(id);
      place = this.#advance(place, known.span);
    }
  }

  #took(id: number): void {
    const index = this.outstanding.findIndex((chain) => chain.id === id);
    const [chain] = this.outstanding.splice(index, 1);
    assert.ok(index >= 0 && chain !== undefined);
    this.place = this.shape.packed
      ? this.#advance(this.place, chain.span)
      : (this.place + 1) & 0xffff;
  }

  #advance(place: number, count: number): number {
    const index = (place & 0x7fff) + count;
    const { size } = this.shape;
    return index < size ? index | (place & 0x8000) : (index - size) | (~place & 0x8000);
  }
}

interface Held {
  readonly id: number;
  readonly span: number;
}

/** Runs a back-end through the steps; keeps each moment of its life. */
function live(rig: Rig, queue: DeviceQueue, region: WatchedRegion, steps: readonly Step[]): void {
  const batch = new ChainBatch();
  const held: Held[] = [];
  region.watch = () => rig.keep(region.memory);
  for (const { kind, count, seed } of steps) {
    if (kind === 'offer') {
      for (let i = 0; i <= count % 4; i++) rig.offer(count + i, seed + i);
    } else if (kind === 'consume') {
      rig.consume(1 + (count % 8));
    } else if (kind === 'collect') {
      batch.clear();
      // Several calls may fill one batch; some chains go back.
      queue.collect(batch, 1 + (count % 3));
      queue.collect(batch, 1 + (seed % 5));
      if (seed % 3 === 0) queue.rewind(batch, Math.floor(batch.count / 2));
      for (let slot = 0; slot < batch.count; slot++) {
        held.push({ id: batch.id[slot] as number, span: batch.span[slot] as number });
      }
    } else if (kind === 'complete') {
      for (let i = 0; i <= count % 4 && held.length > 0; i++) {
        const [chain] = held.splice((seed + i) % held.length, 1);
        queue.completeChain((chain as Held).id, (chain as Held).span, seed % 2);
        rig.keep(region.memory);
      }
    } else {
      queue.publish();
    }
    rig.keep(region.memory);
  }
  region.watch = () => undefined;
}

/** A new back-end after a kill: each chain that is not visibly done comes once, in order, and is done. */
function recover(rig: Rig, moment: Moment, seed: number): void {
  rig.restore(moment);
  const done = rig.visible();
  const expected = rig.outstanding.filter(({ id }) => !done.includes(id));
  const region = new WatchedRegion(moment.region);
  const queue = rig.start(region);
  assert.deepEqual(rig.visible(), done, 'the driver sees what it saw');
  assert.equal(queue.pending(), expected.length > 0);
  const batch = new ChainBatch();
  const taken: Offered[] = [];
  for (;;) {
    batch.clear();
    // As far as the driver could: chains that completions have made room for are not among them.
    if (queue.collect(batch, 1 + (seed % 4)) === 0) break;
    for (let slot = 0; slot < batch.count; slot++) {
      const address = rig.pair.memory.guestAddressOf(batch.address[slot] as number);
      taken.push({
        id: batch.id[slot] as number,
        span: batch.span[slot] as number,
        address,
      });
    }
  }
  assert.deepEqual(taken, expected);
  const left = [...taken];
  for (let i = seed; left.length > 0; i += 7) {
    const [chain] = left.splice(i % left.length, 1) as [Offered];
    queue.completeChain(chain.id, chain.span, 1);
    if (i % 3 !== 0) continue;
    queue.publish();
    assert.equal(rig.visible().length, rig.outstanding.length - left.length);
  }
  queue.publish();
  const all = rig.visible();
  assert.deepEqual(all.slice(0, done.length), done);
  assert.deepEqual(
    all.toSorted((a, b) => a - b),
    rig.outstanding.map(({ id }) => id).toSorted((a, b) => a - b),
  );
}

const stepArbitrary: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('offer', 'collect', 'complete', 'publish', 'consume'),
  count: fc.nat(20),
  seed: fc.nat(1000),
});

const shapeArbitrary = (packed: boolean): fc.Arbitrary<Shape> =>
  fc.record({
    packed: fc.constant(packed),
    size: packed ? fc.integer({ min: 1, max: 9 }) : fc.constantFrom(1, 2, 4, 8),
    indirect: fc.boolean(),
    eventIdx: fc.boolean(),
  });

for (const packed of [false, true]) {
  describe(`in-flight tracking, ${packed ? 'packed' : 'split'}`, () => {
    it('a kill between any two stores: each chain is done exactly once', () => {
      let kills = 0;
      const life = fc.tuple(
        shapeArbitrary(packed),
        fc.array(stepArbitrary, { minLength: 10, maxLength: 50 }),
        fc.array(stepArbitrary, { minLength: 5, maxLength: 20 }),
        fc.nat(),
      );
      fc.assert(
        fc.property(life, ([shape, steps, secondSteps, seed]) => {
          const rig = new Rig(shape);
          try {
            const region = new WatchedRegion();
            region.watch = () => rig.keep(region.memory);
            live(rig, rig.start(region), region, steps);
            const moments = rig.moments.splice(0);
            for (const [index, moment] of moments.entries()) recover(rig, moment, seed + index);
            kills += moments.length;
            // The one that takes over is killed as well, while it recovers or later.
            const moment = moments[seed % moments.length] as Moment;
            rig.restore(moment);
            const second = new WatchedRegion(moment.region);
            second.watch = () => rig.keep(second.memory);
            const offersNothing = secondSteps.filter(
              ({ kind }) => kind !== 'offer' && kind !== 'consume',
            );
            live(rig, rig.start(second), second, offersNothing);
            const later = rig.moments.splice(0);
            for (const [index, at] of later.entries()) recover(rig, at, seed + index);
            kills += later.length;
          } finally {
            rig.pair.release();
          }
        }),
        { numRuns: 150 },
      );
      assert.ok(kills > 1000, `only ${kills} kills were tried`);
    });

    it('a chain that is made available while it is in use breaks the ring', () => {
      const rig = new Rig({ packed, size: 4, indirect: false, eventIdx: false });
      const driver = new MockDriver(rig.pair);
      const queue = rig.start(new WatchedRegion());
      const batch = new ChainBatch();
      const one = { address: rig.pair.buffers, length: 8, flags: 0, link: 3 };
      driver.offer(one);
      assert.equal(queue.collect(batch, 8), 1);
      if (packed) driver.offer(one);
      else driver.offerHead(0);
      assert.throws(() => queue.collect(batch, 8), { fault: 'bad-index' });
      rig.pair.release();
    });

    it('regions that cannot be this ring’s are refused', () => {
      const rig = new Rig({ packed, size: 4, indirect: false, eventIdx: false });
      const layout = packed ? INFLIGHT_PACKED : INFLIGHT_SPLIT;
      const begun = new WatchedRegion();
      rig.start(begun);
      const bad = (change: (region: WatchedRegion) => void): void => {
        const region = new WatchedRegion(begun.memory);
        rig.start(region);
        change(region);
        assert.throws(() => rig.start(region), { code: 'ring' });
      };
      const entry = (index: number): number => layout.headerBytes + index * layout.entryBytes;
      bad((region) => region.set16(layout.version, 2));
      bad((region) => region.set16(layout.descNum, 3));
      if (packed) {
        bad((region) => region.set16(layout.descNum, 0x7000));
        bad((region) => region.set16(INFLIGHT_PACKED.usedIdx, 4));
        bad((region) => region.set16(INFLIGHT_PACKED.oldUsedIdx, 4));
        bad((region) => region.set8(INFLIGHT_PACKED.usedWrapCounter, 2));
        // The list of free entries ends early, runs in a circle, or has an entry in flight in it.
        bad((region) => region.set16(INFLIGHT_PACKED.oldFreeHead, 2));
        bad((region) => region.set16(entry(2) + INFLIGHT_PACKED.entry.next, 1));
        bad((region) => {
          region.set16(INFLIGHT_PACKED.oldFreeHead, 1);
          region.set8(entry(0) + INFLIGHT_PACKED.entry.inflight, 1);
        });
        bad((region) => {
          region.set16(INFLIGHT_PACKED.oldFreeHead, 1);
          region.set8(entry(0) + INFLIGHT_PACKED.entry.inflight, 1);
          region.set16(entry(0) + INFLIGHT_PACKED.entry.num, 2);
        });
      } else {
        bad((region) => region.set16(INFLIGHT_SPLIT.usedIdx, 5));
        bad((region) => {
          region.set16(INFLIGHT_SPLIT.usedIdx, 0xfffe);
          region.set16(INFLIGHT_SPLIT.lastBatchHead, 4);
        });
      }
      const small = new InflightRegion(new ArrayBuffer(64), 0, 64);
      assert.throws(() => rig.start(small), { code: 'ring' });
      rig.pair.release();
    });

    it('whatever a region says, chains stay within the ring and the guest’s memory', () => {
      const layout = packed ? INFLIGHT_PACKED : INFLIGHT_SPLIT;
      const size = 4;
      // Any value in some places of notes that were good.
      const change = fc.tuple(
        fc.nat(layout.headerBytes + size * layout.entryBytes - 1),
        fc.oneof(fc.nat(8), fc.nat(255)),
      );
      let started = 0;
      fc.assert(
        fc.property(fc.array(change, { maxLength: 6 }), fc.nat(8), (changes, seed) => {
          const rig = new Rig({ packed, size, indirect: false, eventIdx: false });
          try {
            const batch = new ChainBatch();
            const region = new WatchedRegion();
            const first = rig.start(region);
            for (let i = 0; i < 3; i++) rig.offer(seed >> i, seed);
            const held = first.collect(batch, 2);
            if (held > 0 && seed % 2 === 0) first.complete(batch, 0, 0);
            first.publish();
            for (const [at, value] of changes) region.memory[at] = value;
            const second = rig.start(new WatchedRegion(region.memory));
            started++;
            batch.clear();
            for (let chains = 0, more = 1; more > 0; chains += more) {
              more = second.collect(batch, 64);
              assert.ok(chains + more <= 2 * size);
            }
            checkBatch(rig.pair, batch);
          } catch (error) {
            if (!(error instanceof SluiceError) || error.code !== 'ring') throw error;
          } finally {
            rig.pair.release();
          }
        }),
        { numRuns: 500 },
      );
      assert.ok(started > 50);
    });

    it('notes that change under a device break its ring', { skip: !packed }, () => {
      const size = 4;
      const rig = new Rig({ packed, size, indirect: false, eventIdx: false });
      const region = new WatchedRegion();
      const batch = new ChainBatch();
      rig.offer(0, 0);
      assert.equal(rig.start(region).collect(batch, 8), 1);
      const queue = rig.start(region);
      for (let entry = 0; entry < size; entry++) {
        const at = INFLIGHT_PACKED.headerBytes + entry * INFLIGHT_PACKED.entryBytes;
        region.set16(at + INFLIGHT_PACKED.entry.id, 0x1234);
      }
      batch.clear();
      assert.throws(() => queue.collect(batch, 8), { fault: 'bad-index' });
      rig.pair.release();
    });

    it('completing what is not in flight is an error of ours', () => {
      const rig = new Rig({ packed, size: 4, indirect: false, eventIdx: false });
      const queue = rig.start(new WatchedRegion());
      const batch = new ChainBatch();
      rig.offer(0, 0);
      assert.equal(queue.collect(batch, 8), 1);
      queue.complete(batch, 0, 1);
      assert.throws(() => queue.complete(batch, 0, 1), { code: 'state' });
      assert.throws(() => queue.completeChain(2, 1, 0), { code: 'state' });
      rig.pair.release();
    });
  });
}
