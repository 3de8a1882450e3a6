/**
 * Frames that wait until the driver gives buffers for them.
 *
 * A segmentation frame of 64 KiB takes 16 to 44 of a ring's buffers: of a ring of 256 a few of them at once
 * leave none, and each that is lost is 45 segments that TCP sends again. So they wait here, as they do in
 * the queue of a tap, and whatever comes behind them waits too, so that nobody overtakes. What
 * does not fit is dropped, and counted; frames of one segment never begin to wait.
 */
import { SluiceError } from '../../base/errors.ts';
import type { Arena } from '../../memory/arena.ts';
import { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { OFFLOAD_CSUM } from '../../net/port.ts';

/** Bytes that may wait: 64 frames of 64 KiB, 3.4 ms at 10 Gb/s. */
export const BACKLOG_BYTES = 4 * 2 ** 20;
/** Frames that may wait. */
export const BACKLOG_FRAMES = 1024;
const INDEX_MASK = BACKLOG_FRAMES - 1;

/** By lane: what one waiting frame looks like to who delivers it. */
const shared = new WeakMap<DataPath, Burst>();

/** Frame `slot` of the burst is many segments. */
export function isSegmented(burst: Burst, slot: number): boolean {
  return ((burst.needs[slot] as number) & ~OFFLOAD_CSUM) !== 0;
}

export class ReceiveBacklog {
  /** Frames that wait. */
  count = 0;
  /** A burst whose frame 0 is nothing but its header: the first frame that waits, from {@link first} on. */
  readonly burst: Burst;
  readonly #arena: Arena;
  /** Arena address of the memory; -1: none yet, as most queues never need any. */
  #at = -1;
  /** Number of the first frame that waits, and where it lies; where the next one may lie. */
  #next = 0;
  #head = 0;
  #tail = 0;
  /** By number: offset in the memory, and bytes. */
  readonly #offsets = new Uint32Array(BACKLOG_FRAMES);
  readonly #lengths = new Uint32Array(BACKLOG_FRAMES);

  constructor(path: DataPath) {
    this.#arena = path.arena;
    let burst = shared.get(path);
    if (burst === undefined) {
      burst = new Burst(path.arena, path.copies);
      shared.set(path, burst);
    }
    this.burst = burst;
  }

  /** Arena address of the first frame that waits: virtio_net_hdr of 12 bytes, then the frame. */
  get first(): number {
    return this.#at + this.#head;
  }

  /** Its bytes. */
  get firstLength(): number {
    return this.#lengths[this.#next & INDEX_MASK] as number;
  }

  /**
   * Queues the copy of frame `slot`, as `ReceiveQueue.put` takes it. False if there is no room.
   */
  hold(burst: Burst, slot: number, header: number, headerLength: number): boolean {
    const { chains, copies } = burst;
    const skip = burst.skip[slot] as number;
    const rest = (chains.total[slot] as number) - skip;
    const offset = this.#place(headerLength + rest);
    if (offset < 0 || !this.#hasMemory()) return false;
    const to = this.#at + offset;
    copies.push(to, header, headerLength);
    if (rest > 0) burst.copyFromChain(slot, skip, rest, to + headerLength);
    const index = (this.#next + this.count) & INDEX_MASK;
    this.#offsets[index] = offset;
    this.#lengths[index] = headerLength + rest;
    if (this.count === 0) this.#head = offset;
    this.#tail = offset + headerLength + rest;
    this.count++;
    return true;
  }

  /** The first frame waits no more. Its memory is used again, so that no copy of it may be queued. */
  shift(): void {
    this.count--;
    this.#next = (this.#next + 1) & INDEX_MASK;
    if (this.count === 0) {
      this.#head = 0;
      this.#tail = 0;
    } else this.#head = this.#offsets[this.#next] as number;
  }

  /** Gives the memory back. */
  release(): void {
    if (this.#at >= 0) this.#arena.unmap(this.#at, BACKLOG_BYTES);
    this.#at = -1;
    this.count = 0;
    this.#head = 0;
    this.#tail = 0;
  }

  /** Without memory nothing waits: frames are dropped and counted, as where there is no room. */
  #hasMemory(): boolean {
    if (this.#at >= 0) return true;
    try {
      this.#at = this.#arena.allocate(BACKLOG_BYTES, 'sluice-backlog');
    } catch (error) {
      if (error instanceof SluiceError) return false;
      throw error;
    }
    return true;
  }

  /** Where a frame of so many bytes can lie in one piece; -1: nowhere. */
  #place(bytes: number): number {
    if (this.count === BACKLOG_FRAMES) return -1;
    const head = this.#head;
    const tail = this.#tail;
    if (this.count > 0 && tail <= head) return tail + bytes <= head ? tail : -1;
    if (tail + bytes <= BACKLOG_BYTES) return tail;
    return bytes <= head ? 0 : -1;
  }
}
