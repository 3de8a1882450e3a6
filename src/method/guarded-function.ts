/**
 * A fence around a PCI function's code, where its transport calls it: what the code throws ends that
 * function, as what it throws in a turn of the loop does, and neither the lane nor the other functions.
 */
import type { GuardedPoller } from '../engine/guard.ts';
import type { BarInfo, IrqCounts, PciFunction, PciWiring } from '../pci/function.ts';

/** What a function that has gone reads as (PCI Local Bus 3.0 §6.1). */
function ones(length: number): number {
  return 2 ** (8 * length) - 1;
}

export class GuardedFunction implements PciFunction {
  readonly name: string;
  readonly bars: readonly (BarInfo | undefined)[];
  readonly rom: Uint8Array | undefined;
  readonly irqs: IrqCounts;
  readonly configBytes: number;
  readonly #inner: PciFunction;
  readonly #guard: GuardedPoller;

  /** @param guard the function's turns in the loop: one failure ends both */
  constructor(inner: PciFunction, guard: GuardedPoller) {
    this.name = inner.name;
    this.bars = inner.bars;
    this.rom = inner.rom;
    this.irqs = inner.irqs;
    this.configBytes = inner.configBytes;
    this.#inner = inner;
    this.#guard = guard;
  }

  get onDrained(): (() => void) | undefined {
    return this.#inner.onDrained;
  }

  set onDrained(listener: (() => void) | undefined) {
    this.#inner.onDrained = listener;
  }

  readConfig(offset: number, length: number): number {
    if (this.#guard.failed) return ones(length);
    try {
      return this.#inner.readConfig(offset, length);
    } catch (error) {
      this.#guard.fail(error);
      return ones(length);
    }
  }

  writeConfig(offset: number, length: number, value: number): void {
    if (this.#guard.failed) return;
    try {
      this.#inner.writeConfig(offset, length, value);
    } catch (error) {
      this.#guard.fail(error);
    }
  }

  readBar(bar: number, offset: number, length: number): number {
    if (this.#guard.failed) return ones(length);
    try {
      return this.#inner.readBar(bar, offset, length);
    } catch (error) {
      this.#guard.fail(error);
      return ones(length);
    }
  }

  writeBar(bar: number, offset: number, length: number, value: number): void {
    if (this.#guard.failed) return;
    try {
      this.#inner.writeBar(bar, offset, length, value);
    } catch (error) {
      this.#guard.fail(error);
    }
  }

  reset(): void {
    this.#attempt(() => this.#inner.reset());
  }

  attach(wiring: PciWiring): void {
    this.#attempt(() => this.#inner.attach(wiring));
    const { dma } = wiring;
    const { onDone } = dma;
    if (onDone === undefined) return;
    dma.onDone = (tag, ok) => {
      // Also after a failure: what was on its way is over.
      try {
        onDone(tag, ok);
      } catch (error) {
        this.#guard.fail(error);
      }
    };
  }

  detach(): void {
    // Also after a failure: it must not touch what was its guest's.
    try {
      this.#inner.detach();
    } catch (error) {
      this.#guard.fail(error);
    }
  }

  /** After a failure nobody but the function knows what is on its way: it is asked all the same. */
  hold(): boolean {
    try {
      return this.#inner.hold?.() ?? true;
    } catch (error) {
      this.#guard.fail(error);
      return false;
    }
  }

  resume(): void {
    this.#attempt(() => this.#inner.resume?.());
  }

  #attempt(action: () => void): void {
    if (this.#guard.failed) return;
    try {
      action();
    } catch (error) {
      this.#guard.fail(error);
    }
  }
}
