/** Lists of memory ranges for writev(2): struct iovec, a pointer and a length. */
import { TWO_32 } from '../base/bits.ts';
import { pinned } from './libc.ts';

/** Entries that one system call takes (uapi/linux/uio.h, UIO_MAXIOV). */
export const IOV_MAX = 1024;

const IOVEC_BYTES = 16;
const IOVEC_WORDS = IOVEC_BYTES / 4;

export class IoVector {
  /** The list, for the system call. */
  readonly bytes: Uint8Array;
  count = 0;
  readonly #words: Uint32Array;
  readonly #base: number;

  /** @param base the process's pointer to address 0 of the ranges that {@link add} takes */
  constructor(base: bigint) {
    const { buffer } = pinned(IOV_MAX * IOVEC_BYTES);
    this.bytes = new Uint8Array(buffer);
    this.#words = new Uint32Array(buffer);
    // User addresses are below 2^47: exact as a number.
    this.#base = Number(base);
  }

  clear(): void {
    this.count = 0;
  }

  /** Adds a range; there must be room ({@link IOV_MAX}). */
  add(address: number, length: number): void {
    const pointer = this.#base + address;
    const at = this.count++ * IOVEC_WORDS;
    const words = this.#words;
    words[at] = pointer % TWO_32;
    words[at + 1] = Math.floor(pointer / TWO_32);
    words[at + 2] = length;
    words[at + 3] = 0;
  }
}
