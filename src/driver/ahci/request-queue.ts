/**
 * Queued reads and writes of a disk behind an AHCI port, up to 32 at once, and flushes between them
 * (SATA NCQ: READ and WRITE FPDMA QUEUED; tag and slot are the same number).
 *
 * While it is polled, the driver looks at the received FISes in its own memory, where the device says
 * that something is done, and then asks PxSACT what: one trap for all that is done. Interrupts are
 * acknowledged when the driver wants to sleep; until then the device sends no other.
 */
import { countBits } from '../../base/bits.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import * as ahci from '../../spec/ahci.ts';
import * as ata from '../../spec/ata.ts';
import { type DiskRequests, REQUEST_OK } from '../disk-requests.ts';
import type { DriveInfo } from './identify.ts';
import { PORT_ERRORS, type PortDriver } from './port-driver.ts';
import type { PortMemory } from './port-memory.ts';

/** In `status`: the request was lost with the link, and the device has said nothing of it. */
export const REQUEST_LOST = 0xff;

/** After so long without news, the registers are asked whether the port stands still. */
const WATCH_NS = 50e6;

/** Errors, and a link that went. */
const STANDSTILL = PORT_ERRORS | ahci.PX_IS_PRCS;
const SHIFT_STATUS = 16;

const NO_SLOT = -1;

/** The clock of the loop that polls; reading it costs nothing. */
export interface LoopClock {
  /** Monotonic, in ns. */
  readonly now: number;
}

export class AhciRequestQueue implements DiskRequests {
  readonly slots: number;
  readonly requestBytes: number;
  readonly sector: Float64Array;
  readonly bytes: Uint32Array;
  readonly words: Uint32Array;
  readonly wordsPerSlot: number;
  readonly done: Uint16Array;
  readonly status: Uint8Array;
  /** Times that commands were issued, however many at once. */
  kicks = 0;
  /** Times that the port stood still because of an error, and was started again. */
  recoveries = 0;
  private readonly port: PortDriver;
  private readonly layout: PortMemory;
  private readonly clock: LoopClock;
  private readonly sectorsPerBlock: number;
  /** By slot: its command, to issue it again. */
  private readonly command: Uint8Array;
  // Slots, a bit each: submitted and not issued; issued; ended and not collected.
  private fresh = 0;
  private active = 0;
  private ended = 0;
  /** The slot of a flush that was submitted: it waits until nothing else is on its way. */
  private flushing = NO_SLOT;
  private flushIssued = false;
  /** When there was news for the last time. */
  private readonly since = new Float64Array(1);

  constructor(port: PortDriver, info: DriveInfo, clock: LoopClock) {
    const { memory } = port;
    const { pool } = memory;
    this.port = port;
    this.layout = memory;
    this.clock = clock;
    this.slots = pool.count;
    this.requestBytes = pool.bytes;
    this.sectorsPerBlock = info.blockBytes / SECTOR_BYTES;
    this.sector = new Float64Array(pool.count);
    this.bytes = new Uint32Array(pool.count);
    this.words = memory.data;
    this.wordsPerSlot = pool.stride / 4;
    this.done = new Uint16Array(pool.count);
    this.status = new Uint8Array(pool.count);
    this.command = new Uint8Array(pool.count);
  }

  get outstanding(): number {
    const flushes = this.flushing === NO_SLOT ? 0 : 1;
    return countBits(this.fresh | this.active | this.ended) + flushes;
  }

  read(slot: number): boolean {
    return this.submit(slot, ata.ATA_READ_FPDMA_QUEUED);
  }

  write(slot: number): boolean {
    return this.submit(slot, ata.ATA_WRITE_FPDMA_QUEUED);
  }

  /** Waits until nothing is on its way, since the drive queues no flush; nothing is taken meanwhile. */
  flush(slot: number): boolean {
    if (this.flushing !== NO_SLOT) return false;
    this.flushing = slot;
    this.flushIssued = false;
    return true;
  }

  publish(): void {
    const { fresh } = this;
    if (fresh !== 0) {
      this.fresh = 0;
      this.active |= fresh;
      this.port.issueQueued(fresh);
      this.kicks++;
      this.since[0] = this.clock.now;
    } else if (this.flushing !== NO_SLOT && !this.flushIssued && this.active === 0) {
      this.issueFlush();
    }
  }

  collect(): number {
    this.look();
    let { ended } = this;
    this.ended = 0;
    let count = 0;
    while (ended !== 0) {
      this.done[count++] = 31 - Math.clz32(ended & -ended);
      ended &= ended - 1;
    }
    return count;
  }

  enableCalls(): boolean {
    const { port } = this;
    const bits = port.read(ahci.PX_IS);
    // Nothing has happened since it was acknowledged: what happens next interrupts.
    if (bits === 0) return this.ended !== 0;
    port.clearInterrupt(bits);
    if ((bits & STANDSTILL) !== 0) this.recover(bits);
    else this.ask();
    return this.ended !== 0;
  }

  disableCalls(): void {
    // Until it is acknowledged, the controller does not interrupt again.
  }

  private submit(slot: number, command: number): boolean {
    if (this.flushing !== NO_SLOT) return false;
    this.command[slot] = command;
    this.prepare(slot);
    this.fresh |= 1 << slot;
    return true;
  }

  private prepare(slot: number): void {
    const { layout, sectorsPerBlock } = this;
    const bytes = this.bytes[slot] as number;
    const command = this.command[slot] as number;
    const flags = command === ata.ATA_WRITE_FPDMA_QUEUED ? ahci.AHCI_HEADER_WRITE : 0;
    layout.lba[slot] = (this.sector[slot] as number) / sectorsPerBlock;
    // The count stands in the features, the tag in the count (ACS-3 §7.23.2); 0 is 65536.
    const blocks = bytes / (SECTOR_BYTES * sectorsPerBlock);
    layout.setCommand(slot, command, blocks & 0xffff, slot << 3);
    layout.setData(slot, bytes, flags);
  }

  private issueFlush(): void {
    const { layout } = this;
    const slot = this.flushing;
    layout.lba[slot] = 0;
    layout.setCommand(slot, ata.ATA_FLUSH_CACHE_EXT, 0, 0);
    layout.setHeader(slot, 0, 0);
    // Of a queued command that the drive took.
    layout.takeFis(ahci.AHCI_RFIS_REGISTER);
    this.flushIssued = true;
    this.port.issue(1 << slot);
    this.kicks++;
    this.since[0] = this.clock.now;
  }

  /** Looks whether something has ended. */
  private look(): void {
    if (this.active === 0 && !this.flushIssued) {
      if (this.flushing !== NO_SLOT && this.fresh === 0) this.issueFlush();
      return;
    }
    const place = this.active === 0 ? ahci.AHCI_RFIS_REGISTER : ahci.AHCI_RFIS_SET_DEVICE_BITS;
    const fis = this.layout.takeFis(place);
    if (fis !== 0) {
      if (((fis >>> SHIFT_STATUS) & ata.STATUS_ERR) !== 0) this.recover();
      else this.ask();
    } else if (this.clock.now - (this.since[0] as number) > WATCH_NS) {
      this.since[0] = this.clock.now;
      if ((this.port.read(ahci.PX_IS) & STANDSTILL) !== 0) this.recover();
      else this.ask();
    }
  }

  /** Asks the registers what has ended. What was read by then is in memory. */
  private ask(): void {
    const { port } = this;
    if (this.active !== 0) {
      this.end(this.active & ~port.read(ahci.PX_SACT), REQUEST_OK);
    } else if (this.flushIssued && (port.read(ahci.PX_CI) & (1 << this.flushing)) === 0) {
      this.endFlush(REQUEST_OK);
    }
  }

  private end(slots: number, status: number): void {
    if (slots === 0) return;
    for (let rest = slots; rest !== 0; rest &= rest - 1) {
      this.status[31 - Math.clz32(rest & -rest)] = status;
    }
    this.active &= ~slots;
    this.ended |= slots;
    this.since[0] = this.clock.now;
  }

  private endFlush(status: number): void {
    this.status[this.flushing] = status;
    this.ended |= 1 << this.flushing;
    this.flushing = NO_SLOT;
    this.flushIssued = false;
    this.since[0] = this.clock.now;
  }

  /** The port stands still: ends what failed, and issues the rest once more (§6.2.2). */
  private recover(bits: number = this.port.read(ahci.PX_IS)): void {
    const { port } = this;
    this.recoveries++;
    const error = (port.read(ahci.PX_TFD) >>> 8) & 0xff;
    const isFatal = (bits & STANDSTILL & ~ahci.PX_IS_TFES) !== 0;
    this.ask();
    port.restart(bits);
    // What told of the error, if the interrupt was seen first: of what is issued from now on it says nothing.
    this.layout.takeFis(ahci.AHCI_RFIS_SET_DEVICE_BITS);
    if (this.flushIssued) this.endFlush(isFatal || error === 0 ? REQUEST_LOST : error);
    if (this.active === 0) return;
    const failed = isFatal ? undefined : readQueueError(port);
    if (failed === undefined || (this.active & (1 << failed.tag)) === 0) {
      // Whatever it was, it was none of ours alone.
      if (!isFatal) port.resetLink();
      this.end(this.active, REQUEST_LOST);
      return;
    }
    this.end(1 << failed.tag, failed.error === 0 ? REQUEST_LOST : failed.error);
    const again = this.active;
    this.active = 0;
    // The log was read by slot 0.
    for (let rest = again; rest !== 0; rest &= rest - 1) {
      this.prepare(31 - Math.clz32(rest & -rest));
    }
    this.fresh |= again;
    this.publish();
  }
}

/** Which queued command failed, and its error register (ACS-3 §A.14); undefined: it was none. */
function readQueueError(
  port: PortDriver,
): { readonly tag: number; readonly error: number } | undefined {
  port.runWithPage(ata.ATA_READ_LOG_EXT, 0, ata.LOG_NCQ_ERROR, 1, ata.LOG_PAGE_BYTES);
  const page = port.memory.view(port.memory.plan.page, ata.LOG_PAGE_BYTES);
  const first = page.readUInt8(0);
  if ((first & ata.NCQ_ERROR_NOT_QUEUED) !== 0) return undefined;
  return { tag: first & 0x1f, error: page.readUInt8(3) };
}
