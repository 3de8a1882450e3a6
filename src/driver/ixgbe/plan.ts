/** How a driver of an 82599's function lays rings and buffers out in a guest's memory. */
import { alignUp } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import { ETHERNET_HEADER_BYTES } from '../../spec/ethernet.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { BufferPool } from '../buffer-pool.ts';
import { DescriptorRing, ringEntries } from '../nic/descriptor-ring.ts';
import { descriptorsOf } from './transmit-queue.ts';

export interface IxgbeDriverOptions {
  /** Largest frame that is sent, without virtio_net_hdr; above the MTU the card cuts it. */
  readonly sendBytes: number;
  /** Frames that can be on their way at once, per pair. */
  readonly sendFrames: number;
  /** Buffers that wait for frames, per pair. */
  readonly receiveBuffers: number;
  readonly mtu: number;
  /** Queue pairs to use, if the function has so many. */
  readonly pairs: number;
  /** Largest frame that received segments are put together to; undefined: they are left as they are. */
  readonly coalesce?: { readonly frame: number; readonly buffers: number } | undefined;
  /** Interrupts a second of a queue pair at most; 0: no throttle. */
  readonly interruptsPerSecond?: number;
}

/** Where one pair of queues lies: offsets in the guest's memory. */
export interface PairPlan {
  readonly transmitRing: number;
  readonly receiveRing: number;
  readonly receivePool: number;
  readonly largePool: number;
  readonly sendPool: number;
}

/** Where everything lies, before there is memory for it. */
export interface IxgbePlan {
  readonly options: IxgbeDriverOptions;
  readonly guestAddress: number;
  /** Bytes of memory that the driver needs from `guestAddress` on. */
  readonly bytes: number;
  readonly transmitEntries: number;
  readonly receiveEntries: number;
  /** Bytes that the card may write into a buffer: whole KiB. */
  readonly bufferBytes: number;
  readonly pairs: readonly PairPlan[];
}

/** SRRCTL.BSIZEPACKET (§8.2.3.8.7): from 2 KiB here, so that no frame of 1500 bytes takes two. */
const BUFFER_UNIT = 1024;
const LEAST_BUFFER = 2048;
const MOST_BUFFER = 16384;
const PAGE = 4096;

/** Lays a driver out. @throws SluiceError `config` for sizes that cannot be. */
export function planIxgbe(options: IxgbeDriverOptions, guestAddress: number): IxgbePlan {
  const { sendBytes, sendFrames, receiveBuffers, mtu, coalesce } = options;
  const frame = mtu + ETHERNET_HEADER_BYTES;
  if (frame > MOST_BUFFER) throw new SluiceError('config', `an MTU of ${mtu} on an 82599`);
  const transmitDescriptors = sendFrames * descriptorsOf(sendBytes);
  const transmitEntries = ringEntries(transmitDescriptors);
  const receiveEntries = ringEntries(receiveBuffers);
  for (const [what, entries, wanted] of [
    ['frames to send', transmitEntries, transmitDescriptors],
    ['receive buffers', receiveEntries, receiveBuffers],
  ] as const) {
    if (!Number.isInteger(wanted) || wanted < 1 || wanted >= entries) {
      throw new SluiceError('config', `${wanted} descriptors for ${what}`);
    }
  }
  const bufferBytes = Math.max(LEAST_BUFFER, alignUp(frame, BUFFER_UNIT));
  const largeBytes =
    coalesce === undefined
      ? 0
      : BufferPool.bytesFor(coalesce.buffers, NET_HEADER_BYTES + coalesce.frame);
  let at = 0;
  const place = (bytes: number): number => {
    const here = at;
    at = alignUp(at + bytes, PAGE);
    return here;
  };
  const pairs = Array.from({ length: options.pairs }, () => ({
    transmitRing: place(DescriptorRing.bytes(transmitEntries)),
    receiveRing: place(DescriptorRing.bytes(receiveEntries)),
    receivePool: place(BufferPool.bytesFor(receiveBuffers, NET_HEADER_BYTES + bufferBytes)),
    largePool: place(largeBytes),
    sendPool: place(BufferPool.bytesFor(sendFrames, NET_HEADER_BYTES + sendBytes)),
  }));
  return {
    options,
    guestAddress,
    bytes: at,
    transmitEntries,
    receiveEntries,
    bufferBytes,
    pairs,
  };
}
