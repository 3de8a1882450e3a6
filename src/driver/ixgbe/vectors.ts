/**
 * Interrupts of an 82599's function by MSI-X: a vector for each queue pair, one for everything else. A
 * vector is masked and its cause cleared as it is sent (EIAC, EIAM with GPIE.EIAME; §7.3.1.4): a trap for
 * each time that it is asked for, none to acknowledge.
 */
import {
  IXGBE_EITR_INTERVAL,
  IXGBE_EITR_INTERVAL_SHIFT,
  IXGBE_EITR_UNIT_NS,
  IXGBE_IVAR_VALID,
} from '../../spec/ixgbe.ts';
import type { CallGate } from '../nic/call-gate.ts';
import type { BoundFunction } from '../pci/bound-function.ts';
import type { RegisterAccess } from './register-access.ts';

/** Where a function has its registers of interrupts. */
export interface VectorRegisters {
  readonly enable: number;
  readonly disable: number;
  readonly autoClear: number;
  readonly autoMask: number;
  /** Throttle of vector 0; the others follow. */
  readonly throttle: number;
  /** Vectors of queues 0 and 1; the others follow. */
  readonly assignment: number;
  /** Vector of everything else: the register, and where in it. */
  readonly otherAssignment: number;
  readonly otherShift: number;
}

/** In an entry of two queues: a receive queue has 8 bits, then a transmit queue; the next pair follows. */
const TRANSMIT_SHIFT = 8;
const QUEUE_SHIFT = 16;
const NS_PER_S = 1e9;

export class Vectors {
  /** Interrupts of queues that were noticed. */
  calls = 0;
  /** How many vectors the queue pairs share. */
  readonly queueVectors: number;
  /** Told of an interrupt of one of them. */
  onQueues: ((vector: number) => void) | undefined;
  readonly #registers: RegisterAccess;
  readonly #at: VectorRegisters;
  readonly #function: BoundFunction;
  readonly #onOther: () => void;
  /** Bits of vectors that may interrupt. */
  #open = 0;

  /** @param queueVectors vectors that the queue pairs share; one more is for other causes */
  constructor(
    registers: RegisterAccess,
    at: VectorRegisters,
    fn: BoundFunction,
    queueVectors: number,
    onOther: () => void,
  ) {
    this.#registers = registers;
    this.#at = at;
    this.#function = fn;
    this.queueVectors = queueVectors;
    this.#onOther = onOther;
  }

  /**
   * Assigns queue pairs and other causes to their vectors; no queue's is open. `others`: mask bits of the
   * other causes, which are open from now on. No vector of a queue interrupts more often than so many times
   * a second (0: no bound).
   * @throws SluiceError `unsupported` without so many vectors of MSI-X
   */
  start(pairs: number, others: number, perSecond: number): void {
    const at = this.#at;
    const registers = this.#registers;
    const count = this.queueVectors;
    this.#open = 0;
    this.#function.enableInterrupts(count + 1, (vector) => this.#interrupt(vector), ['msix']);
    for (let first = 0; first < pairs; first += 2) {
      let word = 0;
      for (let pair = first; pair < Math.min(first + 2, pairs); pair++) {
        const entry = IXGBE_IVAR_VALID | this.vectorOf(pair);
        word |= (entry | (entry << TRANSMIT_SHIFT)) << (QUEUE_SHIFT * (pair - first));
      }
      registers.set(at.assignment + 2 * first, word);
    }
    registers.set(at.otherAssignment, (IXGBE_IVAR_VALID | count) << at.otherShift);
    const queues = (1 << count) - 1;
    registers.set(at.autoClear, queues | others);
    registers.set(at.autoMask, queues);
    for (let vector = 0; vector < count; vector++) this.throttle(vector, perSecond);
    registers.set(at.enable, others);
  }

  /** Interrupts a second of a queue vector at most; 0: as many as there are. */
  throttle(vector: number, perSecond: number): void {
    const units = perSecond === 0 ? 0 : Math.round(NS_PER_S / perSecond / IXGBE_EITR_UNIT_NS);
    const bits = Math.max(units, perSecond === 0 ? 0 : 1) << IXGBE_EITR_INTERVAL_SHIFT;
    this.#registers.set(this.#at.throttle + 4 * vector, Math.min(bits, IXGBE_EITR_INTERVAL));
  }

  /** The vector of a queue pair. */
  vectorOf(pair: number): number {
    return pair % this.queueVectors;
  }

  /** The gate as the queues of a vector have it. */
  gateOf(vector: number): CallGate {
    return {
      open: () => this.open(vector),
      // One that was asked for and has not come stays asked for: to take it back would be a trap.
      close: () => undefined,
    };
  }

  open(vector: number): void {
    const bit = 1 << vector;
    if ((this.#open & bit) !== 0) return;
    this.#open |= bit;
    this.#registers.set(this.#at.enable, bit);
  }

  #interrupt(vector: number): void {
    if (vector >= this.queueVectors) {
      this.#onOther();
      return;
    }
    this.calls++;
    this.#open &= ~(1 << vector);
    this.onQueues?.(vector);
  }
}
