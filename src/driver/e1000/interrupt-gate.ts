/**
 * Interrupts that come only when they are asked for, once each time (what Linux calls NAPI), with as few
 * traps as the card allows.
 *
 * With MSI-X (82574) a vector is masked and its cause cleared as it is sent (EIAC, IAM with EIAME; DS
 * §7.4.3): a trap for each time that it is asked for, none to acknowledge. Else the cause must be read,
 * which clears it, and masked (SDM §13.4.17): three traps, for one of which the guest waits.
 */
import {
  CTRL_EXT_EIAME,
  INT_RXQ0,
  INT_RXT0,
  INT_TXDW,
  INT_TXQ0,
  IVAR_VALID,
} from '../../spec/e1000.ts';
import type { CallGate } from '../nic/call-gate.ts';
import type { BoundFunction } from '../pci/bound-function.ts';
import type { InterruptKind } from '../pci/bus.ts';
import type { E1000Card } from './card.ts';

/** What queues ask for: the causes of the 82574's vectors, for all cards. */
export type QueueCause = typeof INT_RXQ0 | typeof INT_TXQ0;

const CAUSES: readonly QueueCause[] = [INT_RXQ0, INT_TXQ0];
const ALL = INT_RXQ0 | INT_TXQ0;
/** Vector 0 for the receive queue (the first four bits), 1 for the transmit queue (bits 8 to 11). */
const VECTORS = IVAR_VALID | ((IVAR_VALID | 1) << 8);

export class InterruptGate {
  /** Interrupts that were noticed. */
  calls = 0;
  readonly #card: E1000Card;
  readonly #function: BoundFunction;
  #kind: InterruptKind = 'intx';
  /** Causes that may interrupt. */
  #open = 0;
  /** There was an interrupt that is not acknowledged. */
  #interrupted = false;

  constructor(card: E1000Card, fn: BoundFunction) {
    this.#card = card;
    this.#function = fn;
  }

  /** Sets interrupts up; none is open. After a reset of the card. */
  start(kinds?: readonly InterruptKind[]): void {
    this.#open = 0;
    this.#interrupted = false;
    this.#kind = this.#function.enableInterrupts(
      CAUSES.length,
      (vector) => this.#interrupt(vector),
      kinds,
    );
    if (this.#kind !== 'msix') return;
    this.#card.set('CTRL_EXT', this.#card.get('CTRL_EXT') | CTRL_EXT_EIAME);
    this.#card.set('IAM', ALL);
    this.#card.set('EIAC', ALL);
    this.#card.set('IVAR', VECTORS);
  }

  /** The gate as the queue of a cause has it. */
  of(cause: QueueCause): CallGate {
    return { open: () => this.open(cause), close: () => this.close() };
  }

  /** Wants an interrupt for a cause; at once, if the cause is there already. */
  open(cause: QueueCause): void {
    this.#acknowledge();
    if ((this.#open & cause) !== 0) return;
    this.#open |= cause;
    this.#card.set('IMS', this.#kind === 'msix' ? cause : cause === INT_RXQ0 ? INT_RXT0 : INT_TXDW);
  }

  /**
   * Interrupts are not wanted any more. One that was asked for and has not come stays asked for: to take
   * it back would be a trap, and another to ask again.
   */
  close(): void {
    this.#acknowledge();
  }

  #interrupt(vector: number): void {
    this.calls++;
    if (this.#kind === 'msix') this.#open &= ~(CAUSES[vector] ?? 0);
    else this.#interrupted = true;
  }

  #acknowledge(): void {
    if (!this.#interrupted) return;
    this.#interrupted = false;
    this.#card.get('ICR');
    this.#card.set('IMC', ~0);
    this.#open = 0;
    if (this.#kind === 'intx') this.#card.bus.unmaskIntx();
  }
}
