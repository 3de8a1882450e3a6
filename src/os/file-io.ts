/** Reads, writes, syncs and allocation of files by plain system calls that block, with their errno. */
import { errno, libc } from './libc.ts';

/** preadv2(2) of `count` iovecs at process pointer `vector`: bytes, or a negative errno. */
export function readVector(fd: number, vector: bigint, count: number, offset: number): number {
  return outcome(libc.preadv2(fd, vector, count, BigInt(offset), 0), errno[0]);
}

/** pwritev2(2), with RWF_* flags: bytes, or a negative errno. */
export function writeVector(
  fd: number,
  vector: bigint,
  count: number,
  offset: number,
  flags: number,
): number {
  return outcome(libc.pwritev2(fd, vector, count, BigInt(offset), flags), errno[0]);
}

/** fdatasync(2): 0, or a negative errno. */
export function syncData(fd: number): number {
  return outcome(libc.fdatasync(fd), errno[0]);
}

/** fallocate(2): 0, or a negative errno. */
export function allocateRange(fd: number, mode: number, offset: number, length: number): number {
  return outcome(libc.fallocate(fd, mode, BigInt(offset), BigInt(length)), errno[0]);
}

function outcome(result: number | bigint, number: number): number {
  return Number(result) === -1 ? -number : Number(result);
}
