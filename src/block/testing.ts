/**
 * The conformance suite of disks: what `disk.ts` promises, tried on whatever implements it.
 *
 *   testDisk('memory', ({ lane, bytes, readonly }) => new MemoryDisk(…));
 */
import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import { type Disk, type DiskLane, SECTOR_BYTES } from './disk.ts';
import { DISK_FLUSH, DISK_READ, DISK_WRITE, REQUEST_FUA, REQUEST_UNMAP } from './requests.ts';
import { DiskClient, DiskModel, testLane } from './testing-client.ts';
import { type Bench, History, SEGMENTS, steps } from './testing-history.ts';

export { DiskClient, DiskModel, testLane } from './testing-client.ts';

/** The disk that a test asks for. */
export interface TestDiskRequest {
  readonly lane: DiskLane;
  /** Its size. It holds zeroes when it is made first. */
  readonly bytes: number;
  readonly readonly: boolean;
  /** A name that can be a file's. A disk that is asked for again by the same one is the same disk, opened anew. */
  readonly place: string;
  /** The running test: for `after`, which runs once the disk is closed. */
  readonly test: TestContext;
}

export interface TestDiskOptions {
  /** Default: {@link testLane}. */
  readonly lane?: DiskLane;
  /** Size of the disks. Default: 1 MiB. */
  readonly bytes?: number;
  /** Segments lie at multiples of it, and their lengths are. Default: 1, any. */
  readonly alignment?: number;
  /** The content outlives `close` of the disk. Default: true. */
  readonly persistent?: boolean;
  /** What the disk talks to runs in this very thread, which therefore must not sleep for long. */
  readonly sameThread?: boolean;
  /** Histories that are tried against the model. */
  readonly runs?: number;
  /** Skips all tests, with this reason. */
  readonly skip?: string | false;
}

type MakeDisk = (request: TestDiskRequest) => Disk | Promise<Disk>;

const SLOTS = 16;

let places = 0;

/** Declares the tests of one kind of disk. */
export function testDisk(name: string, makeDisk: MakeDisk, options: TestDiskOptions = {}): void {
  const { bytes = 1024 * 1024, alignment = 1, runs = 20 } = options;
  const lane = (): DiskLane => options.lane ?? testLane();

  function makeAt(test: TestContext, place: string, readonly = false): Promise<Disk> {
    return Promise.resolve(makeDisk({ lane: lane(), bytes, readonly, place, test }));
  }

  const clientOptions = { slots: SLOTS, segments: SEGMENTS, alignment };

  async function withDisk(
    test: TestContext,
    body: (bench: Bench) => Promise<void>,
    place = `disk-${places++}`,
    readonly = false,
  ): Promise<void> {
    const disk = await makeAt(test, place, readonly);
    let failed = true;
    try {
      const client = new DiskClient(disk, lane(), clientOptions);
      try {
        await body({ disk, client, bytes: disk.info.bytes, block: disk.info.blockBytes });
        failed = false;
      } finally {
        // What is in flight after a failure would hide it behind another.
        if (failed) lane().loop.removePoller(client);
        else client.close();
      }
    } finally {
      if (!failed) disk.close();
    }
  }

  /** The disk's blocks are at least so large; sizes in tests are multiples of them. */
  const blocks = (bench: Bench, count: number): number => count * bench.block;

  describe(`disk: ${name}`, { skip: options.skip ?? false }, () => {
    test('tells what it is', async (t) => {
      await withDisk(t, (bench) => {
        const { info } = bench.disk;
        assert.notEqual(bench.disk.name, '');
        assert.equal(info.bytes, bytes);
        assert.equal(info.readonly, false);
        assert.equal(info.blockBytes % SECTOR_BYTES, 0);
        assert.ok(info.blockBytes > 0 && info.bytes % info.blockBytes === 0);
        assert.ok(info.physicalBlockBytes > 0);
        assert.equal(info.physicalBlockBytes % info.blockBytes, 0);
        assert.equal(info.optimalBytes % info.blockBytes, 0);
        assert.equal(info.discardBytes % info.blockBytes, 0);
        bench.disk.onChange(() => undefined).remove();
        return Promise.resolve();
      });
    });

    test('holds zeroes first, then what was written', async (t) => {
      await withDisk(t, async (bench) => {
        const model = new DiskModel(bench.bytes);
        const { client } = bench;
        model.check(0, await client.read(0, bench.bytes));
        await client.write(0, model.write(0, bench.bytes));
        await client.write(blocks(bench, 3), model.write(blocks(bench, 3), blocks(bench, 2)));
        model.check(0, await client.read(0, bench.bytes));
        model.check(blocks(bench, 4), await client.read(blocks(bench, 4), blocks(bench, 1)));
      });
    });

    test('takes every history that a model takes', async (t) => {
      await withDisk(t, async (bench) => {
        await fc.assert(
          fc.asyncProperty(steps(alignment), async (commands) => {
            const history = new History(bench);
            // One disk serves all histories.
            await bench.client.drain();
            await bench.client.write(0, history.model.write(0, bench.bytes));
            await fc.asyncModelRun(() => ({ model: bench, real: history }), commands);
            await history.end();
          }),
          { numRuns: runs },
        );
      });
    });

    test('scatters and gathers segments of every length', async (t) => {
      await withDisk(t, async ({ client, block, bytes: size }) => {
        const model = new DiskModel(size);
        const length = 4 * block;
        const pieces = [1, 2, 3, 61, 512, 7].map((piece) => piece * alignment);
        const segments: number[] = [];
        let left = length;
        for (const piece of pieces) {
          if (piece >= left) break;
          segments.push(piece);
          left -= piece;
        }
        segments.push(left);
        const data = model.write(block, length);
        const range = { offset: block, bytes: length };
        const wrote = await client.request({ op: DISK_WRITE, ...range, segments, data });
        assert.ok(wrote.result >= 0);
        model.check(block, await client.read(block, length));
        segments.reverse();
        const read = await client.request({ op: DISK_READ, ...range, segments });
        assert.ok(read.result >= 0);
        model.check(block, read.data);
        model.check(0, await client.read(0, size));
      });
    });

    test('reaches its last block, and no further', async (t) => {
      await withDisk(t, async ({ client, block, bytes: size }) => {
        const model = new DiskModel(size);
        await client.write(size - block, model.write(size - block, block));
        model.check(size - 4 * block, await client.read(size - 4 * block, 4 * block));
        await client.write(size - 3 * block, model.write(size - 3 * block, 3 * block));
        model.check(0, await client.read(0, size));
      });
    });

    test('completes each of a table full of requests once', async (t) => {
      await withDisk(t, async ({ client, block, disk }) => {
        const model = new DiskModel(disk.info.bytes);
        for (let round = 0; round < 4; round++) {
          let done = 0;
          for (let i = 0; i < client.slots; i++) {
            const offset = ((i * 5) % client.slots) * block;
            const op = round % 2 === 0 ? DISK_WRITE : DISK_READ;
            client.submit({
              op,
              offset,
              bytes: block,
              ...(op === DISK_WRITE ? { data: model.write(offset, block) } : {}),
              done: (result, data) => {
                done++;
                assert.ok(result >= 0);
                if (op === DISK_READ) model.check(offset, data);
              },
            });
          }
          assert.equal(client.queue.inFlight, client.slots);
          await client.drain();
          assert.equal(done, client.slots);
          assert.equal(client.queue.inFlight, 0);
          assert.equal(client.poll(), 0);
        }
      });
    });

    test('takes requests from within completions, without end of a poll', async (t) => {
      await withDisk(t, async ({ client, block }) => {
        let left = 200;
        const again = (result: number): void => {
          assert.ok(result >= 0);
          if (left-- > 0) {
            client.submit({ op: DISK_READ, offset: (left % 8) * block, bytes: block, done: again });
          }
        };
        for (let i = 0; i < 3; i++) again(0);
        await client.drain();
        assert.ok(left < 0);
      });
    });

    test('leaves one of two writes that race', async (t) => {
      await withDisk(t, async ({ client, block }) => {
        const length = 8 * block;
        for (let round = 0; round < 8; round++) {
          const [a, b] = [2 * round + 1, 2 * round + 2];
          const fill = (byte: number): Buffer => Buffer.alloc(length, byte);
          client.submit({ op: DISK_WRITE, offset: 0, bytes: length, data: fill(a) });
          client.submit({ op: DISK_WRITE, offset: 0, bytes: length, data: fill(b) });
          await client.drain();
          const found = await client.read(0, length);
          assert.ok(found.every((byte) => byte === a || byte === b));
        }
      });
    });

    test('flushes with nothing to flush, after writes, and beside them', async (t) => {
      await withDisk(t, async ({ client, block, bytes: size }) => {
        await client.flush();
        const model = new DiskModel(size);
        await client.write(0, model.write(0, block));
        await client.flush();
        await client.write(block, model.write(block, block), REQUEST_FUA);
        let flushed = 0;
        for (let i = 0; i < 6; i++) {
          const offset = (2 + i) * block;
          client.submit({
            op: DISK_WRITE,
            offset,
            bytes: block,
            data: model.write(offset, block),
          });
          const done = (result: number): void => {
            assert.ok(result >= 0);
            flushed++;
          };
          client.submit({ op: DISK_FLUSH, done });
        }
        await client.drain();
        assert.equal(flushed, 6);
        model.check(0, await client.read(0, size));
      });
    });

    test('discards no more than it was told', async (t) => {
      await withDisk(t, async ({ client, disk, block, bytes: size }) => {
        if (disk.info.discardBytes === 0) return t.skip('the disk cannot discard');
        const model = new DiskModel(size);
        await client.write(0, model.write(0, size));
        for (const [first, count] of [
          [1, 1],
          [8, 64],
          [101, 3],
        ] as const) {
          await client.discard(first * block, count * block);
          model.discard(first * block, count * block);
        }
        model.check(0, await client.read(0, size));
        await client.write(8 * block, model.write(8 * block, 4 * block));
        model.check(0, await client.read(0, size));
        await client.discard(0, size);
        model.discard(0, size);
        model.check(0, await client.read(0, size));
      });
    });

    test('writes zeroes, with and without giving the blocks back', async (t) => {
      await withDisk(t, async ({ client, disk, block, bytes: size }) => {
        if (!disk.info.writeZeroes) return t.skip('the disk cannot write zeroes');
        const model = new DiskModel(size);
        await client.write(0, model.write(0, size));
        for (const [first, count, flags] of [
          [1, 1, 0],
          [8, 64, REQUEST_UNMAP],
          [101, 3, 0],
          [110, 3, REQUEST_UNMAP],
        ] as const) {
          await client.writeZeroes(first * block, count * block, flags);
          model.zero(first * block, count * block);
          model.check(0, await client.read(0, size));
        }
        await client.writeZeroes(0, size);
        model.zero(0, size);
        model.check(0, await client.read(0, size));
      });
    });

    test('refuses to be closed while requests are in flight', async (t) => {
      await withDisk(t, async ({ client, block }) => {
        const refused = (error: unknown): boolean =>
          error instanceof SluiceError && error.code === 'state';
        client.submit({ op: DISK_READ, offset: 0, bytes: block });
        assert.throws(() => client.queue.close(), refused);
        client.queue.flush();
        assert.throws(() => client.queue.close(), refused);
        await client.drain();
        await client.read(0, block);
      });
    });

    test('serves several queues, and the others when one has gone', async (t) => {
      await withDisk(t, async (bench) => {
        const { client, disk, block } = bench;
        const model = new DiskModel(bench.bytes);
        const other = new DiskClient(disk, lane(), { ...clientOptions, slots: 3 });
        let done = 0;
        for (let i = 0; i < 3; i++) {
          for (const one of [client, other]) {
            const offset = (2 * i + (one === other ? 1 : 0)) * block;
            const data = model.write(offset, block);
            one.submit({ op: DISK_WRITE, offset, bytes: block, data, done: () => done++ });
          }
        }
        assert.equal(client.queue.inFlight, 3);
        assert.equal(other.queue.inFlight, 3);
        await client.drain();
        await other.drain();
        assert.equal(done, 6);
        model.check(0, await other.read(0, 8 * block));
        model.check(0, await client.read(0, 8 * block));
        other.close();
        await client.write(0, model.write(0, block));
        model.check(0, await client.read(0, 8 * block));
      });
    });

    test('wakes the loop that sleeps, and lets it sleep else', async (t) => {
      if (options.sameThread === true) return t.skip('the server runs in this thread');
      await withDisk(t, async ({ client, block, bytes: size }) => {
        const { loop } = lane();
        const model = new DiskModel(size);
        for (let i = 0; i < 20; i++) {
          let done = false;
          const offset = i * block;
          const data = model.write(offset, block);
          const finish = (result: number): void => {
            assert.ok(result >= 0);
            done = true;
          };
          client.submit({ op: DISK_WRITE, offset, bytes: block, data, done: finish });
          // A request that takes longer than the loop polls completes while it sleeps.
          if (i % 2 === 0) client.submit({ op: DISK_FLUSH });
          const lazy = i % 4 < 2;
          await client.run(() => done && client.inFlight === 0, { slice: false, lazy });
        }
        assert.equal(client.arm(), false, 'nothing is in flight');
        client.disarm();
        const before = loop.sleeps;
        let rested = false;
        const timer = loop.setTimer(30_000, () => {
          rested = true;
        });
        await client.run(() => rested, { slice: false });
        timer.cancel();
        const sleeps = loop.sleeps - before;
        assert.ok(sleeps > 0, 'the loop sleeps while nothing is in flight');
        assert.ok(sleeps < 10, `the loop was woken ${sleeps} times for nothing`);
      });
    });

    test('asks the loop to stay awake only for what is complete', async (t) => {
      await withDisk(t, async ({ client, block }) => {
        for (let i = 0; i < 20; i++) {
          client.submit({ op: DISK_READ, offset: i * block, bytes: block });
          client.queue.flush();
          let vain = 0;
          while (client.arm()) {
            client.disarm();
            // What completes below may have more to do above: but not for ever.
            vain = client.poll() === 0 ? vain + 1 : 0;
            assert.ok(vain < 5, 'arm tells of completions that are none');
          }
          client.disarm();
          await client.drain();
          assert.equal(client.arm(), false, 'nothing is in flight');
          client.disarm();
        }
      });
    });

    test('is read when it is readonly', async (t) => {
      const place = `disk-${places++}`;
      const model = new DiskModel(bytes);
      if (options.persistent !== false) {
        await withDisk(
          t,
          async ({ client, block }) => {
            await client.write(block, model.write(block, block));
            await client.flush();
          },
          place,
        );
      }
      await withDisk(
        t,
        async ({ client, disk, block }) => {
          assert.equal(disk.info.readonly, true);
          model.check(0, await client.read(0, 4 * block));
          await client.flush();
        },
        place,
        true,
      );
    });

    test('keeps its content', async (t) => {
      if (options.persistent === false) return t.skip('the disk ends with the process');
      const place = `disk-${places++}`;
      const model = new DiskModel(bytes);
      await withDisk(
        t,
        async ({ client, block }) => {
          await client.write(block, model.write(block, 3 * block));
          await client.write(9 * block, model.write(9 * block, block), REQUEST_FUA);
          await client.flush();
        },
        place,
      );
      await withDisk(
        t,
        async ({ client, bytes: size }) => model.check(0, await client.read(0, size)),
        place,
      );
    });
  });
}
