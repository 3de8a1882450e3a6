/** IDENTIFY DEVICE as a driver reads it (ACS-3 §7.12.7). */
import { SluiceError } from '../../base/errors.ts';

export interface DriveInfo {
  readonly model: string;
  readonly serial: string;
  readonly firmware: string;
  readonly bytes: number;
  readonly blockBytes: number;
  readonly physicalBlockBytes: number;
  /** Queued commands that the drive takes at once; 0: none. */
  readonly queueDepth: number;
  /** Blocks of 512 bytes of ranges that one TRIM takes; 0: no TRIM. */
  readonly trimBlocks: number;
  readonly hasWriteCache: boolean;
  readonly writeCache: boolean;
}

const SIGNATURE = 0xa5;

/** @throws SluiceError `unsupported` for a drive without 48-bit addresses, or whose page is damaged */
export function parseIdentify(page: Buffer): DriveInfo {
  const word = (index: number): number => page.readUInt16LE(index * 2);
  const has = (index: number, bit: number): boolean => ((word(index) >> bit) & 1) === 1;
  if (page[510] === SIGNATURE && page.reduce((sum, byte) => sum + byte, 0) % 256 !== 0) {
    throw new SluiceError('unsupported', 'a drive whose IDENTIFY has a wrong checksum');
  }
  if (!has(83, 10)) throw new SluiceError('unsupported', 'a drive without 48-bit addresses');
  // Words 106, 169 and 69 say something only where bits 15:14 of word 106 are 01.
  const hasSizes = word(106) >> 14 === 1;
  const blockBytes = hasSizes && has(106, 12) ? page.readUInt32LE(117 * 2) * 2 : 512;
  const physical = hasSizes && has(106, 13) ? word(106) & 0xf : 0;
  return {
    model: text(page, 27, 20),
    serial: text(page, 10, 10),
    firmware: text(page, 23, 4),
    bytes: Number(page.readBigUInt64LE(100 * 2)) * blockBytes,
    blockBytes,
    physicalBlockBytes: blockBytes << physical,
    queueDepth: has(76, 8) ? (word(75) & 0x1f) + 1 : 0,
    trimBlocks: has(169, 0) ? Math.max(1, word(105)) : 0,
    hasWriteCache: has(82, 5),
    writeCache: has(85, 5),
  };
}

/** ASCII, the first character in the upper half of the first word. */
function text(page: Buffer, word: number, words: number): string {
  return Buffer.from(page.subarray(word * 2, (word + words) * 2))
    .swap16()
    .toString('latin1')
    .trim();
}
