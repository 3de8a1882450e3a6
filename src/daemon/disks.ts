/** Disks and disk devices as the main thread knows them: what is open, and what is counted. */
import type { CounterBlock } from '../base/counters.ts';
import { SluiceError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type BlockCounter, newBlockCounters } from '../device/virtio-blk/counters.ts';
import type { Config } from './config.ts';
import type { DevicePart, DiskPart } from './difference.ts';
import { partKey } from './difference.ts';
import { type DiskBackend, type DiskDetails, openBackend } from './disk-backends.ts';
import type { DiskSource } from './disk-config.ts';
import type { DeviceState, DiskState, Lane, LaneSnapshot } from './lane-commands.ts';

/** A disk device as it is shown: its state with its counters. */
export interface DeviceFigures extends DeviceState {
  readonly lane: number;
  readonly counters: Readonly<Record<BlockCounter, number>>;
}

/** A disk as it is shown. */
export interface DiskFigures {
  readonly disk: string;
  readonly kind: DiskSource['kind'];
  /** File, URI, or `memory`. */
  readonly source: string;
  readonly readonly: boolean;
  /** Null: it cannot lose its power, or is not open. */
  readonly power: DiskState['power'];
  readonly serial: string;
  /** Lanes that have it open; none while no guest has it. */
  readonly lanes: readonly number[];
  /** Size; null while it is not open. */
  readonly bytes: number | null;
  readonly blockBytes: number;
  /** Devices, such as `web/disk0`. */
  readonly usedBy: readonly string[];
  /** What its kind has to tell, while it is open. */
  readonly details: DiskDetails;
  /** Of all its devices together. */
  readonly counters: Readonly<Record<BlockCounter, number>>;
}

type Snapshots = readonly { readonly lane: number; readonly snapshot: LaneSnapshot }[];

export class Disks {
  /** By part. */
  readonly #backends = new Map<
    string,
    { readonly part: DiskPart; readonly backend: DiskBackend }
  >();
  readonly #run: string;
  readonly #log: Logger;
  /** By device. */
  readonly #counters = new Map<string, CounterBlock<BlockCounter>>();

  /** @param run the run directory */
  constructor(run: string, log: Logger) {
    this.#run = run;
    this.#log = log;
  }

  /** Opens a disk, and gives it to a lane. @throws SluiceError if one of them fails. */
  async add(lane: Lane, part: DiskPart): Promise<void> {
    const backend = await openBackend(part, this.#run, this.#log);
    try {
      await lane.request('addDisk', { disk: part.disk, description: backend.description });
    } catch (error) {
      await backend.close();
      throw error;
    }
    this.#backends.set(partKey(part), { part, backend });
  }

  async remove(lane: Lane, part: DiskPart): Promise<void> {
    const key = partKey(part);
    try {
      await lane.request('removeDisk', part.name);
    } finally {
      await this.#backends.get(key)?.backend.close();
      this.#backends.delete(key);
    }
  }

  async addDevice(lane: Lane, { guestDisk }: DevicePart): Promise<void> {
    const { device, shared } = await lane.request('addDevice', guestDisk);
    this.#counters.set(device, newBlockCounters(shared));
  }

  /** Settles when its requests are complete. */
  async removeDevice(lane: Lane, { name }: DevicePart): Promise<void> {
    await lane.request('removeDevice', name);
    this.#counters.delete(name);
  }

  /**
   * Gives a disk another size; its guests are told.
   * @throws SluiceError for a disk that is not there, is not open, or cannot have that size
   */
  async resize(
    lanes: readonly Lane[],
    name: string,
    bytes: number,
    shrink: boolean,
  ): Promise<void> {
    const open = this.#openOf(name);
    const [first] = open;
    if (first === undefined) {
      throw new SluiceError('state', `disk ${name} is not open: no guest has it`, {
        remedy: 'give it to a guest, or resize it by the tools of its kind',
      });
    }
    const { backend, part } = first;
    if (backend.resize === undefined) {
      throw new SluiceError(
        'unsupported',
        `disk ${name}: a disk of kind ${part.disk.source.kind} has one size`,
        {
          remedy:
            part.disk.source.kind === 'memory'
              ? 'change it in the configuration: the disk is empty then'
              : 'resize it where it is, and start Sluice again',
        },
      );
    }
    const refresh = async (most: number): Promise<void> => {
      for (const { part: other } of open)
        await lanes[other.lane]?.request('refreshDisk', { disk: name, most });
    };
    if (shrink) await refresh(bytes);
    try {
      backend.resize(bytes, shrink);
    } finally {
      await refresh(Number.POSITIVE_INFINITY);
    }
  }

  /**
   * Cuts the power of a disk, or gives it back.
   * @throws SluiceError for a disk that is not open, or cannot lose its power
   */
  async power(lanes: readonly Lane[], name: string, on: boolean): Promise<void> {
    const open = this.#openOf(name);
    if (open.length === 0) {
      throw new SluiceError('state', `disk ${name} is not open: no guest has it`, {
        remedy: 'give it to a guest',
      });
    }
    for (const { part } of open) await lanes[part.lane]?.request('powerDisk', { disk: name, on });
  }

  /** A disk as its lanes have it. */
  #openOf(name: string): { readonly part: DiskPart; readonly backend: DiskBackend }[] {
    return [...this.#backends.values()].filter(({ part }) => part.name === name);
  }

  /** Live counters of a device. @throws SluiceError `not-found`. */
  countersOf(device: string): Record<BlockCounter, number> {
    const block = this.#counters.get(device);
    if (block === undefined) throw new SluiceError('not-found', `no disk device ${device}`);
    return block.snapshot();
  }

  devices(snapshots: Snapshots): DeviceFigures[] {
    return snapshots.flatMap(({ lane, snapshot }) =>
      snapshot.devices.map((device) => ({
        ...device,
        lane,
        counters: this.countersOf(device.device),
      })),
    );
  }

  list({ disks, guests }: Config, snapshots: Snapshots): DiskFigures[] {
    return disks.map((disk) => {
      const { name } = disk;
      const open = this.#openOf(name);
      const states = snapshots.flatMap(({ snapshot }) =>
        snapshot.disks.filter((state) => state.disk === name),
      );
      // A device that could not be added is configured, and uses nothing.
      const usedBy = guests
        .flatMap((guest) => guest.disk.filter((device) => device.disk === name))
        .map(({ device }) => device)
        .filter((device) => this.#counters.has(device));
      return {
        disk: name,
        kind: disk.source.kind,
        source: sourceText(disk.source),
        readonly: states[0]?.readonly ?? disk.readonly,
        power: states[0]?.power ?? null,
        serial: disk.serial,
        lanes: open.map(({ part }) => part.lane),
        bytes: states[0]?.bytes ?? null,
        blockBytes: states[0]?.blockBytes ?? disk.blockBytes,
        usedBy,
        details: open[0]?.backend.details() ?? {},
        counters: sumOf(usedBy.flatMap((device) => this.#counters.get(device)?.snapshot() ?? [])),
      };
    });
  }

  /** Closes what is still open. */
  async close(): Promise<void> {
    await Promise.all([...this.#backends.values()].map(({ backend }) => backend.close()));
    this.#backends.clear();
    this.#counters.clear();
  }
}

function sourceText(source: DiskSource): string {
  switch (source.kind) {
    case 'file':
    case 'image':
      return source.file;
    case 'nbd':
      return source.uri;
    case 'memory':
      return 'memory';
  }
}

function sumOf(list: readonly Record<BlockCounter, number>[]): Record<BlockCounter, number> {
  const sum = newBlockCounters();
  for (const counters of list) {
    for (const [index, name] of sum.names.entries())
      sum.values[index] = (sum.values[index] as number) + counters[name];
  }
  return sum.snapshot();
}
