/**
 * The interrupts of a function: one of INTx, MSI and MSI-X, whichever the guest has enabled, with
 * masks and pending bits (PCI Local Bus 3.0 §6.8, §6.2.3).
 */
import type { PciConfigSpace } from './config-space.ts';
import type { InterruptSink } from './function.ts';
import type { Msi } from './msi.ts';
import type { Msix } from './msix.ts';

export type InterruptMode = 'intx' | 'msi' | 'msix';

export class PciInterrupts {
  readonly #config: PciConfigSpace;
  readonly #msi: Msi | undefined;
  readonly #msix: Msix | undefined;
  #sink: InterruptSink | undefined;
  #level = false;
  #asserted = false;

  constructor(config: PciConfigSpace, msi: Msi | undefined, msix: Msix | undefined) {
    this.#config = config;
    this.#msi = msi;
    this.#msix = msix;
    const changed = (): void => this.update();
    if (msi !== undefined) {
      msi.onChange = changed;
    }
    if (msix !== undefined) {
      msix.onChange = changed;
    }
  }

  /** What the guest has enabled. MSI and MSI-X both is not allowed (§6.8.2.3): MSI-X is taken. */
  get mode(): InterruptMode {
    if (this.#msix?.enabled === true) {
      return 'msix';
    }
    return this.#msi?.enabled === true ? 'msi' : 'intx';
  }

  /**
   * Level of the device's interrupt cause. It is remembered in every mode, and reaches the line in mode
   * INTx only: a device tells it always, and calls {@link signal} beside it.
   */
  setLevel(asserted: boolean): void {
    if (asserted !== this.#level) {
      this.#level = asserted;
      this.#line();
    }
  }

  /**
   * One message of a vector: in mode INTx nothing. A vector of MSI beyond those that the guest gave is
   * folded into them (§6.8.1.3). What is masked is sent once when it no longer is. Allocates nothing.
   */
  signal(vector: number): void {
    const sink = this.#sink;
    // A message is a write to memory: without bus mastering there is none (§6.8.3.1).
    if (sink === undefined || !this.#config.busMaster) {
      return;
    }
    const msix = this.#msix;
    if (msix?.enabled === true) {
      if (vector < 0 || vector >= msix.vectors) {
        return;
      }
      if (!sink.keepsMasks && msix.masked(vector)) {
        msix.setPending(vector, true);
      } else {
        sink.signalMsix(vector);
      }
      return;
    }
    const msi = this.#msi;
    if (msi?.enabled === true) {
      const given = vector & (msi.allotted - 1);
      if (!sink.keepsMasks && (msi.masked & (1 << given)) !== 0) {
        msi.setPending(given, true);
      } else {
        sink.signalMsi(given);
      }
    }
  }

  connect(sink: InterruptSink): void {
    this.#sink = sink;
    this.#asserted = false;
    this.update();
  }

  disconnect(): void {
    this.#sink = undefined;
    this.#asserted = false;
  }

  /** The causes are gone, as by a reset of the device. */
  reset(): void {
    this.#level = false;
    this.update();
  }

  /** Something in the space has changed: the line follows, and what is no longer masked is sent. */
  update(): void {
    this.#line();
    const sink = this.#sink;
    if (sink === undefined || !this.#config.busMaster) {
      return;
    }
    const msix = this.#msix;
    if (msix?.enabled === true) {
      for (let vector = 0; vector < msix.vectors; vector += 1) {
        if (msix.pending(vector) && (sink.keepsMasks || !msix.masked(vector))) {
          msix.setPending(vector, false);
          sink.signalMsix(vector);
        }
      }
      return;
    }
    const msi = this.#msi;
    if (msi?.enabled === true && msi.pending !== 0) {
      const free = msi.pending & ~(sink.keepsMasks ? 0 : msi.masked);
      for (let vector = 0; vector < msi.vectors; vector += 1) {
        if ((free & (1 << vector)) !== 0) {
          msi.setPending(vector, false);
          // The guest may have been given fewer since.
          sink.signalMsi(vector & (msi.allotted - 1));
        }
      }
    }
  }

  #line(): void {
    const pending = this.#level && this.mode === 'intx';
    this.#config.setInterruptStatus(pending);
    const asserted = pending && this.#config.intxAllowed;
    if (asserted !== this.#asserted && this.#sink !== undefined) {
      this.#asserted = asserted;
      this.#sink.setIntx(asserted);
    }
  }
}
