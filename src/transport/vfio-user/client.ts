/**
 * The client: what a VMM does. Used by the embedded guest, by tests and by fuzzers.
 *
 * Calls are synchronous: they wait for the server where the protocol has an answer, and serve its
 * requests for memory meanwhile. A server that has gone is an error of code `state`, at once.
 *
 * Source: the vfio-user specification.
 */
import { EINVAL } from '../../os/libc.ts';
import { connectUnix } from '../../os/unix-socket.ts';
import * as vfu from '../../spec/vfio-user.ts';
import { type ByteChannel, SocketChannel } from '../channel.ts';
import type { FdBag } from '../fd-bag.ts';
import { Patience, type PatienceOptions } from '../patience.ts';
import { protocolError } from '../protocol-error.ts';
import {
  type Capabilities,
  commandName,
  decodeVersion,
  EMPTY_PAYLOAD,
  encodeMessage,
  encodeVersion,
  MAX_DATA_BYTES,
  MAX_MESSAGE_FDS,
  type Message,
  payloadOf,
  putHeader,
  putU64,
  Refusal,
  u32At,
  u64At,
  type Version,
} from './codec.ts';
import { MessageReader } from './framing.ts';

/** Bytes that an access to registers may carry, and its whole message. */
const MAX_TRAP_DATA = 8;
const TRAP_BYTES = vfu.HEADER_BYTES + vfu.REGION_ACCESS_BYTES + MAX_TRAP_DATA;
const NO_FDS: readonly number[] = [];

const CAPABILITIES: Capabilities = {
  maxMessageFds: MAX_MESSAGE_FDS,
  maxDataBytes: MAX_DATA_BYTES,
  pageSizes: vfu.DEFAULT_PGSIZES,
  maxDmaMaps: vfu.DEFAULT_MAX_DMA_MAPS,
  writeMultiple: true,
  migration: undefined,
};

/** Guest memory for which the server has no descriptor. */
export interface ServedMemory {
  /** `count` bytes at an I/O virtual address; undefined: refused. */
  read(iova: number, count: number): Uint8Array | undefined;
  /** False: refused. */
  write(iova: number, bytes: Uint8Array): boolean;
}

export interface ClientOptions extends PatienceOptions {
  /** The server's name in errors; its socket path. */
  readonly name?: string;
  readonly capabilities?: Capabilities;
  readonly memory?: ServedMemory;
}

export interface ClientMap {
  readonly iova: number;
  readonly length: number;
  /** Stays the caller's; undefined: the server reaches the memory by messages. */
  readonly fd?: number;
  readonly offset?: number;
  readonly readable?: boolean;
  readonly writable?: boolean;
}

export interface RegionDescription {
  readonly flags: number;
  readonly bytes: number;
  /** Where in the file of the mappable areas the region begins. */
  readonly fileOffset: number;
  readonly areas: readonly { readonly offset: number; readonly bytes: number }[];
  /** Descriptors of the areas' memory: whoever asked closes the bag. */
  readonly fds: FdBag;
}

/** One of several writes in a message: 1 to 8 bytes. */
export interface PostedWrite {
  readonly region: number;
  readonly offset: number;
  readonly bytes: number;
  readonly value: number;
}

export class VfioUserClient {
  /** What the server answered to VERSION. */
  server: Version | undefined;
  readonly #channel: ByteChannel;
  readonly #reader: MessageReader;
  readonly #patience: Patience;
  readonly #options: ClientOptions;
  readonly #name: string;
  /** A trap's message, made in memory that is there, and its first bytes as arrays. */
  readonly #trap = new DataView(new ArrayBuffer(TRAP_BYTES));
  readonly #trapOf = Array.from(
    { length: MAX_TRAP_DATA + 1 },
    (_, data) => new Uint8Array(this.#trap.buffer, 0, TRAP_BYTES - MAX_TRAP_DATA + data),
  );
  #nextId = 0;
  #gone = false;
  #closed = false;

  /** Over a channel, which is the client's from now on. */
  constructor(channel: ByteChannel, options: ClientOptions = {}) {
    this.#channel = channel;
    this.#reader = new MessageReader(channel);
    this.#options = options;
    this.#name = options.name ?? 'the server';
    this.#patience = new Patience(this.#name, channel, options);
  }

  /** Connects to a server's socket. */
  static connect(path: string, options: ClientOptions = {}): VfioUserClient {
    return new VfioUserClient(new SocketChannel(connectUnix(path)), { name: path, ...options });
  }

  /** Descriptor that becomes readable when the server asks for memory or has gone, or -1. */
  get fd(): number {
    return this.#channel.fd;
  }

  /** Agrees on the version: must come first. */
  negotiate(): Version {
    const version = encodeVersion({
      major: vfu.VERSION_MAJOR,
      minor: vfu.VERSION_MINOR,
      capabilities: this.#options.capabilities ?? CAPABILITIES,
    });
    this.server = this.ask(vfu.VFIO_USER_VERSION, version, decodeVersion);
    return this.server;
  }

  map(map: ClientMap): void {
    const flags =
      (map.readable === false ? 0 : vfu.DMA_MAP_READABLE) |
      (map.writable === false ? 0 : vfu.DMA_MAP_WRITEABLE);
    const payload = payloadOf(vfu.DMA_MAP_BYTES, (view) => {
      view.setUint32(0, vfu.DMA_MAP_BYTES, true);
      view.setUint32(4, flags, true);
      putU64(view, 8, map.offset ?? 0);
      putU64(view, 16, map.iova);
      putU64(view, 24, map.length);
    });
    this.ask(vfu.VFIO_USER_DMA_MAP, payload, nothing, map.fd === undefined ? [] : [map.fd]);
  }

  unmap(iova: number, length: number): void {
    this.ask(vfu.VFIO_USER_DMA_UNMAP, unmapPayload(0, iova, length), nothing);
  }

  unmapAll(): void {
    this.ask(vfu.VFIO_USER_DMA_UNMAP, unmapPayload(vfu.DMA_UNMAP_ALL, 0, 0), nothing);
  }

  /** Takes a map away and tells which of its pages of 4 KiB were written: a bit each, lowest first. */
  unmapWithDirty(iova: number, length: number): Uint8Array {
    const bytes = bitmapBytes(length);
    const request = new Uint8Array(vfu.DMA_UNMAP_BYTES + vfu.BITMAP_BYTES);
    request.set(unmapPayload(vfu.DMA_UNMAP_GET_DIRTY_BITMAP, iova, length));
    const view = new DataView(request.buffer);
    view.setUint32(0, request.length + bytes, true);
    putU64(view, vfu.DMA_UNMAP_BYTES, vfu.DEFAULT_PGSIZES);
    putU64(view, vfu.DMA_UNMAP_BYTES + 8, bytes);
    return this.ask(vfu.VFIO_USER_DMA_UNMAP, request, (m) => payloadFrom(m, request.length));
  }

  /** Begins or ends the log of written pages. */
  logDirty(on: boolean): void {
    const payload = payloadOf(vfu.DIRTY_PAGES_BYTES, (view) => {
      view.setUint32(0, vfu.DIRTY_PAGES_BYTES, true);
      view.setUint32(4, on ? vfu.DIRTY_PAGES_START : vfu.DIRTY_PAGES_STOP, true);
    });
    this.ask(vfu.VFIO_USER_DIRTY_PAGES, payload, nothing);
  }

  /** Which pages of a map were written since the last time. */
  readDirty(iova: number, length: number): Uint8Array {
    const bytes = bitmapBytes(length);
    const request = payloadOf(vfu.DIRTY_PAGES_BYTES + vfu.DIRTY_RANGE_BYTES, (view) => {
      view.setUint32(0, view.byteLength + bytes, true);
      view.setUint32(4, vfu.DIRTY_PAGES_GET_BITMAP, true);
      putU64(view, 8, iova);
      putU64(view, 16, length);
      putU64(view, 24, vfu.DEFAULT_PGSIZES);
      putU64(view, 32, bytes);
    });
    return this.ask(vfu.VFIO_USER_DIRTY_PAGES, request, (m) => payloadFrom(m, request.length));
  }

  deviceInfo(): { readonly flags: number; readonly regions: number; readonly irqs: number } {
    return this.ask(vfu.VFIO_USER_DEVICE_GET_INFO, infoRequest(vfu.DEVICE_INFO_BYTES), (m) => ({
      flags: u32At(m, 4),
      regions: u32At(m, 8),
      irqs: u32At(m, 12),
    }));
  }

  /** Asks twice, as VMMs do, where capabilities take more room. */
  regionInfo(index: number): RegionDescription {
    const request = (argsz: number): Uint8Array => infoRequest(vfu.REGION_INFO_BYTES, argsz, index);
    const first = request(vfu.REGION_INFO_BYTES);
    const needed = this.ask(vfu.VFIO_USER_DEVICE_GET_REGION_INFO, first, (m) => u32At(m, 0));
    return this.ask(vfu.VFIO_USER_DEVICE_GET_REGION_INFO, request(needed), (m) => ({
      flags: u32At(m, 4),
      bytes: u64At(m, 16),
      fileOffset: u64At(m, 24),
      areas: areasOf(m),
      fds: this.#reader.takeFds(),
    }));
  }

  irqInfo(index: number): { readonly flags: number; readonly count: number } {
    const request = infoRequest(vfu.IRQ_INFO_BYTES, vfu.IRQ_INFO_BYTES, index);
    return this.ask(vfu.VFIO_USER_DEVICE_GET_IRQ_INFO, request, (m) => ({
      flags: u32At(m, 4),
      count: u32At(m, 12),
    }));
  }

  /** `flags`: one of the data kinds and one of the actions; descriptors stay the caller's. */
  setIrqs(
    index: number,
    flags: number,
    start: number,
    count: number,
    data: { readonly fds?: readonly number[]; readonly booleans?: readonly boolean[] } = {},
  ): void {
    const booleans = data.booleans ?? [];
    const payload = payloadOf(vfu.IRQ_SET_BYTES + booleans.length, (view) => {
      view.setUint32(0, view.byteLength, true);
      view.setUint32(4, flags, true);
      view.setUint32(8, index, true);
      view.setUint32(12, start, true);
      view.setUint32(16, count, true);
      for (const [i, on] of booleans.entries()) view.setUint8(vfu.IRQ_SET_BYTES + i, on ? 1 : 0);
    });
    this.ask(vfu.VFIO_USER_DEVICE_SET_IRQS, payload, nothing, data.fds ?? []);
  }

  /** Sends the descriptors of vectors from 0 on: one interrupt each. */
  setVectors(index: number, fds: readonly number[]): void {
    const flags = vfu.IRQ_SET_DATA_EVENTFD | vfu.IRQ_SET_ACTION_TRIGGER;
    this.setIrqs(index, flags, 0, fds.length, { fds });
  }

  reset(): void {
    this.ask(vfu.VFIO_USER_DEVICE_RESET, EMPTY_PAYLOAD, nothing);
  }

  // Registers

  /** A trap: 1, 2 or 4 bytes, unsigned. Allocates nothing, as the other traps. */
  read(region: number, offset: number, bytes: number): number {
    const id = this.#sendTrap(vfu.VFIO_USER_REGION_READ, 0, region, offset, bytes, 0, 0);
    const reply = this.#answer(id, vfu.VFIO_USER_REGION_READ);
    const at = reply.at + vfu.REGION_ACCESS_BYTES;
    const { view } = reply;
    const value =
      bytes === 4
        ? view.getUint32(at, true)
        : bytes === 2
          ? view.getUint16(at, true)
          : view.getUint8(at);
    this.#dropFds();
    return value;
  }

  /** Any number of bytes: configuration space or a ROM at once. */
  readBytes(region: number, offset: number, bytes: number): Uint8Array {
    const request = accessPayload(region, offset, bytes);
    return this.ask(vfu.VFIO_USER_REGION_READ, request, (m) =>
      payloadFrom(m, vfu.REGION_ACCESS_BYTES),
    );
  }

  /** A trap: 1 to 8 bytes; waits until it was done. */
  write(region: number, offset: number, bytes: number, value: number): void {
    const id = this.#sendTrap(vfu.VFIO_USER_REGION_WRITE, 0, region, offset, bytes, bytes, value);
    this.#answer(id, vfu.VFIO_USER_REGION_WRITE);
    this.#dropFds();
  }

  /** As {@link write}, but does not wait. */
  post(region: number, offset: number, bytes: number, value: number): void {
    const flags = vfu.FLAG_NO_REPLY;
    this.#sendTrap(vfu.VFIO_USER_REGION_WRITE, flags, region, offset, bytes, bytes, value);
  }

  /** Several writes in one message; does not wait. */
  postMany(writes: readonly PostedWrite[]): void {
    const bytes = vfu.WRITE_MULTI_BYTES + writes.length * vfu.SINGLE_WRITE_BYTES;
    const payload = payloadOf(bytes, (view) => {
      putU64(view, 0, writes.length);
      for (const [i, write] of writes.entries()) {
        const at = vfu.WRITE_MULTI_BYTES + i * vfu.SINGLE_WRITE_BYTES;
        putU64(view, at, write.offset);
        view.setUint32(at + 8, write.region, true);
        view.setUint32(at + 12, write.bytes, true);
        putU64(view, at + 16, write.value);
      }
    });
    this.tell(vfu.VFIO_USER_REGION_WRITE_MULTI, payload);
  }

  // Messages

  /**
   * Sends a command and reads its answer.
   * @throws Refusal with the server's errno; SluiceError `state` if it has gone or does not answer.
   */
  ask<T>(
    command: number,
    payload: Uint8Array,
    read: (reply: Message) => T,
    fds: readonly number[] = [],
  ): T {
    const id = this.#send(command, vfu.FLAG_TYPE_COMMAND, payload, fds);
    const reply = this.#answer(id, command);
    try {
      return read(reply);
    } finally {
      this.#dropFds();
    }
  }

  /** Sends a command that wants no answer. */
  tell(command: number, payload: Uint8Array, fds: readonly number[] = []): void {
    this.#send(command, vfu.FLAG_TYPE_COMMAND | vfu.FLAG_NO_REPLY, payload, fds);
  }

  /** Serves what the server has asked for. False if it has gone. */
  serve(): boolean {
    try {
      for (let m = this.#next(); m !== undefined; m = this.#next()) this.#serve(m);
      return true;
    } catch (error) {
      if (this.#gone) return false;
      throw error;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reader.close();
    this.#channel.close();
  }

  /**
   * The answer to a command, whose descriptors stay with the reader: it is read at once.
   * @throws Refusal with the server's errno
   */
  #answer(id: number, command: number): Message {
    const deadline = this.#patience.deadline();
    for (;;) {
      // No answer is there at once: to ask for it first would only cost a call.
      if (!this.#reader.ready) this.#patience.wait(deadline);
      const message = this.#next();
      if (message === undefined) continue;
      if ((message.flags & vfu.FLAG_TYPE_MASK) === vfu.FLAG_TYPE_COMMAND) {
        this.#serve(message);
        continue;
      }
      if (message.id !== id || message.command !== command) {
        this.#dropFds();
        throw protocolError(
          `${this.#name} answered ${commandName(command)} with ${commandName(message.command)}, id ${message.id}`,
        );
      }
      if ((message.flags & vfu.FLAG_ERROR) === 0) return message;
      const { error } = message;
      this.#dropFds();
      throw new Refusal(error, `${this.#name} refused ${commandName(command)}, errno ${error}`);
    }
  }

  /** Descriptors that nobody took of the message that was read last. */
  #dropFds(): void {
    if (this.#reader.hasFds) this.#reader.takeFds().close();
  }

  /** Sends an access to registers: `count` bytes, of which `data` come along with it. */
  #sendTrap(
    command: number,
    flags: number,
    region: number,
    offset: number,
    count: number,
    data: number,
    value: number,
  ): number {
    const bytes = this.#trapOf[data];
    if (bytes === undefined) throw new RangeError(`a write of ${data} bytes`);
    const view = this.#trap;
    this.#nextId = (this.#nextId + 1) & 0xffff;
    putHeader(view, this.#nextId, command, bytes.length, vfu.FLAG_TYPE_COMMAND | flags, 0);
    putU64(view, vfu.HEADER_BYTES, offset);
    view.setUint32(vfu.HEADER_BYTES + 8, region, true);
    view.setUint32(vfu.HEADER_BYTES + 12, count, true);
    putU64(view, TRAP_BYTES - MAX_TRAP_DATA, value);
    this.#sendAll(bytes, NO_FDS);
    return this.#nextId;
  }

  #next(): Message | undefined {
    const message = this.#reader.read();
    if (message !== 'gone') return message;
    this.#gone = true;
    throw this.#patience.goneError();
  }

  /** Answers a request for memory. */
  #serve(message: Message): void {
    const { id, command } = message;
    if (this.#reader.hasFds) this.#reader.takeFds().close();
    const isRead = command === vfu.VFIO_USER_DMA_READ;
    if ((message.flags & vfu.FLAG_TYPE_MASK) !== vfu.FLAG_TYPE_COMMAND) {
      throw protocolError(`${this.#name} answered ${commandName(command)}, which was not asked`);
    }
    if (!isRead && command !== vfu.VFIO_USER_DMA_WRITE) {
      throw protocolError(`${this.#name} sent ${commandName(command)}, which is for clients`);
    }
    const iova = u64At(message, 0);
    const count = u64At(message, 8);
    const { memory } = this.#options;
    const head = payloadFrom(message, 0).subarray(0, vfu.DMA_ACCESS_BYTES);
    const data = isRead
      ? memory?.read(iova, count)
      : memory?.write(iova, payloadFrom(message, vfu.DMA_ACCESS_BYTES)) === true
        ? EMPTY_PAYLOAD
        : undefined;
    if (data === undefined) {
      const flags = vfu.FLAG_TYPE_REPLY | vfu.FLAG_ERROR;
      this.#sendAll(encodeMessage(id, command, flags, EMPTY_PAYLOAD, EINVAL), []);
      return;
    }
    const reply = new Uint8Array(head.length + data.length);
    reply.set(head);
    reply.set(data, head.length);
    this.#sendAll(encodeMessage(id, command, vfu.FLAG_TYPE_REPLY, reply), []);
  }

  #send(command: number, flags: number, payload: Uint8Array, fds: readonly number[]): number {
    this.#nextId = (this.#nextId + 1) & 0xffff;
    this.#sendAll(encodeMessage(this.#nextId, command, flags, payload), fds);
    return this.#nextId;
  }

  #sendAll(bytes: Uint8Array, fds: readonly number[]): void {
    let deadline = 0;
    for (let sent = 0; sent < bytes.length; ) {
      if (this.#gone || this.#closed) throw this.#patience.goneError();
      const count =
        sent === 0 ? this.#channel.send(bytes, fds) : this.#channel.send(bytes.subarray(sent), []);
      if (count === -1) {
        this.#gone = true;
        throw this.#patience.goneError();
      }
      sent += count;
      if (count !== 0) continue;
      if (deadline === 0) deadline = this.#patience.deadline();
      this.#patience.wait(deadline);
    }
  }
}

/** For answers that say no more than that it was done. */
function nothing(): undefined {
  return undefined;
}

function payloadFrom(message: Message, offset: number): Uint8Array {
  return message.bytes.slice(message.at + offset, message.at + message.length);
}

function bitmapBytes(length: number): number {
  return Math.ceil(length / vfu.DEFAULT_PGSIZES / 64) * 8;
}

/** argsz u32, flags u32, index u32, zeros. */
function infoRequest(bytes: number, argsz = bytes, index = 0): Uint8Array {
  return payloadOf(bytes, (view) => {
    view.setUint32(0, argsz, true);
    view.setUint32(8, index, true);
  });
}

function unmapPayload(flags: number, iova: number, length: number): Uint8Array {
  return payloadOf(vfu.DMA_UNMAP_BYTES, (view) => {
    view.setUint32(0, vfu.DMA_UNMAP_BYTES, true);
    view.setUint32(4, flags, true);
    putU64(view, 8, iova);
    putU64(view, 16, length);
  });
}

function accessPayload(region: number, offset: number, count: number): Uint8Array {
  return payloadOf(vfu.REGION_ACCESS_BYTES, (view) => {
    putU64(view, 0, offset);
    view.setUint32(8, region, true);
    view.setUint32(12, count, true);
  });
}

function areasOf(message: Message): RegionDescription['areas'] {
  const cap = u32At(message, 12);
  if ((u32At(message, 4) & vfu.REGION_FLAG_CAPS) === 0 || cap === 0) return [];
  const list = cap + vfu.CAP_HEADER_BYTES;
  return Array.from({ length: u32At(message, list) }, (_, i) => {
    const at = list + vfu.SPARSE_MMAP_BYTES + i * vfu.SPARSE_AREA_BYTES;
    return { offset: u64At(message, at), bytes: u64At(message, at + 8) };
  });
}
