/**
 * What a queue of an 82599's function needs of the function, and what it gives it: the seams between
 * the rings (`transmit-queue.ts`, `receive-queue.ts`) and the rest of the card.
 */
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { ETHERTYPE_VLAN } from '../../spec/ethernet.ts';
import { IXGBE_RX_QUEUE_REGISTERS, IXGBE_TX_QUEUE_REGISTERS } from '../../spec/ixgbe.ts';
import type { DeviceMemory } from '../device-memory.ts';
import type { QueueBounce } from './queue-bounce.ts';

/** Words from the start of a receive queue's block of registers. */
export const RX = {
  RDBAL: IXGBE_RX_QUEUE_REGISTERS.RDBAL.offset / 4,
  RDBAH: IXGBE_RX_QUEUE_REGISTERS.RDBAH.offset / 4,
  RDLEN: IXGBE_RX_QUEUE_REGISTERS.RDLEN.offset / 4,
  RDH: IXGBE_RX_QUEUE_REGISTERS.RDH.offset / 4,
  SRRCTL: IXGBE_RX_QUEUE_REGISTERS.SRRCTL.offset / 4,
  RDT: IXGBE_RX_QUEUE_REGISTERS.RDT.offset / 4,
  RXDCTL: IXGBE_RX_QUEUE_REGISTERS.RXDCTL.offset / 4,
} as const;

/** Words from the start of a transmit queue's block of registers. */
export const TX = {
  TDBAL: IXGBE_TX_QUEUE_REGISTERS.TDBAL.offset / 4,
  TDBAH: IXGBE_TX_QUEUE_REGISTERS.TDBAH.offset / 4,
  TDLEN: IXGBE_TX_QUEUE_REGISTERS.TDLEN.offset / 4,
  TDH: IXGBE_TX_QUEUE_REGISTERS.TDH.offset / 4,
  TDT: IXGBE_TX_QUEUE_REGISTERS.TDT.offset / 4,
  TXDCTL: IXGBE_TX_QUEUE_REGISTERS.TXDCTL.offset / 4,
  TDWBAL: IXGBE_TX_QUEUE_REGISTERS.TDWBAL.offset / 4,
  TDWBAH: IXGBE_TX_QUEUE_REGISTERS.TDWBAH.offset / 4,
} as const;

/** Bits of RDLEN and TDLEN that count: rings are multiples of 128 bytes (§8.2.3.8.3). */
export const RING_BYTES = 0x000f_ff80;
/** Bits of RDBAL and TDBAL that count (§8.2.3.8.1). */
export const RING_ALIGN = 0xffff_ff80;

/** What became of a frame that {@link ReceiveQueue.put} was given. */
export const DELIVERED = 0;
export const NO_BUFFER = 1;
/** No ring of this shape can ever take it. */
export const TOO_BIG = 2;

/** Descriptors were written back, and the driver is to hear of it. Called once a turn and queue. */
export interface QueueInterrupts {
  received(queue: number): void;
  transmitted(queue: number): void;
}

/** What queues count, once a turn. Bytes are those of frames without check sequence. */
export interface QueueStatistics {
  /** Of a frame that is cut, each segment counts. */
  transmitted(queue: number, frames: number, bytes: number): void;
  received(queue: number, frames: number, bytes: number): void;
  /** Frames for which the driver had given no descriptors. */
  missed(queue: number, frames: number): void;
  /** Frames of the driver that cannot be sent: a length, or offloads that contradict the frame. */
  malformed(queue: number, frames: number, reason: Malformed): void;
}

export const MALFORMED_LENGTH = 0;
export const MALFORMED_OFFLOAD = 1;
export type Malformed = typeof MALFORMED_LENGTH | typeof MALFORMED_OFFLOAD;

/** Registers of the function, or of the physical function behind it, that say how queues work. */
export interface QueueSettings {
  /** EtherType of VLAN tags that are put in (DMATXCTL.VT, VLNCTRL.VET). */
  vlanType: number;
  /** Bytes of check sequence in receive buffers: 0 if it is taken off (RDRXCTL.CRCSTRIP), else 4. */
  fcsBytes: number;
  /** PSRTYPE of the queues' pool: headers that are split off. */
  splitHeaders: number;
}

export function defaultQueueSettings(): QueueSettings {
  return { vlanType: ETHERTYPE_VLAN, fcsBytes: 0, splitHeaders: 0 };
}

/** Where a transmit queue's frames go: the function, which knows its card. */
export interface TransmitSink {
  /**
   * Takes the frames of a burst, whose offloads are virtio_net_hdr metadata that passed
   * `classifyOffload`; `burst.needs` has its masks. When it returns, all copies are done.
   */
  send(burst: Burst): void;
  /** The sender has been told: receivers may be now. */
  publish(): void;
}

export interface QueueParts {
  readonly path: DataPath;
  /** Made for {@link queueClients} clients. */
  readonly memory: DeviceMemory;
  /** The function's registers; the pages of its queues may be mapped into the guest. */
  readonly words: Uint32Array;
  readonly interrupts: QueueInterrupts;
  readonly statistics: QueueStatistics;
  readonly settings: QueueSettings;
  /** Lane memory for what cannot be reached at an address of ours. */
  readonly bounce: QueueBounce;
}

/** Clients of {@link DeviceMemory} that a function with so many queue pairs has. */
export function queueClients(queues: number): number {
  return 2 * queues;
}

export function transmitClient(queue: number): number {
  return 2 * queue;
}

export function receiveClient(queue: number): number {
  return 2 * queue + 1;
}

/** Descriptors that one turn of a queue takes at most. */
export const WINDOW = 64;
