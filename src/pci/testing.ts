/** For tests of PCI functions: a transport with a guest's view of the bus, and a function with everything. */
import type { DmaSpace } from '../memory/dma.ts';
import {
  PCI_BAR_IO,
  PCI_BAR0,
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
} from '../spec/pci.ts';
import type { PciCapability } from './config-space.ts';
import { PciDevice } from './device.ts';
import { ErrorReporting } from './error-reporting.ts';
import { Express } from './express.ts';
import type { BarInfo, InterruptSink, PciFunction } from './function.ts';
import { Msi } from './msi.ts';
import { Msix } from './msix.ts';
import {
  accessControl,
  addressTranslation,
  alternativeRouting,
  serialNumber,
  vendorSpecific,
} from './plain-capabilities.ts';
import { PowerManagement } from './power-management.ts';
import type { ResetKind } from './registers.ts';
import { Sriov } from './sriov.ts';

/** Memory access that never happens, for functions without DMA. */
export const NO_DMA: DmaSpace = {
  generation: 0,
  onDone: undefined,
  logging: false,
  translate: () => -1,
  read: () => -1,
  write: () => -1,
  fault: () => undefined,
  markWritten: () => undefined,
};

/** A transport without a socket: it finds BARs as firmware does, and keeps what it is told. */
export class TestTransport implements InterruptSink {
  readonly fn: PciFunction;
  keepsMasks = false;
  /** Level of INTx, and how often it changed. */
  intx = false;
  intxChanges = 0;
  /** Vectors in the order of their messages. */
  readonly msi: number[] = [];
  readonly msix: number[] = [];
  busMaster = false;

  constructor(fn: PciFunction, dma: DmaSpace = NO_DMA) {
    this.fn = fn;
    fn.attach({
      dma,
      interrupts: this,
      setBusMaster: (on) => {
        this.busMaster = on;
      },
    });
  }

  setIntx(asserted: boolean): void {
    this.intx = asserted;
    this.intxChanges += 1;
  }

  signalMsi(vector: number): void {
    this.msi.push(vector);
  }

  signalMsix(vector: number): void {
    this.msix.push(vector);
  }

  /** Where a capability begins by its list, 0 if it is not there. `extended`: of the other list. */
  find(id: number, extended = false): number {
    let at = extended ? 0x100 : this.fn.readConfig(0x34, 1);
    for (let steps = 0; at !== 0 && steps < 48; steps += 1) {
      const header = this.fn.readConfig(at, 4);
      if ((header & (extended ? 0xffff : 0xff)) === id) {
        return at;
      }
      at = extended ? header >>> 20 : (header >>> 8) & 0xff;
    }
    return 0;
  }

  /** Bytes of a BAR by the question that firmware asks (PCI 3.0 §6.2.5.1), 0 if there is none. */
  size(bar: number): number {
    const at = PCI_BAR0 + 4 * bar;
    const before = this.fn.readConfig(at, 4);
    this.fn.writeConfig(at, 4, 0xffff_ffff);
    const low = this.fn.readConfig(at, 4);
    this.fn.writeConfig(at, 4, before);
    if (low === 0) {
      return 0;
    }
    const mask = (low & PCI_BAR_IO) !== 0 ? low & ~3 : low & ~0xf;
    if (mask !== 0 || (low & 4) === 0) {
      return (~mask >>> 0) + 1;
    }
    this.fn.writeConfig(at + 4, 4, 0xffff_ffff);
    const high = this.fn.readConfig(at + 4, 4);
    this.fn.writeConfig(at + 4, 4, 0);
    return ((~high >>> 0) + 1) * 2 ** 32;
  }

  /** Gives every BAR an address, aligned to its size, and switches the function on. */
  enumerate(): void {
    let memory = 0xc000_0000;
    let high = 2 ** 40;
    let io = 0x1000;
    this.fn.bars.forEach((bar: BarInfo | undefined, index) => {
      const bytes = bar === undefined ? 0 : this.size(index);
      const at = PCI_BAR0 + 4 * index;
      if (bar?.kind === 'io') {
        io = Math.ceil(io / bytes) * bytes;
        this.fn.writeConfig(at, 4, io);
        io += bytes;
      } else if (bar?.kind === 'memory32') {
        memory = Math.ceil(memory / bytes) * bytes;
        this.fn.writeConfig(at, 4, memory);
        memory += bytes;
      } else if (bar?.kind === 'memory64') {
        high = Math.ceil(high / bytes) * bytes;
        this.fn.writeConfig(at, 4, high % 2 ** 32);
        this.fn.writeConfig(at + 4, 4, Math.floor(high / 2 ** 32));
        high += bytes;
      }
    });
    this.command(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  }

  /** Sets bits of the command register, and clears others. */
  command(set: number, clear = 0): void {
    const before = this.fn.readConfig(PCI_COMMAND, 2);
    this.fn.writeConfig(PCI_COMMAND, 2, (before | set) & ~clear);
  }
}

/** A space as `lspci -xxxx` prints it, and `lspci -F` reads it. */
export function dumpConfig(
  bytes: number,
  read: (offset: number, length: number) => number,
): string {
  const lines = ['00:04.0 Test'];
  for (let at = 0; at < bytes; at += 16) {
    const row = Array.from({ length: 16 }, (_, i) =>
      read(at + i, 1)
        .toString(16)
        .padStart(2, '0'),
    );
    lines.push(`${at.toString(16).padStart(2, '0')}: ${row.join(' ')}`);
  }
  return `${lines.join('\n')}\n\n`;
}

export interface FullFunctionOptions {
  readonly noSoftReset?: boolean;
  readonly masking?: boolean;
}

/** A function with every capability that there is, and 4 KiB of storage in BAR 0 and 32 bytes in BAR 2. */
export class FullFunction extends PciDevice {
  readonly power: PowerManagement;
  readonly express: Express;
  readonly errors: ErrorReporting;
  readonly sriov: Sriov;
  /** What the callbacks said, in order. */
  readonly resets: ResetKind[] = [];
  readonly vfs: number[] = [];
  readonly master: boolean[] = [];
  readonly storage = new Uint8Array(4096);
  /** DMA on its way. */
  busy = false;
  resumed = 0;

  constructor(options: FullFunctionOptions = {}) {
    const power = new PowerManagement({
      d1: true,
      pme: [0, 3, 4],
      noSoftReset: options.noSoftReset ?? true,
    });
    const express = new Express({ link: { speed: 8, width: 4, currentSpeed: 5 }, maxPayload: 256 });
    const errors = new ErrorReporting(express);
    const vfs: number[] = [];
    const sriov = new Sriov({
      totalVfs: 7,
      firstOffset: 0x80,
      stride: 2,
      vfDevice: 0x10ed,
      bars: [{ kind: 'memory64', bytes: 16384, prefetchable: true }],
      onVfs: (count) => vfs.push(count),
    });
    const capabilities: PciCapability[] = [
      power,
      new Msi({ vectors: 4, masking: options.masking ?? true }),
      express,
      new Msix({ vectors: 5, bar: 3 }),
      vendorSpecific({
        bytes: 8,
        registers: [
          { name: 'WORD', offset: 4, bytes: 4, rw: 0xff00, reset: 0x1234_5678, meaning: 'own' },
        ],
      }),
      errors,
      serialNumber(0x0011_22ff_fe33_4455n),
      accessControl(),
      addressTranslation(16),
      sriov,
      alternativeRouting(),
    ];
    super({
      name: 'full',
      identity: {
        vendor: 0x8086,
        device: 0x10fb,
        revision: 1,
        classCode: 0x02_00_00,
        subsystemVendor: 0x8086,
        subsystem: 0x0003,
        interruptPin: 1,
      },
      bars: [
        { kind: 'memory32', bytes: 4096 },
        undefined,
        { kind: 'io', bytes: 32 },
        { kind: 'memory64', bytes: 16384, prefetchable: true },
      ],
      rom: new Uint8Array(4096).fill(0xaa),
      capabilities,
    });
    this.power = power;
    this.express = express;
    this.errors = errors;
    this.sriov = sriov;
    this.vfs = vfs;
  }

  /** What the device does of its own: for tests to call. */
  get irq() {
    return this.interrupts;
  }

  get space() {
    return this.config;
  }

  finish(): void {
    this.busy = false;
    this.quiesced();
  }

  protected readRegister(_bar: number, offset: number, length: number): number {
    let value = 0;
    for (let i = length - 1; i >= 0; i -= 1) {
      value = value * 256 + (this.storage[offset + i] ?? 0);
    }
    return value;
  }

  protected writeRegister(_bar: number, offset: number, length: number, value: number): void {
    for (let i = 0; i < length; i += 1) {
      this.storage[offset + i] = value >>> (8 * i);
    }
  }

  protected onReset(kind: ResetKind): void {
    this.resets.push(kind);
    this.storage.fill(0);
  }

  protected override onBusMaster(on: boolean): void {
    this.master.push(on);
  }

  protected override quiesce(): boolean {
    return !this.busy;
  }

  protected override onResume(): void {
    this.resumed += 1;
  }
}
