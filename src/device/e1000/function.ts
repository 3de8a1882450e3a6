/** The two controllers as PCI functions: who they are, their BARs and capabilities. */
import type { PciDeclaration } from '../../pci/config-space.ts';
import { ErrorReporting } from '../../pci/error-reporting.ts';
import { Express } from '../../pci/express.ts';
import type { PciIdentity } from '../../pci/header.ts';
import { Msi } from '../../pci/msi.ts';
import { Msix } from '../../pci/msix.ts';
import { serialNumber } from '../../pci/plain-capabilities.ts';
import { PowerManagement } from '../../pci/power-management.ts';
import {
  E1000_DEVICE_82540EM,
  E1000_DEVICE_82574L,
  E1000_IO_BYTES,
  E1000_MSIX_BAR,
  E1000_MSIX_BAR_BYTES,
  E1000_MSIX_PBA,
  E1000_MSIX_TABLE,
  E1000_MSIX_VECTORS,
  E1000_REGISTER_BYTES,
  E1000_VENDOR_INTEL,
} from '../../spec/e1000.ts';

/** Linux drives the first with e1000, the second with e1000e. */
export const E1000_MODELS = ['82540', '82574'] as const;
export type E1000Model = (typeof E1000_MODELS)[number];

const CLASS_ETHERNET = 0x020000;
/** Between the halves of a MAC address in an EUI-64 (DS §9.3.2). */
const EUI64_MIDDLE = 0xffffn;

export function e1000Identity(model: E1000Model): PciIdentity {
  const device = model === '82574' ? E1000_DEVICE_82574L : E1000_DEVICE_82540EM;
  return {
    vendor: E1000_VENDOR_INTEL,
    device,
    revision: model === '82574' ? 0 : 2,
    classCode: CLASS_ETHERNET,
    subsystemVendor: E1000_VENDOR_INTEL,
    subsystem: device,
    interruptPin: 1,
  };
}

export function e1000Declaration(name: string, model: E1000Model, mac: Uint8Array): PciDeclaration {
  const identity = e1000Identity(model);
  const express = new Express({ link: { speed: 2.5, width: 1 }, functionLevelReset: false });
  const registers = { kind: 'memory32', bytes: E1000_REGISTER_BYTES } as const;
  const io = { kind: 'io', bytes: E1000_IO_BYTES } as const;
  if (model === '82540') {
    return {
      name,
      identity,
      bars: [registers, io],
      capabilities: [powerManagement(), new Msi({ vectors: 1, address64: true })],
    };
  }
  return {
    name,
    identity,
    // BAR 1 is the flash, which this card has not.
    bars: [registers, undefined, io, { kind: 'memory32', bytes: E1000_MSIX_BAR_BYTES }],
    capabilities: [
      powerManagement(),
      new Msi({ vectors: 1, address64: true }),
      express,
      new Msix({
        vectors: E1000_MSIX_VECTORS,
        bar: E1000_MSIX_BAR,
        tableOffset: E1000_MSIX_TABLE,
        pbaOffset: E1000_MSIX_PBA,
      }),
      new ErrorReporting(express),
      serialNumber(eui64(mac)),
    ],
  };
}

/** Wake-up from D0 and D3hot (SDM §6.3.3; DS §9.1.4.2): no auxiliary power, so not from D3cold. */
function powerManagement(): PowerManagement {
  return new PowerManagement({ noSoftReset: false, pme: [0, 3] });
}

function eui64(mac: Uint8Array): bigint {
  let value = 0n;
  for (let i = 0; i < 6; i++) {
    if (i === 3) value = (value << 16n) | EUI64_MIDDLE;
    value = (value << 8n) | BigInt(mac[i] as number);
  }
  return value;
}
