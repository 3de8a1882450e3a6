/**
 * What a disk is filled with so that every sector can be judged by itself, as little-endian words:
 *
 *     magic 4 | sequence 4 | sector 8 | run 4 | checksum 4 | payload 488
 *
 * The sequence counts the writes of a run, the run is a number that one workload drew when it began;
 * both tell a sector that was written from an older one in the same place. The sector tells one that
 * landed in the wrong place. The checksum is a CRC-32C (RFC 3720 §12.1) of all the rest, and the
 * payload differs with sequence and sector.
 */
import { TWO_32 } from '../../base/bits.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';

const SECTOR_WORDS = SECTOR_BYTES / 4;

const MAGIC = 0x5343_4c53; // "SLCS"
const AT_SEQUENCE = 1;
const AT_SECTOR = 2;
const AT_RUN = 4;
const AT_CHECKSUM = 5;
const AT_PAYLOAD = 6;

/** Castagnoli's polynomial, bit-reversed. */
const POLYNOMIAL = 0x82f6_3b78;

/** Four tables: a word is looked up byte by byte, each in the table for its place ("slicing by 4"). */
const TABLES = crcTables();

function crcTables(): Int32Array {
  const tables = new Int32Array(4 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    tables[byte] = crc;
  }
  for (let at = 256; at < tables.length; at++) {
    const before = tables[at - 256] as number;
    tables[at] = (before >>> 8) ^ (tables[before & 0xff] as number);
  }
  return tables;
}

/** Goes on with a CRC-32C over words [from, to); begin with -1, and invert the end. */
export function crc32c(words: Uint32Array, from: number, to: number, start: number): number {
  let crc = start;
  for (let i = from; i < to; i++) {
    const x = crc ^ (words[i] as number);
    crc =
      (TABLES[768 + (x & 0xff)] as number) ^
      (TABLES[512 + ((x >>> 8) & 0xff)] as number) ^
      (TABLES[256 + ((x >>> 16) & 0xff)] as number) ^
      (TABLES[x >>> 24] as number);
  }
  return crc;
}

function checksum(words: Uint32Array, at: number): number {
  const head = crc32c(words, at, at + AT_CHECKSUM, -1);
  return ~crc32c(words, at + AT_PAYLOAD, at + SECTOR_WORDS, head) >>> 0;
}

/**
 * Fills the `bytes` bytes (a multiple of 512) from word `at` on, which belong to `sectors[slot]`
 * and those that follow.
 */
export function stampSectors(
  words: Uint32Array,
  at: number,
  bytes: number,
  sectors: Float64Array,
  slot: number,
  run: number,
  sequence: number,
): void {
  const end = at + bytes / 4;
  let sector = sectors[slot] as number;
  for (let word = at; word < end; word += SECTOR_WORDS) {
    words[word] = MAGIC;
    words[word + AT_SEQUENCE] = sequence;
    words[word + AT_SECTOR] = sector;
    words[word + AT_SECTOR + 1] = sector / TWO_32;
    words[word + AT_RUN] = run;
    // A linear congruential generator (Numerical Recipes, §7.1), seeded by what tells sectors apart.
    let x = Math.imul(sequence, 0x9e37_79b1) ^ (sector | 0) ^ run;
    for (let i = AT_PAYLOAD; i < SECTOR_WORDS; i++) {
      x = (Math.imul(x, 1664525) + 1013904223) | 0;
      words[word + i] = x;
    }
    words[word + AT_CHECKSUM] = checksum(words, word);
    sector++;
  }
}

/** What {@link checkSectors} finds. The worst of a block's sectors counts. */
export const SECTORS_GOOD = 0;
/** Never written by a workload like this: nothing can be said of it. */
export const SECTORS_UNKNOWN = 1;
/** Whole, but of another write than the one that was expected. */
export const SECTORS_STALE = 2;
/** Damaged, or of another place. */
export const SECTORS_CORRUPT = 3;

/**
 * Looks at every sector of a block. `sequence`: of the write that must be found, of this `run`; 0 if
 * it is not known which: then any good sector will do, and one that was never written is unknown.
 */
export function checkSectors(
  words: Uint32Array,
  at: number,
  bytes: number,
  sectors: Float64Array,
  slot: number,
  run: number,
  sequence: number,
): number {
  const end = at + bytes / 4;
  let sector = sectors[slot] as number;
  let worst = SECTORS_GOOD;
  for (let word = at; word < end; word += SECTOR_WORDS) {
    let verdict = SECTORS_GOOD;
    if (words[word] !== MAGIC) {
      if (sequence === 0) verdict = SECTORS_UNKNOWN;
      else verdict = isZero(words, word) ? SECTORS_STALE : SECTORS_CORRUPT;
    } else if (
      words[word + AT_CHECKSUM] !== checksum(words, word) ||
      words[word + AT_SECTOR] !== sector % TWO_32 ||
      words[word + AT_SECTOR + 1] !== Math.floor(sector / TWO_32)
    ) {
      verdict = SECTORS_CORRUPT;
    } else if (
      sequence !== 0 &&
      (words[word + AT_SEQUENCE] !== sequence || words[word + AT_RUN] !== run)
    ) {
      verdict = SECTORS_STALE;
    }
    if (verdict > worst) worst = verdict;
    sector++;
  }
  return worst;
}

function isZero(words: Uint32Array, at: number): boolean {
  for (let i = at; i < at + SECTOR_WORDS; i++) if (words[i] !== 0) return false;
  return true;
}
