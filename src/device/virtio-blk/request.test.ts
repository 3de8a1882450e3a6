import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { bitMask } from '../../base/bits.ts';
import { DISK_READ, DISK_WRITE } from '../../block/requests.ts';
import { RingError } from '../../ring/device-queue.ts';
import {
  VIRTIO_BLK_S_IOERR as IOERR,
  VIRTIO_BLK_S_OK as OK,
  VIRTIO_BLK_S_UNSUPP as UNSUPP,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_FLUSH_OUT,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_GET_LIFETIME,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_SCSI_CMD,
  VIRTIO_BLK_T_SECURE_ERASE,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from '../../spec/virtio-blk.ts';
import type { BlockCounter } from './counters.ts';
import { MAX_RANGES } from './features.ts';
import {
  BlkGuest,
  type BlkGuestOptions,
  FakeDisk,
  pattern,
  ranges,
  type Shape,
} from './testing.ts';

function withGuest(options: BlkGuestOptions, use: (guest: BlkGuest) => void): void {
  const guest = new BlkGuest(options);
  try {
    use(guest);
  } finally {
    guest.close();
  }
}

const RINGS = [
  { name: 'split', ring: { packed: false } },
  { name: 'packed', ring: { packed: true } },
  { name: 'split, indirect', ring: { packed: false, indirect: true, indirectLength: 64 } },
  { name: 'packed, indirect', ring: { packed: true, indirect: true, indirectLength: 64 } },
] as const;

/** The same request in descriptors of all sorts. */
const SHAPES: readonly Shape[] = [
  { readable: [16] },
  { readable: [] },
  { readable: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] },
  { readable: [7, 9] },
  { readable: [7, 500] },
  { readable: [17, 100], writable: [100, 1] },
  { readable: [15, 2, 511], writable: [] },
  { readable: [16, 512], writable: [512] },
  { readable: [100], writable: [1, 2, 3, 1000] },
];

for (const { name, ring } of RINGS) {
  const indirect = name.includes('indirect');
  describe(`requests over ${name} descriptors`, () => {
    test('are understood however they lie in descriptors', () => {
      withGuest({ ring: { size: 64, ...ring } }, (guest) => {
        for (const [i, shape] of SHAPES.entries()) {
          const data = pattern(1024, i);
          const wrote = guest.do(VIRTIO_BLK_T_OUT, 2 * i, data, 0, { ...shape, indirect });
          assert.deepEqual([wrote.status, wrote.written], [OK, 1], JSON.stringify(shape));
          assert.deepEqual(guest.disk.content.subarray(1024 * i, 1024 * (i + 1)), data);
          assert.deepEqual(guest.read(2 * i, 1024, { ...shape, indirect }), data);
        }
        assert.equal(guest.counter('reads'), SHAPES.length);
        assert.equal(guest.counter('read_bytes'), 1024 * SHAPES.length);
        assert.equal(guest.counter('writes'), SHAPES.length);
        assert.equal(guest.counter('write_bytes'), 1024 * SHAPES.length);
      });
    });

    test('may lie across the border of two memory regions', () => {
      withGuest({ ring: { size: 64, ...ring } }, (guest) => {
        const { border } = guest.queue.pair;
        // The border in the header, in the data, before and after the status.
        for (const before of [1, 8, 15, 16, 17, 16 + 512, 16 + 1023, 16 + 1024]) {
          const data = pattern(1024, before);
          const at = border - before;
          assert.equal(guest.do(VIRTIO_BLK_T_OUT, 4, data, 0, { at, indirect }).status, OK);
          assert.deepEqual(guest.disk.content.subarray(2048, 3072), data, `${before}`);
          guest.disk.content.set(pattern(1024, before + 1), 2048);
          assert.deepEqual(guest.read(4, 1024, { at, indirect }), pattern(1024, before + 1));
        }
      });
    });
  });
}

test('the segments of a request reach the disk as they are', () => {
  withGuest({}, (guest) => {
    guest.do(VIRTIO_BLK_T_OUT, 0, pattern(1024, 1), 0, { readable: [20, 200, 300] });
    guest.do(VIRTIO_BLK_T_IN, 0, undefined, 1024, { writable: [100, 200] });
    assert.deepEqual(
      guest.disk.seen.map(({ op, segments }) => ({ op, segments })),
      [
        { op: DISK_WRITE, segments: [4, 200, 300, 520] },
        { op: DISK_READ, segments: [100, 200, 724] },
      ],
    );
  });
});

interface Refusal {
  readonly name: string;
  readonly status: number;
  readonly counter: BlockCounter;
  readonly ask: readonly [
    type: number,
    sector: number | bigint,
    out?: Uint8Array | undefined,
    room?: number,
  ];
  readonly shape?: Shape;
  readonly disk?: ConstructorParameters<typeof FakeDisk>[0];
  readonly features?: bigint;
}

const SECTORS = 2048;
const sector = Buffer.alloc(512, 1);

const REFUSALS: readonly Refusal[] = [
  ...([VIRTIO_BLK_T_SCSI_CMD, VIRTIO_BLK_T_SECURE_ERASE, 3, 6, 7, 9, 12, 15, 16, 26] as const).map(
    (type): Refusal => ({
      name: `type ${type}`,
      status: UNSUPP,
      counter: 'error_unsupported',
      ask: [type, 0],
    }),
  ),
  // VIRTIO_BLK_T_BARRIER is not offered.
  {
    name: 'a write with the barrier bit',
    status: UNSUPP,
    counter: 'error_unsupported',
    ask: [0x8000_0001, 0, sector],
  },
  {
    name: 'a lifetime that the disk does not know',
    status: UNSUPP,
    counter: 'error_unsupported',
    ask: [VIRTIO_BLK_T_GET_LIFETIME, 0, undefined, 6],
  },
  ...[VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT].flatMap((type): Refusal[] => {
    const what = type === VIRTIO_BLK_T_IN ? 'a read' : 'a write';
    const ask = (at: number | bigint, bytes: number): Refusal['ask'] =>
      type === VIRTIO_BLK_T_IN ? [type, at, undefined, bytes] : [type, at, Buffer.alloc(bytes, 1)];
    const range = { status: IOERR, counter: 'error_range' } as const;
    const alignment = { status: IOERR, counter: 'error_alignment' } as const;
    return [
      { name: `${what} behind the end`, ...range, ask: ask(SECTORS, 512) },
      { name: `${what} across the end`, ...range, ask: ask(SECTORS - 1, 1024) },
      { name: `${what} of nothing behind the end`, ...range, ask: ask(SECTORS + 1, 0) },
      { name: `${what} at 2^32`, ...range, ask: ask(2 ** 32, 512) },
      { name: `${what} at 2^55`, ...range, ask: ask(2n ** 55n, 512) },
      { name: `${what} at the last sector of all`, ...range, ask: ask(2n ** 64n - 1n, 512) },
      { name: `${what} of a byte`, ...alignment, ask: ask(0, 1) },
      { name: `${what} of 513 bytes`, ...alignment, ask: ask(0, 513) },
      {
        name: `${what} of half a block`,
        ...alignment,
        ask: ask(0, 512),
        disk: { blockBytes: 4096 },
      },
      {
        name: `${what} between two blocks`,
        ...alignment,
        ask: ask(1, 4096),
        disk: { blockBytes: 4096 },
      },
    ];
  }),
  {
    name: 'a write to a readonly disk',
    status: IOERR,
    counter: 'error_readonly',
    ask: [VIRTIO_BLK_T_OUT, 0, sector],
    disk: { readonly: true },
  },
  {
    name: 'a discard of a readonly disk',
    status: IOERR,
    counter: 'error_readonly',
    ask: [VIRTIO_BLK_T_DISCARD, 0, ranges([0, 8])],
    disk: { readonly: true },
  },
  {
    name: 'write zeroes to a readonly disk',
    status: IOERR,
    counter: 'error_readonly',
    ask: [VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges([0, 8])],
    disk: { readonly: true },
  },
  {
    name: 'a write whose data are device-writable',
    status: IOERR,
    counter: 'error_malformed',
    ask: [VIRTIO_BLK_T_OUT, 0, undefined, 512],
  },
  {
    name: 'a write with data of both sorts',
    status: IOERR,
    counter: 'error_malformed',
    ask: [VIRTIO_BLK_T_OUT, 0, sector, 512],
  },
  {
    name: 'a read whose data are device-readable',
    status: IOERR,
    counter: 'error_malformed',
    ask: [VIRTIO_BLK_T_IN, 0, sector],
  },
  ...[0, 1, 15].map(
    (headerBytes): Refusal => ({
      name: `a header of ${headerBytes} bytes`,
      status: IOERR,
      counter: 'error_malformed',
      ask: [VIRTIO_BLK_T_IN, 0],
      shape: { headerBytes },
    }),
  ),
  {
    name: 'a read in more segments than there is room for',
    status: IOERR,
    counter: 'error_malformed',
    ask: [VIRTIO_BLK_T_IN, 0, undefined, 4096],
    shape: { writable: Array.from({ length: 300 }, () => 1) },
  },
  {
    name: 'a write in more segments than there is room for',
    status: IOERR,
    counter: 'error_malformed',
    ask: [VIRTIO_BLK_T_OUT, 0, Buffer.alloc(4096)],
    shape: { readable: Array.from({ length: 300 }, () => 1) },
  },
  ...[VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES].flatMap((type): Refusal[] => {
    const what = type === VIRTIO_BLK_T_DISCARD ? 'a discard' : 'write zeroes';
    const malformed = { status: IOERR, counter: 'error_malformed' } as const;
    const range = { status: IOERR, counter: 'error_range' } as const;
    const unsupported = { status: UNSUPP, counter: 'error_unsupported' } as const;
    const many = Array.from({ length: MAX_RANGES + 1 }, (_, i): [number, number] => [8 * i, 8]);
    return [
      { name: `${what} without a range`, ...malformed, ask: [type, 0] },
      { name: `${what} with half a range`, ...malformed, ask: [type, 0, Buffer.alloc(8)] },
      { name: `${what} with one and a half`, ...malformed, ask: [type, 0, Buffer.alloc(24)] },
      { name: `${what} with too many ranges`, ...malformed, ask: [type, 0, ranges(...many)] },
      { name: `${what} with room behind`, ...malformed, ask: [type, 0, ranges([0, 8]), 1] },
      { name: `${what} behind the end`, ...range, ask: [type, 0, ranges([SECTORS, 8])] },
      { name: `${what} across the end`, ...range, ask: [type, 0, ranges([SECTORS - 1, 8])] },
      { name: `${what} at 2^64 - 1`, ...range, ask: [type, 0, ranges([2n ** 64n - 1n, 8])] },
      {
        name: `${what} with a good range and a bad one`,
        ...range,
        ask: [type, 0, ranges([0, 8], [SECTORS, 1])],
      },
      { name: `${what} of 2^32 - 1 sectors`, ...range, ask: [type, 0, ranges([0, 0xffff_ffff])] },
      {
        name: `${what} with an unknown flag`,
        ...unsupported,
        ask: [type, 0, ranges([0, 8, 2])],
      },
      {
        name: `${what} with all flags`,
        ...unsupported,
        ask: [type, 0, ranges([0, 8, 0xffff_ffff])],
      },
      {
        name: `${what} that was not negotiated`,
        ...unsupported,
        ask: [type, 0, ranges([0, 8])],
        features: 0n,
      },
      {
        name: `${what} between blocks`,
        status: IOERR,
        counter: 'error_alignment',
        ask: [type, 0, ranges([1, 8])],
        disk: { blockBytes: 4096 },
      },
      {
        name: `${what} of part of a block`,
        status: IOERR,
        counter: 'error_alignment',
        ask: [type, 0, ranges([8, 7])],
        disk: { blockBytes: 4096 },
      },
    ];
  }),
  {
    name: 'a discard with the unmap flag',
    status: UNSUPP,
    counter: 'error_unsupported',
    ask: [VIRTIO_BLK_T_DISCARD, 0, ranges([0, 8, 1])],
    features: bitMask(VIRTIO_BLK_F_DISCARD),
  },
];

describe('what is refused never reaches the disk', () => {
  for (const { name, status, counter, ask, shape, disk, features } of REFUSALS) {
    test(name, () => {
      const options: BlkGuestOptions = {
        disk: new FakeDisk(disk),
        ring: { size: 512 },
        ...(features === undefined ? {} : { features }),
      };
      withGuest(options, (guest) => {
        const before = Buffer.from(guest.disk.content);
        const used = guest.do(ask[0], ask[1], ask[2], ask[3], shape);
        assert.equal(used.status, status);
        assert.deepEqual(guest.disk.seen, []);
        assert.deepEqual(guest.disk.content, before);
        assert.equal(guest.counter(counter), 1);
        assert.deepEqual(guest.broken, []);
        // The next request is none the worse.
        assert.equal(guest.do(VIRTIO_BLK_T_FLUSH, 0).status, OK);
      });
    });
  }
});

test('a request without a byte for its status breaks the device, and no other', () => {
  for (const packed of [false, true]) {
    withGuest({ ring: { packed } }, (guest) => {
      withGuest({ ring: { packed } }, (other) => {
        guest.queue.offer(VIRTIO_BLK_T_OUT, 0, sector, 0, { noStatus: true });
        guest.queue.publish();
        guest.device.poll();
        assert.equal(guest.broken.length, 1);
        assert.ok(guest.broken[0] instanceof RingError);
        assert.match(guest.records[0]?.message ?? '', /web\/disk0: .*status/);
        assert.deepEqual(guest.disk.seen, []);
        guest.device.poll();
        assert.equal(guest.broken.length, 1);
        assert.equal(other.do(VIRTIO_BLK_T_OUT, 0, sector).status, OK);
      });
    });
  }
});

test('a read or write of nothing succeeds and does not reach the disk', () => {
  withGuest({}, (guest) => {
    assert.equal(guest.do(VIRTIO_BLK_T_IN, SECTORS).status, OK);
    assert.equal(guest.do(VIRTIO_BLK_T_OUT, 0).status, OK);
    assert.equal(guest.do(VIRTIO_BLK_T_DISCARD, 0, ranges([5, 0], [6, 0])).status, OK);
    assert.deepEqual(guest.disk.seen, []);
  });
});

test('the last sector can be read and written', () => {
  withGuest({}, (guest) => {
    assert.equal(guest.do(VIRTIO_BLK_T_OUT, SECTORS - 1, sector).status, OK);
    assert.deepEqual(guest.read(SECTORS - 1, 512), sector);
  });
});

test('both names of a flush flush', () => {
  withGuest({}, (guest) => {
    for (const type of [VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_FLUSH_OUT]) {
      assert.equal(guest.do(type, 0).status, OK);
    }
    assert.equal(guest.disk.seen.length, 2);
    assert.equal(guest.counter('flushes'), 2);
  });
});

describe('the serial number', () => {
  test('is padded to 20 bytes, in pieces as well', () => {
    withGuest({}, (guest) => {
      const expected = Buffer.alloc(20);
      expected.write('a serial number');
      for (const writable of [[20], [3, 10], []]) {
        const used = guest.do(VIRTIO_BLK_T_GET_ID, 0, undefined, 20, { writable });
        assert.deepEqual([used.status, used.written], [OK, 21]);
        assert.deepEqual(used.data, expected);
      }
      assert.equal(guest.counter('queries'), 3);
    });
  });

  test('of 20 characters has no end; more are refused', () => {
    withGuest({ device: { serial: 'x'.repeat(20) } }, (guest) => {
      const used = guest.do(VIRTIO_BLK_T_GET_ID, 0, undefined, 20);
      assert.equal(used.data?.toString(), 'x'.repeat(20));
    });
    for (const serial of ['x'.repeat(21), 'ä', 'a\n']) {
      assert.throws(() => new BlkGuest({ device: { serial } }), { code: 'config' });
    }
  });

  test('in less room is cut, in more leaves the rest alone', () => {
    withGuest({}, (guest) => {
      const short = guest.do(VIRTIO_BLK_T_GET_ID, 0, undefined, 4);
      assert.equal(short.data?.toString(), 'a se');
      assert.equal(short.written, 5);
      const long = guest.do(VIRTIO_BLK_T_GET_ID, 0, undefined, 32);
      assert.deepEqual([long.status, long.written], [OK, 20]);
      assert.deepEqual(long.data?.subarray(20), Buffer.alloc(12, 0xee));
    });
  });
});

test('a lifetime that the disk knows is told, without reserved values', () => {
  const disk = new FakeDisk({ lifetime: { preEol: 2, typeA: 11, typeB: 12 } });
  withGuest({ disk }, (guest) => {
    const used = guest.do(VIRTIO_BLK_T_GET_LIFETIME, 0, undefined, 6);
    assert.deepEqual(used.data, Buffer.from([2, 0, 11, 0, 0, 0]));
    assert.equal(used.status, OK);
  });
});
