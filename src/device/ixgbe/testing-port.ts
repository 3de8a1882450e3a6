/**
 * For tests of the physical function: a guest that owns it, with rings laid out as a driver does it and
 * every register reached by traps, and a wire that keeps what is sent.
 */
import type { Arena } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { TestTransport } from '../../pci/testing.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import {
  IXGBE_DMATXCTL_ENABLE,
  IXGBE_FCTRL_BROADCAST,
  IXGBE_GPIE_EIAME,
  IXGBE_GPIE_MSIX,
  IXGBE_IVAR_VALID,
  IXGBE_REGISTERS,
  IXGBE_RXCTRL_ENABLE,
  type IxgbeRegisterName,
  ixgbeRxQueue,
  ixgbeTxQueue,
} from '../../spec/ixgbe.ts';
import {
  IXGBE_DESCRIPTOR_BYTES,
  IXGBE_DESCTYPE_ONE_BUFFER,
  IXGBE_QUEUE_ENABLE,
  IXGBE_RXD_DONE,
  IXGBE_SRRCTL_TYPE_SHIFT,
  IXGBE_TXD_ADVANCED,
  IXGBE_TXD_DONE,
  IXGBE_TXD_END,
  IXGBE_TXD_INSERT_FCS,
  IXGBE_TXD_PAYLOAD_SHIFT,
  IXGBE_TXD_REPORT,
  IXGBE_TXD_TYPE_DATA,
} from '../../spec/ixgbe-descriptors.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { TEST_BASE, TestMemory } from '../e1000/testing.ts';
import { PhysicalFunction } from './physical-function.ts';
import { RX, TX } from './queue-parts.ts';

export const RIG_ENTRIES = 64;
const BUFFER_BYTES = 4096;
const RING_BYTES = 4096;
const GUEST_BYTES = 8 * 1024 * 1024;
/** Where in the guest's memory receive rings and buffers of a queue begin; transmit things come first. */
const RX_AREA = 1024 * 1024;
const QUEUE_AREA = RING_BYTES + RIG_ENTRIES * BUFFER_BYTES;

export interface RigFrame {
  readonly bytes: Buffer;
  /** Words 0, 1 and 2 of the descriptor: types, RSS hash, status; and the tag that was taken off. */
  readonly types: number;
  readonly hash: number;
  readonly status: number;
  readonly vlan: number;
}

export class PortRig {
  readonly pf: PhysicalFunction;
  readonly transport: TestTransport;
  readonly memory: TestMemory;
  /** Frames that left by the wire. */
  readonly wire: Buffer[] = [];
  /** The other end of the wire, and with which tag frames go there; -1: none. */
  peer: PortRig | undefined;
  tag = -1;
  #next = 0;
  readonly #clean = new Map<number, number>();
  readonly #list = new Uint8Array(BATCH).map((_, index) => index);

  constructor(path: DataPath, arena: Arena, mac: Uint8Array, name = 'nic0/0') {
    this.pf = new PhysicalFunction({ name, path, mac, port: 0 });
    this.memory = new TestMemory(arena, GUEST_BYTES);
    this.transport = new TestTransport(this.pf, this.memory);
    this.transport.keepsMasks = true;
    this.transport.enumerate();
    this.pf.uplink = {
      send: (_from, burst) => this.#leave(burst),
      publish: () => this.peer?.pf.flush(),
    };
  }

  /** A register by its name, or of a row. */
  get(name: IxgbeRegisterName, index = 0): number {
    const { offset, stride } = IXGBE_REGISTERS[name];
    return this.pf.readBar(0, offset + index * stride, 4);
  }

  set(name: IxgbeRegisterName, value: number, index = 0): void {
    const { offset, stride } = IXGBE_REGISTERS[name];
    this.pf.writeBar(0, offset + index * stride, 4, value >>> 0);
  }

  rx(queue: number, register: keyof typeof RX, value: number): void {
    this.pf.writeBar(0, ixgbeRxQueue(queue) + 4 * RX[register], 4, value >>> 0);
  }

  tx(queue: number, register: keyof typeof TX, value: number): void {
    this.pf.writeBar(0, ixgbeTxQueue(queue) + 4 * TX[register], 4, value >>> 0);
  }

  /** MSI-X, transmit queue 0, and so many receive queues. Queue n interrupts by vector n. */
  start(queues = 1, control = 0): void {
    this.#enableMsix();
    this.set('GPIE', IXGBE_GPIE_MSIX | IXGBE_GPIE_EIAME);
    for (let queue = 0; queue < queues; queue++) {
      const shift = 16 * (queue & 1);
      const before = this.get('IVAR', queue >>> 1);
      const entry = IXGBE_IVAR_VALID | queue;
      this.set('IVAR', before | ((entry | (entry << 8)) << shift), queue >>> 1);
    }
    this.set('EIAC', 0xffff);
    this.set('EIMS', 0xffff);
    this.set('DMATXCTL', this.get('DMATXCTL') | IXGBE_DMATXCTL_ENABLE);
    this.startTransmit();
    for (let queue = 0; queue < queues; queue++) this.startReceive(queue, control);
    this.set('FCTRL', IXGBE_FCTRL_BROADCAST);
    this.set('RXCTRL', IXGBE_RXCTRL_ENABLE);
  }

  startTransmit(): void {
    this.#next = 0;
    this.memory.bytes(TEST_BASE, RING_BYTES).fill(0);
    this.tx(0, 'TDBAL', TEST_BASE);
    this.tx(0, 'TDBAH', 0);
    this.tx(0, 'TDLEN', RIG_ENTRIES * IXGBE_DESCRIPTOR_BYTES);
    this.tx(0, 'TDH', 0);
    this.tx(0, 'TDT', 0);
    this.tx(0, 'TXDCTL', IXGBE_QUEUE_ENABLE);
  }

  /** @param control more bits of RXDCTL */
  startReceive(queue: number, control = 0): void {
    const ring = this.#ring(queue);
    for (let i = 0; i < RIG_ENTRIES; i++) {
      const at = this.memory.bytes(ring + i * IXGBE_DESCRIPTOR_BYTES, IXGBE_DESCRIPTOR_BYTES);
      at.fill(0);
      at.writeUInt32LE(this.#buffer(queue, i), 0);
    }
    this.#clean.set(queue, 0);
    this.rx(queue, 'RDBAL', ring);
    this.rx(queue, 'RDBAH', 0);
    this.rx(queue, 'RDLEN', RIG_ENTRIES * IXGBE_DESCRIPTOR_BYTES);
    this.rx(
      queue,
      'SRRCTL',
      BUFFER_BYTES / 1024 + (IXGBE_DESCTYPE_ONE_BUFFER << IXGBE_SRRCTL_TYPE_SHIFT),
    );
    this.rx(queue, 'RDH', 0);
    this.rx(queue, 'RXDCTL', IXGBE_QUEUE_ENABLE | control);
    this.rx(queue, 'RDT', RIG_ENTRIES - 1);
  }

  /** Sends a frame of one descriptor by queue 0, and lets the lane look. */
  send(frame: Uint8Array): void {
    const at = TEST_BASE + RING_BYTES + this.#next * BUFFER_BYTES;
    this.memory.bytes(at, frame.length).set(frame);
    const descriptor = this.#transmitDescriptor(this.#next);
    descriptor.writeBigUInt64LE(BigInt(at), 0);
    const command =
      IXGBE_TXD_ADVANCED |
      IXGBE_TXD_TYPE_DATA |
      IXGBE_TXD_END |
      IXGBE_TXD_INSERT_FCS |
      IXGBE_TXD_REPORT;
    descriptor.writeUInt32LE((command | frame.length) >>> 0, 8);
    descriptor.writeUInt32LE((frame.length << IXGBE_TXD_PAYLOAD_SHIFT) >>> 0, 12);
    this.#next = (this.#next + 1) % RIG_ENTRIES;
    this.tx(0, 'TDT', this.#next);
    this.pf.poll();
  }

  /** Whether the descriptor of the last frame was given back. */
  get sent(): boolean {
    const last = this.#transmitDescriptor((this.#next + RIG_ENTRIES - 1) % RIG_ENTRIES);
    return (last.readUInt32LE(12) & IXGBE_TXD_DONE) !== 0;
  }

  /** What has come in a queue. */
  received(queue = 0): RigFrame[] {
    const frames: RigFrame[] = [];
    for (;;) {
      const index = this.#clean.get(queue) ?? 0;
      const at = this.memory.bytes(
        this.#ring(queue) + index * IXGBE_DESCRIPTOR_BYTES,
        IXGBE_DESCRIPTOR_BYTES,
      );
      const status = at.readUInt32LE(8);
      if ((status & IXGBE_RXD_DONE) === 0) return frames;
      frames.push({
        bytes: Buffer.from(this.memory.bytes(this.#buffer(queue, index), at.readUInt16LE(12))),
        types: at.readUInt32LE(0),
        hash: at.readUInt32LE(4),
        status,
        vlan: at.readUInt16LE(14),
      });
      at.fill(0);
      at.writeUInt32LE(this.#buffer(queue, index), 0);
      this.rx(queue, 'RDT', index);
      this.#clean.set(queue, (index + 1) % RIG_ENTRIES);
    }
  }

  /** Vectors that were signalled since the last time. */
  interrupts(): number[] {
    return this.transport.msix.splice(0);
  }

  #enableMsix(): void {
    const at = this.transport.find(0x11);
    this.pf.writeConfig(at + 2, 2, 0x8000);
  }

  #leave(burst: Burst): void {
    for (let i = 0; i < burst.count; i++) this.wire.push(this.#frame(burst, i));
    const { peer } = this;
    if (peer === undefined) return;
    if (this.tag >= 0) burst.tci.fill(this.tag, 0, burst.count);
    peer.pf.deliver(burst, this.#list, burst.count, this.tag >= 0);
    burst.copies.flush();
  }

  #frame(burst: Burst, slot: number): Buffer {
    const { arena } = this.pf.path;
    const header = (burst.headerAt[slot] as number) + NET_HEADER_BYTES;
    const length = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
    const rest = (burst.frameLength[slot] as number) - length;
    const from = (burst.chains.address[slot] as number) + (burst.skip[slot] as number);
    return Buffer.concat([
      arena.bytes.slice(header, header + length),
      arena.bytes.slice(from, from + rest),
    ]);
  }

  #ring(queue: number): number {
    return TEST_BASE + RX_AREA + queue * QUEUE_AREA;
  }

  #buffer(queue: number, index: number): number {
    return this.#ring(queue) + RING_BYTES + index * BUFFER_BYTES;
  }

  #transmitDescriptor(index: number): Buffer {
    return this.memory.bytes(TEST_BASE + index * IXGBE_DESCRIPTOR_BYTES, IXGBE_DESCRIPTOR_BYTES);
  }
}
