/**
 * The functions of an 82599 to PCI Express (§9.3, §9.4; VFs §9.5): who they are, BARs, capabilities,
 * which pages of registers can be mapped, and where queues and interrupts have their registers.
 */
import type { BarList } from '../../pci/bars.ts';
import type { PciDeclaration } from '../../pci/config-space.ts';
import { ErrorReporting } from '../../pci/error-reporting.ts';
import { Express } from '../../pci/express.ts';
import type { MappableArea } from '../../pci/function.ts';
import { Msi } from '../../pci/msi.ts';
import { Msix } from '../../pci/msix.ts';
import { alternativeRouting, serialNumber } from '../../pci/plain-capabilities.ts';
import { PowerManagement } from '../../pci/power-management.ts';
import { Sriov } from '../../pci/sriov.ts';
import {
  IXGBE_BAR_BYTES,
  IXGBE_DEVICE_SFP,
  IXGBE_DEVICE_VF,
  IXGBE_EITRS,
  IXGBE_INT_QUEUES,
  IXGBE_IO_BYTES,
  IXGBE_MSIX_BAR,
  IXGBE_MSIX_BAR_BYTES,
  IXGBE_MSIX_PBA,
  IXGBE_MSIX_TABLE,
  IXGBE_MSIX_VECTORS,
  IXGBE_QUEUE_BYTES,
  IXGBE_QUEUES,
  IXGBE_RX_QUEUES,
  IXGBE_RX_QUEUES_HIGH,
  IXGBE_TX_QUEUES,
  IXGBE_VENDOR_INTEL,
  IXGBE_VFS,
  ixgbeRxQueue,
  ixgbeTxQueue,
} from '../../spec/ixgbe.ts';
import {
  IXGBE_VF_EITR,
  IXGBE_VF_IVAR,
  IXGBE_VF_IVAR_MISC,
  IXGBE_VF_MSIX_BAR,
  IXGBE_VF_MSIX_VECTORS,
  IXGBE_VF_REGISTER_BYTES,
  IXGBE_VF_RX_QUEUES,
  IXGBE_VF_TX_QUEUES,
} from '../../spec/ixgbe-mailbox.ts';
import type { InterruptLayout } from './interrupts.ts';
import type { FunctionLayout } from './nic-function.ts';
import type { RegisterPages } from './register-memory.ts';
import { R } from './registers.ts';

const CLASS_ETHERNET = 0x020000;
const REVISION = 1;
/** Intel's card with two SFP+ cages, X520-2; and what VFs of it have. */
const SUBSYSTEM = 0x0003;
/** Where capabilities are: drivers read some of them at fixed places (§9.3.10). */
const PM_AT = 0x40;
const MSI_AT = 0x50;
const MSIX_AT = 0x70;
const EXPRESS_AT = 0xa0;
/** Routing ids of VFs (§9.4.4.8, §9.4.4.9). */
const VF_OFFSET = 0x80;
const VF_STRIDE = 2;
/** Between the halves of a MAC address in an EUI-64 (§9.4.2). */
const EUI64_MIDDLE = 0xffffn;

/** Pages of the PF's registers with nothing in them but queues: both banks to receive, and to send. */
export const PF_PAGES: readonly RegisterPages[] = [
  { offset: IXGBE_RX_QUEUES, bytes: 0x1000 },
  { offset: IXGBE_TX_QUEUES, bytes: 0x2000 },
  { offset: IXGBE_RX_QUEUES_HIGH, bytes: 0x1000 },
];

/** Pages of a VF's registers with nothing in them but queues and counters. */
export const VF_PAGES: readonly RegisterPages[] = [
  { offset: IXGBE_VF_RX_QUEUES, bytes: 0x1000 },
  { offset: IXGBE_VF_TX_QUEUES, bytes: 0x1000 },
];

const OTHER_CAUSES = 0x7fff_0000;

export const PF_LAYOUT: FunctionLayout = {
  receive: Uint32Array.from({ length: IXGBE_QUEUES }, (_, queue) => ixgbeRxQueue(queue) / 4),
  transmit: Uint32Array.from({ length: IXGBE_QUEUES }, (_, queue) => ixgbeTxQueue(queue) / 4),
  interrupts: {
    vectors: IXGBE_MSIX_VECTORS,
    queueCauses: IXGBE_INT_QUEUES,
    otherCauses: OTHER_CAUSES,
    moderation: Int32Array.from({ length: IXGBE_MSIX_VECTORS }, (_, vector) =>
      vector < IXGBE_EITRS ? R.EITR + vector : R.EITR_HIGH + vector - IXGBE_EITRS,
    ),
    ivar: R.IVAR,
    ivarMisc: R.IVAR_MISC,
  },
};

/** Of a VF with so many queue pairs: 2 of 64 pools, 4 of 32, 8 of 16. */
export function vfLayout(queues: 2 | 4 | 8): FunctionLayout {
  const blocks = (first: number): Uint32Array =>
    Uint32Array.from({ length: queues }, (_, queue) => (first + queue * IXGBE_QUEUE_BYTES) / 4);
  return {
    receive: blocks(IXGBE_VF_RX_QUEUES),
    transmit: blocks(IXGBE_VF_TX_QUEUES),
    interrupts: VF_INTERRUPTS,
  };
}

const VF_INTERRUPTS: InterruptLayout = {
  vectors: IXGBE_VF_MSIX_VECTORS,
  queueCauses: (1 << IXGBE_VF_MSIX_VECTORS) - 1,
  otherCauses: 0,
  moderation: Int32Array.from(
    { length: IXGBE_VF_MSIX_VECTORS },
    (_, vector) => IXGBE_VF_EITR / 4 + vector,
  ),
  ivar: IXGBE_VF_IVAR / 4,
  ivarMisc: IXGBE_VF_IVAR_MISC / 4,
};

/** A port of the card. @param areas of BAR 0, none if every access is to be a trap */
export function pfDeclaration(
  name: string,
  mac: Uint8Array,
  areas: readonly MappableArea[],
): PciDeclaration {
  const express = new Express({
    at: EXPRESS_AT,
    link: { speed: 5, width: 8 },
    maxPayload: 512,
    functionLevelReset: true,
  });
  return {
    name,
    identity: {
      vendor: IXGBE_VENDOR_INTEL,
      device: IXGBE_DEVICE_SFP,
      revision: REVISION,
      classCode: CLASS_ETHERNET,
      subsystemVendor: IXGBE_VENDOR_INTEL,
      subsystem: SUBSYSTEM,
      interruptPin: 1,
    },
    bars: [
      { kind: 'memory64', bytes: IXGBE_BAR_BYTES, prefetchable: true, areas },
      undefined,
      { kind: 'io', bytes: IXGBE_IO_BYTES },
      undefined,
      { kind: 'memory64', bytes: IXGBE_MSIX_BAR_BYTES, prefetchable: true },
    ],
    capabilities: [
      // Wake-up from D0 and D3hot: there is no auxiliary power.
      new PowerManagement({ at: PM_AT, noSoftReset: false, pme: [0, 3] }),
      new Msi({ at: MSI_AT, vectors: 1, address64: true, masking: true }),
      new Msix({
        at: MSIX_AT,
        vectors: IXGBE_MSIX_VECTORS,
        bar: IXGBE_MSIX_BAR,
        tableOffset: IXGBE_MSIX_TABLE,
        pbaOffset: IXGBE_MSIX_PBA,
      }),
      express,
      new ErrorReporting(express),
      serialNumber(eui64(mac)),
      alternativeRouting(),
      // VMMs hide it: a guest that owns the port has no VFs of it, the driver domain makes them.
      new Sriov({
        totalVfs: IXGBE_VFS,
        firstOffset: VF_OFFSET,
        stride: VF_STRIDE,
        vfDevice: IXGBE_DEVICE_VF,
        bars: vfBars([]),
        onVfs: () => undefined,
      }),
    ],
  };
}

/** A virtual function. */
export function vfDeclaration(name: string, areas: readonly MappableArea[]): PciDeclaration {
  const express = new Express({
    at: EXPRESS_AT,
    link: { speed: 5, width: 8 },
    maxPayload: 512,
    functionLevelReset: true,
  });
  return {
    name,
    identity: {
      vendor: IXGBE_VENDOR_INTEL,
      device: IXGBE_DEVICE_VF,
      revision: REVISION,
      classCode: CLASS_ETHERNET,
      subsystemVendor: IXGBE_VENDOR_INTEL,
      subsystem: SUBSYSTEM,
    },
    bars: vfBars(areas),
    capabilities: [
      new Msix({
        at: MSIX_AT,
        vectors: IXGBE_VF_MSIX_VECTORS,
        bar: IXGBE_VF_MSIX_BAR,
        tableOffset: IXGBE_MSIX_TABLE,
        pbaOffset: IXGBE_MSIX_PBA,
      }),
      express,
      new ErrorReporting(express),
      alternativeRouting(),
    ],
  };
}

function vfBars(areas: readonly MappableArea[]): BarList {
  return [
    { kind: 'memory64', bytes: IXGBE_VF_REGISTER_BYTES, prefetchable: true, areas },
    undefined,
    undefined,
    { kind: 'memory64', bytes: IXGBE_MSIX_BAR_BYTES, prefetchable: true },
  ];
}

function eui64(mac: Uint8Array): bigint {
  let value = 0n;
  for (let i = 0; i < 6; i++) {
    if (i === 3) value = (value << 16n) | EUI64_MIDDLE;
    value = (value << 8n) | BigInt(mac[i] as number);
  }
  return value;
}
