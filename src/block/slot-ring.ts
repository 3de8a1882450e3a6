/** Slots of a request table in the order in which they came, each with a number: a queue that allocates nothing. */
export class SlotRing {
  readonly #slots: Int32Array;
  readonly #values: Int32Array;
  readonly #mask: number;
  #head = 0;
  #count = 0;

  /** @param slots most that are in it at once */
  constructor(slots: number) {
    const size = 2 ** Math.ceil(Math.log2(slots + 1));
    this.#slots = new Int32Array(size);
    this.#values = new Int32Array(size);
    this.#mask = size - 1;
  }

  get count(): number {
    return this.#count;
  }

  /** Adds a slot behind all others; `value` is the caller's, such as its result. */
  push(slot: number, value: number): void {
    const at = (this.#head + this.#count++) & this.#mask;
    this.#slots[at] = slot;
    this.#values[at] = value;
  }

  /** The first slot; there must be one. */
  get first(): number {
    return this.#slots[this.#head] as number;
  }

  /** What was pushed with the first slot. */
  get firstValue(): number {
    return this.#values[this.#head] as number;
  }

  /** Takes the first slot out; there must be one. */
  shift(): number {
    const slot = this.#slots[this.#head] as number;
    this.#head = (this.#head + 1) & this.#mask;
    this.#count--;
    return slot;
  }
}
