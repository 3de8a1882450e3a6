/**
 * Messages of vhost-user as bytes and as objects.
 *
 *   header            request u32, flags u32, size of the payload u32
 *                       flags: version (1) in bits 0-1, reply in bit 2, need_reply in bit 3
 *   u64               value u64
 *   vring file        index in bits 0-7 of a u64, "no descriptor" in bit 8
 *   vring state       index u32, num u32
 *   vring address     index u32, flags u32, descriptor u64, used u64, available u64, log u64
 *   memory table      number of regions u32, padding u32, regions
 *   region            guest address u64, size u64, user address u64, mmap offset u64
 *   single region     padding u64, region
 *   log               size u64, offset u64
 *   config            offset u32, size u32, flags u32, `size` bytes
 *   in-flight         mmap size u64, mmap offset u64, queues u16, queue size u16 (and 4 bytes that a
 *                     C compiler adds)
 *
 * Source: QEMU docs/interop/vhost-user.rst, "Message Specification". Every error is a SluiceError
 * `protocol` that names the message.
 */
import { SluiceError } from '../../base/errors.ts';
import type { RegionDescription } from '../../memory/guest-memory.ts';
import * as vu from '../../spec/vhost-user.ts';
import { protocolError } from '../protocol-error.ts';

/** Most bytes of payload that are accepted: above any message of the protocol. */
export const MAX_PAYLOAD_BYTES = 4096;
/** Most descriptors that one message may bring. */
export const MAX_MESSAGE_FDS = 64;
/** Most regions in one SET_MEM_TABLE. */
export const MAX_TABLE_REGIONS = 32;

export interface Header {
  readonly request: number;
  readonly flags: number;
  readonly size: number;
}

type EmptyRequest =
  | typeof vu.VHOST_USER_GET_FEATURES
  | typeof vu.VHOST_USER_SET_OWNER
  | typeof vu.VHOST_USER_RESET_OWNER
  | typeof vu.VHOST_USER_SET_LOG_FD
  | typeof vu.VHOST_USER_GET_PROTOCOL_FEATURES
  | typeof vu.VHOST_USER_GET_QUEUE_NUM
  | typeof vu.VHOST_USER_SET_BACKEND_REQ_FD
  | typeof vu.VHOST_USER_RESET_DEVICE
  | typeof vu.VHOST_USER_GET_MAX_MEM_SLOTS
  | typeof vu.VHOST_USER_GET_STATUS;

type U64Request =
  | typeof vu.VHOST_USER_SET_FEATURES
  | typeof vu.VHOST_USER_SET_PROTOCOL_FEATURES
  | typeof vu.VHOST_USER_SEND_RARP
  | typeof vu.VHOST_USER_NET_SET_MTU
  | typeof vu.VHOST_USER_SET_STATUS;

type FileRequest =
  | typeof vu.VHOST_USER_SET_VRING_KICK
  | typeof vu.VHOST_USER_SET_VRING_CALL
  | typeof vu.VHOST_USER_SET_VRING_ERR;

type StateRequest =
  | typeof vu.VHOST_USER_SET_VRING_NUM
  | typeof vu.VHOST_USER_SET_VRING_BASE
  | typeof vu.VHOST_USER_GET_VRING_BASE
  | typeof vu.VHOST_USER_SET_VRING_ENABLE;

type InflightRequest = typeof vu.VHOST_USER_GET_INFLIGHT_FD | typeof vu.VHOST_USER_SET_INFLIGHT_FD;

/** Where a ring lies, in user addresses ("A vring address description"). */
export interface VringAddress {
  readonly index: number;
  readonly flags: number;
  readonly descriptor: number;
  readonly used: number;
  readonly available: number;
  /** Guest physical address where writes to the used ring are logged; 0 unless `flags` ask for it. */
  readonly log: number;
}

/** "Inflight description". `padded`: the sender counts the padding of its C structure. */
export interface InflightDescription {
  readonly mmapSize: number;
  readonly mmapOffset: number;
  readonly queues: number;
  readonly queueSize: number;
  readonly padded: boolean;
}

/** What a front-end may ask. */
export type FrontEndMessage =
  | { readonly request: EmptyRequest }
  | { readonly request: U64Request; readonly value: bigint }
  | { readonly request: FileRequest; readonly index: number; readonly hasFd: boolean }
  | { readonly request: StateRequest; readonly index: number; readonly num: number }
  | ({ readonly request: typeof vu.VHOST_USER_SET_VRING_ADDR } & VringAddress)
  | {
      readonly request: typeof vu.VHOST_USER_SET_MEM_TABLE;
      readonly regions: readonly RegionDescription[];
    }
  | {
      readonly request: typeof vu.VHOST_USER_ADD_MEM_REG | typeof vu.VHOST_USER_REM_MEM_REG;
      readonly region: RegionDescription;
    }
  | {
      readonly request: typeof vu.VHOST_USER_SET_LOG_BASE;
      readonly size: number;
      readonly offset: number;
    }
  | {
      readonly request: typeof vu.VHOST_USER_GET_CONFIG | typeof vu.VHOST_USER_SET_CONFIG;
      readonly offset: number;
      readonly flags: number;
      readonly contents: Uint8Array;
    }
  | ({ readonly request: InflightRequest } & InflightDescription);

/** The name of a front-end request, such as SET_VRING_NUM. */
export function requestName(request: number): string {
  return (request === 0 ? undefined : vu.FRONT_END_REQUESTS[request]) ?? `request ${request}`;
}

export function backEndRequestName(request: number): string {
  return (
    (request === 0 ? undefined : vu.BACK_END_REQUESTS[request]) ?? `back-end request ${request}`
  );
}

/**
 * Reads a header.
 * @throws SluiceError `protocol` for another version, or a payload above {@link MAX_PAYLOAD_BYTES}.
 */
export function decodeHeader(bytes: Uint8Array, name: (request: number) => string): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, vu.HEADER_BYTES);
  const request = view.getUint32(0, true);
  const flags = view.getUint32(4, true);
  const size = view.getUint32(8, true);
  if ((flags & vu.VERSION_MASK) !== vu.VERSION) {
    throw protocolError(
      `${name(request)}: version ${flags & vu.VERSION_MASK} of the protocol, expected ${vu.VERSION}`,
    );
  }
  if (size > MAX_PAYLOAD_BYTES) {
    throw protocolError(
      `${name(request)}: ${size} bytes of payload, at most ${MAX_PAYLOAD_BYTES} are accepted`,
    );
  }
  return { request, flags, size };
}

/** A whole message as bytes. */
export function encodeMessage(request: number, flags: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(vu.HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, request, true);
  view.setUint32(4, flags | vu.VERSION, true);
  view.setUint32(8, payload.length, true);
  bytes.set(payload, vu.HEADER_BYTES);
  return bytes;
}

/** Reads the fields of one payload; errors name the message. */
class Fields {
  readonly #name: string;
  readonly #view: DataView;
  readonly bytes: Uint8Array;

  constructor(request: number, payload: Uint8Array) {
    this.#name = requestName(request);
    this.bytes = payload;
    this.#view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  }

  expectSize(expected: number): void {
    if (this.bytes.length !== expected) {
      throw this.error(`${this.bytes.length} bytes of payload, expected ${expected}`);
    }
  }

  atLeast(expected: number): void {
    if (this.bytes.length < expected) {
      throw this.error(`${this.bytes.length} bytes of payload, expected ${expected} or more`);
    }
  }

  expectFds(actual: number, expected: number): void {
    if (actual !== expected) throw this.error(`${actual} descriptors, expected ${expected}`);
  }

  u16(at: number): number {
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  u64(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }

  /** A u64 that must be exact as a number: addresses, sizes, offsets. */
  exact(at: number, what: string): number {
    const value = Number(this.u64(at));
    if (!Number.isSafeInteger(value)) {
      throw this.error(`${what} 0x${this.u64(at).toString(16)} is out of range`);
    }
    return value;
  }

  region(at: number): RegionDescription {
    return {
      guestAddress: this.exact(at, 'guest address'),
      size: this.exact(at + 8, 'size'),
      userAddress: this.exact(at + 16, 'user address'),
      mmapOffset: this.exact(at + 24, 'mmap offset'),
    };
  }

  error(what: string): SluiceError {
    return protocolError(`${this.#name}: ${what}`);
  }
}

/**
 * The message of a front-end. `fds` is how many descriptors came with it.
 * @throws SluiceError `protocol` for a wrong size, number of descriptors, or field; `unsupported`
 * for a request that Sluice does not serve.
 */
export function decodeRequest(request: number, payload: Uint8Array, fds: number): FrontEndMessage {
  const fields = new Fields(request, payload);
  switch (request) {
    case vu.VHOST_USER_SET_LOG_FD:
    case vu.VHOST_USER_SET_BACKEND_REQ_FD:
      fields.expectFds(fds, 1);
      // Some front-ends send an unused u64 along.
      if (payload.length !== 0) fields.expectSize(vu.U64_BYTES);
      return { request };
    case vu.VHOST_USER_GET_FEATURES:
    case vu.VHOST_USER_SET_OWNER:
    case vu.VHOST_USER_RESET_OWNER:
    case vu.VHOST_USER_GET_PROTOCOL_FEATURES:
    case vu.VHOST_USER_GET_QUEUE_NUM:
    case vu.VHOST_USER_RESET_DEVICE:
    case vu.VHOST_USER_GET_MAX_MEM_SLOTS:
    case vu.VHOST_USER_GET_STATUS:
      fields.expectSize(0);
      fields.expectFds(fds, 0);
      return { request };
    case vu.VHOST_USER_SET_FEATURES:
    case vu.VHOST_USER_SET_PROTOCOL_FEATURES:
    case vu.VHOST_USER_SEND_RARP:
    case vu.VHOST_USER_NET_SET_MTU:
    case vu.VHOST_USER_SET_STATUS:
      fields.expectSize(vu.U64_BYTES);
      fields.expectFds(fds, 0);
      return { request, value: fields.u64(0) };
    case vu.VHOST_USER_SET_VRING_KICK:
    case vu.VHOST_USER_SET_VRING_CALL:
    case vu.VHOST_USER_SET_VRING_ERR:
      return decodeVringFile(request, fields, fds);
    case vu.VHOST_USER_SET_VRING_NUM:
    case vu.VHOST_USER_SET_VRING_BASE:
    case vu.VHOST_USER_GET_VRING_BASE:
    case vu.VHOST_USER_SET_VRING_ENABLE:
      fields.expectSize(vu.VRING_STATE_BYTES);
      fields.expectFds(fds, 0);
      return { request, index: fields.u32(0), num: fields.u32(4) };
    case vu.VHOST_USER_SET_VRING_ADDR:
      fields.expectSize(vu.VRING_ADDRESS_BYTES);
      fields.expectFds(fds, 0);
      return { request, ...decodeVringAddress(fields) };
    case vu.VHOST_USER_SET_MEM_TABLE:
      return decodeMemoryTable(fields, fds);
    case vu.VHOST_USER_ADD_MEM_REG:
    case vu.VHOST_USER_REM_MEM_REG:
      fields.expectSize(vu.SINGLE_REGION_BYTES);
      // "For compatibility with existing incorrect implementations" a removal may bring one.
      if (request === vu.VHOST_USER_ADD_MEM_REG || fds !== 0) fields.expectFds(fds, 1);
      return { request, region: fields.region(8) };
    case vu.VHOST_USER_SET_LOG_BASE:
      fields.expectSize(vu.LOG_BYTES);
      fields.expectFds(fds, 1);
      return { request, size: fields.exact(0, 'size'), offset: fields.exact(8, 'offset') };
    case vu.VHOST_USER_GET_CONFIG:
    case vu.VHOST_USER_SET_CONFIG:
      return decodeConfig(request, fields, fds);
    case vu.VHOST_USER_GET_INFLIGHT_FD:
    case vu.VHOST_USER_SET_INFLIGHT_FD:
      return decodeInflight(request, fields, fds);
    default:
      throw new SluiceError('unsupported', `${requestName(request)} is not supported`);
  }
}

function decodeVringAddress(fields: Fields): VringAddress {
  const flags = fields.u32(4);
  return {
    index: fields.u32(0),
    flags,
    descriptor: fields.exact(8, 'descriptor address'),
    used: fields.exact(16, 'used address'),
    available: fields.exact(24, 'available address'),
    // Without the flag it means nothing: User-Mode Linux sends -1.
    log: (flags & (1 << vu.VHOST_VRING_F_LOG)) !== 0 ? fields.exact(32, 'log address') : 0,
  };
}

function decodeVringFile(request: FileRequest, fields: Fields, fds: number): FrontEndMessage {
  fields.expectSize(vu.U64_BYTES);
  const value = fields.u64(0);
  if (value > 0x1ffn) throw fields.error(`unknown bits in 0x${value.toString(16)}`);
  const bits = Number(value);
  const hasFd = (bits & vu.VRING_NO_FD) === 0;
  fields.expectFds(fds, hasFd ? 1 : 0);
  return { request, index: bits & vu.VRING_INDEX_MASK, hasFd };
}

function decodeMemoryTable(fields: Fields, fds: number): FrontEndMessage {
  fields.atLeast(vu.MEMORY_TABLE_BYTES);
  const count = fields.u32(0);
  if (count > MAX_TABLE_REGIONS) {
    throw fields.error(`${count} regions, at most ${MAX_TABLE_REGIONS} are accepted`);
  }
  // Linux sends its whole structure, however many regions there are: more is allowed.
  fields.atLeast(vu.MEMORY_TABLE_BYTES + count * vu.REGION_BYTES);
  fields.expectFds(fds, count);
  const regions = Array.from({ length: count }, (_, index) =>
    fields.region(vu.MEMORY_TABLE_BYTES + index * vu.REGION_BYTES),
  );
  return { request: vu.VHOST_USER_SET_MEM_TABLE, regions };
}

function decodeConfig(
  request: typeof vu.VHOST_USER_GET_CONFIG | typeof vu.VHOST_USER_SET_CONFIG,
  fields: Fields,
  fds: number,
): FrontEndMessage {
  fields.atLeast(vu.CONFIG_BYTES);
  fields.expectFds(fds, 0);
  const offset = fields.u32(0);
  const size = fields.u32(4);
  fields.expectSize(vu.CONFIG_BYTES + size);
  if (size === 0 || offset + size > vu.MAX_CONFIG_BYTES) {
    throw fields.error(
      `${size} bytes at offset ${offset} of a configuration space of ${vu.MAX_CONFIG_BYTES}`,
    );
  }
  return { request, offset, flags: fields.u32(8), contents: fields.bytes.slice(vu.CONFIG_BYTES) };
}

function decodeInflight(request: InflightRequest, fields: Fields, fds: number): FrontEndMessage {
  const padded = fields.bytes.length === vu.INFLIGHT_PADDED_BYTES;
  if (!padded) fields.expectSize(vu.INFLIGHT_BYTES);
  fields.expectFds(fds, request === vu.VHOST_USER_SET_INFLIGHT_FD ? 1 : 0);
  return {
    request,
    mmapSize: fields.exact(0, 'mmap size'),
    mmapOffset: fields.exact(8, 'mmap offset'),
    queues: fields.u16(16),
    queueSize: fields.u16(18),
    padded,
  };
}

/** Writes the fields of one payload. */
function payloadOf(bytes: number, write: (view: DataView) => void): Uint8Array {
  const payload = new Uint8Array(bytes);
  write(new DataView(payload.buffer));
  return payload;
}

export const EMPTY_PAYLOAD = new Uint8Array(0);

export function encodeU64(value: bigint): Uint8Array {
  return payloadOf(vu.U64_BYTES, (view) => view.setBigUint64(0, value, true));
}

export function encodeState(index: number, num: number): Uint8Array {
  return payloadOf(vu.VRING_STATE_BYTES, (view) => {
    view.setUint32(0, index, true);
    view.setUint32(4, num, true);
  });
}

export function encodeConfig(offset: number, flags: number, contents: Uint8Array): Uint8Array {
  const payload = payloadOf(vu.CONFIG_BYTES + contents.length, (view) => {
    view.setUint32(0, offset, true);
    view.setUint32(4, contents.length, true);
    view.setUint32(8, flags, true);
  });
  payload.set(contents, vu.CONFIG_BYTES);
  return payload;
}

export function encodeInflight(inflight: InflightDescription): Uint8Array {
  const bytes = inflight.padded ? vu.INFLIGHT_PADDED_BYTES : vu.INFLIGHT_BYTES;
  return payloadOf(bytes, (view) => {
    view.setBigUint64(0, BigInt(inflight.mmapSize), true);
    view.setBigUint64(8, BigInt(inflight.mmapOffset), true);
    view.setUint16(16, inflight.queues, true);
    view.setUint16(18, inflight.queueSize, true);
  });
}

function putRegion(view: DataView, at: number, region: RegionDescription): void {
  view.setBigUint64(at, BigInt(region.guestAddress), true);
  view.setBigUint64(at + 8, BigInt(region.size), true);
  view.setBigUint64(at + 16, BigInt(region.userAddress), true);
  view.setBigUint64(at + 24, BigInt(region.mmapOffset), true);
}

/** The payload of a front-end's message. */
export function encodeRequest(message: FrontEndMessage): Uint8Array {
  switch (message.request) {
    case vu.VHOST_USER_SET_FEATURES:
    case vu.VHOST_USER_SET_PROTOCOL_FEATURES:
    case vu.VHOST_USER_SEND_RARP:
    case vu.VHOST_USER_NET_SET_MTU:
    case vu.VHOST_USER_SET_STATUS:
      return encodeU64(message.value);
    case vu.VHOST_USER_SET_VRING_KICK:
    case vu.VHOST_USER_SET_VRING_CALL:
    case vu.VHOST_USER_SET_VRING_ERR:
      return encodeU64(BigInt(message.index | (message.hasFd ? 0 : vu.VRING_NO_FD)));
    case vu.VHOST_USER_SET_VRING_NUM:
    case vu.VHOST_USER_SET_VRING_BASE:
    case vu.VHOST_USER_GET_VRING_BASE:
    case vu.VHOST_USER_SET_VRING_ENABLE:
      return encodeState(message.index, message.num);
    case vu.VHOST_USER_SET_VRING_ADDR:
      return payloadOf(vu.VRING_ADDRESS_BYTES, (view) => {
        view.setUint32(0, message.index, true);
        view.setUint32(4, message.flags, true);
        view.setBigUint64(8, BigInt(message.descriptor), true);
        view.setBigUint64(16, BigInt(message.used), true);
        view.setBigUint64(24, BigInt(message.available), true);
        view.setBigUint64(32, BigInt(message.log), true);
      });
    case vu.VHOST_USER_SET_MEM_TABLE: {
      const { regions } = message;
      return payloadOf(vu.MEMORY_TABLE_BYTES + regions.length * vu.REGION_BYTES, (view) => {
        view.setUint32(0, regions.length, true);
        for (const [index, region] of regions.entries()) {
          putRegion(view, vu.MEMORY_TABLE_BYTES + index * vu.REGION_BYTES, region);
        }
      });
    }
    case vu.VHOST_USER_ADD_MEM_REG:
    case vu.VHOST_USER_REM_MEM_REG:
      return payloadOf(vu.SINGLE_REGION_BYTES, (view) => putRegion(view, 8, message.region));
    case vu.VHOST_USER_SET_LOG_BASE:
      return payloadOf(vu.LOG_BYTES, (view) => {
        view.setBigUint64(0, BigInt(message.size), true);
        view.setBigUint64(8, BigInt(message.offset), true);
      });
    case vu.VHOST_USER_GET_CONFIG:
    case vu.VHOST_USER_SET_CONFIG:
      return encodeConfig(message.offset, message.flags, message.contents);
    case vu.VHOST_USER_GET_INFLIGHT_FD:
    case vu.VHOST_USER_SET_INFLIGHT_FD:
      return encodeInflight(message);
    default:
      return EMPTY_PAYLOAD;
  }
}
