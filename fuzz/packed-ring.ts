/** A packed ring under a hostile driver. */
import { fuzzRing } from './ring.ts';
import type { FuzzTarget } from './runner.ts';

export const packedRing: FuzzTarget = {
  name: 'packed-ring',
  run: (random) => fuzzRing(random, true),
};
