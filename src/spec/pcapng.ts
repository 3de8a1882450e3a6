/**
 * The pcapng capture file format (draft-ietf-opsawg-pcapng). Every block: type 4, total length 4,
 * body padded to 4 bytes, total length 4 once more; numbers in the byte order of the section.
 */

/** Block types (§4). */
export const PCAPNG_SECTION_HEADER = 0x0a0d_0d0a;
export const PCAPNG_INTERFACE_DESCRIPTION = 1;
export const PCAPNG_INTERFACE_STATISTICS = 5;
export const PCAPNG_ENHANCED_PACKET = 6;

/** Bytes around a block's body. */
export const PCAPNG_BLOCK_OVERHEAD = 12;

/** Section header (§4.1): magic 4, major 2, minor 2, section length 8 (all ones: not given). */
export const PCAPNG_BYTE_ORDER_MAGIC = 0x1a2b_3c4d;
export const PCAPNG_MAJOR = 1;
export const PCAPNG_MINOR = 0;
export const PCAPNG_SECTION_HEADER_BYTES = 16;

/** Interface description (§4.2): link type 2, reserved 2, snap length 4. */
export const PCAPNG_INTERFACE_BYTES = 8;
export const LINKTYPE_ETHERNET = 1;

/** Enhanced packet (§4.3): interface 4, timestamp 8 (high word first), captured 4, original 4, data. */
export const PCAPNG_PACKET_BYTES = 20;

/** Interface statistics (§4.6): interface 4, timestamp 8 (high word first). */
export const PCAPNG_STATISTICS_BYTES = 12;

/** Options (§3.5): code 2, length 2, value padded to 4 bytes. */
export const PCAPNG_OPTION_HEADER_BYTES = 4;
export const PCAPNG_OPT_END = 0;
export const PCAPNG_SHB_USERAPPL = 4;
export const PCAPNG_IF_NAME = 2;
/** One byte: n for units of 10^-n seconds. */
export const PCAPNG_IF_TSRESOL = 9;
/** Four bytes, of which the lowest two bits are the direction. */
export const PCAPNG_EPB_FLAGS = 2;
export const PCAPNG_INBOUND = 1;
export const PCAPNG_OUTBOUND = 2;
/** Eight bytes each: frames received, frames dropped for want of room. */
export const PCAPNG_ISB_IFRECV = 4;
export const PCAPNG_ISB_IFDROP = 5;

/** Nanoseconds, as a value of {@link PCAPNG_IF_TSRESOL}. */
export const PCAPNG_NANOSECONDS = 9;
