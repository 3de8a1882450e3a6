import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Arena, type ArenaHandle, WINDOW_BYTES } from '../memory/arena.ts';
import { Checksum, foldSum, swap16 } from './checksum.ts';

const [handle] = Arena.split(1) as [ArenaHandle];
const arena = Arena.attach(handle);
const BYTES = 2 ** 20 + 64;
const low = arena.allocate(BYTES, 'checksum-test');
// The same address space, of which only what lies above the window is given out.
const { windowStart, start, end } = handle.part;
const above = Arena.attach({
  ...handle,
  part: { windowStart, windowEnd: windowStart, start, end },
});
const high = above.allocate(BYTES, 'checksum-test');
const checksum = new Checksum(arena);

/** RFC 1071 §4.1 as it stands there, over big-endian words. */
function reference(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += ((bytes[i] as number) << 8) | (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

test('memory below and above 4 GiB is what the test says it is', () => {
  assert.ok(low + BYTES <= WINDOW_BYTES);
  assert.ok(high >= WINDOW_BYTES);
});

for (const [name, base] of [
  ['in the window', low],
  ['above the window', high],
] as const) {
  test(`sums of any length and alignment ${name} are those of RFC 1071`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(40), (bytes, shift) => {
        arena.bytes.fill(0xa5, base, base + 400);
        arena.bytes.set(bytes, base + shift);
        assert.equal(swap16(checksum.sum(base + shift, bytes.length)), reference(bytes));
      }),
      { numRuns: 500 },
    );
  });

  test(`no sum overflows ${name}`, () => {
    for (const length of [65_535, 2 ** 19 - 1, 2 ** 19 + 33, 2 ** 20 + 1]) {
      const bytes = arena.bytes.subarray(base + 1, base + 1 + length).fill(0xff);
      bytes[length >> 1] = 0x12;
      assert.equal(swap16(checksum.sum(base + 1, length)), reference(bytes));
    }
  });
}

test('folding keeps the value modulo 65535', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 31), fc.nat(2 ** 20), (a, b) => {
      const sum = a * b;
      const folded = foldSum(sum);
      assert.ok(folded <= 0xffff);
      assert.equal(BigInt(folded) % 65535n, BigInt(sum) % 65535n);
      assert.equal(folded === 0, sum === 0);
    }),
  );
});
