/**
 * For tests and fuzzers of the queues: a function that is nothing but one queue pair, with a driver that
 * writes its rings as Linux's ixgbe does, and a card that gives every frame back.
 */
import type { Arena } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import {
  IXGBE_DESCRIPTOR_BYTES,
  IXGBE_DESCTYPE_LEGACY,
  IXGBE_DESCTYPE_ONE_BUFFER,
  IXGBE_DESCTYPE_SPLIT,
  IXGBE_DESCTYPE_SPLIT_ALWAYS,
  IXGBE_QUEUE_ENABLE,
  IXGBE_RXD_DONE,
  IXGBE_RXD_END,
  IXGBE_RXD_HEADER_LENGTH_MAX,
  IXGBE_RXD_HEADER_LENGTH_SHIFT,
  IXGBE_RXD_HEADER_SPLIT,
  IXGBE_SRRCTL_HEADER_SIZE_SHIFT,
  IXGBE_SRRCTL_TYPE_SHIFT,
  IXGBE_TXC_MAC_LENGTH_SHIFT,
  IXGBE_TXC_MSS_SHIFT,
  IXGBE_TXC_VLAN_SHIFT,
  IXGBE_TXD_ADVANCED,
  IXGBE_TXD_DONE,
  IXGBE_TXD_END,
  IXGBE_TXD_INSERT_FCS,
  IXGBE_TXD_PAYLOAD_SHIFT,
  IXGBE_TXD_REPORT,
  IXGBE_TXD_TYPE_CONTEXT,
  IXGBE_TXD_TYPE_DATA,
} from '../../spec/ixgbe-descriptors.ts';
import { IXGBE_VF_RX_QUEUES, IXGBE_VF_TX_QUEUES } from '../../spec/ixgbe-mailbox.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { DeviceMemory } from '../device-memory.ts';
import { TEST_BASE, TestMemory } from '../e1000/testing.ts';
import { QueueBounce } from './queue-bounce.ts';
import {
  DELIVERED,
  defaultQueueSettings,
  type Malformed,
  type QueueParts,
  type QueueSettings,
  queueClients,
  RX,
  type TransmitSink,
  TX,
} from './queue-parts.ts';
import { ReceiveQueue } from './receive-queue.ts';
import { TransmitQueue } from './transmit-queue.ts';

const BYTES = IXGBE_DESCRIPTOR_BYTES;
export const TX_BLOCK = IXGBE_VF_TX_QUEUES / 4;
export const RX_BLOCK = IXGBE_VF_RX_QUEUES / 4;
const REGISTER_WORDS = 0x4000 / 4;
/** Where things lie in the guest's memory, from {@link TEST_BASE} on. */
const TX_RING = 0;
const RX_RING = 0x1_0000;
const HEADERS = 0x2_0000;
const BUFFERS = 0x4_0000;
const PLACES = 0x20_0000;
export const RIG_BYTES = 0x40_0000;
/** Header buffers are this far apart. */
const HEADER_STRIDE = 1024;

export interface Received {
  readonly bytes: Buffer;
  /** Third word of the last descriptor, types of the last, header length of the first. */
  readonly status: number;
  readonly types: number;
  readonly hash: number;
  readonly vlan: number;
  readonly headerBytes: number;
  readonly isSplit: boolean;
  readonly descriptors: number;
}

export interface ReceiveShape {
  readonly entries: number;
  readonly type: number;
  readonly packetKiB: number;
  readonly headerBytes: number;
  /** Buffers begin this far behind where the last may end: an odd place, or the end of a page. */
  readonly gap: number;
}

const ORDINARY: ReceiveShape = {
  entries: 64,
  type: IXGBE_DESCTYPE_ONE_BUFFER,
  packetKiB: 2,
  headerBytes: 0,
  gap: 0,
};

export class QueueRig {
  readonly path: DataPath;
  readonly memory: TestMemory;
  readonly words = new Uint32Array(REGISTER_WORDS);
  readonly settings: QueueSettings = defaultQueueSettings();
  readonly device: DeviceMemory;
  readonly bounce: QueueBounce;
  readonly transmit: TransmitQueue;
  readonly receive: ReceiveQueue;
  readonly counts = { sent: 0, sentBytes: 0, received: 0, receivedBytes: 0, missed: 0 };
  readonly malformed: [Malformed, number][] = [];
  receiveInterrupts = 0;
  transmitInterrupts = 0;
  entries = 0;
  /** Next descriptor that the driver writes, in each ring; next that it looks at. */
  next = 0;
  given = 0;
  clean = 0;
  shape = ORDINARY;
  #place = TEST_BASE + PLACES;

  constructor(path: DataPath, arena: Arena) {
    this.path = path;
    this.memory = new TestMemory(arena, RIG_BYTES);
    this.device = new DeviceMemory(arena, queueClients(1));
    this.device.connect(this.memory);
    this.bounce = new QueueBounce(arena, 1);
    const { counts } = this;
    const parts: QueueParts = {
      path,
      memory: this.device,
      words: this.words,
      settings: this.settings,
      bounce: this.bounce,
      interrupts: {
        received: () => {
          this.receiveInterrupts++;
        },
        transmitted: () => {
          this.transmitInterrupts++;
        },
      },
      statistics: {
        transmitted: (_queue, frames, bytes) => {
          counts.sent += frames;
          counts.sentBytes += bytes;
        },
        received: (_queue, frames, bytes) => {
          counts.received += frames;
          counts.receivedBytes += bytes;
        },
        missed: (_queue, frames) => {
          counts.missed += frames;
        },
        malformed: (_queue, frames, reason) => {
          this.malformed.push([reason, frames]);
        },
      },
    };
    this.transmit = new TransmitQueue(parts, 0, TX_BLOCK);
    this.receive = new ReceiveQueue(parts, 0, RX_BLOCK);
  }

  /** As a function-level reset: registers, queues, and what the driver knows of them. */
  reset(): void {
    this.device.forget();
    this.words.fill(0);
    this.transmit.reset();
    this.receive.reset();
    this.next = 0;
    this.given = 0;
    this.clean = 0;
  }

  tx(register: keyof typeof TX): number {
    return this.words[TX_BLOCK + TX[register]] as number;
  }

  setTx(register: keyof typeof TX, value: number): void {
    this.words[TX_BLOCK + TX[register]] = value;
  }

  rx(register: keyof typeof RX): number {
    return this.words[RX_BLOCK + RX[register]] as number;
  }

  setRx(register: keyof typeof RX, value: number): void {
    this.words[RX_BLOCK + RX[register]] = value;
  }

  startTransmit(entries = 64): void {
    this.entries = entries;
    this.next = 0;
    this.memory.bytes(TEST_BASE + TX_RING, entries * BYTES).fill(0);
    this.setTx('TXDCTL', 0);
    this.setTx('TDBAL', TEST_BASE + TX_RING);
    this.setTx('TDBAH', 0);
    this.setTx('TDLEN', entries * BYTES);
    this.setTx('TDH', 0);
    this.setTx('TDT', 0);
    this.setTx('TXDCTL', IXGBE_QUEUE_ENABLE);
  }

  /** All descriptors but one are given. */
  startReceive(shape: Partial<ReceiveShape> = {}, give = true): void {
    this.shape = { ...ORDINARY, ...shape };
    const { entries, type, packetKiB, headerBytes } = this.shape;
    this.given = 0;
    this.clean = 0;
    this.setRx('RXDCTL', 0);
    this.setRx('RDBAL', TEST_BASE + RX_RING);
    this.setRx('RDBAH', 0);
    this.setRx('RDLEN', entries * BYTES);
    this.setRx(
      'SRRCTL',
      packetKiB |
        ((headerBytes / 64) << IXGBE_SRRCTL_HEADER_SIZE_SHIFT) |
        (type << IXGBE_SRRCTL_TYPE_SHIFT),
    );
    this.setRx('RDH', 0);
    this.setRx('RDT', 0);
    this.setRx('RXDCTL', IXGBE_QUEUE_ENABLE);
    if (give) this.give(entries - 1);
  }

  /** Gives `count` buffers more. */
  give(count: number): void {
    for (let i = 0; i < count; i++) {
      const at = this.#rxDescriptor(this.given);
      at.fill(0);
      at.writeBigUInt64LE(BigInt(this.buffer(this.given)), 0);
      if (this.#splits) at.writeBigUInt64LE(BigInt(this.header(this.given)), 8);
      this.given = (this.given + 1) % this.shape.entries;
    }
    this.setRx('RDT', this.given);
  }

  /** Where the buffer of a receive descriptor is. */
  buffer(index: number): number {
    const { packetKiB, gap } = this.shape;
    return TEST_BASE + BUFFERS + index * (1024 * packetKiB + gap) + gap;
  }

  header(index: number): number {
    return TEST_BASE + HEADERS + (index % 128) * HEADER_STRIDE;
  }

  /** Guest memory that nobody uses yet. */
  place(bytes: Uint8Array, offset = 0): number {
    const end = TEST_BASE + RIG_BYTES;
    if (this.#place + offset + bytes.length > end) this.#place = TEST_BASE + PLACES;
    const at = this.#place + offset;
    this.memory.bytes(at, bytes.length).set(bytes);
    this.#place += Math.ceil((bytes.length + offset) / 4096) * 4096;
    return at;
  }

  /** Writes any transmit descriptor. */
  descriptor(address: number, command: number, options: number, high = 0): void {
    const at = this.#txDescriptor(this.next);
    at.writeUInt32LE(address % 2 ** 32, 0);
    at.writeUInt32LE(high === 0 ? Math.floor(address / 2 ** 32) : high, 4);
    at.writeUInt32LE(command >>> 0, 8);
    at.writeUInt32LE(options >>> 0, 12);
    this.next = (this.next + 1) % this.entries;
  }

  /** A context descriptor: lengths of MAC and IP headers, of the transport header; its other bits. */
  context(
    mac: number,
    ip: number,
    { l4 = 0, mss = 0, vlan = 0, types = 0, index = 0 }: Partial<ContextFields> = {},
  ): void {
    const at = this.#txDescriptor(this.next);
    const lengths = ip | (mac << IXGBE_TXC_MAC_LENGTH_SHIFT) | (vlan << IXGBE_TXC_VLAN_SHIFT);
    at.writeUInt32LE(lengths >>> 0, 0);
    at.writeUInt32LE(0, 4);
    at.writeUInt32LE(IXGBE_TXD_ADVANCED | IXGBE_TXD_TYPE_CONTEXT | types, 8);
    at.writeUInt32LE(((index << 4) | (l4 << 8) | (mss << IXGBE_TXC_MSS_SHIFT)) >>> 0, 12);
    this.next = (this.next + 1) % this.entries;
  }

  /** A frame in pieces of `piece` bytes, each in a descriptor; tail unchanged. */
  data(frame: Uint8Array, command = 0, options = 0, piece = 16_384, payload = frame.length): void {
    const all = IXGBE_TXD_ADVANCED | IXGBE_TXD_TYPE_DATA | IXGBE_TXD_INSERT_FCS | command;
    for (let from = 0; from < frame.length; from += piece) {
      const part = frame.subarray(from, from + piece);
      const isLast = from + piece >= frame.length;
      this.descriptor(
        this.place(part, from % 4001),
        all | part.length | (isLast ? IXGBE_TXD_END | IXGBE_TXD_REPORT : 0),
        options | (payload << IXGBE_TXD_PAYLOAD_SHIFT),
      );
    }
  }

  kick(): void {
    this.setTx('TDT', this.next);
  }

  send(frame: Uint8Array): void {
    this.data(frame);
    this.kick();
  }

  isDone(index: number): boolean {
    return (this.#txDescriptor(index).readUInt32LE(12) & IXGBE_TXD_DONE) !== 0;
  }

  /** Takes turns until nothing moves; memory by messages answers in between. */
  run(sink: TransmitSink): number {
    let work = 0;
    for (let turn = 0; turn < 400; turn++) {
      const done = this.transmit.pending ? this.transmit.poll(sink) : 0;
      if (this.bounce.used) this.receive.poll();
      const isWaiting = this.device.busy;
      this.memory.settle();
      work += done;
      if (done === 0 && !isWaiting && !this.transmit.pending) break;
    }
    return work;
  }

  /** What came, until a descriptor that is not done; buffers are given again unless told. */
  received(give = true): Received[] {
    const frames: Received[] = [];
    let parts: Buffer[] = [];
    let first = 0;
    let count = 0;
    for (;;) {
      const at = this.#rxDescriptor(this.clean);
      const isLegacy = this.shape.type === IXGBE_DESCTYPE_LEGACY;
      const status = isLegacy ? legacyStatus(at) : at.readUInt32LE(8);
      if (this.clean === this.given || (status & IXGBE_RXD_DONE) === 0) return frames;
      if (count === 0) first = at.readUInt32LE(0);
      count++;
      if (this.#splits && count === 1) {
        const bytes = this.#headerBytesOf(at);
        parts.push(Buffer.from(this.memory.bytes(this.header(this.clean), bytes)));
      }
      const length = at.readUInt16LE(isLegacy ? 8 : 12);
      parts.push(Buffer.from(this.memory.bytes(this.buffer(this.clean), length)));
      if ((status & IXGBE_RXD_END) !== 0) {
        frames.push({
          bytes: Buffer.concat(parts),
          status,
          types: isLegacy ? 0 : at.readUInt32LE(0) & 0x1_ffff,
          hash: isLegacy ? 0 : at.readUInt32LE(4),
          vlan: at.readUInt16LE(14),
          headerBytes: (first >>> IXGBE_RXD_HEADER_LENGTH_SHIFT) & IXGBE_RXD_HEADER_LENGTH_MAX,
          isSplit: !isLegacy && (first & IXGBE_RXD_HEADER_SPLIT) !== 0,
          descriptors: count,
        });
        parts = [];
        count = 0;
      }
      this.clean = (this.clean + 1) % this.shape.entries;
      if (give) this.give(1);
    }
  }

  get #splits(): boolean {
    const { type } = this.shape;
    return type === IXGBE_DESCTYPE_SPLIT || type === IXGBE_DESCTYPE_SPLIT_ALWAYS;
  }

  /** Bytes in the header buffer: all that the descriptor says, unless they did not fit. */
  #headerBytesOf(at: Buffer): number {
    const bytes =
      (at.readUInt32LE(0) >>> IXGBE_RXD_HEADER_LENGTH_SHIFT) & IXGBE_RXD_HEADER_LENGTH_MAX;
    if (bytes <= this.shape.headerBytes) return bytes;
    return this.shape.type === IXGBE_DESCTYPE_SPLIT_ALWAYS ? this.shape.headerBytes : 0;
  }

  #txDescriptor(index: number): Buffer {
    return this.memory.bytes(TEST_BASE + TX_RING + index * BYTES, BYTES);
  }

  #rxDescriptor(index: number): Buffer {
    return this.memory.bytes(TEST_BASE + RX_RING + index * BYTES, BYTES);
  }
}

interface ContextFields {
  readonly l4: number;
  readonly mss: number;
  readonly vlan: number;
  readonly types: number;
  readonly index: number;
}

/** Status and errors of a legacy descriptor where the advanced ones have them. */
function legacyStatus(at: Buffer): number {
  return ((at[12] as number) | ((at[13] as number) << 24)) >>> 0;
}

/** A card with one function: gives all its frames to a receive queue, made fit for it. */
export class LoopCard implements TransmitSink {
  readonly #to: QueueRig;
  readonly name = 'loop';
  frames = 0;

  constructor(to: QueueRig) {
    this.#to = to;
  }

  send(burst: Burst): void {
    const list = new Uint8Array(1);
    for (let slot = 0; slot < burst.count; slot++) {
      list[0] = slot;
      if (burst.needs[slot] === 0) this.deliver(burst, list, 1);
      else this.#to.path.software.handOver(burst, slot, 0, this, false);
    }
    burst.copies.flush();
  }

  deliver(burst: Burst, frames: Uint8Array, count: number): void {
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      const at = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
      const length = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
      if (this.#to.receive.put(burst, slot, at, length, 0, 0, 0, 0) === DELIVERED) this.frames++;
    }
  }

  publish(): void {
    this.#to.receive.writeBack();
  }
}
