/** Reads, writes, syncs and allocation of files by plain system calls that block, with their errno. */
import { errno, libc } from './libc.ts';

/** preadv2(2) of `count` iovecs at process pointer `vector`: bytes, or a negative errno. */
export function readVector(fd: number, vector: bigint, count: number, offset: number): number {
  return outcome(Number(libc.preadv2(fd, vector, count, BigInt(offset), 0)));
}

/** pwritev2(2), with RWF_* flags: bytes, or a negative errno. */
export function writeVector(
  fd: number,
  vector: bigint,
  count: number,
  offset: number,
  flags: number,
): number {
  return outcome(Number(libc.pwritev2(fd, vector, count, BigInt(offset), flags)));
}

/** fdatasync(2): 0, or a negative errno. */
export function syncData(fd: number): number {
  return outcome(libc.fdatasync(fd));
}

/** fallocate(2): 0, or a negative errno. */
export function allocateRange(fd: number, mode: number, offset: number, length: number): number {
  return outcome(libc.fallocate(fd, mode, BigInt(offset), BigInt(length)));
}

function outcome(result: number): number {
  return result === -1 ? -errno() : result;
}
