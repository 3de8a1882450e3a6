/** The memory of a request, walked from some byte on: what is copied, filled or handed on in part. */
import { TWO_32 } from '../base/bits.ts';
import type { RequestTable } from './requests.ts';

/** Copies up to `length` bytes of a slot's memory, from its byte `skip` on, to an arena address. */
export function gatherSegments(
  table: RequestTable,
  slot: number,
  skip: number,
  to: number,
  length: number,
): void {
  copySegments(table, slot, skip, to, length, false);
}

/** The other way: copies `length` bytes at an arena address to a slot's memory, from its byte `skip` on. */
export function scatterSegments(
  table: RequestTable,
  slot: number,
  skip: number,
  from: number,
  length: number,
): void {
  copySegments(table, slot, skip, from, length, true);
}

/** Copies between a slot's memory, from its byte `skip` on, and `length` bytes in one piece at `place`. */
function copySegments(
  table: RequestTable,
  slot: number,
  skip: number,
  place: number,
  length: number,
  toSlot: boolean,
): void {
  const { bytes } = table.arena;
  const start = slot * table.segments;
  const end = start + (table.count[slot] as number);
  let left = length;
  let at = place;
  let before = skip;
  for (let i = start; i < end && left > 0; i++) {
    const size = table.length[i] as number;
    if (before >= size) {
      before -= size;
      continue;
    }
    const segment = (table.address[i] as number) + before;
    const part = Math.min(size - before, left);
    if (toSlot) bytes.copyWithin(segment, at, at + part);
    else bytes.copyWithin(at, segment, segment + part);
    at += part;
    left -= part;
    before = 0;
  }
}

/** Fills a slot's memory with zeroes, from its byte `skip` on. */
export function zeroSegments(table: RequestTable, slot: number, skip: number): void {
  const { bytes } = table.arena;
  const start = slot * table.segments;
  const end = start + (table.count[slot] as number);
  let before = skip;
  for (let i = start; i < end; i++) {
    const size = table.length[i] as number;
    if (before < size) {
      const from = (table.address[i] as number) + before;
      bytes.fill(0, from, from + size - before);
    }
    before = Math.max(0, before - size);
  }
}

/** True if an address or a length is no multiple of `alignment` (a power of two). */
export function isMisaligned(table: RequestTable, slot: number, alignment: number): boolean {
  const mask = alignment - 1;
  const start = slot * table.segments;
  const end = start + (table.count[slot] as number);
  for (let i = start; i < end; i++) {
    if ((((table.address[i] as number) | (table.length[i] as number)) & mask) !== 0) return true;
  }
  return false;
}

/**
 * Writes struct iovecs (four words each, from word `at` on) for a slot's memory from its byte `skip`
 * on, at most `most` of them; returns how many. `base`: process pointer of arena address 0.
 */
export function vectorOfRest(
  table: RequestTable,
  slot: number,
  skip: number,
  base: number,
  words: Uint32Array,
  at: number,
  most: number,
): number {
  const start = slot * table.segments;
  const end = start + (table.count[slot] as number);
  let before = skip;
  let count = 0;
  for (let i = start; i < end && count < most; i++) {
    const size = table.length[i] as number;
    if (before >= size) {
      before -= size;
      continue;
    }
    const pointer = base + (table.address[i] as number) + before;
    const word = at + count * 4;
    words[word] = pointer;
    words[word + 1] = pointer / TWO_32;
    words[word + 2] = size - before;
    words[word + 3] = 0;
    before = 0;
    count++;
  }
  return count;
}
