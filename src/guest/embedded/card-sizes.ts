/** How many buffers a guest's card has, and how many frames it sends at once, unless the guest is told. */
import {
  ETHERNET_DEFAULT_MTU,
  ETHERNET_HEADER_BYTES,
  IPV4_TCP_HEADER_BYTES,
} from '../../spec/ethernet.ts';
import type { GuestSpec } from './protocol.ts';
import {
  DEFAULT_FRAME,
  DEFAULT_QUEUE_SIZE,
  fittingBuffers,
  framesFor,
  harmlessWindow,
} from './send-window.ts';

const HEADER_BYTES = ETHERNET_HEADER_BYTES + IPV4_TCP_HEADER_BYTES;

/** Frames above the MTU of which a guest puts so many together at once. */
const LARGE_BUFFERS = 32;

export interface CardSizes {
  /** Largest frame that is sent. */
  readonly sendBytes: number;
  /** Frames that can be on their way, and how many of them a source uses. */
  readonly sendFrames: number;
  readonly sendWindow: number;
  readonly receiveBuffers: number;
  readonly mtu: number;
  /** The card cuts large frames, and the receiver's driver puts them together. */
  readonly coalesce: { readonly frame: number; readonly buffers: number } | undefined;
}

/** @param usable of so many buffers, how many the device surely knows of when a frame comes */
export function cardSizes(spec: GuestSpec, usable: (buffers: number) => number): CardSizes {
  const mtu = spec.mtu ?? ETHERNET_DEFAULT_MTU;
  const queueSize = spec.queueSize ?? DEFAULT_QUEUE_SIZE;
  const frame = spec.frame ?? DEFAULT_FRAME;
  const isCut = frame > mtu + ETHERNET_HEADER_BYTES;
  const receiveBuffers = spec.receiveBuffers ?? fittingBuffers(mtu, queueSize);
  // A large frame takes a buffer for each segment.
  const segments = isCut ? Math.ceil((frame - HEADER_BYTES) / (mtu - IPV4_TCP_HEADER_BYTES)) : 1;
  const window = harmlessWindow(Math.floor(usable(receiveBuffers) / segments));
  const sendWindow = spec.sendFrames ?? Math.min(fittingBuffers(frame, queueSize), window);
  return {
    sendBytes: frame,
    sendFrames: framesFor(sendWindow, queueSize),
    sendWindow,
    receiveBuffers,
    mtu,
    coalesce: isCut ? { frame, buffers: LARGE_BUFFERS } : undefined,
  };
}
