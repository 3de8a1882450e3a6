/**
 * RXDCTL.ENABLE or TXDCTL.ENABLE of a queue, in a word that the guest may have mapped. As in silicon, a
 * queue reads as enabled until its last access is over (§4.6.7.1, §4.6.8.1).
 */
import { IXGBE_QUEUE_ENABLE } from '../../spec/ixgbe-descriptors.ts';

export class EnableBit {
  readonly #words: Uint32Array;
  readonly #index: number;
  /** The driver has cleared the bit, and it was set again until accesses are over. */
  isDraining = false;

  constructor(words: Uint32Array, index: number) {
    this.#words = words;
    this.#index = index;
  }

  get isSet(): boolean {
    return ((this.#words[this.#index] as number) & IXGBE_QUEUE_ENABLE) !== 0;
  }

  /** Accesses are on their way: if the driver has cleared the bit, it is set until {@link drained}. */
  hold(): void {
    if (this.isDraining || this.isSet) return;
    this.isDraining = true;
    this.#words[this.#index] = (this.#words[this.#index] as number) | IXGBE_QUEUE_ENABLE;
  }

  /** The last access is over. */
  drained(): void {
    if (!this.isDraining) return;
    this.isDraining = false;
    this.#words[this.#index] = (this.#words[this.#index] as number) & ~IXGBE_QUEUE_ENABLE;
  }
}
