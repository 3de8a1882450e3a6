/**
 * IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data (ACS-3 §7.12.7, §7.13.6): 256 words, which a drive
 * tells of itself.
 */
import { type DiskInfo, SECTOR_BYTES } from '../../block/disk.ts';
import { IDENTIFY_BYTES } from '../../spec/ata.ts';

/** Names that a drive goes by, ASCII, longer ones are cut. */
export interface DriveIdentity {
  /** Up to 20 characters. */
  readonly serial: string;
  /** Up to 40. */
  readonly model: string;
  /** Up to 8. */
  readonly firmware: string;
  /** World wide name: 64 bits, the upper 4 of which are 5. Not told if there is none. */
  readonly wwn?: bigint | undefined;
}

/** What SET FEATURES and others have changed. */
export interface DriveModes {
  readonly writeCache: boolean;
  readonly lookAhead: boolean;
  readonly smart: boolean;
  /** Sectors of a DRQ block of READ and WRITE MULTIPLE; 0: not set. */
  readonly multiple: number;
  /** As SET FEATURES sets it: 0x40 + n is ultra DMA n, 0x20 + n multiword DMA n. */
  readonly transferMode: number;
}

export const HEADS = 16;
export const SECTORS_PER_TRACK = 63;
const MAX_CYLINDERS = 16383;
/** LBA48: largest count of sectors. */
const MAX_LBA28 = 0x0fff_ffff;
/** DATA SET MANAGEMENT's payload in blocks of 512 bytes: what fits the port's buffer many times. */
export const MAX_TRIM_BLOCKS = 8;
export const MAX_MULTIPLE = 16;
export const QUEUE_DEPTH = 32;

const CYCLE_NS = 120;
/** ATA8-ACS, and ATA/ATAPI-4 to ACS-3: bits of word 80. */
const MAJOR_VERSION = 0x07f0;
/** Serial, SATA 1.0a to 3.1: word 222. */
const TRANSPORT_MAJOR = 0x107f;
/** Generations 1 to 3. */
const SATA_SPEEDS = 0x000e;
const SATA_NCQ = 0x0100;
const NEGOTIATED_GENERATION_3 = 3 << 1;
const CHECKSUM_SIGNATURE = 0xa5;

export class IdentifyData {
  private readonly words: DataView;
  private readonly bytes: Uint8Array;

  constructor() {
    this.bytes = new Uint8Array(IDENTIFY_BYTES);
    this.words = new DataView(this.bytes.buffer);
  }

  set(word: number, value: number): void {
    this.words.setUint16(word * 2, value, true);
  }

  setPair(word: number, value: number): void {
    this.words.setUint32(word * 2, value, true);
  }

  /** ASCII, the first character in the upper half of the first word, padded with spaces. */
  setString(word: number, words: number, text: string): void {
    for (let i = 0; i < words * 2; i++) {
      const code = text.charCodeAt(i);
      const known = code >= 0x20 && code < 0x7f;
      this.bytes[(word * 2 + i) ^ 1] = known ? code : i < text.length ? 0x3f : 0x20;
    }
  }

  /** Adds the checksum (word 255). */
  finish(): Uint8Array {
    this.bytes[IDENTIFY_BYTES - 2] = CHECKSUM_SIGNATURE;
    setChecksum(this.bytes);
    return this.bytes;
  }
}

/** Sets the last byte so that all of them add up to zero: pages of ATA end so. */
export function setChecksum(bytes: Uint8Array): void {
  const last = bytes.length - 1;
  let sum = 0;
  for (let i = 0; i < last; i++) sum += bytes[i] as number;
  bytes[last] = -sum & 0xff;
}

/** Geometry for who knows no LBA (ATA-5): cylinders of 16 heads of 63 sectors. */
export function cylindersOf(sectors: number): number {
  return Math.min(MAX_CYLINDERS, Math.floor(sectors / (HEADS * SECTORS_PER_TRACK)));
}

/** Words that both kinds of drive have. */
function common(data: IdentifyData, identity: DriveIdentity, transferMode: number): void {
  data.setString(10, 10, identity.serial);
  data.setString(23, 4, identity.firmware);
  data.setString(27, 20, identity.model);
  // Words 64 to 70, and 88, are valid; PIO 3 and 4; multiword DMA 0 to 2; ultra DMA 0 to 6.
  data.set(53, 0x0006);
  data.set(63, 0x0007 | (transferMode >> 5 === 1 ? 0x100 << (transferMode & 7) : 0));
  data.set(64, 0x0003);
  for (const word of [65, 66, 67, 68]) data.set(word, CYCLE_NS);
  data.set(80, MAJOR_VERSION);
  data.set(88, 0x007f | (transferMode >> 6 === 1 ? 0x100 << (transferMode & 7) : 0));
  data.set(222, TRANSPORT_MAJOR);
  data.set(77, NEGOTIATED_GENERATION_3);
}

/** IDENTIFY DEVICE of a disk. */
export function identifyDisk(
  info: DiskInfo,
  identity: DriveIdentity,
  modes: DriveModes,
): Uint8Array {
  const data = new IdentifyData();
  const { blockBytes } = info;
  const sectors = Math.floor(info.bytes / blockBytes);
  const cylinders = cylindersOf(sectors);
  const chs = cylinders * HEADS * SECTORS_PER_TRACK;
  common(data, identity, modes.transferMode);
  data.set(0, 0x0040); // a disk, fixed
  data.set(1, cylinders);
  data.set(3, HEADS);
  data.set(6, SECTORS_PER_TRACK);
  data.set(47, 0x8000 | MAX_MULTIPLE);
  data.set(48, 0x4000);
  data.set(49, 0x2f00); // standby timer, IORDY, LBA, DMA
  data.set(50, 0x4000);
  data.set(53, 0x0007);
  data.set(54, cylinders);
  data.set(55, HEADS);
  data.set(56, SECTORS_PER_TRACK);
  data.setPair(57, chs);
  data.set(59, modes.multiple === 0 ? 0 : 0x0100 | modes.multiple);
  data.setPair(60, Math.min(sectors, MAX_LBA28));
  data.set(75, QUEUE_DEPTH - 1);
  data.set(76, SATA_SPEEDS | SATA_NCQ);
  const wwn = identity.wwn === undefined ? 0 : 0x0100;
  // NOP, look-ahead, write cache, power management, SMART.
  data.set(82, 0x4069);
  // FLUSH CACHE (EXT), 48 bits.
  data.set(83, 0x7400);
  // WRITE DMA FUA EXT, READ LOG EXT, SMART self-test.
  data.set(84, 0x4062 | wwn);
  data.set(
    85,
    0x4008 | (modes.smart ? 1 : 0) | (modes.writeCache ? 0x20 : 0) | (modes.lookAhead ? 0x40 : 0),
  );
  data.set(86, 0xb400); // as word 83; words 119 and 120 are valid
  data.set(87, 0x4062 | wwn);
  data.setPair(100, sectors % 2 ** 32);
  data.setPair(102, Math.floor(sectors / 2 ** 32));
  if (info.discardBytes > 0) {
    data.set(105, MAX_TRIM_BLOCKS);
    data.set(169, 0x0001); // TRIM
  }
  const exponent = Math.floor(Math.log2(info.physicalBlockBytes / blockBytes));
  const isLong = blockBytes > SECTOR_BYTES;
  data.set(106, 0x4000 | (exponent > 0 ? 0x2000 : 0) | (isLong ? 0x1000 : 0) | exponent);
  if (isLong) data.setPair(117, blockBytes / 2);
  if (identity.wwn !== undefined) {
    for (let i = 0; i < 4; i++) {
      data.set(108 + i, Number((identity.wwn >> BigInt(48 - 16 * i)) & 0xffffn));
    }
  }
  // READ LOG DMA EXT.
  data.set(119, 0x4008);
  data.set(120, 0x4008);
  data.set(209, 0x4000); // the first logical block begins a physical one
  data.set(217, 1); // does not rotate
  return data.finish();
}

/** IDENTIFY PACKET DEVICE of a cdrom. */
export function identifyCdrom(identity: DriveIdentity, transferMode: number): Uint8Array {
  const data = new IdentifyData();
  common(data, identity, transferMode);
  data.set(0, 0x85c0); // packets of 12 bytes, cdrom, removable, DRQ within 50 µs
  data.set(49, 0x0f00); // IORDY, LBA, DMA
  data.set(50, 0x4000);
  data.set(76, SATA_SPEEDS);
  data.set(82, 0x4218); // NOP, DEVICE RESET, PACKET, power management
  data.set(83, 0x4000);
  data.set(84, 0x4000);
  data.set(85, 0x4218);
  data.set(86, 0x0000);
  data.set(87, 0x4000);
  return data.finish();
}
