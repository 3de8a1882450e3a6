/** Histories of requests that are tried on a disk and on a model of it (`testing.ts`). */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Disk } from './disk.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
  REQUEST_UNMAP,
} from './requests.ts';
import { type DiskClient, DiskModel } from './testing-client.ts';

/** Segments that a request has at most. */
export const SEGMENTS = 8;
const FRACTIONS = 2 ** 20;

/** One disk with one client, for one test. */
export interface Bench {
  readonly disk: Disk;
  readonly client: DiskClient;
  readonly bytes: number;
  readonly block: number;
}

/** `bytes` cut into at most `most` pieces at multiples of `unit`, by the fractions `cuts`. */
function cut(
  bytes: number,
  unit: number,
  most: number,
  cuts: readonly number[],
): readonly number[] {
  const points = cuts
    .slice(0, most - 1)
    .map((fraction) => Math.floor((fraction * bytes) / unit) * unit);
  const sorted = [...new Set([0, ...points, bytes])].sort((a, b) => a - b);
  return sorted.slice(1).map((point, index) => point - (sorted[index] as number));
}

function overlap(a: readonly [number, number], b: readonly [number, number]): boolean {
  return a[0] < b[1] && b[0] < a[1];
}

/** The ranges of one history that are in flight, so that no two requests race for a sector. */
export class History {
  readonly bench: Bench;
  readonly model: DiskModel;
  readonly #ranges = new Map<object, { range: readonly [number, number]; changes: boolean }>();

  constructor(bench: Bench) {
    this.bench = bench;
    this.model = new DiskModel(bench.bytes);
  }

  /** Submits a request as soon as it races with none and there is a slot. */
  async submit(
    op: number,
    offset: number,
    bytes: number,
    flags: number,
    segments: readonly number[],
  ): Promise<void> {
    const { client } = this.bench;
    const range = [offset, offset + bytes] as const;
    const changes = op !== DISK_READ && op !== DISK_FLUSH;
    await client.run(() => client.free > 0 && !this.#races(range, changes));
    let data: Buffer | undefined;
    if (op === DISK_WRITE) data = this.model.write(offset, bytes);
    if (op === DISK_WRITE_ZEROES) this.model.zero(offset, bytes);
    if (op === DISK_DISCARD) this.model.discard(offset, bytes);
    const key = {};
    this.#ranges.set(key, { range, changes });
    client.submit({
      op,
      offset,
      bytes,
      flags,
      segments,
      ...(data === undefined ? {} : { data }),
      done: (result, read) => {
        this.#ranges.delete(key);
        assert.ok(result >= 0, `op ${op} of ${bytes} bytes at ${offset}: result ${result}`);
        if (op === DISK_READ) this.model.check(offset, read);
      },
    });
  }

  async end(): Promise<void> {
    const { client, bytes } = this.bench;
    await client.drain();
    this.model.check(0, await client.read(0, bytes));
  }

  #races(range: readonly [number, number], changes: boolean): boolean {
    return [...this.#ranges.values()].some(
      (other) => (changes || other.changes) && overlap(range, other.range),
    );
  }
}

interface Step {
  readonly op: number;
  readonly at: number;
  readonly size: number;
  readonly cuts: readonly number[];
  readonly flag: boolean;
}

/** Submits a request of the history; the range is a fraction of whatever the disk is. */
class RequestStep implements fc.AsyncCommand<Bench, History> {
  readonly step: Step;
  readonly alignment: number;

  constructor(step: Step, alignment: number) {
    this.step = step;
    this.alignment = alignment;
  }

  check({ disk: { info } }: Readonly<Bench>): boolean {
    if (this.step.op === DISK_DISCARD) return info.discardBytes !== 0;
    return this.step.op !== DISK_WRITE_ZEROES || info.writeZeroes;
  }

  async run(bench: Bench, history: History): Promise<void> {
    const { op, at, size, cuts, flag } = this.step;
    if (op === DISK_FLUSH) return history.submit(op, 0, 0, 0, []);
    const blocks = bench.bytes / bench.block;
    const first = Math.min(blocks - 1, Math.floor(at * blocks));
    const most = op === DISK_READ || op === DISK_WRITE ? (128 * 1024) / bench.block : blocks;
    // Small requests are tried more often than large ones.
    const length = Math.max(1, Math.floor(size ** 3 * Math.min(most, blocks - first)));
    const bytes = length * bench.block;
    const flags =
      (op === DISK_WRITE && flag ? REQUEST_FUA : 0) |
      (op === DISK_WRITE_ZEROES && flag ? REQUEST_UNMAP : 0);
    const segments =
      op === DISK_READ || op === DISK_WRITE ? cut(bytes, this.alignment, SEGMENTS, cuts) : [];
    await history.submit(op, first * bench.block, bytes, flags, segments);
  }

  toString(): string {
    const { op, at, size, cuts, flag } = this.step;
    return `op ${op} at ${at} size ${size} cut ${cuts.join()}${flag ? ' flagged' : ''}`;
  }
}

/** Sends what was submitted, and looks once (or waits for all). */
class LookStep implements fc.AsyncCommand<Bench, History> {
  readonly all: boolean;

  constructor(all: boolean) {
    this.all = all;
  }

  check(): boolean {
    return true;
  }

  run({ client }: Bench): Promise<void> {
    if (this.all) return client.drain();
    client.queue.flush();
    client.poll();
    return Promise.resolve();
  }

  toString(): string {
    return this.all ? 'drain' : 'look';
  }
}

export function steps(alignment: number): fc.Arbitrary<Iterable<fc.AsyncCommand<Bench, History>>> {
  // Not fc.double, most of whose values lie next to 0.
  const fraction = fc.nat(FRACTIONS - 1).map((part) => part / FRACTIONS);
  const request = fc
    .record({
      op: fc.constantFrom(
        DISK_READ,
        DISK_READ,
        DISK_WRITE,
        DISK_WRITE,
        DISK_WRITE,
        DISK_FLUSH,
        DISK_DISCARD,
        DISK_WRITE_ZEROES,
      ),
      at: fraction,
      size: fraction,
      cuts: fc.array(fraction, { maxLength: SEGMENTS - 1 }),
      flag: fc.boolean(),
    })
    .map((step) => new RequestStep(step, alignment));
  return fc.commands([request, request, request, fc.boolean().map((all) => new LookStep(all))], {
    maxCommands: 60,
    size: 'max',
  });
}
