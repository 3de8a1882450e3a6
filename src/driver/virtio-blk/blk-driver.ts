/**
 * A virtio-blk driver: lays its queues, headers and buffers out in a guest's memory. Which requests
 * are made is its user's matter.
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
import { BUFFER_ALIGNMENT, BufferPool } from '../buffer-pool.ts';
import type { BlkConfig } from './config.ts';
import type { BlkFeatures } from './negotiation.ts';
import { HEADER_STRIDE, RequestQueue } from './request-queue.ts';

/** Header and status of a request take a descriptor each. */
const EXTRA_SEGMENTS = 2;

/** Data lies as in a guest's page cache: aligned for a disk that is opened with O_DIRECT. */
const DATA_ALIGNMENT = 4096;

export interface BlkDriverOptions {
  readonly queues: number;
  readonly queueSize: number;
  /** Requests that can be on their way at once, per queue. */
  readonly slots: number;
  /** Bytes of data of the largest request. */
  readonly requestBytes: number;
  /** Bytes of one segment, if it is to be less than the device allows. */
  readonly segmentBytes?: number;
}

/** Where everything lies, before there is memory for it. */
export interface BlkDriverPlan {
  readonly options: BlkDriverOptions;
  readonly features: BlkFeatures;
  readonly guestAddress: number;
  /** Bytes of memory that the driver needs from `guestAddress` on. */
  readonly bytes: number;
  readonly queues: readonly QueueLayout[];
  readonly segmentBytes: number;
  /** Segments of data that one request may have. */
  readonly segments: number;
  /** Offsets of headers and of data, by queue. */
  readonly places: readonly { readonly headers: number; readonly data: number }[];
}

/** Lays a driver out. @throws SluiceError `ring` or `config` for sizes that cannot be. */
export function planBlkDriver(
  features: BlkFeatures,
  config: BlkConfig,
  options: BlkDriverOptions,
  guestAddress: number,
): BlkDriverPlan {
  const { queueSize, slots, requestBytes } = options;
  const segmentBytes = Math.min(options.segmentBytes ?? requestBytes, config.segmentBytes);
  const segments = Math.max(1, Math.ceil(requestBytes / segmentBytes));
  if (segments > config.segments) {
    throw new SluiceError(
      'config',
      `requests of ${requestBytes} bytes to a device that takes ${config.segments} segments of ${segmentBytes}`,
      { remedy: `choose at most ${config.segments * segmentBytes} bytes` },
    );
  }
  // An indirect table may not be longer than the ring (§2.7.5.3.1).
  const chain = segments + EXTRA_SEGMENTS;
  const table = features.ring.indirect && chain <= queueSize ? chain : 0;
  const most = table === 0 ? Math.floor(queueSize / chain) : queueSize;
  if (!Number.isInteger(slots) || slots < 1 || slots > most) {
    throw new SluiceError(
      'config',
      `${slots} requests of ${chain} descriptors in a queue of ${queueSize}`,
      { remedy: most < 1 ? `choose a queue of ${chain} or more` : `choose 1 to ${most}` },
    );
  }
  let at = 0;
  const queues = Array.from({ length: options.queues }, () => {
    const layout = layOutQueue(guestAddress + at, queueSize, features.packed, table);
    at += alignUp(layout.bytes, BUFFER_ALIGNMENT);
    return layout;
  });
  const places = queues.map(() => {
    const headers = alignUp(at, BUFFER_ALIGNMENT);
    const data = alignUp(headers + slots * HEADER_STRIDE, DATA_ALIGNMENT);
    at = data + BufferPool.bytesFor(slots, requestBytes, DATA_ALIGNMENT);
    return { headers, data };
  });
  return {
    options,
    features,
    guestAddress,
    bytes: alignUp(at, DATA_ALIGNMENT),
    queues,
    segmentBytes,
    segments,
    places,
  };
}

export class BlkDriver {
  readonly plan: BlkDriverPlan;
  readonly features: BlkFeatures;
  readonly memory: DriverMemory;
  readonly queues: readonly RequestQueue[];

  /**
   * Initialises the rings in `memory`, which begins where the plan says. `kicks` holds one for
   * each queue. The device must not process the queues before this returns.
   */
  constructor(plan: BlkDriverPlan, memory: DriverMemory, kicks: readonly Kick[]) {
    this.plan = plan;
    this.features = plan.features;
    this.memory = memory;
    if (memory.guestAddress !== plan.guestAddress || memory.size < plan.bytes) {
      throw new SluiceError('memory', `${memory.size} bytes for a driver of ${plan.bytes}`);
    }
    const { options, features, segmentBytes, segments } = plan;
    this.queues = plan.queues.map((layout, index) => {
      const kick = kicks[index];
      const place = plan.places[index];
      if (kick === undefined || place === undefined) {
        throw new SluiceError('state', `no kick for queue ${index}`);
      }
      return new RequestQueue({
        queue: createDriverQueue({ ...features.ring, memory, layout, kick }),
        memory,
        headers: place.headers,
        pool: new BufferPool(
          memory,
          place.data,
          options.slots,
          options.requestBytes,
          DATA_ALIGNMENT,
        ),
        segmentBytes,
        segments,
      });
    });
  }
}
