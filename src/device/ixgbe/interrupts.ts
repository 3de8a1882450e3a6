/**
 * Interrupts of a function (§7.3, §8.2.3.5; of a VF §8.3.5.2): causes, masks, automatic clearing and
 * masking, throttling, and how they reach the guest: MSI-X vectors that queues are assigned to, one MSI,
 * or the INTx line.
 */
import type { PollLoop } from '../../os/poll-loop.ts';
import type { PciInterrupts } from '../../pci/interrupts.ts';
import {
  IXGBE_EITR_COUNTER_KEEP,
  IXGBE_EITR_INTERVAL,
  IXGBE_EITR_INTERVAL_SHIFT,
  IXGBE_EITR_UNIT_NS,
  IXGBE_GPIE_EIAME,
  IXGBE_GPIE_MSIX,
  IXGBE_GPIE_OTHER_CLEAR_DISABLE,
  IXGBE_INT_TCP_TIMER,
  IXGBE_IVAR_VALID,
  IXGBE_IVAR_VECTOR,
} from '../../spec/ixgbe.ts';

export interface InterruptLayout {
  /** Up to 64. */
  readonly vectors: number;
  /** Bits of EICR that stand for the first vectors. */
  readonly queueCauses: number;
  /** All other bits of EICR; a VF has none. */
  readonly otherCauses: number;
  /** Index of each vector's EITR in the words; -1: it has none. */
  readonly moderation: Int32Array;
  /** Index of the first IVAR, and of IVAR_MISC. */
  readonly ivar: number;
  readonly ivarMisc: number;
}

/** Indices of what is kept here: the registers read it by methods. */
const CAUSE = 0;
/** Of vectors 0 to 31, 32 to 63, and of other causes. */
const MASK = 1;
const AUTOMASK = 4;
const PENDING = 7;
const OTHER = 2;
const AUTOCLEAR = 10;
const CONTROL = 11;
const STATE_WORDS = 12;

/** Entries of IVAR_MISC: the TCP timer's (of a VF: the mailbox's), and that of other causes. */
const MISC_TIMER = 0;
const MISC_OTHER = 8;
/** Without MSI-X an entry names a bit of EICR. */
const CAUSE_BITS = 0xf;
/** GPIE.OCD: a read clears these only (§8.2.3.5.18). */
const CLEARED_WITH_OCD = 0x3fff_0000;

const NEVER = Number.POSITIVE_INFINITY;

export interface InterruptParts {
  readonly layout: InterruptLayout;
  readonly words: Uint32Array;
  /** For the time. */
  readonly loop: Pick<PollLoop, 'now'>;
  readonly output: Pick<PciInterrupts, 'mode' | 'signal' | 'setLevel'>;
  /** An interrupt was sent. */
  readonly sent: () => void;
}

export class Interrupts {
  /** The driver domain's own throttle, in ns: a vector does not interrupt more often, whatever EITR says. */
  leastIntervalNs = 0;
  readonly #layout: InterruptLayout;
  readonly #words: Uint32Array;
  readonly #loop: InterruptParts['loop'];
  readonly #output: InterruptParts['output'];
  readonly #sent: () => void;
  readonly #state = new Uint32Array(STATE_WORDS);
  /** When each vector may interrupt again. */
  readonly #next = new Float64Array(64);
  /** When the driver domain's throttle lets it, which nothing that the guest does brings forward. */
  readonly #floor = new Float64Array(64);
  /** When the first of those that wait may; {@link NEVER}: nothing waits. */
  readonly #due = new Float64Array(1).fill(NEVER);
  /** Something waits: {@link poll} is to be called. */
  waiting = false;
  /** Without MSI-X: the present causes have been told. */
  #asserted = false;
  #line = false;

  constructor(parts: InterruptParts) {
    this.#layout = parts.layout;
    this.#words = parts.words;
    this.#loop = parts.loop;
    this.#output = parts.output;
    this.#sent = parts.sent;
  }

  reset(): void {
    this.#state.fill(0);
    this.#next.set(this.#floor);
    this.#due[0] = NEVER;
    this.waiting = false;
    this.#asserted = false;
    this.#setLine(false);
  }

  // Events

  received(queue: number): void {
    this.#raiseQueue(queue, 0);
  }

  transmitted(queue: number): void {
    this.#raiseQueue(queue, 8);
  }

  /** The next interrupt of this receive queue does not wait (§7.3.2.1.3, low latency interrupts). */
  hurry(queue: number): void {
    const entry = this.#entry(queue, 0);
    if ((entry & IXGBE_IVAR_VALID) !== 0) this.#endWait(entry & IXGBE_IVAR_VECTOR);
  }

  /** Other causes, bits of EICR: link, mailbox … */
  raiseOther(causes: number): void {
    const state = this.#state;
    const set = causes & this.#layout.otherCauses;
    state[CAUSE] = (state[CAUSE] as number) | set;
    state[PENDING + OTHER] = (state[PENDING + OTHER] as number) | set;
    this.update();
  }

  /** The mailbox of a VF. */
  raiseMailbox(): void {
    const entry = (this.#words[this.#layout.ivarMisc] as number) & 0xff;
    if ((entry & IXGBE_IVAR_VALID) === 0) return;
    this.#raiseVector(entry & IXGBE_IVAR_VECTOR);
    this.update();
  }

  // Registers

  /** EICR, EICS: the causes, which stay. */
  get causes(): number {
    return this.#state[CAUSE] as number;
  }

  /** A read of EICR: causes are cleared, and masked where the guest wants that (§7.3.1.4). */
  readCauses(): number {
    const state = this.#state;
    const causes = state[CAUSE] as number;
    const some = ((state[CONTROL] as number) & IXGBE_GPIE_OTHER_CLEAR_DISABLE) !== 0;
    this.#clear(some ? causes & CLEARED_WITH_OCD : causes);
    this.#autoMask();
    this.update();
    return causes;
  }

  /** A write to EICR: ones clear. */
  writeCauses(value: number): void {
    this.#clear(value);
    this.#autoMask();
    this.update();
  }

  /** EICS. */
  setCauses(value: number): void {
    this.setVectors(0, value & this.#layout.queueCauses);
    this.raiseOther(value);
  }

  /** EICS_EX: vectors 0 to 31 (`word` 0) or 32 to 63. */
  setVectors(word: number, value: number): void {
    const state = this.#state;
    const set = value & this.#vectorsOf(word);
    state[PENDING + word] = (state[PENDING + word] as number) | set;
    if (word === 0) state[CAUSE] = (state[CAUSE] as number) | (set & this.#layout.queueCauses);
    this.update();
  }

  /** EIMS, EIMC: vectors and other causes in one word. */
  get mask(): number {
    const state = this.#state;
    const vectors = (state[MASK] as number) & this.#layout.queueCauses;
    return (vectors | (state[MASK + OTHER] as number)) >>> 0;
  }

  enable(value: number): void {
    const { queueCauses, otherCauses } = this.#layout;
    const state = this.#state;
    const others = value & otherCauses & ~(state[MASK + OTHER] as number);
    state[MASK + OTHER] = (state[MASK + OTHER] as number) | others;
    // A cause that is there when it is unmasked interrupts.
    state[PENDING + OTHER] =
      (state[PENDING + OTHER] as number) | (others & (state[CAUSE] as number));
    this.enableVectors(0, value & queueCauses);
  }

  disable(value: number): void {
    const state = this.#state;
    state[MASK + OTHER] = (state[MASK + OTHER] as number) & ~value;
    this.disableVectors(0, value & this.#layout.queueCauses);
  }

  /** EIMS_EX. */
  vectorMask(word: number): number {
    return this.#state[MASK + word] as number;
  }

  enableVectors(word: number, value: number): void {
    const state = this.#state;
    const added = value & this.#vectorsOf(word) & ~(state[MASK + word] as number);
    state[MASK + word] = (state[MASK + word] as number) | added;
    if (word === 0) {
      const there = added & this.#layout.queueCauses & (state[CAUSE] as number);
      state[PENDING] = (state[PENDING] as number) | there;
    }
    this.update();
  }

  /** EIMC_EX. */
  disableVectors(word: number, value: number): void {
    const state = this.#state;
    state[MASK + word] = (state[MASK + word] as number) & ~value;
    this.update();
  }

  /** EIAC: vectors whose cause their message clears. Those above 15 have no cause to be cleared. */
  get autoClear(): number {
    return this.#state[AUTOCLEAR] as number;
  }

  set autoClear(value: number) {
    const { queueCauses, otherCauses } = this.#layout;
    this.#state[AUTOCLEAR] = value & (queueCauses | (otherCauses & IXGBE_INT_TCP_TIMER));
  }

  /** EIAM: what is masked by a message (GPIE.EIAME), or without MSI-X as EICR is cleared. */
  get autoMask(): number {
    const state = this.#state;
    const vectors = (state[AUTOMASK] as number) & this.#layout.queueCauses;
    return (vectors | (state[AUTOMASK + OTHER] as number)) >>> 0;
  }

  set autoMask(value: number) {
    const { queueCauses, otherCauses } = this.#layout;
    const state = this.#state;
    state[AUTOMASK + OTHER] = value & otherCauses;
    state[AUTOMASK] = ((state[AUTOMASK] as number) & ~queueCauses) | (value & queueCauses);
  }

  /** EIAM_EX. */
  vectorAutoMask(word: number): number {
    return this.#state[AUTOMASK + word] as number;
  }

  setVectorAutoMask(word: number, value: number): void {
    this.#state[AUTOMASK + word] = value & this.#vectorsOf(word);
  }

  /** GPIE; of a VF: as its physical function has set it up. */
  get control(): number {
    return this.#state[CONTROL] as number;
  }

  set control(value: number) {
    this.#state[CONTROL] = value;
    this.update();
  }

  /** A write to EITR: unless it asks to keep the counter, the vector may interrupt at once. */
  setModeration(vector: number, value: number): void {
    const index = this.#layout.moderation[vector] as number;
    this.#words[index] = value & ~IXGBE_EITR_COUNTER_KEEP;
    if ((value & IXGBE_EITR_COUNTER_KEEP) === 0) this.#endWait(vector);
    this.update();
  }

  // Time

  /** Once a turn: what waited for its time. Returns 1 if that came. */
  poll(): number {
    if ((this.#due[0] as number) > this.#loop.now) return 0;
    this.update();
    return 1;
  }

  /** The loop is about to sleep: true if something waits. A millisecond is the longest that may be. */
  arm(): boolean {
    return this.waiting;
  }

  /** Brings messages and line in accord with causes, masks and throttles. */
  update(): void {
    this.#due[0] = NEVER;
    this.waiting = false;
    if (this.#isMultiple()) {
      this.#setLine(false);
      this.#sendWord(0);
      this.#sendWord(1);
      this.#sendOthers();
      return;
    }
    const state = this.#state;
    if (((state[CAUSE] as number) & this.mask) === 0) {
      this.#asserted = false;
      this.#setLine(false);
      return;
    }
    if (this.#asserted || !this.#mayInterrupt(0)) return;
    this.#asserted = true;
    this.#sent();
    this.#setLine(true);
    // With INTx this does nothing, with a message the line does not.
    this.#output.signal(0);
  }

  #isMultiple(): boolean {
    return (
      this.#output.mode === 'msix' && ((this.#state[CONTROL] as number) & IXGBE_GPIE_MSIX) !== 0
    );
  }

  #vectorsOf(word: number): number {
    const count = this.#layout.vectors - 32 * word;
    return count >= 32 ? 0xffff_ffff : count <= 0 ? 0 : (1 << count) - 1;
  }

  #entry(queue: number, shift: number): number {
    const word = this.#words[this.#layout.ivar + (queue >>> 1)] as number;
    return (word >>> (16 * (queue & 1) + shift)) & 0xff;
  }

  #raiseQueue(queue: number, shift: number): void {
    const entry = this.#entry(queue, shift);
    if ((entry & IXGBE_IVAR_VALID) === 0) return;
    const vector = entry & IXGBE_IVAR_VECTOR;
    this.#raiseVector(this.#isMultiple() ? vector : vector & CAUSE_BITS);
    this.update();
  }

  #raiseVector(vector: number): void {
    const state = this.#state;
    const word = vector >>> 5;
    const bit = (1 << (vector & 31)) & this.#vectorsOf(word);
    state[PENDING + word] = (state[PENDING + word] as number) | bit;
    if (word === 0) state[CAUSE] = (state[CAUSE] as number) | (bit & this.#layout.queueCauses);
  }

  #clear(causes: number): void {
    const state = this.#state;
    const { queueCauses } = this.#layout;
    state[CAUSE] = (state[CAUSE] as number) & ~causes;
    state[PENDING] = (state[PENDING] as number) & ~(causes & queueCauses);
    state[PENDING + OTHER] = (state[PENDING + OTHER] as number) & ~causes;
  }

  /** Without MSI-X: as causes are read or cleared. */
  #autoMask(): void {
    if (this.#isMultiple()) return;
    const state = this.#state;
    const queues = (state[AUTOMASK] as number) & this.#layout.queueCauses;
    state[MASK] = (state[MASK] as number) & ~queues;
    state[MASK + OTHER] = (state[MASK + OTHER] as number) & ~(state[AUTOMASK + OTHER] as number);
  }

  #sendWord(word: number): void {
    const state = this.#state;
    let left = (state[PENDING + word] as number) & (state[MASK + word] as number);
    while (left !== 0) {
      const number = 31 - Math.clz32(left);
      const bit = 1 << number;
      left &= ~bit;
      const vector = 32 * word + number;
      if (!this.#mayInterrupt(vector)) continue;
      state[PENDING + word] = (state[PENDING + word] as number) & ~bit;
      if (word === 0) {
        const cleared = bit & (state[AUTOCLEAR] as number) & this.#layout.queueCauses;
        state[CAUSE] = (state[CAUSE] as number) & ~cleared;
      }
      if (((state[CONTROL] as number) & IXGBE_GPIE_EIAME) !== 0) {
        state[MASK + word] =
          (state[MASK + word] as number) & ~((state[AUTOMASK + word] as number) & bit);
      }
      this.#sent();
      this.#output.signal(vector);
    }
  }

  #sendOthers(): void {
    const state = this.#state;
    const ready = (state[PENDING + OTHER] as number) & (state[MASK + OTHER] as number);
    if (ready === 0) return;
    this.#sendMisc(ready & IXGBE_INT_TCP_TIMER, MISC_TIMER);
    this.#sendMisc(ready & ~IXGBE_INT_TCP_TIMER, MISC_OTHER);
  }

  #sendMisc(causes: number, shift: number): void {
    if (causes === 0) return;
    const state = this.#state;
    const entry = ((this.#words[this.#layout.ivarMisc] as number) >>> shift) & 0xff;
    const vector = entry & IXGBE_IVAR_VECTOR;
    const isValid = (entry & IXGBE_IVAR_VALID) !== 0 && vector < this.#layout.vectors;
    if (isValid && !this.#mayInterrupt(vector)) return;
    state[PENDING + OTHER] = (state[PENDING + OTHER] as number) & ~causes;
    if (!isValid) return;
    state[CAUSE] = (state[CAUSE] as number) & ~(causes & (state[AUTOCLEAR] as number));
    if (((state[CONTROL] as number) & IXGBE_GPIE_EIAME) !== 0) {
      state[MASK + OTHER] =
        (state[MASK + OTHER] as number) & ~((state[AUTOMASK + OTHER] as number) & causes);
    }
    this.#sent();
    this.#output.signal(vector);
  }

  /** Takes a turn of a vector, or notes that it must wait for one. */
  #mayInterrupt(vector: number): boolean {
    const index = this.#layout.moderation[vector] as number;
    if (index < 0) return true;
    const interval =
      ((this.#words[index] as number) & IXGBE_EITR_INTERVAL) >>> IXGBE_EITR_INTERVAL_SHIFT;
    const wanted = interval * IXGBE_EITR_UNIT_NS;
    const least = this.leastIntervalNs;
    const wait = wanted > least ? wanted : least;
    if (wait === 0) return true;
    const { now } = this.#loop;
    const next = this.#next[vector] as number;
    if (now < next) {
      if (next < (this.#due[0] as number)) this.#due[0] = next;
      this.waiting = true;
      return false;
    }
    this.#next[vector] = now + wait;
    this.#floor[vector] = now + least;
    return true;
  }

  /** The guest's own throttle does not hold a vector back any more; the driver domain's does. */
  #endWait(vector: number): void {
    this.#next[vector] = this.#floor[vector] as number;
  }

  #setLine(asserted: boolean): void {
    if (this.#line === asserted) return;
    this.#line = asserted;
    this.#output.setLevel(asserted);
  }
}
