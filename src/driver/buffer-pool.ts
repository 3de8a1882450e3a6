/** Equal buffers, one after the other in a guest's memory: numbered, so that a buffer is an index. */
import type { DriverMemory } from '../ring/driver-queue.ts';

/**
 * Buffers begin on a cache line: a virtio_net_hdr and the frame's first 52 bytes share it, and both
 * sides touch one line for all that they look at in a small frame.
 */
export const BUFFER_ALIGNMENT = 64;

export class BufferPool {
  readonly count: number;
  /** Bytes of one buffer that may be used. */
  readonly bytes: number;
  /** Bytes from one buffer to the next. */
  readonly stride: number;
  /** Offset of buffer 0 from the beginning of the guest's memory. */
  readonly first: number;
  readonly #guestAddress: number;

  /** `alignment`: a power of two from {@link BUFFER_ALIGNMENT} on; `first` must be a multiple of it. */
  constructor(
    memory: DriverMemory,
    first: number,
    count: number,
    bytes: number,
    alignment = BUFFER_ALIGNMENT,
  ) {
    this.count = count;
    this.bytes = bytes;
    this.stride = strideOf(bytes, alignment);
    this.first = first;
    this.#guestAddress = memory.guestAddress + first;
  }

  /** Guest physical addresses of all buffers, by index. */
  addresses(): Float64Array {
    return Float64Array.from(
      { length: this.count },
      (_, index) => this.#guestAddress + index * this.stride,
    );
  }

  /** Bytes that a pool takes. */
  static bytesFor(count: number, bytes: number, alignment = BUFFER_ALIGNMENT): number {
    return count * strideOf(bytes, alignment);
  }
}

function strideOf(bytes: number, alignment: number): number {
  const units = Math.ceil(bytes / alignment);
  if (alignment > BUFFER_ALIGNMENT) return units * alignment;
  // An odd number of lines: equal offsets of different buffers fall into different cache sets.
  return (units % 2 === 0 ? units + 1 : units) * BUFFER_ALIGNMENT;
}
