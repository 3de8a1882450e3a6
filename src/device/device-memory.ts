/**
 * How the rings of a device reach guest memory: one {@link DmaSpace}, whose answers are given to
 * whoever asked, and memory of the lane for what is fetched and bounced.
 */
import type { Arena } from '../memory/arena.ts';
import { DMA_DONE, DMA_FAULT, DMA_PENDING, DMA_REFUSED, type DmaSpace } from '../memory/dma.ts';

/** Addresses above this are no exact numbers, and nowhere (2^53). */
const HIGH_LIMIT = 0x20_0000;
const TWO_32 = 4294967296;

/** I/O virtual addresses are mapped by pages no smaller than this. */
const PAGE = 4096;

/** The address of two halves, or -1 if it cannot be one. */
export function iova(low: number, high: number): number {
  return high < HIGH_LIMIT ? high * TWO_32 + low : -1;
}

/** Bytes from an address to the end of its page, at most `length`. */
export function withinPage(address: number, length: number): number {
  return Math.min(length, PAGE - (address % PAGE));
}

export interface DmaClient {
  /** An access of this client that was pending is over; `ok` if it succeeded. */
  completed(ok: boolean): void;
}

export class DeviceMemory {
  readonly arena: Arena;
  /** What the guest's transport gave; undefined while there is none. */
  space: DmaSpace | undefined;
  /** No DMA is begun: the transport is to take the space away, or a reset waits for what is pending. */
  held = false;
  /** Called when nothing is pending any more. */
  onDrained: (() => void) | undefined;
  readonly #clients: (DmaClient | undefined)[];
  /** Who asked stands in the lowest bits of a tag, the epoch above them. */
  readonly #epochShift: number;
  #pending = 0;
  /** By client: the epoch, and one more, in which part of what it asked for was refused while the rest comes. */
  readonly #spoiled: Int32Array;
  /** Results of accesses from before a reset count for nothing. */
  #epoch = 0;

  /** @param clients how many there are; each is named by a number below */
  constructor(arena: Arena, clients: number) {
    this.arena = arena;
    this.#clients = new Array(clients).fill(undefined);
    this.#spoiled = new Int32Array(clients);
    this.#epochShift = 32 - Math.clz32(clients - 1);
  }

  /** True while accesses are on their way. */
  get busy(): boolean {
    return this.#pending > 0;
  }

  /** DMA may begin. After a reset, lane memory is not used again until what was pending is over. */
  get ready(): boolean {
    return this.space !== undefined && !this.held && !this.#stale;
  }

  #stale = false;

  setClient(who: number, client: DmaClient): void {
    this.#clients[who] = client;
  }

  connect(space: DmaSpace | undefined): void {
    this.forget();
    if (this.space !== undefined) this.space.onDone = undefined;
    this.space = space;
    this.held = false;
    this.#pending = 0;
    this.#stale = false;
    if (space !== undefined) space.onDone = (tag, ok) => this.#done(tag, ok);
  }

  /** What is pending has no client any more. */
  forget(): void {
    this.#epoch = (this.#epoch + 1) & (0x7fff_ffff >>> this.#epochShift);
    this.#stale = this.#pending > 0;
  }

  /** What is written in place is to be told by {@link markWritten}. */
  get logging(): boolean {
    return this.space?.logging === true;
  }

  /** As {@link DmaSpace.markWritten}. */
  markWritten(arenaAddress: number, length: number): void {
    this.space?.markWritten(arenaAddress, length);
  }

  /** As {@link DmaSpace.translate}, for any number. */
  translate(address: number, length: number, write: boolean): number {
    if (address < 0 || this.space === undefined) return -1;
    return this.space.translate(address, length, write);
  }

  /** As {@link DmaSpace.span}, for any number and any space: false if it is not told. */
  span(address: number, write: boolean, into: Float64Array): boolean {
    const { space } = this;
    if (address < 0 || space?.span === undefined) return false;
    return space.span(address, write, into);
  }

  /** As {@link DmaSpace.read}; an impossible address is a fault. */
  read(who: number, address: number, length: number, to: number): number {
    const { space } = this;
    if (space === undefined) return DMA_REFUSED;
    if (address < 0) return this.#refuse(length, false);
    const result = space.read(address, length, to, this.#tag(who));
    if (result === DMA_PENDING) this.#pending++;
    return result;
  }

  write(who: number, address: number, length: number, from: number): number {
    const { space } = this;
    if (space === undefined) return DMA_REFUSED;
    if (address < 0) return this.#refuse(length, true);
    const result = space.write(address, length, from, this.#tag(who));
    if (result === DMA_PENDING) this.#pending++;
    return result;
  }

  /**
   * Brings `count` descriptors of `size` bytes, from `index` on of a ring of `entries` at `base`, to
   * lane memory. DMA_DONE; DMA_REFUSED; or how many accesses are pending, as a number from 2 on: if a part
   * was refused meanwhile, they end as failed.
   */
  bring(
    who: number,
    base: number,
    size: number,
    entries: number,
    index: number,
    count: number,
    to: number,
  ): number {
    const first = Math.min(count, entries - index);
    const one = this.#fetchRun(who, base < 0 ? -1 : base + index * size, first * size, to);
    if (one === DMA_REFUSED || first === count) return one === DMA_PENDING ? 2 : one;
    const two = this.#fetchRun(who, base, (count - first) * size, to + first * size);
    if (two === DMA_REFUSED) {
      if (one !== DMA_PENDING) return DMA_REFUSED;
      this.#spoiled[who] = this.#epoch + 1;
      return 2;
    }
    const pending = (one === DMA_PENDING ? 1 : 0) + (two === DMA_PENDING ? 1 : 0);
    return pending === 0 ? DMA_DONE : 1 + pending;
  }

  #fetchRun(who: number, address: number, length: number, to: number): number {
    const at = this.translate(address, length, false);
    if (at < 0) return this.read(who, address, length, to);
    this.arena.bytes.copyWithin(to, at, at + length);
    return DMA_DONE;
  }

  #refuse(length: number, write: boolean): number {
    this.space?.fault(Number.MAX_SAFE_INTEGER, length, write, DMA_FAULT.address);
    return DMA_REFUSED;
  }

  #tag(who: number): number {
    return (this.#epoch << this.#epochShift) | who;
  }

  #done(tag: number, ok: boolean): void {
    this.#pending--;
    if (this.#pending === 0) this.#stale = false;
    const who = tag & ((1 << this.#epochShift) - 1);
    if (tag >>> this.#epochShift === this.#epoch) {
      const whole = this.#spoiled[who] !== this.#epoch + 1;
      this.#spoiled[who] = 0;
      this.#clients[who]?.completed(ok && whole);
    }
    if (this.#pending === 0) this.onDrained?.();
  }
}
