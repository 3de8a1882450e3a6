/** The disks of a lane, and the devices by which its guests reach them. */
import { join } from 'node:path';
import { bitMask } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import type { Disk, DiskLane } from '../block/disk.ts';
import { FaultyDisk } from '../block/faults.ts';
import { FileDisk } from '../block/file.ts';
import { LimitedDisk } from '../block/limits.ts';
import { MemoryDisk } from '../block/memory.ts';
import { NbdDisk } from '../block/nbd/nbd-disk.ts';
import type { LaneHost } from '../engine/lane.ts';
import { Later } from '../engine/later.ts';
import { ParavirtualDisk } from '../method/paravirtual.ts';
import type { SocketAccess } from '../os/unix-socket.ts';
import { VIRTIO_BLK_F_DISCARD } from '../spec/virtio-blk.ts';
import { CacheModeFile } from './cache-mode-file.ts';
import type { DiskConfig, GuestDiskConfig } from './disk-config.ts';
import type {
  DeviceCounters,
  DeviceState,
  DiskDescription,
  DiskState,
  LaneEvent,
  LaneSettings,
  RingState,
} from './lane-commands.ts';
import { cacheModeName } from './run-directory.ts';

interface LaneDisk {
  readonly config: DiskConfig;
  readonly base: Disk;
  readonly disk: Disk;
}

export class LaneDisks {
  readonly #host: LaneHost<LaneEvent>;
  readonly #settings: LaneSettings;
  readonly #access: SocketAccess;
  readonly #disks = new Map<string, LaneDisk>();
  readonly #devices = new Map<string, ParavirtualDisk>();

  /** @param access who may connect to the guests' sockets */
  constructor(host: LaneHost<LaneEvent>, settings: LaneSettings, access: SocketAccess) {
    this.#host = host;
    this.#settings = settings;
    this.#access = access;
  }

  add(config: DiskConfig, description: DiskDescription): undefined {
    const base = openBase(description, this.#host);
    this.#disks.set(config.name, { config, base, disk: wrap(config, base) });
    return undefined;
  }

  /** @throws SluiceError `state` while a device uses it */
  remove(name: string): undefined {
    this.#disks.get(name)?.disk.close();
    this.#disks.delete(name);
    return undefined;
  }

  /** @param most the size that the disk is about to shrink to, or Infinity */
  refresh(name: string, most: number): undefined {
    const { base } = this.#disk(name);
    if (base instanceof FileDisk) base.refreshSize(most);
    return undefined;
  }

  addDevice(config: GuestDiskConfig): DeviceCounters {
    const { config: disk, disk: opened } = this.#disk(config.disk);
    const { isolation, run } = this.#settings;
    const device = new ParavirtualDisk(
      {
        ...config,
        serial: disk.serial,
        writeback: disk.cache === 'writeback',
        cacheMode: new CacheModeFile(join(run, cacheModeName(config.device)), disk.cache),
        withheld: disk.discard ? 0n : bitMask(VIRTIO_BLK_F_DISCARD),
        isolation,
        access: this.#access,
        onFailure: (reason) =>
          this.#host.emit({ kind: 'fault', fault: { port: config.device, reason } }),
      },
      this.#host,
      opened,
    );
    this.#devices.set(config.device, device);
    return { device: config.device, shared: device.counters.shared };
  }

  /** Settles when the requests of the device are complete. */
  removeDevice(name: string): Later<undefined> {
    const removed = new Later<undefined>();
    const device = this.#devices.get(name);
    if (device === undefined) removed.resolve(undefined);
    else {
      device.close().whenSettled(
        () => {
          this.#devices.delete(name);
          removed.resolve(undefined);
        },
        (error) => removed.reject(error),
      );
    }
    return removed;
  }

  /** Removes everything; settles when no request is on its way. */
  drain(): Later<undefined> {
    const drained = new Later<undefined>();
    const errors: unknown[] = [];
    let left = 1 + this.#devices.size;
    const next = (): void => {
      left--;
      if (left > 0) return;
      for (const name of [...this.#disks.keys()]) {
        try {
          this.remove(name);
        } catch (error) {
          errors.push(error);
        }
      }
      if (errors.length === 0) drained.resolve(undefined);
      else drained.reject(errors[0]);
    };
    for (const name of [...this.#devices.keys()]) {
      this.removeDevice(name).whenSettled(next, (error) => {
        errors.push(error);
        next();
      });
    }
    next();
    return drained;
  }

  /** Disconnects all guests. For a lane that ends in whatever state it is: {@link drain} comes before. */
  close(): void {
    for (const device of this.#devices.values()) device.close();
  }

  describe(): {
    readonly disks: readonly DiskState[];
    readonly devices: readonly DeviceState[];
    readonly rings: readonly RingState[];
  } {
    const devices = [...this.#devices.values()].map((device) => device.describe());
    return {
      disks: [...this.#disks].map(([name, { disk }]) => ({
        disk: name,
        bytes: disk.info.bytes,
        blockBytes: disk.info.blockBytes,
        readonly: disk.info.readonly,
      })),
      devices: devices.map(({ state }) => state),
      rings: devices.flatMap(({ rings }) => rings),
    };
  }

  #disk(name: string): LaneDisk {
    const found = this.#disks.get(name);
    if (found === undefined) throw new SluiceError('not-found', `no disk ${name} in this lane`);
    return found;
  }
}

/** What is behind a disk, without what the configuration wraps it in. */
function openBase(description: DiskDescription, lane: DiskLane): Disk {
  switch (description.kind) {
    case 'file':
      return new FileDisk(description, lane);
    case 'memory':
      return new MemoryDisk(description, lane);
    case 'nbd':
      return new NbdDisk(description, lane);
  }
}

/** Faults are the disk's own; limits are between it and the guests. */
function wrap({ faults, limits }: DiskConfig, base: Disk): Disk {
  try {
    const disk = faults === undefined ? base : new FaultyDisk(base, faults);
    return limits === undefined ? disk : new LimitedDisk(disk, limits);
  } catch (error) {
    base.close();
    throw error;
  }
}
