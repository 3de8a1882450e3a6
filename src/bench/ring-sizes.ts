/**
 * How many receive buffers an embedded guest of a bench keeps in its card's ring, and how many frames it has
 * on their way.
 *
 * A card fills buffers in the order of the ring, so each of them takes its place in the caches: 512 of 1514
 * bytes are 768 KiB, of 30 guests more than most machines have of third-level cache. A driver need not fill
 * its ring: guests that share a process have as many buffers each as fit together, and no more than they
 * can use. Frames on their way are never more than the receiver has room for (`send-window.ts`).
 */
import { alignUp, MiB } from '../base/bits.ts';
import { BUFFER_ALIGNMENT } from '../driver/buffer-pool.ts';
import { DEFAULT_QUEUE_SIZE, harmlessWindow } from '../guest/embedded/send-window.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';

/** What the buffers of all guests of a process may take, while they are more than the fewest. */
const CACHE_BYTES = 12 * MiB;
/** Receive buffers: as many as stock drivers have (ixgbevf: 512), or such as go with 128, 64 and 32 frames. */
const RINGS = [512, 326, 196, 98] as const;
/** The same where frames wait for interrupts: at 10 Gb/s frames of half a millisecond are more than 400. */
const INTERRUPT_RINGS = [1024, 512] as const;
/** Of so many buffers one may wait for the others before its card is told of it. */
const RETURN_SHARE = 64;

export interface RingSizes {
  readonly queueSize: number;
  readonly receiveBuffers: number;
  readonly sendFrames: number;
}

export interface RingChoice {
  /** Guests that share a process. */
  readonly guests: number;
  /** Bytes of a frame, at most those that are not cut. */
  readonly frame: number;
  /** Guests wait for interrupts. */
  readonly isInterrupted: boolean;
  /** Receive buffers that were asked for. */
  readonly ring?: number | undefined;
}

export function ringSizes({ guests, frame, isInterrupted, ring }: RingChoice): RingSizes {
  if (ring !== undefined) return sizesOf(ring);
  const touched = alignUp(NET_HEADER_BYTES + frame, BUFFER_ALIGNMENT);
  const choices = (isInterrupted ? INTERRUPT_RINGS : RINGS).map(sizesOf);
  const fits = ({ receiveBuffers, sendFrames }: RingSizes): boolean =>
    guests * (receiveBuffers + sendFrames) * touched <= CACHE_BYTES;
  return choices.find(fits) ?? (choices.at(-1) as RingSizes);
}

function sizesOf(receiveBuffers: number): RingSizes {
  return {
    // Whole powers of two, as split virtqueues have them.
    queueSize: Math.max(DEFAULT_QUEUE_SIZE, 2 ** Math.ceil(Math.log2(receiveBuffers))),
    receiveBuffers,
    sendFrames: harmlessWindow(receiveBuffers - Math.ceil(receiveBuffers / RETURN_SHARE)),
  };
}
