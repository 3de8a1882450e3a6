/** CD images for guests to read: ISO 9660 (ECMA-119), level 1, all files in the root. */
import { writeFileSync } from 'node:fs';

const BLOCK = 2048;
/** What lies in front of the volume descriptors belongs to the system (§6.2.1). */
const SYSTEM_BLOCKS = 16;
const DESCRIPTOR = SYSTEM_BLOCKS;
const TERMINATOR = DESCRIPTOR + 1;
const PATHS_LITTLE = DESCRIPTOR + 2;
const PATHS_BIG = DESCRIPTOR + 3;
const ROOT = DESCRIPTOR + 4;
const FIRST_FILE = DESCRIPTOR + 5;
const RECORD_BYTES = 33;
const PATH_RECORD_BYTES = 10;
const DIRECTORY = 2;

/** Both byte orders, one behind the other (§7.2.3, §7.3.3). */
function both16(image: Buffer, at: number, value: number): void {
  image.writeUInt16LE(value, at);
  image.writeUInt16BE(value, at + 2);
}

function both32(image: Buffer, at: number, value: number): void {
  image.writeUInt32LE(value, at);
  image.writeUInt32BE(value, at + 4);
}

/** A directory record (§9.1); the date is left out. Returns its length. */
function record(
  image: Buffer,
  at: number,
  { name, block, bytes, flags = 0 }: { name: string; block: number; bytes: number; flags?: number },
): number {
  const length = RECORD_BYTES + name.length + ((name.length + 1) % 2);
  image.writeUInt8(length, at);
  both32(image, at + 2, block);
  both32(image, at + 10, bytes);
  image.writeUInt8(flags, at + 25);
  both16(image, at + 28, 1);
  image.writeUInt8(name.length, at + 32);
  image.write(name, at + RECORD_BYTES, 'latin1');
  return length;
}

/**
 * Writes an image whose volume has this name.
 * @param files by name: up to 8 capital letters, digits and underscores, a dot, and up to 3 more
 */
export function makeIso(
  path: string,
  volume: string,
  files: Readonly<Record<string, Uint8Array>>,
): void {
  const entries = Object.entries(files);
  let end = FIRST_FILE;
  const places = entries.map(([name, content]) => {
    const block = end;
    end += Math.ceil(content.length / BLOCK);
    return { name: `${name};1`, block, bytes: content.length };
  });
  const image = Buffer.alloc(end * BLOCK);
  const root = { block: ROOT, bytes: BLOCK, flags: DIRECTORY };

  const at = DESCRIPTOR * BLOCK;
  image.write('\x01CD001\x01', at, 'latin1');
  image.fill(' ', at + 8, at + 72);
  image.write(volume, at + 40, 'latin1');
  both32(image, at + 80, end);
  both16(image, at + 120, 1);
  both16(image, at + 124, 1);
  both16(image, at + 128, BLOCK);
  both32(image, at + 132, PATH_RECORD_BYTES);
  image.writeUInt32LE(PATHS_LITTLE, at + 140);
  image.writeUInt32BE(PATHS_BIG, at + 148);
  record(image, at + 156, { name: '\0', ...root });
  image.fill(' ', at + 190, at + 813);
  image.writeUInt8(1, at + 881);
  image.write('\xffCD001\x01', TERMINATOR * BLOCK, 'latin1');

  // The root alone: its number is 1, and its parent's too (§9.4).
  image.writeUInt8(1, PATHS_LITTLE * BLOCK);
  image.writeUInt32LE(ROOT, PATHS_LITTLE * BLOCK + 2);
  image.writeUInt16LE(1, PATHS_LITTLE * BLOCK + 6);
  image.writeUInt8(1, PATHS_BIG * BLOCK);
  image.writeUInt32BE(ROOT, PATHS_BIG * BLOCK + 2);
  image.writeUInt16BE(1, PATHS_BIG * BLOCK + 6);

  let next = ROOT * BLOCK;
  next += record(image, next, { name: '\0', ...root });
  next += record(image, next, { name: '\x01', ...root });
  for (const place of places) next += record(image, next, place);
  for (const [index, place] of places.entries()) {
    image.set(entries[index]?.[1] ?? [], place.block * BLOCK);
  }
  writeFileSync(path, image);
}
