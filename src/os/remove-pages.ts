/** Giving pages of a mapped memory file back to the kernel (madvise(2), MADV_REMOVE). */
import { libc } from './libc.ts';

const MADV_REMOVE = 9;

/**
 * Punches a hole of `length` bytes from `address` (both multiples of the page size) into the memory
 * file that is mapped there: the range reads as zeroes in every mapping of it and takes no memory.
 * False if the kernel refuses; then the content is as it was.
 */
export function removePages(address: bigint, length: number): boolean {
  return libc.madvise(address, BigInt(length), MADV_REMOVE) === 0;
}
