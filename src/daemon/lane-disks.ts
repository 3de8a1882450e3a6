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
import { PowerCutDisk } from '../block/power-cut.ts';
import type { LaneHost } from '../engine/lane.ts';
import { Later } from '../engine/later.ts';
import { EmulatedController } from '../method/emulated.ts';
import type { DriveState } from '../method/emulated-disk.ts';
import { ParavirtualDisk } from '../method/paravirtual.ts';
import { errnoName } from '../os/libc.ts';
import type { SocketAccess } from '../os/unix-socket.ts';
import { VIRTIO_BLK_F_DISCARD } from '../spec/virtio-blk.ts';
import { CacheModeFile } from './cache-mode-file.ts';
import type {
  ControllerConfig,
  DiskConfig,
  EmulatedDiskConfig,
  GuestDiskConfig,
  ParavirtualDiskConfig,
} from './disk-config.ts';
import type {
  DeviceCounters,
  DeviceState,
  DiskDescription,
  DiskState,
  FunctionState,
  LaneEvent,
  LaneSettings,
  RingState,
} from './lane-commands.ts';
import type { LaneFunctions } from './lane-functions.ts';
import { cacheModeName } from './run-directory.ts';

interface LaneDisk {
  readonly config: DiskConfig;
  readonly base: Disk;
  /** The layer that can lose its power. */
  readonly power: PowerCutDisk | undefined;
  readonly disk: Disk;
}

interface LaneController {
  readonly config: ControllerConfig;
  readonly controller: EmulatedController;
}

export class LaneDisks {
  readonly #host: LaneHost<LaneEvent>;
  readonly #settings: LaneSettings;
  readonly #access: SocketAccess;
  readonly #disks = new Map<string, LaneDisk>();
  readonly #devices = new Map<string, ParavirtualDisk>();
  readonly #controllers = new Map<string, LaneController>();
  readonly #functions: LaneFunctions;

  /** @param access who may connect to the guests' sockets */
  constructor(
    host: LaneHost<LaneEvent>,
    settings: LaneSettings,
    access: SocketAccess,
    functions: LaneFunctions,
  ) {
    this.#functions = functions;
    this.#host = host;
    this.#settings = settings;
    this.#access = access;
  }

  add(config: DiskConfig, description: DiskDescription): undefined {
    const base = openBase(description, this.#host);
    this.#disks.set(config.name, { config, base, ...wrap(config, base, this.#host) });
    return undefined;
  }

  /**
   * Settles when it is closed; a volatile cache is written before.
   * @throws SluiceError `state` while a device uses it
   */
  remove(name: string): Later<undefined> {
    const removed = new Later<undefined>();
    const found = this.#disks.get(name);
    const end = (result: number): void => {
      found?.disk.close();
      this.#disks.delete(name);
      if (result === 0) removed.resolve(undefined);
      else removed.reject(powerError(name, 'its volatile cache could not be written', result));
    };
    if (found?.power === undefined) end(0);
    else found.power.settle(end);
    return removed;
  }

  /**
   * Cuts the power of a disk: its guests' requests fail from now on, and what no flush has made
   * durable may be lost. Or gives it back. Settles when that is done.
   * @throws SluiceError for a disk that cannot lose its power
   */
  power(name: string, on: boolean): Later<undefined> {
    const done = new Later<undefined>();
    const { power } = this.#disk(name);
    if (power === undefined) {
      throw new SluiceError('unsupported', `disk ${name} cannot lose its power`, {
        remedy: 'give it a volatile cache: faults: { volatile: 64M }',
      });
    }
    if (on) {
      power.restore();
      this.#host.log.info('power is back', { disk: name });
      done.resolve(undefined);
      return done;
    }
    power.powerCut((result) => {
      this.#host.log.info('power cut', { disk: name });
      if (result === 0) done.resolve(undefined);
      else done.reject(powerError(name, 'what survives the cut could not be written', result));
    });
    return done;
  }

  /** @param most the size that the disk is about to shrink to, or Infinity */
  refresh(name: string, most: number): undefined {
    const { base } = this.#disk(name);
    if (base instanceof FileDisk) base.refreshSize(most);
    return undefined;
  }

  addController(config: ControllerConfig): undefined {
    const { name, ports, socket } = config;
    const controller = new EmulatedController(
      {
        controller: name,
        ports,
        socket,
        access: this.#access,
        onFailure: this.#tell(name),
        ...this.#functions.watch(name),
      },
      this.#host,
      this.#functions.partsOf(name),
    );
    this.#controllers.set(name, { config, controller });
    return undefined;
  }

  /**
   * Settles when its guest's memory is not used any more.
   * @throws SluiceError `state` while there are drives in it
   */
  removeController(name: string): Later<undefined> {
    const found = this.#controllers.get(name);
    if (found === undefined) return settled();
    const removed = found.controller.close();
    this.#controllers.delete(name);
    this.#functions.forget(name);
    return removed;
  }

  addDevice(config: GuestDiskConfig): DeviceCounters {
    return config.method === 'paravirtual' ? this.#addVirtio(config) : this.#addDrive(config);
  }

  #addVirtio(config: ParavirtualDiskConfig): DeviceCounters {
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
        onFailure: this.#tell(config.device),
      },
      this.#host,
      opened,
    );
    this.#devices.set(config.device, device);
    return { device: config.device, shared: device.counters.shared };
  }

  #addDrive({ device, controller, port, cdrom, disk: name }: EmulatedDiskConfig): DeviceCounters {
    const { config: disk, disk: opened } = this.#disk(name);
    const found = this.#controllers.get(controller);
    if (found === undefined) {
      throw new SluiceError('not-found', `no controller ${controller} in this lane`);
    }
    const counters = found.controller.insert(
      {
        device,
        port,
        cdrom,
        serial: disk.serial,
        writeback: disk.cache === 'writeback',
        discard: disk.discard,
      },
      opened,
    );
    return { device, shared: counters.shared };
  }

  #tell(name: string): (reason: string) => void {
    return (reason) => this.#host.emit({ kind: 'fault', fault: { port: name, reason } });
  }

  /** Settles when the requests of the device are complete. */
  removeDevice(name: string): Later<undefined> {
    const device = this.#devices.get(name);
    if (device === undefined) return this.#removeDrive(name);
    const removed = new Later<undefined>();
    device.close().whenSettled(
      () => {
        this.#devices.delete(name);
        removed.resolve(undefined);
      },
      (error) => removed.reject(error),
    );
    return removed;
  }

  #removeDrive(name: string): Later<undefined> {
    for (const { controller } of this.#controllers.values()) {
      if (controller.has(name)) return controller.remove(name);
    }
    return settled();
  }

  #deviceNames(): string[] {
    const drives = [...this.#controllers.values()].flatMap(
      ({ controller }) => controller.describe().drives,
    );
    return [...this.#devices.keys(), ...drives.map(({ device }) => device)];
  }

  /** Removes everything; settles when no request is on its way. */
  drain(): Later<undefined> {
    const drained = new Later<undefined>();
    const errors: unknown[] = [];
    const end = (): void => {
      if (errors.length === 0) drained.resolve(undefined);
      else drained.reject(errors[0]);
    };
    // Their guests have not to see each drive go.
    for (const { controller } of this.#controllers.values()) controller.disconnect();
    forEach(
      this.#deviceNames(),
      (name) => this.removeDevice(name),
      errors,
      () => forEach([...this.#disks.keys()], (name) => this.remove(name), errors, end),
    );
    return drained;
  }

  /** Disconnects all guests. For a lane that ends in whatever state it is: {@link drain} comes before. */
  close(): void {
    for (const device of this.#devices.values()) device.close();
    for (const { controller } of this.#controllers.values()) controller.disconnect();
  }

  describe(): {
    readonly disks: readonly DiskState[];
    readonly devices: readonly DeviceState[];
    readonly rings: readonly RingState[];
    readonly functions: readonly FunctionState[];
  } {
    const devices = [...this.#devices.values()].map((device) => device.describe());
    const controllers = [...this.#controllers.values()].map(({ config, controller }) => {
      const { state, drives } = controller.describe();
      return { state: this.#functions.stateOf(config.name, config.model, state), drives };
    });
    return {
      disks: [...this.#disks].map(([name, { disk, power }]) => ({
        disk: name,
        bytes: disk.info.bytes,
        blockBytes: disk.info.blockBytes,
        readonly: disk.info.readonly,
        power: power === undefined ? null : power.isOff ? 'off' : 'on',
      })),
      devices: [
        ...devices.map(({ state }) => state),
        ...controllers.flatMap(({ state, drives }) =>
          drives.map((drive) => driveState(drive, state)),
        ),
      ],
      rings: devices.flatMap(({ rings }) => rings),
      functions: controllers.map(({ state }) => state),
    };
  }

  #disk(name: string): LaneDisk {
    const found = this.#disks.get(name);
    if (found === undefined) throw new SluiceError('not-found', `no disk ${name} in this lane`);
    return found;
  }
}

function settled(): Later<undefined> {
  const now = new Later<undefined>();
  now.resolve(undefined);
  return now;
}

function driveState({ device, disk }: DriveState, controller: FunctionState): DeviceState {
  const { connected, busMaster, memoryBytes, fault } = controller;
  return {
    device,
    disk,
    connected,
    running: connected && busMaster && fault === null,
    features: '0x0',
    protocolFeatures: [],
    memoryBytes,
    fault,
  };
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

/** Does something with each of these side by side, and `end` when all are done; errors are collected. */
function forEach(
  names: readonly string[],
  start: (name: string) => Later<undefined>,
  errors: unknown[],
  end: () => void,
): void {
  let left = 1 + names.length;
  const next = (): void => {
    left--;
    if (left === 0) end();
  };
  const fail = (error: unknown): void => {
    errors.push(error);
    next();
  };
  for (const name of names) {
    try {
      start(name).whenSettled(next, fail);
    } catch (error) {
      fail(error);
    }
  }
  next();
}

function powerError(name: string, what: string, result: number): SluiceError {
  return new SluiceError('state', `disk ${name}: ${what}: ${errnoName(-result)}`);
}

/**
 * Faults are the disk's own, and a request that they drop or fail does not get to its cache; limits
 * are between it and the guests.
 */
function wrap(
  { faults, limits, powerCut }: DiskConfig,
  base: Disk,
  lane: DiskLane,
): Pick<LaneDisk, 'disk' | 'power'> {
  let disk = base;
  try {
    const power = powerCut === undefined ? undefined : new PowerCutDisk(base, lane, powerCut);
    disk = power ?? base;
    if (faults !== undefined) disk = new FaultyDisk(disk, faults);
    if (limits !== undefined) disk = new LimitedDisk(disk, limits);
    return { disk, power };
  } catch (error) {
    disk.close();
    throw error;
  }
}
