/**
 * A ring of 16-byte descriptors between head and tail, as the driver of an Intel card fills it (82540EM
 * SDM §3.2.6, §3.4; 82599 datasheet §7.1.9, §7.2.3.3).
 */
import { TWO_32 } from '../../base/bits.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';

/** The registers of one ring. */
export interface RingRegisters {
  /** Says where the ring lies (guest physical) and how long it is; head and tail are zero then. */
  begin(address: number, bytes: number): void;
  /** Up to where the ring is filled: the card may go on. */
  setTail(index: number): void;
}

export const RING_DESCRIPTOR_BYTES = 16;
const WORDS = 4;
/** All kinds of descriptors have this bit in their status: the card is done with it. */
const DONE = 1;

/** Rings are multiples of 128 bytes, and below 2^20 (SDM §13.4.27; 82599 §8.2.3.8.3). */
const ENTRIES_UNIT = 8;
const MOST_ENTRIES = 65536 - ENTRIES_UNIT;

/** Entries of a ring that holds `descriptors`: one is always unused, or full were empty. */
export function ringEntries(descriptors: number): number {
  const entries = ENTRIES_UNIT * Math.ceil((descriptors + 1) / ENTRIES_UNIT);
  return Math.min(entries, MOST_ENTRIES);
}

export class DescriptorRing {
  readonly entries: number;
  /** All descriptors as little-endian words, four each. */
  readonly words: Uint32Array;
  /** Guest physical address. */
  readonly address: number;
  /** Where the next descriptor goes; the oldest that was not taken back. */
  next = 0;
  clean = 0;
  /** Times that the tail was written. */
  kicks = 0;
  readonly #registers: RingRegisters;
  readonly #statusWord: number;
  /** Guest physical address of the memory's first byte, in halves. */
  readonly #low: number;
  readonly #high: number;
  /** What the tail register holds. */
  #tail = 0;

  /**
   * @param offset where in the memory the ring lies, a multiple of 128
   * @param statusWord word of a descriptor in which the card says that it is done
   */
  constructor(
    registers: RingRegisters,
    { arena, arenaAddress, guestAddress }: DriverMemory,
    offset: number,
    entries: number,
    statusWord: number,
  ) {
    this.#registers = registers;
    this.#statusWord = statusWord;
    this.entries = entries;
    this.address = guestAddress + offset;
    this.#low = guestAddress % TWO_32;
    this.#high = Math.floor(guestAddress / TWO_32);
    this.words = new Uint32Array(arena.buffer, arenaAddress + offset, entries * WORDS);
  }

  static bytes(entries: number): number {
    return entries * RING_DESCRIPTOR_BYTES;
  }

  /** Tells the card where the ring is; it is empty then. */
  start(): void {
    this.words.fill(0);
    this.next = 0;
    this.clean = 0;
    this.#tail = 0;
    this.#registers.begin(this.address, DescriptorRing.bytes(this.entries));
  }

  /** Descriptors that can be filled. */
  get free(): number {
    const used = this.next - this.clean;
    return this.entries - 1 - (used < 0 ? used + this.entries : used);
  }

  /** Fills the next descriptor, whose buffer begins `offset` bytes from the beginning of the memory. */
  putAt(offset: number, word2: number, word3: number): void {
    const { words } = this;
    const at = WORDS * this.next;
    const low = this.#low + offset;
    words[at] = low;
    words[at + 1] = low < TWO_32 ? this.#high : this.#high + 1;
    words[at + 2] = word2;
    words[at + 3] = word3;
    this.next = at + WORDS === words.length ? 0 : this.next + 1;
  }

  /** As it is, such as a context. */
  put(word0: number, word1: number, word2: number, word3: number): void {
    const { words } = this;
    const at = WORDS * this.next;
    words[at] = word0;
    words[at + 1] = word1;
    words[at + 2] = word2;
    words[at + 3] = word3;
    this.next = at + WORDS === words.length ? 0 : this.next + 1;
  }

  /** Writes the tail, if there is news. */
  publish(): boolean {
    if (this.next === this.#tail) return false;
    this.#tail = this.next;
    this.#registers.setTail(this.next);
    this.kicks++;
    return true;
  }

  /**
   * How many descriptors, at most `most`, the card is done with, from the oldest on. All that it wrote before
   * saying so is to be seen.
   */
  countDone(most: number): number {
    const { words, entries, next } = this;
    const statusWord = this.#statusWord;
    let index = this.clean;
    let last = -1;
    let count = 0;
    while (
      count < most &&
      index !== next &&
      ((words[WORDS * index + statusWord] as number) & DONE) !== 0
    ) {
      last = WORDS * index + statusWord;
      index = index + 1 === entries ? 0 : index + 1;
      count++;
    }
    // What is read from here on is read after what was just read.
    if (count > 0) Atomics.load(words, last);
    return count;
  }

  /** The card is done with a descriptor, and all that it wrote before saying so is to be seen. */
  isDone(index: number): boolean {
    const word = WORDS * index + this.#statusWord;
    // The plain look first: most of them are in vain.
    if (((this.words[word] as number) & DONE) === 0) return false;
    return (Atomics.load(this.words, word) & DONE) !== 0;
  }
}
