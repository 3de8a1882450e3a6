/**
 * The configuration space of a function, made from a declaration: header, BARs, capabilities. It
 * keeps what may be written, lays capabilities out, and tells its owner of what the guest decides:
 * bus mastering, decoding, INTx, resets.
 */
import { alignUp, TWO_32 } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import {
  PCI_BAR_IO,
  PCI_BAR0,
  PCI_CAP_ID_EXPRESS,
  PCI_CAPABILITIES_POINTER,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_CONFIG_BYTES,
  PCI_FIRST_CAPABILITY,
  PCI_ROM_BAR,
  PCI_ROM_ENABLE,
  PCI_STATUS,
  PCI_STATUS_INTERRUPT,
  PCIE_CONFIG_BYTES,
  PCIE_EXT_NEXT_SHIFT,
  PCIE_EXT_VERSION_SHIFT,
  PCIE_FIRST_EXTENDED,
} from '../spec/pci.ts';
import { type BarList, barRegisters, completeBars, romRegister } from './bars.ts';
import type { BarInfo } from './function.ts';
import { headerRegisters, type PciIdentity } from './header.ts';
import type { PciRegister, ResetKind } from './registers.ts';

/** A capability, or an extended one: its registers, and what it does when they change. */
export interface PciCapability {
  readonly name: string;
  readonly id: number;
  /** Extended capabilities only (PCIe §7.6): their version. */
  readonly version?: number;
  /** With the header, whose id and pointer are not among the registers. */
  readonly bytes: number;
  readonly registers: readonly PciRegister[];
  /** Where it is to begin, in bytes from the start of the space. Default: behind the one before. */
  readonly at?: number;
  /** Placed at `offset`: the time to hook registers. */
  bind?(space: PciConfigSpace, offset: number): void;
  /** After the registers were reset: what is kept beside them. */
  reset?(kind: ResetKind): void;
}

export interface PciDeclaration {
  /** For messages: the function's name. */
  readonly name: string;
  readonly identity: PciIdentity;
  readonly bars?: BarList;
  readonly rom?: Uint8Array | undefined;
  /** In the order of their lists. With the PCI Express capability the space has 4096 bytes. */
  readonly capabilities?: readonly PciCapability[];
}

/** What the owner of a space is told. */
export interface ConfigEvents {
  /** Memory space, I/O space, bus mastering or INTx went on or off. Ask the space. */
  onControlChange(): void;
  /** The guest resets the function. The owner calls {@link PciConfigSpace.reset} when it is quiet. */
  onResetRequest(kind: ResetKind): void;
}

/**
 * Called when any byte of a register was written, after that. `strobes`: the strobe bits that were
 * written as ones.
 */
export type RegisterHook = (strobes: number) => void;

/** A register at its place. */
export interface PlacedRegister extends PciRegister {
  /** The capability it belongs to, or `header`. */
  readonly owner: string;
}

/** In what {@link PciConfigSpace} keeps of the command register: not in D0. */
const UNPOWERED = 1 << 16;

export class PciConfigSpace {
  readonly bytes: number;
  readonly bars: readonly (BarInfo | undefined)[];
  readonly rom: Uint8Array | undefined;
  /** All registers, in the order of their declaration. */
  readonly registers: readonly PlacedRegister[];
  events: ConfigEvents | undefined;

  readonly #name: string;
  readonly #capabilities: readonly PciCapability[];
  readonly #data: Uint8Array;
  readonly #reset: Uint8Array;
  readonly #rw: Uint8Array;
  readonly #rw1c: Uint8Array;
  readonly #strobe: Uint8Array;
  readonly #sticky: Uint8Array;
  readonly #keptByFlr: Uint8Array;
  /** Of each byte: 1 + the index of its register; 0: none. */
  readonly #owner: Uint16Array;
  readonly #hooks: (RegisterHook | undefined)[] = [];
  #ready = true;
  #powered = true;
  #control = 0;

  /** @throws SluiceError `config` for what does not fit, overlaps, or is not possible in PCI. */
  constructor(declaration: PciDeclaration) {
    const { name, identity, bars = [], rom, capabilities = [] } = declaration;
    this.#name = name;
    this.#capabilities = capabilities;
    const express = capabilities.some(
      (one) => one.version === undefined && one.id === PCI_CAP_ID_EXPRESS,
    );
    this.bytes = express ? PCIE_CONFIG_BYTES : PCI_CONFIG_BYTES;
    this.bars = completeBars(name, bars);
    this.rom = rom;
    this.#data = new Uint8Array(this.bytes);
    this.#reset = new Uint8Array(this.bytes);
    this.#rw = new Uint8Array(this.bytes);
    this.#rw1c = new Uint8Array(this.bytes);
    this.#strobe = new Uint8Array(this.bytes);
    this.#sticky = new Uint8Array(this.bytes);
    this.#keptByFlr = new Uint8Array(this.bytes);
    this.#owner = new Uint16Array(this.bytes);

    const placed: PlacedRegister[] = [];
    const place = (owner: string, base: number, registers: readonly PciRegister[]): void => {
      for (const register of registers) {
        const one = { ...register, owner, offset: base + register.offset };
        placed.push(one);
        this.#place(one, placed.length);
      }
    };
    const conventional = capabilities.filter((one) => one.version === undefined);
    const extended = capabilities.filter((one) => one.version !== undefined);
    place(
      'header',
      0,
      headerRegisters(identity, {
        bars: this.bars,
        express,
        capabilities: conventional.length > 0,
      }),
    );
    place('header', 0, barRegisters(this.bars, PCI_BAR0, 'BAR'));
    if (rom !== undefined) {
      place('header', 0, [romRegister(name, rom.length)]);
    }
    const offsets = new Map<PciCapability, number>();
    this.#chain(conventional, PCI_FIRST_CAPABILITY, PCI_CONFIG_BYTES, offsets);
    this.#chain(extended, PCIE_FIRST_EXTENDED, this.bytes, offsets);
    const first = conventional[0];
    place('header', 0, [
      {
        name: 'CAPABILITIES_POINTER',
        offset: PCI_CAPABILITIES_POINTER,
        bytes: 1,
        reset: first === undefined ? 0 : (offsets.get(first) as number),
        meaning: 'first capability',
      },
    ]);
    for (const [list, isExtended] of [
      [conventional, false],
      [extended, true],
    ] as const) {
      list.forEach((capability, index) => {
        const base = offsets.get(capability) as number;
        const following = list[index + 1];
        const next = following === undefined ? 0 : (offsets.get(following) as number);
        place(capability.name, base, [capabilityHeader(capability, next, isExtended)]);
        place(capability.name, base, capability.registers);
      });
    }
    this.registers = placed;
    this.#data.set(this.#reset);
    this.onWrite(PCI_COMMAND, () => this.#refresh());
    for (const [capability, offset] of offsets) {
      capability.bind?.(this, offset);
    }
  }

  /** Lays capabilities out, one behind the other where they do not say where they want to be. */
  #chain(
    list: readonly PciCapability[],
    from: number,
    end: number,
    offsets: Map<PciCapability, number>,
  ): void {
    let next = from;
    for (const capability of list) {
      const at = capability.at ?? next;
      if (at < from || at % 4 !== 0 || at + capability.bytes > end) {
        throw new SluiceError(
          'config',
          `${this.#name}: capability ${capability.name} does not fit at ${hex(at)}`,
        );
      }
      for (const [other, start] of offsets) {
        if (at < start + other.bytes && start < at + capability.bytes) {
          throw new SluiceError(
            'config',
            `${this.#name}: capability ${capability.name} lies upon ${other.name}`,
          );
        }
      }
      offsets.set(capability, at);
      next = alignUp(at + capability.bytes, 4);
    }
    const first = list[0];
    // An extended list without an entry at its start is none (PCIe §7.6.1).
    if (from === PCIE_FIRST_EXTENDED && first !== undefined && offsets.get(first) !== from) {
      throw new SluiceError('config', `${this.#name}: no extended capability at ${hex(from)}`);
    }
  }

  #place(register: PlacedRegister, owner: number): void {
    const { offset, bytes } = register;
    if (offset < 0 || offset + bytes > this.bytes) {
      throw new SluiceError('config', `${this.#name}: ${register.name} lies outside of the space`);
    }
    for (let i = 0; i < bytes; i += 1) {
      const at = offset + i;
      if (this.#owner[at] !== 0) {
        throw new SluiceError(
          'config',
          `${this.#name}: ${register.owner}.${register.name} at ${hex(at)} lies upon another register`,
        );
      }
      this.#owner[at] = owner;
      const byte = (mask: number | undefined): number => ((mask ?? 0) >>> (8 * i)) & 0xff;
      this.#reset[at] = byte(register.reset);
      this.#rw[at] = byte(register.rw);
      this.#rw1c[at] = byte(register.rw1c);
      this.#strobe[at] = byte(register.strobe);
      this.#sticky[at] = byte(register.sticky);
      this.#keptByFlr[at] = byte(register.keptByFlr);
    }
  }

  /** A guest's read: see `PciFunction.readConfig`. */
  read(offset: number, length: number): number {
    let value = 0;
    for (let i = length - 1; i >= 0; i -= 1) {
      const at = offset + i;
      const inside = at >= 0 && at < this.bytes && this.#ready;
      value = (value << 8) | (inside ? (this.#data[at] as number) : 0xff);
    }
    return value >>> 0;
  }

  /** A guest's write: see `PciFunction.writeConfig`. */
  write(offset: number, length: number, value: number): void {
    if (!this.#ready) {
      return;
    }
    const from = Math.max(offset, 0);
    const end = Math.min(offset + length, this.bytes);
    for (let at = from; at < end; at += 1) {
      const byte = (value >>> (8 * (at - offset))) & 0xff;
      const rw = this.#rw[at] as number;
      const kept = (this.#data[at] as number) & ~rw;
      this.#data[at] = (kept | (byte & rw)) & ~(byte & (this.#rw1c[at] as number));
    }
    for (let at = from; at < end; ) {
      const owner = this.#owner[at] as number;
      if (owner === 0) {
        at += 1;
        continue;
      }
      const register = this.registers[owner - 1] as PlacedRegister;
      const past = Math.min(register.offset + register.bytes, end);
      const hook = this.#hooks[owner];
      if (hook !== undefined) {
        let strobes = 0;
        for (let i = at; i < past; i += 1) {
          const byte = (value >>> (8 * (i - offset))) & (this.#strobe[i] as number);
          strobes |= byte << (8 * (i - register.offset));
        }
        hook(strobes);
      }
      at = past;
    }
  }

  /** The device's own look at a register, unsigned; 1, 2 or 4 bytes within the space. */
  get(offset: number, length: number): number {
    let value = 0;
    for (let i = length - 1; i >= 0; i -= 1) {
      value = (value << 8) | (this.#data[offset + i] as number);
    }
    return value >>> 0;
  }

  /** The device changes bits of a register, read-only ones too. No hook is called. */
  set(offset: number, length: number, value: number, mask = 0xffff_ffff): void {
    for (let i = 0; i < length; i += 1) {
      const bits = (mask >>> (8 * i)) & 0xff;
      const kept = (this.#data[offset + i] as number) & ~bits;
      this.#data[offset + i] = kept | ((value >>> (8 * i)) & bits);
    }
  }

  /** Changes which bits of a register can be written (RW), as some depend on others. */
  setWritable(offset: number, length: number, mask: number): void {
    for (let i = 0; i < length; i += 1) {
      this.#rw[offset + i] = (mask >>> (8 * i)) & 0xff;
    }
  }

  /**
   * Has `hook` called when the register at `offset` was written; after those that it has already.
   * @throws SluiceError `not-found` if no register begins there.
   */
  onWrite(offset: number, hook: RegisterHook): void {
    const owner = this.#owner[offset] as number;
    if (owner === 0 || this.registers[owner - 1]?.offset !== offset) {
      throw new SluiceError('not-found', `${this.#name}: no register at ${hex(offset)}`);
    }
    const before = this.#hooks[owner];
    this.#hooks[owner] =
      before === undefined
        ? hook
        : (strobes) => {
            before(strobes);
            hook(strobes);
          };
  }

  /** The device answers reads of its memory BARs; power management included, as in all of these. */
  get memoryEnabled(): boolean {
    return (this.#control & PCI_COMMAND_MEMORY) !== 0;
  }

  get ioEnabled(): boolean {
    return (this.#control & PCI_COMMAND_IO) !== 0;
  }

  get busMaster(): boolean {
    return (this.#control & PCI_COMMAND_MASTER) !== 0;
  }

  /** The INTx line may be asserted. */
  get intxAllowed(): boolean {
    return (this.#control & (PCI_COMMAND_INTX_DISABLE | UNPOWERED)) === 0;
  }

  /** Where the guest has put a BAR; 64-bit addresses are exact to 2^53. */
  barAddress(index: number): number {
    const bar = this.bars[index];
    const at = PCI_BAR0 + 4 * index;
    const low = this.get(at, 4);
    if (bar?.kind === 'io') {
      return (low & ~(PCI_BAR_IO | 2)) >>> 0;
    }
    const high = bar?.kind === 'memory64' ? this.get(at + 4, 4) : 0;
    return high * TWO_32 + ((low & ~0xf) >>> 0);
  }

  /** Where the guest has put the expansion ROM, -1 if it is off. */
  romAddress(): number {
    const value = this.rom === undefined ? 0 : this.get(PCI_ROM_BAR, 4);
    return (value & PCI_ROM_ENABLE) !== 0 && this.memoryEnabled ? value - PCI_ROM_ENABLE : -1;
  }

  /** Interrupt Status: INTx is pending, whether it may be asserted or not (PCI 3.0 §6.2.3). */
  setInterruptStatus(pending: boolean): void {
    this.set(PCI_STATUS, 2, pending ? PCI_STATUS_INTERRUPT : 0, PCI_STATUS_INTERRUPT);
  }

  /**
   * While not ready, after a reset that takes its time, reads give ones and writes do nothing; drivers
   * wait for that to end (PCIe §6.6.2).
   */
  setReady(ready: boolean): void {
    this.#ready = ready;
  }

  /** D0, or a state in which nothing but configuration works (PM 1.2 §5). */
  setPowered(powered: boolean): void {
    this.#powered = powered;
    this.#refresh();
  }

  /** Asks the owner for a reset, in the name of the guest. */
  requestReset(kind: ResetKind): void {
    this.events?.onResetRequest(kind);
  }

  /** Registers are what they were declared to be, but for the bits that this kind of reset keeps. */
  reset(kind: ResetKind): void {
    for (let at = 0; at < this.bytes; at += 1) {
      const flr = kind === 'bus' ? 0 : (this.#keptByFlr[at] as number);
      const kept = (this.#sticky[at] as number) | flr;
      this.#data[at] = ((this.#data[at] as number) & kept) | ((this.#reset[at] as number) & ~kept);
    }
    for (const capability of this.#capabilities) {
      capability.reset?.(kind);
    }
    this.#refresh();
  }

  #refresh(): void {
    const command = this.get(PCI_COMMAND, 2);
    const control = this.#powered ? command : (command & PCI_COMMAND_INTX_DISABLE) | UNPOWERED;
    const before = this.#control;
    this.#control = control;
    if (control !== before) {
      this.events?.onControlChange();
    }
  }
}

/** Id and pointer of a capability (PCI 3.0 §6.7), or of an extended one (PCIe §7.6.3). */
function capabilityHeader(one: PciCapability, next: number, extended: boolean): PciRegister {
  return extended
    ? {
        name: 'HEADER',
        offset: 0,
        bytes: 4,
        reset:
          (one.id |
            ((one.version ?? 0) << PCIE_EXT_VERSION_SHIFT) |
            (next << PCIE_EXT_NEXT_SHIFT)) >>>
          0,
        meaning: 'id, version, next capability',
      }
    : {
        name: 'HEADER',
        offset: 0,
        bytes: 2,
        reset: one.id | (next << 8),
        meaning: 'id, next capability',
      };
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
