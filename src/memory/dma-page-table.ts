/**
 * Which map holds a page: a radix tree over page numbers, 64 entries a node, seven levels for
 * addresses below 2^53. A map that covers all that an entry stands for ends the tree there, so large
 * maps take few nodes. A look-up costs seven loads at most, however many maps there are.
 *
 *   entry   0: nothing · n > 0: node n · n < 0: slot -n - 1 of the map
 */
import { SluiceError } from '../base/errors.ts';

export const DMA_PAGE = 4096;

const BITS = 6;
const ENTRIES = 1 << BITS;
const MASK = ENTRIES - 1;
const LEVELS = 7;
/** The lower four levels are found in one integer of 24 bits, the upper three in another. */
const LOW_LEVELS = 4;
const LOW_PAGES = 2 ** (BITS * LOW_LEVELS);
const LOW_BYTES = LOW_PAGES * DMA_PAGE;
const FIRST_NODES = 16;
/** Bounds what a guest that scatters its maps can make us keep: 32 MiB. */
export const MAX_DMA_NODES = 131072;

export class DmaPageTable {
  /** Node n has entries n * 64 … n * 64 + 63; node 0 is the root. */
  #entries = new Int32Array(FIRST_NODES * ENTRIES);
  /** How many entries of a node are in use. */
  #used = new Uint8Array(FIRST_NODES);
  /** Nodes that were given back. */
  readonly #free: number[] = [];
  #next = 1;

  /** Nodes in use, the root among them. */
  get nodes(): number {
    return this.#next - this.#free.length;
  }

  /** The slot of the map that holds `address` (0 to 2^53 - 1), or -1. */
  find(address: number): number {
    const entries = this.#entries;
    const high = Math.floor(address / LOW_BYTES);
    let entry = entries[(high >>> (2 * BITS)) & MASK] as number;
    if (entry <= 0) return -entry - 1;
    entry = entries[entry * ENTRIES + ((high >>> BITS) & MASK)] as number;
    if (entry <= 0) return -entry - 1;
    entry = entries[entry * ENTRIES + (high & MASK)] as number;
    if (entry <= 0) return -entry - 1;
    const low = Math.floor((address - high * LOW_BYTES) / DMA_PAGE);
    entry = entries[entry * ENTRIES + ((low >>> (3 * BITS)) & MASK)] as number;
    if (entry <= 0) return -entry - 1;
    entry = entries[entry * ENTRIES + ((low >>> (2 * BITS)) & MASK)] as number;
    if (entry <= 0) return -entry - 1;
    entry = entries[entry * ENTRIES + ((low >>> BITS) & MASK)] as number;
    if (entry <= 0) return -entry - 1;
    return -(entries[entry * ENTRIES + (low & MASK)] as number) - 1;
  }

  /** True if no page of [start, end) is in any map. Both are multiples of the page size. */
  isFree(start: number, end: number): boolean {
    return this.#isFree(0, LEVELS - 1, start / DMA_PAGE, end / DMA_PAGE);
  }

  /**
   * Enters a map; its pages must be free.
   * @throws SluiceError `memory` if the tree would grow past {@link MAX_DMA_NODES}; nothing is entered then.
   */
  add(start: number, end: number, slot: number): void {
    try {
      this.#set(0, LEVELS - 1, start / DMA_PAGE, end / DMA_PAGE, -slot - 1);
    } catch (error) {
      this.remove(start, end);
      throw error;
    }
  }

  /** Takes maps out that lie in [start, end) wholly. */
  remove(start: number, end: number): void {
    this.#set(0, LEVELS - 1, start / DMA_PAGE, end / DMA_PAGE, 0);
  }

  #isFree(node: number, level: number, from: number, to: number): boolean {
    const span = ENTRIES ** level;
    const last = Math.floor((to - 1) / span);
    for (let index = Math.floor(from / span); index <= last; index++) {
      const entry = this.#entries[node * ENTRIES + index] as number;
      if (entry < 0) return false;
      const base = index * span;
      const isChildFree =
        entry === 0 ||
        this.#isFree(entry, level - 1, Math.max(from - base, 0), Math.min(to - base, span));
      if (!isChildFree) return false;
    }
    return true;
  }

  /** Sets the pages from … to - 1, counted from the node's first, to a slot's entry or to 0. */
  #set(node: number, level: number, from: number, to: number, value: number): void {
    const span = ENTRIES ** level;
    const last = Math.floor((to - 1) / span);
    for (let index = Math.floor(from / span); index <= last; index++) {
      const at = node * ENTRIES + index;
      const base = index * span;
      const first = Math.max(from - base, 0);
      const end = Math.min(to - base, span);
      const before = this.#entries[at] as number;
      if (first === 0 && end === span && before <= 0) {
        this.#put(node, at, value);
        continue;
      }
      if (before < 0 || (before === 0 && value === 0)) continue;
      if (before === 0) this.#put(node, at, this.#takeNode());
      const child = this.#entries[at] as number;
      this.#set(child, level - 1, first, end, value);
      if ((this.#used[child] as number) !== 0) continue;
      this.#free.push(child);
      this.#put(node, at, 0);
    }
  }

  #put(node: number, at: number, value: number): void {
    const before = this.#entries[at] as number;
    this.#entries[at] = value;
    const change = (value === 0 ? 0 : 1) - (before === 0 ? 0 : 1);
    this.#used[node] = (this.#used[node] as number) + change;
  }

  #takeNode(): number {
    const reused = this.#free.pop();
    if (reused !== undefined) return reused;
    const node = this.#next;
    if (node === MAX_DMA_NODES) {
      throw new SluiceError('memory', 'the DMA maps of a function are scattered too widely', {
        remedy: 'let the guest use fewer or larger maps',
      });
    }
    if (node === this.#used.length) {
      const entries = new Int32Array(this.#entries.length * 2);
      entries.set(this.#entries);
      this.#entries = entries;
      const used = new Uint8Array(this.#used.length * 2);
      used.set(this.#used);
      this.#used = used;
    }
    this.#next++;
    return node;
  }
}
