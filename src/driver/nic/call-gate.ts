/** How a queue of a card asks for an interrupt when its user wants to sleep. */
export interface CallGate {
  /** Wants an interrupt; at once, if there is a reason already. */
  open(): void;
  /** Interrupts are not wanted any more. */
  close(): void;
}
