/** The device against a model: random requests, in random descriptors, completed in random order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DISK_FLUSH } from '../../block/requests.ts';
import {
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from '../../spec/virtio-blk.ts';
import { BlkGuest, FakeDisk, type Offered, pattern, ranges, type Shape } from './testing.ts';

const EIO = 5;
const SECTOR = 512;
/** Requests of one round have a stripe of the disk each, so that their order does not matter. */
const STRIPE = 16;
const STRIPES = 24;
const SECTORS = STRIPE * STRIPES;

const TYPES = [
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_WRITE_ZEROES,
] as const;

interface Request {
  readonly type: (typeof TYPES)[number];
  readonly from: number;
  readonly sectors: number;
  readonly seed: number;
  readonly queue: number;
  readonly cuts: readonly number[];
  readonly indirect: boolean;
  readonly fails: boolean;
}

const request: fc.Arbitrary<Request> = fc.record({
  type: fc.constantFrom(...TYPES),
  from: fc.nat(STRIPE - 1),
  sectors: fc.integer({ min: 1, max: STRIPE }),
  seed: fc.nat(255),
  queue: fc.nat(1),
  cuts: fc.array(fc.integer({ min: 1, max: 2000 }), { maxLength: 6 }),
  indirect: fc.boolean(),
  fails: fc.nat(9).map((n) => n === 0),
});

const scenario = fc.record({
  packed: fc.boolean(),
  slots: fc.integer({ min: 1, max: 40 }),
  rounds: fc.array(fc.array(request, { minLength: 1, maxLength: STRIPES }), { maxLength: 6 }),
  order: fc.infiniteStream(fc.nat(1000)),
});

/** What a request changes, in a disk of the model. */
function apply(model: Buffer, { type, seed }: Request, at: number, bytes: number): void {
  if (type === VIRTIO_BLK_T_OUT) pattern(bytes, seed).copy(model, at);
  // The fake disk forgets by filling with zeroes.
  if (type === VIRTIO_BLK_T_DISCARD || type === VIRTIO_BLK_T_WRITE_ZEROES) {
    model.fill(0, at, at + bytes);
  }
}

test('every request has the effect that its type says, once, and the answer that fits', () => {
  fc.assert(
    fc.property(scenario, ({ packed, slots, rounds, order }) => {
      const disk = new FakeDisk({ bytes: SECTORS * SECTOR });
      const guest = new BlkGuest({
        disk,
        ring: { packed, size: 256, indirect: true, indirectLength: 32 },
        device: { queues: 2, slots },
      });
      const model = Buffer.alloc(SECTORS * SECTOR);
      for (const [i] of model.entries()) model[i] = (i * 13) & 0xff;
      disk.content.set(model);
      const failures = new Set<number>();
      disk.result = ({ op, offset }) =>
        op !== DISK_FLUSH && failures.has(Math.floor(offset / SECTOR / STRIPE)) ? -EIO : undefined;
      const pick = order[Symbol.iterator]();
      disk.choose = (pending) =>
        pending.filter(() => (pick.next().value as number) % 3 === 0).reverse();
      try {
        for (const round of rounds) {
          failures.clear();
          const expected = round.map((one, stripe) => {
            const from = stripe * STRIPE + one.from;
            const sectors = Math.min(one.sectors, STRIPE - one.from);
            const at = from * SECTOR;
            const bytes = sectors * SECTOR;
            const fails = one.fails && one.type !== VIRTIO_BLK_T_FLUSH;
            if (fails) failures.add(stripe);
            const data = Buffer.from(model.subarray(at, at + bytes));
            if (!fails) apply(model, one, at, bytes);
            const offered = offer(guest, one, from, sectors);
            return { one, offered, data, fails };
          });
          for (const queue of guest.queues) queue.publish();
          const used = new Set<Offered>();
          for (let turns = 0; used.size < round.length; turns++) {
            assert.ok(turns < 2000, 'requests that are never answered');
            guest.device.poll();
            for (const queue of guest.queues) {
              for (const one of queue.collect()) {
                assert.ok(!used.has(one), 'answered twice');
                used.add(one);
              }
            }
          }
          for (const { one, offered, data, fails } of expected) {
            assert.equal(offered.status, fails ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
            if (one.type !== VIRTIO_BLK_T_IN || fails) continue;
            assert.deepEqual(offered.data, data);
            assert.equal(offered.written, data.length + 1);
          }
          assert.ok(disk.content.equals(model), 'the disk is not what the model is');
        }
        assert.deepEqual(guest.broken, []);
      } finally {
        disk.choose = (pending) => pending;
        guest.close();
      }
    }),
    { numRuns: 150 },
  );
});

function offer(guest: BlkGuest, one: Request, from: number, sectors: number): Offered {
  const queue = guest.queues[one.queue];
  assert.ok(queue);
  const shape: Shape = { readable: one.cuts, writable: one.cuts, indirect: one.indirect };
  switch (one.type) {
    case VIRTIO_BLK_T_IN:
      return queue.offer(one.type, from, undefined, sectors * SECTOR, shape);
    case VIRTIO_BLK_T_OUT:
      return queue.offer(one.type, from, pattern(sectors * SECTOR, one.seed), 0, shape);
    case VIRTIO_BLK_T_FLUSH:
      return queue.offer(one.type, 0, undefined, 0, shape);
    default: {
      // Cut in two, where it can be.
      const half = Math.floor(sectors / 2);
      const list: [number, number][] = [[from + half, sectors - half]];
      if (half > 0) list.unshift([from, half]);
      return queue.offer(one.type, 0, ranges(...list), 0, shape);
    }
  }
}
