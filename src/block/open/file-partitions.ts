/**
 * How far the partition table of a disk reaches, so that an image that was cut off is noticed.
 *
 *   sector 0: 446 code, four entries of 16 bytes (type at 4, first sector u32 at 8, sectors u32 at 12),
 *             0x55 0xaa at 510 (IBM PC master boot record)
 *   block 1:  "EFI PART" at 0, its copy's block u64 at 32, the last usable block u64 at 48
 *             (UEFI 2.10 §5.3.2)
 */
import { TWO_32 } from '../../base/bits.ts';
import { SECTOR_BYTES } from '../disk.ts';

const ENTRIES_AT = 446;
const ENTRY_BYTES = 16;
const SIGNATURE_AT = 510;
/** A single partition of this type says: there is a GPT. Its size says nothing. */
const TYPE_PROTECTIVE = 0xee;
const GPT_SIGNATURE = 'EFI PART';
const GPT_BLOCK_SIZES = [512, 4096] as const;

/** What has to be read of the disk's begin. */
export const TABLE_BYTES = 2 * 4096;

/** Bytes that a disk must have by its partition table; 0 without one. `start`: its first bytes. */
export function bytesOfTable(start: Buffer): number {
  return Math.max(bytesOfGpt(start), bytesOfMbr(start));
}

function bytesOfGpt(start: Buffer): number {
  for (const block of GPT_BLOCK_SIZES) {
    if (start.length < block + 56) continue;
    if (start.toString('latin1', block, block + 8) !== GPT_SIGNATURE) continue;
    const copy = start.readUInt32LE(block + 32) + start.readUInt32LE(block + 36) * TWO_32;
    return (copy + 1) * block;
  }
  return 0;
}

function bytesOfMbr(start: Buffer): number {
  if (start.length < SECTOR_BYTES || start.readUInt16BE(SIGNATURE_AT) !== 0x55aa) return 0;
  const entries = [0, 1, 2, 3].map((index) => {
    const at = ENTRIES_AT + index * ENTRY_BYTES;
    return {
      flag: start[at] as number,
      type: start[at + 4] as number,
      end: start.readUInt32LE(at + 8) + start.readUInt32LE(at + 12),
    };
  });
  // The boot sector of a file system has the same signature, and its code where the entries would be.
  if (entries.some(({ flag }) => flag !== 0 && flag !== 0x80)) return 0;
  const ends = entries
    .filter(({ type }) => type !== 0 && type !== TYPE_PROTECTIVE)
    .map(({ end }) => end * SECTOR_BYTES);
  return Math.max(0, ...ends);
}
