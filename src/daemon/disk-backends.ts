/**
 * What is behind the disks: opened and locked by the main thread before a lane gets them, and closed
 * by it when the lane has no request on its way any more.
 */

import { SluiceError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { describeFileDisk, openFileDisk, resizeFileDisk } from '../block/file.ts';
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

/** @throws SluiceError that names what cannot be opened, and why. */
export async function openBackend(disk: DiskConfig, log: Logger): Promise<DiskBackend> {
  const { source } = disk;
  switch (source.kind) {
    case 'file':
      return await openFileBackend(disk, source, log);
    case 'memory':
      return memoryBackend(disk, source.bytes);
    case 'nbd':
    case 'image':
      throw new SluiceError('unsupported', `disk ${disk.name}: ${source.kind} is not yet there`);
  }
}

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
  { file, direct }: Extract<DiskSource, { kind: 'file' }>,
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
