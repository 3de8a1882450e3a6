/**
 * The back-end of one connection: what each message of the front-end does.
 *
 * An error is answered where the front-end asked for an answer (REPLY_ACK); where it waits for
 * another kind of answer, or for none, the connection is closed: it would go on from a wrong
 * assumption. Malformed framing always ends the connection. No message harms another guest.
 *
 * Source: QEMU docs/interop/vhost-user.rst; message by message in docs/vhost-user.md.
 */
import { GiB, hasBit } from '../../base/bits.ts';
import { describeError, SluiceError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { VirtioDevice } from '../../device/virtio-device.ts';
import { DirtyLog } from '../../memory/dirty-log.ts';
import {
  type GuestMemory,
  MAX_MEMORY_SLOTS,
  type RegionDescription,
} from '../../memory/guest-memory.ts';
import { closeFd, identify } from '../../os/fd.ts';
import { UnixConnection } from '../../os/unix-socket.ts';
import * as vu from '../../spec/vhost-user.ts';
import { VIRTIO_F_RING_PACKED } from '../../spec/virtio.ts';
import { type ByteChannel, SocketChannel } from '../channel.ts';
import { FdBag } from '../fd-bag.ts';
import { MessageWriter } from '../message-writer.ts';
import { protocolError } from '../protocol-error.ts';
import {
  decodeRequest,
  EMPTY_PAYLOAD,
  encodeConfig,
  encodeInflight,
  encodeMessage,
  encodeState,
  encodeU64,
  type FrontEndMessage,
  type InflightDescription,
  requestName,
} from './codec.ts';
import { MessageReader, type RawMessage } from './framing.ts';
import { InflightArea } from './inflight.ts';
import {
  type OfferOptions,
  offeredFeatures,
  offeredProtocolFeatures,
  protocolFeatureNames,
} from './offer.ts';
import { RingSet, type RingSetOptions } from './ring-set.ts';
import { ringsStoppedBy } from './stops.ts';
import type { RingDescription } from './vring.ts';

/** Messages that one look at the socket handles at most: a flood must not hold the lane up. */
const MESSAGES_PER_TURN = 16;

/** Device status bits (VIRTIO 1.3 §2.1). */
const STATUS_FEATURES_OK = 8;
const STATUS_NEEDS_RESET = 64;

/** Smallest and largest MTU of the device (VIRTIO 1.3 §5.1.4.1). */
const MIN_MTU = 68;
const MAX_MTU = 65535;

/** The largest dirty log: enough for 128 TiB of guest addresses. */
const MAX_LOG_BYTES = 4 * GiB;

export interface SessionOptions extends OfferOptions, RingSetOptions {
  /** A message that waited can go on: call {@link VhostUserSession.readable}. */
  readonly onReady?: () => void;
}

/** What `sluice show` tells of a connection. */
export interface SessionDescription {
  readonly features: bigint;
  readonly protocolFeatures: readonly string[];
  readonly memory: readonly RegionDescription[];
  readonly rings: readonly RingDescription[];
  readonly logging: boolean;
  readonly messages: number;
}

/** Requests that are answered with a payload of their own, so that an error cannot be. */
const OWN_REPLY: ReadonlySet<number> = new Set([
  vu.VHOST_USER_GET_FEATURES,
  vu.VHOST_USER_GET_PROTOCOL_FEATURES,
  vu.VHOST_USER_GET_VRING_BASE,
  vu.VHOST_USER_GET_QUEUE_NUM,
  vu.VHOST_USER_CREATE_CRYPTO_SESSION,
  vu.VHOST_USER_POSTCOPY_ADVISE,
  vu.VHOST_USER_GET_INFLIGHT_FD,
  vu.VHOST_USER_GET_MAX_MEM_SLOTS,
  vu.VHOST_USER_GET_STATUS,
  vu.VHOST_USER_GET_SHARED_OBJECT,
]);

/** Requests whose answer is always a u64 that tells of success. */
const ALWAYS_ACKNOWLEDGED: ReadonlySet<number> = new Set([
  vu.VHOST_USER_SET_LOG_BASE,
  vu.VHOST_USER_IOTLB_MSG,
  vu.VHOST_USER_POSTCOPY_END,
  vu.VHOST_USER_SET_DEVICE_STATE_FD,
  vu.VHOST_USER_CHECK_DEVICE_STATE,
]);

interface Reply {
  readonly payload: Uint8Array;
  readonly fds?: FdBag;
}

export class VhostUserSession {
  readonly #channel: ByteChannel;
  readonly #device: VirtioDevice;
  readonly #log: Logger;
  readonly #reader: MessageReader;
  readonly #writer: MessageWriter;
  readonly #rings: RingSet;
  readonly #offered: bigint;
  readonly #offeredProtocol: bigint;
  readonly #options: SessionOptions;
  #protocolFeatures = 0n;
  #status = 0;
  /** A message that waits until what it stops has drained. */
  #waiting: RawMessage | undefined;
  #onClosed: (() => void) | undefined;
  #backEnd: MessageWriter | undefined;
  #backEndChannel: ByteChannel | undefined;
  #warnedOfSeals = false;
  #messages = 0;
  #closed = false;

  constructor(channel: ByteChannel, options: SessionOptions) {
    const { device } = options;
    this.#channel = channel;
    this.#options = options;
    this.#device = device;
    this.#log = options.log;
    this.#reader = new MessageReader(channel, requestName);
    this.#writer = new MessageWriter(channel);
    this.#rings = new RingSet(options);
    this.#offered = offeredFeatures(device, options);
    this.#offeredProtocol = offeredProtocolFeatures(device, options);
    device.onConfigChange = () => this.#sendConfigChange();
    device.onBroken = (reason) => this.#onBroken(reason);
    if (device.hold !== undefined) device.onDrained = () => this.#onDrained();
  }

  /** A message waits until requests in flight are done: nothing more is read. */
  get waiting(): boolean {
    return this.#waiting !== undefined;
  }

  /** Replies wait for the front-end to read: {@link flush} goes on with them. */
  get blocked(): boolean {
    return this.#writer.blocked;
  }

  /** Handles messages that have come. False: the connection is over, and is to be closed. */
  readable(): boolean {
    try {
      for (let i = 0; i < MESSAGES_PER_TURN; i++) {
        const message = this.#waiting ?? this.#reader.read();
        if (message === undefined) return true;
        if (message === 'gone' || !this.#handle(message)) return false;
        if (this.#waiting !== undefined) return true;
      }
      return true;
    } catch (error) {
      this.#log.warn(`closing the connection: ${describeError(error)}`);
      return false;
    }
  }

  /** Goes on with replies that were not taken. False: the connection is over. */
  flush(): boolean {
    try {
      return this.#writer.flush();
    } catch (error) {
      this.#log.warn(`closing the connection: ${describeError(error)}`);
      return false;
    }
  }

  /**
   * Closes the channel and all descriptors. Rings are stopped and memory is given back when nothing is
   * in flight any more: `onClosed` is called then, which may be at once.
   */
  close(onClosed: () => void = () => undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClosed = onClosed;
    this.#device.onConfigChange = undefined;
    this.#device.onBroken = undefined;
    this.#waiting?.fds.close();
    this.#waiting = undefined;
    this.#rings.disconnect();
    this.#closeBackEnd();
    this.#reader.close();
    this.#writer.close();
    this.#channel.close();
    this.#finishClosing();
  }

  #finishClosing(): void {
    const onClosed = this.#onClosed;
    if (onClosed === undefined || !this.#rings.hold(undefined)) return;
    this.#onClosed = undefined;
    if (this.#device.hold !== undefined) this.#device.onDrained = undefined;
    this.#rings.close();
    onClosed();
  }

  /** In the midst of the device's turn: rings are stopped when it is over. */
  #onDrained(): void {
    this.#options.loop.setTimer(0, () => {
      if (this.#closed) this.#finishClosing();
      else if (this.#waiting !== undefined) this.#options.onReady?.();
    });
  }

  describe(): SessionDescription {
    return {
      features: this.#rings.features,
      protocolFeatures: protocolFeatureNames(this.#protocolFeatures),
      memory: this.#rings.memory.regions,
      rings: this.#rings.describe(),
      logging: this.#rings.memory.logging,
      messages: this.#messages,
    };
  }

  /** Returns false if the connection must be closed. */
  #handle(raw: RawMessage): boolean {
    if (raw !== this.#waiting) this.#messages++;
    this.#waiting = undefined;
    const { request } = raw;
    let reply: Reply | undefined;
    let failure: unknown;
    try {
      if ((raw.flags & vu.FLAG_REPLY) !== 0) {
        throw protocolError(`${requestName(request)}: the reply flag in a request`);
      }
      const message = decodeRequest(request, raw.payload, raw.fds.count);
      const stopped = ringsStoppedBy(message, this.#rings);
      if (stopped !== undefined && !this.#rings.hold(stopped === 'all' ? undefined : stopped)) {
        this.#waiting = raw;
        return true;
      }
      try {
        reply = this.#dispatch(message, raw.fds);
      } finally {
        if (stopped !== undefined) this.#rings.release();
      }
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      failure = error;
    } finally {
      if (this.#waiting === undefined) raw.fds.close();
    }
    if (failure !== undefined) return this.#answerFailure(raw, failure);
    if (reply !== undefined) return this.#send(request, reply.payload, reply.fds);
    const acknowledged = (raw.flags & vu.FLAG_NEED_REPLY) !== 0 || this.#isAcknowledged(request);
    return acknowledged ? this.#send(request, encodeU64(0n)) : true;
  }

  #answerFailure(raw: RawMessage, failure: unknown): boolean {
    const { request } = raw;
    const name = requestName(request);
    const message = describeError(failure);
    this.#log.warn(message.startsWith(name) ? message : `${name}: ${message}`);
    // "zero length of payload to indicate an error"
    if (request === vu.VHOST_USER_GET_CONFIG) return this.#send(request, EMPTY_PAYLOAD);
    const asked = (raw.flags & vu.FLAG_NEED_REPLY) !== 0 && !OWN_REPLY.has(request);
    if (asked || this.#isAcknowledged(request)) return this.#send(request, encodeU64(1n));
    this.#log.warn(`closing the connection: ${name} failed and its sender waits for no answer`);
    return false;
  }

  #isAcknowledged(request: number): boolean {
    if (request === vu.VHOST_USER_SET_LOG_BASE) {
      return hasBit(this.#protocolFeatures, vu.VHOST_USER_PROTOCOL_F_LOG_SHMFD);
    }
    return ALWAYS_ACKNOWLEDGED.has(request);
  }

  #send(request: number, payload: Uint8Array, fds?: FdBag): boolean {
    return this.#writer.send(encodeMessage(request, vu.FLAG_REPLY, payload), fds);
  }

  #dispatch(message: FrontEndMessage, fds: FdBag): Reply | undefined {
    switch (message.request) {
      case vu.VHOST_USER_GET_FEATURES:
        return u64Reply(this.#offered);
      case vu.VHOST_USER_SET_FEATURES:
        return this.#setFeatures(message.value);
      case vu.VHOST_USER_GET_PROTOCOL_FEATURES:
        return u64Reply(this.#offeredProtocol);
      case vu.VHOST_USER_SET_PROTOCOL_FEATURES:
        return this.#setProtocolFeatures(message.value);
      case vu.VHOST_USER_SET_OWNER:
      case vu.VHOST_USER_RESET_OWNER: // "recommended that back-ends […] ignore this message"
        return undefined;
      case vu.VHOST_USER_SET_MEM_TABLE:
        return this.#setMemoryTable(message.regions, fds);
      case vu.VHOST_USER_GET_MAX_MEM_SLOTS:
        this.#require(vu.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS, message.request);
        return u64Reply(BigInt(MAX_MEMORY_SLOTS));
      case vu.VHOST_USER_ADD_MEM_REG:
        this.#require(vu.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS, message.request);
        return this.#addRegion(message.region, fds.peek(0));
      case vu.VHOST_USER_REM_MEM_REG:
        this.#require(vu.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS, message.request);
        return this.#removeRegion(message.region);
      case vu.VHOST_USER_SET_LOG_BASE:
        this.#require(vu.VHOST_USER_PROTOCOL_F_LOG_SHMFD, message.request);
        return this.#setLogBase(message.size, message.offset, fds.peek(0));
      case vu.VHOST_USER_SET_LOG_FD:
        // It "may be used to inform the front-end"; front-ends read the log when they want to.
        return undefined;
      case vu.VHOST_USER_SET_VRING_NUM:
        this.#rings.setNum(message.index, message.num);
        return undefined;
      case vu.VHOST_USER_SET_VRING_ADDR:
        this.#rings.setAddress(message);
        return undefined;
      case vu.VHOST_USER_SET_VRING_BASE:
        this.#rings.setBase(message.index, message.num);
        return undefined;
      case vu.VHOST_USER_GET_VRING_BASE:
        return { payload: encodeState(message.index, this.#rings.stop(message.index)) };
      case vu.VHOST_USER_SET_VRING_KICK:
        this.#rings.setKick(message.index, fds);
        return undefined;
      case vu.VHOST_USER_SET_VRING_CALL:
        this.#rings.setCall(message.index, fds);
        return undefined;
      case vu.VHOST_USER_SET_VRING_ERR:
        this.#rings.setError(message.index, fds);
        return undefined;
      case vu.VHOST_USER_SET_VRING_ENABLE:
        this.#rings.setEnabled(message.index, message.num);
        return undefined;
      case vu.VHOST_USER_GET_QUEUE_NUM:
        // QEMU and DPDK compare this with queue pairs, Linux with queues: the larger suits all.
        return u64Reply(BigInt(this.#device.maxQueues));
      case vu.VHOST_USER_SEND_RARP:
        this.#require(vu.VHOST_USER_PROTOCOL_F_RARP, message.request);
        // "The first 6 bytes of the payload contain the mac address".
        this.#device.announce?.(encodeU64(message.value).subarray(0, 6));
        return undefined;
      case vu.VHOST_USER_NET_SET_MTU:
        this.#require(vu.VHOST_USER_PROTOCOL_F_MTU, message.request);
        return this.#setMtu(message.value);
      case vu.VHOST_USER_SET_BACKEND_REQ_FD:
        this.#require(vu.VHOST_USER_PROTOCOL_F_BACKEND_REQ, message.request);
        return this.#setBackEndFd(fds);
      case vu.VHOST_USER_GET_CONFIG:
        this.#require(vu.VHOST_USER_PROTOCOL_F_CONFIG, message.request);
        return this.#getConfig(message.offset, message.flags, message.contents.length);
      case vu.VHOST_USER_SET_CONFIG:
        this.#require(vu.VHOST_USER_PROTOCOL_F_CONFIG, message.request);
        return this.#setConfig(message.offset, message.flags, message.contents);
      case vu.VHOST_USER_GET_INFLIGHT_FD:
        this.#require(vu.VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD, message.request);
        return this.#getInflight(message);
      case vu.VHOST_USER_SET_INFLIGHT_FD:
        this.#require(vu.VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD, message.request);
        return this.#setInflight(message, fds.peek(0));
      case vu.VHOST_USER_RESET_DEVICE:
        this.#require(vu.VHOST_USER_PROTOCOL_F_RESET_DEVICE, message.request);
        return this.#resetDevice();
      case vu.VHOST_USER_SET_STATUS:
        this.#require(vu.VHOST_USER_PROTOCOL_F_STATUS, message.request);
        return this.#setStatus(message.value);
      case vu.VHOST_USER_GET_STATUS:
        this.#require(vu.VHOST_USER_PROTOCOL_F_STATUS, message.request);
        return this.#getStatus();
    }
  }

  // Negotiation

  /** @throws SluiceError `protocol` if a protocol feature was not negotiated. */
  #require(bit: number, request: number): void {
    if (hasBit(this.#protocolFeatures, bit)) return;
    throw protocolError(
      `${requestName(request)} without the protocol feature ${vu.PROTOCOL_FEATURES[bit]}`,
    );
  }

  #setFeatures(features: bigint): undefined {
    const unknown = features & ~this.#offered;
    if (unknown !== 0n) {
      throw protocolError(`feature bits 0x${unknown.toString(16)} were not offered`);
    }
    this.#rings.setFeatures(features);
    return undefined;
  }

  #setProtocolFeatures(features: bigint): undefined {
    const unknown = features & ~this.#offeredProtocol;
    if (unknown !== 0n) {
      const names = protocolFeatureNames(unknown).join(', ');
      throw protocolError(`protocol features ${names} were not offered`);
    }
    this.#protocolFeatures = features;
    return undefined;
  }

  #setMtu(value: bigint): undefined {
    if (value < BigInt(MIN_MTU) || value > BigInt(MAX_MTU)) {
      throw protocolError(`an MTU of ${value} bytes, allowed are ${MIN_MTU} to ${MAX_MTU}`);
    }
    this.#device.setMtu?.(Number(value));
    return undefined;
  }

  #setStatus(value: bigint): undefined {
    if (value > 0xffn) throw protocolError(`a device status of 0x${value.toString(16)}`);
    if (value === 0n) return this.#resetDevice();
    // §2.1.2: FEATURES_OK stays unset until there are features that will do.
    const refused = this.#rings.featuresAreSet ? 0 : STATUS_FEATURES_OK;
    this.#status = Number(value) & ~refused & ~STATUS_NEEDS_RESET;
    return undefined;
  }

  #getStatus(): Reply {
    const broken = this.#rings.broken === undefined ? 0 : STATUS_NEEDS_RESET;
    return u64Reply(BigInt(this.#status | broken));
  }

  #resetDevice(): undefined {
    this.#status = 0;
    this.#rings.reset();
    return undefined;
  }

  // Memory

  #setMemoryTable(regions: readonly RegionDescription[], fds: FdBag): undefined {
    this.#rings.changeMemory((memory) => {
      memory.clear();
      for (const [index, region] of regions.entries()) this.#map(memory, region, fds.peek(index));
    });
    return undefined;
  }

  #addRegion(region: RegionDescription, fd: number): undefined {
    this.#rings.addMemory((memory) => this.#map(memory, region, fd));
    return undefined;
  }

  #removeRegion({ guestAddress, userAddress, size }: RegionDescription): undefined {
    this.#rings.changeMemory((memory) => memory.remove(guestAddress, userAddress, size));
    return undefined;
  }

  #map(memory: GuestMemory, region: RegionDescription, fd: number): void {
    const { sealed } = memory.add(region, fd);
    if (sealed || this.#warnedOfSeals) return;
    this.#warnedOfSeals = true;
    this.#log.warn('the guest memory can be shrunk by its owner, which would end this process', {
      guestAddress: region.guestAddress,
      size: region.size,
    });
  }

  #setLogBase(size: number, offset: number, fd: number): undefined {
    const file = identify(fd);
    if (size === 0 || offset + size > file.size) {
      throw protocolError(
        `a log of ${size} bytes at offset ${offset} of a file of ${file.size} bytes`,
      );
    }
    if (size > MAX_LOG_BYTES) {
      throw protocolError(`a log of ${size} bytes, at most ${MAX_LOG_BYTES} are taken`);
    }
    this.#rings.memory.checkSeals('a dirty log', fd);
    this.#rings.setDirtyLog(DirtyLog.map(fd, size, offset));
    return undefined;
  }

  #onBroken(reason: Error): void {
    if (this.#rings.broken !== undefined) return;
    this.#rings.markBroken(reason);
    this.#log.error(`the guest broke the device: ${describeError(reason)}`);
    this.#sendConfigChange();
  }

  // Configuration space and the back-end's channel

  #getConfig(offset: number, flags: number, length: number): Reply {
    const contents = new Uint8Array(vu.MAX_CONFIG_BYTES);
    // What lies behind the device's fields reads as zero.
    contents.set(this.#device.readConfig().subarray(0, contents.length));
    return { payload: encodeConfig(offset, flags, contents.subarray(offset, offset + length)) };
  }

  #setConfig(offset: number, flags: number, contents: Uint8Array): undefined {
    if (flags !== vu.CONFIG_FLAG_WRITABLE && flags !== vu.CONFIG_FLAG_LIVE_MIGRATION) {
      throw protocolError(`configuration flags 0x${flags.toString(16)}`);
    }
    this.#device.writeConfig(offset, contents);
    return undefined;
  }

  #setBackEndFd(fds: FdBag): undefined {
    this.#closeBackEnd();
    this.#backEndChannel = new SocketChannel(new UnixConnection(fds.take()));
    this.#backEnd = new MessageWriter(this.#backEndChannel);
    return undefined;
  }

  #closeBackEnd(): void {
    this.#backEnd?.close();
    this.#backEndChannel?.close();
    this.#backEnd = undefined;
    this.#backEndChannel = undefined;
  }

  #sendConfigChange(): void {
    const wanted = hasBit(this.#protocolFeatures, vu.VHOST_USER_PROTOCOL_F_CONFIG);
    if (!wanted || this.#backEnd === undefined) return;
    const message = encodeMessage(vu.VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, 0, EMPTY_PAYLOAD);
    try {
      if (this.#backEnd.send(message)) return;
      this.#log.warn('the front-end has closed its channel for our requests');
    } catch (error) {
      this.#log.warn(`telling of a change of configuration: ${describeError(error)}`);
    }
    this.#closeBackEnd();
  }

  // In-flight area

  #getInflight(wanted: InflightDescription): Reply {
    const packed = this.#usesPackedRings();
    const { queues, queueSize, padded } = wanted;
    this.#checkQueues(queues);
    const { area, fd } = InflightArea.create({ queues, queueSize, packed });
    try {
      this.#rings.setInflight(area);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    const description = { mmapSize: area.bytes, mmapOffset: 0, queues, queueSize, padded };
    return { payload: encodeInflight(description), fds: new FdBag([fd]) };
  }

  #setInflight(description: InflightDescription, fd: number): undefined {
    this.#checkQueues(description.queues);
    this.#rings.memory.checkSeals('an in-flight area', fd);
    const area = InflightArea.map(description, this.#usesPackedRings(), fd);
    this.#rings.setInflight(area);
    return undefined;
  }

  #checkQueues(queues: number): void {
    const limit = this.#device.maxQueues;
    if (queues > limit) throw protocolError(`an in-flight area for ${queues} of ${limit} queues`);
  }

  #usesPackedRings(): boolean {
    return hasBit(this.#rings.features, VIRTIO_F_RING_PACKED);
  }
}

function u64Reply(value: bigint): Reply {
  return { payload: encodeU64(value) };
}
