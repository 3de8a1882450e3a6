/** MSI-X: the capability, and its table and pending bits in a BAR (PCI Local Bus 3.0 §6.8.2). */
import { alignUp, TWO_32 } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import {
  PCI_BARS,
  PCI_CAP_ID_MSIX,
  PCI_MSIX_BYTES,
  PCI_MSIX_CONTROL,
  PCI_MSIX_CONTROL_ENABLE,
  PCI_MSIX_CONTROL_MASK_ALL,
  PCI_MSIX_ENTRY_ADDRESS,
  PCI_MSIX_ENTRY_ADDRESS_HIGH,
  PCI_MSIX_ENTRY_BYTES,
  PCI_MSIX_ENTRY_CONTROL,
  PCI_MSIX_ENTRY_DATA,
  PCI_MSIX_ENTRY_MASKED,
  PCI_MSIX_MAX_VECTORS,
  PCI_MSIX_PBA,
  PCI_MSIX_TABLE,
} from '../spec/pci.ts';
import type { PciCapability, PciConfigSpace } from './config-space.ts';
import type { PciRegister } from './registers.ts';

export interface MsixOptions {
  readonly at?: number;
  /** 1 to 2048. */
  readonly vectors: number;
  /** Which BAR holds the table and the pending bits. */
  readonly bar: number;
  /** Where in it, in bytes; multiples of 8. Default: 0, and behind the table, at a multiple of 2 KiB. */
  readonly tableOffset?: number;
  readonly pbaOffset?: number;
}

export class Msix implements PciCapability {
  readonly name = 'MSI-X';
  readonly id = PCI_CAP_ID_MSIX;
  readonly bytes = PCI_MSIX_BYTES;
  readonly at?: number;
  readonly registers: readonly PciRegister[];
  readonly vectors: number;
  readonly bar: number;
  readonly tableOffset: number;
  readonly pbaOffset: number;
  /** Enabled or not, or other masks. */
  onChange: (() => void) | undefined;
  readonly #table: Uint8Array;
  readonly #pba: Uint8Array;
  #space: PciConfigSpace | undefined;
  #control = 0;
  /** What the control register holds: looked at for every interrupt. */
  #word = 0;

  /** @throws SluiceError `config` for what MSI-X does not have. */
  constructor(options: MsixOptions) {
    const { at, vectors, bar, tableOffset = 0 } = options;
    if (at !== undefined) {
      this.at = at;
    }
    if (!Number.isInteger(vectors) || vectors < 1 || vectors > PCI_MSIX_MAX_VECTORS) {
      throw new SluiceError('config', `MSI-X with ${vectors} vectors: 1 to 2048 are possible`);
    }
    const tableEnd = tableOffset + vectors * PCI_MSIX_ENTRY_BYTES;
    const pbaOffset = options.pbaOffset ?? alignUp(tableEnd, 2048);
    const pbaBytes = alignUp(vectors, 64) / 8;
    const apart = pbaOffset >= tableEnd || pbaOffset + pbaBytes <= tableOffset;
    if (tableOffset % 8 !== 0 || pbaOffset % 8 !== 0 || bar < 0 || bar >= PCI_BARS || !apart) {
      throw new SluiceError('config', 'MSI-X: table and pending bits are misplaced', {
        remedy: 'Give them multiples of 8 in one of six BARs, one behind the other',
      });
    }
    this.vectors = vectors;
    this.bar = bar;
    this.tableOffset = tableOffset;
    this.pbaOffset = pbaOffset;
    this.#table = new Uint8Array(vectors * PCI_MSIX_ENTRY_BYTES);
    this.#pba = new Uint8Array(pbaBytes);
    const control = PCI_MSIX_CONTROL_ENABLE | PCI_MSIX_CONTROL_MASK_ALL;
    // biome-ignore format: one register a line
    this.registers = [
      { name: 'CONTROL', offset: PCI_MSIX_CONTROL, bytes: 2, reset: vectors - 1, rw: control, meaning: 'enable, mask all, last vector' },
      { name: 'TABLE', offset: PCI_MSIX_TABLE, bytes: 4, reset: (tableOffset | bar) >>> 0, meaning: 'BAR and offset of the table' },
      { name: 'PBA', offset: PCI_MSIX_PBA, bytes: 4, reset: (pbaOffset | bar) >>> 0, meaning: 'BAR and offset of the pending bits' },
    ];
    this.reset();
  }

  /** @throws SluiceError `config` if the BAR is none of memory, or too small. */
  bind(space: PciConfigSpace, offset: number): void {
    const bar = space.bars[this.bar];
    const end = Math.max(this.tableOffset + this.#table.length, this.pbaOffset + this.#pba.length);
    if (bar === undefined || bar.kind === 'io' || bar.bytes < end) {
      throw new SluiceError('config', `MSI-X: BAR ${this.bar} is no memory of ${end} bytes`);
    }
    this.#space = space;
    this.#control = offset + PCI_MSIX_CONTROL;
    this.#readControl();
    space.onWrite(this.#control, () => {
      this.#readControl();
      this.onChange?.();
    });
  }

  /** §6.8.2.9: every vector is masked after a reset. */
  reset(): void {
    this.#table.fill(0);
    this.#pba.fill(0);
    for (let vector = 0; vector < this.vectors; vector += 1) {
      this.#table[vector * PCI_MSIX_ENTRY_BYTES + PCI_MSIX_ENTRY_CONTROL] = PCI_MSIX_ENTRY_MASKED;
    }
    this.#readControl();
  }

  get enabled(): boolean {
    return (this.#word & PCI_MSIX_CONTROL_ENABLE) !== 0;
  }

  get maskedAll(): boolean {
    return (this.#word & PCI_MSIX_CONTROL_MASK_ALL) !== 0;
  }

  masked(vector: number): boolean {
    const at = vector * PCI_MSIX_ENTRY_BYTES + PCI_MSIX_ENTRY_CONTROL;
    return ((this.#table[at] as number) & PCI_MSIX_ENTRY_MASKED) !== 0 || this.maskedAll;
  }

  pending(vector: number): boolean {
    return ((this.#pba[vector >>> 3] as number) & (1 << (vector & 7))) !== 0;
  }

  setPending(vector: number, pending: boolean): void {
    const bit = 1 << (vector & 7);
    const byte = this.#pba[vector >>> 3] as number;
    this.#pba[vector >>> 3] = pending ? byte | bit : byte & ~bit;
  }

  /** What the guest wrote: address and data of a vector's message. For transports that send it. */
  address(vector: number): number {
    const at = vector * PCI_MSIX_ENTRY_BYTES;
    return (
      readBytes(this.#table, at + PCI_MSIX_ENTRY_ADDRESS_HIGH, 4) * TWO_32 +
      readBytes(this.#table, at + PCI_MSIX_ENTRY_ADDRESS, 4)
    );
  }

  data(vector: number): number {
    return readBytes(this.#table, vector * PCI_MSIX_ENTRY_BYTES + PCI_MSIX_ENTRY_DATA, 4);
  }

  /** An access to the BAR begins in the table or the pending bits, and is not the device's. */
  covers(bar: number, offset: number): boolean {
    if (bar !== this.bar) {
      return false;
    }
    const table = offset - this.tableOffset;
    const pba = offset - this.pbaOffset;
    return (table >= 0 && table < this.#table.length) || (pba >= 0 && pba < this.#pba.length);
  }

  /** Of an offset that is covered. Widths that §6.8.2 leaves undefined work too. */
  read(offset: number, length: number): number {
    const table = offset - this.tableOffset;
    return table >= 0 && table < this.#table.length
      ? readBytes(this.#table, table, length)
      : readBytes(this.#pba, offset - this.pbaOffset, length);
  }

  /** Of an offset that is covered; pending bits are read-only. */
  write(offset: number, length: number, value: number): void {
    const table = offset - this.tableOffset;
    if (table < 0 || table >= this.#table.length) {
      return;
    }
    for (let i = 0; i < length && table + i < this.#table.length; i += 1) {
      const at = table + i;
      this.#table[at] = (value >>> (8 * i)) & (TABLE_MASK[at % PCI_MSIX_ENTRY_BYTES] as number);
    }
    this.onChange?.();
  }

  #readControl(): void {
    this.#word = this.#space?.get(this.#control, 2) ?? 0;
  }
}

/** What of an entry can be written: not the reserved bits of its control (§6.8.2.9), nor address bits 1:0. */
const TABLE_MASK = Uint8Array.of(
  ...[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
  ...[0xff, 0xff, 0xff, 0xff, PCI_MSIX_ENTRY_MASKED, 0, 0, 0],
);

/** Little-endian, unsigned; zeros beyond the end. */
function readBytes(bytes: Uint8Array, offset: number, length: number): number {
  let value = 0;
  for (let i = length - 1; i >= 0; i -= 1) {
    value = (value << 8) | (bytes[offset + i] ?? 0);
  }
  return value >>> 0;
}
