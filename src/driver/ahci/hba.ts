/** An AHCI controller as its driver sees it: reset, what it can do, and its interrupt (AHCI §10.1, §10.4.3). */
import { SluiceError } from '../../base/errors.ts';
import * as ahci from '../../spec/ahci.ts';
import type { AhciRegisters } from './registers.ts';
import { until } from './wait.ts';

export class Hba {
  readonly registers: AhciRegisters;
  readonly name: string;
  /** Slots of each port, and the ports that there are, a bit each. */
  readonly slots: number;
  readonly ports: number;
  readonly queues: boolean;

  /**
   * Resets the controller and lets it interrupt. `name` is for errors.
   * @throws SluiceError `state` if it does not come out of its reset, `unsupported` if it cannot do what drivers need
   */
  constructor(registers: AhciRegisters, name: string) {
    this.registers = registers;
    this.name = name;
    this.reset();
    const capabilities = registers.read(ahci.AHCI_CAP);
    this.slots = ((capabilities >>> ahci.AHCI_CAP_SLOTS_SHIFT) & 0x1f) + 1;
    this.queues = (capabilities & ahci.AHCI_CAP_NCQ) !== 0;
    this.ports = registers.read(ahci.AHCI_PI);
    if ((capabilities & ahci.AHCI_CAP_64BIT) === 0) {
      throw new SluiceError('unsupported', `${name} reaches no memory above 4 GiB`);
    }
  }

  /** What all ports did is lost. */
  reset(): void {
    const { registers } = this;
    registers.write(ahci.AHCI_GHC, ahci.AHCI_GHC_AHCI_ENABLE);
    registers.write(ahci.AHCI_GHC, ahci.AHCI_GHC_AHCI_ENABLE | ahci.AHCI_GHC_RESET);
    until(registers, `${this.name} is in reset`, () => {
      return (registers.read(ahci.AHCI_GHC) & ahci.AHCI_GHC_RESET) === 0;
    });
    registers.write(ahci.AHCI_GHC, ahci.AHCI_GHC_AHCI_ENABLE);
  }

  /** Interrupts of ports that ask for them reach the guest. */
  enableInterrupts(): void {
    const { registers } = this;
    registers.write(ahci.AHCI_IS, 0xffff_ffff);
    registers.write(ahci.AHCI_GHC, ahci.AHCI_GHC_AHCI_ENABLE | ahci.AHCI_GHC_INTERRUPT_ENABLE);
  }

  /** @throws SluiceError `not-found` if there is none with this number */
  checkPort(index: number): void {
    if (index >= 0 && index < ahci.AHCI_MAX_PORTS && ((this.ports >>> index) & 1) === 1) return;
    throw new SluiceError('not-found', `${this.name} has no port ${index}`);
  }
}
