/** Disks of the desired state, and guests' disk devices, with every default filled in. */
import { resolve } from 'node:path';
import { BLK_ID_BYTES } from '../spec/virtio-blk.ts';
import { bytesOf, isOn } from './config-values.ts';
import type { DiskDocument, GuestDiskDocument, IMAGE_FORMATS } from './disk-schema.ts';

export type ImageFormat = (typeof IMAGE_FORMATS)[number];

/** What is behind a disk. */
export type DiskSource =
  | { readonly kind: 'file'; readonly file: string; readonly direct: boolean }
  | { readonly kind: 'memory'; readonly bytes: number }
  | { readonly kind: 'nbd'; readonly uri: string; readonly connections: number }
  | {
      readonly kind: 'image';
      readonly file: string;
      readonly format: ImageFormat;
      readonly overlay: string | undefined;
    };

/** Most that passes; undefined: no limit. Rates are a second. */
export interface LimitsConfig {
  readonly iops: number | undefined;
  readonly iopsRead: number | undefined;
  readonly iopsWrite: number | undefined;
  /** Bytes. */
  readonly bps: number | undefined;
  readonly bpsRead: number | undefined;
  readonly bpsWrite: number | undefined;
  /** Seconds of the rate that may pass at once after a pause. */
  readonly burst: number | undefined;
}

export interface DiskConfig {
  readonly name: string;
  readonly source: DiskSource;
  readonly readonly: boolean;
  readonly serial: string;
  readonly blockBytes: number;
  readonly cache: 'writeback' | 'writethrough';
  readonly discard: boolean;
  /** Undefined without any limit. */
  readonly limits: LimitsConfig | undefined;
}

/** A disk as a guest has it. */
export interface GuestDiskConfig {
  readonly method: 'paravirtual';
  /** `web/disk0` */
  readonly device: string;
  readonly guest: string;
  readonly disk: string;
  readonly queues: number;
  readonly segMax: number;
  readonly packed: boolean;
  readonly server: 'listen' | 'connect';
  readonly socket: string;
}

/** @param base what relative paths begin at */
export function toDisk(name: string, disk: DiskDocument, base: string): DiskConfig {
  return {
    name,
    source: toSource(disk, base),
    readonly: isOn(disk.readonly),
    serial: disk.serial ?? name.slice(0, BLK_ID_BYTES),
    blockBytes: disk.block_size,
    cache: disk.cache,
    discard: isOn(disk.discard),
    limits: toLimits(disk),
  };
}

function toSource(disk: DiskDocument, base: string): DiskSource {
  if (disk.file !== undefined)
    return { kind: 'file', file: resolve(base, disk.file), direct: isOn(disk.direct ?? false) };
  if (disk.memory !== undefined) return { kind: 'memory', bytes: bytesOf(disk.memory) };
  if (disk.nbd !== undefined)
    return { kind: 'nbd', uri: disk.nbd, connections: disk.connections ?? 1 };
  return {
    kind: 'image',
    file: resolve(base, disk.image ?? ''),
    format: disk.format ?? 'raw',
    overlay: disk.overlay === undefined ? undefined : resolve(base, disk.overlay),
  };
}

function toLimits(disk: DiskDocument): LimitsConfig | undefined {
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

/** @param run the run directory, where the sockets are */
export function toGuestDisk(
  guest: string,
  index: number,
  disk: GuestDiskDocument,
  run: string,
): GuestDiskConfig {
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
