/** Disks of the desired state, and guests' disk devices, with every default filled in. */
import { resolve } from 'node:path';
import { SECTOR_BYTES } from '../block/disk.ts';
import type { FaultPlan } from '../block/fault-plan.ts';
import type { DiskLimits } from '../block/limits.ts';
import type { AfterLoss } from '../block/nbd/description.ts';
import type { ImageFormat } from '../block/open/image-tools.ts';
import type { PowerCutOptions } from '../block/power-cut.ts';
import { AHCI_MAX_PORTS } from '../spec/ahci.ts';
import { BLK_ID_BYTES } from '../spec/virtio-blk.ts';
import { bytesOf, isOn } from './config-values.ts';
import type { DiskDocument, GuestDiskDocument } from './disk-schema.ts';
import { faultPlanOf, powerCutOf } from './fault-schema.ts';

/** What is behind a disk. */
export type DiskSource =
  | { readonly kind: 'file'; readonly file: string; readonly direct: boolean }
  | { readonly kind: 'memory'; readonly bytes: number }
  | {
      readonly kind: 'nbd';
      readonly uri: string;
      readonly connections: number;
      /** How long requests wait for a server that is gone; undefined: the usual time. */
      readonly reconnectMs: number | undefined;
      readonly afterLoss: AfterLoss;
    }
  | {
      readonly kind: 'image';
      readonly file: string;
      readonly format: ImageFormat;
      readonly overlay: string | undefined;
      readonly direct: boolean;
      readonly connections: number;
      readonly reconnectMs: number | undefined;
    };

export interface DiskConfig {
  readonly name: string;
  readonly source: DiskSource;
  readonly readonly: boolean;
  readonly serial: string;
  readonly blockBytes: number;
  readonly cache: 'writeback' | 'writethrough';
  readonly discard: boolean;
  /** Undefined without any limit. */
  readonly limits: DiskLimits | undefined;
  readonly faults: FaultPlan | undefined;
  /** Of a disk that can lose its power. */
  readonly powerCut: PowerCutOptions | undefined;
}

interface GuestDisk {
  /** `web/disk0`; a drive is named after its port: `web/ahci0.0` */
  readonly device: string;
  readonly guest: string;
  readonly disk: string;
  readonly socket: string;
}

export interface ParavirtualDiskConfig extends GuestDisk {
  readonly method: 'paravirtual';
  readonly queues: number;
  readonly segMax: number;
  readonly packed: boolean;
  readonly server: 'listen' | 'connect';
}

/** A drive of an emulated controller, whose socket it is reached by. */
export interface EmulatedDiskConfig extends GuestDisk {
  readonly method: 'emulated';
  readonly model: 'ahci';
  /** `web/ahci0` */
  readonly controller: string;
  readonly port: number;
  readonly cdrom: boolean;
  /** A vfio-user client always connects. */
  readonly server: 'listen';
}

/** A disk as a guest has it. */
export type GuestDiskConfig = ParavirtualDiskConfig | EmulatedDiskConfig;

/** An emulated disk controller of a guest. */
export interface ControllerConfig {
  /** `web/ahci0` */
  readonly name: string;
  readonly model: 'ahci';
  readonly guest: string;
  /** Ports that the guest sees. */
  readonly ports: number;
  readonly socket: string;
}

/** The serial of a disk that is given none: as much of its name as a serial holds. */
export function defaultSerial(name: string): string {
  return name.slice(0, BLK_ID_BYTES);
}

/** @param base what relative paths begin at */
export function toDisk(name: string, disk: DiskDocument, base: string): DiskConfig {
  return {
    name,
    source: toSource(disk, base),
    readonly: isOn(disk.readonly),
    serial: disk.serial ?? defaultSerial(name),
    blockBytes: disk.block_size ?? SECTOR_BYTES,
    cache: disk.cache,
    discard: isOn(disk.discard),
    limits: toLimits(disk),
    faults: disk.faults === undefined ? undefined : faultPlanOf(disk.faults),
    powerCut: disk.faults === undefined ? undefined : powerCutOf(disk.faults),
  };
}

function toSource(disk: DiskDocument, base: string): DiskSource {
  if (disk.file !== undefined)
    return { kind: 'file', file: resolve(base, disk.file), direct: isOn(disk.direct ?? false) };
  if (disk.memory !== undefined) return { kind: 'memory', bytes: bytesOf(disk.memory) };
  const direct = isOn(disk.direct ?? false);
  const server = {
    connections: disk.connections ?? 1,
    reconnectMs: disk.reconnect === undefined ? undefined : disk.reconnect * 1000,
  };
  if (disk.nbd !== undefined)
    return { kind: 'nbd', uri: disk.nbd, afterLoss: disk.after_loss ?? 'trust', ...server };
  return {
    kind: 'image',
    file: resolve(base, disk.image ?? ''),
    format: disk.format ?? 'raw',
    overlay: disk.overlay === undefined ? undefined : resolve(base, disk.overlay),
    direct,
    ...server,
  };
}

function toLimits(disk: DiskDocument): DiskLimits | undefined {
  const bytes = (size: string | undefined): number | undefined =>
    size === undefined ? undefined : bytesOf(size);
  const rates = {
    iops: disk.iops,
    iopsRead: disk.iops_read,
    iopsWrite: disk.iops_write,
    bps: bytes(disk.bps),
    bpsRead: bytes(disk.bps_read),
    bpsWrite: bytes(disk.bps_write),
  };
  if (Object.values(rates).every((rate) => rate === undefined)) return undefined;
  return { ...rates, burst: disk.burst };
}

/**
 * The disks of a guest, in the order of the file.
 * @param run the run directory, where the sockets are
 */
export function toGuestDisks(
  guest: string,
  disks: readonly GuestDiskDocument[],
  run: string,
): GuestDiskConfig[] {
  const ports = drivePorts(disks);
  return disks.map((disk, index) => {
    if (disk.method === 'paravirtual') {
      return {
        method: disk.method,
        device: `${guest}/disk${index}`,
        guest,
        disk: disk.disk,
        queues: disk.queues,
        segMax: disk.seg_max,
        packed: isOn(disk.packed),
        server: disk.server,
        socket: resolve(run, `${guest}-disk${index}.sock`),
      };
    }
    const port = ports[index] ?? 0;
    const controller = `${guest}/ahci0`;
    return {
      method: disk.method,
      model: disk.model,
      device: `${controller}.${port}`,
      guest,
      disk: disk.disk,
      controller,
      port,
      cdrom: isOn(disk.cdrom),
      server: 'listen',
      socket: resolve(run, `${guest}-ahci0.sock`),
    };
  });
}

/** Port of each drive, by its place in the list: its own, or the first that nobody else has. */
function drivePorts(disks: readonly GuestDiskDocument[]): (number | undefined)[] {
  const taken = new Set(
    disks.flatMap((disk) => (disk.method === 'emulated' ? (disk.port ?? []) : [])),
  );
  let next = 0;
  return disks.map((disk) => {
    if (disk.method !== 'emulated') return undefined;
    if (disk.port !== undefined) return disk.port;
    while (taken.has(next)) next++;
    taken.add(next);
    return next;
  });
}

/** The ICH9 has six ports; a controller with more has all that AHCI knows, so that drives can come. */
const USUAL_PORTS = 6;

/** The controllers that the disks of a guest ask for. */
export function controllersOf(disks: readonly GuestDiskConfig[]): ControllerConfig[] {
  const drives = disks.filter((disk) => disk.method === 'emulated');
  return Object.values(Object.groupBy(drives, ({ controller }) => controller)).flatMap(
    (list = []) => {
      const [first] = list;
      if (first === undefined) return [];
      const { controller: name, model, guest, socket } = first;
      const isUsual = list.every(({ port }) => port < USUAL_PORTS);
      return { name, model, guest, socket, ports: isUsual ? USUAL_PORTS : AHCI_MAX_PORTS };
    },
  );
}
