/** A disk as an ATA drive: what each command means (ACS-3 §7). Data never pass through here. */
import { TWO_32 } from '../../base/bits.ts';
import type { Disk } from '../../block/disk.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import { DISK_READ, REQUEST_FUA, type RequestTable } from '../../block/requests.ts';
import * as ata from '../../spec/ata.ts';
import { AtaDevice, STATUS_READY, type Taskfile } from './ata-device.ts';
import {
  ACTION_BUFFER_IN,
  ACTION_BUFFER_OUT,
  ACTION_DISK_IN,
  ACTION_DISK_OUT,
  ACTION_FLUSH,
  ACTION_NONE,
  ACTION_RANGES,
  ACTION_VERIFY,
  type CommandSlots,
  PROTOCOL_DMA,
  PROTOCOL_NONDATA,
  PROTOCOL_PIO_IN,
  PROTOCOL_PIO_OUT,
  PROTOCOL_QUEUED,
} from './command-slots.ts';
import {
  type DriveIdentity,
  HEADS,
  identifyDisk,
  MAX_MULTIPLE,
  MAX_TRIM_BLOCKS,
  SECTORS_PER_TRACK,
  setChecksum,
} from './identify.ts';
import { Smart, TEST_ABORTED, TEST_BYTES, TEST_INTERRUPTED } from './smart.ts';

/** Power modes of CHECK POWER MODE. */
const MODE_STANDBY = 0x00;
const MODE_IDLE = 0x80;
const MODE_ACTIVE = 0xff;

const DEFAULT_TRANSFER_MODE = ata.MODE_UDMA | 6;
const TAG_SHIFT = 3;

export interface AtaDiskOptions {
  /** The drive's owner closes it. */
  readonly disk: Disk;
  readonly identity: DriveIdentity;
  /** A clock in ns: for power-on hours. */
  readonly now: () => number;
}

export class AtaDisk extends AtaDevice {
  readonly signature = ata.SIGNATURE_ATA;
  readonly packet = false;
  readonly disk: Disk;
  readonly smart: Smart;
  private readonly identity: DriveIdentity;
  private writeCache = true;
  private lookAhead = true;
  private multiple = 0;
  private transferMode = DEFAULT_TRANSFER_MODE;
  private power = MODE_ACTIVE;
  /** Of a command that failed, until READ LOG tells: commands are refused meanwhile (ACS-3 §4.16). */
  private readonly failedLog = new Uint8Array(ata.LOG_PAGE_BYTES);
  private queueFailed = false;
  /** Where the self-test reads. */
  private readonly testOffset = new Float64Array(1);
  /** DATA SET MANAGEMENT: the next entry, and how many bytes of entries there are. */
  private entry = 0;
  private entries = 0;

  constructor(options: AtaDiskOptions) {
    super();
    this.disk = options.disk;
    this.identity = options.identity;
    this.smart = new Smart(options.now);
  }

  /** A queued command has failed, and READ LOG has not told which. */
  get frozen(): boolean {
    return this.queueFailed;
  }

  reset(hard: boolean): void {
    this.queueFailed = false;
    this.power = MODE_ACTIVE;
    this.smart.endTest(hard ? TEST_INTERRUPTED : TEST_ABORTED, 0);
    if (!hard) return;
    // Software Settings Preservation is not offered: a COMRESET takes them back.
    this.writeCache = true;
    this.lookAhead = true;
    this.multiple = 0;
    this.transferMode = DEFAULT_TRANSFER_MODE;
  }

  execute(task: Taskfile, slots: CommandSlots, slot: number, others: boolean): void {
    slots.action[slot] = ACTION_NONE;
    this.drqBytes = SECTOR_BYTES;
    this.succeed(task);
    if (task.queued) {
      this.executeQueued(task, slots, slot);
      return;
    }
    slots.protocol[slot] = PROTOCOL_NONDATA;
    if (others) {
      // A command that is not queued ends all that are (ACS-3 §4.16.1).
      this.noteFailure(ata.NCQ_ERROR_NOT_QUEUED);
      this.abort();
      return;
    }
    const { command } = task;
    if (this.queueFailed && !isLogRead(command)) {
      this.abort();
      return;
    }
    if (!this.executeTransfer(task, slots, slot)) this.executeOther(task, slots, slot);
  }

  finish(slots: CommandSlots, slot: number, result: number): void {
    const action = slots.action[slot];
    slots.action[slot] = ACTION_NONE;
    if (result < 0) {
      this.failDisk(slots, slot, action === ACTION_DISK_IN || action === ACTION_VERIFY);
      return;
    }
    switch (action) {
      case ACTION_DISK_IN:
        this.smart.countRead(slots.done[slot] as number);
        break;
      case ACTION_DISK_OUT:
        this.smart.countWritten(slots.done[slot] as number);
        break;
      case ACTION_BUFFER_OUT:
        this.beginRanges(slots, slot);
        break;
      default:
    }
  }

  override nextRange(slots: CommandSlots, slot: number): boolean {
    const { view, at } = this.lent();
    const { info } = this.disk;
    while (this.entry < this.entries) {
      const low = view.getUint32(at + this.entry, true);
      const high = view.getUint32(at + this.entry + 4, true);
      this.entry += ata.DSM_ENTRY_BYTES;
      const blocks = high >>> 16;
      if (blocks === 0) continue;
      slots.offset[slot] = ((high & 0xffff) * TWO_32 + low) * info.blockBytes;
      slots.part[slot] = blocks * info.blockBytes;
      return true;
    }
    return false;
  }

  override background(table: RequestTable, slot: number, at: number): boolean {
    const { smart } = this;
    if (smart.test === 0) return false;
    const { bytes, blockBytes } = this.disk.info;
    const offset = smart.nextRead(bytes, blockBytes);
    // The disk may have become smaller since the test began.
    const length = Math.min(TEST_BYTES, bytes - offset);
    if (length <= 0) {
      smart.endTest(TEST_ABORTED, 0);
      return false;
    }
    table.begin(slot, DISK_READ, 0, offset, length);
    table.add(slot, at, length);
    this.testOffset[0] = offset;
    return true;
  }

  override backgroundDone(result: number): void {
    this.smart.advance(result, (this.testOffset[0] as number) / this.disk.info.blockBytes);
  }

  /** READ and WRITE in all their kinds. False for other commands. */
  private executeTransfer(task: Taskfile, slots: CommandSlots, slot: number): boolean {
    switch (task.command) {
      case ata.ATA_READ_DMA:
      case ata.ATA_READ_DMA_NORETRY:
        this.transfer(task, slots, slot, false, PROTOCOL_DMA, ACTION_DISK_IN);
        return true;
      case ata.ATA_READ_DMA_EXT:
        this.transfer(task, slots, slot, true, PROTOCOL_DMA, ACTION_DISK_IN);
        return true;
      case ata.ATA_WRITE_DMA:
      case ata.ATA_WRITE_DMA_NORETRY:
        this.transfer(task, slots, slot, false, PROTOCOL_DMA, ACTION_DISK_OUT);
        return true;
      case ata.ATA_WRITE_DMA_EXT:
      case ata.ATA_WRITE_DMA_FUA_EXT:
        this.transfer(task, slots, slot, true, PROTOCOL_DMA, ACTION_DISK_OUT);
        return true;
      case ata.ATA_READ_SECTORS:
      case ata.ATA_READ_SECTORS_NORETRY:
        this.transfer(task, slots, slot, false, PROTOCOL_PIO_IN, ACTION_DISK_IN);
        return true;
      case ata.ATA_READ_SECTORS_EXT:
        this.transfer(task, slots, slot, true, PROTOCOL_PIO_IN, ACTION_DISK_IN);
        return true;
      case ata.ATA_WRITE_SECTORS:
      case ata.ATA_WRITE_SECTORS_NORETRY:
        this.transfer(task, slots, slot, false, PROTOCOL_PIO_OUT, ACTION_DISK_OUT);
        return true;
      case ata.ATA_WRITE_SECTORS_EXT:
        this.transfer(task, slots, slot, true, PROTOCOL_PIO_OUT, ACTION_DISK_OUT);
        return true;
      case ata.ATA_READ_MULTIPLE:
      case ata.ATA_READ_MULTIPLE_EXT:
        this.transferMultiple(task, slots, slot, PROTOCOL_PIO_IN, ACTION_DISK_IN);
        return true;
      case ata.ATA_WRITE_MULTIPLE:
      case ata.ATA_WRITE_MULTIPLE_EXT:
      case ata.ATA_WRITE_MULTIPLE_FUA_EXT:
        this.transferMultiple(task, slots, slot, PROTOCOL_PIO_OUT, ACTION_DISK_OUT);
        return true;
      case ata.ATA_READ_VERIFY:
      case ata.ATA_READ_VERIFY_NORETRY:
        this.transfer(task, slots, slot, false, PROTOCOL_NONDATA, ACTION_VERIFY);
        return true;
      case ata.ATA_READ_VERIFY_EXT:
        this.transfer(task, slots, slot, true, PROTOCOL_NONDATA, ACTION_VERIFY);
        return true;
      default:
        return false;
    }
  }

  private executeOther(task: Taskfile, slots: CommandSlots, slot: number): void {
    switch (task.command) {
      case ata.ATA_IDENTIFY_DEVICE:
        this.reply(
          slots,
          slot,
          PROTOCOL_PIO_IN,
          identifyDisk(this.disk.info, this.identity, this.modes),
        );
        return;
      case ata.ATA_FLUSH_CACHE:
      case ata.ATA_FLUSH_CACHE_EXT:
        slots.action[slot] = ACTION_FLUSH;
        return;
      case ata.ATA_SET_FEATURES:
        this.setFeatures(task, slots, slot);
        return;
      case ata.ATA_DATA_SET_MANAGEMENT:
        this.manageDataSet(task, slots, slot);
        return;
      case ata.ATA_SMART:
        this.executeSmart(task, slots, slot);
        return;
      case ata.ATA_READ_LOG_EXT:
        this.readLog(task, slots, slot, PROTOCOL_PIO_IN);
        return;
      case ata.ATA_READ_LOG_DMA_EXT:
        this.readLog(task, slots, slot, PROTOCOL_DMA);
        return;
      case ata.ATA_SET_MULTIPLE_MODE:
        this.setMultiple(task.count & 0xff);
        return;
      case ata.ATA_CHECK_POWER_MODE:
        this.count = this.power;
        return;
      case ata.ATA_STANDBY:
      case ata.ATA_STANDBY_IMMEDIATE:
      case ata.ATA_SLEEP:
        this.power = MODE_STANDBY;
        slots.action[slot] = ACTION_FLUSH;
        return;
      case ata.ATA_IDLE:
      case ata.ATA_IDLE_IMMEDIATE:
        this.power = MODE_IDLE;
        return;
      case ata.ATA_EXECUTE_DIAGNOSTIC:
        this.showSignature();
        return;
      case ata.ATA_RECALIBRATE:
      case ata.ATA_INITIALIZE_PARAMETERS:
      case ata.ATA_SEEK:
        return;
      default:
        this.abort();
    }
  }

  private get modes() {
    const { writeCache, lookAhead, multiple, transferMode } = this;
    return { writeCache, lookAhead, multiple, transferMode, smart: this.smart.enabled };
  }

  /** READ and WRITE FPDMA QUEUED: the count of blocks is in the features, the tag in the count. */
  private executeQueued(task: Taskfile, slots: CommandSlots, slot: number): void {
    slots.protocol[slot] = PROTOCOL_QUEUED;
    slots.tag[slot] = (task.count & 0xff) >> TAG_SHIFT;
    if (this.queueFailed) {
      this.abort();
      return;
    }
    const isWrite = task.command === ata.ATA_WRITE_FPDMA_QUEUED;
    const blocks = task.features === 0 ? 0x10000 : task.features;
    const action = isWrite ? ACTION_DISK_OUT : ACTION_DISK_IN;
    const isFua = isWrite && (task.device & ata.DEVICE_FUA) !== 0;
    this.range(slots, slot, task.lba[0] as number, blocks, action, isFua);
  }

  private transferMultiple(
    task: Taskfile,
    slots: CommandSlots,
    slot: number,
    protocol: number,
    action: number,
  ): void {
    if (this.multiple === 0) {
      this.abort();
      return;
    }
    const { command } = task;
    const isShort = command === ata.ATA_READ_MULTIPLE || command === ata.ATA_WRITE_MULTIPLE;
    this.transfer(task, slots, slot, !isShort, protocol, action);
    this.drqBytes = this.multiple * this.disk.info.blockBytes;
  }

  private transfer(
    task: Taskfile,
    slots: CommandSlots,
    slot: number,
    isLong: boolean,
    protocol: number,
    action: number,
  ): void {
    slots.protocol[slot] = protocol;
    const { command } = task;
    const isFua =
      command === ata.ATA_WRITE_DMA_FUA_EXT || command === ata.ATA_WRITE_MULTIPLE_FUA_EXT;
    let blocks = isLong ? task.count : task.count & 0xff;
    if (blocks === 0) blocks = isLong ? 0x10000 : 0x100;
    let lba = isLong ? (task.lba[0] as number) : task.lba28;
    if (!isLong && (task.device & ata.DEVICE_LBA) === 0) lba = chsToLba(lba);
    this.drqBytes = this.disk.info.blockBytes;
    this.range(slots, slot, lba, blocks, action, isFua);
  }

  /** Asks for a range of the disk, or fails. */
  private range(
    slots: CommandSlots,
    slot: number,
    lba: number,
    blocks: number,
    action: number,
    isFua: boolean,
  ): void {
    const { info } = this.disk;
    const { blockBytes } = info;
    this.power = MODE_ACTIVE;
    if (lba < 0 || (lba + blocks) * blockBytes > info.bytes) {
      this.fail(ata.ERROR_IDNF);
      this.lba[0] = Math.max(lba, 0);
      return;
    }
    if (info.readonly && action === ACTION_DISK_OUT) {
      this.abort();
      return;
    }
    slots.action[slot] = action;
    slots.offset[slot] = lba * blockBytes;
    slots.left[slot] = blocks * blockBytes;
    // Without a volatile cache writes are durable when they complete.
    if (action === ACTION_DISK_OUT && (isFua || !this.writeCache)) slots.flags[slot] = REQUEST_FUA;
  }

  /** Answers with a page of data. */
  private reply(slots: CommandSlots, slot: number, protocol: number, page: Uint8Array): void {
    const { view, at } = this.lent();
    new Uint8Array(view.buffer, at, page.length).set(page);
    slots.protocol[slot] = protocol;
    slots.action[slot] = ACTION_BUFFER_IN;
    slots.left[slot] = page.length;
  }

  private setMultiple(count: number): void {
    const isPower = (count & (count - 1)) === 0;
    if (!isPower || count > MAX_MULTIPLE) this.abort();
    else this.multiple = count;
  }

  private setFeatures(task: Taskfile, slots: CommandSlots, slot: number): void {
    switch (task.features & 0xff) {
      case ata.FEATURE_ENABLE_WRITE_CACHE:
        this.writeCache = true;
        return;
      case ata.FEATURE_DISABLE_WRITE_CACHE:
        this.writeCache = false;
        // What was written into the cache becomes durable now.
        slots.action[slot] = ACTION_FLUSH;
        return;
      case ata.FEATURE_ENABLE_LOOK_AHEAD:
        this.lookAhead = true;
        return;
      case ata.FEATURE_DISABLE_LOOK_AHEAD:
        this.lookAhead = false;
        return;
      case ata.FEATURE_DISABLE_REVERTING:
      case ata.FEATURE_ENABLE_REVERTING:
        return;
      case ata.FEATURE_TRANSFER_MODE: {
        const mode = task.count & 0xff;
        if (!isTransferMode(mode)) this.abort();
        else if (mode >= ata.MODE_MWDMA) this.transferMode = mode;
        return;
      }
      default:
        this.abort();
    }
  }

  private manageDataSet(task: Taskfile, slots: CommandSlots, slot: number): void {
    const { info } = this.disk;
    const isTrim = (task.features & 0xff) === ata.DSM_TRIM;
    if (!isTrim || info.discardBytes === 0 || info.readonly) {
      this.abort();
      return;
    }
    if (task.count === 0 || task.count > MAX_TRIM_BLOCKS) {
      this.abort();
      return;
    }
    slots.protocol[slot] = PROTOCOL_DMA;
    slots.action[slot] = ACTION_BUFFER_OUT;
    slots.left[slot] = task.count * ata.LOG_PAGE_BYTES;
  }

  /** The list of ranges has come: they are all checked before any is done. */
  private beginRanges(slots: CommandSlots, slot: number): void {
    this.entry = 0;
    this.entries = slots.done[slot] as number;
    while (this.nextRange(slots, slot)) {
      const end = (slots.offset[slot] as number) + (slots.part[slot] as number);
      if (end <= this.disk.info.bytes) continue;
      this.fail(ata.ERROR_IDNF);
      this.lba[0] = (slots.offset[slot] as number) / this.disk.info.blockBytes;
      return;
    }
    this.entry = 0;
    slots.action[slot] = ACTION_RANGES;
  }

  private executeSmart(task: Taskfile, slots: CommandSlots, slot: number): void {
    const { smart } = this;
    const lba = task.lba[0] as number;
    const feature = task.features & 0xff;
    const isKeyed = Math.floor(lba / 0x100) % 0x10000 === ata.SMART_KEY;
    if (!isKeyed || (!smart.enabled && feature !== ata.SMART_ENABLE)) {
      this.abort();
      return;
    }
    switch (feature) {
      case ata.SMART_ENABLE:
      case ata.SMART_DISABLE:
        smart.enabled = feature === ata.SMART_ENABLE;
        return;
      case ata.SMART_RETURN_STATUS:
        // No threshold is ever exceeded: LBA 23:8 stays the key.
        return;
      case ata.SMART_READ_DATA:
        this.reply(slots, slot, PROTOCOL_PIO_IN, smart.data(this.disk.info.bytes));
        return;
      case ata.SMART_READ_THRESHOLDS:
        this.reply(slots, slot, PROTOCOL_PIO_IN, smart.thresholds());
        return;
      case ata.SMART_READ_LOG: {
        const page = smart.readLog(lba % 0x100);
        if (page === undefined || (task.count & 0xff) !== 1) this.abort();
        else this.reply(slots, slot, PROTOCOL_PIO_IN, page);
        return;
      }
      case ata.SMART_EXECUTE_OFFLINE:
        this.testSelf(lba % 0x100);
        return;
      default:
        this.abort();
    }
  }

  private testSelf(subcommand: number): void {
    const { smart } = this;
    if (subcommand === 0) smart.noteOffline();
    else if (subcommand === ata.SMART_TEST_ABORT) smart.endTest(TEST_ABORTED, 0);
    else if (!smart.startTest(subcommand, this.disk.info.bytes)) this.abort();
  }

  private readLog(task: Taskfile, slots: CommandSlots, slot: number, protocol: number): void {
    const lba = task.lba[0] as number;
    const address = lba % 0x100;
    // The page number: LBA 15:8 and 47:40. Each log here has one page.
    const page = Math.floor(lba / 0x100) % 0x100;
    if (page !== 0 || task.count !== 1) {
      this.abort();
      return;
    }
    if (address === ata.LOG_NCQ_ERROR) {
      setChecksum(this.failedLog);
      this.reply(slots, slot, protocol, this.failedLog);
      this.queueFailed = false;
    } else if (address === ata.LOG_DIRECTORY) {
      const directory = new Uint8Array(ata.LOG_PAGE_BYTES);
      directory[0] = 1;
      directory[2 * ata.LOG_NCQ_ERROR] = 1;
      this.reply(slots, slot, protocol, directory);
    } else {
      this.abort();
    }
  }

  /** The disk could not do it: an error of the medium for reads, else the command is aborted. */
  private failDisk(slots: CommandSlots, slot: number, isRead: boolean): void {
    this.fail(isRead ? ata.ERROR_UNC : ata.ERROR_ABRT);
    this.device = ata.DEVICE_LBA;
    this.count = 0;
    // Which block it was the disk does not tell: the first of the part that failed.
    this.lba[0] = Math.floor((slots.offset[slot] as number) / this.disk.info.blockBytes);
    if (isRead) this.smart.countUncorrectable();
  }

  /** A queued command in `slot` has failed, as the output registers say: for the log (ACS-3 A.14). */
  override noteFailure(tag: number): void {
    const { failedLog } = this;
    const view = new DataView(failedLog.buffer);
    failedLog.fill(0);
    this.queueFailed = true;
    const lba = this.lba[0] as number;
    view.setUint8(0, tag);
    view.setUint8(2, STATUS_READY | ata.STATUS_ERR);
    view.setUint8(3, this.error === 0 ? ata.ERROR_ABRT : this.error);
    view.setUint32(4, lba % 0x100_0000, true);
    view.setUint8(7, this.device);
    view.setUint32(8, Math.floor(lba / 0x100_0000), true);
    view.setUint16(12, this.count, true);
  }
}

function isLogRead(command: number): boolean {
  return command === ata.ATA_READ_LOG_EXT || command === ata.ATA_READ_LOG_DMA_EXT;
}

/** Cylinder 27:12 … as the registers hold them: sector 7:0, cylinder 23:8, head 27:24 (ATA-5). */
function chsToLba(registers: number): number {
  const sector = registers & 0xff;
  const cylinder = (registers >>> 8) & 0xffff;
  const head = registers >>> 24;
  if (sector === 0 || sector > SECTORS_PER_TRACK || head >= HEADS) return -1;
  return (cylinder * HEADS + head) * SECTORS_PER_TRACK + sector - 1;
}

function isTransferMode(mode: number): boolean {
  const number = mode & 7;
  if (mode <= 1) return true;
  if ((mode & 0xf8) === ata.MODE_PIO_FLOW) return number <= 4;
  if ((mode & 0xf8) === ata.MODE_MWDMA) return number <= 2;
  return (mode & 0xf8) === ata.MODE_UDMA && number <= 6;
}
