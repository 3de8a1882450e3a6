import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MiB } from '../base/bits.ts';
import { ringSizes } from './ring-sizes.ts';

const LARGE = 1514;

test('few guests have the rings of stock drivers, many fit into the caches together', () => {
  const sizes = [1, 2, 8, 16, 30, 60].map((guests) => ({
    guests,
    ...ringSizes({ guests, frame: LARGE, isInterrupted: false }),
  }));
  assert.equal(sizes[0]?.receiveBuffers, 512);
  for (const { guests, receiveBuffers, sendFrames } of sizes) {
    assert.ok(guests * (receiveBuffers + sendFrames) * 1536 <= 12 * MiB);
  }
  for (const [index, { receiveBuffers }] of sizes.entries()) {
    assert.ok(receiveBuffers <= (sizes[index - 1]?.receiveBuffers ?? 512));
  }
  assert.equal(ringSizes({ guests: 30, frame: 64, isInterrupted: false }).receiveBuffers, 512);
});

test('what is on its way always finds a buffer', () => {
  for (const guests of [1, 2, 4, 8, 16, 30, 60, 256]) {
    for (const isInterrupted of [false, true]) {
      const sizes = ringSizes({ guests, frame: LARGE, isInterrupted });
      // Twice, and what the device takes at once: send-window.ts says why.
      const most = 2 * sizes.sendFrames + Math.min(64, sizes.sendFrames);
      const kept = Math.floor(sizes.receiveBuffers / 64);
      assert.ok(most <= sizes.receiveBuffers - kept, JSON.stringify(sizes));
      assert.ok(sizes.queueSize >= sizes.receiveBuffers);
      assert.equal(Math.log2(sizes.queueSize) % 1, 0);
    }
  }
});

test('a ring that is asked for is the ring that there is', () => {
  for (const ring of [8, 100, 512, 4096]) {
    const sizes = ringSizes({ guests: 30, frame: LARGE, isInterrupted: false, ring });
    assert.equal(sizes.receiveBuffers, ring);
    assert.ok(sizes.sendFrames >= 1 && 2 * sizes.sendFrames < ring);
  }
});

test('who waits for interrupts has room for what comes meanwhile', () => {
  const few = ringSizes({ guests: 2, frame: LARGE, isInterrupted: true });
  assert.equal(few.receiveBuffers, 1024);
  const many = ringSizes({ guests: 30, frame: LARGE, isInterrupted: true });
  assert.equal(many.receiveBuffers, 512);
});
