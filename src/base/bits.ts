/** Arithmetic on sizes and addresses that are JavaScript numbers (exact up to 2^53), and masks of bits. */

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

/** 2^32: what the high half of a 64-bit value weighs. */
export const TWO_32 = 4294967296;

/** `value` rounded up to a multiple of `alignment` (any positive integer). */
export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

/** `value` rounded down to a multiple of `alignment` (any positive integer). */
export function alignDown(value: number, alignment: number): number {
  return Math.floor(value / alignment) * alignment;
}

/** True for 1, 2, 4 … up to 2^31. */
export function isPowerOfTwo(value: number): boolean {
  return (
    Number.isInteger(value) && value > 0 && value <= 0x8000_0000 && (value & (value - 1)) === 0
  );
}

/** How many bits of a 32-bit value are set. */
export function countBits(value: number): number {
  let count = 0;
  for (let rest = value; rest !== 0; rest &= rest - 1) count++;
  return count;
}

/** One value of 64 bits with the bits of these numbers set: feature bits, as negotiations carry them. */
export function bitMask(...bits: readonly number[]): bigint {
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
}

export function hasBit(mask: bigint, bit: number): boolean {
  return (mask & (1n << BigInt(bit))) !== 0n;
}
