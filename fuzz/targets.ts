/** All fuzz targets. */
import { packedRing } from './packed-ring.ts';
import type { FuzzTarget } from './runner.ts';
import { splitRing } from './split-ring.ts';

export const TARGETS: readonly FuzzTarget[] = [splitRing, packedRing];
