/**
 * A port of the controller: its registers as a guest reads and writes them, the link to the drive, and
 * starting and stopping the engine that does its commands (AHCI §3.3, §10).
 */
import { TWO_32 } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import * as ahci from '../../spec/ahci.ts';
import { STATUS_BSY } from '../../spec/ata.ts';
import type { AtaDevice } from './ata-device.ts';
import { CommandEngine, type EngineHost } from './command-engine.ts';
import { PortRegisters } from './port-registers.ts';

/** Status where no drive is (§3.3.8). */
const NO_DEVICE = 0x7f;
const ALWAYS_ON = ahci.PX_CMD_SUD | ahci.PX_CMD_POD | ahci.PX_CMD_HPCP;

export class AhciPort {
  readonly regs = new PortRegisters();
  readonly engine: CommandEngine;
  private readonly name: string;
  /** ST was cleared, and DMA is still on its way: CR stays until it is not. */
  private stopping = false;
  /** The link is up and the drive has yet to tell its signature. */
  private signatureDue = false;
  /** The drive was reset with the link: once nothing is on its way. */
  private driveResetDue = false;
  /** The drive is being taken out. */
  private onRemoved: (() => void) | undefined;

  constructor(host: EngineHost, index: number, memory: number) {
    this.name = `${host.name}: port ${index}`;
    this.engine = new CommandEngine(host, index, this.regs, memory);
    this.reset(true);
  }

  /** A drive, or one that is being taken out, is there. */
  get occupied(): boolean {
    return this.engine.device !== undefined;
  }

  /** Nothing but a guest's access or {@link insert} can change anything. */
  get asleep(): boolean {
    return !this.occupied && !this.stopping;
  }

  /** No DMA is on its way. */
  get quiet(): boolean {
    return this.engine.quiet;
  }

  /** Plugs a drive in, while the guest runs or before. @throws SluiceError `state` if there is one */
  insert(device: AtaDevice): void {
    if (this.occupied) throw new SluiceError('state', `${this.name} has a drive already`);
    this.engine.plug(device);
    this.driveResetDue = true;
    const control = this.regs.get(ahci.PX_SCTL) & ahci.PX_SCTL_DET_MASK;
    if (control === 0) this.linkUp();
  }

  /**
   * Takes the drive out: at once for the guest. `done` is called, possibly from within, when the drive's
   * disk is no longer used.
   * @throws SluiceError `state` if there is none
   */
  remove(done: () => void): void {
    if (!this.occupied || this.onRemoved !== undefined) {
      throw new SluiceError('state', `${this.name} has no drive`);
    }
    this.onRemoved = done;
    this.stopEngine();
    this.linkDown(0);
    this.regs.setError(this.regs.get(ahci.PX_SERR) | ahci.PX_SERR_DIAG_PHYRDY);
    this.settle();
  }

  /** `all`: a reset of the function; else of the controller, which keeps the addresses (§10.4.3). */
  reset(all: boolean): void {
    const { regs, engine } = this;
    const [list, listHigh] = [regs.get(ahci.PX_CLB), regs.get(ahci.PX_CLBU)];
    const [area, areaHigh] = [regs.get(ahci.PX_FB), regs.get(ahci.PX_FBU)];
    this.stopEngine();
    this.stopping = false;
    regs.words.fill(0);
    if (!all) {
      regs.set(ahci.PX_CLB, list);
      regs.set(ahci.PX_CLBU, listHigh);
      regs.set(ahci.PX_FB, area);
      regs.set(ahci.PX_FBU, areaHigh);
    }
    this.placeStructures();
    regs.set(ahci.PX_CMD, ALWAYS_ON);
    engine.receive.enabled = false;
    this.linkDown(0);
    regs.changed = true;
    if (this.occupied && this.onRemoved === undefined) {
      this.driveResetDue = true;
      this.linkUp();
    }
  }

  read(offset: number): number {
    return this.regs.get(offset);
  }

  /** A write to a whole register. */
  write(offset: number, value: number): void {
    const { regs } = this;
    const isRunning = (regs.get(ahci.PX_CMD) & ahci.PX_CMD_ST) !== 0;
    switch (offset) {
      case ahci.PX_CLB:
        regs.set(offset, value & ~0x3ff);
        this.placeStructures();
        return;
      case ahci.PX_FB:
        regs.set(offset, value & ~0xff);
        this.placeStructures();
        return;
      case ahci.PX_CLBU:
      case ahci.PX_FBU:
        regs.set(offset, value);
        this.placeStructures();
        return;
      case ahci.PX_IS:
        regs.acknowledge(value & ahci.PX_IS_CLEARABLE);
        return;
      case ahci.PX_IE:
        regs.set(offset, value & ahci.PX_IE_WRITABLE);
        regs.changed = true;
        return;
      case ahci.PX_CMD:
        this.writeCommand(value);
        return;
      case ahci.PX_SCTL:
        this.writeControl(value & ahci.PX_SCTL_WRITABLE);
        return;
      case ahci.PX_SERR:
        regs.setError(regs.get(offset) & ~value);
        return;
      case ahci.PX_SACT:
      case ahci.PX_CI:
        // Taken up by the next poll.
        if (isRunning) regs.setBits(offset, value);
        return;
      default:
    }
  }

  poll(): number {
    if (this.asleep) return 0;
    const work = this.engine.poll();
    this.settle();
    return work;
  }

  /** The lane wants to sleep. True if there is work that {@link poll} would do. */
  arm(): boolean {
    return !this.asleep && this.engine.arm();
  }

  disarm(): void {
    this.engine.disarm();
  }

  dmaDone(tag: number, ok: boolean): void {
    this.engine.dmaDone(tag, ok);
    this.settle();
  }

  /** Does what waits until nothing is on its way. */
  settle(): void {
    const { engine, regs } = this;
    if (!engine.quiet) return;
    if (this.stopping) {
      this.stopping = false;
      regs.clearBits(ahci.PX_CMD, ahci.PX_CMD_CR);
      if ((regs.get(ahci.PX_CMD) & ahci.PX_CMD_ST) !== 0) this.startEngine();
    }
    if (this.onRemoved !== undefined) {
      if (!engine.idle) return;
      const done = this.onRemoved;
      this.onRemoved = undefined;
      engine.unplug();
      done();
      return;
    }
    if (this.driveResetDue) {
      this.driveResetDue = false;
      engine.device?.reset(true);
    }
    if (this.signatureDue && engine.receive.enabled) {
      this.signatureDue = false;
      engine.tellSignature();
    }
  }

  private writeCommand(value: number): void {
    const { regs, engine } = this;
    const before = regs.get(ahci.PX_CMD);
    const isFrozen = (before & (ahci.PX_CMD_ST | ahci.PX_CMD_CR)) !== 0;
    let kept = before & ~ahci.PX_CMD_WRITABLE;
    let written = value & ahci.PX_CMD_WRITABLE;
    // FRE stays while commands are done (§10.3.2).
    if (isFrozen) written |= before & ahci.PX_CMD_FRE;
    kept = (written & ahci.PX_CMD_FRE) !== 0 ? kept | ahci.PX_CMD_FR : kept & ~ahci.PX_CMD_FR;
    regs.set(ahci.PX_CMD, kept | written);
    engine.receive.enabled = (written & ahci.PX_CMD_FRE) !== 0;
    if ((value & ahci.PX_CMD_CLO) !== 0 && (before & ahci.PX_CMD_ST) === 0) {
      const { status } = regs;
      regs.set(ahci.PX_TFD, (regs.get(ahci.PX_TFD) & 0xff00) | (status & ~0x88));
    }
    const wasOn = (before & ahci.PX_CMD_ST) !== 0;
    const isOn = (written & ahci.PX_CMD_ST) !== 0;
    if (wasOn && !isOn) {
      this.stopEngine();
      regs.clearCommands();
    } else if (!wasOn && isOn && !this.stopping) {
      this.startEngine();
    }
    this.settle();
  }

  private startEngine(): void {
    this.engine.running = true;
    this.regs.setBits(ahci.PX_CMD, ahci.PX_CMD_CR);
  }

  private stopEngine(): void {
    const { engine, regs } = this;
    engine.stop();
    // The guest may have its memory back only when no DMA is on its way any more.
    if ((regs.get(ahci.PX_CMD) & ahci.PX_CMD_CR) !== 0) this.stopping = true;
  }

  private writeControl(value: number): void {
    const { regs } = this;
    const before = regs.get(ahci.PX_SCTL) & ahci.PX_SCTL_DET_MASK;
    const now = value & ahci.PX_SCTL_DET_MASK;
    regs.set(ahci.PX_SCTL, value);
    if (now === before) return;
    if (now === ahci.PX_SCTL_DET_COMRESET || now === ahci.PX_SCTL_DET_OFFLINE) {
      this.engine.stop();
      this.driveResetDue = true;
      this.linkDown(now === ahci.PX_SCTL_DET_OFFLINE ? ahci.PX_SSTS_DET_OFFLINE : 0);
    } else if (now === 0) {
      this.linkDown(0);
      if (this.occupied && this.onRemoved === undefined) this.linkUp();
      // The engine runs on if ST was left set, though it should not have been (§10.1.2).
      this.engine.running = (regs.get(ahci.PX_CMD) & ahci.PX_CMD_CR) !== 0 && !this.stopping;
    }
    this.settle();
  }

  /** COMINIT came: the phy is ready, and the drive will send its first FIS. */
  private linkUp(): void {
    const { regs } = this;
    const limit = (regs.get(ahci.PX_SCTL) >> ahci.PX_SCTL_SPD_SHIFT) & ahci.PX_SCTL_SPD_MASK;
    const speed = limit === 0 ? ahci.SATA_GENERATION_3 : Math.min(limit, ahci.SATA_GENERATION_3);
    regs.set(
      ahci.PX_SSTS,
      ahci.PX_SSTS_IPM_ACTIVE | (speed << ahci.PX_SSTS_SPD_SHIFT) | ahci.PX_SSTS_DET_ONLINE,
    );
    regs.setTaskfile(STATUS_BSY, 0);
    regs.setError(regs.get(ahci.PX_SERR) | ahci.PX_SERR_DIAG_EXCHANGED | ahci.PX_SERR_DIAG_PHYRDY);
    this.signatureDue = true;
    this.settle();
  }

  private linkDown(state: number): void {
    const { regs } = this;
    this.signatureDue = false;
    regs.set(ahci.PX_SSTS, state);
    regs.setTaskfile(NO_DEVICE, 0);
    regs.clearSignature();
  }

  private placeStructures(): void {
    const { regs, engine } = this;
    engine.commandList[0] = address(regs.get(ahci.PX_CLBU), regs.get(ahci.PX_CLB));
    engine.receive.iova[0] = address(regs.get(ahci.PX_FBU), regs.get(ahci.PX_FB));
    engine.receive.forget();
  }
}

/** As an exact number: what is beyond 2^53 becomes an address that no map has. */
function address(high: number, low: number): number {
  return Math.min(high, 2 ** 21 - 1) * TWO_32 + low;
}
