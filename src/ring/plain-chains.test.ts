import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../memory/arena.ts';
import { FRAME_TABLE } from '../memory/copy.ts';
import { BATCH, ChainBatch } from './chain-batch.ts';
import { plainChainsFor } from './plain-chains.ts';

const MAX_SIZE = 256;
const arena = Arena.create();
const ring = arena.allocate(16 * MAX_SIZE, 'ring');
const tableAt = arena.allocate(FRAME_TABLE.size, 'table');
const batch = new ChainBatch({ arena, tableAt });
const chains = plainChainsFor(arena, ring + 16 * MAX_SIZE);
assert.ok(chains !== undefined);
const words = new Uint32Array(arena.buffer, ring, 4 * MAX_SIZE);

const AVAIL_AND_USED = 0x8080_0000;
const WRITE = 0x2_0000;

const chain = fc.record({
  id: fc.nat(0xffff),
  written: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 0xffff_ffff })),
  /** The entry of the lap before: the same, another id, another length, both. */
  before: fc.constantFrom('same', 'same', 'same', 'id', 'written', 'both'),
});
const run = fc
  .tuple(fc.array(chain, { maxLength: BATCH }), fc.nat(BATCH))
  .map(([list, from]) => ({ list, from: Math.min(from, list.length) }));

function fill(list: readonly { readonly id: number; readonly written: number }[]): void {
  for (const [slot, { id, written }] of list.entries()) {
    batch.id[slot] = id;
    batch.written[slot] = written;
  }
}

describe('plain chains in WebAssembly', () => {
  test('used entries of a split ring are written, whatever stood there', () => {
    fc.assert(
      fc.property(run, fc.integer({ min: 6, max: 8 }), fc.nat(0xffff), (batched, order, used) => {
        const { list, from } = batched;
        const mask = 2 ** order - 1;
        fill(list);
        words.fill(0xeeee_eeee);
        const expected = Array.from(words);
        for (let slot = from; slot < list.length; slot++) {
          const { id, written, before } = list[slot] as (typeof list)[number];
          const at = 2 * ((used + slot - from) & mask);
          words[at] = before === 'id' || before === 'both' ? id ^ 1 : id;
          words[at + 1] = before === 'written' || before === 'both' ? written ^ 1 : written;
          expected[at] = id;
          expected[at + 1] = written;
        }
        chains.completeSplit(ring, mask, used, tableAt, from, list.length);
        assert.deepEqual(Array.from(words), expected);
      }),
      { numRuns: 200 },
    );
  });

  test('used descriptors of a packed ring carry the wrap counter of their lap', () => {
    fc.assert(
      fc.property(
        run,
        fc.integer({ min: BATCH, max: MAX_SIZE }),
        fc.nat(),
        fc.nat(1),
        fc.boolean(),
        ({ list, from }, size, start, lap, withLengths) => {
          fill(list);
          words.fill(0xeeee_eeee);
          const expected = Array.from(words);
          const used = start % size;
          for (let slot = from; slot < list.length; slot++) {
            const { id, written } = list[slot] as (typeof list)[number];
            const index = used + slot - from;
            const wrap = index < size ? lap : lap ^ 1;
            const length = withLengths ? written : 0;
            const at = 4 * (index % size);
            expected[at + 2] = length;
            expected[at + 3] = id + (wrap === 1 ? AVAIL_AND_USED : 0) + (length > 0 ? WRITE : 0);
          }
          const mask = withLengths ? -1 : 0;
          chains.completePacked(ring, size, used, lap, tableAt, from, list.length, mask);
          assert.deepEqual(Array.from(words), expected);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe('a batch', () => {
  test('has as many readable segments a plain chain as its queue says, whatever stood there', () => {
    const one = new ChainBatch();
    one.expect(1);
    assert.deepEqual([...one.readable], Array(BATCH).fill(1));
    one.count = 4;
    one.expect(0);
    assert.deepEqual([...one.readable], [...Array(4).fill(1), ...Array(BATCH - 4).fill(0)]);
    one.clear();
    one.expect(0);
    assert.deepEqual([...one.readable], Array(BATCH).fill(0));
    one.readable[3] = 2;
    one.shaped = true;
    one.clear();
    assert.deepEqual([...one.readable], Array(BATCH).fill(0));
  });
});
