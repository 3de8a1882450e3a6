/**
 * Registers of a function, of which some pages can be mapped into its guest: a store there is no trap.
 *
 * Only those pages lie in the memory file that the guest's VMM gets; the others are memory of this
 * process alone, in their midst, so that all are one array. What is in the shared pages may change at any
 * moment, and passed no mask.
 */
import { closeFd } from '../../os/fd.ts';
import { createMemfd, mapFileAt, SharedMapping } from '../../os/mapping.ts';
import type { MappableArea } from '../../pci/function.ts';

/** A piece of the BAR, in bytes: multiples of the page size. */
export interface RegisterPages {
  readonly offset: number;
  readonly bytes: number;
}

export class RegisterMemory {
  /** All registers, by offset / 4. */
  readonly words: Uint32Array;
  /** For the BAR's declaration. The descriptor behind them is another one after {@link renew}. */
  readonly areas: readonly MappableArea[];
  readonly #name: string;
  readonly #bytes: number;
  readonly #mapping: SharedMapping;
  #fd: number;

  /** @param bytes of the BAR @param pages what may be mapped, ascending */
  constructor(name: string, bytes: number, pages: readonly RegisterPages[]) {
    this.#name = name;
    this.#bytes = bytes;
    const own = createMemfd(name, bytes);
    try {
      this.#mapping = new SharedMapping(own, bytes);
    } finally {
      closeFd(own);
    }
    this.words = new Uint32Array(this.#mapping.buffer);
    this.#fd = createMemfd(name, bytes);
    const current = (): number => this.#fd;
    this.areas = pages.map(({ offset, bytes: length }) => ({
      offset,
      bytes: length,
      fdOffset: offset,
      get fd() {
        return current();
      },
    }));
    this.#lay();
  }

  /** New pages, all zeros: who had the old ones mapped does not reach the next guest's. */
  renew(): void {
    const before = this.#fd;
    this.#fd = createMemfd(this.#name, this.#bytes);
    this.#lay();
    closeFd(before);
  }

  /** Gives the memory back. */
  release(): void {
    this.#mapping.release();
    closeFd(this.#fd);
  }

  #lay(): void {
    for (const { offset, bytes } of this.areas) {
      mapFileAt(this.#mapping.address + BigInt(offset), bytes, this.#fd, offset);
    }
  }
}
