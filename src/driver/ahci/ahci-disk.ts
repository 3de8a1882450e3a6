/** A disk behind a port of an AHCI controller: found, identified, and ready for requests. */
import { SluiceError } from '../../base/errors.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import * as ahci from '../../spec/ahci.ts';
import * as ata from '../../spec/ata.ts';
import type { Hba } from './hba.ts';
import { type DriveInfo, parseIdentify } from './identify.ts';
import { PortDriver } from './port-driver.ts';
import { PortMemory, type PortPlan } from './port-memory.ts';
import { AhciRequestQueue, type LoopClock } from './request-queue.ts';

/** Ranges of a TRIM: a length of 16 bits in blocks, as many as a page holds. */
const MAX_TRIM_LENGTH = 0xffff;
const PAGE_BYTES = 4096;

export interface AhciDiskOptions {
  readonly hba: Hba;
  readonly port: number;
  readonly plan: PortPlan;
  readonly memory: DriverMemory;
  readonly clock: LoopClock;
}

export class AhciDisk {
  readonly port: PortDriver;
  readonly queue: AhciRequestQueue;
  info: DriveInfo;

  /**
   * Brings the drive up.
   * @throws SluiceError `not-found` without a drive, `unsupported` for one without queued commands, such as
   * a cdrom, or for requests that are no whole blocks
   */
  constructor({ hba, port, plan, memory, clock }: AhciDiskOptions) {
    this.port = new PortDriver(hba, port, new PortMemory(plan, memory));
    this.port.start();
    const { name } = this.port;
    if (this.port.read(ahci.PX_SIG) !== ata.SIGNATURE_ATA) {
      throw new SluiceError('unsupported', `${name}: the drive is no disk`);
    }
    this.info = this.identify();
    const depth = hba.queues ? Math.min(hba.slots, this.info.queueDepth) : 0;
    const { slots, requestBytes } = plan.options;
    if (slots > depth) {
      throw new SluiceError('unsupported', `${name}: the drive takes ${depth} requests at once`, {
        remedy: depth === 0 ? 'use a drive with NCQ' : `choose at most ${depth}`,
      });
    }
    if (requestBytes % this.info.blockBytes !== 0) {
      throw new SluiceError(
        'unsupported',
        `${name}: requests of ${requestBytes} bytes to blocks of ${this.info.blockBytes}`,
      );
    }
    this.queue = new AhciRequestQueue(this.port, this.info, clock);
  }

  // What follows is waited for, and only while no request is on its way.

  identify(): DriveInfo {
    const { port } = this;
    port.runWithPage(ata.ATA_IDENTIFY_DEVICE, 0, 0, 0, ata.IDENTIFY_BYTES);
    return parseIdentify(port.memory.view(port.memory.plan.page, ata.IDENTIFY_BYTES));
  }

  flush(): void {
    this.port.runWithPage(ata.ATA_FLUSH_CACHE_EXT, 0, 0, 0, 0);
  }

  /** Turns the cache for writes on or off; off, each write is durable when it is done. */
  setWriteCache(on: boolean): void {
    const feature = on ? ata.FEATURE_ENABLE_WRITE_CACHE : ata.FEATURE_DISABLE_WRITE_CACHE;
    this.port.runWithPage(ata.ATA_SET_FEATURES, feature, 0, 0, 0);
    this.info = this.identify();
  }

  /** What the sectors held may be forgotten. @throws SluiceError `unsupported` if the drive cannot */
  trim(sector: number, sectors: number): void {
    const { port, info } = this;
    const { trimBlocks, blockBytes } = info;
    if (trimBlocks === 0) throw new SluiceError('unsupported', `${port.name}: no TRIM`);
    const pageBlocks = Math.min(trimBlocks, PAGE_BYTES / ata.LOG_PAGE_BYTES);
    const most = (pageBlocks * ata.LOG_PAGE_BYTES) / ata.DSM_ENTRY_BYTES;
    let lba = (sector * SECTOR_BYTES) / blockBytes;
    let left = (sectors * SECTOR_BYTES) / blockBytes;
    while (left > 0) {
      const page = port.memory.view(port.memory.plan.page, pageBlocks * ata.LOG_PAGE_BYTES).fill(0);
      let entries = 0;
      for (; entries < most && left > 0; entries++) {
        const length = Math.min(left, MAX_TRIM_LENGTH);
        const at = entries * ata.DSM_ENTRY_BYTES;
        page.writeUIntLE(lba, at, 6);
        page.writeUInt16LE(length, at + 6);
        lba += length;
        left -= length;
      }
      const count = Math.ceil((entries * ata.DSM_ENTRY_BYTES) / ata.LOG_PAGE_BYTES);
      port.runWithPage(
        ata.ATA_DATA_SET_MANAGEMENT,
        ata.DSM_TRIM,
        0,
        count,
        count * ata.LOG_PAGE_BYTES,
        ahci.AHCI_HEADER_WRITE,
      );
    }
  }

  /** The port touches the guest's memory no more. */
  close(): void {
    this.port.stop();
  }
}
