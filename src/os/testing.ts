/** What tests ask of an {@link IoRing}, and how they wait for it. */
import assert from 'node:assert/strict';
import { TWO_32 } from '../base/bits.ts';
import { ENTRY_FIXED_FILE, type IoRing } from './io-ring.ts';
import { pinned } from './libc.ts';

/** Memory that operations work on. */
export const memory = pinned(65536);
export const bytes = Buffer.from(memory.buffer);

export interface Operation {
  readonly op: number;
  readonly tag: number;
  readonly offset?: number;
  /** Into {@link memory}. */
  readonly at?: number;
  readonly words4?: number;
  readonly length?: number;
  readonly flags?: number;
}

/** Takes an entry and fills it in. */
export function ask(ring: IoRing, operation: Operation): void {
  const { op, tag, offset = 0, at, length = 0, flags = 0 } = operation;
  const word = ring.take();
  assert.notEqual(word, -1);
  const address = at === undefined ? (operation.words4 ?? 0) : Number(memory.address) + at;
  const words = [op | ENTRY_FIXED_FILE, 0, offset, 0, address % TWO_32, address / TWO_32];
  ring.entries.set([...words, length, flags, tag, 0], word);
}

/** Waits for `count` results: [tag, result] pairs, in the order of the tags. */
export function results(ring: IoRing, count: number): (readonly [number, number])[] {
  const found: (readonly [number, number])[] = [];
  const end = performance.now() + 10_000;
  while (found.length < count) {
    const ready = ring.ready();
    for (let i = 0; i < ready; i++) found.push([ring.tag(i), ring.result(i)]);
    ring.consume(ready);
    assert.ok(performance.now() < end, `${found.length} results of ${count}`);
  }
  return found.sort((a, b) => a[0] - b[0]);
}
