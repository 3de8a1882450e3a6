/** What a guest does with a pair of queues. */

import type { NetPair } from '../../driver/net-pair.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { GuestRam } from './guest-ram.ts';

/** What every role gets. */
export interface RoleContext {
  readonly ram: GuestRam;
  readonly pair: NetPair;
  readonly loop: PollLoop;
  /** The guest's own address. */
  readonly mac: Uint8Array;
  readonly mtu: number;
  /** Frames that a source may have on their way at once; at most those of the pair's pool. */
  readonly sendWindow: number;
}

/** The polled part of a guest; see `Poller` for poll, arm and disarm. */
export interface Role {
  poll(): number;
  arm(): boolean;
  disarm(): void;
  /** Ends sending; frames on their way are still taken back. */
  stop(): void;
  /** True once nothing of this role's is in the transmit queue. */
  readonly drained: boolean;
}

/** What a role has counted since it started. All numbers are exact. */
export interface RoleCounts {
  /** Frames and bytes handed to the device, and of each flow how many frames. */
  readonly sent: number;
  readonly sentBytes: number;
  readonly sentByFlow: Readonly<Record<number, number>>;
  /** Test frames and their bytes taken from the device. */
  readonly received: number;
  readonly receivedBytes: number;
  /** The same bytes, of each flow. */
  readonly receivedBytesByFlow: Readonly<Record<number, number>>;
  /** Sequence numbers passed over that have not come. */
  readonly missing: number;
  readonly reordered: number;
  readonly duplicates: number;
  /** Frames whose checksum was looked at, and those whose was wrong. */
  readonly verified: number;
  readonly corrupt: number;
  /** Frames whose virtio_net_hdr did not fit their kind. */
  readonly badMetadata: number;
  /** Frames that no source sent. */
  readonly foreign: number;
  /** Round trips. */
  readonly roundTrips: number;
  /** Pings that were given up. */
  readonly timeouts: number;
  /** Microseconds; 0 without round trips. */
  readonly latencyUs: { readonly p50: number; readonly p99: number };
}

export const NO_COUNTS: RoleCounts = {
  sent: 0,
  sentBytes: 0,
  sentByFlow: {},
  received: 0,
  receivedBytes: 0,
  receivedBytesByFlow: {},
  missing: 0,
  reordered: 0,
  duplicates: 0,
  verified: 0,
  corrupt: 0,
  badMetadata: 0,
  foreign: 0,
  roundTrips: 0,
  timeouts: 0,
  latencyUs: { p50: 0, p99: 0 },
};
