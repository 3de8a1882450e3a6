/**
 * A cdrom as an ATAPI drive: packet commands (SPC-3, SBC-2, MMC-5) over a disk that holds an ISO image.
 * The image is one data track.
 */
import type { Disk } from '../../block/disk.ts';
import * as ata from '../../spec/ata.ts';
import { AtaDevice, STATUS_READY, type Taskfile } from './ata-device.ts';
import * as pages from './cdrom-pages.ts';
import {
  ACTION_BUFFER_IN,
  ACTION_DISK_IN,
  ACTION_NONE,
  type CommandSlots,
  PROTOCOL_NONDATA,
  PROTOCOL_PACKET_DMA,
  PROTOCOL_PACKET_PIO,
  PROTOCOL_PIO_IN,
} from './command-slots.ts';
import { type DriveIdentity, identifyCdrom } from './identify.ts';

const POWER_ACTIVE = 0xff;
const TRANSFER_MODE = ata.MODE_UDMA | 6;

export interface CdromOptions {
  /** The image, or undefined: an empty drive. Its owner closes it. */
  readonly disk: Disk | undefined;
  readonly identity: DriveIdentity;
}

export class Cdrom extends AtaDevice {
  readonly signature = ata.SIGNATURE_ATAPI;
  readonly packet = true;
  readonly disk: Disk | undefined;
  private readonly identity: DriveIdentity;
  private transferMode = TRANSFER_MODE;
  private isOpen = false;
  private isLocked = false;
  /** Sense of the last command (SPC-3 §4.5), until it is asked for. */
  private senseKey = ata.SENSE_NONE;
  private senseCode = 0;
  /** What the next command is told instead of being done: additional sense code, or 0. */
  private attention = 0;
  /** Event of the medium for GET EVENT STATUS NOTIFICATION. */
  private event = pages.MEDIA_NO_CHANGE;

  constructor(options: CdromOptions) {
    super();
    this.disk = options.disk;
    this.identity = options.identity;
    if (this.disk !== undefined) this.event = pages.MEDIA_NEW;
  }

  /** Blocks of 2048 bytes, 0 without a medium. */
  get blocks(): number {
    if (this.disk === undefined || this.isOpen) return 0;
    return Math.floor(this.disk.info.bytes / ata.CD_BLOCK_BYTES);
  }

  reset(hard: boolean): void {
    this.senseKey = ata.SENSE_NONE;
    this.senseCode = 0;
    if (!hard) return;
    this.isLocked = false;
    this.attention = ata.ASC_RESET;
    this.transferMode = TRANSFER_MODE;
  }

  execute(task: Taskfile, slots: CommandSlots, slot: number): void {
    slots.action[slot] = ACTION_NONE;
    slots.protocol[slot] = PROTOCOL_NONDATA;
    this.drqBytes = ata.CD_BLOCK_BYTES;
    this.succeed(task);
    switch (task.command) {
      case ata.ATA_PACKET:
        this.executePacket(task, slots, slot);
        return;
      case ata.ATA_IDENTIFY_PACKET_DEVICE:
        this.reply(slots, slot, identifyCdrom(this.identity, this.transferMode), Infinity);
        slots.protocol[slot] = PROTOCOL_PIO_IN;
        return;
      case ata.ATA_DEVICE_RESET:
        this.reset(false);
        this.showSignature();
        return;
      case ata.ATA_EXECUTE_DIAGNOSTIC:
        this.showSignature();
        return;
      case ata.ATA_CHECK_POWER_MODE:
        this.count = POWER_ACTIVE;
        return;
      case ata.ATA_STANDBY_IMMEDIATE:
      case ata.ATA_IDLE_IMMEDIATE:
      case ata.ATA_SLEEP:
      case ata.ATA_FLUSH_CACHE:
        return;
      case ata.ATA_SET_FEATURES:
        if ((task.features & 0xff) === ata.FEATURE_TRANSFER_MODE) {
          const mode = task.count & 0xff;
          if (mode >= ata.MODE_MWDMA) this.transferMode = mode;
        } else {
          this.abort();
        }
        return;
      // A drive that speaks packets answers these with its signature (ACS-3 §7.12.3).
      case ata.ATA_IDENTIFY_DEVICE:
      case ata.ATA_READ_SECTORS:
        this.showSignature();
        this.abort();
        return;
      default:
        this.abort();
    }
  }

  finish(slots: CommandSlots, slot: number, result: number): void {
    slots.action[slot] = ACTION_NONE;
    if (result < 0) this.check(ata.SENSE_MEDIUM_ERROR, ata.ASC_UNRECOVERED_READ);
    else this.good();
  }

  private executePacket(task: Taskfile, slots: CommandSlots, slot: number): void {
    const isDma = (task.features & ata.PACKET_DMA) !== 0;
    slots.protocol[slot] = isDma ? PROTOCOL_PACKET_DMA : PROTOCOL_PACKET_PIO;
    // Byte count limit of PIO (ACS-3 §7.18.4): even, and 0 says nothing.
    const limit = (Math.floor((task.lba[0] as number) / 0x100) % 0x10000) & ~1;
    if (limit > 0 && limit < this.drqBytes) this.drqBytes = limit;
    const { view } = this.lent();
    const at = task.packetAt;
    const code = view.getUint8(at);
    this.good();
    if (code !== ata.SCSI_REQUEST_SENSE && code !== ata.SCSI_INQUIRY) {
      if (this.attention !== 0 && code !== ata.MMC_GET_EVENT_STATUS) {
        const { attention } = this;
        this.attention = 0;
        this.check(ata.SENSE_UNIT_ATTENTION, attention);
        return;
      }
      this.senseKey = ata.SENSE_NONE;
      this.senseCode = 0;
    }
    this.executeScsi(code, view, at, slots, slot);
  }

  private executeScsi(
    code: number,
    view: DataView,
    at: number,
    slots: CommandSlots,
    slot: number,
  ): void {
    switch (code) {
      case ata.SCSI_TEST_UNIT_READY:
      case ata.SCSI_SYNCHRONIZE_CACHE:
        this.requireMedium();
        return;
      case ata.SCSI_REQUEST_SENSE:
        this.reply(slots, slot, pages.sense(this.senseKey, this.senseCode), view.getUint8(at + 4));
        this.senseKey = ata.SENSE_NONE;
        this.senseCode = 0;
        return;
      case ata.SCSI_INQUIRY:
        this.inquire(view, at, slots, slot);
        return;
      case ata.SCSI_READ_CAPACITY:
        if (this.requireMedium()) this.reply(slots, slot, pages.capacity(this.blocks), Infinity);
        return;
      case ata.SCSI_READ_10:
        this.read(slots, slot, view.getUint32(at + 2), view.getUint16(at + 7));
        return;
      case ata.SCSI_READ_12:
        this.read(slots, slot, view.getUint32(at + 2), view.getUint32(at + 6));
        return;
      case ata.SCSI_SEEK_10:
        if (this.requireMedium()) this.requireBlocks(view.getUint32(at + 2), 1);
        return;
      case ata.SCSI_MODE_SENSE_6:
        this.senseModes(slots, slot, view.getUint8(at + 2), false, view.getUint8(at + 4));
        return;
      case ata.SCSI_MODE_SENSE_10:
        this.senseModes(slots, slot, view.getUint8(at + 2), true, view.getUint16(at + 7));
        return;
      case ata.SCSI_START_STOP_UNIT:
        this.startStop(view.getUint8(at + 4));
        return;
      case ata.SCSI_PREVENT_ALLOW:
        this.isLocked = (view.getUint8(at + 4) & 1) !== 0;
        return;
      case ata.MMC_READ_TOC:
        this.readToc(view, at, slots, slot);
        return;
      case ata.MMC_GET_CONFIGURATION:
        this.reply(
          slots,
          slot,
          pages.configuration(this.blocks > 0, view.getUint8(at + 1) & 3, view.getUint16(at + 2)),
          view.getUint16(at + 7),
        );
        return;
      case ata.MMC_GET_EVENT_STATUS:
        this.tellEvents(view, at, slots, slot);
        return;
      case ata.MMC_READ_DISC_INFORMATION:
        if (this.requireMedium()) {
          this.reply(slots, slot, pages.discInformation(), view.getUint16(at + 7));
        }
        return;
      case ata.MMC_MECHANISM_STATUS:
        this.reply(slots, slot, pages.mechanism(this.isOpen), view.getUint16(at + 8));
        return;
      case ata.MMC_SET_CD_SPEED:
        return;
      default:
        this.check(ata.SENSE_ILLEGAL_REQUEST, ata.ASC_INVALID_COMMAND);
    }
  }

  private inquire(view: DataView, at: number, slots: CommandSlots, slot: number): void {
    // Vital product data are optional for drives of MMC: none are offered.
    if ((view.getUint8(at + 1) & 1) !== 0 || view.getUint8(at + 2) !== 0) {
      this.check(ata.SENSE_ILLEGAL_REQUEST, ata.ASC_INVALID_FIELD);
      return;
    }
    this.reply(slots, slot, pages.inquiry(this.identity), view.getUint16(at + 3));
  }

  private read(slots: CommandSlots, slot: number, lba: number, blocks: number): void {
    if (!this.requireMedium() || !this.requireBlocks(lba, blocks) || blocks === 0) return;
    slots.action[slot] = ACTION_DISK_IN;
    slots.offset[slot] = lba * ata.CD_BLOCK_BYTES;
    slots.left[slot] = blocks * ata.CD_BLOCK_BYTES;
  }

  private senseModes(
    slots: CommandSlots,
    slot: number,
    control: number,
    isLong: boolean,
    most: number,
  ): void {
    const page = pages.modePages(control & 0x3f, isLong, this.isLocked);
    // Saved values (3) are not kept.
    if (page === undefined || control >> 6 === 3) {
      this.check(ata.SENSE_ILLEGAL_REQUEST, ata.ASC_INVALID_FIELD);
    } else {
      this.reply(slots, slot, page, most);
    }
  }

  /** START STOP UNIT (MMC-5 §6.45): bit 1 loads or ejects, bit 0 starts. */
  private startStop(flags: number): void {
    if ((flags & 2) === 0) return;
    const opens = (flags & 1) === 0;
    if (opens && this.isLocked) {
      this.check(ata.SENSE_ILLEGAL_REQUEST, ata.ASC_REMOVAL_PREVENTED);
      return;
    }
    if (this.isOpen === opens) return;
    this.isOpen = opens;
    if (this.disk === undefined) return;
    this.event = opens ? pages.MEDIA_REMOVAL : pages.MEDIA_NEW;
    if (!opens) this.attention = ata.ASC_MEDIUM_CHANGED;
  }

  private readToc(view: DataView, at: number, slots: CommandSlots, slot: number): void {
    if (!this.requireMedium()) return;
    const isMsf = (view.getUint8(at + 1) & 2) !== 0;
    // The format is in byte 2; old drivers have it in the upper bits of byte 9 (SFF-8020i).
    const format = view.getUint8(at + 2) & 0xf || view.getUint8(at + 9) >> 6;
    const page = pages.toc(format, isMsf, view.getUint8(at + 6), this.blocks);
    if (page === undefined) this.check(ata.SENSE_ILLEGAL_REQUEST, ata.ASC_INVALID_FIELD);
    else this.reply(slots, slot, page, view.getUint16(at + 7));
  }

  private tellEvents(view: DataView, at: number, slots: CommandSlots, slot: number): void {
    // Only polled notification: nothing is queued.
    if ((view.getUint8(at + 1) & 1) === 0) {
      this.check(ata.SENSE_ILLEGAL_REQUEST, ata.ASC_INVALID_FIELD);
      return;
    }
    const wanted = view.getUint8(at + 4);
    const page = pages.events(wanted, this.event, this.isOpen, this.blocks > 0);
    if ((wanted & pages.EVENT_CLASS_MEDIA) !== 0) this.event = pages.MEDIA_NO_CHANGE;
    this.reply(slots, slot, page, view.getUint16(at + 7));
  }

  private requireMedium(): boolean {
    if (this.blocks > 0) return true;
    const code = this.isOpen ? ata.ASC_NO_MEDIUM_OPEN : ata.ASC_NO_MEDIUM_CLOSED;
    this.check(ata.SENSE_NOT_READY, code);
    return false;
  }

  private requireBlocks(lba: number, blocks: number): boolean {
    if (lba + blocks <= this.blocks) return true;
    this.check(ata.SENSE_ILLEGAL_REQUEST, ata.ASC_LBA_RANGE);
    return false;
  }

  /** Answers with `page`, cut to what the packet allows. */
  private reply(slots: CommandSlots, slot: number, page: Uint8Array, most: number): void {
    const { view, at } = this.lent();
    const length = Math.min(page.length, most);
    if (length === 0) return;
    new Uint8Array(view.buffer, at, length).set(page.subarray(0, length));
    slots.action[slot] = ACTION_BUFFER_IN;
    slots.left[slot] = length;
  }

  private good(): void {
    this.status = STATUS_READY;
    this.error = 0;
    this.count = ata.REASON_COMMAND | ata.REASON_TO_HOST;
  }

  /** Ends a packet with CHECK CONDITION: the sense key is in the error register (SFF-8020i §7.1.2). */
  private check(key: number, code: number): void {
    this.senseKey = key;
    this.senseCode = code;
    this.fail((key << 4) | (key === ata.SENSE_ILLEGAL_REQUEST ? ata.ERROR_ABRT : 0));
    this.count = ata.REASON_COMMAND | ata.REASON_TO_HOST;
  }
}
