/** Capabilities that are registers and little else: vendor-specific, AF, SATA; DSN, ACS, ARI, ATS. */
import { SluiceError } from '../base/errors.ts';
import {
  PCI_AF_BYTES,
  PCI_AF_CAP_FLR,
  PCI_AF_CAP_PENDING,
  PCI_AF_CAPABILITIES,
  PCI_AF_CONTROL,
  PCI_AF_CONTROL_FLR,
  PCI_AF_LENGTH,
  PCI_AF_STATUS,
  PCI_CAP_ID_AF,
  PCI_CAP_ID_SATA,
  PCI_CAP_ID_VENDOR,
  PCI_EXT_CAP_ID_ACS,
  PCI_EXT_CAP_ID_ARI,
  PCI_EXT_CAP_ID_ATS,
  PCI_EXT_CAP_ID_DSN,
  PCI_EXT_CAP_ID_VENDOR,
  PCIE_ACS_BYTES,
  PCIE_ACS_CAPABILITIES,
  PCIE_ACS_CONTROL,
  PCIE_ARI_BYTES,
  PCIE_ARI_CAPABILITIES,
  PCIE_ARI_CONTROL,
  PCIE_ARI_NEXT_FUNCTION_SHIFT,
  PCIE_ATS_BYTES,
  PCIE_ATS_CAPABILITIES,
  PCIE_ATS_CONTROL,
  PCIE_ATS_CONTROL_ENABLE,
  PCIE_ATS_CONTROL_STU,
  PCIE_ATS_PAGE_ALIGNED,
  PCIE_ATS_QUEUE_DEPTH,
  PCIE_DSN_BYTES,
  PCIE_DSN_HIGH,
  PCIE_DSN_LOW,
} from '../spec/pci.ts';
import type { PciCapability } from './config-space.ts';
import type { PciRegister } from './registers.ts';

export interface VendorOptions {
  readonly at?: number;
  /** Of the device's own: offsets from the header, 3 and later. */
  readonly registers: readonly PciRegister[];
  /** With the header: 3 to 255. */
  readonly bytes: number;
}

/** Vendor-specific capability: a length, then what the vendor likes (PCI 3.0 App. H). */
export function vendorSpecific(options: VendorOptions): PciCapability {
  const { at, bytes, registers } = options;
  if (bytes < 3 || bytes > 255) {
    throw new SluiceError('config', `a vendor-specific capability of ${bytes} bytes`);
  }
  // biome-ignore format: one register a line
  return {
    name: 'vendor-specific', id: PCI_CAP_ID_VENDOR, bytes, ...(at === undefined ? {} : { at }),
    registers: [
      { name: 'LENGTH', offset: 2, bytes: 1, reset: bytes, meaning: 'of the capability, in bytes' },
      ...registers,
    ],
  };
}

export interface ExtendedVendorOptions {
  readonly at?: number;
  /** The vendor's own: 16 and 4 bits. */
  readonly id: number;
  readonly revision: number;
  /** Offsets from the header, 8 and later. */
  readonly registers: readonly PciRegister[];
  /** With both headers. */
  readonly bytes: number;
}

/** Vendor-specific extended capability (PCIe §7.9.5). */
export function vendorSpecificExtended(options: ExtendedVendorOptions): PciCapability {
  const { at, bytes, registers } = options;
  const header = (options.id | (options.revision << 16) | (bytes << 20)) >>> 0;
  // biome-ignore format: one register a line
  return {
    name: 'vendor-specific extended', id: PCI_EXT_CAP_ID_VENDOR, version: 1, bytes, ...(at === undefined ? {} : { at }),
    registers: [
      { name: 'VENDOR_HEADER', offset: 4, bytes: 4, reset: header, meaning: 'id, revision, length' },
      ...registers,
    ],
  };
}

/** Advanced features: FLR for conventional PCI, with Transactions Pending (ECN of 2007). */
export function advancedFeatures(at?: number): PciCapability {
  const features = PCI_AF_CAP_FLR | PCI_AF_CAP_PENDING;
  // biome-ignore format: one register a line
  return {
    name: 'advanced features', id: PCI_CAP_ID_AF, bytes: PCI_AF_BYTES, ...(at === undefined ? {} : { at }),
    registers: [
      { name: 'LENGTH', offset: PCI_AF_LENGTH, bytes: 1, reset: PCI_AF_BYTES, meaning: 'of the capability, in bytes' },
      { name: 'CAPABILITIES', offset: PCI_AF_CAPABILITIES, bytes: 1, reset: features, meaning: 'FLR, transactions pending' },
      { name: 'CONTROL', offset: PCI_AF_CONTROL, bytes: 1, strobe: PCI_AF_CONTROL_FLR, meaning: 'FLR' },
      { name: 'STATUS', offset: PCI_AF_STATUS, bytes: 1, meaning: 'transactions pending' },
    ],
    bind: (space, offset) =>
      space.onWrite(offset + PCI_AF_CONTROL, (strobes) => {
        if (strobes !== 0) {
          space.requestReset('function');
        }
      }),
  };
}

/** SATA: where index and data registers are (SATA 3 §11, AHCI 1.3.1 §2.4). */
export function sata(options: { at?: number; bar: number; offset: number }): PciCapability {
  // §2.4.2: the BAR as 4 and up (0100b is BAR 0), the offset in units of 4 bytes.
  const location = (options.bar + 4) | ((options.offset / 4) << 4);
  // biome-ignore format: one register a line
  return {
    name: 'SATA', id: PCI_CAP_ID_SATA, bytes: 8, ...(options.at === undefined ? {} : { at: options.at }),
    registers: [
      { name: 'SATACR0', offset: 2, bytes: 2, reset: 0x0010, meaning: 'revision 1.0' },
      { name: 'SATACR1', offset: 4, bytes: 4, reset: location, meaning: 'BAR and offset of index and data' },
    ],
  };
}

/** Device serial number: an EUI-64 (PCIe §7.9.3). */
export function serialNumber(eui64: bigint): PciCapability {
  const low = Number(eui64 & 0xffff_ffffn);
  const high = Number((eui64 >> 32n) & 0xffff_ffffn);
  // biome-ignore format: one register a line
  return {
    name: 'device serial number', id: PCI_EXT_CAP_ID_DSN, version: 1, bytes: PCIE_DSN_BYTES,
    registers: [
      { name: 'LOW', offset: PCIE_DSN_LOW, bytes: 4, reset: low, meaning: 'lower half' },
      { name: 'HIGH', offset: PCIE_DSN_HIGH, bytes: 4, reset: high, meaning: 'upper half: the maker' },
    ],
  };
}

/** Access control services: the redirections that a function can have (PCIe §7.7.8). Default: none. */
export function accessControl(services = 0): PciCapability {
  // biome-ignore format: one register a line
  return {
    name: 'access control services', id: PCI_EXT_CAP_ID_ACS, version: 1, bytes: PCIE_ACS_BYTES,
    registers: [
      { name: 'CAPABILITIES', offset: PCIE_ACS_CAPABILITIES, bytes: 2, reset: services, meaning: 'what can be redirected' },
      { name: 'CONTROL', offset: PCIE_ACS_CONTROL, bytes: 2, rw: services, meaning: 'what is redirected' },
    ],
  };
}

/** Alternative routing ids: 8 bits of function number (PCIe §7.8.7). 0: no function follows. */
export function alternativeRouting(nextFunction = 0): PciCapability {
  const capabilities = nextFunction << PCIE_ARI_NEXT_FUNCTION_SHIFT;
  // biome-ignore format: one register a line
  return {
    name: 'alternative routing-id', id: PCI_EXT_CAP_ID_ARI, version: 1, bytes: PCIE_ARI_BYTES,
    registers: [
      { name: 'CAPABILITIES', offset: PCIE_ARI_CAPABILITIES, bytes: 2, reset: capabilities, meaning: 'next function' },
      { name: 'CONTROL', offset: PCIE_ARI_CONTROL, bytes: 2, meaning: 'function groups: none' },
    ],
  };
}

/**
 * Address translation services (ATS 1.1 §5.1). `queueDepth`: invalidations that can wait, 1 to 32.
 * Translation itself is the DMA domain's: the enable bit is kept for the guest to see.
 */
export function addressTranslation(queueDepth = 32): PciCapability {
  // §5.1.2: 32 is written as 0.
  const capabilities = (queueDepth & PCIE_ATS_QUEUE_DEPTH) | PCIE_ATS_PAGE_ALIGNED;
  const control = PCIE_ATS_CONTROL_STU | PCIE_ATS_CONTROL_ENABLE;
  // biome-ignore format: one register a line
  return {
    name: 'address translation services', id: PCI_EXT_CAP_ID_ATS, version: 1, bytes: PCIE_ATS_BYTES,
    registers: [
      { name: 'CAPABILITIES', offset: PCIE_ATS_CAPABILITIES, bytes: 2, reset: capabilities, meaning: 'queue depth, page aligned' },
      { name: 'CONTROL', offset: PCIE_ATS_CONTROL, bytes: 2, rw: control, meaning: 'enable, smallest unit' },
    ],
  };
}
