/** Small records of one size in arena memory, which comes in pieces of 2 MiB. */
import { alignUp, MiB } from '../base/bits.ts';
import type { Arena } from './arena.ts';

/** Records begin at multiples of a cache line. */
const ALIGNMENT = 64;

export class Slab {
  /** Bytes of a record, a multiple of 64. */
  readonly recordBytes: number;
  readonly #arena: Arena;
  readonly #name: string;
  readonly #free: number[] = [];

  /** The first records are there at once: in the window, as long as there is room in it. */
  constructor(arena: Arena, recordBytes: number, name: string) {
    this.#arena = arena;
    this.#name = name;
    this.recordBytes = alignUp(recordBytes, ALIGNMENT);
    this.#grow();
  }

  /** The arena address of a free record; its content is what was left there. */
  take(): number {
    if (this.#free.length === 0) this.#grow();
    return this.#free.pop() as number;
  }

  give(record: number): void {
    this.#free.push(record);
  }

  #grow(): void {
    const bytes = Math.max(2 * MiB, this.recordBytes);
    const at = this.#arena.allocate(bytes, this.#name);
    // The lowest record is taken first.
    for (let record = Math.floor(bytes / this.recordBytes) - 1; record >= 0; record--) {
      this.#free.push(at + record * this.recordBytes);
    }
  }
}
