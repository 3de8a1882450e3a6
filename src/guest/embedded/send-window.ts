/** How many buffers a guest has, and how many frames it sends at once, unless it is told. */

/** Frames of a guest that does not say, and the largest of them without its check sequence. */
export const DEFAULT_QUEUE_SIZE = 512;
export const DEFAULT_FRAME = 1514;

/**
 * Buffers of one direction take no more than this, unless they are asked for: rings of large
 * buffers are kept short enough for a second-level cache.
 */
const POOL_BYTES = 2 * 1024 * 1024;

/** Frames that a device takes at once. */
const DEVICE_BATCH = 64;

/** Buffers of `bytes` bytes for a queue that holds `queueSize` of them. */
export function fittingBuffers(bytes: number, queueSize: number): number {
  return Math.max(1, Math.min(queueSize, Math.floor(POOL_BYTES / bytes)));
}

/**
 * Frames that one guest may have on their way to another of the same process, so that they always
 * find one of its `buffers`. The receiver looks once between two looks of the sender; until it
 * does, there can arrive what was on its way, as much again that was sent for what the device gave
 * back, and the last batch, which the device may give back before its frames are to be seen.
 */
export function harmlessWindow(buffers: number): number {
  const third = Math.floor(buffers / 3);
  return Math.max(1, third < DEVICE_BATCH ? third : Math.floor((buffers - DEVICE_BATCH) / 2));
}

/**
 * Frames to have for a window: a power of two, so that each frame meets the same descriptors of the ring
 * again and again.
 */
export function framesFor(window: number, queueSize: number): number {
  return Math.min(queueSize, 2 ** Math.ceil(Math.log2(window)));
}
