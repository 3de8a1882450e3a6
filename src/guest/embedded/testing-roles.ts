/** For tests of roles whose devices are in the same thread. */
import assert from 'node:assert/strict';
import type { Role } from './role.ts';
import type { Traffic } from './traffic.ts';

/** Turns without work after which nothing will come any more. */
const IDLE_TURNS = 1000;

/** Turns devices and roles until `done`, or until nothing has moved for a while. */
export function turnUntil(
  devices: () => number,
  roles: readonly Role[],
  done: () => boolean,
): void {
  let idle = 0;
  while (!done() && idle < IDLE_TURNS) {
    let work = devices();
    for (const role of roles) work += role.poll();
    idle = work === 0 ? idle + 1 : 0;
  }
}

const GOOD = { missing: 0, reordered: 0, duplicates: 0, corrupt: 0, badMetadata: 0, foreign: 0 };

/** Every frame came once, in order, whole, and with the metadata that it should have. */
export function assertAll(sink: Traffic, count: number): void {
  const { received, verified, missing, reordered, duplicates, corrupt, badMetadata, foreign } =
    sink.counts();
  assert.deepEqual([received, verified], [count, count]);
  assert.deepEqual({ missing, reordered, duplicates, corrupt, badMetadata, foreign }, GOOD);
}
