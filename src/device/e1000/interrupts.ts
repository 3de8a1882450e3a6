/**
 * Interrupts (SDM §13.4.17–20, §3.2.7; DS §7.4, §10.2.4): causes and mask, throttling, delay timers,
 * and how they reach the guest: the INTx line, one MSI, or MSI-X vectors (82574).
 */
import type { PollLoop, Timer } from '../../os/poll-loop.ts';
import type { PciInterrupts } from '../../pci/interrupts.ts';
import {
  CTRL_EXT_EIAME,
  CTRL_EXT_IAME,
  DELAY_UNIT_NS,
  E1000_MSIX_VECTORS,
  INT_ASSERTED,
  INT_CAUSES_82540,
  INT_CAUSES_82574,
  INT_LSC,
  INT_MDAC,
  INT_MSIX,
  INT_MSIX_CAUSES,
  INT_MSIX_SHIFT,
  INT_OTHER,
  INT_RXO,
  INT_RXQ0,
  INT_RXT0,
  INT_SRPD,
  INT_TXDW,
  INT_TXQ0,
  ITR_UNIT_NS,
  IVAR_VALID,
  IVAR_VECTOR,
} from '../../spec/e1000.ts';
import { R, type RegisterFile } from './registers.ts';

/** What sets INT_OTHER too (DS §10.2.4.1). */
const OTHERS = INT_LSC | INT_RXO | INT_MDAC | INT_SRPD;

/** A sleeping loop counts in milliseconds: waits up to this long are spun instead, in ns. */
const SPIN_NS = 1_000_000;

const R_CTRL_EXT = R.CTRL_EXT;
const R_EIAC = R.EIAC;
const R_EITR = R.EITR;
const R_IAM = R.IAM;
const R_ICR = R.ICR;
const R_IMS = R.IMS;
const R_ITR = R.ITR;
const R_IVAR = R.IVAR;
const R_RADV = R.RADV;
const R_RDTR = R.RDTR;
const R_TADV = R.TADV;
const R_TIDV = R.TIDV;

const NEVER = Number.POSITIVE_INFINITY;
/** Indices of {@link Interrupts.#due}: delay timers, relative and absolute. */
const RX = 0;
const RX_ABSOLUTE = 1;
const TX = 2;
const TX_ABSOLUTE = 3;

export class Interrupts {
  /** Interrupts that were sent or asserted. */
  readonly #sent: () => void;
  readonly #registers: RegisterFile;
  readonly #express: boolean;
  readonly #loop: PollLoop;
  readonly #output: PciInterrupts;
  readonly #due = new Float64Array(4).fill(NEVER);
  /** When each vector (or the line: the first) may interrupt again, in ns. */
  readonly #next = new Float64Array(E1000_MSIX_VECTORS);
  #timer: Timer | undefined;
  #timerDue = 0;
  /** The line is asserted, or the message of what is pending was sent. */
  #asserted = false;
  /** The level that was told. */
  #line = false;
  /** MSI-X causes that are to be sent. */
  #pending = 0;
  /** Something waits for its time: throttled, or delayed. */
  #waiting = false;

  constructor(
    registers: RegisterFile,
    express: boolean,
    loop: PollLoop,
    output: PciInterrupts,
    sent: () => void,
  ) {
    this.#registers = registers;
    this.#express = express;
    this.#loop = loop;
    this.#output = output;
    this.#sent = sent;
  }

  reset(): void {
    this.#due.fill(NEVER);
    this.#next.fill(0);
    this.#pending = 0;
    this.#waiting = false;
    this.#asserted = false;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#setLine(false);
  }

  /** Sets causes; the guest is interrupted where it wants them. */
  raise(causes: number): void {
    const { words } = this.#registers;
    let set = causes & (this.#express ? INT_CAUSES_82574 : INT_CAUSES_82540);
    if (this.#express) {
      if ((set & OTHERS) !== 0) set |= INT_OTHER;
      this.#pending |= set & INT_MSIX;
    }
    words[R_ICR] = (words[R_ICR] as number) | set;
    this.update();
  }

  /** A frame was received: at once, or when the delay timers say so. */
  received(): void {
    const { words } = this.#registers;
    this.#delay(
      (words[R_RDTR] as number) * DELAY_UNIT_NS,
      (words[R_RADV] as number) * DELAY_UNIT_NS,
      RX,
      INT_RXT0 | INT_RXQ0,
    );
  }

  /** Descriptors were written back; `delayed` if all asked for the delay timers (IDE). */
  transmitted(delayed: boolean): void {
    const { words } = this.#registers;
    this.#delay(
      delayed ? (words[R_TIDV] as number) * DELAY_UNIT_NS : 0,
      (words[R_TADV] as number) * DELAY_UNIT_NS,
      TX,
      INT_TXDW | INT_TXQ0,
    );
  }

  /** RDTR or TIDV was written with the flush bit. */
  flushReceive(): void {
    if (this.#due[RX] !== NEVER) this.#fire(RX, INT_RXT0 | INT_RXQ0);
  }

  flushTransmit(): void {
    if (this.#due[TX] !== NEVER) this.#fire(TX, INT_TXDW | INT_TXQ0);
  }

  readCause(): number {
    const { words } = this.#registers;
    const cause = words[R_ICR] as number;
    const asserted = (cause & INT_ASSERTED) !== 0;
    // DS §10.2.4.1: with MSI-X, what was not asserted stays, unless all is masked.
    if (this.#express && this.#output.mode === 'msix' && !asserted && words[R_IMS] !== 0)
      return cause;
    words[R_ICR] = 0;
    this.#pending = 0;
    if (this.#express && asserted && ((words[R_CTRL_EXT] as number) & CTRL_EXT_IAME) !== 0) {
      words[R_IMS] = (words[R_IMS] as number) & ~(words[R_IAM] as number);
    }
    this.update();
    return cause;
  }

  /** A write to ICR clears what is one in it. */
  writeCause(value: number): void {
    const { words } = this.#registers;
    words[R_ICR] = (words[R_ICR] as number) & ~value;
    this.#pending &= words[R_ICR] as number;
    this.update();
  }

  enable(causes: number): void {
    const { words } = this.#registers;
    const mask = this.#express ? INT_CAUSES_82574 : INT_CAUSES_82540;
    const enabled = causes & mask & ~(words[R_IMS] as number);
    words[R_IMS] = (words[R_IMS] as number) | enabled;
    this.#pending |= enabled & (words[R_ICR] as number) & INT_MSIX;
    this.update();
  }

  disable(causes: number): void {
    const { words } = this.#registers;
    words[R_IMS] = (words[R_IMS] as number) & ~causes;
    this.update();
  }

  /** Once a turn: what waited for its time. Returns 1 if there was something. */
  poll(): number {
    if (!this.#waiting) return 0;
    this.#waiting = false;
    const now = this.#loop.now;
    const due = this.#due;
    let work = 0;
    if ((due[RX] as number) <= now || (due[RX_ABSOLUTE] as number) <= now) {
      this.#fire(RX, INT_RXT0 | INT_RXQ0);
      work = 1;
    }
    if ((due[TX] as number) <= now || (due[TX_ABSOLUTE] as number) <= now) {
      this.#fire(TX, INT_TXDW | INT_TXQ0);
      work = 1;
    }
    if (due[RX] !== NEVER || due[TX] !== NEVER) this.#waiting = true;
    this.update();
    return work;
  }

  /** The loop is about to sleep: true if the wait is too short for that. */
  arm(): boolean {
    if (!this.#waiting) return false;
    const { now } = this.#loop;
    let wait = NEVER;
    for (let i = 0; i < 4; i++) wait = Math.min(wait, (this.#due[i] as number) - now);
    for (let i = 0; i < E1000_MSIX_VECTORS; i++) {
      const next = (this.#next[i] as number) - now;
      if (next > 0) wait = Math.min(wait, next);
    }
    // Nothing lies ahead: it may go now.
    if (wait <= SPIN_NS || wait === NEVER) return true;
    if (this.#timer !== undefined && now + wait < this.#timerDue) {
      this.#timer.cancel();
      this.#timer = undefined;
    }
    if (this.#timer === undefined) {
      this.#timerDue = now + wait;
      this.#timer = this.#loop.setTimer(wait / 1000, () => {
        this.#timer = undefined;
        this.poll();
      });
    }
    return false;
  }

  /** Brings line and messages in accord with causes, mask and throttle. */
  update(): void {
    const { words } = this.#registers;
    const wanted = (words[R_ICR] as number) & (words[R_IMS] as number);
    if (wanted !== 0 && this.#express) words[R_ICR] = (words[R_ICR] as number) | INT_ASSERTED;
    if (this.#express && this.#output.mode === 'msix') {
      this.#setLine(false);
      if ((this.#pending & wanted) !== 0) this.#sendVectors(this.#pending & wanted);
      return;
    }
    if (wanted === 0) {
      this.#asserted = false;
      this.#setLine(false);
      return;
    }
    if (this.#asserted) return;
    const itr = words[R_ITR] as number;
    if (!this.#mayInterrupt(0, itr)) return;
    this.#asserted = true;
    this.#sent();
    this.#setLine(true);
    // With INTx this does nothing, with MSI the line does not.
    this.#output.signal(0);
  }

  #sendVectors(causes: number): void {
    const { words } = this.#registers;
    for (let i = 0; i < INT_MSIX_CAUSES; i++) {
      const cause = 1 << (INT_MSIX_SHIFT + i);
      if ((causes & cause) === 0) continue;
      const entry = (words[R_IVAR] as number) >>> (4 * i);
      const vector = entry & IVAR_VECTOR;
      if ((entry & IVAR_VALID) === 0 || vector >= E1000_MSIX_VECTORS) {
        this.#pending &= ~cause;
        continue;
      }
      if (!this.#mayInterrupt(vector, words[R_EITR + vector] as number)) continue;
      this.#pending &= ~cause;
      if (((words[R_CTRL_EXT] as number) & CTRL_EXT_EIAME) !== 0) {
        words[R_IMS] = (words[R_IMS] as number) & ~((words[R_IAM] as number) & cause);
      }
      words[R_ICR] = (words[R_ICR] as number) & ~((words[R_EIAC] as number) & cause);
      this.#sent();
      this.#output.signal(vector);
    }
  }

  /** Takes a turn of a vector, or notes that it must wait for one. */
  #mayInterrupt(vector: number, interval: number): boolean {
    if (interval === 0) return true;
    const { now } = this.#loop;
    if (now < (this.#next[vector] as number)) {
      this.#waiting = true;
      return false;
    }
    this.#next[vector] = now + interval * ITR_UNIT_NS;
    return true;
  }

  #delay(relative: number, absolute: number, timer: number, causes: number): void {
    if (relative === 0) {
      this.#fire(timer, causes);
      return;
    }
    const { now } = this.#loop;
    const due = this.#due;
    if (due[timer] === NEVER && absolute !== 0) due[timer + 1] = now + absolute;
    due[timer] = now + relative;
    this.#waiting = true;
  }

  #fire(timer: number, causes: number): void {
    this.#due[timer] = NEVER;
    this.#due[timer + 1] = NEVER;
    this.raise(causes);
  }

  #setLine(asserted: boolean): void {
    if (this.#line === asserted) return;
    this.#line = asserted;
    this.#output.setLevel(asserted);
  }
}
