/**
 * A pair of rings through which file operations are asked for and answered, in the form of
 * io_uring(7): whoever works them off is the kernel (`io-uring.ts`) or a thread of ours.
 *
 * An entry of the submission ring is 64 bytes, here sixteen words (struct io_uring_sqe,
 * uapi/linux/io_uring.h), of which the caller writes the first ten:
 *
 *   word  0      opcode (bits 0-7), IOSQE flags (8-15), priority (16-31)
 *   word  1      index of the file
 *   words 2-3    offset in the file
 *   words 4-5    address of the memory or of the list of iovecs; IO_FALLOCATE: length of the range
 *   word  6      bytes of memory, iovecs in the list; IO_FALLOCATE: mode
 *   word  7      RWF_* of a read or write, FSYNC_* of a sync
 *   words 8-9    tag, given back with the result: a number below 2^31, and zero
 */

/** Words from one entry to the next. */
export const ENTRY_WORDS = 16;

/** Opcodes (enum io_uring_op). */
export const IO_NOP = 0;
export const IO_READV = 1;
export const IO_WRITEV = 2;
export const IO_FSYNC = 3;
export const IO_FALLOCATE = 17;
export const IO_READ = 22;
export const IO_WRITE = 23;

/** Word 0: word 1 is an index into the ring's files, no descriptor (IOSQE_FIXED_FILE). */
export const ENTRY_FIXED_FILE = 1 << 8;

/** Only what is needed to read the data back: fdatasync(2) (IORING_FSYNC_DATASYNC). */
export const FSYNC_DATASYNC = 1;
/** The write is durable when it returns (pwritev2(2)). */
export const RWF_DSYNC = 2;

/** Modes of fallocate(2), uapi/linux/falloc.h. */
export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

/**
 * One thread uses it: takes entries, fills them in, submits them, and reads results. Nothing
 * here allocates.
 */
export interface IoRing {
  /** The entries, as words. */
  readonly entries: Uint32Array;
  /** The first word of a free entry, or -1 when all wait to be submitted. */
  take(): number;
  /**
   * Sends what was taken on its way. Not all may go when the kernel is short of memory: the rest
   * goes with a later call.
   */
  submit(): void;
  /** Entries that were taken and have not gone yet. */
  waiting(): number;
  /** Results that can be read. Looks only at shared memory, unless the kernel has asked for a call. */
  ready(): number;
  /** Tag of result `i` (0: the oldest), `i` below what {@link ready} returned. */
  tag(i: number): number;
  /** Result `i`: bytes or 0, or a negative errno. */
  result(i: number): number;
  /** Gives the room of the `n` oldest results back. */
  consume(n: number): void;
  /** Results from now on wake the epoll set that the ring was made for. True if some are there. */
  arm(): boolean;
  disarm(): void;
  /** Gives memory and descriptors back. Nothing may be on its way. */
  close(): void;
}
