/**
 * Messages of vfio-user as bytes and as fields.
 *
 *   header            id u16, command u16, size of the whole message u32, flags u32, error u32
 *                       flags: type in bits 0-3 (0 command, 1 reply), no_reply bit 4, error bit 5
 *   VERSION           major u16, minor u16, JSON with a zero byte at its end
 *   DMA_MAP           argsz u32, flags u32, offset u64, address u64, size u64
 *   DMA_UNMAP         argsz u32, flags u32, address u64, size u64, [bitmap]
 *   bitmap            page size u64, bytes u64, [bits]
 *   DEVICE_GET_INFO   argsz u32, flags u32, regions u32, interrupt types u32
 *   region info       argsz u32, flags u32, index u32, cap_offset u32, size u64, offset u64
 *   interrupt info    argsz u32, flags u32, index u32, count u32
 *   SET_IRQS          argsz u32, flags u32, index u32, start u32, count u32, [booleans]
 *   region access     offset u64, region u32, count u32, [data]
 *   WRITE_MULTI       writes u64, writes × (offset u64, region u32, count u32, data u64)
 *   DMA access        address u64, count u64, [data]
 *   DIRTY_PAGES       argsz u32, flags u32, [address u64, size u64, bitmap]
 *
 * Source: the vfio-user specification, from "Header" on. Every refusal is a {@link Refusal}, which
 * carries the errno of the reply; a header that cannot be understood is a SluiceError `protocol`.
 */
import { SluiceError, SystemError } from '../../base/errors.ts';
import { EINVAL, EOPNOTSUPP } from '../../os/libc.ts';
import * as vfu from '../../spec/vfio-user.ts';
import { protocolError } from '../protocol-error.ts';

/** Most bytes of data in one message, either way: what we tell the peer ("max_data_xfer_size"). */
export const MAX_DATA_BYTES = vfu.DEFAULT_MAX_DATA_XFER_SIZE;
/** Most bytes of a message: data, and the fields of any command. */
export const MAX_MESSAGE_BYTES = MAX_DATA_BYTES + 4096;
/** Most descriptors that one message may bring; what we tell the peer ("max_msg_fds"). */
export const MAX_MESSAGE_FDS = 16;

export const ENOENT = 2;
export const EEXIST = 17;

/** A command that is answered with an error. */
export class Refusal extends SluiceError {
  /** What the reply's error field holds (errno-base.h). */
  readonly errno: number;

  constructor(errno: number, message: string) {
    super('protocol', message);
    this.errno = errno;
  }
}

/** The errno that tells a client of an error. */
export function errnoOf(error: SluiceError): number {
  if (error instanceof Refusal || error instanceof SystemError) return error.errno;
  if (error.code === 'state') return EEXIST;
  if (error.code === 'not-found') return ENOENT;
  return error.code === 'unsupported' ? EOPNOTSUPP : EINVAL;
}

export function commandName(command: number): string {
  return (command === 0 ? undefined : vfu.VFIO_USER_COMMANDS[command]) ?? `command ${command}`;
}

/**
 * A message that was read. One object a reader, filled anew for each: a trap allocates nothing here.
 * Its payload is good until the next message is read.
 */
export interface Message {
  id: number;
  command: number;
  flags: number;
  error: number;
  /** Where in `view` and `bytes` the payload begins, and its bytes. */
  at: number;
  length: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/**
 * Checks a header.
 * @throws SluiceError `protocol` if the message's size or type makes no sense: what follows cannot be
 * understood either.
 */
export function checkHeader(command: number, size: number, flags: number): void {
  if (size < vfu.HEADER_BYTES || size > MAX_MESSAGE_BYTES) {
    throw protocolError(
      `${commandName(command)}: a message of ${size} bytes, allowed are ${vfu.HEADER_BYTES} to ${MAX_MESSAGE_BYTES}`,
    );
  }
  if ((flags & vfu.FLAG_TYPE_MASK) > vfu.FLAG_TYPE_REPLY) {
    throw protocolError(
      `${commandName(command)}: a message of type ${flags & vfu.FLAG_TYPE_MASK}, neither command nor reply`,
    );
  }
}

export function putHeader(
  view: DataView,
  id: number,
  command: number,
  size: number,
  flags: number,
  error: number,
): void {
  view.setUint16(0, id, true);
  view.setUint16(2, command, true);
  view.setUint32(4, size, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, error, true);
}

/** A whole message as bytes. */
export function encodeMessage(
  id: number,
  command: number,
  flags: number,
  payload: Uint8Array,
  error = 0,
): Uint8Array {
  const bytes = new Uint8Array(vfu.HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  putHeader(view, id, command, bytes.length, flags, error);
  bytes.set(payload, vfu.HEADER_BYTES);
  return bytes;
}

export function u32At(message: Message, offset: number): number {
  return message.view.getUint32(message.at + offset, true);
}

/**
 * A u64 that must be exact as a number.
 * @throws Refusal EINVAL above 2^53 - 1.
 */
export function u64At(message: Message, offset: number): number {
  const { view } = message;
  const at = message.at + offset;
  const high = view.getUint32(at + 4, true);
  if (high >= 0x20_0000) {
    throw new Refusal(EINVAL, `0x${view.getBigUint64(at, true).toString(16)} is out of range`);
  }
  return high * 4294967296 + view.getUint32(at, true);
}

/** @throws Refusal EINVAL unless the payload has this many bytes. */
export function expectBytes(message: Message, bytes: number): void {
  if (message.length === bytes) return;
  throw new Refusal(EINVAL, `${message.length} bytes of payload, expected ${bytes}`);
}

/** @throws Refusal EINVAL unless the payload has this many bytes or more. */
export function expectAtLeast(message: Message, bytes: number): void {
  if (message.length >= bytes) return;
  throw new Refusal(EINVAL, `${message.length} bytes of payload, expected ${bytes} or more`);
}

/** "Capabilities", as far as they are numbers that matter here. */
export interface Capabilities {
  readonly maxMessageFds: number;
  readonly maxDataBytes: number;
  readonly pageSizes: number;
  readonly maxDmaMaps: number;
  readonly writeMultiple: boolean;
  /** Undefined: no migration. */
  readonly migration: { readonly pageSize: number; readonly maxBitmapBytes: number } | undefined;
}

export interface Version {
  readonly major: number;
  readonly minor: number;
  readonly capabilities: Capabilities;
}

function member(from: unknown, name: string): unknown {
  if (typeof from !== 'object' || from === null || Array.isArray(from)) {
    throw new Refusal(EINVAL, `version data that has no object around ${name}`);
  }
  return (from as Readonly<Record<string, unknown>>)[name];
}

function numberMember(from: unknown, name: string, otherwise: number): number {
  const value = member(from, name) ?? otherwise;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new Refusal(EINVAL, `capability ${name} is no number`);
}

/**
 * The payload of VERSION, of either side.
 * @throws Refusal EINVAL for JSON that is none, or of other types.
 */
export function decodeVersion(message: Message): Version {
  expectAtLeast(message, vfu.VERSION_BYTES);
  const major = message.view.getUint16(message.at, true);
  const minor = message.view.getUint16(message.at + 2, true);
  const data = message.bytes.subarray(message.at + vfu.VERSION_BYTES, message.at + message.length);
  let root: unknown = {};
  if (data.length > 0) {
    const end = data.indexOf(0);
    if (end === -1) throw new Refusal(EINVAL, 'version data without a zero byte at its end');
    try {
      root = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data.subarray(0, end)));
    } catch {
      throw new Refusal(EINVAL, 'version data that is no JSON');
    }
  }
  const from = member(root, 'capabilities') ?? {};
  const migration = member(from, 'migration');
  return {
    major,
    minor,
    capabilities: {
      maxMessageFds: numberMember(from, 'max_msg_fds', vfu.DEFAULT_MAX_MSG_FDS),
      maxDataBytes: numberMember(from, 'max_data_xfer_size', vfu.DEFAULT_MAX_DATA_XFER_SIZE),
      pageSizes: numberMember(from, 'pgsizes', vfu.DEFAULT_PGSIZES),
      maxDmaMaps: numberMember(from, 'max_dma_maps', vfu.DEFAULT_MAX_DMA_MAPS),
      writeMultiple: member(from, 'write_multiple') === true,
      migration:
        migration === undefined
          ? undefined
          : {
              pageSize: numberMember(migration, 'pgsize', vfu.DEFAULT_PGSIZES),
              maxBitmapBytes: numberMember(
                migration,
                'max_bitmap_size',
                vfu.DEFAULT_MAX_BITMAP_SIZE,
              ),
            },
    },
  };
}

export function encodeVersion({ major, minor, capabilities: c }: Version): Uint8Array {
  const json = JSON.stringify({
    capabilities: {
      max_msg_fds: c.maxMessageFds,
      max_data_xfer_size: c.maxDataBytes,
      pgsizes: c.pageSizes,
      max_dma_maps: c.maxDmaMaps,
      ...(c.migration === undefined
        ? {}
        : {
            migration: {
              pgsize: c.migration.pageSize,
              max_bitmap_size: c.migration.maxBitmapBytes,
            },
          }),
      ...(c.writeMultiple ? { write_multiple: true } : {}),
    },
  });
  const text = Buffer.from(`${json}\0`, 'utf8');
  const payload = new Uint8Array(vfu.VERSION_BYTES + text.length);
  const view = new DataView(payload.buffer);
  view.setUint16(0, major, true);
  view.setUint16(2, minor, true);
  payload.set(text, vfu.VERSION_BYTES);
  return payload;
}

/** A payload of `bytes`, written by `write`. */
export function payloadOf(bytes: number, write: (view: DataView) => void): Uint8Array {
  const payload = new Uint8Array(bytes);
  write(new DataView(payload.buffer));
  return payload;
}

export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 4294967296), true);
}

export const EMPTY_PAYLOAD = new Uint8Array(0);
