/**
 * Memory files of guests, each mapped once: a VMM shares the same file with each of its functions, and
 * with a virtual IOMMU once for each page. Found by inode; one table a lane.
 */
import { SluiceError } from '../base/errors.ts';
import { identify } from '../os/fd.ts';
import { F_SEAL_SHRINK, sealsOf } from '../os/mapping.ts';
import { machineMemory } from '../os/memory-size.ts';
import type { Arena } from './arena.ts';
import type { Isolation } from './guest-memory.ts';

/** A file in the arena. Its mapping stays while somebody uses it. */
export interface DmaFile {
  /** Device and inode. */
  readonly id: string;
  /** Arena address of the file's first byte. */
  readonly address: number;
  readonly bytes: number;
  users: number;
}

export class DmaFiles {
  readonly arena: Arena;
  readonly #isolation: Isolation;
  readonly #limit: number;
  readonly #files: DmaFile[] = [];

  /** @param limit the largest file that is mapped: what the machine has, unless told otherwise */
  constructor(arena: Arena, isolation: Isolation = 'normal', limit: number = machineMemory()) {
    this.arena = arena;
    this.#isolation = isolation;
    this.#limit = limit;
  }

  /** Files that are mapped now. */
  get count(): number {
    return this.#files.length;
  }

  /** The file that lies at an arena address, or undefined. */
  at(address: number): DmaFile | undefined {
    return this.#files.find(
      (file) => address >= file.address && address - file.address < file.bytes,
    );
  }

  /**
   * The file behind a descriptor, which stays the caller's. Undo with {@link release}.
   * @param end bytes of it that must be there
   * @throws SluiceError `memory` if it is shorter, larger than the machine, or (isolation strict) can
   * be shrunk; SystemError if the kernel maps it not readable and writable.
   */
  acquire(fd: number, end: number): DmaFile {
    const { id, size } = identify(fd);
    if (end > size) {
      throw new SluiceError('memory', `a map up to byte ${end} of a file of ${size} bytes`);
    }
    const known = this.#files.find((file) => file.id === id && file.bytes >= end);
    if (known !== undefined) {
      known.users++;
      return known;
    }
    if (size > this.#limit) {
      throw new SluiceError(
        'memory',
        `a memory file of ${size} bytes, on a machine that has ${this.#limit}`,
        { remedy: 'give the guest less memory, or the machine more swap space' },
      );
    }
    if (this.#isolation === 'strict' && (sealsOf(fd) & F_SEAL_SHRINK) === 0) {
      throw new SluiceError(
        'memory',
        'guest memory that its owner could shrink is refused under isolation: strict',
        { remedy: 'give QEMU memory-backend-memfd,share=on,seal=on, or set isolation: normal' },
      );
    }
    const file = { id, address: this.arena.mapFile(fd, size, 0), bytes: size, users: 1 };
    this.#files.push(file);
    return file;
  }

  /** No I/O of this user may be in flight there. */
  release(file: DmaFile): void {
    file.users--;
    if (file.users > 0) return;
    this.#files.splice(this.#files.indexOf(file), 1);
    this.arena.unmap(file.address, file.bytes);
  }
}
