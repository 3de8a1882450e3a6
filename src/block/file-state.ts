/** What is known of an open file: what the queues of a disk share and learn. */

/** How a file does its I/O. */
export interface FileTraits {
  /** Past the page cache (O_DIRECT). */
  readonly direct: boolean;
  /** O_DIRECT: what addresses and lengths of memory must be multiples of; else 1. */
  readonly memoryAlignment: number;
  /** What lies in memory alone (tmpfs): a flush has nothing to do. */
  readonly memoryOnly: boolean;
  /** Blocks can be given back (FALLOC_FL_PUNCH_HOLE). */
  readonly punch: boolean;
  /** Zeroes can be written without writing them (FALLOC_FL_ZERO_RANGE). */
  readonly zeroRange: boolean;
}

/** What a file disk has counted since it was opened. */
export interface FileCounts {
  /** Requests that went through a bounce buffer, because memory was not aligned for O_DIRECT. */
  readonly bounced: number;
  /** Transfers that were continued, because the kernel did only a part. */
  readonly continued: number;
}

/** Belongs to the lane. */
export class FileState {
  readonly traits: FileTraits;
  /** Bytes that the file has: a readonly one may end within the disk's last sector. */
  fileBytes: number;
  punch: boolean;
  zeroRange: boolean;
  /**
   * Something was completed that no flush has made durable since. True at first: a process before
   * this one may have left something.
   */
  dirty = true;
  /** Flushes that are on their way. */
  flushing = 0;
  /**
   * A flush has failed. The kernel tells of lost writes once and forgets them: no later flush of this
   * open file could promise anything.
   */
  broken = false;
  bounced = 0;
  continued = 0;

  constructor(traits: FileTraits, fileBytes: number) {
    this.traits = traits;
    this.fileBytes = fileBytes;
    this.punch = traits.punch;
    this.zeroRange = traits.zeroRange;
  }
}
