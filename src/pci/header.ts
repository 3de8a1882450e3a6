/** The header, type 0, as registers (PCI Local Bus 3.0 §6.1, §6.2). */
import {
  PCI_CACHE_LINE_SIZE,
  PCI_CLASS_CODE,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_COMMAND_MWI,
  PCI_COMMAND_PARITY,
  PCI_COMMAND_SERR,
  PCI_DEVICE_ID,
  PCI_HEADER_MULTIFUNCTION,
  PCI_HEADER_TYPE,
  PCI_INTERRUPT_LINE,
  PCI_INTERRUPT_PIN,
  PCI_LATENCY_TIMER,
  PCI_MAX_LAT,
  PCI_MIN_GNT,
  PCI_REVISION_ID,
  PCI_STATUS,
  PCI_STATUS_66MHZ,
  PCI_STATUS_CAPABILITIES,
  PCI_STATUS_ERRORS,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
} from '../spec/pci.ts';
import type { BarInfo } from './function.ts';
import type { PciRegister } from './registers.ts';

/** Who a function is. */
export interface PciIdentity {
  readonly vendor: number;
  readonly device: number;
  /** Default: 0. */
  readonly revision?: number;
  /** Base class, subclass and interface: 0x020000 is an Ethernet controller. */
  readonly classCode: number;
  /** Default: 0, none. */
  readonly subsystemVendor?: number;
  readonly subsystem?: number;
  /** 1 to 4: INTA# to INTD#. Default: 0, the function has no INTx. */
  readonly interruptPin?: number;
  /** Other functions are at the same device number. Default: false. */
  readonly multifunction?: boolean;
  /** Conventional PCI only: burst length and how often the bus is wanted, in 250 ns. Default: 0. */
  readonly minGnt?: number;
  readonly maxLat?: number;
  /** Conventional PCI only: capable of 66 MHz. */
  readonly fast?: boolean;
}

/** What of the header depends on the rest of the function. */
export interface HeaderContext {
  readonly bars: readonly (BarInfo | undefined)[];
  /** Latency timer and MWI do nothing on PCI Express (PCIe §7.5.1). */
  readonly express: boolean;
  readonly capabilities: boolean;
}

export function headerRegisters(id: PciIdentity, context: HeaderContext): PciRegister[] {
  const { bars, express, capabilities } = context;
  const pin = id.interruptPin ?? 0;
  const command =
    (bars.some((bar) => bar?.kind === 'io') ? PCI_COMMAND_IO : 0) |
    PCI_COMMAND_MEMORY |
    PCI_COMMAND_MASTER |
    PCI_COMMAND_PARITY |
    PCI_COMMAND_SERR |
    (express ? 0 : PCI_COMMAND_MWI) |
    (pin === 0 ? 0 : PCI_COMMAND_INTX_DISABLE);
  const status =
    (capabilities ? PCI_STATUS_CAPABILITIES : 0) | (id.fast === true ? PCI_STATUS_66MHZ : 0);
  const type = id.multifunction === true ? PCI_HEADER_MULTIFUNCTION : 0;
  // biome-ignore format: one register a line
  return [
    { name: 'VENDOR_ID', offset: PCI_VENDOR_ID, bytes: 2, reset: id.vendor, meaning: 'manufacturer' },
    { name: 'DEVICE_ID', offset: PCI_DEVICE_ID, bytes: 2, reset: id.device, meaning: 'kind of device' },
    { name: 'COMMAND', offset: PCI_COMMAND, bytes: 2, rw: command, meaning: 'I/O, memory, bus master, INTx disable' },
    { name: 'STATUS', offset: PCI_STATUS, bytes: 2, reset: status, rw1c: PCI_STATUS_ERRORS, meaning: 'errors, INTx pending' },
    { name: 'REVISION_ID', offset: PCI_REVISION_ID, bytes: 1, reset: id.revision ?? 0, meaning: 'stepping' },
    { name: 'CLASS_CODE', offset: PCI_CLASS_CODE, bytes: 3, reset: id.classCode, meaning: 'interface, subclass, base class' },
    { name: 'CACHE_LINE_SIZE', offset: PCI_CACHE_LINE_SIZE, bytes: 1, rw: 0xff, meaning: 'in 4 bytes; storage only' },
    { name: 'LATENCY_TIMER', offset: PCI_LATENCY_TIMER, bytes: 1, rw: express ? 0 : 0xf8, meaning: 'in clocks; storage only' },
    { name: 'HEADER_TYPE', offset: PCI_HEADER_TYPE, bytes: 1, reset: type, meaning: 'layout 0; multi-function' },
    { name: 'SUBSYSTEM_VENDOR_ID', offset: PCI_SUBSYSTEM_VENDOR_ID, bytes: 2, reset: id.subsystemVendor ?? 0, meaning: 'maker of the card' },
    { name: 'SUBSYSTEM_ID', offset: PCI_SUBSYSTEM_ID, bytes: 2, reset: id.subsystem ?? 0, meaning: 'kind of card' },
    { name: 'INTERRUPT_LINE', offset: PCI_INTERRUPT_LINE, bytes: 1, rw: 0xff, meaning: 'storage for the firmware' },
    { name: 'INTERRUPT_PIN', offset: PCI_INTERRUPT_PIN, bytes: 1, reset: pin, meaning: '1 to 4: INTA# to INTD#' },
    { name: 'MIN_GNT', offset: PCI_MIN_GNT, bytes: 1, reset: express ? 0 : (id.minGnt ?? 0), meaning: 'length of bursts' },
    { name: 'MAX_LAT', offset: PCI_MAX_LAT, bytes: 1, reset: express ? 0 : (id.maxLat ?? 0), meaning: 'time between bursts' },
  ];
}
