/** A PCI function to which a driver is bound: what every driver does with its function. */
import { SluiceError } from '../../base/errors.ts';
import {
  PCI_CAP_ID_MSI,
  PCI_CAP_ID_MSIX,
  PCI_CAPABILITIES_POINTER,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_CONFIG_BYTES,
  PCI_DEVICE_ID,
  PCI_FIRST_CAPABILITY,
  PCI_MSI_CONTROL,
  PCI_MSI_CONTROL_ENABLE,
  PCI_MSIX_CONTROL,
  PCI_MSIX_CONTROL_ENABLE,
  PCI_STATUS,
  PCI_STATUS_CAPABILITIES,
  PCI_VENDOR_ID,
} from '../../spec/pci.ts';
import type { InterruptKind, PciBus } from './bus.ts';

/** A capability takes at least four bytes: more than these are a loop. */
const MOST_CAPABILITIES = (PCI_CONFIG_BYTES - PCI_FIRST_CAPABILITY) / 4;

export class BoundFunction {
  readonly bus: PciBus;
  readonly vendor: number;
  readonly device: number;
  /** What {@link enableInterrupts} has chosen. */
  interrupts: InterruptKind | undefined;

  /** Enables memory space and bus mastering. */
  constructor(bus: PciBus) {
    this.bus = bus;
    this.vendor = bus.readConfig(PCI_VENDOR_ID, 2);
    this.device = bus.readConfig(PCI_DEVICE_ID, 2);
    this.#command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, PCI_COMMAND_INTX_DISABLE);
  }

  /** Throws unless it is the function that the driver is for. @throws SluiceError `unsupported` */
  expect(vendor: number, devices: readonly number[], what: string): void {
    if (this.vendor === vendor && devices.includes(this.device)) return;
    const hex = (value: number): string => value.toString(16).padStart(4, '0');
    throw new SluiceError(
      'unsupported',
      `the function is ${hex(this.vendor)}:${hex(this.device)}, not ${what}`,
    );
  }

  /** Where a capability stands in configuration space; 0 if the function has it not (PCI 3.0 §6.7). */
  capability(id: number): number {
    if ((this.bus.readConfig(PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES) === 0) return 0;
    let at = this.bus.readConfig(PCI_CAPABILITIES_POINTER, 1) & ~3;
    for (let i = 0; i < MOST_CAPABILITIES && at >= PCI_FIRST_CAPABILITY; i++) {
      const header = this.bus.readConfig(at, 2);
      if ((header & 0xff) === id) return at;
      at = (header >>> 8) & ~3;
    }
    return 0;
  }

  /**
   * Enables `vectors` vectors of MSI-X, or else MSI (which has one here), or else INTx; `kinds` can
   * leave some of them out.
   * @throws SluiceError `unsupported` if the function has none of them
   */
  enableInterrupts(
    vectors: number,
    onInterrupt: (vector: number) => void,
    kinds: readonly InterruptKind[] = ['msix', 'msi', 'intx'],
  ): InterruptKind {
    const { bus } = this;
    const has = (kind: InterruptKind): boolean => kinds.includes(kind) && bus.vectors(kind) > 0;
    const msix = has('msix') && bus.vectors('msix') >= vectors;
    const kind = msix ? 'msix' : has('msi') ? 'msi' : has('intx') ? 'intx' : undefined;
    if (kind === undefined) {
      throw new SluiceError(
        'unsupported',
        'the function has no interrupts that the driver can use',
      );
    }
    bus.setVectors(kind, kind === 'msix' ? vectors : 1, onInterrupt);
    this.#enable(kind, true);
    this.interrupts = kind;
    return kind;
  }

  /** Ends interrupts and DMA, and leaves the function. */
  close(): void {
    if (this.interrupts !== undefined) this.#enable(this.interrupts, false);
    this.#command(0, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    this.bus.close();
  }

  #enable(kind: InterruptKind, on: boolean): void {
    if (kind === 'intx') {
      this.#command(on ? 0 : PCI_COMMAND_INTX_DISABLE, on ? PCI_COMMAND_INTX_DISABLE : 0);
      return;
    }
    const msix = kind === 'msix';
    const at =
      this.capability(msix ? PCI_CAP_ID_MSIX : PCI_CAP_ID_MSI) +
      (msix ? PCI_MSIX_CONTROL : PCI_MSI_CONTROL);
    const bit = msix ? PCI_MSIX_CONTROL_ENABLE : PCI_MSI_CONTROL_ENABLE;
    const control = this.bus.readConfig(at, 2);
    this.bus.writeConfig(at, 2, on ? control | bit : control & ~bit);
  }

  #command(set: number, clear: number): void {
    const command = this.bus.readConfig(PCI_COMMAND, 2);
    this.bus.writeConfig(PCI_COMMAND, 2, (command | set) & ~clear);
  }
}
