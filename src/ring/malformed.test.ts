import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  VIRTQ_DESC_F_INDIRECT as INDIRECT,
  VIRTQ_DESC_F_NEXT as NEXT,
  VIRTQ_DESC_F_WRITE as WRITE,
} from '../spec/virtio.ts';
import { type Direction, RingError, type RingFault } from './device-queue.ts';
import { checkBatch, MockDriver, type RawDescriptor } from './mock-driver.ts';
import { RingPair, type RingPairOptions } from './ring-pair.ts';

const SIZE = 8;

/** Memory of the process on both sides of a guest's, which nothing may touch. */
const CANARY_BYTES = 64 * 1024;

/** With the loops over plain chains in JavaScript, and with those in WebAssembly. */
function withDriver(options: RingPairOptions, use: (driver: MockDriver) => void): void {
  for (const windowed of [false, true]) withPair(new RingPair({ ...options, windowed }), use);
}

function withPair(pair: RingPair, use: (driver: MockDriver) => void): void {
  const driver = new MockDriver(pair);
  const canary = pair.arena.allocate(CANARY_BYTES);
  pair.arena.bytes.fill(0xa5, canary, canary + CANARY_BYTES);
  try {
    use(driver);
    checkBatch(pair, driver.batch);
    const after = pair.arena.bytes.subarray(canary, canary + CANARY_BYTES);
    assert.ok(after.every((byte) => byte === 0xa5));
  } finally {
    pair.arena.unmap(canary, CANARY_BYTES);
    pair.release();
  }
}

function expectFault(fault: RingFault, driver: MockDriver): void {
  assert.throws(
    () => driver.collect(),
    (error) => {
      assert.ok(error instanceof RingError, String(error));
      assert.equal(error.fault, fault, error.message);
      assert.equal(error.code, 'ring');
      return true;
    },
  );
}

interface Case {
  readonly name: string;
  readonly fault: RingFault;
  readonly direction?: Direction;
  readonly indirect?: boolean;
  readonly only?: 'split' | 'packed';
  readonly size?: number;
  readonly offer: (driver: MockDriver) => void;
}

/** An indirect table in the buffers' memory, and the descriptor that points at it. */
function tableOf(
  driver: MockDriver,
  entries: readonly RawDescriptor[],
  bytes?: number,
): RawDescriptor {
  const { buffers } = driver.pair;
  for (const [i, entry] of entries.entries()) driver.write(buffers, i, entry);
  return { address: buffers, length: bytes ?? 16 * entries.length, flags: INDIRECT };
}

const plain = (driver: MockDriver, more: Partial<RawDescriptor> = {}): RawDescriptor => ({
  address: driver.pair.buffers + 8192,
  length: 100,
  flags: 0,
  ...more,
});

const CASES: readonly Case[] = [
  {
    name: 'a chain that points at itself',
    fault: 'chain-too-long',
    only: 'split',
    offer: (d) => d.offer(plain(d, { flags: NEXT, link: 0 })),
  },
  {
    name: 'a chain that goes round the ring',
    fault: 'chain-too-long',
    offer: (d) =>
      d.offer(
        ...Array.from({ length: SIZE }, (_, i) => plain(d, { flags: NEXT, link: (i + 1) % SIZE })),
      ),
  },
  {
    name: 'a next index beyond the table',
    fault: 'bad-index',
    only: 'split',
    offer: (d) => d.offer(plain(d, { flags: NEXT, link: SIZE })),
  },
  {
    name: 'a next index far beyond the table',
    fault: 'bad-index',
    only: 'split',
    offer: (d) => d.offer(plain(d, { flags: NEXT, link: 0xffff })),
  },
  {
    name: 'a head beyond the table',
    fault: 'bad-index',
    only: 'split',
    offer: (d) => d.offerHead(SIZE),
  },
  {
    name: 'an index that jumps by more than the size',
    fault: 'index-jump',
    only: 'split',
    offer: (d) => d.setIdx(SIZE + 1),
  },
  {
    name: 'an index that goes back',
    fault: 'index-back',
    only: 'split',
    offer: (d) => d.setIdx(0xffff),
  },
  ...(
    [
      ['at 0', 0, 64],
      ['before the memory', 0x1_3fff_ffff, 2],
      ['at the top of 64 bits', 0xffff_ffff_ffff_fff0n, 32],
      ['that ends beyond 64 bits', 0xffff_ffff_ffff_ffffn, 0xffff_ffff],
      ['beyond 2^53', 0x20_0000_0000_0001n, 1],
      ['of 4 GiB less one byte', 0x1_4000_0000, 0xffff_ffff],
    ] as const
  ).flatMap(([name, address, length]): Case[] => [
    {
      name: `a buffer ${name}`,
      fault: 'bad-address',
      offer: (d) => d.offer(plain(d, { address, length })),
    },
    {
      name: `a buffer ${name}, in the middle of a chain`,
      // With the buffer before it, 4 GiB and more.
      fault: length === 0xffff_ffff ? 'bad-length' : 'bad-address',
      offer: (d) =>
        d.offer(
          plain(d, { flags: NEXT, link: 1 }),
          plain(d, { address, length, flags: NEXT, link: 2 }),
          plain(d),
        ),
    },
    {
      name: `a buffer ${name}, in an indirect table`,
      fault: 'bad-address',
      indirect: true,
      offer: (d) => d.offer(tableOf(d, [plain(d, { address, length })])),
    },
    {
      name: `an indirect table ${name}`,
      fault: length % 16 === 0 ? 'bad-address' : 'bad-indirect',
      indirect: true,
      offer: (d) => d.offer({ address, length, flags: INDIRECT }),
    },
  ]),
  {
    name: 'a buffer that ends one byte beyond the memory',
    fault: 'bad-address',
    offer: (d) => d.offer(plain(d, { address: d.pair.end - 9, length: 10 })),
  },
  {
    name: 'a buffer that begins at the end of the memory',
    fault: 'bad-address',
    offer: (d) => d.offer(plain(d, { address: d.pair.end, length: 1 })),
  },
  {
    name: 'a chain without a byte',
    fault: 'bad-length',
    offer: (d) => d.offer(plain(d, { length: 0 })),
  },
  {
    name: 'a long chain without a byte',
    fault: 'bad-length',
    offer: (d) =>
      d.offer(
        plain(d, { length: 0, flags: NEXT, link: 1 }),
        plain(d, { length: 0, flags: NEXT, link: 2 }),
        plain(d, { length: 0 }),
      ),
  },
  {
    name: 'a chain of 4 GiB',
    fault: 'bad-length',
    size: 4096,
    offer: (d) => {
      // The same memory again and again.
      const address = d.pair.buffers;
      const length = d.pair.end - address;
      const count = Math.ceil(2 ** 32 / length);
      d.offer(
        ...Array.from({ length: count }, (_, i) => {
          const last = i === count - 1;
          return { address, length, flags: last ? 0 : NEXT, link: last ? 0 : i + 1 };
        }),
      );
    },
  },
  {
    name: 'an indirect table that was not negotiated',
    fault: 'bad-indirect',
    offer: (d) => d.offer(tableOf(d, [plain(d)])),
  },
  {
    name: 'an indirect table of no bytes',
    fault: 'bad-indirect',
    indirect: true,
    offer: (d) => d.offer(tableOf(d, [plain(d)], 0)),
  },
  {
    name: 'an indirect table of 24 bytes',
    fault: 'bad-indirect',
    indirect: true,
    offer: (d) => d.offer(tableOf(d, [plain(d)], 24)),
  },
  {
    name: 'an indirect table that ends beyond the memory',
    fault: 'bad-address',
    indirect: true,
    offer: (d) => d.offer({ address: d.pair.end - 16, length: 32, flags: INDIRECT }),
  },
  {
    name: 'an indirect table within a table',
    fault: 'bad-indirect',
    indirect: true,
    offer: (d) => d.offer(tableOf(d, [{ address: d.pair.buffers, length: 16, flags: INDIRECT }])),
  },
  {
    name: 'an indirect table followed by a descriptor',
    fault: 'bad-indirect',
    indirect: true,
    offer: (d) => {
      const table = tableOf(d, [plain(d)]);
      d.offer({ ...table, flags: INDIRECT | NEXT, link: 1 }, plain(d));
    },
  },
  {
    name: 'an indirect table after a descriptor of a chain, in a packed ring',
    fault: 'bad-indirect',
    indirect: true,
    only: 'packed',
    offer: (d) => d.offer(plain(d, { flags: NEXT }), tableOf(d, [plain(d)])),
  },
  {
    name: 'an indirect table that loops',
    fault: 'chain-too-long',
    indirect: true,
    only: 'split',
    offer: (d) => d.offer(tableOf(d, [plain(d, { flags: NEXT, link: 0 })])),
  },
  {
    name: 'an indirect table whose next index lies beyond it',
    fault: 'bad-index',
    indirect: true,
    only: 'split',
    offer: (d) => d.offer(tableOf(d, [plain(d, { flags: NEXT, link: 1 })])),
  },
  {
    name: 'an indirect table that is longer than the ring',
    fault: 'chain-too-long',
    indirect: true,
    offer: (d) =>
      d.offer(
        tableOf(
          d,
          Array.from({ length: SIZE + 1 }, (_, i) =>
            plain(d, { flags: i < SIZE ? NEXT : 0, link: i < SIZE ? i + 1 : 0 }),
          ),
        ),
      ),
  },
  {
    name: 'a writable buffer in a queue of readable ones',
    fault: 'bad-direction',
    direction: 'readable',
    offer: (d) => d.offer(plain(d, { flags: WRITE })),
  },
  {
    name: 'a readable buffer in a queue of writable ones',
    fault: 'bad-direction',
    direction: 'writable',
    offer: (d) => d.offer(plain(d)),
  },
  {
    name: 'a readable buffer after a writable one',
    fault: 'bad-direction',
    offer: (d) => d.offer(plain(d, { flags: WRITE | NEXT, link: 1 }), plain(d)),
  },
];

describe('a malformed ring is a typed error', () => {
  for (const packed of [false, true]) {
    const kind = packed ? 'packed' : 'split';
    for (const { name, fault, direction, indirect, only, size, offer } of CASES) {
      if (only !== undefined && only !== kind) continue;
      for (const [rounds, usual] of [
        [0, 'both'],
        [1, 'both'],
        // What a network device takes, and the memory range of the last buffer is remembered.
        [1, 'readable'],
      ] as const) {
        if (usual === 'readable' && (direction !== undefined || fault === 'bad-direction'))
          continue;
        const where = rounds === 0 ? '' : ' after a round of good ones';
        it(`${kind}, ${direction ?? usual}: ${name}${where}: ${fault}`, () => {
          const options = {
            packed,
            size: size ?? SIZE,
            direction: direction ?? usual,
            indirect: indirect ?? false,
          };
          withDriver(options, (driver) => {
            const good = plain(driver, { flags: direction === 'writable' ? WRITE : 0 });
            for (let i = 0; i < rounds * options.size; i++) {
              driver.offer(good);
              assert.equal(driver.collect(), 1);
              driver.pair.device.completeRange(driver.batch, 0, 1);
              driver.pair.device.publish();
            }
            if (fault === 'index-jump' || fault === 'index-back') {
              driver.setIdx(driver.idx + (fault === 'index-back' ? -1 : SIZE + 1));
            } else {
              offer(driver);
            }
            expectFault(fault, driver);
          });
        });
      }
    }
  }
});

describe('an odd ring is no error', () => {
  for (const packed of [false, true]) {
    it(`${packed ? 'packed' : 'split'}: empty descriptors, borders of regions, overlapping buffers`, () => {
      withDriver({ packed, size: SIZE }, (driver) => {
        const { pair } = driver;
        driver.offer(
          plain(driver, { length: 0, flags: NEXT, link: 1 }),
          { address: pair.border - 10, length: 20, flags: NEXT, link: 2 },
          { address: pair.border - 10, length: 20, flags: 0 },
        );
        assert.equal(driver.collect(), 1);
        checkBatch(pair, driver.batch);
        assert.equal(driver.batch.total[0], 40);
        assert.equal(driver.batch.more[0], 3);
      });
    });
  }
});

describe('a packed ring whose driver makes collected descriptors available again', () => {
  it('plain ones are not taken twice, and all can be given back', () => {
    withDriver({ packed: true, size: SIZE, direction: 'readable' }, (driver) => {
      const { batch, pair } = driver;
      const before = pair.device.position();
      for (let round = 0; round < 2; round++) {
        for (let i = 0; i < SIZE; i++) driver.offer(plain(driver));
        assert.equal(pair.device.collect(batch, 64), round === 0 ? SIZE : 0);
      }
      pair.device.rewind(batch, 0);
      assert.deepEqual(pair.device.position(), before);
    });
  });

  it('a chain that reaches into them is too long', () => {
    withDriver({ packed: true, size: SIZE }, (driver) => {
      const { batch, pair } = driver;
      const chain = [plain(driver, { flags: NEXT }), plain(driver, { flags: NEXT }), plain(driver)];
      driver.offer(...chain);
      driver.offer(...chain);
      assert.equal(pair.device.collect(batch, 64), 2);
      driver.offer(...chain);
      assert.throws(() => pair.device.collect(batch, 64), { fault: 'chain-too-long' });
    });
  });
});
