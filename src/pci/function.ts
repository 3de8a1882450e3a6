/**
 * The seam between a PCI function (a device model) and what carries it to a guest (vfio-user, a
 * test double): configuration space, traps, DMA and interrupts. One lane owns a function wholly; all
 * calls are made in that lane.
 */
import type { DmaSpace } from '../memory/dma.ts';

/** I/O space, memory below 4 GiB, memory anywhere (which takes two BARs). */
export type BarKind = 'io' | 'memory32' | 'memory64';

/** A piece of a BAR that a guest may map: its loads and stores there are no traps. */
export interface MappableArea {
  /** From the start of the BAR, in bytes: a multiple of the page size, as `bytes` is. */
  readonly offset: number;
  readonly bytes: number;
  /** Descriptor of the memory behind it, and where in that memory it begins. The function keeps it open. */
  readonly fd: number;
  readonly fdOffset: number;
}

export interface BarInfo {
  readonly kind: BarKind;
  /** A power of two: at least 16 for memory, 4 for I/O. */
  readonly bytes: number;
  /** Reads have no side effects and writes may be merged (PCI 3.0 §6.2.5.1). Memory only. */
  readonly prefetchable: boolean;
  /** Empty: every access is a trap. Ascending, without overlap. */
  readonly areas: readonly MappableArea[];
}

/** How many vectors of each kind there are; `msi` and `msix` are 0 without the capability. */
export interface IrqCounts {
  readonly intx: boolean;
  readonly msi: number;
  readonly msix: number;
}

/** Where a function's interrupts go. The transport drops what the guest has not set up. */
export interface InterruptSink {
  /**
   * Who keeps the table of MSI-X and the masks of MSI: the transport, where the guest's VMM does it
   * by itself (vfio: the function never sees a write to the table, and every vector whose interrupt is
   * enabled is told), else the function, by the table in its BAR.
   */
  readonly keepsMasks: boolean;
  /** Level of the function's INTx line: true is asserted. Told on changes only. */
  setIntx(asserted: boolean): void;
  /** One message of this vector (0 …). */
  signalMsi(vector: number): void;
  signalMsix(vector: number): void;
}

/** What a function is given by its transport. */
export interface PciWiring {
  readonly dma: DmaSpace;
  readonly interrupts: InterruptSink;
  /** Bus Master Enable (while powered): told at once by `attach`, then on changes. Off: no DMA happens. */
  setBusMaster(on: boolean): void;
}

export interface PciFunction {
  /** Unique in the lane. */
  readonly name: string;
  /** Six entries. The upper half of a `memory64` BAR is undefined. */
  readonly bars: readonly (BarInfo | undefined)[];
  /** The image behind the expansion ROM BAR, whose size is that of the image, a power of two. */
  readonly rom: Uint8Array | undefined;
  readonly irqs: IrqCounts;
  /** Bytes of configuration space: 256, or 4096 with extended capabilities. */
  readonly configBytes: number;

  /**
   * Configuration space. `length` 1, 2 or 4, any offset, aligned or not; unsigned, little-endian.
   * Never throws: within the space, what is not implemented reads as zeros; beyond it, bytes read as
   * ones and writes do nothing, as of a function that is not there (PCI 3.0 §6.1).
   */
  readConfig(offset: number, length: number): number;
  writeConfig(offset: number, length: number, value: number): void;

  /**
   * A trap: `length` 1, 2 or 4 (a transport splits 8), unsigned. Never throws for what a guest does:
   * what is not there reads as zeros or ones as the device's manual says.
   */
  readBar(bar: number, offset: number, length: number): number;
  writeBar(bar: number, offset: number, length: number, value: number): void;

  /** A reset from outside: of the bus or slot. No DMA is on its way: the transport held and waited. */
  reset(): void;

  /**
   * The transport gives both before the first access to a BAR. A sink must know the level of the line
   * at once: an asserted INTx is told from within.
   */
  attach(wiring: PciWiring): void;
  /** The guest is gone. No DMA is on its way: see {@link hold}. The function is as after a reset. */
  detach(): void;

  // What only functions with requests that outlive a turn of the loop have (as `VirtioDevice`).

  /** Begins no more DMA. True if none is on its way; else {@link onDrained} is called once none is. */
  hold?(): boolean;
  /** Ends a hold, where the function is not detached or reset after it. */
  resume?(): void;
  /** Set by the transport: what was under way is done. It detaches later, not from within. */
  onDrained?: (() => void) | undefined;
}
