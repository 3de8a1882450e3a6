/** A split ring under a hostile driver. */
import { fuzzRing } from './ring.ts';
import type { FuzzTarget } from './runner.ts';

export const splitRing: FuzzTarget = {
  name: 'split-ring',
  run: (random) => fuzzRing(random, false),
};
