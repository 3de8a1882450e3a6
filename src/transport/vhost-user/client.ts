/**
 * The front-end: what a VMM does. Used by the embedded guest, by tests and by fuzzers.
 *
 * Calls are synchronous: they wait for the back-end where the protocol has an answer. A back-end
 * that has gone is an error of code `state`, at once.
 *
 * Source: QEMU docs/interop/vhost-user.rst.
 */
import { bitMask, hasBit } from '../../base/bits.ts';
import type { RegionDescription } from '../../memory/guest-memory.ts';
import { connectUnix, unixSocketPair } from '../../os/unix-socket.ts';
import * as vu from '../../spec/vhost-user.ts';
import { type ByteChannel, SocketChannel } from '../channel.ts';
import { Patience, type PatienceOptions } from '../patience.ts';
import { protocolError } from '../protocol-error.ts';
import {
  backEndRequestName,
  EMPTY_PAYLOAD,
  encodeMessage,
  encodeRequest,
  encodeU64,
  type FrontEndMessage,
  type InflightDescription,
  requestName,
  type VringAddress,
} from './codec.ts';
import { MessageReader, type RawMessage } from './framing.ts';
import { protocolFeatureNames, protocolMask } from './offer.ts';

/** What this front-end can make use of. */
const USABLE_PROTOCOL_FEATURES = protocolMask(
  'MQ',
  'LOG_SHMFD',
  'RARP',
  'REPLY_ACK',
  'MTU',
  'BACKEND_REQ',
  'CONFIG',
  'INFLIGHT_SHMFD',
  'RESET_DEVICE',
  'CONFIGURE_MEM_SLOTS',
  'STATUS',
);

export interface ClientOptions extends PatienceOptions {
  /** The back-end's name in errors; its socket path. */
  readonly name?: string;
  /** The back-end says that the configuration space has changed. */
  readonly onConfigChange?: () => void;
}

/** A region of memory to share. The descriptor stays the caller's. */
export interface SharedRegion extends RegionDescription {
  readonly fd: number;
}

/** A ring to start. Addresses are user addresses; descriptors stay the caller's. */
export interface ClientRing {
  readonly size: number;
  readonly descriptor: number;
  readonly driver: number;
  readonly device: number;
  /** Where to begin; default: a ring that was just made (0; packed: 0x80008000). */
  readonly base: number;
  /** Undefined: the back-end must poll. */
  readonly kick: number | undefined;
  /** Undefined: nobody wants to be called. */
  readonly call: number | undefined;
  readonly error?: number;
  /** Where the used ring's pages begin in the dirty log; undefined: not logged. */
  readonly log?: number;
}

export class VhostUserClient {
  /** What the back-end offers. */
  offeredFeatures = 0n;
  offeredProtocolFeatures = 0n;
  /** What was negotiated. */
  features = 0n;
  protocolFeatures = 0n;
  readonly #channel: ByteChannel;
  readonly #reader: MessageReader;
  readonly #patience: Patience;
  readonly #name: string;
  readonly #pump: (() => void) | undefined;
  readonly #onConfigChange: (() => void) | undefined;
  #backEndReader: MessageReader | undefined;
  #backEnd: ByteChannel | undefined;
  #gone = false;
  #closed = false;

  /** Over a channel, which is the client's from now on. */
  constructor(channel: ByteChannel, options: ClientOptions = {}) {
    this.#channel = channel;
    this.#reader = new MessageReader(channel, requestName);
    this.#name = options.name ?? 'the back-end';
    this.#patience = new Patience(this.#name, channel, options);
    this.#pump = options.pump;
    this.#onConfigChange = options.onConfigChange;
  }

  /** Connects to a back-end's socket. */
  static connect(path: string, options: ClientOptions = {}): VhostUserClient {
    return new VhostUserClient(new SocketChannel(connectUnix(path)), { name: path, ...options });
  }

  /** Descriptor that becomes readable when the back-end has gone, or -1. */
  get fd(): number {
    return this.#channel.fd;
  }

  /** Descriptor that becomes readable when the back-end asks for something, or -1. */
  get backEndFd(): number {
    return this.#backEnd?.fd ?? -1;
  }

  /**
   * Takes ownership, learns what the back-end offers, and chooses: of the features those of `wanted`
   * that are offered, of the protocol features all that are of use, or those of `protocol`.
   * Returns the features.
   */
  negotiate(wanted: bigint, protocol: bigint = USABLE_PROTOCOL_FEATURES): bigint {
    this.#tell({ request: vu.VHOST_USER_SET_OWNER });
    this.offeredFeatures = this.#askU64({ request: vu.VHOST_USER_GET_FEATURES });
    const extensions = bitMask(vu.VHOST_USER_F_PROTOCOL_FEATURES);
    if ((this.offeredFeatures & extensions) !== 0n) {
      this.offeredProtocolFeatures = this.#askU64({
        request: vu.VHOST_USER_GET_PROTOCOL_FEATURES,
      });
      const chosen = this.offeredProtocolFeatures & protocol;
      this.#tell({ request: vu.VHOST_USER_SET_PROTOCOL_FEATURES, value: chosen });
      this.protocolFeatures = chosen;
      if (this.has('BACKEND_REQ')) this.#openBackEnd();
    }
    this.setFeatures(this.offeredFeatures & (wanted | extensions));
    return this.features;
  }

  /** True if a protocol feature was negotiated. */
  has(name: (typeof vu.PROTOCOL_FEATURES)[number]): boolean {
    return hasBit(this.protocolFeatures, vu.PROTOCOL_FEATURES.indexOf(name));
  }

  get protocolFeatureNames(): string[] {
    return protocolFeatureNames(this.protocolFeatures);
  }

  setFeatures(features: bigint): void {
    this.#tell({ request: vu.VHOST_USER_SET_FEATURES, value: features });
    this.features = features;
  }

  /** Queues that the back-end can serve. */
  getQueueCount(): number {
    return Number(this.#askU64({ request: vu.VHOST_USER_GET_QUEUE_NUM }));
  }

  getMemorySlots(): number {
    return Number(this.#askU64({ request: vu.VHOST_USER_GET_MAX_MEM_SLOTS }));
  }

  /** Replaces all shared memory. */
  setMemoryTable(regions: readonly SharedRegion[]): void {
    const fds = regions.map((region) => region.fd);
    this.#tell({ request: vu.VHOST_USER_SET_MEM_TABLE, regions }, fds);
  }

  addRegion(region: SharedRegion): void {
    this.#tell({ request: vu.VHOST_USER_ADD_MEM_REG, region }, [region.fd]);
  }

  removeRegion(region: RegionDescription): void {
    this.#tell({ request: vu.VHOST_USER_REM_MEM_REG, region });
  }

  /** Sets a ring up; it runs from the kick descriptor on, once {@link enableRing} allows it. */
  startRing(index: number, ring: ClientRing): void {
    this.#tell({ request: vu.VHOST_USER_SET_VRING_NUM, index, num: ring.size });
    this.#tell({ request: vu.VHOST_USER_SET_VRING_BASE, index, num: ring.base });
    this.setRingAddress(index, ring);
    this.#tellFile(vu.VHOST_USER_SET_VRING_CALL, index, ring.call);
    if (ring.error !== undefined) this.#tellFile(vu.VHOST_USER_SET_VRING_ERR, index, ring.error);
    this.#tellFile(vu.VHOST_USER_SET_VRING_KICK, index, ring.kick);
  }

  setRingAddress(index: number, ring: Omit<ClientRing, 'kick' | 'call' | 'size' | 'base'>): void {
    const address: VringAddress = {
      index,
      flags: ring.log === undefined ? 0 : 1 << vu.VHOST_VRING_F_LOG,
      descriptor: ring.descriptor,
      used: ring.device,
      available: ring.driver,
      log: ring.log ?? 0,
    };
    this.#tell({ request: vu.VHOST_USER_SET_VRING_ADDR, ...address });
  }

  setRingCall(index: number, fd: number | undefined): void {
    this.#tellFile(vu.VHOST_USER_SET_VRING_CALL, index, fd);
  }

  enableRing(index: number, enabled: boolean): void {
    this.#tell({ request: vu.VHOST_USER_SET_VRING_ENABLE, index, num: enabled ? 1 : 0 });
  }

  /** Stops a ring. Returns the base from which it can go on. */
  stopRing(index: number): number {
    const message = { request: vu.VHOST_USER_GET_VRING_BASE, index, num: 0 } as const;
    return this.#ask(message, [], (reply) => {
      expectPayload(reply, vu.VRING_STATE_BYTES);
      return viewOf(reply).getUint32(4, true);
    });
  }

  getConfig(offset: number, length: number): Uint8Array {
    const contents = new Uint8Array(length);
    return this.#ask(
      { request: vu.VHOST_USER_GET_CONFIG, offset, flags: 0, contents },
      [],
      (reply) => {
        if (reply.size === 0) {
          throw protocolError(`${this.#name} refused GET_CONFIG of ${length} bytes at ${offset}`);
        }
        expectPayload(reply, vu.CONFIG_BYTES + length);
        return reply.payload.slice(vu.CONFIG_BYTES);
      },
    );
  }

  setConfig(offset: number, contents: Uint8Array, flags = vu.CONFIG_FLAG_WRITABLE): void {
    this.#tell({ request: vu.VHOST_USER_SET_CONFIG, offset, flags, contents });
  }

  getStatus(): number {
    return Number(this.#askU64({ request: vu.VHOST_USER_GET_STATUS }));
  }

  setStatus(status: number): void {
    this.#tell({ request: vu.VHOST_USER_SET_STATUS, value: BigInt(status) });
  }

  resetDevice(): void {
    this.#tell({ request: vu.VHOST_USER_RESET_DEVICE });
  }

  setMtu(mtu: number): void {
    this.#tell({ request: vu.VHOST_USER_NET_SET_MTU, value: BigInt(mtu) });
  }

  /** Asks for a broadcast in the name of a MAC address of 6 bytes. */
  sendRarp(mac: Uint8Array): void {
    const payload = new Uint8Array(vu.U64_BYTES);
    payload.set(mac.subarray(0, 6));
    const value = new DataView(payload.buffer).getBigUint64(0, true);
    this.#tell({ request: vu.VHOST_USER_SEND_RARP, value });
  }

  /** Shares the log of written pages. The descriptor stays the caller's. */
  setLog(fd: number, size: number, offset = 0): void {
    const message = { request: vu.VHOST_USER_SET_LOG_BASE, size, offset } as const;
    this.#ask(message, [fd], (reply) => this.#checkSuccess(message.request, reply));
  }

  /** Lets the back-end make an in-flight area. The descriptor is the caller's to close. */
  getInflight(queues: number, queueSize: number): InflightDescription & { readonly fd: number } {
    const wanted = { mmapSize: 0, mmapOffset: 0, queues, queueSize, padded: true };
    return this.#ask({ request: vu.VHOST_USER_GET_INFLIGHT_FD, ...wanted }, [], (reply) => {
      expectPayload(reply, vu.INFLIGHT_PADDED_BYTES);
      const view = viewOf(reply);
      return {
        ...wanted,
        mmapSize: Number(view.getBigUint64(0, true)),
        mmapOffset: Number(view.getBigUint64(8, true)),
        fd: reply.fds.take(),
      };
    });
  }

  setInflight(area: InflightDescription, fd: number): void {
    this.#tell({ request: vu.VHOST_USER_SET_INFLIGHT_FD, ...area }, [fd]);
  }

  /** Any message, as it is; returns the answer's payload if one is `wanted`. For tests and fuzzing. */
  exchange(
    request: number,
    payload: Uint8Array,
    options: {
      readonly flags?: number;
      readonly fds?: readonly number[];
      readonly wanted: boolean;
    },
  ): Uint8Array {
    this.#send(encodeMessage(request, options.flags ?? 0, payload), options.fds ?? []);
    if (!options.wanted) return EMPTY_PAYLOAD;
    const reply = this.#waitFor(request);
    reply.fds.close();
    return reply.payload.slice();
  }

  /** Bytes and descriptors as they are, waiting for nothing. For tests and fuzzing. */
  sendRaw(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#channel.send(bytes, fds);
  }

  /** The payload of the next message, whatever it answers. For tests and fuzzing. */
  receiveRaw(): Uint8Array | undefined {
    const message = this.#reader.read();
    if (message === 'gone' || message === undefined) return undefined;
    message.fds.close();
    return message.payload.slice();
  }

  /** Looks whether the back-end is still there, without waiting. */
  isAlive(): boolean {
    if (this.#gone || this.#closed) return false;
    this.#pump?.();
    const message = this.#reader.read();
    if (message === 'gone') this.#gone = true;
    else if (message !== undefined) {
      message.fds.close();
      throw protocolError(`${this.#name} sent ${requestName(message.request)} unasked`);
    }
    return !this.#gone;
  }

  /** Serves what the back-end asks for. Returns how many requests there were. */
  serveBackEnd(): number {
    const reader = this.#backEndReader;
    let served = 0;
    if (reader === undefined) return served;
    for (let m = reader.read(); m !== undefined; m = reader.read()) {
      if (m === 'gone') {
        this.#closeBackEnd();
        break;
      }
      m.fds.close();
      served++;
      const known = m.request === vu.VHOST_USER_BACKEND_CONFIG_CHANGE_MSG;
      if (known) this.#onConfigChange?.();
      if ((m.flags & vu.FLAG_NEED_REPLY) === 0) continue;
      const reply = encodeMessage(m.request, vu.FLAG_REPLY, encodeU64(known ? 0n : 1n));
      this.#backEnd?.send(reply, []);
    }
    return served;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#closeBackEnd();
    this.#reader.close();
    this.#channel.close();
  }

  #openBackEnd(): void {
    const [ours, theirs] = unixSocketPair();
    this.#backEnd = new SocketChannel(ours);
    this.#backEndReader = new MessageReader(this.#backEnd, backEndRequestName);
    try {
      this.#tell({ request: vu.VHOST_USER_SET_BACKEND_REQ_FD }, [theirs.fd]);
    } finally {
      theirs.close();
    }
  }

  #closeBackEnd(): void {
    this.#backEndReader?.close();
    this.#backEnd?.close();
    this.#backEnd = undefined;
    this.#backEndReader = undefined;
  }

  /** Sends a request that has no answer of its own, and waits for success where it can be told. */
  #tell(message: FrontEndMessage, fds: readonly number[] = []): void {
    const { request } = message;
    const acknowledged = this.has('REPLY_ACK');
    const flags = acknowledged ? vu.FLAG_NEED_REPLY : 0;
    this.#send(encodeMessage(request, flags, encodeRequest(message)), fds);
    if (!acknowledged) return;
    const reply = this.#waitFor(request);
    try {
      this.#checkSuccess(request, reply);
    } finally {
      reply.fds.close();
    }
  }

  #tellFile(
    request:
      | typeof vu.VHOST_USER_SET_VRING_KICK
      | typeof vu.VHOST_USER_SET_VRING_CALL
      | typeof vu.VHOST_USER_SET_VRING_ERR,
    index: number,
    fd: number | undefined,
  ): void {
    const hasFd = fd !== undefined;
    this.#tell({ request, index, hasFd }, hasFd ? [fd] : []);
  }

  #checkSuccess(request: number, reply: RawMessage): void {
    expectPayload(reply, vu.U64_BYTES);
    const result = viewOf(reply).getBigUint64(0, true);
    if (result !== 0n) {
      throw protocolError(`${this.#name} refused ${requestName(request)}, result ${result}`);
    }
  }

  #askU64(message: FrontEndMessage): bigint {
    return this.#ask(message, [], (reply) => {
      expectPayload(reply, vu.U64_BYTES);
      return viewOf(reply).getBigUint64(0, true);
    });
  }

  #ask<T>(message: FrontEndMessage, fds: readonly number[], read: (reply: RawMessage) => T): T {
    this.#send(encodeMessage(message.request, 0, encodeRequest(message)), fds);
    const reply = this.#waitFor(message.request);
    try {
      return read(reply);
    } finally {
      reply.fds.close();
    }
  }

  #send(bytes: Uint8Array, fds: readonly number[]): void {
    const deadline = this.#patience.deadline();
    let sent = 0;
    while (sent < bytes.length) {
      if (this.#gone || this.#closed) throw this.#patience.goneError();
      const count = this.#channel.send(bytes.subarray(sent), sent === 0 ? fds : []);
      if (count === -1) {
        this.#gone = true;
        throw this.#patience.goneError();
      }
      sent += count;
      if (count === 0) this.#patience.wait(deadline);
    }
  }

  #waitFor(request: number): RawMessage {
    const deadline = this.#patience.deadline();
    for (;;) {
      const message = this.#reader.read();
      if (message === 'gone') {
        this.#gone = true;
        throw this.#patience.goneError();
      }
      if (message === undefined) {
        this.#patience.wait(deadline);
        continue;
      }
      const expected = vu.FLAG_REPLY | vu.VERSION;
      if (message.request === request && message.flags === expected) return message;
      message.fds.close();
      throw protocolError(
        `${this.#name} answered ${requestName(request)} with ${requestName(message.request)}, flags ${message.flags}`,
      );
    }
  }
}

function viewOf(message: RawMessage): DataView {
  const { payload } = message;
  return new DataView(payload.buffer, payload.byteOffset, payload.length);
}

function expectPayload(reply: RawMessage, bytes: number): void {
  if (reply.size === bytes) return;
  throw protocolError(
    `${requestName(reply.request)}: ${reply.size} bytes of reply, expected ${bytes}`,
  );
}
