/**
 * What the frames of a run have in common, found in WebAssembly for many at once: where they go, what they
 * take of a wire, how they are spread over queues. Only for bursts and lists that lie in the window
 * (`memory/arena.ts`), and for frames without tags and metadata; all others are looked at one by one.
 */
import { wasm } from '../../base/webassembly.ts';
import { WINDOW_BYTES } from '../../memory/arena.ts';
import { FRAME_TABLE } from '../../memory/copy.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import { FRAME_RUNS_WASM } from './frame-runs.wasm.ts';

/** Indices of {@link FrameRuns.sums}. */
export const RUN_BYTES = 0;
/** Of frames that are padded to 60 bytes, as on a wire. */
export const RUN_PADDED = 1;
export const RUN_LONGEST = 2;
export const RUN_SHORTEST = 3;
const SUMS = 4;

/** Words of RSS hashes, and of their types behind them. */
const HASHES = BATCH;
/** Queues that a redirection table can name: four bits. */
const SPREAD_QUEUES = 16;

/** What each does: `frame-runs.wat`. */
interface Loops {
  survey(
    table: number,
    list: number,
    first: number,
    count: number,
    any: number,
    sums: number,
  ): number;
  hash(
    table: number,
    list: number,
    first: number,
    count: number,
    control: number,
    key: number,
    hashes: number,
  ): number;
}

const shared = new WeakMap<DataPath, FrameRuns>();

export class FrameRuns {
  /** What the last {@link survey} found, by RUN_*. */
  readonly sums: Uint32Array;
  /** 0, 1, 2 … 63. */
  readonly all: Uint8Array;
  /** Room for a list of frames for each queue. */
  readonly lists: readonly Uint8Array[];
  readonly counts = new Uint8Array(SPREAD_QUEUES);
  /** By frame of the burst of the last {@link hash}: hash, and one of IXGBE_RXD_RSS_*. */
  readonly hashes: Uint32Array;
  readonly types: Uint32Array;
  /** Arena address of {@link hashes}, with {@link types} behind it. */
  readonly hashesAt: number;
  readonly #buffer: ArrayBuffer;
  readonly #sumsAt: number;
  readonly #loops: Loops;
  readonly #isNear: boolean;
  /** A list that WebAssembly reaches. */
  #reached: Uint8Array | undefined;

  private constructor(path: DataPath) {
    const { arena, tables } = path;
    const at = tables.take();
    this.#buffer = arena.buffer;
    this.hashesAt = at;
    this.hashes = new Uint32Array(arena.buffer, at, HASHES);
    this.types = new Uint32Array(arena.buffer, at + 4 * HASHES, HASHES);
    this.all = new Uint8Array(arena.buffer, at + 8 * HASHES, BATCH);
    for (let i = 0; i < BATCH; i++) this.all[i] = i;
    const listsAt = at + 8 * HASHES + BATCH;
    this.lists = Array.from(
      { length: SPREAD_QUEUES },
      (_, queue) => new Uint8Array(arena.buffer, listsAt + queue * BATCH, BATCH),
    );
    this.#sumsAt = listsAt + SPREAD_QUEUES * BATCH;
    this.sums = new Uint32Array(arena.buffer, this.#sumsAt, SUMS);
    this.#isNear = at + FRAME_TABLE.size <= WINDOW_BYTES;
    const module = new wasm.Module(Buffer.from(FRAME_RUNS_WASM, 'base64'));
    const { exports } = new wasm.Instance(module, { sluice: { window: arena.window } });
    this.#loops = exports as unknown as Loops;
  }

  /** The one of a lane. */
  static of(path: DataPath): FrameRuns {
    let runs = shared.get(path);
    if (runs === undefined) {
      runs = new FrameRuns(path);
      shared.set(path, runs);
    }
    return runs;
  }

  /** Whether WebAssembly reaches a burst's table, and a list of its frames. */
  reaches(burst: Burst, frames: Uint8Array): boolean {
    if (burst.tableAt + FRAME_TABLE.size > WINDOW_BYTES) return false;
    // To ask a list where it lies takes longer than anything else here.
    if (frames === this.#reached) return true;
    const reaches =
      this.#isNear && frames.buffer === this.#buffer && frames.byteOffset + BATCH <= WINDOW_BYTES;
    if (reaches) this.#reached = frames;
    return reaches;
  }

  /**
   * How far frames `frames[first…count)` go to one destination, without tags and metadata: the place in
   * the list of the first that does not, or `count`. {@link sums} tells of those before it.
   */
  survey(burst: Burst, frames: Uint8Array, first: number, count: number): number {
    if (!this.reaches(burst, frames)) return first;
    return this.#loops.survey(burst.tableAt, frames.byteOffset, first, count, 0, this.#sumsAt);
  }

  /** As {@link survey} of the whole list, wherever the frames go: whether none has a tag or metadata. */
  arePlain(burst: Burst, frames: Uint8Array, count: number): boolean {
    if (!this.reaches(burst, frames)) return false;
    const list = frames.byteOffset;
    return this.#loops.survey(burst.tableAt, list, 0, count, 1, this.#sumsAt) === count;
  }

  /**
   * Hashes frames `frames[first…count)` as `control` (MRQC) asks for it, with the table of a key (`rss.ts`) at
   * an address in the window. Returns the place in the list of the first that is to be looked at by itself.
   */
  hash(
    burst: Burst,
    frames: Uint8Array,
    first: number,
    count: number,
    control: number,
    key: number,
  ): number {
    if (!this.reaches(burst, frames)) return first;
    const list = frames.byteOffset;
    return this.#loops.hash(burst.tableAt, list, first, count, control, key, this.hashesAt);
  }
}
