/** The queue pairs of an 82599's function, physical or virtual: what both drivers have in common. */
import { SluiceError } from '../../base/errors.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { IXGBE_RX_QUEUE_REGISTERS } from '../../spec/ixgbe.ts';
import {
  IXGBE_DESCTYPE_ONE_BUFFER,
  IXGBE_RXD_ERROR_IP,
  IXGBE_RXD_ERROR_L4,
  IXGBE_RXD_L4_CHECKED,
  IXGBE_SRRCTL_DROP,
  IXGBE_SRRCTL_TYPE_SHIFT,
} from '../../spec/ixgbe-descriptors.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { BUFFER_ALIGNMENT, BufferPool } from '../buffer-pool.ts';
import type { NetPair } from '../net-pair.ts';
import type { CallGate } from '../nic/call-gate.ts';
import { DescriptorRing } from '../nic/descriptor-ring.ts';
import { type ReceiveFormat, ReceiveQueue } from '../nic/receive-queue.ts';
import type { IxgbePlan } from './plan.ts';
import { QueueRegisters, type RegisterAccess } from './register-access.ts';
import { IxgbeTransmitQueue } from './transmit-queue.ts';

/** Written back (§7.1.6.2): status and errors in the third word, length in the fourth. */
const RECEIVE_STATUS_WORD = 2;
const RECEIVE_FORMAT: ReceiveFormat = {
  statusWord: RECEIVE_STATUS_WORD,
  lengthWord: 3,
  checkedMask: IXGBE_RXD_L4_CHECKED | IXGBE_RXD_ERROR_L4 | IXGBE_RXD_ERROR_IP,
  checked: IXGBE_RXD_L4_CHECKED,
};
/** Data descriptors (§7.2.3.2.4): DD is in the fourth word. */
const TRANSMIT_STATUS_WORD = 3;
const BUFFER_UNIT_SHIFT = 10;
/** Where the tail is a trap, the card is told of buffers when so large a part of the ring waits for that. */
const RETURN_SHARE = 8;
const MAPPED_RETURN_SHARE = 64;

/** Of `buffers`, how many wait for more before the card is told of them. */
export function returnedAt(buffers: number, isMapped: boolean): number {
  return Math.ceil(buffers / (isMapped ? MAPPED_RETURN_SHARE : RETURN_SHARE));
}

export interface QueuePairParts {
  readonly plan: IxgbePlan;
  readonly memory: DriverMemory;
  readonly registers: RegisterAccess;
  /** Where the block of registers of each queue begins, in BAR 0. */
  readonly receiveBlock: (queue: number) => number;
  readonly transmitBlock: (queue: number) => number;
  readonly gateOf: (pair: number) => CallGate;
  /** How many of the planned pairs the function has. */
  readonly count: number;
  readonly checkContext: boolean;
}

interface Rings {
  readonly transmit: DescriptorRing;
  readonly transmitRegisters: QueueRegisters;
  readonly receive: DescriptorRing;
  readonly receiveRegisters: QueueRegisters;
  readonly receiver: ReceiveQueue;
}

export class QueuePairs {
  readonly pairs: readonly NetPair[];
  readonly #plan: IxgbePlan;
  readonly #rings: readonly Rings[];

  /** @throws SluiceError `memory` for memory that is not where the plan says */
  constructor(parts: QueuePairParts) {
    const { plan, memory } = parts;
    if (memory.guestAddress !== plan.guestAddress || memory.size < plan.bytes) {
      throw new SluiceError('memory', `${memory.size} bytes for a driver of ${plan.bytes}`);
    }
    this.#plan = plan;
    const made = plan.pairs.slice(0, parts.count).map((_, index) => makePair(parts, index));
    this.#rings = made.map(({ rings }) => rings);
    this.pairs = made.map(({ pair }) => pair);
  }

  /** Starts all transmit queues (§4.6.8). */
  startTransmit(): void {
    for (const { transmit, transmitRegisters } of this.#rings) {
      transmit.start();
      transmitRegisters.enable(0);
    }
  }

  /** Starts all receive queues, and gives them their buffers (§4.6.7). */
  startReceive(): void {
    const kibibytes = this.#plan.bufferBytes >>> BUFFER_UNIT_SHIFT;
    const type = IXGBE_DESCTYPE_ONE_BUFFER << IXGBE_SRRCTL_TYPE_SHIFT;
    for (const { receive, receiveRegisters, receiver } of this.#rings) {
      receive.start();
      receiveRegisters.set(
        IXGBE_RX_QUEUE_REGISTERS.SRRCTL.offset,
        kibibytes | type | IXGBE_SRRCTL_DROP,
      );
      receiveRegisters.enable(0);
      receiver.fill();
    }
  }
}

function makePair(parts: QueuePairParts, index: number): { rings: Rings; pair: NetPair } {
  const { plan, memory, registers, gateOf } = parts;
  const { sendBytes, sendFrames, receiveBuffers, coalesce } = plan.options;
  const places = plan.pairs[index];
  if (places === undefined) throw new SluiceError('config', `queue pair ${index} has no place`);
  const pool = (offset: number, count: number, bytes: number): BufferPool =>
    new BufferPool(memory, offset, count, NET_HEADER_BYTES + bytes, BUFFER_ALIGNMENT);
  const transmitRegisters = new QueueRegisters(registers, parts.transmitBlock(index));
  const receiveRegisters = new QueueRegisters(registers, parts.receiveBlock(index));
  const transmit = new DescriptorRing(
    transmitRegisters,
    memory,
    places.transmitRing,
    plan.transmitEntries,
    TRANSMIT_STATUS_WORD,
  );
  const receive = new DescriptorRing(
    receiveRegisters,
    memory,
    places.receiveRing,
    plan.receiveEntries,
    RECEIVE_STATUS_WORD,
  );
  const receiver = new ReceiveQueue({
    ring: receive,
    gate: gateOf(index),
    memory,
    format: RECEIVE_FORMAT,
    pool: pool(places.receivePool, receiveBuffers, plan.bufferBytes),
    large:
      coalesce === undefined
        ? undefined
        : { pool: pool(places.largePool, coalesce.buffers, coalesce.frame), frame: coalesce.frame },
    returnAt: returnedAt(receiveBuffers, receiveRegisters.isMapped),
  });
  return {
    rings: { transmit, transmitRegisters, receive, receiveRegisters, receiver },
    pair: {
      receive: receiver,
      transmit: new IxgbeTransmitQueue(transmit, gateOf(index), memory, parts.checkContext),
      sendPool: pool(places.sendPool, sendFrames, sendBytes),
    },
  };
}
