/** Makes the driver's side of a queue, whichever kind its layout has. */
import type { DriverQueue, DriverQueueSetup } from './driver-queue.ts';
import { PackedDriverQueue } from './packed-driver-queue.ts';
import { SplitDriverQueue } from './split-driver-queue.ts';

export function createDriverQueue(setup: DriverQueueSetup): DriverQueue {
  return setup.layout.packed ? new PackedDriverQueue(setup) : new SplitDriverQueue(setup);
}
