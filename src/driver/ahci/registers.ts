/** The way of a driver to the registers of an AHCI controller: words of BAR 5. */
import { AHCI_BAR } from '../../spec/ahci.ts';
import type { PciBus } from '../pci/bus.ts';

const WORD = 4;

export class AhciRegisters {
  /** Between two looks at a register that is waited for: lets a device of the same thread go on. */
  readonly pause: () => void;
  private readonly bus: PciBus;

  constructor(bus: PciBus, pause: () => void = () => undefined) {
    this.bus = bus;
    this.pause = pause;
  }

  /** Unsigned. */
  read(offset: number): number {
    return this.bus.read(AHCI_BAR, offset, WORD);
  }

  /** Posted. */
  write(offset: number, value: number): void {
    this.bus.post(AHCI_BAR, offset, WORD, value >>> 0);
  }
}
