/** When guests of this process found frames: what one notes, another one of the same thread sees. */
import { MAX_FLOWS } from './test-frame.ts';

/** By flow: when its last frame was found, CLOCK_MONOTONIC in ns. */
export const arrivals = new Float64Array(MAX_FLOWS);
