/**
 * For tests and fuzzers of virtual functions: a guest that has one, with rings laid out as a driver does
 * it, every register reached by traps, and the mailbox used as Linux's ixgbevf does.
 */
import type { Arena } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import { macHigh, macLow, parseMac } from '../../net/mac.ts';
import type { Port, PortOwner } from '../../net/port.ts';
import { TestTransport } from '../../pci/testing.ts';
import { IXGBE_CTRL_RESET, IXGBE_IVAR_VALID, IXGBE_QUEUE_BYTES } from '../../spec/ixgbe.ts';
import {
  IXGBE_DESCRIPTOR_BYTES,
  IXGBE_DESCTYPE_ONE_BUFFER,
  IXGBE_QUEUE_ENABLE,
  IXGBE_RXD_DONE,
  IXGBE_RXD_END,
  IXGBE_SRRCTL_TYPE_SHIFT,
  IXGBE_TXC_MAC_LENGTH_SHIFT,
  IXGBE_TXC_MSS_SHIFT,
  IXGBE_TXC_VLAN_SHIFT,
  IXGBE_TXD_ADVANCED,
  IXGBE_TXD_CHECK_CONTEXT,
  IXGBE_TXD_DONE,
  IXGBE_TXD_END,
  IXGBE_TXD_INSERT_FCS,
  IXGBE_TXD_PAYLOAD_SHIFT,
  IXGBE_TXD_REPORT,
  IXGBE_TXD_TYPE_CONTEXT,
  IXGBE_TXD_TYPE_DATA,
} from '../../spec/ixgbe-descriptors.ts';
import {
  IXGBE_API_17,
  IXGBE_VF_API_NEGOTIATE,
  IXGBE_VF_CTRL,
  IXGBE_VF_EIAC,
  IXGBE_VF_EIMS,
  IXGBE_VF_IVAR,
  IXGBE_VF_IVAR_MISC,
  IXGBE_VF_MAILBOX,
  IXGBE_VF_MAILBOX_MEMORY,
  IXGBE_VF_RESET,
  IXGBE_VF_RX_QUEUES,
  IXGBE_VF_SET_LPE,
  IXGBE_VF_SET_MAC,
  IXGBE_VF_TX_QUEUES,
} from '../../spec/ixgbe-mailbox.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { TEST_BASE, TestMemory } from '../e1000/testing.ts';
import { RX, TX } from './queue-parts.ts';
import { MailboxDriver } from './testing-vf-policy.ts';
import type { VirtualFunction } from './virtual-function.ts';

export const VF_ENTRIES = 64;
const BUFFER_BYTES = 16 * 1024;
const RING_BYTES = VF_ENTRIES * IXGBE_DESCRIPTOR_BYTES;
/** Where in the guest's memory things lie, by queue. */
const QUEUE_AREA = 4 * 1024 * 1024;
const TX_BUFFERS = 0x1_0000;
const RX_RING = 0x20_0000;
const RX_BUFFERS = 0x21_0000;
const RX_BUFFER_BYTES = 4096;
export const VF_GUEST_BYTES = 8 * 1024 * 1024;
/** Data, and room to begin anywhere in it. */
const PAD = 64;
const MSIX_CAPABILITY = 0x11;
const MSIX_ENABLE = 0x8000;
/** Vectors: queues by number, and the mailbox. */
export const MAILBOX_VECTOR = 2;

export interface VfFrame {
  readonly bytes: Buffer;
  readonly status: number;
  readonly types: number;
  readonly hash: number;
  readonly vlan: number;
}

/** What a context descriptor says, and the data descriptor of it. */
export interface SendOptions {
  readonly command?: number;
  readonly options?: number;
  readonly mac?: number;
  readonly ip?: number;
  readonly l4?: number;
  readonly mss?: number;
  readonly types?: number;
  readonly vlan?: number;
  readonly payload?: number;
}

export class VfRig {
  readonly vf: VirtualFunction;
  readonly memory: TestMemory;
  readonly transport: TestTransport;
  readonly driver: MailboxDriver;
  /** Next transmit descriptor, by queue; next receive descriptor to be looked at. */
  readonly #next = [0, 0];
  readonly #clean = [0, 0];

  constructor(vf: VirtualFunction, arena: Arena, memory = new TestMemory(arena, VF_GUEST_BYTES)) {
    this.vf = vf;
    this.memory = memory;
    this.transport = new TestTransport(vf, this.memory);
    this.transport.keepsMasks = true;
    this.transport.enumerate();
    this.driver = new MailboxDriver({
      readWord: (index: number) => this.get(IXGBE_VF_MAILBOX_MEMORY + 4 * index),
      writeWord: (index: number, value: number) =>
        this.set(IXGBE_VF_MAILBOX_MEMORY + 4 * index, value),
      readControl: () => this.get(IXGBE_VF_MAILBOX),
      writeControl: (value: number) => this.set(IXGBE_VF_MAILBOX, value),
    });
  }

  get(offset: number): number {
    return this.vf.readBar(0, offset, 4);
  }

  set(offset: number, value: number): void {
    this.vf.writeBar(0, offset, 4, value >>> 0);
  }

  rx(queue: number, register: keyof typeof RX, value: number): void {
    this.set(IXGBE_VF_RX_QUEUES + queue * IXGBE_QUEUE_BYTES + 4 * RX[register], value);
  }

  tx(queue: number, register: keyof typeof TX, value: number): void {
    this.set(IXGBE_VF_TX_QUEUES + queue * IXGBE_QUEUE_BYTES + 4 * TX[register], value);
  }

  /** As a driver comes up: reset, version, address if none was given, frame size, interrupts, queue 0. */
  start(mac?: string, longest = 1518): void {
    this.set(IXGBE_VF_CTRL, IXGBE_CTRL_RESET);
    this.driver.ask(IXGBE_VF_RESET);
    this.driver.ask(IXGBE_VF_API_NEGOTIATE, IXGBE_API_17);
    if (mac !== undefined) {
      const bytes = parseMac(mac);
      this.driver.ask(IXGBE_VF_SET_MAC, macLow(bytes), macHigh(bytes));
    }
    this.driver.ask(IXGBE_VF_SET_LPE, longest);
    this.enableInterrupts();
    this.startTransmit(0);
    this.startReceive(0);
  }

  enableInterrupts(): void {
    this.vf.writeConfig(this.transport.find(MSIX_CAPABILITY) + 2, 2, MSIX_ENABLE);
    const entry = (vector: number): number => IXGBE_IVAR_VALID | vector;
    const pair = entry(0) | (entry(0) << 8) | (entry(1) << 16) | (entry(1) << 24);
    this.set(IXGBE_VF_IVAR, pair);
    this.set(IXGBE_VF_IVAR_MISC, entry(MAILBOX_VECTOR));
    this.set(IXGBE_VF_EIAC, 0x7);
    this.set(IXGBE_VF_EIMS, 0x7);
  }

  startTransmit(queue: number): void {
    this.#next[queue] = 0;
    const ring = this.#area(queue);
    this.memory.bytes(ring, RING_BYTES).fill(0);
    this.tx(queue, 'TDBAL', ring);
    this.tx(queue, 'TDBAH', 0);
    this.tx(queue, 'TDLEN', RING_BYTES);
    this.tx(queue, 'TDH', 0);
    this.tx(queue, 'TDT', 0);
    this.tx(queue, 'TXDCTL', IXGBE_QUEUE_ENABLE);
  }

  /** @param control more bits of RXDCTL */
  startReceive(queue: number, control = 0): void {
    const ring = this.#area(queue) + RX_RING;
    for (let i = 0; i < VF_ENTRIES; i++) this.#refill(queue, i);
    this.#clean[queue] = 0;
    this.rx(queue, 'RDBAL', ring);
    this.rx(queue, 'RDBAH', 0);
    this.rx(queue, 'RDLEN', RING_BYTES);
    const buffers = RX_BUFFER_BYTES / 1024;
    this.rx(queue, 'SRRCTL', buffers | (IXGBE_DESCTYPE_ONE_BUFFER << IXGBE_SRRCTL_TYPE_SHIFT));
    this.rx(queue, 'RDH', 0);
    this.rx(queue, 'RXDCTL', IXGBE_QUEUE_ENABLE | control);
    this.rx(queue, 'RDT', VF_ENTRIES - 1);
  }

  /** Puts a frame into a transmit ring; the tail is not moved. */
  queue(frame: Uint8Array, more: SendOptions = {}, queue = 0): void {
    const isPlain = Object.keys(more).length === 0;
    if (!isPlain) {
      const { mac = 14, ip = 20, l4 = 0, mss = 0, types = 0, vlan = 0 } = more;
      const lengths = ip | (mac << IXGBE_TXC_MAC_LENGTH_SHIFT) | (vlan << IXGBE_TXC_VLAN_SHIFT);
      this.#describe(
        queue,
        lengths >>> 0,
        0,
        IXGBE_TXD_TYPE_CONTEXT | types,
        (l4 << 8) | (mss << IXGBE_TXC_MSS_SHIFT),
      );
    }
    const index = this.#next[queue] as number;
    const at = this.#area(queue) + TX_BUFFERS + index * BUFFER_BYTES + (index % PAD);
    this.memory.bytes(at, frame.length).set(frame);
    const command =
      IXGBE_TXD_TYPE_DATA |
      IXGBE_TXD_END |
      IXGBE_TXD_INSERT_FCS |
      IXGBE_TXD_REPORT |
      (more.command ?? 0);
    const payload = more.payload ?? frame.length;
    const options = (payload << IXGBE_TXD_PAYLOAD_SHIFT) | (more.options ?? 0);
    this.#describe(
      queue,
      at,
      0,
      command | frame.length,
      isPlain ? options : options | IXGBE_TXD_CHECK_CONTEXT,
    );
  }

  kick(queue = 0): void {
    this.tx(queue, 'TDT', this.#next[queue] as number);
  }

  /** Sends frames, and lets the lane look once. Returns what the lane did. */
  send(...frames: Uint8Array[]): number {
    for (const frame of frames) this.queue(frame);
    this.kick();
    return this.vf.poll();
  }

  sendWith(frame: Uint8Array, more: SendOptions): void {
    this.queue(frame, more);
    this.kick();
    this.vf.poll();
  }

  /** Whether the descriptor of the last frame of a queue was given back. */
  sent(queue = 0): boolean {
    const last = ((this.#next[queue] as number) + VF_ENTRIES - 1) % VF_ENTRIES;
    const at = this.memory.bytes(
      this.#area(queue) + last * IXGBE_DESCRIPTOR_BYTES,
      IXGBE_DESCRIPTOR_BYTES,
    );
    return (at.readUInt32LE(12) & IXGBE_TXD_DONE) !== 0;
  }

  /** What has come in a queue; its buffers are given again. */
  received(queue = 0): VfFrame[] {
    const frames: VfFrame[] = [];
    let parts: Buffer[] = [];
    for (;;) {
      const index = this.#clean[queue] as number;
      const at = this.#rxDescriptor(queue, index);
      const status = at.readUInt32LE(8);
      if ((status & IXGBE_RXD_DONE) === 0) return frames;
      const length = at.readUInt16LE(12);
      parts.push(Buffer.from(this.memory.bytes(this.#rxBuffer(queue, index), length)));
      if ((status & IXGBE_RXD_END) !== 0) {
        frames.push({
          bytes: Buffer.concat(parts),
          status,
          types: at.readUInt32LE(0),
          hash: at.readUInt32LE(4),
          vlan: at.readUInt16LE(14),
        });
        parts = [];
      }
      this.#refill(queue, index);
      this.rx(queue, 'RDT', index);
      this.#clean[queue] = (index + 1) % VF_ENTRIES;
    }
  }

  /** Vectors that were signalled since the last time. */
  interrupts(): number[] {
    return this.transport.msix.splice(0);
  }

  #describe(queue: number, low: number, high: number, command: number, options: number): void {
    const index = this.#next[queue] as number;
    const at = this.memory.bytes(
      this.#area(queue) + index * IXGBE_DESCRIPTOR_BYTES,
      IXGBE_DESCRIPTOR_BYTES,
    );
    at.writeUInt32LE(low, 0);
    at.writeUInt32LE(high, 4);
    at.writeUInt32LE((IXGBE_TXD_ADVANCED | command) >>> 0, 8);
    at.writeUInt32LE(options >>> 0, 12);
    this.#next[queue] = (index + 1) % VF_ENTRIES;
  }

  #refill(queue: number, index: number): void {
    const at = this.#rxDescriptor(queue, index);
    at.fill(0);
    at.writeUInt32LE(this.#rxBuffer(queue, index), 0);
  }

  #area(queue: number): number {
    return TEST_BASE + queue * QUEUE_AREA;
  }

  #rxDescriptor(queue: number, index: number): Buffer {
    const at = this.#area(queue) + RX_RING + index * IXGBE_DESCRIPTOR_BYTES;
    return this.memory.bytes(at, IXGBE_DESCRIPTOR_BYTES);
  }

  #rxBuffer(queue: number, index: number): number {
    return this.#area(queue) + RX_BUFFERS + index * RX_BUFFER_BYTES;
  }
}

/** The other end of a card's wire: keeps the bytes of what it gets. */
export class TestWire implements PortOwner {
  readonly frames: Buffer[] = [];
  published = 0;
  readonly #arena: Arena;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  forward(_port: Port, burst: Burst): void {
    burst.copies.flush();
    for (let i = 0; i < burst.count; i++) this.frames.push(this.#bytes(burst, i));
  }

  publish(): void {
    this.published++;
  }

  /** What came since the last time. */
  take(): Buffer[] {
    return this.frames.splice(0);
  }

  #bytes(burst: Burst, slot: number): Buffer {
    const { bytes } = this.#arena;
    const { chains } = burst;
    const header = (burst.headerAt[slot] as number) + NET_HEADER_BYTES;
    const length = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
    const parts = [bytes.slice(header, header + length)];
    let skip = burst.skip[slot] as number;
    const more = chains.more[slot] as number;
    for (let i = -1; i < more; i++) {
      const at = (chains.moreStart[slot] as number) + i;
      const from = (i < 0 ? chains.address[slot] : chains.moreAddress[at]) as number;
      const size = (i < 0 ? chains.length[slot] : chains.moreLength[at]) as number;
      if (skip < size) parts.push(bytes.slice(from + skip, from + size));
      skip = Math.max(0, skip - size);
    }
    return Buffer.concat(parts);
  }
}
