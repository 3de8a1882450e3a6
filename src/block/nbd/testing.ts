/**
 * An NBD server for tests, made to misbehave: replies in any order and cut into any chunks, errors,
 * garbage, disconnects after any byte. The protocol's side is apart from sockets; see
 * {@link serveNbd} for a real one, on Node's event loop.
 */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import * as nbd from '../../spec/nbd.ts';

/** What the server does to one request instead of, or before, answering it. */
export type Misdeed =
  | { readonly error: number }
  /** These bytes instead of a reply. */
  | { readonly bytes: Uint8Array }
  | 'disconnect'
  | 'silence';

export interface ServedRequest {
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly offset: number;
  readonly length: number;
}

export interface TestServerOptions {
  readonly bytes?: number;
  readonly name?: string;
  /** Transmission flags; default: all that the client knows, but READ_ONLY. */
  flags?: number;
  /** Answers NBD_OPT_STRUCTURED_REPLY with yes. Default true. */
  readonly structured?: boolean;
  /** Knows NBD_OPT_INFO and NBD_OPT_GO. Default true. */
  readonly knowsGo?: boolean;
  readonly blocks?: { readonly min: number; readonly preferred: number; readonly max: number };
  /** Pieces that a structured read is answered in. Default 1. */
  readonly chunks?: number;
  /** Closes each connection once it has sent so many bytes; the value is asked for at each connection. */
  readonly cutAfter?: (connection: number) => number;
  /** Asked for each request. */
  readonly misdeed?: (request: ServedRequest, connection: number) => Misdeed | undefined;
  /** Holds replies back and sends them in another order, so many at a time. Default 1: at once. */
  readonly shuffle?: number;
  /** Answers writes when it has their header, before their data. */
  readonly eager?: boolean;
  /** Refuses the export with this NBD_REP_ERR_*. */
  readonly refuse?: number;
}

export const ALL_FLAGS =
  nbd.NBD_FLAG_HAS_FLAGS |
  nbd.NBD_FLAG_SEND_FLUSH |
  nbd.NBD_FLAG_SEND_FUA |
  nbd.NBD_FLAG_SEND_TRIM |
  nbd.NBD_FLAG_SEND_WRITE_ZEROES |
  nbd.NBD_FLAG_CAN_MULTI_CONN;

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

const NOTHING = new Uint8Array(0);

export function simpleReply(cookie: bigint, error = 0, data: Uint8Array = NOTHING): Buffer {
  return Buffer.concat([u32(nbd.NBD_SIMPLE_REPLY_MAGIC), u32(error), u64(cookie), data]);
}

export function chunk(cookie: bigint, type: number, payload: Uint8Array, done: boolean): Buffer {
  return Buffer.concat([
    u32(nbd.NBD_STRUCTURED_REPLY_MAGIC),
    u16(done ? nbd.NBD_REPLY_FLAG_DONE : 0),
    u16(type),
    u64(cookie),
    u32(payload.length),
    payload,
  ]);
}

export function dataChunk(cookie: bigint, offset: number, data: Uint8Array, done: boolean): Buffer {
  const payload = Buffer.concat([u64(offset), data]);
  return chunk(cookie, nbd.NBD_REPLY_TYPE_OFFSET_DATA, payload, done);
}

export function holeChunk(cookie: bigint, offset: number, bytes: number, done: boolean): Buffer {
  const payload = Buffer.concat([u64(offset), u32(bytes)]);
  return chunk(cookie, nbd.NBD_REPLY_TYPE_OFFSET_HOLE, payload, done);
}

export function errorChunk(cookie: bigint, error: number, text: string, done = true): Buffer {
  const said = Buffer.from(text);
  const payload = Buffer.concat([u32(error), u16(said.length), said]);
  return chunk(cookie, nbd.NBD_REPLY_TYPE_ERROR, payload, done);
}

/** The content and habits of a server; several connections share it. */
export class TestServer {
  readonly options: TestServerOptions;
  readonly disk: Buffer;
  /** All requests that were understood, of all connections. */
  readonly requests: ServedRequest[] = [];
  connections = 0;

  constructor(options: TestServerOptions = {}) {
    this.options = options;
    this.disk = Buffer.alloc(options.bytes ?? 1 << 20);
  }

  /** A new client. */
  connect(): TestServerConnection {
    return new TestServerConnection(this, this.connections++);
  }

  get flags(): number {
    return this.options.flags ?? ALL_FLAGS;
  }
}

/** One client's bytes in, the server's bytes out. */
export class TestServerConnection {
  /** True once the server has closed the connection. */
  closed = false;
  readonly #server: TestServer;
  readonly #number: number;
  #input = Buffer.alloc(0);
  #output: Buffer[] = [];
  #held: Buffer[] = [];
  #step: 'flags' | 'options' | 'transmission' = 'flags';
  #structured = false;
  #noZeroes = false;
  #left: number;
  /** The first request of the input is answered; its data is still to come. */
  #answered = false;

  constructor(server: TestServer, number: number) {
    this.#server = server;
    this.#number = number;
    this.#left = server.options.cutAfter?.(number) ?? Number.POSITIVE_INFINITY;
    this.#send(
      u64(nbd.NBD_MAGIC),
      u64(nbd.NBD_OPTION_MAGIC),
      u16(nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES),
    );
  }

  /** What is to be sent to the client. */
  take(): Buffer {
    const bytes = Buffer.concat(this.#output);
    this.#output = [];
    return bytes;
  }

  push(bytes: Uint8Array): void {
    this.#input = Buffer.concat([this.#input, bytes]);
    while (!this.closed && this.#advance()) {
      // Each turn has taken one message.
    }
  }

  /** Sends replies that were held back, the last first. */
  release(): void {
    const held = this.#held.reverse();
    this.#held = [];
    this.#send(...held);
  }

  #send(...parts: Uint8Array[]): void {
    if (this.closed) return;
    const bytes = Buffer.concat(parts);
    this.#output.push(bytes.subarray(0, Math.min(bytes.length, this.#left)));
    this.#left -= bytes.length;
    if (this.#left <= 0) this.closed = true;
  }

  #shift(length: number): Buffer | undefined {
    if (this.#input.length < length) return undefined;
    const bytes = this.#input.subarray(0, length);
    this.#input = this.#input.subarray(length);
    return bytes;
  }

  #advance(): boolean {
    if (this.#step === 'flags') {
      const flags = this.#shift(4);
      if (flags === undefined) return false;
      this.#noZeroes = (flags.readUInt32BE() & nbd.NBD_FLAG_NO_ZEROES) !== 0;
      this.#step = 'options';
      return true;
    }
    return this.#step === 'options' ? this.#option() : this.#request();
  }

  #option(): boolean {
    if (this.#input.length < nbd.OPTION_BYTES) return false;
    const option = this.#input.readUInt32BE(8);
    const length = this.#input.readUInt32BE(12);
    const message = this.#shift(nbd.OPTION_BYTES + length);
    if (message === undefined) return false;
    const data = message.subarray(nbd.OPTION_BYTES);
    const { options } = this.#server;
    const reply = (type: number, payload: Uint8Array = NOTHING): void =>
      this.#send(
        u64(nbd.NBD_OPTION_REPLY_MAGIC),
        u32(option),
        u32(type),
        u32(payload.length),
        payload,
      );
    switch (option) {
      case nbd.NBD_OPT_STRUCTURED_REPLY:
        this.#structured = options.structured ?? true;
        reply(this.#structured ? nbd.NBD_REP_ACK : nbd.NBD_REP_ERR_UNSUP);
        return true;
      case nbd.NBD_OPT_INFO:
      case nbd.NBD_OPT_GO:
        this.#info(option, data.subarray(4, 4 + data.readUInt32BE()).toString(), reply);
        return true;
      case nbd.NBD_OPT_EXPORT_NAME:
        this.#send(
          u64(this.#server.disk.length),
          u16(this.#server.flags),
          Buffer.alloc(this.#noZeroes ? 0 : nbd.EXPORT_NAME_ZEROES),
        );
        this.#step = 'transmission';
        return true;
      default:
        reply(nbd.NBD_REP_ACK);
        this.closed = true;
        return false;
    }
  }

  #info(option: number, name: string, reply: (type: number, payload?: Uint8Array) => void): void {
    const { options, disk, flags } = this.#server;
    const refusal =
      options.knowsGo === false
        ? nbd.NBD_REP_ERR_UNSUP
        : (options.refuse ?? (name === (options.name ?? '') ? 0 : nbd.NBD_REP_ERR_UNKNOWN));
    if (refusal !== 0) {
      reply(refusal, Buffer.from('because'));
      return;
    }
    reply(
      nbd.NBD_REP_INFO,
      Buffer.concat([u16(nbd.NBD_INFO_EXPORT), u64(disk.length), u16(flags)]),
    );
    // A kind that nobody asked for: clients ignore it.
    reply(nbd.NBD_REP_INFO, Buffer.concat([u16(nbd.NBD_INFO_NAME), Buffer.from(name)]));
    const { blocks } = options;
    if (blocks !== undefined) {
      const { min, preferred, max } = blocks;
      const sizes = [u16(nbd.NBD_INFO_BLOCK_SIZE), u32(min), u32(preferred), u32(max)];
      reply(nbd.NBD_REP_INFO, Buffer.concat(sizes));
    }
    reply(nbd.NBD_REP_ACK);
    if (option === nbd.NBD_OPT_GO) this.#step = 'transmission';
  }

  #request(): boolean {
    if (this.#input.length < nbd.REQUEST_BYTES) return false;
    const header = this.#input;
    if (header.readUInt32BE() !== nbd.NBD_REQUEST_MAGIC) {
      throw new Error(`a request begins with 0x${header.readUInt32BE().toString(16)}`);
    }
    const request: ServedRequest = {
      flags: header.readUInt16BE(4),
      type: header.readUInt16BE(6),
      cookie: header.readBigUInt64BE(8),
      offset: Number(header.readBigUInt64BE(16)),
      length: header.readUInt32BE(24),
    };
    const payload = request.type === nbd.NBD_CMD_WRITE ? request.length : 0;
    if (payload > 0 && this.#server.options.eager === true && !this.#answered) {
      this.#answered = true;
      this.#send(this.#reply(request, 0));
    }
    const message = this.#shift(nbd.REQUEST_BYTES + payload);
    if (message === undefined) return false;
    if (request.type === nbd.NBD_CMD_DISC) {
      this.closed = true;
      return false;
    }
    this.#server.requests.push(request);
    const misdeed = this.#server.options.misdeed?.(request, this.#number);
    if (misdeed === 'silence') return true;
    if (misdeed === 'disconnect') {
      this.closed = true;
      return false;
    }
    if (misdeed !== undefined && 'bytes' in misdeed) {
      this.#hold(Buffer.from(misdeed.bytes));
      return true;
    }
    if (this.#answered) {
      this.#answered = false;
      this.#apply(request, message.subarray(nbd.REQUEST_BYTES));
      return true;
    }
    const error = misdeed?.error ?? this.#apply(request, message.subarray(nbd.REQUEST_BYTES));
    this.#hold(this.#reply(request, error));
    return true;
  }

  #hold(reply: Buffer): void {
    this.#held.push(reply);
    if (this.#held.length >= (this.#server.options.shuffle ?? 1)) this.release();
  }

  #apply(request: ServedRequest, data: Buffer): number {
    const { disk } = this.#server;
    const { type, offset, length } = request;
    if (offset + length > disk.length) return nbd.NBD_EINVAL;
    if (type === nbd.NBD_CMD_WRITE) data.copy(disk, offset);
    if (type === nbd.NBD_CMD_TRIM || type === nbd.NBD_CMD_WRITE_ZEROES) {
      disk.fill(0, offset, offset + length);
    }
    return 0;
  }

  #reply({ type, cookie, offset, length }: ServedRequest, error: number): Buffer {
    const read = type === nbd.NBD_CMD_READ;
    const data = read ? this.#server.disk.subarray(offset, offset + length) : Buffer.alloc(0);
    if (!this.#structured) return simpleReply(cookie, error, error === 0 ? data : undefined);
    if (error !== 0) return errorChunk(cookie, error, 'no');
    if (!read) return chunk(cookie, nbd.NBD_REPLY_TYPE_NONE, NOTHING, true);
    const chunks = this.#server.options.chunks ?? 1;
    const size = Math.max(1, Math.ceil(length / chunks));
    const parts: Buffer[] = [];
    for (let at = 0; at < length; at += size) {
      const part = data.subarray(at, at + size);
      const hole = chunks > 1 && part.every((byte) => byte === 0);
      parts.push(
        hole
          ? holeChunk(cookie, offset + at, part.length, false)
          : dataChunk(cookie, offset + at, part, chunks === 1),
      );
    }
    // The chunks of one reply may come in any order.
    if (chunks > 1) {
      parts.reverse();
      parts.push(chunk(cookie, nbd.NBD_REPLY_TYPE_NONE, NOTHING, true));
    }
    return Buffer.concat(parts);
  }
}

/** A server that listens on a Unix socket. */
export class ListeningServer implements AsyncDisposable {
  readonly server: TestServer;
  readonly path: string;
  readonly #listener: Server;
  readonly #clients = new Set<Socket>();

  constructor(server: TestServer, path: string) {
    this.server = server;
    this.path = path;
    this.#listener = createServer((socket) => this.#serve(socket));
  }

  async listen(): Promise<this> {
    this.#listener.listen(this.path);
    await once(this.#listener, 'listening');
    return this;
  }

  get uri(): string {
    return `nbd+unix:///${this.server.options.name ?? ''}?socket=${this.path}`;
  }

  /** Cuts all connections off. */
  disconnectAll(): void {
    for (const client of this.#clients) client.destroy();
  }

  /** Stops listening, too. */
  async close(): Promise<void> {
    this.disconnectAll();
    if (!this.#listener.listening) return;
    this.#listener.close();
    await once(this.#listener, 'close');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #serve(socket: Socket): void {
    const connection = this.server.connect();
    let release: NodeJS.Immediate | undefined;
    this.#clients.add(socket);
    const pass = (): void => {
      socket.write(connection.take());
      if (connection.closed) socket.end(() => socket.destroy());
    };
    socket.on('data', (bytes: Buffer) => {
      connection.push(bytes);
      pass();
      // What is held back until more come must not wait for ever.
      clearImmediate(release);
      release = setImmediate(() => {
        connection.release();
        pass();
      });
    });
    // The client may go at any moment.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      clearImmediate(release);
      this.#clients.delete(socket);
    });
    pass();
  }
}

/** Serves on a Unix socket at `path`. */
export function serveNbd(path: string, options: TestServerOptions = {}): Promise<ListeningServer> {
  return new ListeningServer(new TestServer(options), path).listen();
}
