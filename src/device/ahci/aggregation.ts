/**
 * When the ends of queued commands are told. A drive may end many of them by one Set Device Bits FIS
 * (SATA §13.6), and an interrupt costs a guest more traps than a command does: so while more commands
 * keep coming, those that are done wait a little for each other.
 *
 * Whether more are coming is learnt. Now and then an end is held back on trial; if another command comes
 * meanwhile, ends are gathered from then on, until one has waited in vain. So a guest that waits for each
 * command before it sends the next one is told at once, but for the trials.
 */
import { countBits } from '../../base/bits.ts';

/** So many are told without more ado: the guest works on them while the others come. */
const MOST = 16;
/** No end waits longer, in ns; nor for longer than this after the last command came. */
const LONGEST_NS = 1_000_000;
const LONGEST_GAP_NS = 400_000;
const SHORTEST_GAP_NS = 10_000;
/** How much later than usual the next command may come. */
const GAPS = 2.5;
/** Ends that are told at once between two trials: at first, and after many in vain. */
const FIRST_TRIAL = 64;
const RAREST_TRIAL = 1024;
/** Each so-manieth time it is seen whether there would be more than last time. */
const LOOK_AGAIN = 8;

/** Of {@link Aggregation.ns}. */
const LAST = 0;
const FIRST = 1;
const GAP = 2;

export class Aggregation {
  /** Times in ns: when the last command came, when the first end was held back, and between commands. */
  private readonly ns = new Float64Array(3);
  private gathering = false;
  private untilTrial = FIRST_TRIAL;
  private trialEvery = FIRST_TRIAL;
  /** Ends are held back now; and a command has come meanwhile. */
  private holds = false;
  private joined = false;
  /** How many were gathered when no more came. */
  private usual = 0;
  private turn = 0;

  /** Ends are being held back. */
  get holding(): boolean {
    return this.holds;
  }

  /** A queued command has come. */
  arrived(now: number): void {
    const { ns } = this;
    const gap = now - (ns[LAST] as number);
    ns[LAST] = now;
    if (gap < LONGEST_NS) ns[GAP] = (ns[GAP] as number) + (gap - (ns[GAP] as number)) / 4;
    this.joined = this.holds;
  }

  /** Whether the ends of `done`, of the tags that are `outstanding`, may be told now. */
  due(now: number, done: number, outstanding: number): boolean {
    const { ns } = this;
    if (!this.holds) {
      if (!this.gathering && --this.untilTrial > 0) return true;
      this.holds = true;
      this.joined = false;
      ns[FIRST] = now;
    }
    const count = countBits(done);
    if (count >= MOST) return this.end(count, false);
    // As many as usual, and all that the guest has sent: it waits for them.
    const isUsual = this.gathering && count === this.usual && done === outstanding;
    if (isUsual && this.turn % LOOK_AGAIN !== 0) return this.end(count, false);
    const first = ns[FIRST] as number;
    if (now - first >= LONGEST_NS) return this.end(count, false);
    const gap = Math.min(Math.max(GAPS * (ns[GAP] as number), SHORTEST_GAP_NS), LONGEST_GAP_NS);
    if (now - Math.max(first, ns[LAST] as number) < gap) return false;
    return this.end(count, true);
  }

  /** All is told, or nothing is: whatever was held back. */
  forget(): void {
    this.holds = false;
  }

  private end(count: number, isLast: boolean): boolean {
    this.holds = false;
    this.turn++;
    if (isLast) this.usual = count;
    const wasWorth = count > 1 || this.joined;
    if (wasWorth) {
      this.gathering = true;
      this.trialEvery = FIRST_TRIAL;
    } else {
      this.trialEvery = this.gathering ? FIRST_TRIAL : Math.min(2 * this.trialEvery, RAREST_TRIAL);
      this.untilTrial = this.trialEvery;
      this.gathering = false;
    }
    return true;
  }
}
