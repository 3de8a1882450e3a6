/** What a port needs of the drive behind it, and what drives have in common. */
import { SluiceError } from '../../base/errors.ts';
import type { Disk } from '../../block/disk.ts';
import type { RequestTable } from '../../block/requests.ts';
import {
  ATA_READ_FPDMA_QUEUED,
  ATA_WRITE_FPDMA_QUEUED,
  DIAGNOSTICS_PASSED,
  ERROR_ABRT,
  H2D_COMMAND,
  H2D_COUNT,
  H2D_DEVICE,
  H2D_FEATURES,
  H2D_FEATURES_HIGH,
  H2D_LBA,
  H2D_LBA_HIGH,
  STATUS_DRDY,
  STATUS_DSC,
  STATUS_ERR,
} from '../../spec/ata.ts';
import type { CommandSlots } from './command-slots.ts';

/** Status of a drive that is ready and has nothing to complain of. */
export const STATUS_READY = STATUS_DRDY | STATUS_DSC;

/** A command as a host to device FIS brings it. */
export class Taskfile {
  command = 0;
  /** 16 bits; commands of 28 bits use the lower 8, as of `count`. */
  features = 0;
  count = 0;
  device = 0;
  /** 48 bits. */
  readonly lba = new Float64Array(1);
  /** Arena address of the packet of PACKET. */
  packetAt = 0;

  /** LBA 27:0, of which the upper 4 bits are in the device register. */
  get lba28(): number {
    return (((this.lba[0] as number) & 0xff_ffff) | ((this.device & 0xf) << 24)) >>> 0;
  }

  get queued(): boolean {
    return this.command === ATA_READ_FPDMA_QUEUED || this.command === ATA_WRITE_FPDMA_QUEUED;
  }

  /** Reads a FIS that lies at an arena address. */
  load(view: DataView, at: number): void {
    this.command = view.getUint8(at + H2D_COMMAND);
    this.features = view.getUint8(at + H2D_FEATURES) | (view.getUint8(at + H2D_FEATURES_HIGH) << 8);
    this.count = view.getUint16(at + H2D_COUNT, true);
    this.device = view.getUint8(at + H2D_DEVICE);
    const low = view.getUint32(at + H2D_LBA, true) & 0xff_ffff;
    const high = view.getUint32(at + H2D_LBA_HIGH, true) & 0xff_ffff;
    this.lba[0] = high * 0x100_0000 + low;
  }
}

/** Memory of the lane that a port lends its drive: data of commands that no disk answers. */
export interface PortBuffer {
  readonly view: DataView;
  readonly at: number;
  readonly bytes: number;
}

export abstract class AtaDevice {
  /** As PxSIG shows it. */
  abstract readonly signature: number;
  /** It speaks packets. */
  abstract readonly packet: boolean;
  /** What it reads and writes; the port opens a queue on it. */
  abstract readonly disk: Disk | undefined;

  // Output registers: what the FIS that ends a command carries.
  status = STATUS_READY;
  error = 0;
  device = 0;
  count = 0;
  readonly lba = new Float64Array(1);
  /** Bytes of a DRQ block of the present PIO command. */
  drqBytes = 512;

  /** Set while the port has it. */
  protected buffer: PortBuffer | undefined;

  /** The port that it is plugged into, or undefined. */
  plug(buffer: PortBuffer | undefined): void {
    this.buffer = buffer;
  }

  /**
   * Begins a command: sets protocol and action of the slot, what the action needs, and for
   * ACTION_NONE the output registers. `others`: queued commands are outstanding.
   */
  abstract execute(task: Taskfile, slots: CommandSlots, slot: number, others: boolean): void;
  /** The action is over; `result` is the disk's, or 0. Sets the output registers, or the next action. */
  abstract finish(slots: CommandSlots, slot: number, result: number): void;
  /** For ACTION_RANGES: the next range (`offset`, `part` of the slot), or false. */
  nextRange(_slots: CommandSlots, _slot: number): boolean {
    return false;
  }
  /** A queued command failed, as the output registers say; `tag` as the log of NCQ errors has it. */
  noteFailure(_tag: number): void {
    throw new SluiceError('state', 'a drive without queued commands');
  }
  /** Fills `slot` of the table with a read that the drive wants for itself, to `at`; false if it wants none. */
  background(_table: RequestTable, _slot: number, _at: number): boolean {
    return false;
  }
  /** That read is done. */
  backgroundDone(_result: number): void {
    throw new SluiceError('state', 'a drive without reads of its own');
  }
  /** `hard`: COMRESET or power-on; else SRST. Nothing is under way. */
  abstract reset(hard: boolean): void;

  /** Output registers as after a reset or a diagnostic. */
  showSignature(): void {
    this.status = STATUS_READY;
    this.error = DIAGNOSTICS_PASSED;
    this.device = 0;
    this.count = this.signature & 0xff;
    this.lba[0] = this.signature >>> 8;
  }

  /** Ends a command well, with the registers that it came with. */
  protected succeed(task: Taskfile): void {
    this.status = STATUS_READY;
    this.error = 0;
    this.device = task.device;
    this.count = task.count;
    this.lba[0] = task.lba[0] as number;
  }

  /** Ends a command with an error. */
  protected fail(error: number): void {
    this.status = STATUS_READY | STATUS_ERR;
    this.error = error;
  }

  /** Ends a command that the port finds wrong. */
  refuse(): void {
    this.abort();
  }

  protected abort(): void {
    this.fail(ERROR_ABRT);
  }

  protected lent(): PortBuffer {
    if (this.buffer === undefined)
      throw new SluiceError('state', 'a drive that is plugged into no port');
    return this.buffer;
  }
}
