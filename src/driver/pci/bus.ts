/**
 * What carries a driver's accesses to its PCI function: a vfio-user socket (`vfio-user-bus.ts`), or, in
 * tests, the function itself in the same thread (`testing.ts`).
 */

/** The kinds of interrupts of a function; it uses one of them at a time. */
export type InterruptKind = 'intx' | 'msi' | 'msix';

export interface PciBus {
  /** Configuration space: 1, 2 or 4 bytes, unsigned. */
  readConfig(offset: number, bytes: number): number;
  writeConfig(offset: number, bytes: number, value: number): void;

  /** A register: 1, 2 or 4 bytes, unsigned. A trap, for whose answer the guest waits. */
  read(bar: number, offset: number, bytes: number): number;
  /** A trap, which is done when this returns. */
  write(bar: number, offset: number, bytes: number, value: number): void;
  /**
   * A posted write (PCI Local Bus 3.0 §3.2.5): a trap for which nobody waits. Accesses are done in the
   * order in which they were made, posted or not.
   */
  post(bar: number, offset: number, bytes: number, value: number): void;

  /**
   * Registers of a BAR that the function lets be mapped: little-endian words from `offset` on. Loads and
   * stores there are no traps, and nobody is told of them. Undefined if not all of `bytes` bytes may be.
   */
  window(bar: number, offset: number, bytes: number): Uint32Array | undefined;

  /** Lets the function reach `bytes` bytes of a file from its beginning. The descriptor stays the caller's. */
  map(iova: number, bytes: number, fd: number): void;
  unmap(iova: number, bytes: number): void;

  /** How many vectors of a kind the function has. */
  vectors(kind: InterruptKind): number;
  /**
   * Has interrupts of vectors 0 to `count` - 1 told. Interrupts of a vector that come close together
   * are told once. INTx is masked as it is told, until {@link unmaskIntx}.
   */
  setVectors(kind: InterruptKind, count: number, onInterrupt: (vector: number) => void): void;
  /** INTx may be told again; at once, if the function still asserts it. */
  unmaskIntx(): void;

  /** A reset of the bus: the function is as after power-up. */
  reset(): void;
  /** Leaves the function: memory and interrupts are its no more. */
  close(): void;
}
