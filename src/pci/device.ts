/**
 * What device models have in common as PCI functions: configuration space, MSI-X in its BAR,
 * interrupts, and resets that wait for DMA on its way. A device adds its registers.
 */

import { SluiceError } from '../base/errors.ts';
import type { DmaSpace } from '../memory/dma.ts';
import { PciConfigSpace, type PciDeclaration } from './config-space.ts';
import type { BarInfo, IrqCounts, PciFunction, PciWiring } from './function.ts';
import { PciInterrupts } from './interrupts.ts';
import { Msi } from './msi.ts';
import { Msix } from './msix.ts';
import type { ResetKind } from './registers.ts';

export abstract class PciDevice implements PciFunction {
  readonly name: string;
  readonly bars: readonly (BarInfo | undefined)[];
  readonly rom: Uint8Array | undefined;
  readonly irqs: IrqCounts;
  readonly configBytes: number;
  onDrained: (() => void) | undefined;
  protected readonly config: PciConfigSpace;
  protected readonly interrupts: PciInterrupts;
  readonly #msix: Msix | undefined;
  #wiring: PciWiring | undefined;
  #busMaster = false;
  #held = false;
  #waiting: ResetKind | undefined;

  /** @throws SluiceError `config` for a declaration that PCI does not have. */
  constructor(declaration: PciDeclaration) {
    const { name, identity, capabilities = [] } = declaration;
    const msi = capabilities.find((one) => one instanceof Msi);
    const msix = capabilities.find((one) => one instanceof Msix);
    this.name = name;
    this.config = new PciConfigSpace(declaration);
    this.config.events = {
      onControlChange: () => this.#control(),
      onResetRequest: (kind) => this.#resetRequest(kind),
    };
    this.bars = this.config.bars;
    this.rom = declaration.rom;
    this.configBytes = this.config.bytes;
    this.interrupts = new PciInterrupts(this.config, msi, msix);
    this.#msix = msix;
    this.irqs = {
      intx: (identity.interruptPin ?? 0) !== 0,
      msi: msi?.vectors ?? 0,
      msix: msix?.vectors ?? 0,
    };
  }

  /** A trap at the device's own registers: inside the BAR, decoded. Unsigned. */
  protected abstract readRegister(bar: number, offset: number, length: number): number;
  protected abstract writeRegister(
    bar: number,
    offset: number,
    length: number,
    value: number,
  ): void;

  /** The device's own state goes back; configuration space and interrupts have already. */
  protected abstract onReset(kind: ResetKind): void;

  /** There is a transport: {@link dma} and interrupts work. */
  protected onAttach(): void {
    // Most devices begin with the guest's first access.
  }

  /** Bus mastering went on or off. */
  protected onBusMaster(_on: boolean): void {
    // Most devices find out when their DMA is refused.
  }

  /**
   * Begins no more DMA. True if none is on its way; else {@link quiesced} is called once none is. A
   * device whose requests outlive a turn of the loop overrides this and {@link onResume}.
   */
  protected quiesce(): boolean {
    return true;
  }

  /** DMA may begin again. Not called before a reset, which brings the device to its beginning. */
  protected onResume(): void {
    // Nothing was stopped.
  }

  /** What {@link quiesce} waited for is done: resets go on, and the transport is told. */
  protected quiesced(): void {
    const kind = this.#waiting;
    if (kind !== undefined) {
      this.#reset(kind);
    }
    if (this.#held) {
      this.onDrained?.();
    }
  }

  /** @throws SluiceError `state` without a transport. */
  protected get dma(): DmaSpace {
    if (this.#wiring === undefined) {
      throw new SluiceError('state', `${this.name} has no transport`);
    }
    return this.#wiring.dma;
  }

  protected get attached(): boolean {
    return this.#wiring !== undefined;
  }

  readConfig(offset: number, length: number): number {
    return this.config.read(offset, length);
  }

  writeConfig(offset: number, length: number, value: number): void {
    this.config.write(offset, length, value);
  }

  readBar(bar: number, offset: number, length: number): number {
    if (!this.#decodes(bar, offset, length)) {
      return length === 4 ? 0xffff_ffff : 2 ** (8 * length) - 1;
    }
    return this.#msix?.covers(bar, offset) === true
      ? this.#msix.read(offset, length)
      : this.readRegister(bar, offset, length);
  }

  writeBar(bar: number, offset: number, length: number, value: number): void {
    if (!this.#decodes(bar, offset, length)) {
      return;
    }
    if (this.#msix?.covers(bar, offset) === true) {
      this.#msix.write(offset, length, value);
    } else {
      this.writeRegister(bar, offset, length, value);
    }
  }

  reset(): void {
    this.#reset('bus');
  }

  attach(wiring: PciWiring): void {
    if (this.#wiring !== undefined) {
      throw new SluiceError('state', `${this.name} has a transport already`);
    }
    this.#wiring = wiring;
    this.#held = false;
    this.#busMaster = this.config.busMaster;
    wiring.setBusMaster(this.#busMaster);
    this.interrupts.connect(wiring.interrupts);
    this.onAttach();
  }

  detach(): void {
    this.#reset('bus');
    this.interrupts.disconnect();
    this.#wiring = undefined;
  }

  hold(): boolean {
    this.#held = true;
    return this.quiesce();
  }

  resume(): void {
    this.#held = false;
    if (this.#waiting === undefined) {
      this.onResume();
    }
  }

  #decodes(bar: number, offset: number, length: number): boolean {
    const info = this.bars[bar];
    if (info === undefined || offset < 0 || offset + length > info.bytes) {
      return false;
    }
    return info.kind === 'io' ? this.config.ioEnabled : this.config.memoryEnabled;
  }

  #control(): void {
    const on = this.config.busMaster;
    if (on !== this.#busMaster) {
      this.#busMaster = on;
      this.#wiring?.setBusMaster(on);
      this.onBusMaster(on);
    }
    this.interrupts.update();
  }

  #resetRequest(kind: ResetKind): void {
    if (this.quiesce()) {
      this.#reset(kind);
    } else {
      // In-flight requests still write to the guest's memory: it must not take the device for quiet.
      this.#waiting = kind;
      this.config.setReady(false);
    }
  }

  #reset(kind: ResetKind): void {
    this.#waiting = undefined;
    this.config.setReady(true);
    // First the causes: the line must not flicker when the command register lets it go.
    this.interrupts.reset();
    this.config.reset(kind);
    this.onReset(kind);
  }
}
