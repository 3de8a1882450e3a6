import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { bitMask, GiB, hasBit } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
  REQUEST_UNMAP,
} from '../../block/requests.ts';
import * as blk from '../../spec/virtio-blk.ts';
import {
  VIRTIO_BLK_S_IOERR as IOERR,
  VIRTIO_BLK_S_OK as OK,
  VIRTIO_BLK_S_UNSUPP as UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from '../../spec/virtio-blk.ts';
import { MAX_RANGES } from './features.ts';
import {
  BlkGuest,
  type BlkGuestOptions,
  FakeDisk,
  type Offered,
  pattern,
  ranges,
} from './testing.ts';

const EIO = 5;
const ENOSPC = 28;
const EOPNOTSUPP = 95;
const none = (): readonly number[] => [];
const all = (pending: readonly number[]): readonly number[] => pending;

function withGuest(options: BlkGuestOptions, use: (guest: BlkGuest) => void): void {
  const guest = new BlkGuest(options);
  try {
    use(guest);
  } finally {
    guest.disk.choose = all;
    guest.close();
  }
}

function offerReads(guest: BlkGuest, count: number): Offered[] {
  const offered = Array.from({ length: count }, (_, i) =>
    guest.queue.offer(VIRTIO_BLK_T_IN, i, undefined, 512),
  );
  guest.queue.publish();
  return offered;
}

for (const packed of [false, true]) {
  describe(`requests in flight, ${packed ? 'packed' : 'split'} ring`, () => {
    test('are answered in whatever order the disk completes them', () => {
      withGuest({ ring: { packed } }, (guest) => {
        for (let i = 0; i < 8; i++) guest.disk.content.set(pattern(512, i), 512 * i);
        guest.disk.choose = none;
        const offered = offerReads(guest, 8);
        guest.device.poll();
        assert.equal(guest.disk.pendingSlots.length, 8);
        assert.equal(guest.disk.flushed, 1);
        assert.deepEqual(guest.queue.collect(), []);
        const order = [5, 0, 7, 3, 1, 6, 2, 4];
        const slots = guest.disk.seen.map(({ slot }) => slot);
        for (const i of order) {
          guest.disk.choose = () => [slots[i] as number];
          guest.device.poll();
          const [used, ...others] = guest.queue.collect();
          assert.equal(used, offered[i]);
          assert.deepEqual(others, []);
          assert.deepEqual(used?.data, pattern(512, i));
        }
      });
    });

    test('are published together, with one call', () => {
      withGuest({ ring: { packed } }, (guest) => {
        offerReads(guest, 8);
        guest.device.poll();
        assert.equal(guest.queue.pair.calls, 1);
        assert.equal(guest.queue.collect().length, 8);
      });
    });

    test('go on for ever: rings and slots are used again', () => {
      withGuest({ ring: { packed, size: 16 }, device: { slots: 3 } }, (guest) => {
        for (let i = 0; i < 500; i++) {
          const data = pattern(512, i);
          assert.equal(guest.do(VIRTIO_BLK_T_OUT, i % 100, data).status, OK);
          assert.deepEqual(guest.read(i % 100, 512), data);
        }
      });
    });
  });
}

test('a disk that completes at once answers within the same turn', () => {
  withGuest({}, (guest) => {
    offerReads(guest, 1);
    assert.ok(guest.device.poll() > 0);
    assert.equal(guest.queue.collect().length, 1);
    assert.equal(guest.device.poll(), 0);
  });
});

test('an idle device asks its disk for nothing', () => {
  withGuest({}, (guest) => {
    for (let i = 0; i < 10; i++) assert.equal(guest.device.poll(), 0);
    assert.deepEqual([guest.disk.polls, guest.disk.flushed], [0, 0]);
  });
});

describe('without a free slot', () => {
  test('the ring waits, and does not keep the lane awake', () => {
    withGuest({ device: { slots: 4 } }, (guest) => {
      guest.disk.choose = none;
      offerReads(guest, 10);
      guest.device.poll();
      assert.equal(guest.disk.pendingSlots.length, 4);
      assert.equal(guest.device.poll(), 0);
      assert.equal(guest.counter('slot_waits'), 1);
      assert.equal(guest.device.arm(), false);
      assert.equal(guest.disk.armed, true);
      guest.device.disarm();
      assert.equal(guest.disk.armed, false);
      guest.disk.choose = (pending) => pending.slice(0, 1);
      guest.device.poll();
      guest.device.poll();
      assert.equal(guest.disk.seen.length, 5);
      guest.disk.choose = all;
      for (let i = 0; i < 5; i++) guest.device.poll();
      assert.equal(guest.queue.collect().length, 10);
    });
  });

  test('several queues get their share', () => {
    withGuest({ device: { slots: 4, queues: 2 } }, (guest) => {
      for (const queue of guest.queues) {
        for (let i = 0; i < 10; i++) queue.offer(VIRTIO_BLK_T_IN, i, undefined, 512);
        queue.publish();
      }
      for (let i = 0; i < 2; i++) guest.device.poll();
      const shares = guest.queues.map((queue) => queue.collect().length);
      assert.deepEqual(shares, [4, 4]);
    });
  });
});

test('with free slots, a sleeping lane is kicked for new requests', () => {
  withGuest({}, (guest) => {
    assert.equal(guest.device.arm(), false);
    const { kicks } = guest.queue.pair;
    offerReads(guest, 1);
    assert.equal(guest.queue.pair.kicks, kicks + 1);
    assert.equal(guest.device.arm(), true);
    guest.device.disarm();
    guest.device.poll();
    offerReads(guest, 1);
    assert.equal(guest.queue.pair.kicks, kicks + 1);
    guest.device.poll();
  });
});

describe('a disk that fails', () => {
  const cases = [
    [-EIO, IOERR, 'error_io', 'EIO'],
    [-ENOSPC, IOERR, 'error_no_space', 'ENOSPC'],
    [-EOPNOTSUPP, UNSUPP, 'error_unsupported', '(EOPNOTSUPP|ENOTSUP)'],
  ] as const;
  for (const [result, status, counter, name] of cases) {
    test(`with ${name} is told to the guest, the log and the counters`, () => {
      withGuest({}, (guest) => {
        guest.disk.result = () => result;
        const used = guest.do(VIRTIO_BLK_T_IN, 40, undefined, 1024);
        assert.equal(used.status, status);
        // Nothing is said of what was read (§2.7.8.2).
        assert.equal(used.written, 0);
        assert.equal(guest.do(VIRTIO_BLK_T_OUT, 40, pattern(512, 1)).status, status);
        assert.equal(guest.do(VIRTIO_BLK_T_FLUSH, 0).status, status);
        assert.equal(guest.counter(counter), 3);
        assert.deepEqual([guest.counter('reads'), guest.counter('writes')], [0, 0]);
        assert.match(
          guest.records[0]?.message ?? '',
          new RegExp(`web/disk0: disk fake: read of 2 sectors at sector 40 failed: ${name}`),
        );
        // One record a second.
        assert.equal(guest.records.length, 1);
        guest.disk.result = () => undefined;
        assert.equal(guest.do(VIRTIO_BLK_T_OUT, 40, pattern(512, 1)).status, OK);
      });
    });
  }

  test('a hundred times is one record, and one more with the count', () => {
    const guest = new BlkGuest();
    guest.disk.result = () => -EIO;
    for (let i = 0; i < 100; i++) guest.do(VIRTIO_BLK_T_OUT, 0, pattern(512, 1));
    guest.close();
    assert.deepEqual(
      guest.records.map(({ message }) => message),
      [
        'web/disk0: disk fake: write of 1 sectors at sector 0 failed: EIO',
        'web/disk0: disk fake: 99 more requests failed',
      ],
    );
  });
});

describe('durability (§5.2.6.2)', () => {
  const FLUSH = bitMask(blk.VIRTIO_BLK_F_FLUSH);
  const WCE = bitMask(blk.VIRTIO_BLK_F_CONFIG_WCE);
  const isFua = (guest: BlkGuest): boolean => {
    const before = guest.disk.seen.length;
    assert.equal(guest.do(VIRTIO_BLK_T_OUT, 0, pattern(512, 1)).status, OK);
    const seen = guest.disk.seen.slice(before).filter(({ op }) => op === DISK_WRITE);
    assert.equal(seen.length, 1);
    return (seen[0] as { flags: number }).flags === REQUEST_FUA;
  };
  const cases = [
    ['with both features, by the field', FLUSH | WCE, true, false],
    ['with both features, the cache being off', FLUSH | WCE, false, true],
    ['with FLUSH alone', FLUSH, true, false],
    ['with neither', 0n, true, true],
    ['with CONFIG_WCE alone', WCE, true, true],
  ] as const;
  for (const [name, features, writeback, fua] of cases) {
    test(`${name}: writes are ${fua ? '' : 'not '}durable when they complete`, () => {
      withGuest({ features, device: { writeback } }, (guest) => assert.equal(isFua(guest), fua));
    });
  }

  test('the guest turns the cache off and on; what came before is flushed', () => {
    withGuest({}, (guest) => {
      const mode = (): number => guest.device.readConfig()[blk.BLK_CONFIG_WRITEBACK] as number;
      assert.deepEqual([mode(), isFua(guest)], [1, false]);
      guest.device.writeConfig(blk.BLK_CONFIG_WRITEBACK, Uint8Array.of(0));
      guest.device.poll();
      assert.equal(guest.disk.seen.at(-1)?.op, DISK_FLUSH);
      assert.deepEqual([mode(), isFua(guest)], [0, true]);
      // A VMM keeps the field over a reset.
      const [queue] = guest.queues;
      guest.device.reset();
      guest.device.setDriverFeatures(guest.device.features);
      assert.ok(queue);
      guest.device.startQueue(0, queue.pair.device);
      guest.device.setQueueEnabled(0, true);
      assert.deepEqual([mode(), isFua(guest)], [0, true]);
      guest.device.writeConfig(blk.BLK_CONFIG_WRITEBACK, Uint8Array.of(1));
      assert.deepEqual([mode(), isFua(guest)], [1, false]);
      assert.equal(guest.counter('flushes'), 0);
    });
  });

  test("the guest's choice outlives the process where there is a store", () => {
    let kept: boolean | undefined;
    const cacheMode = {
      load: () => kept,
      save: (writeback: boolean) => {
        kept = writeback;
      },
    };
    withGuest({ device: { cacheMode } }, (guest) => {
      assert.equal(isFua(guest), false);
      guest.device.writeConfig(blk.BLK_CONFIG_WRITEBACK, Uint8Array.of(0));
    });
    assert.equal(kept, false);
    withGuest({ device: { cacheMode } }, (guest) => assert.equal(isFua(guest), true));
  });

  test('zeroes are flushed while the cache is off', () => {
    withGuest({ device: { writeback: false } }, (guest) => {
      guest.do(VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges([0, 8], [16, 8]));
      assert.deepEqual(
        guest.disk.seen.map(({ op, flags }) => [op, flags]),
        [
          [DISK_WRITE_ZEROES, REQUEST_FUA],
          [DISK_WRITE_ZEROES, REQUEST_FUA],
          [DISK_FLUSH, 0],
        ],
      );
      assert.equal(guest.counter('write_zeroes'), 1);
      assert.equal(guest.counter('flushes'), 0);
      guest.disk.result = ({ op }) => (op === DISK_FLUSH ? -EIO : undefined);
      const used = guest.do(VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges([0, 8]));
      assert.equal(used.status, IOERR);
      assert.equal(guest.counter('write_zeroes'), 1);
    });
  });
});

describe('discard and write zeroes', () => {
  test('of several ranges are a request to the disk each, and one answer', () => {
    withGuest({}, (guest) => {
      guest.disk.content.fill(1);
      const used = guest.do(VIRTIO_BLK_T_DISCARD, 0, ranges([0, 8], [100, 1], [2047, 1]));
      assert.deepEqual([used.status, used.written], [OK, 1]);
      assert.deepEqual(
        guest.disk.seen.map(({ op, offset, bytes, flags }) => [op, offset, bytes, flags]),
        [
          [DISK_DISCARD, 0, 4096, 0],
          [DISK_DISCARD, 51200, 512, 0],
          [DISK_DISCARD, 2047 * 512, 512, 0],
        ],
      );
      assert.equal(guest.disk.content.indexOf(0), 0);
      assert.equal(guest.counter('discards'), 1);
      assert.equal(guest.counter('discard_bytes'), 4096 + 1024);
    });
  });

  test('may give blocks back only if the guest says so, and the disk can', () => {
    for (const discardBytes of [4096, 0]) {
      withGuest({ disk: new FakeDisk({ discardBytes }) }, (guest) => {
        guest.do(VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges([0, 8], [8, 8, 1]));
        assert.deepEqual(
          guest.disk.seen.map(({ flags }) => flags),
          [0, discardBytes > 0 ? REQUEST_UNMAP : 0],
        );
      });
    }
  });

  test('of many ranges get along with few slots, and others get theirs', () => {
    for (const slots of [1, 2, 3, 5]) {
      withGuest({ device: { slots } }, (guest) => {
        const many = Array.from({ length: MAX_RANGES }, (_, i): [number, number] => [8 * i, 4]);
        guest.disk.content.fill(1);
        const zeroes = guest.queue.offer(VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges(...many));
        const read = guest.queue.offer(VIRTIO_BLK_T_IN, 1000, undefined, 512);
        guest.queue.publish();
        for (let i = 0; i < 2 * MAX_RANGES; i++) guest.device.poll();
        assert.equal(guest.queue.collect().length, 2);
        assert.deepEqual([zeroes.status, read.status], [OK, OK]);
        assert.equal(guest.disk.seen.length, MAX_RANGES + 1);
        for (let i = 0; i < MAX_RANGES; i++) {
          assert.equal(guest.disk.content[4096 * i], 0);
          assert.equal(guest.disk.content[4096 * i + 2048], 1);
        }
        assert.equal(guest.counter('write_zeroes_bytes'), MAX_RANGES * 2048);
      });
    }
  });

  test('fail as a whole if one range fails, and begin with no further one', () => {
    withGuest({ device: { slots: 2 } }, (guest) => {
      guest.disk.result = ({ offset }) => (offset === 4096 ? -EIO : undefined);
      const many = Array.from({ length: 10 }, (_, i): [number, number] => [8 * i, 8]);
      const used = guest.do(VIRTIO_BLK_T_DISCARD, 0, ranges(...many));
      assert.equal(used.status, IOERR);
      assert.ok(guest.disk.seen.length < 10);
      assert.equal(guest.counter('error_io'), 1);
      assert.match(guest.records[0]?.message ?? '', /discard of 8 sectors at sector 8 failed: EIO/);
      guest.disk.result = () => undefined;
      assert.equal(guest.do(VIRTIO_BLK_T_DISCARD, 0, ranges(...many)).status, OK);
    });
  });
});

describe('hold', () => {
  test('takes no more chains and tells when those in flight are published', () => {
    withGuest({}, (guest) => {
      guest.disk.choose = none;
      offerReads(guest, 3);
      guest.device.poll();
      assert.equal(guest.device.hold(0), false);
      offerReads(guest, 2);
      guest.device.poll();
      assert.equal(guest.disk.pendingSlots.length, 3);
      assert.equal(guest.drained, 0);
      assert.throws(() => guest.device.stopQueue(0), { code: 'state' });
      assert.throws(() => guest.device.reset(), { code: 'state' });
      guest.disk.choose = (pending) => pending.slice(0, 2);
      guest.device.poll();
      assert.equal(guest.drained, 0);
      guest.disk.choose = all;
      let usedThen = 0;
      guest.device.onDrained = () => {
        guest.drained++;
        usedThen = guest.queue.collect().length;
      };
      guest.device.poll();
      assert.equal(guest.drained, 1);
      assert.equal(usedThen, 3);
      guest.device.poll();
      assert.equal(guest.drained, 1);
      assert.equal(guest.device.hold(0), true);
      assert.equal(guest.device.arm(), false);
      guest.device.disarm();
      // The end of the hold.
      guest.device.setQueueEnabled(0, true);
      guest.device.poll();
      assert.equal(guest.queue.collect().length, 2);
    });
  });

  test('of one queue does not touch the others; of all waits for all', () => {
    withGuest({ device: { queues: 2 } }, (guest) => {
      const [first, second] = guest.queues;
      assert.ok(first && second);
      guest.disk.choose = none;
      for (const [sector, queue] of [first, second].entries()) {
        queue.offer(VIRTIO_BLK_T_IN, sector, undefined, 512);
        queue.publish();
      }
      guest.device.poll();
      assert.equal(guest.device.hold(1), false);
      const slot = guest.disk.seen.find(({ offset }) => offset === 512)?.slot as number;
      guest.disk.choose = () => [slot];
      guest.device.poll();
      assert.equal(guest.drained, 1);
      assert.equal(guest.device.hold(undefined), false);
      guest.disk.choose = all;
      guest.device.poll();
      assert.equal(guest.drained, 2);
      assert.equal(guest.device.hold(undefined), true);
      guest.device.stopQueue(1);
      guest.device.startQueue(0, first.pair.device);
      first.offer(VIRTIO_BLK_T_IN, 0, undefined, 512);
      first.publish();
      guest.device.poll();
      assert.equal(first.collect().length, 2);
    });
  });

  test('without anything in flight is there at once', () => {
    withGuest({}, (guest) => {
      assert.equal(guest.device.hold(0), true);
      assert.equal(guest.device.hold(undefined), true);
      guest.device.poll();
      assert.equal(guest.drained, 0);
    });
  });

  test('waits for requests of a broken device, which end unanswered', () => {
    withGuest({}, (guest) => {
      guest.disk.choose = none;
      const [pending] = offerReads(guest, 1);
      guest.device.poll();
      guest.queue.offer(VIRTIO_BLK_T_OUT, 0, pattern(512, 1), 0, { noStatus: true });
      guest.queue.publish();
      guest.device.poll();
      assert.equal(guest.broken.length, 1);
      assert.equal(guest.device.hold(undefined), false);
      guest.disk.choose = all;
      guest.device.poll();
      assert.equal(guest.drained, 1);
      assert.deepEqual(guest.queue.collect(), []);
      assert.equal(guest.queue.read(pending?.statusAt ?? 0, 1)[0], 0xee);
    });
  });
});

test('a queue that is disabled is left alone, and answers what it had', () => {
  withGuest({}, (guest) => {
    guest.disk.choose = none;
    offerReads(guest, 1);
    guest.device.poll();
    guest.device.setQueueEnabled(0, false);
    offerReads(guest, 1);
    guest.disk.choose = all;
    guest.device.poll();
    assert.equal(guest.queue.collect().length, 1);
    guest.device.setQueueEnabled(0, true);
    guest.device.poll();
    assert.equal(guest.queue.collect().length, 1);
  });
});

describe('a resize', () => {
  const capacity = (guest: BlkGuest): bigint =>
    Buffer.from(guest.device.readConfig()).readBigUInt64LE(blk.BLK_CONFIG_CAPACITY);

  test('is told to the guest, which can use the new sectors, or no longer the old', () => {
    withGuest({}, (guest) => {
      let changes = 0;
      guest.device.onConfigChange = () => changes++;
      assert.equal(capacity(guest), 2048n);
      guest.disk.change({ bytes: 2 * 1024 * 1024 });
      assert.deepEqual([changes, capacity(guest)], [1, 4096n]);
      assert.equal(guest.do(VIRTIO_BLK_T_OUT, 4095, pattern(512, 1)).status, OK);
      guest.disk.change({ bytes: 1024 * 1024 });
      assert.deepEqual([changes, capacity(guest)], [2, 2048n]);
      assert.equal(guest.do(VIRTIO_BLK_T_OUT, 2048, pattern(512, 1)).status, IOERR);
    });
  });

  test('of a closed device is nobody’s business', () => {
    const guest = new BlkGuest();
    assert.equal(guest.disk.listeners, 1);
    guest.close();
    assert.equal(guest.disk.listeners, 0);
    assert.equal(guest.disk.closed, true);
  });
});

describe('the configuration space', () => {
  test('tells what the disk is', () => {
    const disk = new FakeDisk({
      blockBytes: 1024,
      physicalBlockBytes: 8192,
      optimalBytes: 131072,
      discardBytes: 65536,
    });
    disk.info = { ...disk.info, bytes: 6000 * GiB };
    withGuest({ disk, device: { queues: 3, segMax: 62 } }, (guest) => {
      const config = Buffer.from(guest.device.readConfig());
      assert.equal(config.length, blk.BLK_CONFIG_BYTES);
      assert.equal(config.readBigUInt64LE(blk.BLK_CONFIG_CAPACITY), 6000n * 2n ** 21n);
      const sizeMax = config.readUInt32LE(blk.BLK_CONFIG_SIZE_MAX);
      assert.ok(sizeMax * 62 < 2 ** 31 && sizeMax >= 2 ** 20);
      const u32 = [
        [blk.BLK_CONFIG_SEG_MAX, 62],
        [blk.BLK_CONFIG_BLK_SIZE, 1024],
        [blk.BLK_CONFIG_OPT_IO_SIZE, 128],
        [blk.BLK_CONFIG_MAX_DISCARD_SEG, MAX_RANGES],
        [blk.BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT, 128],
        [blk.BLK_CONFIG_MAX_WRITE_ZEROES_SEG, MAX_RANGES],
      ] as const;
      for (const [at, value] of u32) assert.equal(config.readUInt32LE(at), value, `${at}`);
      assert.equal(config[blk.BLK_CONFIG_PHYSICAL_BLOCK_EXP], 3);
      assert.equal(config.readUInt16LE(blk.BLK_CONFIG_MIN_IO_SIZE), 8);
      assert.equal(config.readUInt16LE(blk.BLK_CONFIG_NUM_QUEUES), 3);
      assert.equal(config[blk.BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP], 1);
      const most = config.readUInt32LE(blk.BLK_CONFIG_MAX_DISCARD_SECTORS);
      assert.ok(most % 128 === 0 && most >= 2 ** 21 && most * 512 < 2 ** 31);
      for (const at of [blk.BLK_CONFIG_UNUSED0, blk.BLK_CONFIG_UNUSED1])
        assert.equal(config[at], 0);
    });
  });

  test('may be written in one place only', () => {
    withGuest({}, (guest) => {
      const write =
        (at: number, ...bytes: readonly number[]) =>
        () =>
          guest.device.writeConfig(at, Uint8Array.from(bytes));
      for (const attempt of [
        write(0, 1),
        write(blk.BLK_CONFIG_WRITEBACK, 2),
        write(blk.BLK_CONFIG_WRITEBACK, 0, 0),
        write(blk.BLK_CONFIG_WRITEBACK),
        write(blk.BLK_CONFIG_WRITEBACK - 1, 0, 0),
      ]) {
        assert.throws(
          attempt,
          (error) => error instanceof SluiceError && error.code === 'protocol',
        );
      }
    });
  });
});

describe('features', () => {
  const offers = (guest: BlkGuest, bit: number): boolean => hasBit(guest.device.features, bit);

  test('follow what the disk can', () => {
    const cases = [
      [{}, [blk.VIRTIO_BLK_F_DISCARD, blk.VIRTIO_BLK_F_WRITE_ZEROES], [blk.VIRTIO_BLK_F_RO]],
      [{ discardBytes: 0 }, [blk.VIRTIO_BLK_F_WRITE_ZEROES], [blk.VIRTIO_BLK_F_DISCARD]],
      [{ writeZeroes: false }, [blk.VIRTIO_BLK_F_DISCARD], [blk.VIRTIO_BLK_F_WRITE_ZEROES]],
      [
        { readonly: true },
        [blk.VIRTIO_BLK_F_RO],
        [blk.VIRTIO_BLK_F_DISCARD, blk.VIRTIO_BLK_F_WRITE_ZEROES],
      ],
      [{ lifetime: { preEol: 1, typeA: 1, typeB: 1 } }, [blk.VIRTIO_BLK_F_LIFETIME], []],
    ] as const;
    for (const [info, offered, missing] of cases) {
      withGuest({ disk: new FakeDisk(info) }, (guest) => {
        for (const bit of offered) assert.ok(offers(guest, bit), `${bit}`);
        for (const bit of missing) assert.ok(!offers(guest, bit), `${bit}`);
        assert.ok(offers(guest, blk.VIRTIO_BLK_F_FLUSH));
        assert.ok(!offers(guest, blk.VIRTIO_BLK_F_MQ));
        assert.equal(guest.device.tracksInflight, true);
      });
    }
  });

  test('can be withheld, and are not served then', () => {
    const withheld = bitMask(blk.VIRTIO_BLK_F_DISCARD);
    withGuest({ device: { withheld } }, (guest) => {
      assert.ok(!offers(guest, blk.VIRTIO_BLK_F_DISCARD));
      assert.equal(guest.do(VIRTIO_BLK_T_DISCARD, 0, ranges([0, 8])).status, UNSUPP);
      guest.do(VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges([0, 8, 1]));
      assert.equal(guest.disk.seen[0]?.flags, 0);
      const config = guest.device.readConfig();
      assert.equal(config[blk.BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP], 0);
    });
  });

  test('options that cannot be are refused', () => {
    for (const device of [{ queues: 0 }, { queues: 1.5 }, { segMax: 0 }, { slots: 0 }]) {
      assert.throws(() => new BlkGuest({ device }), { code: 'config' });
    }
    for (const blockBytes of [256, 1536]) {
      assert.throws(() => new BlkGuest({ disk: new FakeDisk({ blockBytes }) }), { code: 'config' });
    }
  });

  test('a ring shorter than seg_max asks for is told to the log', () => {
    withGuest({ ring: { size: 16 }, device: { segMax: 126 } }, (guest) => {
      assert.match(guest.records[0]?.message ?? '', /16 entries.*seg_max to 14/);
    });
  });
});

test('pages that the disk has written are marked for a migration', () => {
  withGuest({}, (guest) => {
    const marked: [number, number][] = [];
    const { memory, device } = guest.queue.pair;
    const noted = device.noteWritten.bind(device);
    device.noteWritten = (at, length) => {
      marked.push([memory.guestAddressOf(at), length]);
      noted(at, length);
    };
    const read = guest.do(VIRTIO_BLK_T_IN, 0, undefined, 1024, { writable: [512] });
    assert.deepEqual(marked.splice(0), [
      [read.dataAt, 512],
      [read.dataAt + 512, 512],
      [read.statusAt, 1],
    ]);
    const write = guest.do(VIRTIO_BLK_T_OUT, 0, pattern(512, 1));
    assert.deepEqual(marked, [[write.statusAt, 1]]);
  });
});

test('a failure of the disk’s own code waits for what is in flight, then ends the device', () => {
  const guest = new BlkGuest();
  const submit = guest.disk.submit.bind(guest.disk);
  guest.disk.choose = none;
  offerReads(guest, 1);
  guest.device.poll();
  guest.disk.submit = () => {
    throw new Error('a bug');
  };
  offerReads(guest, 1);
  guest.device.poll();
  guest.device.poll();
  guest.disk.submit = submit;
  guest.disk.choose = all;
  assert.equal(guest.device.hold(undefined), false);
  assert.throws(() => guest.device.poll(), /a bug/);
  assert.equal(guest.broken.length, 0);
  assert.equal(guest.device.hold(undefined), true);
  guest.device.reset();
  guest.device.close();
});

test('kicks and calls are counted', () => {
  withGuest({}, (guest) => {
    guest.device.countKick();
    guest.device.countCall();
    assert.deepEqual([guest.counter('kicks'), guest.counter('calls')], [1, 1]);
  });
});
