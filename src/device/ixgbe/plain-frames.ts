/**
 * The loops over rings for plain frames, in WebAssembly: what frames of one descriptor without offloads
 * need, many of them in one call. Only for rings and memory that lie in the window (`memory/arena.ts`); the
 * queues have the same in JavaScript for all others.
 */
import { wasm } from '../../base/webassembly.ts';
import type { Arena } from '../../memory/arena.ts';
import { Checksum } from '../../net/checksum.ts';
import { PLAIN_FRAMES_WASM } from './plain-frames.wasm.ts';

/** What each does, and in which order it takes what: `plain-frames.wat`. */
export interface PlainFrames {
  collect(
    words: number,
    first: number,
    end: number,
    table: number,
    slot: number,
    last: number,
    low: number,
    high: number,
    delta: number,
  ): number;
  report(words: number, first: number, end: number, where: number): number;
  fill(
    table: number,
    list: number,
    first: number,
    count: number,
    ring: number,
    end: number,
    low: number,
    high: number,
    delta: number,
    room: number,
    jobs: number,
    done: number,
    status: number,
    verify: number,
    hashes: number,
  ): number;
  finish(done: number, count: number, where: number): void;
}

const byArena = new WeakMap<Arena, PlainFrames>();

export function plainFramesFor(arena: Arena): PlainFrames {
  let frames = byArena.get(arena);
  if (frames === undefined) {
    const module = new wasm.Module(Buffer.from(PLAIN_FRAMES_WASM, 'base64'));
    const sum = new Checksum(arena).sumInWindow;
    const { exports } = new wasm.Instance(module, { sluice: { window: arena.window, sum } });
    frames = exports as unknown as PlainFrames;
    byArena.set(arena, frames);
  }
  return frames;
}
