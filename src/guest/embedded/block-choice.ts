/** Which block comes next, and whether it is read or written. */
import { Random } from '../../base/random.ts';
import { type DiskWorkSpec, isRandom, reads, writes } from './disk-options.ts';

/** So often a random block is drawn again, if a request to it is on its way. */
const TRIES = 8;
const DEFAULT_MIX = 50;

export class BlockChoice {
  /** What the last {@link next} chose: a write, or a read. */
  writes = false;
  private readonly random: boolean;
  private readonly blocks: number;
  /** Share of the reads. */
  private readonly readShare: number;
  /** The next block in order. */
  private readonly following = new Float64Array(1);
  private readonly numbers: Random;

  constructor(spec: DiskWorkSpec, blocks: number, seed: number) {
    this.random = isRandom(spec.rw);
    this.blocks = blocks;
    const both = reads(spec.rw) && writes(spec.rw);
    const mix = both ? (spec.rwmixread ?? DEFAULT_MIX) : reads(spec.rw) ? 100 : 0;
    this.readShare = mix / 100;
    this.numbers = new Random(seed);
  }

  /**
   * Puts the next block into `block[slot]`. False if a request to it is on its way, as `busy` says
   * by block (empty: nobody cares): try again when that has ended.
   */
  next(block: Float64Array, slot: number, busy: Uint8Array): boolean {
    const { following } = this;
    if (this.random) {
      let tries = 0;
      do {
        if (tries++ === TRIES) return false;
        block[slot] = this.numbers.below(this.blocks);
      } while (busy[block[slot] as number] === 1);
    } else {
      const at = following[0] as number;
      if (busy[at] === 1) return false;
      block[slot] = at;
      following[0] = at + 1 === this.blocks ? 0 : at + 1;
    }
    this.writes = this.readShare < 1 && !this.numbers.chance(this.readShare);
    return true;
  }

  /** The last choice was not made use of: a block in order comes again. */
  undo(): void {
    if (this.random) return;
    const at = this.following[0] as number;
    this.following[0] = (at === 0 ? this.blocks : at) - 1;
  }
}
