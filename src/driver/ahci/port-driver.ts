/**
 * A port of an AHCI controller as its driver sees it: starting and stopping, the link, and single
 * commands that are waited for (AHCI §10.1.2, §10.3, §10.4).
 */
import { SluiceError } from '../../base/errors.ts';
import * as ahci from '../../spec/ahci.ts';
import { DEVICE_LBA, STATUS_BSY, STATUS_DRQ, STATUS_ERR } from '../../spec/ata.ts';
import type { Hba } from './hba.ts';
import type { PortMemory } from './port-memory.ts';
import type { AhciRegisters } from './registers.ts';
import { delay, until } from './wait.ts';

/** Errors that are none of a command's alone. */
const HARD_ERRORS = ahci.PX_IS_HBFS | ahci.PX_IS_IFS | ahci.PX_IS_OFS;
/** What ends a command, and with it the work of the port, wrongly. */
export const PORT_ERRORS = HARD_ERRORS | ahci.PX_IS_TFES;
/** What the port is to interrupt for: ends of commands, errors, and drives that come and go. */
const INTERRUPTS =
  PORT_ERRORS |
  ahci.PX_IS_DHRS |
  ahci.PX_IS_PSS |
  ahci.PX_IS_SDBS |
  ahci.PX_IS_PCS |
  ahci.PX_IS_PRCS;

/** A COMRESET lasts at least so long (§10.4.2). */
const COMRESET_US = 1000;
const DET_ONLINE = ahci.PX_SSTS_DET_ONLINE;

/** How a command ended. */
export interface CommandEnd {
  readonly status: number;
  readonly error: number;
  /** Bits of PxIS that it set. */
  readonly interrupts: number;
}

export class PortDriver {
  readonly hba: Hba;
  readonly index: number;
  readonly memory: PortMemory;
  readonly name: string;
  private readonly registers: AhciRegisters;
  private readonly base: number;

  /** Does nothing yet: see {@link start}. @throws SluiceError `not-found` for a port that there is not */
  constructor(hba: Hba, index: number, memory: PortMemory) {
    hba.checkPort(index);
    this.hba = hba;
    this.index = index;
    this.memory = memory;
    this.name = `port ${index} of ${hba.name}`;
    this.registers = hba.registers;
    this.base = ahci.AHCI_PORTS + index * ahci.AHCI_PORT_BYTES;
  }

  /** A register PX_*. */
  read(register: number): number {
    return this.registers.read(this.base + register);
  }

  write(register: number, value: number): void {
    this.registers.write(this.base + register, value);
  }

  /** Gives the port its memory and brings the drive up. @throws SluiceError `not-found` if there is none */
  start(): void {
    const { memory } = this;
    this.stopCommands();
    this.stopReceiving();
    this.writeAddress(ahci.PX_CLB, ahci.PX_CLBU, memory.listAddress);
    this.writeAddress(ahci.PX_FB, ahci.PX_FBU, memory.receivedAddress);
    this.write(ahci.PX_CMD, this.read(ahci.PX_CMD) | ahci.PX_CMD_FRE);
    this.resetLink();
    this.write(ahci.PX_IE, INTERRUPTS);
  }

  /** Commands and FISes end: the memory is the guest's alone again. */
  stop(): void {
    this.write(ahci.PX_IE, 0);
    this.stopCommands();
    this.stopReceiving();
  }

  /** COMRESET, until the drive is ready; then commands are taken. */
  resetLink(): void {
    const { registers } = this;
    this.stopCommands();
    const control = this.read(ahci.PX_SCTL) & ~ahci.PX_SCTL_DET_MASK;
    this.write(ahci.PX_SCTL, control | ahci.PX_SCTL_DET_COMRESET);
    delay(registers, COMRESET_US);
    this.write(ahci.PX_SCTL, control);
    if ((this.read(ahci.PX_SSTS) & ahci.PX_SCTL_DET_MASK) === 0) {
      throw new SluiceError('not-found', `${this.name} has no drive`);
    }
    until(registers, `${this.name}: the link is down`, () => {
      return (this.read(ahci.PX_SSTS) & ahci.PX_SCTL_DET_MASK) === DET_ONLINE;
    });
    this.write(ahci.PX_SERR, 0xffff_ffff);
    until(registers, `${this.name}: the drive is busy`, () => {
      return (this.read(ahci.PX_TFD) & (STATUS_BSY | STATUS_DRQ)) === 0;
    });
    this.acknowledge();
    this.startCommands();
  }

  startCommands(): void {
    this.write(ahci.PX_CMD, this.read(ahci.PX_CMD) | ahci.PX_CMD_ST);
  }

  /** Until the port touches neither commands nor data any more. */
  stopCommands(): void {
    const command = this.read(ahci.PX_CMD);
    if ((command & (ahci.PX_CMD_ST | ahci.PX_CMD_CR)) === 0) return;
    this.write(ahci.PX_CMD, command & ~ahci.PX_CMD_ST);
    until(this.registers, `${this.name} does not stop`, () => {
      return (this.read(ahci.PX_CMD) & ahci.PX_CMD_CR) === 0;
    });
  }

  /**
   * After an error (§6.2.2.1): stops, forgets what was wrong, and goes on, with a COMRESET if it must be.
   * @param seen bits of PxIS that were acknowledged already
   * @throws SluiceError `not-found` if the drive has gone
   */
  restart(seen = 0): void {
    this.stopCommands();
    this.write(ahci.PX_SERR, this.read(ahci.PX_SERR));
    const bits = seen | this.acknowledge();
    const isBusy = (this.read(ahci.PX_TFD) & (STATUS_BSY | STATUS_DRQ)) !== 0;
    if (isBusy || (bits & (HARD_ERRORS | ahci.PX_IS_PRCS)) !== 0) this.resetLink();
    else this.startCommands();
  }

  /** What an interrupt handler does first: clears the interrupt. Returns PxIS as it was. */
  acknowledge(): number {
    const bits = this.read(ahci.PX_IS);
    this.clearInterrupt(bits);
    return bits;
  }

  /** Clears bits of PxIS, and the port's own of IS. */
  clearInterrupt(bits: number): void {
    this.write(ahci.PX_IS, bits);
    this.registers.write(ahci.AHCI_IS, 1 << this.index);
  }

  /** Issues commands of slots, a bit each. */
  issue(slots: number): void {
    this.write(ahci.PX_CI, slots);
  }

  /** Issues queued commands, whose tags are their slots. */
  issueQueued(slots: number): void {
    this.write(ahci.PX_SACT, slots);
    this.write(ahci.PX_CI, slots);
  }

  /** Issues one command that is not queued, and waits for its end. No other may be on its way. */
  run(slot: number): CommandEnd {
    this.issue(1 << slot);
    let interrupts = 0;
    until(this.registers, `${this.name} does not end a command`, () => {
      interrupts = this.read(ahci.PX_IS);
      if ((interrupts & PORT_ERRORS) !== 0) return true;
      return (this.read(ahci.PX_CI) & (1 << slot)) === 0;
    });
    interrupts |= this.acknowledge();
    const taskfile = this.read(ahci.PX_TFD);
    return { status: taskfile & 0xff, error: (taskfile >> 8) & 0xff, interrupts };
  }

  /**
   * One command with at most a page of data, in slot 0. The page has what it read, or writes what it has.
   * @throws SluiceError `state` if it fails; the port goes on
   */
  runWithPage(
    command: number,
    features: number,
    lba: number,
    count: number,
    bytes: number,
    flags = 0,
  ): void {
    const { memory } = this;
    memory.lba[0] = lba;
    memory.setCommand(0, command, features, count, DEVICE_LBA);
    memory.setPieces(0, bytes === 0 ? [] : [{ address: memory.pageAddress, bytes }], flags);
    const { status, error, interrupts } = this.run(0);
    if ((status & STATUS_ERR) === 0 && (interrupts & PORT_ERRORS) === 0) return;
    this.restart();
    throw new SluiceError(
      'state',
      `${this.name}: command 0x${command.toString(16)} failed, status 0x${status.toString(16)}, error 0x${error.toString(16)}`,
    );
  }

  private stopReceiving(): void {
    const command = this.read(ahci.PX_CMD);
    if ((command & (ahci.PX_CMD_FRE | ahci.PX_CMD_FR)) === 0) return;
    this.write(ahci.PX_CMD, command & ~ahci.PX_CMD_FRE);
    until(this.registers, `${this.name} still receives`, () => {
      return (this.read(ahci.PX_CMD) & ahci.PX_CMD_FR) === 0;
    });
  }

  private writeAddress(low: number, high: number, address: number): void {
    this.write(high, Math.floor(address / 2 ** 32));
    this.write(low, address % 2 ** 32);
  }
}
