/** Writes the blocks of a pcapng file (`spec/pcapng.ts`), little-endian, times in ns. */
import { alignUp } from '../base/bits.ts';
import {
  LINKTYPE_ETHERNET,
  PCAPNG_BLOCK_OVERHEAD,
  PCAPNG_BYTE_ORDER_MAGIC,
  PCAPNG_ENHANCED_PACKET,
  PCAPNG_EPB_FLAGS,
  PCAPNG_IF_NAME,
  PCAPNG_IF_TSRESOL,
  PCAPNG_INBOUND,
  PCAPNG_INTERFACE_BYTES,
  PCAPNG_INTERFACE_DESCRIPTION,
  PCAPNG_INTERFACE_STATISTICS,
  PCAPNG_ISB_IFDROP,
  PCAPNG_ISB_IFRECV,
  PCAPNG_MAJOR,
  PCAPNG_MINOR,
  PCAPNG_NANOSECONDS,
  PCAPNG_OPT_END,
  PCAPNG_OPTION_HEADER_BYTES,
  PCAPNG_OUTBOUND,
  PCAPNG_PACKET_BYTES,
  PCAPNG_SECTION_HEADER,
  PCAPNG_SECTION_HEADER_BYTES,
  PCAPNG_SHB_USERAPPL,
  PCAPNG_STATISTICS_BYTES,
} from '../spec/pcapng.ts';

const WORD = 4;
const BODY = 8;
const NOT_GIVEN = 0xffff_ffff_ffff_ffffn;

interface Option {
  readonly code: number;
  readonly value: Uint8Array;
}

const padded = (bytes: number): number => alignUp(bytes, WORD);

/**
 * A block with a body of `fixed` bytes, `data` behind it, and options; the caller fills the fixed
 * part in from byte 8 on.
 */
function block(type: number, fixed: number, data: Uint8Array, options: readonly Option[]): Buffer {
  const optionBytes = options.reduce(
    (sum, { value }) => sum + PCAPNG_OPTION_HEADER_BYTES + padded(value.length),
    options.length === 0 ? 0 : PCAPNG_OPTION_HEADER_BYTES,
  );
  const length = PCAPNG_BLOCK_OVERHEAD + fixed + padded(data.length) + optionBytes;
  const out = Buffer.alloc(length);
  out.writeUInt32LE(type, 0);
  out.writeUInt32LE(length, WORD);
  out.set(data, BODY + fixed);
  let at = BODY + fixed + padded(data.length);
  for (const { code, value } of options) {
    out.writeUInt16LE(code, at);
    out.writeUInt16LE(value.length, at + 2);
    out.set(value, at + PCAPNG_OPTION_HEADER_BYTES);
    at += PCAPNG_OPTION_HEADER_BYTES + padded(value.length);
  }
  if (options.length > 0) out.writeUInt32LE(PCAPNG_OPT_END, at);
  out.writeUInt32LE(length, length - WORD);
  return out;
}

const NO_DATA = new Uint8Array(0);

function u64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function writeTime(out: Buffer, at: number, time: bigint): void {
  out.writeUInt32LE(Number(time >> 32n), at);
  out.writeUInt32LE(Number(time & 0xffff_ffffn), at + WORD);
}

/** Begins a file. */
export function sectionHeader(application: string): Buffer {
  const name = { code: PCAPNG_SHB_USERAPPL, value: Buffer.from(application) };
  const out = block(PCAPNG_SECTION_HEADER, PCAPNG_SECTION_HEADER_BYTES, NO_DATA, [name]);
  out.writeUInt32LE(PCAPNG_BYTE_ORDER_MAGIC, BODY);
  out.writeUInt16LE(PCAPNG_MAJOR, BODY + 4);
  out.writeUInt16LE(PCAPNG_MINOR, BODY + 6);
  out.writeBigUInt64LE(NOT_GIVEN, BODY + 8);
  return out;
}

/** Describes an interface; they are numbered from 0 in the order of their blocks. */
export function interfaceDescription(name: string, snapLength: number): Buffer {
  const out = block(PCAPNG_INTERFACE_DESCRIPTION, PCAPNG_INTERFACE_BYTES, NO_DATA, [
    { code: PCAPNG_IF_NAME, value: Buffer.from(name) },
    { code: PCAPNG_IF_TSRESOL, value: Uint8Array.of(PCAPNG_NANOSECONDS) },
  ]);
  out.writeUInt16LE(LINKTYPE_ETHERNET, BODY);
  out.writeUInt32LE(snapLength, BODY + 4);
  return out;
}

export interface CapturedPacket {
  readonly interface: number;
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  readonly outbound: boolean;
  /** Bytes of the frame before it was cut to the snap length. */
  readonly originalLength: number;
  readonly data: Uint8Array;
}

export function enhancedPacket(packet: CapturedPacket): Buffer {
  const flags = new Uint8Array(WORD);
  flags[0] = packet.outbound ? PCAPNG_OUTBOUND : PCAPNG_INBOUND;
  const options = [{ code: PCAPNG_EPB_FLAGS, value: flags }];
  const out = block(PCAPNG_ENHANCED_PACKET, PCAPNG_PACKET_BYTES, packet.data, options);
  out.writeUInt32LE(packet.interface, BODY);
  writeTime(out, BODY + 4, packet.time);
  out.writeUInt32LE(packet.data.length, BODY + 12);
  out.writeUInt32LE(packet.originalLength, BODY + 16);
  return out;
}

/** How many frames an interface saw and how many of them are missing in the file. */
export function interfaceStatistics(
  index: number,
  time: bigint,
  received: number,
  dropped: number,
): Buffer {
  const out = block(PCAPNG_INTERFACE_STATISTICS, PCAPNG_STATISTICS_BYTES, NO_DATA, [
    { code: PCAPNG_ISB_IFRECV, value: u64(received) },
    { code: PCAPNG_ISB_IFDROP, value: u64(dropped) },
  ]);
  out.writeUInt32LE(index, BODY);
  writeTime(out, BODY + 4, time);
  return out;
}
