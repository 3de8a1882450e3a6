/** What a switch, a wire and a device model have in common: a place where frames go in and out. */
import { CounterBlock } from '../base/counters.ts';
import type { Burst } from './burst.ts';

/**
 * Offloads that a port's receiver can take in metadata (virtio_net_hdr). What is missing, the
 * sender's side of the switch does in software.
 */
export const OFFLOAD_CSUM = 1;
export const OFFLOAD_TSO4 = 2;
export const OFFLOAD_TSO6 = 4;
export const OFFLOAD_ECN = 8;
export const OFFLOAD_USO4 = 16;
export const OFFLOAD_USO6 = 32;

/** Directions are the guest's view: `tx` counts what the port's guest sent, `rx` what it got. */
export const PORT_COUNTERS = [
  'tx_frames',
  'tx_bytes',
  'rx_frames',
  'rx_bytes',
  /** The receiver had no buffer. */
  'rx_drop_no_buffer',
  /** The link is down, the guest has not started its driver, or it is disabled. */
  'rx_drop_link_down',
  /** Larger than the receiver can take. */
  'rx_drop_too_big',
  /** A VLAN that the port does not carry. */
  'rx_drop_vlan',
  /** The rate limit towards the guest. */
  'rx_drop_rate',
  /** To be cut or checksummed in software, but its headers are not what the metadata say. */
  'rx_drop_bad_offload',
  /** Shorter than an Ethernet header, or longer than any frame can be. */
  'tx_drop_bad_length',
  /** Offload metadata that contradict the frame. */
  'tx_drop_bad_offload',
  /** A source address that the port may not use. */
  'tx_drop_spoof',
  /** A VLAN that the port does not carry. */
  'tx_drop_vlan',
  /** Nobody to deliver to. */
  'tx_drop_no_target',
  /** Frames that were cut into segments in software, and the segments made of them. */
  'gso_frames',
  'gso_segments',
  /** Frames whose checksum was computed in software. */
  'csum_frames',
  'kicks',
  'calls',
] as const;

export type PortCounter = (typeof PORT_COUNTERS)[number];

/** Index of a counter in {@link PortCounters}.values. */
export const PORT_COUNTER_INDEX = Object.fromEntries(
  PORT_COUNTERS.map((name, i) => [name, i]),
) as Readonly<Record<PortCounter, number>>;

export function newPortCounters(shared?: SharedArrayBuffer): CounterBlock<PortCounter> {
  return new CounterBlock(PORT_COUNTERS, shared);
}

/** The receiving end of frames: a device model's receive queues, a tap, a capture, another switch. */
export interface Port {
  /** Unique in the lane: `web/net0`, `lan/wire`. */
  readonly name: string;
  readonly counters: CounterBlock<PortCounter>;
  /** Offloads that frames may carry to this port, a mask of OFFLOAD_*. May change when a driver starts. */
  readonly offloads: number;
  /**
   * Takes the frames `frames[0…count)` (indices into the burst), in order. Copies are queued, not
   * done: source and destination stay valid until {@link flush} of this port. What cannot be taken is dropped
   * and counted here. `tagged` asks for the 802.1Q tag of the frame's VLAN in the delivered frame.
   */
  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void;
  /** The burst is over and its copies are done: publish rings, call the guest. */
  flush(): void;
}

/** Where the frames of a port go: implemented by the switch and by direct wires. */
export interface PortOwner {
  /**
   * Takes the frames of a burst that came in by `port`. When it returns, all copies are done: the
   * sender may be told so, before the receivers are told of their frames by {@link publish}.
   * (A receiver may answer at once, and the sender then needs its descriptors back.)
   */
  forward(port: Port, burst: Burst): void;
  /** Tells all ports of the frames that they got since the last time. */
  publish(): void;
}

/** Sees frames as they pass a port, and must copy what it wants to keep: a capture. */
export interface FrameObserver {
  /** Frames `list[0…count)` of the burst; `sent` if the port's guest sent them. `now` in ns. */
  frames(burst: Burst, list: Uint8Array, count: number, sent: boolean, now: number): void;
}
