/** What an NBD export is as a disk, and what its errors are to a guest. */
import { SluiceError } from '../../base/errors.ts';
import * as nbd from '../../spec/nbd.ts';
import { type DiskInfo, SECTOR_BYTES } from '../disk.ts';
import type { NbdExport } from './codec.ts';

/** The largest physical block that is told to guests: beyond, they do not cope. */
const MAX_PHYSICAL_BLOCK = 4096;

/** What a guest may rely on. @throws SluiceError `unsupported` for a size that no guest's disk has */
export function diskInfoOf(name: string, found: NbdExport, readonly: boolean): DiskInfo {
  const blockBytes = Math.max(SECTOR_BYTES, found.minBlock);
  if (found.bytes % blockBytes !== 0 || found.bytes === 0) {
    throw new SluiceError(
      'unsupported',
      `disk ${name}: the export has ${found.bytes} bytes, no multiple of its block of ${blockBytes}`,
      { remedy: 'pad it at the server (nbdkit: --filter=truncate round-up=512)' },
    );
  }
  const has = (flag: number): boolean => (found.flags & flag) !== 0;
  const physical = Math.max(blockBytes, Math.min(found.preferredBlock, MAX_PHYSICAL_BLOCK));
  return {
    bytes: found.bytes,
    readonly,
    blockBytes,
    physicalBlockBytes: physical,
    optimalBytes: found.preferredBlock > physical ? found.preferredBlock : 0,
    discardBytes: has(nbd.NBD_FLAG_SEND_TRIM) && !readonly ? blockBytes : 0,
    writeZeroes: has(nbd.NBD_FLAG_SEND_WRITE_ZEROES) && !readonly,
    volatileCache: has(nbd.NBD_FLAG_SEND_FLUSH),
  };
}

const NBD_ERRNOS: ReadonlySet<number> = new Set([
  nbd.NBD_EPERM,
  nbd.NBD_EIO,
  nbd.NBD_ENOMEM,
  nbd.NBD_EINVAL,
  nbd.NBD_ENOSPC,
  nbd.NBD_EOVERFLOW,
  nbd.NBD_ENOTSUP,
]);

/** The errno of an error of the server; the protocol's numbers are Linux's, others mean EINVAL. */
export function errnoOf(error: number): number {
  return NBD_ERRNOS.has(error) ? error : nbd.NBD_EINVAL;
}
