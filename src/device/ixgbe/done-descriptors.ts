/** What is written back of the receive descriptors that a queue used in its turn (§7.1.6.2). */
import { WINDOW_BYTES } from '../../memory/arena.ts';
import type { DataPath } from '../../net/data-path.ts';
import { IXGBE_DESCRIPTOR_BYTES } from '../../spec/ixgbe-descriptors.ts';
import type { DeviceMemory } from '../device-memory.ts';
import { type PlainFrames, plainFramesFor } from './plain-frames.ts';
import { WINDOW } from './queue-parts.ts';
import type { RingWindow } from './ring-window.ts';

const BYTES = IXGBE_DESCRIPTOR_BYTES;
const WORDS = BYTES / 4;
/** Where status and errors stand: the word with the DD bit. */
const STATUS = 2;
const LEGACY_STATUS = 3;
const NONE = new Uint32Array(0);

export class DoneDescriptors {
  /** Four words each, {@link WINDOW} of them from {@link hold} to {@link release}. */
  words = NONE;
  /** Their arena address; 0: none are held. */
  at = 0;
  readonly #path: DataPath;
  readonly #plain: PlainFrames;

  constructor(path: DataPath) {
    this.#path = path;
    this.#plain = plainFramesFor(path.arena);
  }

  /** WebAssembly reaches them. */
  get isNear(): boolean {
    return this.at < WINDOW_BYTES;
  }

  hold(): void {
    if (this.at !== 0) return;
    const { tables, arena } = this.#path;
    this.at = tables.take();
    this.words = new Uint32Array(arena.buffer, this.at, WINDOW * WORDS);
  }

  /** Gives the memory back. */
  release(): void {
    if (this.at === 0) return;
    this.#path.tables.give(this.at);
    this.at = 0;
    this.words = NONE;
  }

  /** Writes `count` of them to where `window` has located them: the status of each behind all else. */
  store(memory: DeviceMemory, window: RingWindow, count: number, isLegacy: boolean): void {
    const { where } = window;
    if (!isLegacy && window.isNear && this.isNear) {
      this.#plain.finish(this.at, count, window.whereAt);
    } else {
      this.#storeSlowly(memory, window, count, isLegacy);
    }
    if (!memory.logging) return;
    for (let i = 0; i < count; i++) memory.markWritten(where[i] as number, BYTES);
  }

  #storeSlowly(memory: DeviceMemory, window: RingWindow, count: number, isLegacy: boolean): void {
    const { view } = memory.arena;
    const { where } = window;
    const { words } = this;
    for (let i = 0; i < count; i++) {
      const at = where[i] as number;
      const word = i * WORDS;
      if (isLegacy) {
        view.setUint32(at + 8, words[word + 2] as number, true);
      } else {
        view.setUint32(at, words[word] as number, true);
        view.setUint32(at + 4, words[word + 1] as number, true);
        view.setUint32(at + 12, words[word + 3] as number, true);
      }
    }
    // What was copied comes before what says so.
    window.fence();
    const status = isLegacy ? LEGACY_STATUS : STATUS;
    for (let i = 0; i < count; i++) {
      view.setUint32((where[i] as number) + 4 * status, words[i * WORDS + status] as number, true);
    }
  }
}
