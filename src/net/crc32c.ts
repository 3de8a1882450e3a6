/** CRC32c (RFC 9260 appendix A; Castagnoli's polynomial, lowest bit first), of SCTP. */

const POLYNOMIAL = 0x82f6_3b78;

const table = new Int32Array(256).map((_, index) => {
  let crc = index;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) !== 0 ? POLYNOMIAL : 0);
  return crc;
});

/** What a sum begins with. */
export const CRC32C_START = -1;

/** The sum `crc` with `length` bytes at `at` added to it; a signed number. */
export function addCrc32c(crc: number, bytes: Uint8Array, at: number, length: number): number {
  let sum = crc;
  for (let i = at; i < at + length; i++) {
    sum = (sum >>> 8) ^ (table[(sum ^ (bytes[i] as number)) & 0xff] as number);
  }
  return sum;
}

/** What is sent of a sum, little-endian; unsigned. */
export function finishCrc32c(crc: number): number {
  return ~crc >>> 0;
}
