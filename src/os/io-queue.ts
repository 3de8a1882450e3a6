/**
 * A list of memory ranges that sendmsg(2) and recvmsg(2) work through from its front, over as many
 * calls as it takes: struct iovec, with the struct msghdr that points to them.
 */
import { TWO_32 } from '../base/bits.ts';
import { IOV_MAX } from './io-vector.ts';
import { pinned } from './libc.ts';

const IOVEC_BYTES = 16;
const IOVEC_WORDS = IOVEC_BYTES / 4;

// struct msghdr on a 64-bit Linux: words of msg_iov and msg_iovlen.
const MSGHDR_BYTES = 56;
const MSG_IOV_WORD = 16 / 4;
const MSG_IOVLEN_WORD = 24 / 4;

export class IoQueue {
  readonly capacity: number;
  /** Ranges `head` to `tail` - 1 are left: addresses (see the constructor) and bytes. */
  readonly address: Float64Array;
  readonly length: Uint32Array;
  head = 0;
  tail = 0;
  /** The struct msghdr of the ranges that {@link prepare} chose, for the system call. */
  readonly message: bigint;
  readonly #words: Uint32Array;
  readonly #base: number;
  readonly #listPointer: number;
  readonly #listWord: number;

  /**
   * @param base the process's pointer to address 0 of the ranges that {@link add} takes
   * @param capacity ranges that it holds
   */
  constructor(base: bigint, capacity: number) {
    const { buffer, address } = pinned(MSGHDR_BYTES + 8 + capacity * IOVEC_BYTES);
    this.capacity = capacity;
    this.address = new Float64Array(capacity);
    this.length = new Uint32Array(capacity);
    this.message = address;
    this.#words = new Uint32Array(buffer);
    this.#listWord = (MSGHDR_BYTES + 8) / 4;
    // User addresses are below 2^47: exact as numbers.
    this.#listPointer = Number(address) + MSGHDR_BYTES + 8;
    this.#base = Number(base);
  }

  /** Ranges that can still be added. */
  get room(): number {
    return this.capacity - this.tail;
  }

  get empty(): boolean {
    return this.head === this.tail;
  }

  clear(): void {
    this.head = 0;
    this.tail = 0;
  }

  /** Adds a range; there must be room. */
  add(address: number, length: number): void {
    const index = this.tail++;
    this.address[index] = address;
    this.length[index] = length;
    this.#write(index);
  }

  /** Takes `bytes` bytes (no more than there are) off the front. */
  consume(bytes: number): void {
    let left = bytes;
    while (left > 0) {
      const { head } = this;
      const length = this.length[head] as number;
      if (left < length) {
        this.address[head] = (this.address[head] as number) + left;
        this.length[head] = length - left;
        this.#write(head);
        return;
      }
      left -= length;
      this.head = head + 1;
    }
    if (this.head === this.tail) this.clear();
  }

  /** Points the message to the ranges at the front, as many as one call takes. */
  prepare(): void {
    const words = this.#words;
    const list = this.#listPointer + this.head * IOVEC_BYTES;
    words[MSG_IOV_WORD] = list % TWO_32;
    words[MSG_IOV_WORD + 1] = Math.floor(list / TWO_32);
    words[MSG_IOVLEN_WORD] = Math.min(this.tail - this.head, IOV_MAX);
  }

  #write(index: number): void {
    const pointer = this.#base + (this.address[index] as number);
    const at = this.#listWord + index * IOVEC_WORDS;
    const words = this.#words;
    words[at] = pointer % TWO_32;
    words[at + 1] = Math.floor(pointer / TWO_32);
    words[at + 2] = this.length[index] as number;
    words[at + 3] = 0;
  }
}
