/**
 * The AHCI 1.3.1 controller as a PCI function: Intel's ICH9, as QEMU's `ich9-ahci`. Registers trap into
 * {@link Ahci}; commands are done by the poll that follows.
 *
 * Its owner adds it to the lane's loop as a poller while a guest is there.
 */
import { alignUp } from '../../base/bits.ts';
import type { CounterBlock } from '../../base/counters.ts';
import { SluiceError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Arena } from '../../memory/arena.ts';
import type { DmaSpace } from '../../memory/dma.ts';
import type { Poller, PollLoop } from '../../os/poll-loop.ts';
import { PciDevice } from '../../pci/device.ts';
import { Msi } from '../../pci/msi.ts';
import { advancedFeatures } from '../../pci/plain-capabilities.ts';
import { PowerManagement } from '../../pci/power-management.ts';
import type { ResetKind } from '../../pci/registers.ts';
import * as spec from '../../spec/ahci.ts';
import type { AtaDevice } from './ata-device.ts';
import { ENGINE_MEMORY, type EngineHost, TAG_PORT_SHIFT } from './command-engine.ts';
import { type AhciCounter, AHCI_COUNTER_INDEX as COUNT, newAhciCounters } from './counters.ts';
import { AhciPort } from './port.ts';

const DEFAULT_PORTS = 6;
const PORTS_END = spec.AHCI_PORTS + spec.AHCI_MAX_PORTS * spec.AHCI_PORT_BYTES;
/** BAR 5: generic registers and 32 ports, rounded up to a power of two. */
const BAR_BYTES = 8192;
const INTA = 1;

export interface AhciOptions {
  /** Unique in the lane, such as `web/ahci0`. */
  readonly name: string;
  /** 1 to 32. Default: 6, as the ICH9 has. */
  readonly ports?: number;
  readonly counters?: CounterBlock<AhciCounter>;
  readonly arena: Arena;
  readonly loop: PollLoop;
  readonly log: Logger;
}

export class Ahci extends PciDevice implements Poller, EngineHost {
  readonly arena: Arena;
  readonly loop: PollLoop;
  readonly log: Logger;
  readonly counterBlock: CounterBlock<AhciCounter>;
  readonly counters: Float64Array;
  held = false;
  private readonly ports: readonly AhciPort[];
  private readonly memory: number;
  private readonly memoryBytes: number;
  private readonly capabilities: number;
  private control = spec.AHCI_GHC_AHCI_ENABLE;
  /** IS: a bit a port. */
  private status = 0;
  /** GHC.HR: until no DMA is on its way. */
  private resetting = false;
  private waiting = false;

  /** @throws SluiceError `config` for a number of ports that there cannot be */
  constructor(options: AhciOptions) {
    const { name, ports = DEFAULT_PORTS, arena, loop, log } = options;
    if (!Number.isInteger(ports) || ports < 1 || ports > spec.AHCI_MAX_PORTS) {
      throw new SluiceError('config', `${name}: ${ports} ports`, {
        remedy: `give 1 to ${spec.AHCI_MAX_PORTS}`,
      });
    }
    super({
      name,
      identity: {
        vendor: spec.ICH9_AHCI_VENDOR,
        device: spec.ICH9_AHCI_DEVICE,
        revision: spec.ICH9_AHCI_REVISION,
        classCode: spec.AHCI_CLASS_CODE,
        interruptPin: INTA,
      },
      bars: [
        ...new Array<undefined>(spec.AHCI_BAR).fill(undefined),
        { kind: 'memory32', bytes: BAR_BYTES },
      ],
      capabilities: [new Msi({ vectors: 1 }), new PowerManagement(), advancedFeatures()],
    });
    this.arena = arena;
    this.loop = loop;
    this.log = log;
    this.counterBlock = options.counters ?? newAhciCounters();
    this.counters = this.counterBlock.values;
    const portBytes = alignUp(ENGINE_MEMORY, 64);
    this.memoryBytes = ports * portBytes;
    this.memory = arena.allocate(this.memoryBytes, 'sluice-ahci');
    this.ports = Array.from(
      { length: ports },
      (_, i) => new AhciPort(this, i, this.memory + i * portBytes),
    );
    this.capabilities =
      (ports - 1) |
      ((spec.AHCI_MAX_SLOTS - 1) << spec.AHCI_CAP_SLOTS_SHIFT) |
      spec.AHCI_CAP_PIO_MULTIPLE_DRQ |
      spec.AHCI_CAP_AHCI_ONLY |
      (spec.SATA_GENERATION_3 << spec.AHCI_CAP_SPEED_SHIFT) |
      spec.AHCI_CAP_CLO |
      spec.AHCI_CAP_NCQ |
      spec.AHCI_CAP_64BIT;
  }

  /** The guest's memory; undefined without a guest. */
  get space(): DmaSpace | undefined {
    return this.attached ? this.dma : undefined;
  }

  /** Plugs a drive into a port: at any time. @throws SluiceError `state` if there is one */
  insert(port: number, device: AtaDevice): void {
    this.port(port).insert(device);
    this.update();
  }

  /**
   * Takes a drive out: the guest sees it go at once; `done` is called when its disk is not used any more.
   * @throws SluiceError `state` if there is none
   */
  remove(port: number, done: () => void): void {
    this.port(port).remove(done);
    this.update();
  }

  /** Gives the lane's memory back. @throws SluiceError `state` while a drive is plugged in */
  close(): void {
    for (const port of this.ports) {
      if (port.occupied) throw new SluiceError('state', `${this.name}: closed with drives in it`);
    }
    this.arena.unmap(this.memory, this.memoryBytes);
  }

  poll(): number {
    let work = 0;
    const { ports } = this;
    for (let i = 0; i < ports.length; i++) work += (ports[i] as AhciPort).poll();
    if (this.resetting || this.waiting) this.settle();
    this.update();
    return work;
  }

  arm(): boolean {
    let pending = false;
    for (const port of this.ports) pending = port.arm() || pending;
    return pending;
  }

  disarm(): void {
    for (const port of this.ports) port.disarm();
  }

  protected readRegister(_bar: number, offset: number, length: number): number {
    this.count(COUNT.traps);
    const shift = (offset & 3) * 8;
    const low = this.readWord(offset & ~3) >>> shift;
    if (shift + length * 8 <= 32) return length === 4 ? low : low & (2 ** (length * 8) - 1);
    const high = this.readWord((offset & ~3) + 4) << (32 - shift);
    return length === 4 ? (low | high) >>> 0 : (low | high) & 0xffff;
  }

  protected writeRegister(_bar: number, offset: number, length: number, value: number): void {
    this.count(COUNT.traps);
    if (length === 4 && (offset & 3) === 0) {
      this.writeWord(offset, value);
    } else {
      for (let i = 0; i < length; i++) this.writeByte(offset + i, (value >>> (8 * i)) & 0xff);
    }
    this.update();
  }

  protected onReset(_kind: ResetKind): void {
    this.held = false;
    this.waiting = false;
    this.count(COUNT.resets);
    this.resetRegisters(true);
    this.update();
  }

  protected override onAttach(): void {
    this.held = false;
    const { ports } = this;
    this.dma.onDone = (tag, ok) => {
      ports[tag >> TAG_PORT_SHIFT]?.dmaDone(tag, ok);
      if (this.resetting || this.waiting) this.settle();
      this.update();
    };
    for (const port of ports) port.engine.receive.forget();
  }

  protected override quiesce(): boolean {
    this.held = true;
    if (this.quiet) return true;
    this.waiting = true;
    return false;
  }

  protected override onResume(): void {
    this.held = false;
    this.waiting = false;
  }

  private get quiet(): boolean {
    for (const port of this.ports) if (!port.quiet) return false;
    return true;
  }

  /** What waited for the end of all DMA. */
  private settle(): void {
    if (!this.quiet) return;
    if (this.resetting) {
      this.resetting = false;
      this.resetRegisters(false);
    }
    if (this.waiting) {
      this.waiting = false;
      this.quiesced();
    }
  }

  private resetRegisters(all: boolean): void {
    this.control = spec.AHCI_GHC_AHCI_ENABLE;
    this.status = 0;
    this.resetting = false;
    for (const port of this.ports) port.reset(all);
  }

  /** Unsigned. */
  private readWord(offset: number): number {
    if (offset >= spec.AHCI_PORTS && offset < PORTS_END) {
      const index = (offset - spec.AHCI_PORTS) >> 7;
      return this.ports[index]?.read(offset & 0x7f) ?? 0;
    }
    switch (offset) {
      case spec.AHCI_CAP:
        return this.capabilities >>> 0;
      case spec.AHCI_GHC:
        return (this.control | (this.resetting ? spec.AHCI_GHC_RESET : 0)) >>> 0;
      case spec.AHCI_IS:
        return this.status >>> 0;
      case spec.AHCI_PI:
        return 2 ** this.ports.length - 1;
      case spec.AHCI_VS:
        return spec.AHCI_VERSION_1_3_1;
      default:
        return 0;
    }
  }

  private writeWord(offset: number, value: number): void {
    // While it resets, a controller takes nothing (§10.4.3).
    if (this.resetting) return;
    if (offset >= spec.AHCI_PORTS && offset < PORTS_END) {
      const index = (offset - spec.AHCI_PORTS) >> 7;
      this.ports[index]?.write(offset & 0x7f, value);
      return;
    }
    if (offset === spec.AHCI_IS) {
      this.status &= ~value;
      // Ports that still ask for an interrupt set their bits again.
      for (const port of this.ports) port.regs.changed = true;
    } else if (offset === spec.AHCI_GHC) {
      this.writeControl(value);
    }
  }

  /** A byte of a register: bits that a one sets or clears are not touched by the other bytes. */
  private writeByte(offset: number, value: number): void {
    const word = offset & ~3;
    const shift = (offset & 3) * 8;
    const kept = actsOnOnes(word) ? 0 : this.readWord(word) & ~(0xff << shift);
    this.writeWord(word, (kept | (value << shift)) >>> 0);
  }

  private writeControl(value: number): void {
    if ((value & spec.AHCI_GHC_RESET) !== 0) {
      this.count(COUNT.resets);
      for (const port of this.ports) port.engine.stop();
      this.resetting = true;
      this.settle();
      return;
    }
    const enable = value & spec.AHCI_GHC_INTERRUPT_ENABLE;
    const isNew = enable !== 0 && (this.control & enable) === 0;
    this.control = spec.AHCI_GHC_AHCI_ENABLE | enable;
    this.tell(isNew && this.status !== 0);
  }

  /** Gathers what the ports ask for (§10.7). */
  private update(): void {
    const { ports } = this;
    const before = this.status;
    let hasChanged = false;
    for (let i = 0; i < ports.length; i++) {
      const { regs } = ports[i] as AhciPort;
      if (!regs.changed) continue;
      regs.changed = false;
      hasChanged = true;
      if (regs.pending) this.status |= 1 << i;
    }
    if (hasChanged) this.tell((this.status & ~before) !== 0);
  }

  /** The line follows IS; a message is sent when a bit of it becomes set. */
  private tell(isNew: boolean): void {
    const isEnabled = (this.control & spec.AHCI_GHC_INTERRUPT_ENABLE) !== 0;
    const { interrupts } = this;
    interrupts.setLevel(isEnabled && this.status !== 0);
    if (!isEnabled || !isNew) return;
    this.count(COUNT.interrupts);
    interrupts.signal(0);
  }

  private port(index: number): AhciPort {
    const port = this.ports[index];
    if (port === undefined) throw new SluiceError('not-found', `${this.name}: no port ${index}`);
    return port;
  }

  private count(counter: number): void {
    this.counters[counter] = (this.counters[counter] as number) + 1;
  }
}

/** Registers whose bits are set or cleared by ones: IS, PxIS, PxSERR, PxSACT, PxCI. */
function actsOnOnes(word: number): boolean {
  if (word < spec.AHCI_PORTS) return word === spec.AHCI_IS;
  const port = word & 0x7f;
  return (
    port === spec.PX_IS || port === spec.PX_SERR || port === spec.PX_SACT || port === spec.PX_CI
  );
}
