/** Makes the device's side of a ring, after checking that the ring can be one. */
import { isPowerOfTwo } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import { MAX_QUEUE_SIZE } from '../spec/virtio.ts';
import type { DeviceQueue } from './device-queue.ts';
import { PackedDeviceQueue } from './packed-device-queue.ts';
import type { QueueSetup } from './queue-setup.ts';
import { SplitDeviceQueue } from './split-device-queue.ts';

/** Alignment of the three areas: descriptor, driver, device (VIRTIO 1.3 §2.7, §2.8). */
const SPLIT_ALIGNMENT = [16, 2, 4] as const;
const PACKED_ALIGNMENT = [16, 4, 4] as const;

/**
 * The device's side of the ring that `setup` describes.
 * @throws SluiceError `ring` for an illegal size, position or alignment.
 */
export function createDeviceQueue(setup: QueueSetup): DeviceQueue {
  const { size, packed, position } = setup;
  if (
    !Number.isInteger(size) ||
    size < 1 ||
    size > MAX_QUEUE_SIZE ||
    (!packed && !isPowerOfTwo(size))
  ) {
    throw new SluiceError('ring', `a ${packed ? 'packed' : 'split'} ring of ${size} entries`);
  }
  const alignment = packed ? PACKED_ALIGNMENT : SPLIT_ALIGNMENT;
  for (const [index, area] of [setup.descriptor, setup.driver, setup.device].entries()) {
    const wanted = alignment[index] as number;
    if (area % wanted !== 0)
      throw new SluiceError('ring', `a ring area that is not aligned to ${wanted} bytes`);
  }
  if (packed && ((position.avail & 0x7fff) >= size || (position.used & 0x7fff) >= size)) {
    throw new SluiceError(
      'ring',
      `position ${position.avail}, ${position.used} in a packed ring of ${size}`,
    );
  }
  return packed ? new PackedDeviceQueue(setup) : new SplitDeviceQueue(setup);
}
