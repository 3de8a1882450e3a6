/** For fuzz targets of polled devices: what has nothing to do lets the lane sleep. */
import assert from 'node:assert/strict';
import type { Poller, PollLoop } from '../src/os/poll-loop.ts';

/**
 * Milliseconds that a device without work may keep a lane awake. It spins through waits of up to a
 * millisecond, and the end of one may begin another: a card has four delays and five vectors that are
 * throttled. This is twice as much.
 */
const WAITS_MS = 20;
/** A turn takes microseconds. What took longer had not the processor, and counts as this much. */
const TURN_MS = 0.1;

/** Polls until the device would sleep; `settle` ends what is under way, and returns how much that was. */
export function checkIdle(loop: PollLoop, device: Poller, settle: () => number): void {
  let idleMs = 0;
  let before = performance.now();
  for (;;) {
    const work = device.poll() + settle();
    loop.setTimer(0, () => loop.stop());
    loop.run();
    if (work === 0 && !device.arm()) return;
    const now = performance.now();
    if (work === 0) idleMs += Math.min(now - before, TURN_MS);
    before = now;
    assert.ok(idleMs < WAITS_MS, 'a device without work keeps the lane awake');
  }
}
