/** Advanced error reporting of an endpoint (PCIe 4.0 §7.8.4, §6.2). */
import {
  PCI_EXT_CAP_ID_AER,
  PCIE_AER_BYTES,
  PCIE_AER_CONTROL,
  PCIE_AER_CORRECTABLE,
  PCIE_AER_CORRECTABLE_MASK,
  PCIE_AER_CORRECTABLE_MASK_DEFAULT,
  PCIE_AER_CORRECTABLE_STATUS,
  PCIE_AER_FATAL_DEFAULT,
  PCIE_AER_FIRST_ERROR,
  PCIE_AER_HEADER_LOG,
  PCIE_AER_UNCORRECTABLE,
  PCIE_AER_UNCORRECTABLE_MASK,
  PCIE_AER_UNCORRECTABLE_MASK_DEFAULT,
  PCIE_AER_UNCORRECTABLE_SEVERITY,
  PCIE_AER_UNCORRECTABLE_STATUS,
  PCIE_AER_UNSUPPORTED_REQUEST,
  PCIE_DEVSTA_CORRECTABLE,
  PCIE_DEVSTA_FATAL,
  PCIE_DEVSTA_NON_FATAL,
  PCIE_DEVSTA_UNSUPPORTED,
} from '../spec/pci.ts';
import type { PciCapability, PciConfigSpace } from './config-space.ts';
import type { PciRegister } from './registers.ts';

const ALL = PCIE_AER_UNCORRECTABLE;
const CORRECTABLE = PCIE_AER_CORRECTABLE;

// biome-ignore format: one register a line
const REGISTERS: readonly PciRegister[] = [
  { name: 'UNCORRECTABLE_STATUS', offset: PCIE_AER_UNCORRECTABLE_STATUS, bytes: 4, rw1c: ALL, sticky: ALL, meaning: 'errors that were' },
  { name: 'UNCORRECTABLE_MASK', offset: PCIE_AER_UNCORRECTABLE_MASK, bytes: 4, rw: ALL, sticky: ALL, reset: PCIE_AER_UNCORRECTABLE_MASK_DEFAULT, meaning: 'not reported' },
  { name: 'UNCORRECTABLE_SEVERITY', offset: PCIE_AER_UNCORRECTABLE_SEVERITY, bytes: 4, rw: ALL, sticky: ALL, reset: PCIE_AER_FATAL_DEFAULT, meaning: 'fatal' },
  { name: 'CORRECTABLE_STATUS', offset: PCIE_AER_CORRECTABLE_STATUS, bytes: 4, rw1c: CORRECTABLE, sticky: CORRECTABLE, meaning: 'errors that were' },
  { name: 'CORRECTABLE_MASK', offset: PCIE_AER_CORRECTABLE_MASK, bytes: 4, rw: CORRECTABLE, sticky: CORRECTABLE, reset: PCIE_AER_CORRECTABLE_MASK_DEFAULT, meaning: 'not reported' },
  { name: 'CONTROL', offset: PCIE_AER_CONTROL, bytes: 4, sticky: PCIE_AER_FIRST_ERROR, meaning: 'first error; no ECRC' },
  { name: 'HEADER_LOG_0', offset: PCIE_AER_HEADER_LOG, bytes: 4, sticky: 0xffff_ffff, meaning: 'header of the packet' },
  { name: 'HEADER_LOG_1', offset: PCIE_AER_HEADER_LOG + 4, bytes: 4, sticky: 0xffff_ffff, meaning: 'second part' },
  { name: 'HEADER_LOG_2', offset: PCIE_AER_HEADER_LOG + 8, bytes: 4, sticky: 0xffff_ffff, meaning: 'third part' },
  { name: 'HEADER_LOG_3', offset: PCIE_AER_HEADER_LOG + 12, bytes: 4, sticky: 0xffff_ffff, meaning: 'fourth part' },
];

/** The part of `Express` that errors are told to. */
export interface ErrorStatus {
  reportErrors(status: number): void;
}

export class ErrorReporting implements PciCapability {
  readonly name = 'advanced error reporting';
  readonly id = PCI_EXT_CAP_ID_AER;
  readonly version = 2;
  readonly bytes = PCIE_AER_BYTES;
  readonly registers = REGISTERS;
  readonly #status: ErrorStatus;
  #space: PciConfigSpace | undefined;
  #base = 0;

  constructor(status: ErrorStatus) {
    this.#status = status;
  }

  bind(space: PciConfigSpace, offset: number): void {
    this.#space = space;
    this.#base = offset;
  }

  /**
   * An uncorrectable error: one bit PCIE_AER_*, and the header of the packet, four words, if there is
   * one. The first that is not masked is kept with its header until the guest clears it (§6.2.4.2).
   */
  uncorrectable(error: number, header: ArrayLike<number> = []): void {
    const space = this.#space;
    if (space === undefined || (error & ALL) === 0) {
      return;
    }
    const masked = space.get(this.#base + PCIE_AER_UNCORRECTABLE_MASK, 4);
    const statusAt = this.#base + PCIE_AER_UNCORRECTABLE_STATUS;
    const before = space.get(statusAt, 4);
    const severity = space.get(this.#base + PCIE_AER_UNCORRECTABLE_SEVERITY, 4);
    space.set(statusAt, 4, error, error);
    if ((before & ~masked) === 0 && (error & masked) === 0) {
      const first = 31 - Math.clz32(error);
      space.set(this.#base + PCIE_AER_CONTROL, 4, first, PCIE_AER_FIRST_ERROR);
      for (let i = 0; i < 4; i += 1) {
        space.set(this.#base + PCIE_AER_HEADER_LOG + 4 * i, 4, header[i] ?? 0);
      }
    }
    this.#status.reportErrors(
      ((error & severity) !== 0 ? PCIE_DEVSTA_FATAL : PCIE_DEVSTA_NON_FATAL) |
        ((error & PCIE_AER_UNSUPPORTED_REQUEST) !== 0 ? PCIE_DEVSTA_UNSUPPORTED : 0),
    );
  }

  /** A correctable error: one bit of correctable status. */
  correctable(error: number): void {
    const bit = error & CORRECTABLE;
    if (bit !== 0) {
      this.#space?.set(this.#base + PCIE_AER_CORRECTABLE_STATUS, 4, bit, bit);
      this.#status.reportErrors(PCIE_DEVSTA_CORRECTABLE);
    }
  }
}
