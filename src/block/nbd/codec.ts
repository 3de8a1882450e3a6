/**
 * Messages of NBD as bytes and as objects. All numbers are big-endian.
 *
 *   greeting          "NBDMAGIC", "IHAVEOPT", handshake flags u16
 *   client flags      u32
 *   option            "IHAVEOPT", option u32, length u32, `length` bytes
 *   option reply      magic u64, option u32, type u32, length u32, `length` bytes
 *     INFO, GO        length of the name u32, name, number of requests u16, each u16
 *     REP_INFO        kind u16, then by kind:
 *       EXPORT          size u64, transmission flags u16
 *       BLOCK_SIZE      minimum u32, preferred u32, maximum payload u32
 *     REP_SERVER      length of the name u32, name, details
 *     errors          a text
 *   export name       (reply to OPT_EXPORT_NAME) size u64, transmission flags u16, 124 zeroes unless
 *                     NO_ZEROES was agreed on
 *
 *   request           magic u32, command flags u16, type u16, cookie u64, offset u64, length u32; a
 *                     write's data
 *   simple reply      magic u32, error u32, cookie u64; a read's data
 *   structured chunk  magic u32, flags u16 (DONE in bit 0), type u16, cookie u64, length u32; by type:
 *     NONE              nothing
 *     OFFSET_DATA       offset u64, data
 *     OFFSET_HOLE       offset u64, size u32
 *     ERROR             error u32, length of the text u16, text
 *     ERROR_OFFSET      the same, offset u64
 *
 * Source: NetworkBlockDevice/nbd doc/proto.md. Every error is a SluiceError `protocol`. Structured
 * chunks are read in `reply-reader.ts`, because their data goes to other places than their headers.
 */
import { TWO_32 } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import * as nbd from '../../spec/nbd.ts';

/** What a server says about an export. */
export interface NbdExport {
  readonly bytes: number;
  /** NBD_FLAG_*. */
  readonly flags: number;
  readonly minBlock: number;
  readonly preferredBlock: number;
  readonly maxPayload: number;
  /** Replies come in chunks. */
  readonly structured: boolean;
}

export interface OptionReply {
  readonly option: number;
  /** NBD_REP_*. */
  readonly type: number;
  readonly length: number;
}

/** Part of an export's description that one NBD_REP_INFO brings. */
export type ExportInfo = Partial<Omit<NbdExport, 'structured'>>;

export function protocolError(message: string): SluiceError {
  return new SluiceError('protocol', message);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function expectSize(bytes: Uint8Array, expected: number, what: string): void {
  if (bytes.length !== expected) {
    throw protocolError(`${what} has ${bytes.length} bytes, expected ${expected}`);
  }
}

/** A u64 that must be exact as a number: a size. */
function exact(value: bigint, what: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw protocolError(`${what} ${value} is out of range`);
  return number;
}

/**
 * The handshake flags of a greeting.
 * @throws SluiceError `protocol` if it is none; `unsupported` for a server of before 2011
 */
export function decodeGreeting(bytes: Uint8Array): number {
  expectSize(bytes, nbd.GREETING_BYTES, 'the greeting');
  const view = viewOf(bytes);
  if (view.getBigUint64(0) !== nbd.NBD_MAGIC) {
    throw protocolError('the greeting is not of an NBD server');
  }
  const magic = view.getBigUint64(8);
  const flags = view.getUint16(16);
  const old = magic === nbd.NBD_OLDSTYLE_MAGIC;
  if (!old && magic !== nbd.NBD_OPTION_MAGIC) {
    throw protocolError(`the greeting goes on with 0x${magic.toString(16)}`);
  }
  if (old || (flags & nbd.NBD_FLAG_FIXED_NEWSTYLE) === 0) {
    throw new SluiceError('unsupported', 'the server does not know fixed newstyle negotiation', {
      remedy: 'use a newer NBD server',
    });
  }
  return flags;
}

export function encodeClientFlags(flags: number): Uint8Array {
  const bytes = new Uint8Array(nbd.CLIENT_FLAGS_BYTES);
  viewOf(bytes).setUint32(0, flags);
  return bytes;
}

export function encodeOption(option: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(nbd.OPTION_BYTES + data.length);
  const view = viewOf(bytes);
  view.setBigUint64(0, nbd.NBD_OPTION_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, data.length);
  bytes.set(data, nbd.OPTION_BYTES);
  return bytes;
}

/** The data of NBD_OPT_INFO and NBD_OPT_GO: which export, and what the client wants to know of it. */
export function encodeInfoRequest(name: string, kinds: readonly number[]): Uint8Array {
  const text = Buffer.from(name, 'utf8');
  const bytes = new Uint8Array(4 + text.length + 2 + 2 * kinds.length);
  const view = viewOf(bytes);
  view.setUint32(0, text.length);
  bytes.set(text, 4);
  view.setUint16(4 + text.length, kinds.length);
  for (const [index, kind] of kinds.entries()) view.setUint16(6 + text.length + 2 * index, kind);
  return bytes;
}

/** @throws SluiceError `protocol` for another magic */
export function decodeOptionReply(bytes: Uint8Array): OptionReply {
  expectSize(bytes, nbd.OPTION_REPLY_BYTES, 'the reply to an option');
  const view = viewOf(bytes);
  const magic = view.getBigUint64(0);
  if (magic !== nbd.NBD_OPTION_REPLY_MAGIC) {
    throw protocolError(`the reply to an option begins with 0x${magic.toString(16)}`);
  }
  return { option: view.getUint32(8), type: view.getUint32(12), length: view.getUint32(16) };
}

/** One NBD_REP_INFO; kinds that are not asked for, or not known, say nothing. */
export function decodeInfo(payload: Uint8Array): ExportInfo {
  if (payload.length < 2) throw protocolError('an information has no kind');
  const view = viewOf(payload);
  switch (view.getUint16(0)) {
    case nbd.NBD_INFO_EXPORT:
      expectSize(payload, nbd.INFO_EXPORT_BYTES, 'NBD_INFO_EXPORT');
      return {
        bytes: exact(view.getBigUint64(2), 'the size'),
        flags: view.getUint16(10),
      };
    case nbd.NBD_INFO_BLOCK_SIZE: {
      expectSize(payload, nbd.INFO_BLOCK_SIZE_BYTES, 'NBD_INFO_BLOCK_SIZE');
      const [minBlock, preferredBlock, maxPayload] = [2, 6, 10].map((at) => view.getUint32(at)) as [
        number,
        number,
        number,
      ];
      checkBlocks(minBlock, preferredBlock, maxPayload);
      return { minBlock, preferredBlock, maxPayload };
    }
    default:
      return {};
  }
}

/** "Size constraints". */
function checkBlocks(minBlock: number, preferredBlock: number, maxPayload: number): void {
  const powerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value));
  if (!powerOfTwo(minBlock) || minBlock > nbd.LARGEST_MIN_BLOCK) {
    throw protocolError(`a minimum block of ${minBlock} bytes`);
  }
  if (!powerOfTwo(preferredBlock) || preferredBlock < Math.max(minBlock, 512)) {
    throw protocolError(
      `a preferred block of ${preferredBlock} bytes with a minimum of ${minBlock}`,
    );
  }
  if (maxPayload < preferredBlock) {
    throw protocolError(
      `at most ${maxPayload} bytes of payload with a preferred block of ${preferredBlock}`,
    );
  }
}

/** The answer to NBD_OPT_EXPORT_NAME. */
export function decodeExportName(bytes: Uint8Array): ExportInfo {
  const view = viewOf(bytes);
  return { bytes: exact(view.getBigUint64(0), 'the size'), flags: view.getUint16(8) };
}

/**
 * Writes a request's header (28 bytes). The cookie is two halves, and comes back in the reply.
 * `offset` and `length` are bytes.
 */
export function writeRequest(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): void {
  view.setUint32(at, nbd.NBD_REQUEST_MAGIC);
  view.setUint32(at + 4, flags * 65_536 + type);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  view.setUint32(at + 16, Math.floor(offset / TWO_32));
  view.setUint32(at + 20, offset % TWO_32);
  view.setUint32(at + 24, length);
}

/** The request that ends a connection; it has no reply. */
export function encodeDisconnect(): Uint8Array {
  const bytes = new Uint8Array(nbd.REQUEST_BYTES);
  writeRequest(viewOf(bytes), 0, 0, nbd.NBD_CMD_DISC, 0, 0, 0, 0);
  return bytes;
}
