/** Message signaled interrupts: the MSI capability (PCI Local Bus 3.0 §6.8.1). */
import { TWO_32 } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import {
  PCI_CAP_ID_MSI,
  PCI_MSI_ADDRESS,
  PCI_MSI_ADDRESS_HIGH,
  PCI_MSI_CONTROL,
  PCI_MSI_CONTROL_64BIT,
  PCI_MSI_CONTROL_CAPABLE_SHIFT,
  PCI_MSI_CONTROL_COUNT_MASK,
  PCI_MSI_CONTROL_ENABLE,
  PCI_MSI_CONTROL_ENABLED_SHIFT,
  PCI_MSI_CONTROL_MASKING,
  PCI_MSI_DATA_32,
  PCI_MSI_DATA_64,
  PCI_MSI_MASK_32,
  PCI_MSI_MASK_64,
  PCI_MSI_MAX_VECTORS,
  PCI_MSI_PENDING_32,
  PCI_MSI_PENDING_64,
} from '../spec/pci.ts';
import type { PciCapability, PciConfigSpace } from './config-space.ts';
import type { PciRegister } from './registers.ts';

export interface MsiOptions {
  readonly at?: number;
  /** 1, 2, 4, 8, 16 or 32. */
  readonly vectors: number;
  /** Messages may go beyond 4 GiB. Default: true. */
  readonly address64?: boolean;
  /** Vectors can be masked one by one. Default: false. */
  readonly masking?: boolean;
}

export class Msi implements PciCapability {
  readonly name = 'MSI';
  readonly id = PCI_CAP_ID_MSI;
  readonly bytes: number;
  readonly at?: number;
  readonly registers: readonly PciRegister[];
  readonly vectors: number;
  readonly address64: boolean;
  readonly masking: boolean;
  /** Enabled or not, other vectors, other masks. */
  onChange: (() => void) | undefined;
  #space: PciConfigSpace | undefined;
  #base = 0;

  /** @throws SluiceError `config` for a number of vectors that MSI does not have. */
  constructor(options: MsiOptions) {
    const { at, vectors, address64 = true, masking = false } = options;
    if (at !== undefined) {
      this.at = at;
    }
    const order = Math.log2(vectors);
    if (!Number.isInteger(order) || vectors < 1 || vectors > PCI_MSI_MAX_VECTORS) {
      throw new SluiceError('config', `MSI with ${vectors} vectors`, {
        remedy: 'Take 1, 2, 4, 8, 16 or 32',
      });
    }
    this.vectors = vectors;
    this.address64 = address64;
    this.masking = masking;
    const reset =
      (order << PCI_MSI_CONTROL_CAPABLE_SHIFT) |
      (address64 ? PCI_MSI_CONTROL_64BIT : 0) |
      (masking ? PCI_MSI_CONTROL_MASKING : 0);
    const control =
      PCI_MSI_CONTROL_ENABLE | (PCI_MSI_CONTROL_COUNT_MASK << PCI_MSI_CONTROL_ENABLED_SHIFT);
    const data = address64 ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32;
    const mask = address64 ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32;
    const pending = address64 ? PCI_MSI_PENDING_64 : PCI_MSI_PENDING_32;
    const all = 2 ** vectors - 1;
    // biome-ignore format: one register a line
    this.registers = [
      { name: 'CONTROL', offset: PCI_MSI_CONTROL, bytes: 2, reset, rw: control, meaning: 'enable, vectors wanted and given' },
      { name: 'ADDRESS', offset: PCI_MSI_ADDRESS, bytes: 4, rw: 0xffff_fffc, meaning: 'where messages go' },
      ...(address64 ? [{ name: 'ADDRESS_HIGH', offset: PCI_MSI_ADDRESS_HIGH, bytes: 4, rw: 0xffff_ffff, meaning: 'its upper half' }] : []),
      { name: 'DATA', offset: data, bytes: 2, rw: 0xffff, meaning: 'of vector 0' },
      ...(masking
        ? [
            { name: 'MASK', offset: mask, bytes: 4, rw: all, meaning: 'vectors that may not send' },
            { name: 'PENDING', offset: pending, bytes: 4, meaning: 'vectors that would have sent' },
          ]
        : []),
    ];
    this.bytes = masking ? pending + 4 : data + 2;
  }

  bind(space: PciConfigSpace, offset: number): void {
    this.#space = space;
    this.#base = offset;
    const changed = (): void => this.onChange?.();
    space.onWrite(offset + PCI_MSI_CONTROL, changed);
    if (this.masking) {
      space.onWrite(offset + this.#maskAt, changed);
    }
  }

  get enabled(): boolean {
    return (this.#get(PCI_MSI_CONTROL, 2) & PCI_MSI_CONTROL_ENABLE) !== 0;
  }

  /** How many vectors the guest gave: no more than were wanted, whatever it wrote. */
  get allotted(): number {
    const order = this.#get(PCI_MSI_CONTROL, 2) >>> PCI_MSI_CONTROL_ENABLED_SHIFT;
    return Math.min(1 << (order & PCI_MSI_CONTROL_COUNT_MASK), this.vectors);
  }

  /** Vectors that are masked, as bits. */
  get masked(): number {
    return this.masking ? this.#get(this.#maskAt, 4) : 0;
  }

  get pending(): number {
    return this.masking ? this.#get(this.#pendingAt, 4) : 0;
  }

  setPending(vector: number, pending: boolean): void {
    if (this.masking) {
      const bit = (1 << vector) >>> 0;
      this.#space?.set(this.#base + this.#pendingAt, 4, pending ? bit : 0, bit);
    }
  }

  /** What the guest wrote: address and data of a vector's message. For transports that send it. */
  address(): number {
    const high = this.address64 ? this.#get(PCI_MSI_ADDRESS_HIGH, 4) : 0;
    return high * TWO_32 + this.#get(PCI_MSI_ADDRESS, 4);
  }

  data(vector: number): number {
    const data = this.#get(this.address64 ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32, 2);
    return (data & ~(this.allotted - 1)) | vector;
  }

  get #maskAt(): number {
    return this.address64 ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32;
  }

  get #pendingAt(): number {
    return this.address64 ? PCI_MSI_PENDING_64 : PCI_MSI_PENDING_32;
  }

  #get(offset: number, length: number): number {
    return this.#space?.get(this.#base + offset, length) ?? 0;
  }
}
