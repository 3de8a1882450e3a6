/**
 * Method `paravirtual` for disks: the guest sees virtio-blk, its rings lie in its own memory, and the
 * disk reads and writes that memory. Wires the device to a vhost-user server and to a disk.
 */
import type { CounterBlock } from '../base/counters.ts';
import { loggerTo } from '../base/log.ts';
import type { Disk } from '../block/disk.ts';
import type { BlockCounter } from '../device/virtio-blk/counters.ts';
import { type CacheModeStore, VirtioBlk } from '../device/virtio-blk/virtio-blk.ts';
import type { LaneHost } from '../engine/lane.ts';
import { Later } from '../engine/later.ts';
import type { PollLoop } from '../os/poll-loop.ts';
import {
  Attachment,
  type AttachmentOptions,
  type AttachmentRing,
  type AttachmentState,
} from './attachment.ts';

export interface ParavirtualDiskOptions extends AttachmentOptions {
  /** Name of the device, such as `web/disk0`. */
  readonly device: string;
  readonly queues: number;
  readonly segMax: number;
  readonly serial: string;
  /** The cache mode that a guest finds. */
  readonly writeback: boolean;
  /** Where the guest's own choice of it is kept. */
  readonly cacheMode: CacheModeStore;
  /** Feature bits that are not offered. */
  readonly withheld: bigint;
}

export interface ParavirtualDiskState {
  readonly state: AttachmentState & {
    readonly device: string;
    readonly disk: string;
    readonly running: boolean;
  };
  readonly rings: readonly (AttachmentRing & { readonly direction: 'request' })[];
}

/** How often a device that is to be closed looks whether it is idle. */
const IDLE_CHECK_US = 1000;

/** A guest's disk device. */
export class ParavirtualDisk {
  readonly #device: VirtioBlk;
  readonly #attachment: Attachment;
  readonly #loop: PollLoop;
  #closed: Later<undefined> | undefined;

  /** @throws SluiceError if the socket cannot be made, or an option is out of range. */
  constructor(
    options: ParavirtualDiskOptions,
    host: Pick<LaneHost<unknown>, 'arena' | 'guard' | 'log' | 'loop'>,
    disk: Disk,
  ) {
    const { device: name } = options;
    const { arena, loop } = host;
    const log = loggerTo((level, message, fields) => host.log[level](message, fields), {
      device: name,
      disk: disk.name,
    });
    const device = new VirtioBlk({
      name,
      disk,
      queues: options.queues,
      segMax: options.segMax,
      serial: options.serial,
      writeback: options.writeback,
      cacheMode: options.cacheMode,
      withheld: options.withheld,
      arena,
      loop,
      log,
    });
    try {
      this.#attachment = new Attachment(options, host, { name, device, arena, log });
    } catch (error) {
      device.close();
      throw error;
    }
    this.#device = device;
    this.#loop = loop;
  }

  get counters(): CounterBlock<BlockCounter> {
    return this.#device.counters;
  }

  /** What `sluice show` tells. */
  describe(): ParavirtualDiskState {
    const { state, rings } = this.#attachment.describe();
    const { name, disk, running } = this.#device;
    return {
      state: { device: name, disk: disk.name, running, ...state },
      rings: rings.map((ring) => ({ ...ring, direction: 'request' })),
    };
  }

  /**
   * Disconnects the guest; the socket disappears at once. Settles when the requests that were on
   * their way are complete, and the disk is not used any more.
   */
  close(): Later<undefined> {
    if (this.#closed !== undefined) return this.#closed;
    const closed = new Later<undefined>();
    this.#closed = closed;
    const end = (): void => {
      // A flush of the device's own accord may still be on its way.
      if (!this.#device.idle) {
        this.#loop.setTimer(IDLE_CHECK_US, end);
        return;
      }
      this.#attachment.close();
      this.#device.close();
      closed.resolve(undefined);
    };
    this.#attachment.disconnect(end);
    return closed;
  }
}
