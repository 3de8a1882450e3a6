/** For fuzz targets of polled devices: what has nothing to do lets the lane sleep. */
import assert from 'node:assert/strict';
import type { Poller, PollLoop } from '../src/os/poll-loop.ts';

/** Milliseconds until a device without work may keep no lane awake: moderation spins for one. */
const SPIN_MS = 20;
/** Turns that it has after them in any case: this process may not have had the processor meanwhile. */
const LAST_TURNS = 5000;

/** Polls until the device would sleep; `settle` ends what is under way, and returns how much that was. */
export function checkIdle(loop: PollLoop, device: Poller, settle: () => number): void {
  const until = performance.now() + SPIN_MS;
  let left = LAST_TURNS;
  for (;;) {
    const work = device.poll() + settle();
    loop.setTimer(0, () => loop.stop());
    loop.run();
    if (work === 0 && !device.arm()) return;
    if (work === 0 && performance.now() >= until) left--;
    assert.ok(left > 0, 'a device without work keeps the lane awake');
  }
}
