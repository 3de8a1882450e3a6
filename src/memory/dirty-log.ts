/**
 * The log of written pages that live migration reads (vhost-user, VHOST_USER_SET_LOG_BASE):
 * one bit for each 4 KiB of guest physical address, lowest bit first, shared with the VMM.
 */
import { SluiceError } from '../base/errors.ts';
import { SharedMapping } from '../os/mapping.ts';

/** Bytes of guest memory that one bit stands for (VHOST_LOG_PAGE). */
export const LOG_PAGE = 4096;

export class DirtyLog {
  readonly #mapping: SharedMapping | undefined;
  readonly #bits: Uint8Array;

  private constructor(bits: Uint8Array, mapping: SharedMapping | undefined) {
    this.#bits = bits;
    this.#mapping = mapping;
  }

  /** A log in memory of this process (for tests and for counting). */
  static inMemory(bytes: number): DirtyLog {
    return new DirtyLog(new Uint8Array(new ArrayBuffer(bytes)), undefined);
  }

  /** Maps `bytes` of log at `offset` of a file. The descriptor stays the caller's to close. */
  static map(fd: number, bytes: number, offset: number): DirtyLog {
    if (offset % 4096 !== 0) {
      throw new SluiceError(
        'protocol',
        `the dirty log's offset ${offset} is not a multiple of the page size`,
      );
    }
    const mapping = new SharedMapping(fd, bytes, offset);
    return new DirtyLog(new Uint8Array(mapping.buffer), mapping);
  }

  /** Marks the pages of [guestAddress, guestAddress + length). Pages past the log's end are not ours to mark. */
  mark(guestAddress: number, length: number): void {
    if (length === 0) return;
    const last = Math.floor((guestAddress + length - 1) / LOG_PAGE);
    for (let page = Math.floor(guestAddress / LOG_PAGE); page <= last; page++) {
      const byte = Math.floor(page / 8);
      if (byte < this.#bits.length) Atomics.or(this.#bits, byte, 1 << (page & 7));
    }
  }

  isMarked(guestAddress: number): boolean {
    const page = Math.floor(guestAddress / LOG_PAGE);
    return ((this.#bits[Math.floor(page / 8)] ?? 0) & (1 << (page & 7))) !== 0;
  }

  release(): void {
    this.#mapping?.release();
  }
}
