/**
 * What is behind the disks: opened and locked by the main thread before a lane gets them, and closed
 * by it when the lane has no request on its way any more.
 */

import { join } from 'node:path';
import type { Logger } from '../base/log.ts';
import type { NbdDiskDescription } from '../block/nbd/description.ts';
import { describeFileDisk, openFileDisk, resizeFileDisk } from '../block/open/file.ts';
import { openImageDisk } from '../block/open/image.ts';
import { openNbdDisk } from '../block/open/nbd.ts';
import type { DiskPart } from './difference.ts';
import type { DiskConfig, DiskSource } from './disk-config.ts';
import type { DiskDescription } from './lane-commands.ts';

/** What is told of a disk beyond what all disks have in common. */
export type DiskDetails = Readonly<Record<string, string | number | boolean | null>>;

/** A disk as the main thread holds it. */
export interface DiskBackend {
  /** For the lane. */
  readonly description: DiskDescription;
  details(): DiskDetails;
  /**
   * Changes the size. The lane looks again afterwards; before a disk shrinks, it is told the new size.
   * Undefined where that cannot be.
   */
  readonly resize: ((bytes: number, shrink: boolean) => void) | undefined;
  close(): Promise<void>;
}

/**
 * @param run directory for the sockets of programs that are started
 * @throws SluiceError that names what cannot be opened, and why
 */
export async function openBackend(
  { disk, lane }: Pick<DiskPart, 'disk' | 'lane'>,
  run: string,
  log: Logger,
): Promise<DiskBackend> {
  const { source } = disk;
  switch (source.kind) {
    case 'file':
      return await openFileBackend(disk, source, log);
    case 'memory':
      return memoryBackend(disk, source.bytes);
    case 'nbd':
      return await openNbdBackend(disk, source, log);
    case 'image':
      return await openImageBackend(disk, source, { log, directory: join(run, `lane${lane}`) });
  }
}

type Source<Kind extends DiskSource['kind']> = Extract<DiskSource, { kind: Kind }>;

function memoryBackend({ name, readonly, blockBytes }: DiskConfig, bytes: number): DiskBackend {
  return {
    description: { kind: 'memory', name, bytes, readonly, blockBytes },
    details: () => ({}),
    resize: undefined,
    close: () => Promise.resolve(),
  };
}

async function openFileBackend(
  { name, readonly, blockBytes, discard }: DiskConfig,
  { file, direct }: Source<'file'>,
  log: Logger,
): Promise<DiskBackend> {
  const description = await openFileDisk({
    name,
    path: file,
    readonly,
    direct,
    blockBytes,
    discard,
    log,
  });
  return {
    description,
    details: () => {
      const { allocatedBytes, isDevice, engine, lock } = describeFileDisk(description);
      return { engine, lock, direct, device: isDevice, allocated_bytes: allocatedBytes ?? null };
    },
    resize: (bytes, shrink) => resizeFileDisk(description, bytes, shrink),
    // The descriptor is the lane's.
    close: () => Promise.resolve(),
  };
}

/** What of an NBD export is told. */
function detailsOf({ uri, connections, export: found }: NbdDiskDescription): DiskDetails {
  return { engine: 'nbd', server: uri, connections, structured_replies: found.structured };
}

async function openNbdBackend(
  { name, readonly }: DiskConfig,
  { uri, connections, reconnectMs, afterLoss }: Source<'nbd'>,
  log: Logger,
): Promise<DiskBackend> {
  const description = await openNbdDisk({
    name,
    uri,
    readonly,
    connections,
    afterLoss,
    ...(reconnectMs === undefined ? {} : { reconnectMs }),
    log,
  });
  return {
    description,
    details: () => detailsOf(description),
    resize: undefined,
    close: () => Promise.resolve(),
  };
}

async function openImageBackend(
  { name, readonly, discard }: DiskConfig,
  { file, format, overlay, direct, connections, reconnectMs }: Source<'image'>,
  place: { readonly log: Logger; readonly directory: string },
): Promise<DiskBackend> {
  const { description, process } = await openImageDisk({
    name,
    path: file,
    format,
    ...(overlay === undefined ? {} : { overlay }),
    readonly,
    discard,
    direct,
    connections,
    ...(reconnectMs === undefined ? {} : { reconnectMs }),
    ...place,
  });
  return {
    description,
    details: () => ({
      ...detailsOf(description),
      engine: 'qemu-nbd',
      format,
      overlay: overlay ?? null,
      direct,
      pid: process.pid ?? null,
    }),
    resize: undefined,
    close: () => process.stop(),
  };
}
