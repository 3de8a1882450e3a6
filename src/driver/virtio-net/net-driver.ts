/**
 * A virtio-net driver: lays its queues and buffers out in a guest's memory, and keeps the receive
 * queues filled. What it sends and what becomes of received frames is its user's matter.
 */
import { alignUp } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import { createDriverQueue } from '../../ring/create-driver.ts';
import {
  type DriverMemory,
  type Kick,
  layOutQueue,
  type QueueLayout,
} from '../../ring/driver-queue.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { BUFFER_ALIGNMENT, BufferPool } from '../buffer-pool.ts';
import type { NetFeatures } from './negotiation.ts';
import { ReceiveQueue } from './receive-queue.ts';
import { TransmitQueue } from './transmit-queue.ts';

/**
 * The largest frame with segmentation offload: an Ethernet header and 65535 bytes of IP, rounded as
 * §5.1.6.3.1 does it (65550 bytes, and the header of 12).
 */
export const LARGE_RECEIVE_BYTES = 65562;

/** Descriptors of an indirect table: a header and as many pages as 64 KiB can touch. */
export const INDIRECT_LENGTH = 18;

export interface NetDriverOptions {
  readonly queuePairs: number;
  readonly queueSize: number;
  /** Largest frame that is sent, without virtio_net_hdr. */
  readonly sendBytes: number;
  /** Frames that can be on their way at once, per pair; at most the queue size. */
  readonly sendFrames: number;
  /** Bytes of one receive buffer, virtio_net_hdr included. */
  readonly receiveBytes: number;
  /** Receive buffers, per pair; at most the queue size. */
  readonly receiveBuffers: number;
}

/** Where everything lies, before there is memory for it. */
export interface NetDriverPlan {
  readonly options: NetDriverOptions;
  readonly features: NetFeatures;
  readonly guestAddress: number;
  /** Bytes of memory that the driver needs from `guestAddress` on. */
  readonly bytes: number;
  /** Receive queue of pair 0, transmit queue of pair 0, receive queue of pair 1 … */
  readonly queues: readonly QueueLayout[];
  /** Offsets of the receive and of the transmit pool, by pair. */
  readonly pools: readonly { readonly receive: number; readonly send: number }[];
}

/** Bytes of a receive buffer that takes frames of `frame` bytes whole, under these features. */
export function receiveBytesFor(frame: number, features: NetFeatures): number {
  const bytes = NET_HEADER_BYTES + frame;
  // Without mergeable buffers each must take the largest frame that can come (§5.1.6.3.1).
  const least = features.receivesLarge && !features.mergeable ? LARGE_RECEIVE_BYTES : 0;
  return alignUp(Math.max(bytes, least), BUFFER_ALIGNMENT);
}

/** Lays a driver out. @throws SluiceError `ring` or `config` for sizes that cannot be. */
export function planNetDriver(
  features: NetFeatures,
  options: NetDriverOptions,
  guestAddress: number,
): NetDriverPlan {
  const { queuePairs, queueSize, sendFrames, receiveBuffers } = options;
  for (const [what, value] of [
    ['send frames', sendFrames],
    ['receive buffers', receiveBuffers],
  ] as const) {
    if (!Number.isInteger(value) || value < 1 || value > queueSize) {
      throw new SluiceError('config', `${value} ${what} for a queue of ${queueSize}`, {
        remedy: `choose 1 to ${queueSize}`,
      });
    }
  }
  let at = 0;
  const queues: QueueLayout[] = [];
  for (let index = 0; index < 2 * queuePairs; index++) {
    const table = index % 2 === 1 && features.ring.indirect ? INDIRECT_LENGTH : 0;
    const layout = layOutQueue(guestAddress + at, queueSize, features.packed, table);
    queues.push(layout);
    at += alignUp(layout.bytes, BUFFER_ALIGNMENT);
  }
  const pools = Array.from({ length: queuePairs }, () => {
    const receive = alignUp(at, 4096);
    const send = alignUp(receive + BufferPool.bytesFor(receiveBuffers, options.receiveBytes), 4096);
    at = send + BufferPool.bytesFor(sendFrames, NET_HEADER_BYTES + options.sendBytes);
    return { receive, send };
  });
  return { options, features, guestAddress, bytes: alignUp(at, 4096), queues, pools };
}

/** One pair of queues, ready to use. */
export interface NetQueuePair {
  readonly receive: ReceiveQueue;
  readonly transmit: TransmitQueue;
  /** Where frames to send can be written: the driver itself puts nothing there. */
  readonly sendPool: BufferPool;
}

export class NetDriver {
  readonly plan: NetDriverPlan;
  readonly features: NetFeatures;
  readonly memory: DriverMemory;
  readonly pairs: readonly NetQueuePair[];

  /**
   * Initialises the rings in `memory`, which begins where the plan says. `kicks` holds one for
   * each queue of the plan. The device must not process the queues before this returns.
   */
  constructor(plan: NetDriverPlan, memory: DriverMemory, kicks: readonly Kick[]) {
    this.plan = plan;
    this.features = plan.features;
    this.memory = memory;
    if (memory.guestAddress !== plan.guestAddress || memory.size < plan.bytes) {
      throw new SluiceError('memory', `${memory.size} bytes for a driver of ${plan.bytes}`);
    }
    const { options, features } = plan;
    const queues = plan.queues.map((layout, index) => {
      const kick = kicks[index];
      if (kick === undefined) throw new SluiceError('state', `no kick for queue ${index}`);
      return createDriverQueue({ ...features.ring, memory, layout, kick });
    });
    this.pairs = plan.pools.map(({ receive, send }, pair) => {
      const receiveQueue = queues[2 * pair];
      const transmitQueue = queues[2 * pair + 1];
      if (receiveQueue === undefined || transmitQueue === undefined) {
        throw new SluiceError('state', `no queues for pair ${pair}`);
      }
      const pool = new BufferPool(memory, receive, options.receiveBuffers, options.receiveBytes);
      return {
        receive: new ReceiveQueue(receiveQueue, memory, pool, features.mergeable),
        transmit: new TransmitQueue(transmitQueue),
        sendPool: new BufferPool(
          memory,
          send,
          options.sendFrames,
          NET_HEADER_BYTES + options.sendBytes,
        ),
      };
    });
  }

  /** Gives the receive buffers to the device: once it may run, or has been started. */
  start(): void {
    for (const { receive } of this.pairs) receive.fill();
  }
}
