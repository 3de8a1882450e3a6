import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../memory/arena.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { NET_HEADER_BYTES, NET_HEADER_LEGACY_BYTES } from '../spec/virtio-net.ts';
import { SLOT_HEADROOM } from './burst.ts';
import { createDataPath } from './data-path.ts';

const { arena, burst, copies } = createDataPath(Arena.create(), new PollLoop());

const ROOM = 4096;
const at = arena.allocate(8 * ROOM);
const out = arena.allocate(ROOM);
/** What lies around the frames in memory, and must never be in one. */
const SECRET = 0xee;

/** Frames behind one another in memory, each of the given length and in pieces of the given size. */
function load(frames: readonly { readonly length: number; readonly piece: number }[]): Buffer[] {
  arena.bytes.fill(SECRET, at, at + 8 * ROOM);
  burst.clear();
  const { chains } = burst;
  return frames.map(({ length, piece }, index) => {
    const bytes = Buffer.from(Array.from({ length }, (_, i) => (i * 7 + index) % 200));
    const start = at + index * ROOM;
    arena.bytes.set(bytes, start);
    const slot = chains.add(start, Math.min(length, piece));
    chains.total[slot] = length;
    chains.moreStart[slot] = chains.moreCount;
    for (let from = piece; from < length; from += piece) {
      chains.moreAddress[chains.moreCount] = start + from;
      chains.moreLength[chains.moreCount++] = Math.min(piece, length - from);
      chains.more[slot] = (chains.more[slot] as number) + 1;
      chains.shaped = true;
    }
    return bytes;
  });
}

/** What a receiver would get: the header, then the chain's bytes from `skip` on. */
function delivered(slot: number): Buffer {
  const headerLength = burst.headerLength[slot] as number;
  const skip = burst.skip[slot] as number;
  const rest = (burst.chains.total[slot] as number) - skip;
  copies.push(out, burst.headerAt[slot] as number, headerLength);
  burst.copyFromChain(slot, skip, rest, out + headerLength);
  copies.flush();
  return Buffer.from(arena.bytes.slice(out, out + headerLength + rest));
}

test('what is gathered and the rest are the frame: nothing is missing, and nothing from behind it comes along', () => {
  const frames = fc.array(
    fc.record({
      length: fc.oneof(fc.integer({ min: 12, max: 100 }), fc.integer({ min: 12, max: 2000 })),
      piece: fc.oneof(fc.constant(ROOM), fc.integer({ min: 1, max: 200 })),
    }),
    { minLength: 1, maxLength: 8 },
  );
  const header = fc.constantFrom(NET_HEADER_BYTES, NET_HEADER_LEGACY_BYTES);
  fc.assert(
    fc.property(frames, header, (list, headerBytes) => {
      const sent = load(list);
      burst.sourceHeaderBytes = headerBytes;
      burst.gather();
      for (const [slot, bytes] of sent.entries()) {
        const got = delivered(slot);
        assert.deepEqual(got.subarray(NET_HEADER_BYTES), bytes.subarray(headerBytes));
        assert.deepEqual(
          got.subarray(0, NET_HEADER_LEGACY_BYTES),
          bytes.subarray(0, NET_HEADER_LEGACY_BYTES),
        );
        assert.equal(got.readUInt16LE(NET_HEADER_LEGACY_BYTES), 1, 'num_buffers');
        assert.equal(burst.frameLength[slot], bytes.length - headerBytes);
      }
    }),
  );
});

test('a chain shorter than its virtio_net_hdr is a frame of no bytes', () => {
  load([
    { length: 1, piece: ROOM },
    { length: 11, piece: ROOM },
    { length: 11, piece: 4 },
  ]);
  burst.sourceHeaderBytes = NET_HEADER_BYTES;
  burst.gather();
  assert.deepEqual([...burst.frameLength.subarray(0, 3)], [0, 0, 0]);
});

test('frames without a virtio_net_hdr get one that asks for nothing', () => {
  const lengths = fc.array(fc.integer({ min: 14, max: 300 }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(lengths, fc.constantFrom(ROOM, 30), (list, piece) => {
      const sent = load(list.map((length) => ({ length, piece })));
      // What the slots were used for before makes no difference.
      burst.slots8.fill(SECRET);
      burst.sourceHeaderBytes = 0;
      burst.gather();
      const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
      for (const [slot, bytes] of sent.entries()) {
        assert.deepEqual(delivered(slot), Buffer.concat([header, bytes]));
        assert.equal(burst.frameLength[slot], bytes.length);
      }
    }),
  );
});

test('frames that are dropped leave the others as they are, in order', () => {
  const frames = fc.array(
    fc.record({ length: fc.integer({ min: 14, max: 500 }), bad: fc.boolean() }),
    { minLength: 1, maxLength: 8 },
  );
  fc.assert(
    fc.property(frames, fc.constantFrom(ROOM, 70), (list, piece) => {
      const sent = load(list.map(({ length }) => ({ length, piece })));
      burst.sourceHeaderBytes = 0;
      burst.gather();
      const good = sent.filter((_, index) => list[index]?.bad === false);
      burst.drop(Uint8Array.from(list, ({ bad }) => (bad ? 1 : 0)));
      assert.equal(burst.count, good.length);
      for (const [slot, bytes] of good.entries()) {
        assert.deepEqual(delivered(slot).subarray(NET_HEADER_BYTES), bytes);
        assert.equal(burst.frameLength[slot], bytes.length);
        // Switches look for headers by the index.
        const at = burst.slotsAt + slot * burst.slotBytes + SLOT_HEADROOM;
        assert.equal(burst.headerAt[slot], at);
      }
    }),
  );
});
