/** A guest's memory file, shared with a device: what every embedded guest has, whatever its driver. */
import { alignUp } from '../../base/bits.ts';
import type { Arena } from '../../memory/arena.ts';
import { closeFd } from '../../os/fd.ts';
import { createMemfd, HUGE_PAGE } from '../../os/mapping.ts';
import type { DriverMemory, QueueLayout } from '../../ring/driver-queue.ts';
import type { Frontend } from './frontend.ts';

/** Where a guest's memory begins: above 4 GiB, so that both halves of an address count. */
export const GUEST_BASE = 0x1_0000_0000;

/**
 * Makes `bytes` of memory for guest `name` and has `share` give it to its device: `size` bytes of a
 * file from its beginning, at a guest physical address. @see releaseMemory
 */
export function shareGuestMemory(
  name: string,
  bytes: number,
  arena: Arena,
  share: (fd: number, size: number, guestAddress: number) => void,
): DriverMemory {
  const size = alignUp(bytes, HUGE_PAGE);
  const fd = createMemfd(`sluice-guest-${name}`, size);
  let arenaAddress: number;
  try {
    arenaAddress = arena.mapFile(fd, size, 0);
    try {
      share(fd, size, GUEST_BASE);
    } catch (error) {
      arena.unmap(arenaAddress, size);
      throw error;
    }
  } finally {
    closeFd(fd);
  }
  return { arena, arenaAddress, guestAddress: GUEST_BASE, size };
}

export function releaseMemory({ arena, arenaAddress, size }: DriverMemory): void {
  arena.unmap(arenaAddress, size);
}

/** Lets the device use queues whose memory is initialised. */
export function startQueues(frontend: Frontend, layouts: readonly QueueLayout[]): void {
  for (const [index, layout] of layouts.entries()) frontend.startQueue(index, layout);
}
