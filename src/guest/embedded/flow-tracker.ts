/**
 * Follows the sequence numbers of flows: what is missing, what came late, what came twice. The
 * common case, the next number in order, is one comparison; gaps are remembered in a bounded list.
 */
import { MAX_FLOWS } from './test-frame.ts';

/** Gaps that are remembered; the oldest is forgotten first, and counts as lost for good. */
const MAX_GAPS = 4096;

export class FlowTracker {
  /** Numbers that were passed over and have not come since. */
  missing = 0;
  /** Frames that came after a later one. */
  reordered = 0;
  /** Frames that had come before (or so long ago that nobody knows). */
  duplicates = 0;
  private readonly next = new Uint32Array(MAX_FLOWS);
  /** Gaps: flow, first number, count (0: filled). */
  private readonly gapFlow = new Uint16Array(MAX_GAPS);
  private readonly gapStart = new Uint32Array(MAX_GAPS);
  private readonly gapCount = new Uint32Array(MAX_GAPS);
  private nextGap = 0;

  /** Takes note of a frame. Numbers are modulo 2^32. */
  note(flow: number, sequence: number): void {
    const next = this.next;
    if (next[flow] === sequence) {
      next[flow] = sequence + 1;
      return;
    }
    this.#noteOther(flow, sequence);
  }

  /** Forgets all flows: each begins at 0 again. */
  clear(): void {
    this.missing = 0;
    this.reordered = 0;
    this.duplicates = 0;
    this.next.fill(0);
    this.gapCount.fill(0);
  }

  #noteOther(flow: number, sequence: number): void {
    const expected = this.next[flow] as number;
    const ahead = (sequence - expected) | 0;
    if (ahead > 0) {
      this.missing += ahead;
      this.#addGap(flow, expected, ahead);
      this.next[flow] = sequence + 1;
    } else if (this.#fillGap(flow, sequence)) {
      this.missing--;
      this.reordered++;
    } else {
      this.duplicates++;
    }
  }

  #addGap(flow: number, start: number, count: number): void {
    const at = this.nextGap;
    this.gapFlow[at] = flow;
    this.gapStart[at] = start;
    this.gapCount[at] = count;
    this.nextGap = (at + 1) % MAX_GAPS;
  }

  /** Takes a number out of the gap that holds it; false if none does. */
  #fillGap(flow: number, sequence: number): boolean {
    for (let at = 0; at < MAX_GAPS; at++) {
      const count = this.gapCount[at] as number;
      if (count === 0 || this.gapFlow[at] !== flow) continue;
      const start = this.gapStart[at] as number;
      const inside = (sequence - start) >>> 0;
      if (inside >= count) continue;
      this.gapCount[at] = inside;
      const rest = count - inside - 1;
      if (rest > 0 && inside === 0) {
        this.gapStart[at] = sequence + 1;
        this.gapCount[at] = rest;
      } else if (rest > 0) {
        this.#addGap(flow, (sequence + 1) >>> 0, rest);
      }
      return true;
    }
    return false;
  }
}
