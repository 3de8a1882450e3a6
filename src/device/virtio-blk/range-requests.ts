/**
 * Discards and write zeroes (VIRTIO 1.3 §5.2.6): one chain with several ranges is one request to the
 * disk for each, as many at once as there are slots that nobody else needs.
 */
import { MAX_RANGES } from './features.ts';
import type { Outcomes } from './outcomes.ts';
import { type RequestSlots, STEP_RANGE } from './request-slots.ts';
import type { Submitter } from './submitter.ts';

/** The chain has ranges left. */
export const RANGES_LEFT = -1;

export class RangeRequests {
  private readonly slots: RequestSlots;
  private readonly submitter: Submitter;
  private readonly outcomes: Outcomes;

  constructor(slots: RequestSlots, submitter: Submitter, outcomes: Outcomes) {
    this.slots = slots;
    this.submitter = submitter;
    this.outcomes = outcomes;
  }

  /** Begins with the ranges of the chain in slot `parent`; `reserved` free slots are others'. */
  start(parent: number, reserved: number): void {
    const { slots } = this;
    this.submit(parent, parent);
    while (
      (slots.nextRange[parent] as number) < (slots.ranges[parent] as number) &&
      slots.free > reserved
    ) {
      this.submit(parent, slots.take());
    }
  }

  /**
   * The range in `slot` is done. Returns the slot of its chain if that was the last, RANGES_LEFT if not;
   * `result[parent]` then tells the first error.
   */
  end(slot: number, result: number): number {
    const { slots } = this;
    const parent = slots.parent[slot] as number;
    if (result >= 0) {
      this.outcomes.succeedRange(slots, slot);
    } else if (slots.result[parent] === 0) {
      // The log gets the first range that failed, the guest one answer for all.
      this.outcomes.tell(slots, slot, result);
      slots.result[parent] = result;
    }
    slots.running[parent] = (slots.running[parent] as number) - 1;
    const isLast = slots.nextRange[parent] === slots.ranges[parent];
    if (!isLast && slots.result[parent] === 0) {
      this.submit(parent, slot);
      return RANGES_LEFT;
    }
    // The parent's own slot is its chain's until that is answered.
    if (slot !== parent) slots.give(slot);
    return slots.running[parent] === 0 ? parent : RANGES_LEFT;
  }

  /** Sends the parent's next range on its way, in `slot`. */
  private submit(parent: number, slot: number): void {
    const { slots } = this;
    const { table } = slots;
    const k = parent * MAX_RANGES + (slots.nextRange[parent] as number);
    slots.nextRange[parent] = (slots.nextRange[parent] as number) + 1;
    slots.running[parent] = (slots.running[parent] as number) + 1;
    slots.step[slot] = STEP_RANGE;
    slots.parent[slot] = parent;
    table.op[slot] = table.op[parent] as number;
    table.flags[slot] = slots.rangeFlags[k] as number;
    table.offset[slot] = slots.rangeOffset[k] as number;
    table.bytes[slot] = slots.rangeBytes[k] as number;
    table.count[slot] = 0;
    this.submitter.submit(slot);
  }
}
