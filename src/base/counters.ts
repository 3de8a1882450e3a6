/**
 * Counters that one thread writes and every thread may read while they change.
 *
 * A block is a row of 64-bit floats in shared memory: aligned 8-byte stores are single on the
 * machines that Node runs on, and a float counts exactly to 2^53, so a reader needs no lock
 * and never sees half a number.
 */
export class CounterBlock<Name extends string> {
  readonly names: readonly Name[];
  readonly shared: SharedArrayBuffer;
  /** The values, in the order of `names`. The hot path adds to these directly. */
  readonly values: Float64Array;

  constructor(names: readonly Name[], shared?: SharedArrayBuffer) {
    this.names = names;
    this.shared = shared ?? new SharedArrayBuffer(names.length * Float64Array.BYTES_PER_ELEMENT);
    this.values = new Float64Array(this.shared, 0, names.length);
  }

  /** The present values by name. */
  snapshot(): Record<Name, number> {
    const out = {} as Record<Name, number>;
    for (const [index, name] of this.names.entries()) out[name] = this.values[index] as number;
    return out;
  }
}
