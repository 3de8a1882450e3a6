/** A ring of 16-byte descriptors between head and tail (SDM §3.2.6, §3.4), as its driver fills it. */
import { TWO_32 } from '../../base/bits.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { RX_DESCRIPTOR_BYTES, TX_DESCRIPTOR_BYTES } from '../../spec/e1000.ts';
import type { E1000Card } from './card.ts';

const WORDS = 4;
/** Where the card writes a descriptor's status, and the bit that says that it has. */
const STATUS_WORD = 3;
const DONE = 1;

/** RDLEN and TDLEN are multiples of 128 bytes, and below 2^20 (SDM §13.4.27). */
const ENTRIES_UNIT = 8;
const MOST_ENTRIES = 65536 - ENTRIES_UNIT;

const NAMES = {
  transmit: { base: 'TDBAL', high: 'TDBAH', length: 'TDLEN', head: 'TDH', tail: 'TDT' },
  receive: { base: 'RDBAL', high: 'RDBAH', length: 'RDLEN', head: 'RDH', tail: 'RDT' },
} as const;

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
  readonly #card: E1000Card;
  readonly #names: (typeof NAMES)[keyof typeof NAMES];
  /** What the tail register holds. */
  #tail = 0;

  /** `offset`: where in the memory the ring lies, a multiple of 128. */
  constructor(
    card: E1000Card,
    direction: keyof typeof NAMES,
    { arena, arenaAddress, guestAddress }: DriverMemory,
    offset: number,
    entries: number,
  ) {
    this.#card = card;
    this.#names = NAMES[direction];
    this.entries = entries;
    this.address = guestAddress + offset;
    this.words = new Uint32Array(arena.buffer, arenaAddress + offset, entries * WORDS);
  }

  static bytes(entries: number): number {
    return entries * Math.max(RX_DESCRIPTOR_BYTES, TX_DESCRIPTOR_BYTES);
  }

  /** Tells the card where the ring is; it is empty then. */
  start(): void {
    const { base, high, length, head, tail } = this.#names;
    this.words.fill(0);
    this.next = 0;
    this.clean = 0;
    this.#tail = 0;
    this.#card.set(base, this.address % TWO_32);
    this.#card.set(high, Math.floor(this.address / TWO_32));
    this.#card.set(length, DescriptorRing.bytes(this.entries));
    this.#card.set(head, 0);
    this.#card.set(tail, 0);
  }

  /** Descriptors that can be filled. */
  get free(): number {
    const used = this.next - this.clean;
    return this.entries - 1 - (used < 0 ? used + this.entries : used);
  }

  /** Descriptors that the card does not know of yet. */
  get unpublished(): number {
    const count = this.next - this.#tail;
    return count < 0 ? count + this.entries : count;
  }

  /** Fills the next descriptor; an address that stands in an array is no object on the heap. */
  putFrom(addresses: Float64Array, index: number, offset: number, word2: number, word3: number) {
    const { words } = this;
    const at = WORDS * this.next;
    const address = (addresses[index] as number) + offset;
    words[at] = address;
    words[at + 1] = address / TWO_32;
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
    this.#card.set(this.#names.tail, this.next);
    this.kicks++;
    return true;
  }

  /** The card is done with a descriptor, and all that it wrote before saying so is to be seen. */
  isDone(index: number): boolean {
    return (Atomics.load(this.words, WORDS * index + STATUS_WORD) & DONE) !== 0;
  }
}
