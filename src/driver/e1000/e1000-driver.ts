/**
 * A driver of the 82540EM and the 82574L: lays rings and buffers out in a guest's memory, starts the card,
 * and keeps the receive ring filled. What it sends and what becomes of received frames is its user's
 * matter.
 */
import { alignUp } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import {
  CTRL_SLU,
  E1000_DEVICE_82540EM,
  E1000_DEVICE_82574L,
  E1000_VENDOR_INTEL,
  INT_RXQ0,
  INT_TXQ0,
  RCTL_BAM,
  RCTL_BSEX,
  RCTL_BSIZE_SHIFT,
  RCTL_EN,
  RCTL_LPE,
  RCTL_SECRC,
  RXCSUM_IPOFLD,
  RXCSUM_TUOFLD,
  STATUS_LU,
  TCTL_EN,
} from '../../spec/e1000.ts';
import { ETHERNET_DEFAULT_MTU, ETHERNET_HEADER_BYTES } from '../../spec/ethernet.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { BUFFER_ALIGNMENT, BufferPool } from '../buffer-pool.ts';
import type { NetPair } from '../net-pair.ts';
import { DescriptorRing, ringEntries } from '../nic/descriptor-ring.ts';
import { ReceiveQueue } from '../nic/receive-queue.ts';
import { BoundFunction } from '../pci/bound-function.ts';
import type { InterruptKind, PciBus } from '../pci/bus.ts';
import { E1000Card } from './card.ts';
import { InterruptGate } from './interrupt-gate.ts';
import { E1000_RECEIVE_FORMAT, e1000Ring, returnedAt } from './rings.ts';
import { descriptorsOf, TransmitQueue } from './transmit-queue.ts';

export interface E1000DriverOptions {
  /** Largest frame that is sent, without virtio_net_hdr; above the MTU the card cuts it. */
  readonly sendBytes: number;
  /** Frames that can be on their way at once. */
  readonly sendFrames: number;
  /** Buffers that wait for frames. */
  readonly receiveBuffers: number;
  readonly mtu: number;
  /** Largest frame that received segments are put together to; undefined: they are left as they are. */
  readonly coalesce?: { readonly frame: number; readonly buffers: number } | undefined;
  /** Kinds of interrupts to use, if the card has them; all unless given. */
  readonly interrupts?: readonly InterruptKind[];
}

/** Where everything lies, before there is memory for it. */
export interface E1000Plan {
  readonly options: E1000DriverOptions;
  readonly guestAddress: number;
  /** Bytes of memory that the driver needs from `guestAddress` on. */
  readonly bytes: number;
  readonly transmitEntries: number;
  readonly receiveEntries: number;
  /** Bytes that the card may write into a buffer, and the register's bits for that. */
  readonly bufferBytes: number;
  readonly bufferBits: number;
  /** Offsets of both rings, and of the pools. */
  readonly transmitRing: number;
  readonly receiveRing: number;
  readonly receivePool: number;
  readonly largePool: number;
  readonly sendPool: number;
}

/** RCTL's buffer sizes (SDM §13.4.22), the smallest first. */
const BUFFER_SIZES: readonly (readonly [bytes: number, bits: number])[] = [
  [2048, 0],
  [4096, RCTL_BSEX | (3 << RCTL_BSIZE_SHIFT)],
  [8192, RCTL_BSEX | (2 << RCTL_BSIZE_SHIFT)],
  [16384, RCTL_BSEX | (1 << RCTL_BSIZE_SHIFT)],
];

/** Lays a driver out. @throws SluiceError `config` for sizes that cannot be. */
export function planE1000(options: E1000DriverOptions, guestAddress: number): E1000Plan {
  const { sendBytes, sendFrames, receiveBuffers, mtu, coalesce } = options;
  const frame = mtu + ETHERNET_HEADER_BYTES;
  const size = BUFFER_SIZES.find(([bytes]) => bytes >= frame);
  if (size === undefined) throw new SluiceError('config', `an MTU of ${mtu} on a gigabit card`);
  const transmitEntries = ringEntries(sendFrames * descriptorsOf(sendBytes));
  const receiveEntries = ringEntries(receiveBuffers);
  for (const [what, entries, wanted] of [
    ['frames to send', transmitEntries, sendFrames * descriptorsOf(sendBytes)],
    ['receive buffers', receiveEntries, receiveBuffers],
  ] as const) {
    if (!Number.isInteger(wanted) || wanted < 1 || wanted >= entries) {
      throw new SluiceError('config', `${wanted} descriptors for ${what}`);
    }
  }
  const [bufferBytes, bufferBits] = size;
  let at = 0;
  const place = (bytes: number): number => {
    const here = at;
    at = alignUp(at + bytes, 4096);
    return here;
  };
  return {
    options,
    guestAddress,
    transmitEntries,
    receiveEntries,
    bufferBytes,
    bufferBits,
    transmitRing: place(DescriptorRing.bytes(transmitEntries)),
    receiveRing: place(DescriptorRing.bytes(receiveEntries)),
    receivePool: place(BufferPool.bytesFor(receiveBuffers, NET_HEADER_BYTES + bufferBytes)),
    largePool: place(
      coalesce === undefined
        ? 0
        : BufferPool.bytesFor(coalesce.buffers, NET_HEADER_BYTES + coalesce.frame),
    ),
    sendPool: place(BufferPool.bytesFor(sendFrames, NET_HEADER_BYTES + sendBytes)),
    bytes: at,
  };
}

export class E1000Driver {
  readonly plan: E1000Plan;
  readonly card: E1000Card;
  readonly gate: InterruptGate;
  readonly pair: NetPair;
  /** The card's own address. */
  readonly mac: Uint8Array;
  readonly #function: BoundFunction;
  readonly #transmitRing: DescriptorRing;
  readonly #receiveRing: DescriptorRing;
  readonly #receive: ReceiveQueue;

  /**
   * Binds to a card whose DMA reaches `memory`, which begins where the plan says, and resets it.
   * @throws SluiceError `unsupported` for another card
   */
  constructor(plan: E1000Plan, memory: DriverMemory, bus: PciBus) {
    const { options } = plan;
    if (memory.guestAddress !== plan.guestAddress || memory.size < plan.bytes) {
      throw new SluiceError('memory', `${memory.size} bytes for a driver of ${plan.bytes}`);
    }
    this.plan = plan;
    this.#function = new BoundFunction(bus);
    this.#function.expect(
      E1000_VENDOR_INTEL,
      [E1000_DEVICE_82540EM, E1000_DEVICE_82574L],
      'an 82540EM or 82574L',
    );
    this.card = new E1000Card(bus);
    this.card.reset();
    this.mac = this.card.mac();
    this.gate = new InterruptGate(this.card, this.#function);
    const { card, gate } = this;
    this.#transmitRing = e1000Ring(
      card,
      'transmit',
      memory,
      plan.transmitRing,
      plan.transmitEntries,
    );
    this.#receiveRing = e1000Ring(card, 'receive', memory, plan.receiveRing, plan.receiveEntries);
    const { coalesce } = options;
    const pool = (offset: number, count: number, bytes: number): BufferPool =>
      new BufferPool(memory, offset, count, NET_HEADER_BYTES + bytes, BUFFER_ALIGNMENT);
    const large =
      coalesce === undefined
        ? undefined
        : {
            pool: pool(plan.largePool, coalesce.buffers, coalesce.frame),
            frame: coalesce.frame,
          };
    this.#receive = new ReceiveQueue({
      ring: this.#receiveRing,
      gate: gate.of(INT_RXQ0),
      memory,
      format: E1000_RECEIVE_FORMAT,
      pool: pool(plan.receivePool, options.receiveBuffers, plan.bufferBytes),
      large,
      returnAt: returnedAt(options.receiveBuffers),
    });
    this.pair = {
      receive: this.#receive,
      transmit: new TransmitQueue(this.#transmitRing, gate.of(INT_TXQ0), memory),
      sendPool: pool(plan.sendPool, options.sendFrames, options.sendBytes),
    };
  }

  /** Starts the card: frames come and go from now on. Once. */
  start(): void {
    const { card, plan } = this;
    const { mtu, interrupts } = plan.options;
    card.set('CTRL', card.get('CTRL') | CTRL_SLU);
    this.gate.start(interrupts);
    this.#transmitRing.start();
    this.#receiveRing.start();
    card.set('TCTL', TCTL_EN);
    card.set('RXCSUM', RXCSUM_IPOFLD | RXCSUM_TUOFLD);
    const jumbo = mtu > ETHERNET_DEFAULT_MTU ? RCTL_LPE : 0;
    card.set('RCTL', RCTL_EN | RCTL_BAM | RCTL_SECRC | jumbo | plan.bufferBits);
    this.#receive.fill();
  }

  get linkUp(): boolean {
    return (this.card.get('STATUS') & STATUS_LU) !== 0;
  }
}
