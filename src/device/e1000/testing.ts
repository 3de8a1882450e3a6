/** A guest's memory, for tests of the cards; their driver is `src/driver/e1000/testing.ts`. */
import type { Arena } from '../../memory/arena.ts';
import {
  DMA_DONE,
  DMA_PENDING,
  DMA_REFUSED,
  type DmaFault,
  type DmaSpace,
} from '../../memory/dma.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';

export type Reach =
  /** All of it at addresses of ours. */
  | 'mapped'
  /** Page by page: nothing that crosses a page is in one piece. */
  | 'pages'
  /** By messages: answers come with {@link TestMemory.settle}. */
  | 'remote';

/** Guest memory from I/O virtual address {@link TEST_BASE} on, as a DMA space. */
export const TEST_BASE = 0x10_0000;

export class TestMemory implements DmaSpace {
  generation = 0;
  logging = false;
  onDone: ((tag: number, ok: boolean) => void) | undefined;
  reach: Reach = 'mapped';
  readonly faults: { iova: number; length: number; write: boolean }[] = [];
  readonly dirty: number[] = [];
  readonly #arena: Arena;
  readonly #at: number;
  readonly #bytes: number;
  readonly #pending: (() => void)[] = [];

  constructor(arena: Arena, bytes: number) {
    this.#arena = arena;
    this.#bytes = bytes;
    this.#at = arena.allocate(bytes, 'sluice-test-guest');
  }

  translate(iova: number, length: number, _write: boolean): number {
    if (this.reach === 'remote' || !this.#inside(iova, length)) return -1;
    if (this.reach === 'pages' && (iova % 4096) + length > 4096) return -1;
    return this.#at + iova - TEST_BASE;
  }

  span(iova: number, _write: boolean, into: Float64Array): boolean {
    if (this.reach !== 'mapped' || !this.#inside(iova, 1)) return false;
    into[0] = TEST_BASE;
    into[1] = TEST_BASE + this.#bytes;
    into[2] = this.#at - TEST_BASE;
    return true;
  }

  read(iova: number, length: number, to: number, tag: number): number {
    return this.#move(iova, length, false, tag, () => {
      const at = this.#at + iova - TEST_BASE;
      this.#arena.bytes.copyWithin(to, at, at + length);
    });
  }

  write(iova: number, length: number, from: number, tag: number): number {
    return this.#move(iova, length, true, tag, () => {
      this.#arena.bytes.copyWithin(this.#at + iova - TEST_BASE, from, from + length);
    });
  }

  fault(iova: number, length: number, write: boolean, _reason: DmaFault): void {
    this.faults.push({ iova, length, write });
  }

  markWritten(address: number, _length: number): void {
    this.dirty.push(address);
  }

  /** Answers what is pending, in order. */
  settle(): void {
    for (const one of this.#pending.splice(0)) one();
  }

  /** The same memory, as the guest's own driver sees it. */
  get driver(): DriverMemory {
    return {
      arena: this.#arena,
      arenaAddress: this.#at,
      guestAddress: TEST_BASE,
      size: this.#bytes,
    };
  }

  bytes(iova: number, length: number): Buffer {
    const at = this.#at + iova - TEST_BASE;
    return Buffer.from(this.#arena.buffer, at, length);
  }

  #inside(iova: number, length: number): boolean {
    return iova >= TEST_BASE && iova + length <= TEST_BASE + this.#bytes;
  }

  #move(iova: number, length: number, write: boolean, tag: number, copy: () => void): number {
    if (!this.#inside(iova, length)) {
      this.faults.push({ iova, length, write });
      return DMA_REFUSED;
    }
    if (this.reach !== 'remote') {
      copy();
      return DMA_DONE;
    }
    this.#pending.push(() => {
      copy();
      this.onDone?.(tag, true);
    });
    return DMA_PENDING;
  }
}
