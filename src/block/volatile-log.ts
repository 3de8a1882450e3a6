/**
 * The volatile cache of a disk that can lose its power: every write since the last flush, in order,
 * block by block. A block's content may turn out to be any of its versions, or what is below.
 */
import type { Random } from '../base/random.ts';
import type { Arena } from '../memory/arena.ts';

/** The version before the first in the log is what the disk below holds. */
const BELOW = -1;
/** There is no version before: this one is known to be durable. */
const DURABLE = -2;

/** Which version of a block is to be written. */
export interface BlockVersion {
  readonly block: number;
  readonly entry: number;
}

export class VolatileLog {
  readonly blockBytes: number;
  /** Blocks that fit. */
  readonly capacity: number;
  readonly #arena: Arena;
  readonly #start: number;
  /** By entry: the block's version before, BELOW or DURABLE. */
  readonly #before: Int32Array;
  /** By entry: the first entry of the same write. */
  readonly #write: Int32Array;
  /** Latest entry of each block. */
  readonly #latest = new Map<number, number>();
  #count = 0;

  constructor(arena: Arena, capacity: number, blockBytes: number) {
    this.blockBytes = blockBytes;
    this.capacity = capacity;
    this.#arena = arena;
    this.#start = arena.allocate(capacity * blockBytes, 'sluice-volatile');
    this.#before = new Int32Array(capacity);
    this.#write = new Int32Array(capacity);
  }

  /** Blocks for which there is room. */
  get room(): number {
    return this.capacity - this.#count;
  }

  /** Arena address of an entry's content; those of one write lie one after another. */
  addressOf(entry: number): number {
    return this.#start + entry * this.blockBytes;
  }

  /** Adds a write of `count` blocks, for which there is room. Its first entry: the caller fills the content in. */
  append(block: number, count: number): number {
    const first = this.#count;
    this.#count += count;
    for (let i = 0; i < count; i++) {
      this.#before[first + i] = this.#latest.get(block + i) ?? BELOW;
      this.#write[first + i] = first;
      this.#latest.set(block + i, first + i);
    }
    return first;
  }

  /** The latest version of a block; -1 if it is the one below. */
  latest(block: number): number {
    return this.#latest.get(block) ?? -1;
  }

  /** The write of `count` entries from `first` on is durable: no version before it can come back. */
  settle(first: number, count: number): void {
    this.#before.fill(DURABLE, first, first + count);
  }

  /** The latest version of every block, by block. */
  latestVersions(): BlockVersion[] {
    return this.#sorted((entry) => entry);
  }

  /**
   * What a power cut leaves: of each block one version. By chance, blocks are lost one by one, or whole
   * writes are, or all from some moment on.
   */
  survivors(random: Random): BlockVersion[] {
    const share = random.u32() / 2 ** 32;
    switch (random.below(3)) {
      case 0:
        return this.#sorted((entry) => this.#back(entry, () => random.chance(share)));
      case 1: {
        const kept = Uint8Array.from({ length: this.#count }, () => (random.chance(share) ? 1 : 0));
        return this.#sorted((entry) =>
          this.#back(entry, (version) => kept[this.#write[version] as number] === 1),
        );
      }
      default: {
        const moment = random.below(this.#count + 1);
        return this.#sorted((entry) => this.#back(entry, (version) => version < moment));
      }
    }
  }

  /** Forgets all. */
  clear(): void {
    this.#count = 0;
    this.#latest.clear();
  }

  /** Gives the memory back. */
  release(): void {
    this.#arena.unmap(this.#start, this.capacity * this.blockBytes);
  }

  /** The first version from `entry` back that is kept, or that must be; BELOW if none is. */
  #back(entry: number, keep: (version: number) => boolean): number {
    let version = entry;
    while (version !== BELOW && !keep(version)) {
      const before = this.#before[version] as number;
      if (before === DURABLE) return version;
      version = before;
    }
    return version;
  }

  #sorted(choose: (latest: number) => number): BlockVersion[] {
    const versions: BlockVersion[] = [];
    for (const [block, latest] of this.#latest) {
      const entry = choose(latest);
      if (entry !== BELOW) versions.push({ block, entry });
    }
    return versions.sort((a, b) => a.block - b.block);
  }
}
