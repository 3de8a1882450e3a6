/**
 * The loops over rings for chains of one plain descriptor, in WebAssembly: two to three times faster than
 * in JavaScript. Only for rings and batches that lie in the window (`memory/arena.ts`); the queues have
 * the same loops in JavaScript for all others.
 */
import { wasm } from '../base/webassembly.ts';
import { type Arena, WINDOW_BYTES } from '../memory/arena.ts';
import { PLAIN_CHAINS_WASM } from './plain-chains.wasm.ts';

/** What each does, and in which order it takes what: `plain-chains.wat`. */
export interface PlainChains {
  collectSplit(
    ring: number,
    mask: number,
    next: number,
    descriptors: number,
    flags: number,
    table: number,
    slot: number,
    last: number,
    start: number,
    end: number,
    delta: number,
  ): number;
  collectPacked(
    descriptors: number,
    size: number,
    next: number,
    wrap: number,
    flags: number,
    table: number,
    slot: number,
    last: number,
    start: number,
    end: number,
    delta: number,
  ): number;
  completeSplit(
    ring: number,
    mask: number,
    used: number,
    table: number,
    from: number,
    to: number,
  ): void;
  completePacked(
    descriptors: number,
    size: number,
    used: number,
    wrap: number,
    table: number,
    from: number,
    to: number,
    mask: number,
  ): void;
}

const byArena = new WeakMap<Arena, PlainChains>();

/** The loops for a ring whose areas end at these arena addresses; undefined if one is not in the window. */
export function plainChainsFor(arena: Arena, ...ends: number[]): PlainChains | undefined {
  if (ends.some((end) => end > WINDOW_BYTES)) return undefined;
  let chains = byArena.get(arena);
  if (chains === undefined) {
    const module = new wasm.Module(Buffer.from(PLAIN_CHAINS_WASM, 'base64'));
    const { exports } = new wasm.Instance(module, { sluice: { window: arena.window } });
    chains = exports as unknown as PlainChains;
    byArena.set(arena, chains);
  }
  return chains;
}
