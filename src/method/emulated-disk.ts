/**
 * Method `emulated` for disks: the guest sees an AHCI controller with a drive on each port that has a
 * disk. Each access to its registers is a message to the driver domain; data go between the disk and
 * the guest's memory. Wires the controller to a vfio-user server, and its drives to disks.
 */
import type { CounterBlock } from '../base/counters.ts';
import { SluiceError } from '../base/errors.ts';
import { loggerTo } from '../base/log.ts';
import type { Disk } from '../block/disk.ts';
import { Ahci } from '../device/ahci/ahci.ts';
import { AtaDisk } from '../device/ahci/ata-disk.ts';
import { Cdrom } from '../device/ahci/cdrom.ts';
import { type BlockCounter, newBlockCounters } from '../device/virtio-blk/counters.ts';
import type { LaneHost } from '../engine/lane.ts';
import { Later } from '../engine/later.ts';
import { DriveDisk } from './drive-disk.ts';
import type { DmaParts } from './emulated-net.ts';
import { PciAttachment, type PciAttachmentOptions, type PciState } from './pci-attachment.ts';

export interface EmulatedControllerOptions extends PciAttachmentOptions {
  /** Name of the function, such as `web/ahci0`. */
  readonly controller: string;
  /** Ports that the guest sees, with drives or without. */
  readonly ports: number;
}

export interface DriveOptions {
  /** Name of the device, such as `web/ahci0.1`. */
  readonly device: string;
  /** Port of the controller. */
  readonly port: number;
  readonly serial: string;
  /** It is a cdrom with the disk as its image. */
  readonly cdrom: boolean;
  /** False: each write is durable when it completes. */
  readonly writeback: boolean;
  readonly discard: boolean;
}

export interface DriveState {
  readonly device: string;
  readonly disk: string;
  readonly port: number;
}

interface Drive extends DriveState {
  readonly removed: Later<undefined> | undefined;
}

/** As the drives tell it; the first word is the vendor of SCSI's answers. */
const DISK_MODEL = 'Sluice disk';
const CDROM_MODEL = 'Sluice cdrom';
const FIRMWARE = '1.0';

/** A guest's AHCI controller. */
export class EmulatedController {
  readonly name: string;
  readonly #ahci: Ahci;
  readonly #attachment: PciAttachment;
  readonly #host: Pick<LaneHost<unknown>, 'loop'>;
  readonly #drives = new Map<string, Drive>();
  #closed: Later<undefined> | undefined;

  /** @throws SluiceError if the socket cannot be made, or an option is out of range. */
  constructor(
    options: EmulatedControllerOptions,
    host: Pick<LaneHost<unknown>, 'arena' | 'guard' | 'log' | 'loop'>,
    dma: DmaParts,
  ) {
    const { controller: name, ports } = options;
    const { arena, loop } = host;
    const log = loggerTo((level, message, fields) => host.log[level](message, fields), {
      device: name,
    });
    const ahci = new Ahci({ name, ports, arena, loop, log });
    try {
      this.#attachment = new PciAttachment(options, host, { device: ahci, log, ...dma });
    } catch (error) {
      ahci.close();
      throw error;
    }
    this.name = name;
    this.#ahci = ahci;
    this.#host = host;
  }

  has(device: string): boolean {
    return this.#drives.has(device);
  }

  /**
   * Plugs a drive in, also while the guest runs. Returns what it counts.
   * @throws SluiceError `state` if there is one in that port
   */
  insert(options: DriveOptions, disk: Disk): CounterBlock<BlockCounter> {
    const { device, port, serial, cdrom, writeback, discard } = options;
    const counters = newBlockCounters();
    const drive = new DriveDisk(disk, { counters, writeback, discard });
    const { loop } = this.#host;
    const identity = { serial, firmware: FIRMWARE, model: cdrom ? CDROM_MODEL : DISK_MODEL };
    this.#ahci.insert(
      port,
      cdrom
        ? new Cdrom({ disk: drive, identity })
        : new AtaDisk({ disk: drive, identity, now: () => loop.now }),
    );
    this.#drives.set(device, { device, disk: disk.name, port, removed: undefined });
    return counters;
  }

  /** Takes a drive out: the guest sees it go at once. Settles when its disk is not used any more. */
  remove(device: string): Later<undefined> {
    const drive = this.#drives.get(device);
    if (drive?.removed !== undefined) return drive.removed;
    const removed = new Later<undefined>();
    if (drive === undefined) {
      removed.resolve(undefined);
      return removed;
    }
    this.#drives.set(device, { ...drive, removed });
    this.#ahci.remove(drive.port, () => {
      this.#drives.delete(device);
      removed.resolve(undefined);
    });
    return removed;
  }

  /** What `sluice show` tells. */
  describe(): { readonly state: PciState; readonly drives: readonly DriveState[] } {
    const drives = [...this.#drives.values()].map(({ device, disk, port }) => ({
      device,
      disk,
      port,
    }));
    return { state: this.#attachment.describe(), drives };
  }

  /**
   * Disconnects the guest; the socket disappears at once. Settles when the guest's memory is not used
   * any more.
   * @throws SluiceError `state` while there are drives in it
   */
  close(): Later<undefined> {
    if (this.#closed !== undefined) return this.#closed;
    if (this.#drives.size > 0) {
      throw new SluiceError('state', `${this.name} is closed with drives in it`, {
        remedy: 'take them out first',
      });
    }
    const closed = new Later<undefined>();
    this.#closed = closed;
    this.#attachment.close(() => {
      this.#ahci.close();
      closed.resolve(undefined);
    });
    return closed;
  }

  /** Disconnects the guest; the socket disappears at once. Drives can be taken out still. */
  disconnect(): void {
    this.#attachment.disconnect();
  }
}
