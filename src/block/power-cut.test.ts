import assert from 'node:assert/strict';
import { constants } from 'node:os';
import test from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import {
  type Disk,
  type DiskLane,
  type DiskQueue,
  type DiskQueueOptions,
  SECTOR_BYTES,
} from './disk.ts';
import { FaultyDisk } from './faults.ts';
import { MemoryDisk } from './memory.ts';
import { PowerCutDisk, type PowerCutOptions } from './power-cut.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
} from './requests.ts';
import { DiskClient, testDisk, testLane } from './testing.ts';
import { fillSector } from './testing-client.ts';

const { EIO } = constants.errno;
const MiB = 1024 * 1024;
const lane = testLane();

const memory = (on: DiskLane, bytes: number, readonly = false, blockBytes = 512): MemoryDisk =>
  new MemoryDisk({ kind: 'memory', name: 'mem', bytes, readonly, blockBytes }, on);

testDisk(
  'a volatile cache',
  ({ lane: on, bytes, readonly }) => new PowerCutDisk(memory(on, bytes, readonly), on),
  { persistent: false },
);
testDisk(
  'a small volatile cache over slow blocks of 4 KiB',
  ({ lane: on, bytes, readonly }) =>
    new PowerCutDisk(
      new FaultyDisk(memory(on, bytes, readonly, 4096), {
        rules: [{ fault: 'delay', us: 1, randomUs: 100, probability: 0.1 }],
      }),
      on,
      { cacheBytes: 64 * 1024 },
    ),
  { persistent: false, runs: 5 },
);

interface Bench {
  readonly below: MemoryDisk;
  readonly disk: PowerCutDisk;
  readonly client: DiskClient;
  /** Looks at the disk below, past the cache. */
  readonly eye: DiskClient;
}

function bench(bytes: number, options: PowerCutOptions = {}, delays = 0): Bench {
  const below = memory(lane, bytes);
  const slow =
    delays === 0
      ? below
      : new FaultyDisk(below, {
          seed: options.seed,
          rules: [{ fault: 'delay', us: 1, randomUs: 200, probability: delays }],
        });
  const disk = new PowerCutDisk(slow, lane, options);
  const client = new DiskClient(disk, lane, { slotBytes: 16 * 1024 });
  return { below, disk, client, eye: new DiskClient(below, lane, { slots: 2 }) };
}

function end({ disk, client, eye }: Bench): void {
  client.close();
  eye.close();
  disk.close();
}

async function cut({ disk, client }: Bench): Promise<void> {
  let result: number | undefined;
  disk.powerCut((value) => {
    result = value;
  });
  await client.run(() => result !== undefined && client.inFlight === 0);
  assert.equal(result, 0);
  assert.equal(disk.isOff, true);
}

test('what is not flushed is not below; what is flushed, or written with FUA, is', async () => {
  const made = bench(MiB);
  const { client, eye } = made;
  await client.write(0, Buffer.alloc(4096, 1));
  assert.ok((await eye.read(0, 4096)).every((byte) => byte === 0));
  assert.ok((await client.read(0, 4096)).every((byte) => byte === 1));
  await client.flush();
  assert.ok((await eye.read(0, 4096)).every((byte) => byte === 1));
  await client.write(8192, Buffer.alloc(512, 2), REQUEST_FUA);
  assert.ok((await eye.read(8192, 512)).every((byte) => byte === 2));
  await client.writeZeroes(0, 512);
  assert.ok((await eye.read(0, 512)).every((byte) => byte === 1));
  await client.writeZeroes(512, 512, REQUEST_FUA);
  assert.ok((await eye.read(512, 512)).every((byte) => byte === 0));
  end(made);
});

test('a disk that nobody uses any more is settled: nothing is lost', async () => {
  const made = bench(MiB, {}, 1);
  const { client, disk, eye } = made;
  await client.write(4096, Buffer.alloc(4096, 1));
  assert.throws(() => disk.settle(() => undefined), { code: 'state' });
  client.close();
  let result: number | undefined;
  disk.settle((value) => {
    result = value;
  });
  await eye.run(() => result !== undefined);
  assert.equal(result, 0);
  assert.ok((await eye.read(4096, 4096)).every((byte) => byte === 1));
  eye.close();
  disk.close();
});

test('a disk without power has nothing to settle', async () => {
  const made = bench(MiB);
  await cut(made);
  made.client.close();
  const results: number[] = [];
  made.disk.settle((result) => results.push(result));
  assert.deepEqual(results, [0]);
  made.eye.close();
  made.disk.close();
});

test('what lies behind the end of a disk that has shrunk is not written', async () => {
  const below = memory(lane, MiB);
  let { info } = below;
  const shrinking: Disk = {
    name: 'shrinking',
    get info() {
      return info;
    },
    onChange: () => below.onChange(),
    open: (options) => below.open(options),
    close: () => below.close(),
  };
  const disk = new PowerCutDisk(shrinking, lane);
  const client = new DiskClient(disk, lane);
  const eye = new DiskClient(below, lane, { slots: 2 });
  for (const sector of [0, 1023, 1024, 2047])
    await client.write(sector * 512, Buffer.alloc(512, 1));
  info = { ...info, bytes: MiB / 2 };
  await client.flush();
  const first = async (sector: number): Promise<number | undefined> =>
    (await eye.read(sector * 512, 512))[0];
  const seen = [await first(0), await first(1023), await first(1024), await first(2047)];
  assert.deepEqual(seen, [1, 1, 0, 0]);
  client.close();
  eye.close();
  disk.close();
});

test('a cut fails what is in flight and everything after it, until power is back', async () => {
  const made = bench(MiB, {}, 1);
  const { client, disk } = made;
  const results: number[] = [];
  const done = (result: number): number => results.push(result);
  for (const op of [DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_READ, DISK_DISCARD]) {
    const bytes = op === DISK_FLUSH ? 0 : 512;
    const data = op === DISK_WRITE ? { data: Buffer.alloc(512, 1) } : {};
    client.submit({ op, offset: 0, bytes, ...data, done });
  }
  client.queue.flush();
  await cut(made);
  assert.deepEqual(results, Array(5).fill(-EIO));
  assert.throws(
    () => disk.powerCut(),
    (error) => error instanceof SluiceError && error.code === 'state',
  );
  assert.equal((await client.request({ op: DISK_READ, bytes: 512 })).result, -EIO);
  disk.restore();
  assert.throws(() => disk.restore(), SluiceError);
  await client.write(0, Buffer.alloc(512, 3));
  assert.ok((await client.read(0, 512)).every((byte) => byte === 3));
  end(made);
});

test('the cut is done when nothing is in flight below', async () => {
  // Some seeds lose the write, so that nothing but the write itself takes its time.
  for (let seed = 0; seed < 6; seed++) {
    const below = memory(lane, MiB);
    const rules = [{ fault: 'delay', us: 3000, on: ['write'] }] as const;
    const disk = new PowerCutDisk(new FaultyDisk(below, { rules }), lane, { seed });
    const client = new DiskClient(disk, lane);
    client.submit({ op: DISK_WRITE, bytes: 512, data: Buffer.alloc(512, 1), flags: REQUEST_FUA });
    client.queue.flush();
    let completed: number | undefined;
    disk.powerCut(() => {
      completed = client.completed;
    });
    await client.run(() => completed !== undefined);
    assert.equal(completed, 1);
    client.close();
    disk.close();
  }
});

test('the disk below is flushed once all writes to it are complete', async () => {
  const below = memory(lane, MiB);
  const slow = new FaultyDisk(below, { rules: [{ fault: 'delay', us: 1, randomUs: 500 }] });
  /** Writes in flight whenever a flush was submitted. */
  const busy: number[] = [];
  const watched: Disk = {
    name: 'watched',
    info: slow.info,
    onChange: (listener) => slow.onChange(listener),
    close: () => slow.close(),
    open(options: DiskQueueOptions): DiskQueue {
      const queue = slow.open(options);
      return {
        get inFlight() {
          return queue.inFlight;
        },
        submit(slot) {
          if (options.requests.op[slot] === DISK_FLUSH) busy.push(queue.inFlight);
          queue.submit(slot);
        },
        flush: () => queue.flush(),
        poll: () => queue.poll(),
        arm: () => queue.arm(),
        disarm: () => queue.disarm(),
        close: () => queue.close(),
      };
    },
  };
  const disk = new PowerCutDisk(watched, lane);
  const client = new DiskClient(disk, lane);
  // More writes than are sent below at once, none beside another.
  for (let i = 0; i < 40; i++) await client.write(i * 1024, Buffer.alloc(512, 1));
  await client.flush();
  assert.deepEqual(busy, [0]);
  client.close();
  disk.close();
});

test('cuts lose, keep and tear, and the same seed does it again', async () => {
  const sectors = 16;
  const outcome = async (seed: number): Promise<string> => {
    const made = bench(MiB, { seed });
    await made.client.write(0, Buffer.alloc(sectors * 512, 1));
    await cut(made);
    const found = await made.eye.read(0, sectors * 512);
    end(made);
    return Array.from({ length: sectors }, (_, sector) => found[sector * 512]).join('');
  };
  const outcomes: string[] = [];
  for (let seed = 0; seed < 40; seed++) outcomes.push(await outcome(seed));
  assert.ok(outcomes.includes('0'.repeat(sectors)), 'some lose all');
  assert.ok(outcomes.includes('1'.repeat(sectors)), 'some keep all');
  assert.ok(
    outcomes.some((kept) => /0+1+0+/.test(kept)),
    'some tear',
  );
  for (let seed = 0; seed < 5; seed++) assert.equal(await outcome(seed), outcomes[seed]);
});

test('older versions come back as well', async () => {
  const seen = new Set<number | undefined>();
  for (let seed = 0; seed < 60; seed++) {
    const made = bench(MiB, { seed });
    for (let version = 1; version <= 4; version++) {
      await made.client.write(0, Buffer.alloc(512, version), version === 2 ? REQUEST_FUA : 0);
    }
    await cut(made);
    seen.add((await made.eye.read(0, 1 * 512))[0]);
    end(made);
  }
  assert.deepEqual([...seen].sort(), [2, 3, 4]);
});

test('an error below fails the flush, and nothing is forgotten', async () => {
  const below = memory(lane, MiB);
  const disk = new PowerCutDisk(
    new FaultyDisk(below, {
      rules: [{ fault: 'error', on: ['write'], every: 2, errno: 'ENOSPC' }],
    }),
    lane,
  );
  const client = new DiskClient(disk, lane);
  const data = Buffer.alloc(512, 7);
  await client.write(0, data);
  await client.write(4096, data);
  assert.equal((await client.request({ op: DISK_FLUSH })).result, -constants.errno.ENOSPC);
  assert.ok((await client.read(4096, 512)).equals(data));
  client.close();
  disk.close();
});

const SECTORS = 128;

/** What each sector may be after a cut: lists of versions, a set of write numbers each. */
class Promises {
  readonly #versions: number[][][] = Array.from({ length: SECTORS }, () => [[0]]);
  /** Version that is known to be durable, and the last whose request is complete. */
  readonly #durable = new Int32Array(SECTORS);
  readonly #complete = new Int32Array(SECTORS);
  #serial = 0;

  /** A write begins; returns its number, and what tells of its completion. */
  change(
    first: number,
    count: number,
    op: number,
  ): { serial: number; done: (fua: boolean) => void } {
    const serial = op === DISK_WRITE ? ++this.#serial : 0;
    const versions: number[] = [];
    for (let sector = first; sector < first + count; sector++) {
      const list = this.#versions[sector] as number[][];
      const last = list.at(-1) as number[];
      versions.push(list.push(op === DISK_DISCARD ? [...last, 0] : [serial]) - 1);
    }
    return {
      serial,
      done: (fua) => {
        for (const [index, version] of versions.entries()) {
          this.#complete[first + index] = version;
          if (fua) this.#durable[first + index] = version;
        }
      },
    };
  }

  /** A flush begins; the function tells of its completion. */
  flush(): () => void {
    const complete = this.#complete.slice();
    return () => {
      for (const [sector, version] of complete.entries()) {
        this.#durable[sector] = Math.max(this.#durable[sector] as number, version);
      }
    };
  }

  /** What a sector may read as now. */
  current(sector: number): readonly number[] {
    return this.#versions[sector]?.at(-1) ?? [];
  }

  /** What a sector may be after a cut. */
  survivors(sector: number): readonly number[] {
    return (this.#versions[sector] ?? []).slice(this.#durable[sector]).flat();
  }

  /** The cut has left this. */
  restart(serials: readonly number[]): void {
    for (const [sector, serial] of serials.entries()) this.#versions[sector] = [[serial]];
    this.#durable.fill(0);
    this.#complete.fill(0);
  }
}

/** The number of the write that a sector holds; fails if it holds nothing that was ever written to it. */
function serialOf(data: Buffer, at: number, sector: number): number {
  const serial = data.readUInt32LE(at + 4);
  const expected = Buffer.alloc(SECTOR_BYTES);
  fillSector(expected, 0, sector, serial);
  assert.ok(expected.equals(data.subarray(at, at + SECTOR_BYTES)), `sector ${sector} is garbage`);
  return serial;
}

interface Step {
  readonly what: 'request' | 'look' | 'wait' | 'cut';
  readonly op: number;
  readonly first: number;
  readonly count: number;
  readonly fua: boolean;
}

class CutHistory {
  readonly made: Bench;
  readonly promises = new Promises();
  /** By sector: requests in flight that change it, and that read it. */
  readonly #changing = new Int32Array(SECTORS);
  readonly #reading = new Int32Array(SECTORS);
  #cut = false;

  constructor(made: Bench) {
    this.made = made;
  }

  step(step: Step): Promise<void> {
    const { client } = this.made;
    if (step.what === 'request') return this.#request(step);
    if (step.what === 'wait') return client.drain();
    if (step.what === 'cut') return this.cut();
    client.queue.flush();
    client.poll();
    this.made.disk.poll();
    return Promise.resolve();
  }

  async cut(): Promise<void> {
    const { disk, eye, client } = this.made;
    this.#cut = true;
    await cut(this.made);
    const found = await eye.read(0, SECTORS * SECTOR_BYTES);
    const serials = Array.from({ length: SECTORS }, (_, sector) => {
      const serial = serialOf(found, sector * SECTOR_BYTES, sector);
      const allowed = this.promises.survivors(sector);
      assert.ok(
        allowed.includes(serial),
        `sector ${sector}: write ${serial}, not ${allowed.join()}`,
      );
      return serial;
    });
    this.promises.restart(serials);
    this.#cut = false;
    disk.restore();
    assert.ok((await client.read(0, found.length)).equals(found));
  }

  async #request({ op, first, count, fua }: Step): Promise<void> {
    const { client } = this.made;
    const sectors = op === DISK_FLUSH ? 0 : Math.min(count, SECTORS - first);
    const marks = op === DISK_READ ? this.#reading : this.#changing;
    const isClear = (): boolean => {
      for (let sector = first; sector < first + sectors; sector++) {
        if ((this.#changing[sector] as number) > 0) return false;
        if (op !== DISK_READ && (this.#reading[sector] as number) > 0) return false;
      }
      return true;
    };
    await client.run(() => client.free > 0 && isClear());
    const mark = (by: number): void => {
      for (let sector = first; sector < first + sectors; sector++) {
        marks[sector] = (marks[sector] as number) + by;
      }
    };
    mark(1);
    const range = {
      offset: sectors === 0 ? 0 : first * SECTOR_BYTES,
      bytes: sectors * SECTOR_BYTES,
    };
    const expect = (result: number, then: () => void): void => {
      mark(-1);
      if (this.#cut) assert.equal(result, -EIO, 'nothing succeeds after a cut');
      else {
        assert.equal(result, 0);
        then();
      }
    };
    if (op === DISK_FLUSH) {
      const flushed = this.promises.flush();
      client.submit({ op, done: (result) => expect(result, flushed) });
    } else if (op === DISK_READ) {
      const check = (data: Buffer): void => {
        for (let i = 0; i < sectors; i++) {
          const serial = serialOf(data, i * SECTOR_BYTES, first + i);
          assert.ok(this.promises.current(first + i).includes(serial), `sector ${first + i}`);
        }
      };
      client.submit({ op, ...range, done: (result, data) => expect(result, () => check(data)) });
    } else {
      const { serial, done } = this.promises.change(first, sectors, op);
      const data = Buffer.alloc(range.bytes);
      for (let i = 0; i < sectors; i++) fillSector(data, i * SECTOR_BYTES, first + i, serial);
      client.submit({
        op,
        ...range,
        flags: fua && op !== DISK_DISCARD ? REQUEST_FUA : 0,
        ...(op === DISK_WRITE ? { data } : {}),
        done: (result) => expect(result, () => done(fua && op !== DISK_DISCARD)),
      });
    }
  }
}

test('after any history and any cut each sector holds what was flushed, or something later', async () => {
  const ops = [DISK_WRITE, DISK_WRITE, DISK_WRITE, DISK_READ, DISK_FLUSH];
  const step: fc.Arbitrary<Step> = fc.record({
    what: fc.constantFrom(...Array<'request'>(16).fill('request'), 'look', 'look', 'wait', 'cut'),
    op: fc.constantFrom(...ops, ...ops, ...ops, DISK_DISCARD, DISK_WRITE_ZEROES),
    first: fc.nat(SECTORS - 1),
    count: fc.integer({ min: 1, max: 16 }),
    fua: fc.nat(5).map((n) => n === 0),
  });
  const options = fc.record({ seed: fc.integer(), cacheBytes: fc.constantFrom(4096, 16384, MiB) });
  const steps = fc.array(step, { minLength: 20, maxLength: 120, size: 'max' });
  await fc.assert(
    fc.asyncProperty(options, fc.constantFrom(0, 0.3), steps, async (option, delays, list) => {
      const history = new CutHistory(bench(SECTORS * SECTOR_BYTES, option, delays));
      for (const one of list) await history.step(one);
      await history.cut();
      end(history.made);
    }),
    { numRuns: 60 },
  );
});
