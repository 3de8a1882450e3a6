/**
 * The server's side of one connection: what each command of the client does.
 *
 * What a command gets wrong is answered with an errno, and nothing else happens; a stream that cannot be
 * understood any more ends the connection. DMA_UNMAP and DEVICE_RESET are done and answered when no DMA
 * is in flight to what they take away: commands behind them wait, replies to our own requests do not.
 *
 * Source: the vfio-user specification; command by command in docs/vfio-user.md.
 */
import { describeError, SluiceError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { DmaDomain } from '../../memory/dma-domain.ts';
import type { DmaFaultLog } from '../../memory/dma-faults.ts';
import type { DmaFiles } from '../../memory/dma-files.ts';
import { EINVAL, EOPNOTSUPP } from '../../os/libc.ts';
import type { EagerSocket, PollLoop } from '../../os/poll-loop.ts';
import type { PciFunction } from '../../pci/function.ts';
import * as vfu from '../../spec/vfio-user.ts';
import type { ByteChannel } from '../channel.ts';
import { FdBag } from '../fd-bag.ts';
import { MessageWriter } from '../message-writer.ts';
import * as answers from './answers.ts';
import {
  type Capabilities,
  commandName,
  decodeVersion,
  EMPTY_PAYLOAD,
  encodeMessage,
  encodeVersion,
  errnoOf,
  expectAtLeast,
  expectBytes,
  MAX_DATA_BYTES,
  type Message,
  putHeader,
  putU64,
  Refusal,
  u32At,
  u64At,
} from './codec.ts';
import { MessageReader } from './framing.ts';
import { IrqSet } from './irqs.ts';
import { Regions } from './regions.ts';
import { MessageMemory } from './remote-memory.ts';

/** Messages that one look at the socket handles, beside those that came along with the last. */
const MESSAGES_PER_TURN = 64;
/** Bytes of registers that one look accesses, but for the last message's: others wait meanwhile. */
const ACCESSES_PER_TURN = 32 * 1024;
/** Bytes of commands that wait behind another: no more is read then. */
const MAX_HELD_BYTES = 1024 * 1024;
/** Commands among them that were done and are kept: to take each out by itself would move all the others. */
const DONE_KEPT = 1024;
/** What a descriptor among them counts for: a process has fewer of them than of bytes. */
const HELD_FD_BYTES = 16 * 1024;
/** What a client may leave unread: some answers of the largest size. */
const MAX_UNSENT = 8 * MAX_DATA_BYTES;
/** Replies up to this size are made in memory that is there. */
const REPLY_BYTES = 4096;

/** The longest reply to a trap: a read of 8 bytes. */
const TRAP_REPLY_BYTES = vfu.HEADER_BYTES + vfu.REGION_ACCESS_BYTES + 8;

/** For messages without descriptors: never anything in it. */
const NO_FDS = new FdBag();

export interface SessionOptions {
  readonly loop: PollLoop;
  readonly log: Logger;
  readonly function: PciFunction;
  /** Memory files of the lane's guests. */
  readonly files: DmaFiles;
  /** Where refused DMA is recorded; default: in a log of the connection's own. */
  readonly faults?: DmaFaultLog;
  /** A command that waited can go on: call {@link VfioUserSession.readable}. */
  readonly onReady?: () => void;
}

/** What `sluice show` tells of a connection. */
export interface SessionDescription {
  readonly capabilities: Capabilities | undefined;
  readonly maps: number;
  readonly busMaster: boolean;
  /** Vectors that the client has set up. */
  readonly vectors: { readonly intx: number; readonly msi: number; readonly msix: number };
  readonly messages: number;
  /** Accesses to registers, each a trap: reads, writes. */
  readonly reads: number;
  readonly writes: number;
  readonly interrupts: number;
}

/** A command that waits, with its own copy of the payload. */
interface Held {
  readonly message: Message;
  readonly fds: FdBag;
}

export class VfioUserSession implements EagerSocket {
  readonly #channel: ByteChannel;
  readonly #options: SessionOptions;
  readonly #function: PciFunction;
  readonly #log: Logger;
  readonly #reader: MessageReader;
  readonly #writer: MessageWriter;
  readonly #domain: DmaDomain;
  readonly #remote: MessageMemory;
  readonly #irqs: IrqSet;
  readonly #regions: Regions;
  readonly #reply = new Uint8Array(REPLY_BYTES);
  readonly #replyView = new DataView(this.#reply.buffer);
  readonly #traps = Array.from({ length: TRAP_REPLY_BYTES + 1 }, (_, size) =>
    this.#reply.subarray(0, size),
  );
  /** What the client can do; undefined before VERSION. */
  #client: Capabilities | undefined;
  /** A command that waits until DMA has drained, and those behind it. */
  #waiting: Held | undefined;
  #behind: Held[] = [];
  /** The first of them that was not done yet. */
  #next = 0;
  #heldBytes = 0;
  #onClosed: (() => void) | undefined;
  #closed = false;
  #messages = 0;
  #reads = 0;
  #writes = 0;
  /** Bytes of registers that the present look has accessed. */
  #accessed = 0;
  #continuing = false;

  constructor(channel: ByteChannel, options: SessionOptions) {
    const { function: pciFunction, files, faults } = options;
    this.#channel = channel;
    this.#options = options;
    this.#function = pciFunction;
    this.#log = options.log;
    this.#reader = new MessageReader(channel);
    this.#writer = new MessageWriter(channel, MAX_UNSENT);
    this.#remote = new MessageMemory({
      arena: files.arena,
      send: (bytes) => this.#writer.send(bytes),
      complete: (operation, ok) => this.#domain.complete(operation, ok),
    });
    this.#domain = new DmaDomain({
      name: pciFunction.name,
      files,
      remote: this.#remote,
      ...(faults === undefined ? {} : { faults }),
    });
    this.#irqs = new IrqSet(pciFunction.irqs);
    this.#regions = new Regions(pciFunction);
    if (pciFunction.hold !== undefined) pciFunction.onDrained = () => this.#onDrained();
  }

  /** So much waits that nothing more is read. */
  get waiting(): boolean {
    return this.#heldBytes > MAX_HELD_BYTES;
  }

  get blocked(): boolean {
    return this.#writer.blocked;
  }

  get domain(): DmaDomain {
    return this.#domain;
  }

  /** Handles messages that have come. False: the connection is over, and is to be closed. */
  readable(): boolean {
    try {
      this.#accessed = 0;
      if (!this.#goOn()) return false;
      for (let n = 0; n < MESSAGES_PER_TURN || this.#reader.ready; n++) {
        if (this.#accessed > ACCESSES_PER_TURN) {
          this.#continue();
          return true;
        }
        if (this.waiting) return true;
        const message = this.#reader.read(n === 0);
        if (message === undefined) return true;
        if (message === 'gone') return false;
        this.#options.loop.hasten(this);
        const fds = this.#reader.hasFds ? this.#reader.takeFds() : NO_FDS;
        if (!this.#receive(message, fds)) return false;
      }
      return true;
    } catch (error) {
      return this.#giveUp(error);
    }
  }

  /** What has been received already nothing else would wake the loop for. */
  #continue(): void {
    if (this.#continuing) return;
    this.#continuing = true;
    this.#options.loop.setTimer(0, () => {
      this.#continuing = false;
      if (!this.#closed) this.#options.onReady?.();
    });
  }

  /** Between turns of the loop: a guest waits for each answer. */
  look(): boolean {
    const before = this.#messages;
    this.#options.onReady?.();
    return this.#messages !== before;
  }

  /** Goes on with messages that were not taken. False: the connection is over. */
  flush(): boolean {
    try {
      return this.#writer.flush();
    } catch (error) {
      return this.#giveUp(error);
    }
  }

  /**
   * Closes the channel and all descriptors. The function is detached and memory given back when no DMA
   * is in flight any more: `onClosed` is called then, which may be at once.
   */
  close(onClosed: () => void = () => undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.loop.rest(this);
    this.#onClosed = onClosed;
    this.#waiting?.fds.close();
    for (const held of this.#behind.slice(this.#next)) held.fds.close();
    this.#waiting = undefined;
    this.#behind = [];
    this.#next = 0;
    this.#reader.close();
    this.#writer.close();
    this.#channel.close();
    this.#irqs.close();
    this.#domain.busMaster = false;
    this.#remote.close();
    this.#finishClosing();
  }

  describe(): SessionDescription {
    return {
      capabilities: this.#client,
      maps: this.#domain.count,
      busMaster: this.#domain.busMaster,
      vectors: {
        intx: this.#irqs.attached(vfu.IRQ_INTX),
        msi: this.#irqs.attached(vfu.IRQ_MSI),
        msix: this.#irqs.attached(vfu.IRQ_MSIX),
      },
      messages: this.#messages,
      reads: this.#reads,
      writes: this.#writes,
      interrupts: this.#irqs.signalled,
    };
  }

  #giveUp(error: unknown): false {
    if (!(error instanceof SluiceError)) throw error;
    this.#log.warn(`closing the connection: ${describeError(error)}`);
    return false;
  }

  #finishClosing(): void {
    const onClosed = this.#onClosed;
    if (onClosed === undefined) return;
    if (this.#client !== undefined && !this.#isDrained()) return;
    this.#onClosed = undefined;
    if (this.#function.hold !== undefined) this.#function.onDrained = undefined;
    if (this.#client !== undefined) this.#function.detach();
    this.#domain.onDone = undefined;
    this.#domain.clear();
    onClosed();
  }

  /** In the midst of the function's turn: what waits is done when it is over. */
  #onDrained(): void {
    this.#options.loop.setTimer(0, () => {
      if (this.#closed) this.#finishClosing();
      else if (this.#waiting !== undefined) this.#options.onReady?.();
    });
  }

  /**
   * Holds the function: true if no DMA of its is in flight. What is under way by message is given up:
   * its answer may wait behind the very command that we are to answer.
   */
  #isDrained(): boolean {
    const pciFunction = this.#function;
    if (pciFunction.hold === undefined || pciFunction.hold()) return true;
    if (this.#remote.pending === 0) return false;
    this.#remote.abandon();
    return pciFunction.hold();
  }

  // Messages

  /** Goes on with what waited. */
  #goOn(): boolean {
    const first = this.#waiting;
    if (first !== undefined) {
      this.#waiting = undefined;
      if (!this.#handle(first.message, first.fds)) return false;
    }
    while (this.#waiting === undefined && this.#behind.length > 0) {
      if (this.#accessed > ACCESSES_PER_TURN) return true;
      const next = this.#behind[this.#next++] as Held;
      if (this.#next === this.#behind.length || this.#next === DONE_KEPT) {
        this.#behind.splice(0, this.#next);
        this.#next = 0;
      }
      this.#heldBytes -= weightOf(next);
      if (!this.#handle(next.message, next.fds)) return false;
    }
    return true;
  }

  #receive(message: Message, fds: FdBag): boolean {
    this.#messages++;
    if ((message.flags & vfu.FLAG_TYPE_MASK) === vfu.FLAG_TYPE_REPLY) {
      fds.close();
      this.#remote.reply(message);
      return true;
    }
    if (this.#waiting === undefined && this.#behind.length === 0) return this.#handle(message, fds);
    const held = { message: copyOf(message), fds };
    this.#heldBytes += weightOf(held);
    this.#behind.push(held);
    return true;
  }

  /** Returns false if the connection must be closed. */
  #handle(message: Message, fds: FdBag): boolean {
    let failure: SluiceError;
    try {
      if (this.#dispatch(message, fds)) return true;
      // It waits, and keeps its descriptors.
      this.#waiting = { message: copyOf(message), fds };
      return true;
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      failure = error;
    } finally {
      if (this.#waiting === undefined && fds !== NO_FDS) fds.close();
    }
    const { id, command, flags } = message;
    this.#log.warn(`${commandName(command)}: ${describeError(failure)}`);
    const isAlive = this.#answer(id, command, flags, EMPTY_PAYLOAD, errnoOf(failure));
    // Without an agreed version nothing more can come of it.
    return isAlive && this.#client !== undefined;
  }

  /**
   * Does a command and answers it. False: it must wait, and was not begun. A client that has gone is
   * noticed by the next read.
   */
  #dispatch(message: Message, fds: FdBag): boolean {
    const { command } = message;
    if (this.#client === undefined) {
      if (command !== vfu.VFIO_USER_VERSION) throw new Refusal(EINVAL, 'sent before VERSION');
      this.#setVersion(message, fds);
      return true;
    }
    switch (command) {
      case vfu.VFIO_USER_REGION_READ:
        expectNoFds(fds);
        this.#readRegion(message);
        return true;
      case vfu.VFIO_USER_REGION_WRITE:
        expectNoFds(fds);
        this.#writeRegion(message);
        return true;
      case vfu.VFIO_USER_REGION_WRITE_MULTI:
        expectNoFds(fds);
        this.#writeMany(message);
        return true;
      case vfu.VFIO_USER_DMA_MAP:
        answers.mapDma(this.#domain, message, fds);
        return this.#succeed(message);
      case vfu.VFIO_USER_DMA_UNMAP:
        expectNoFds(fds);
        return this.#unmap(message);
      case vfu.VFIO_USER_DIRTY_PAGES:
        expectNoFds(fds);
        return this.#succeed(message, answers.dirtyPages(this.#domain, message));
      case vfu.VFIO_USER_DEVICE_GET_INFO:
        expectNoFds(fds);
        return this.#succeed(message, answers.deviceInfo(message));
      case vfu.VFIO_USER_DEVICE_GET_REGION_INFO: {
        expectNoFds(fds);
        expectAtLeast(message, vfu.REGION_INFO_BYTES);
        const argsz = answers.argszOf(message, vfu.REGION_INFO_BYTES);
        const info = this.#regions.info(u32At(message, 8), argsz);
        return this.#succeed(message, info.payload, info.fds);
      }
      case vfu.VFIO_USER_DEVICE_GET_IRQ_INFO:
        expectNoFds(fds);
        return this.#succeed(message, answers.irqInfo(this.#irqs, message));
      case vfu.VFIO_USER_DEVICE_SET_IRQS:
        this.#irqs.set(message, fds);
        return this.#succeed(message);
      case vfu.VFIO_USER_DEVICE_RESET:
        expectNoFds(fds);
        expectBytes(message, 0);
        if (!this.#isDrained()) return false;
        this.#function.reset();
        return this.#succeed(message);
      case vfu.VFIO_USER_VERSION:
        throw new Refusal(EINVAL, 'the version has been agreed on');
      case vfu.VFIO_USER_DMA_READ:
      case vfu.VFIO_USER_DMA_WRITE:
        throw new Refusal(EINVAL, 'a command for clients');
      default:
        // DEVICE_GET_REGION_IO_FDS, DEVICE_FEATURE and MIG_DATA_READ and _WRITE among them.
        throw new Refusal(EOPNOTSUPP, 'not supported');
    }
  }

  #succeed(message: Message, payload: Uint8Array = EMPTY_PAYLOAD, fds?: FdBag): true {
    this.#answer(message.id, message.command, message.flags, payload, 0, fds);
    return true;
  }

  #answer(
    id: number,
    command: number,
    flags: number,
    payload: Uint8Array,
    errno: number,
    fds?: FdBag,
  ): boolean {
    if ((flags & vfu.FLAG_NO_REPLY) !== 0) {
      fds?.close();
      return true;
    }
    const replyFlags = vfu.FLAG_TYPE_REPLY | (errno === 0 ? 0 : vfu.FLAG_ERROR);
    return this.#writer.send(encodeMessage(id, command, replyFlags, payload, errno), fds);
  }

  #setVersion(message: Message, fds: FdBag): void {
    expectNoFds(fds);
    const { major, minor, capabilities } = decodeVersion(message);
    if (major !== vfu.VERSION_MAJOR) {
      throw new Refusal(EINVAL, `version ${major}.${minor}, expected ${vfu.VERSION_MAJOR}`);
    }
    const maxBytes = Math.min(capabilities.maxDataBytes, MAX_DATA_BYTES);
    if (maxBytes === 0) throw new Refusal(EINVAL, 'a max_data_xfer_size of 0 bytes');
    this.#client = capabilities;
    this.#remote.maxBytes = maxBytes;
    const domain = this.#domain;
    this.#function.attach({
      dma: domain,
      interrupts: this.#irqs,
      setBusMaster: (on) => {
        domain.busMaster = on;
      },
    });
    const version = {
      major,
      minor: Math.min(minor, vfu.VERSION_MINOR),
      capabilities: answers.offer(capabilities),
    };
    this.#succeed(message, encodeVersion(version));
  }

  // Traps

  #readRegion(message: Message): void {
    expectBytes(message, vfu.REGION_ACCESS_BYTES);
    const offset = u64At(message, 0);
    const region = u32At(message, 8);
    const count = u32At(message, 12);
    if (count > MAX_DATA_BYTES) throw new Refusal(EINVAL, `${count} bytes at once`);
    this.#regions.check(region, offset, count);
    this.#reads++;
    this.#accessed += count;
    const size = vfu.HEADER_BYTES + vfu.REGION_ACCESS_BYTES + count;
    const bytes = size <= REPLY_BYTES ? this.#reply : new Uint8Array(size);
    const view = bytes === this.#reply ? this.#replyView : new DataView(bytes.buffer);
    const { id, command, flags } = message;
    this.#regions.read(region, offset, count, view, size - count);
    this.#putAccess(view, id, command, size, offset, region, count);
    if ((flags & vfu.FLAG_NO_REPLY) !== 0) return;
    this.#writer.send(bytes === this.#reply ? this.#replyOf(size) : bytes);
  }

  #writeRegion(message: Message): void {
    if (message.length < vfu.REGION_ACCESS_BYTES) expectAtLeast(message, vfu.REGION_ACCESS_BYTES);
    const offset = u64At(message, 0);
    const region = u32At(message, 8);
    const count = u32At(message, 12);
    expectBytes(message, vfu.REGION_ACCESS_BYTES + count);
    this.#regions.check(region, offset, count);
    this.#writes++;
    this.#accessed += count;
    const { id, command, flags } = message;
    const data = message.at + vfu.REGION_ACCESS_BYTES;
    this.#regions.write(region, offset, count, message.view, data);
    if ((flags & vfu.FLAG_NO_REPLY) !== 0) return;
    const size = vfu.HEADER_BYTES + vfu.REGION_ACCESS_BYTES;
    this.#putAccess(this.#replyView, id, command, size, offset, region, count);
    this.#writer.send(this.#replyOf(size));
  }

  /** The first bytes of the memory for replies; those of a trap are objects that are there. */
  #replyOf(size: number): Uint8Array {
    return this.#traps[size] ?? this.#reply.subarray(0, size);
  }

  #putAccess(
    view: DataView,
    id: number,
    command: number,
    size: number,
    offset: number,
    region: number,
    count: number,
  ): void {
    putHeader(view, id, command, size, vfu.FLAG_TYPE_REPLY, 0);
    putU64(view, vfu.HEADER_BYTES, offset);
    view.setUint32(vfu.HEADER_BYTES + 8, region, true);
    view.setUint32(vfu.HEADER_BYTES + 12, count, true);
  }

  #writeMany(message: Message): void {
    expectAtLeast(message, vfu.WRITE_MULTI_BYTES);
    const writes = u64At(message, 0);
    expectBytes(message, vfu.WRITE_MULTI_BYTES + writes * vfu.SINGLE_WRITE_BYTES);
    // All are checked before one is done.
    for (let i = 0; i < writes; i++) this.#writeOne(message, i, false);
    for (let i = 0; i < writes; i++) this.#writeOne(message, i, true);
    this.#writes += writes;
    this.#accessed += writes * vfu.SINGLE_WRITE_DATA;
    if ((message.flags & vfu.FLAG_NO_REPLY) !== 0) return;
    const size = vfu.HEADER_BYTES + vfu.WRITE_MULTI_BYTES;
    putHeader(this.#replyView, message.id, message.command, size, vfu.FLAG_TYPE_REPLY, 0);
    putU64(this.#replyView, vfu.HEADER_BYTES, writes);
    this.#writer.send(this.#replyOf(size));
  }

  #writeOne(message: Message, index: number, isChecked: boolean): void {
    const at = vfu.WRITE_MULTI_BYTES + index * vfu.SINGLE_WRITE_BYTES;
    const offset = u64At(message, at);
    const region = u32At(message, at + 8);
    const count = u32At(message, at + 12);
    if (isChecked) {
      this.#regions.write(region, offset, count, message.view, message.at + at + 16);
      return;
    }
    if (count > vfu.SINGLE_WRITE_DATA) throw new Refusal(EINVAL, `a write of ${count} bytes`);
    this.#regions.check(region, offset, count);
  }

  // Memory

  #unmap(message: Message): boolean {
    const request = answers.decodeUnmap(this.#domain, message);
    const isDirect = request.all || this.#domain.isDirect(request.iova, request.length);
    if (isDirect && !this.#isDrained()) return false;
    const payload = answers.unmapDma(this.#domain, request, message);
    if (isDirect) this.#function.resume?.();
    return this.#succeed(message, payload);
  }
}

function expectNoFds(fds: FdBag): void {
  if (fds.count !== 0) throw new Refusal(EINVAL, `${fds.count} descriptors, expected none`);
}

/** Descriptors stay in their bag until it is handled. */
function weightOf({ message, fds }: Held): number {
  return vfu.HEADER_BYTES + message.length + fds.count * HELD_FD_BYTES;
}

function copyOf(message: Message): Message {
  const bytes = message.bytes.slice(message.at, message.at + message.length);
  return { ...message, at: 0, bytes, view: new DataView(bytes.buffer) };
}
