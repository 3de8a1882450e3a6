/** For tests and fuzzers: a function in the same thread, with nothing between it and its driver. */
import { SluiceError } from '../../base/errors.ts';
import type { DmaSpace } from '../../memory/dma.ts';
import type { InterruptSink, PciFunction } from '../../pci/function.ts';
import { BarWindows } from './bar-windows.ts';
import type { InterruptKind, PciBus } from './bus.ts';

/** Memory is what the DMA space says: it is not mapped by the driver. */
export class DirectBus implements PciBus, InterruptSink {
  readonly keepsMasks = true;
  readonly function: PciFunction;
  /** Level of INTx, and the vectors of messages in their order, whether a driver asked for them or not. */
  line = false;
  readonly msi: number[] = [];
  readonly msix: number[] = [];
  busMaster = false;
  /** Accesses to registers. */
  reads = 0;
  writes = 0;
  readonly #windows = new BarWindows((bar, map) => map(this.function.bars[bar]?.areas ?? []));
  #kind: InterruptKind | undefined;
  #count = 0;
  #onInterrupt: ((vector: number) => void) | undefined;
  #intxMasked = false;

  constructor(fn: PciFunction, dma: DmaSpace) {
    this.function = fn;
    fn.attach({
      dma,
      interrupts: this,
      setBusMaster: (on) => {
        this.busMaster = on;
      },
    });
  }

  readConfig(offset: number, bytes: number): number {
    return this.function.readConfig(offset, bytes);
  }

  writeConfig(offset: number, bytes: number, value: number): void {
    this.function.writeConfig(offset, bytes, value);
  }

  read(bar: number, offset: number, bytes: number): number {
    this.reads++;
    return this.function.readBar(bar, offset, bytes);
  }

  write(bar: number, offset: number, bytes: number, value: number): void {
    this.writes++;
    this.function.writeBar(bar, offset, bytes, value >>> 0);
  }

  post(bar: number, offset: number, bytes: number, value: number): void {
    this.write(bar, offset, bytes, value);
  }

  window(bar: number, offset: number, bytes: number): Uint32Array | undefined {
    return this.#windows.find(bar, offset, bytes);
  }

  map(): void {
    throw new SluiceError('unsupported', 'the DMA space of the test is what it is');
  }

  unmap(): void {
    throw new SluiceError('unsupported', 'the DMA space of the test is what it is');
  }

  vectors(kind: InterruptKind): number {
    const { intx, msi, msix } = this.function.irqs;
    return kind === 'intx' ? Number(intx) : kind === 'msi' ? msi : msix;
  }

  setVectors(kind: InterruptKind, count: number, onInterrupt: (vector: number) => void): void {
    this.#kind = kind;
    this.#count = count;
    this.#onInterrupt = onInterrupt;
    if (this.line) this.#tellIntx();
  }

  unmaskIntx(): void {
    this.#intxMasked = false;
    if (this.line) this.#tellIntx();
  }

  reset(): void {
    this.function.reset();
  }

  close(): void {
    this.#windows.release();
    this.function.detach();
  }

  // From the function

  setIntx(asserted: boolean): void {
    this.line = asserted;
    if (asserted) this.#tellIntx();
  }

  signalMsi(vector: number): void {
    this.msi.push(vector);
    this.#tell('msi', vector);
  }

  signalMsix(vector: number): void {
    this.msix.push(vector);
    this.#tell('msix', vector);
  }

  #tellIntx(): void {
    if (this.#intxMasked || this.#kind !== 'intx') return;
    this.#intxMasked = true;
    this.#onInterrupt?.(0);
  }

  #tell(kind: InterruptKind, vector: number): void {
    if (kind === this.#kind && vector < this.#count) this.#onInterrupt?.(vector);
  }
}
