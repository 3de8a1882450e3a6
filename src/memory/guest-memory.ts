/**
 * A guest's memory as its VMM shared it: up to 32 regions, each a piece of a file, mapped into
 * the arena. Every address that a guest writes into a ring passes through {@link find}; there is
 * no other way to its memory.
 */
import { SluiceError } from '../base/errors.ts';
import { identify } from '../os/fd.ts';
import { F_SEAL_SHRINK, sealsOf } from '../os/mapping.ts';
import { machineMemory } from '../os/memory-size.ts';
import type { AddressSpace, MemoryRange } from './address-space.ts';
import type { Arena } from './arena.ts';
import type { DirtyLog } from './dirty-log.ts';

/** Memory slots that one guest may fill (vhost-user, VHOST_USER_GET_MAX_MEM_SLOTS). */
export const MAX_MEMORY_SLOTS = 32;

/** A region as a vhost-user message describes it (vhost-user, "Memory region description"). */
export interface RegionDescription {
  readonly guestAddress: number;
  readonly size: number;
  /** Where the VMM itself has mapped the region: ring addresses come in these terms. */
  readonly userAddress: number;
  readonly mmapOffset: number;
}

/** Whether a memory file that its owner could shrink is accepted. */
export type Isolation = 'normal' | 'strict';

export interface MemoryRegion extends MemoryRange, RegionDescription {
  readonly arenaAddress: number;
  /** Device and inode of the file. */
  readonly file: string;
  /** The file carries F_SEAL_SHRINK. */
  readonly sealed: boolean;
}

const LIMIT = 2 ** 52;

function checkRange(what: string, start: number, size: number): void {
  const fits = Number.isSafeInteger(start) && start >= 0 && start + size <= LIMIT;
  if (!fits)
    throw new SluiceError(
      'memory',
      `${what} 0x${start.toString(16)} + ${size} bytes is out of range`,
    );
}

function overlaps(aStart: number, aSize: number, bStart: number, bSize: number): boolean {
  return aStart < bStart + bSize && bStart < aStart + aSize;
}

export class GuestMemory implements AddressSpace {
  readonly #arena: Arena;
  readonly #isolation: Isolation;
  readonly #limit: number;
  #regions: MemoryRegion[] = [];
  #generation = 0;
  #log: DirtyLog | undefined;

  /** @param limit most bytes that the guest may share: what the machine has, unless told otherwise */
  constructor(arena: Arena, isolation: Isolation = 'normal', limit: number = machineMemory()) {
    this.#arena = arena;
    this.#isolation = isolation;
    this.#limit = limit;
  }

  get generation(): number {
    return this.#generation;
  }

  /** The regions, sorted by guest address. */
  get regions(): readonly MemoryRegion[] {
    return this.#regions;
  }

  /**
   * Maps a region. The descriptor stays the caller's to close.
   * @throws SluiceError `memory` for a region that is empty, misplaced, overlapping, larger than
   * its file or the machine, one too many, or (isolation strict) not sealed against shrinking.
   */
  add(description: RegionDescription, fd: number): MemoryRegion {
    const { guestAddress, size, userAddress, mmapOffset } = description;
    if (!(Number.isSafeInteger(size) && size > 0 && size <= LIMIT)) {
      throw new SluiceError('memory', `a memory region of ${size} bytes`);
    }
    checkRange('guest address', guestAddress, size);
    checkRange('user address', userAddress, size);
    checkRange('mmap offset', mmapOffset, size);
    if (this.#regions.length >= MAX_MEMORY_SLOTS) {
      throw new SluiceError('memory', `more than ${MAX_MEMORY_SLOTS} memory regions`);
    }
    for (const other of this.#regions) {
      if (overlaps(guestAddress, size, other.guestAddress, other.size)) {
        throw new SluiceError(
          'memory',
          `guest address 0x${guestAddress.toString(16)} + ${size} bytes overlaps another region`,
        );
      }
      if (overlaps(userAddress, size, other.userAddress, other.size)) {
        throw new SluiceError(
          'memory',
          `user address 0x${userAddress.toString(16)} + ${size} bytes overlaps another region`,
        );
      }
    }
    const file = identify(fd);
    if (mmapOffset + size > file.size) {
      throw new SluiceError(
        'memory',
        `a region of ${size} bytes at offset ${mmapOffset} of a file of ${file.size} bytes`,
      );
    }
    const shared = this.#regions.reduce((sum, other) => sum + other.size, size);
    if (shared > this.#limit) {
      throw new SluiceError(
        'memory',
        `${shared} bytes of memory for one guest, on a machine that has ${this.#limit}`,
        { remedy: 'give the guest less memory, or the machine more swap space' },
      );
    }
    const sealed = this.checkSeals('guest memory', fd);
    const arenaAddress = this.#arena.mapFile(fd, size, mmapOffset);
    const region: MemoryRegion = {
      guestAddress,
      size,
      userAddress,
      mmapOffset,
      arenaAddress,
      file: file.id,
      sealed,
      start: guestAddress,
      end: guestAddress + size,
      delta: arenaAddress - guestAddress,
      writable: true,
    };
    this.#regions = [...this.#regions, region].sort((a, b) => a.start - b.start);
    return region;
  }

  /**
   * Unmaps the region with these guest and user addresses and this size. No I/O may be in flight.
   * @throws SluiceError `memory` if there is none.
   */
  remove(guestAddress: number, userAddress: number, size: number): void {
    const index = this.#regions.findIndex(
      (r) => r.guestAddress === guestAddress && r.userAddress === userAddress && r.size === size,
    );
    const region = this.#regions[index];
    if (region === undefined) {
      throw new SluiceError(
        'memory',
        `no region at guest address 0x${guestAddress.toString(16)} of ${size} bytes`,
      );
    }
    this.#generation++;
    this.#regions = this.#regions.toSpliced(index, 1);
    this.#arena.unmap(region.arenaAddress, region.size);
  }

  /** Unmaps all regions. No I/O may be in flight. */
  clear(): void {
    this.#generation++;
    const regions = this.#regions;
    this.#regions = [];
    for (const region of regions) this.#arena.unmap(region.arenaAddress, region.size);
  }

  /**
   * True if the owner of a file cannot shrink it, which would end this process.
   * @throws SluiceError `memory` if it can, under isolation strict.
   */
  checkSeals(what: string, fd: number): boolean {
    const sealed = (sealsOf(fd) & F_SEAL_SHRINK) !== 0;
    if (sealed || this.#isolation !== 'strict') return sealed;
    throw new SluiceError(
      'memory',
      `${what} that its owner could shrink is refused under isolation: strict`,
      { remedy: 'give QEMU memory-backend-memfd,share=on,seal=on, or set isolation: normal' },
    );
  }

  find(address: number): MemoryRegion | undefined {
    const regions = this.#regions;
    for (let i = 0; i < regions.length; i++) {
      const region = regions[i] as MemoryRegion;
      if (address >= region.start && address < region.end) return region;
    }
    return undefined;
  }

  /** Arena address of `length` bytes at a guest physical address, or -1 unless one region holds them. */
  translate(address: number, length: number): number {
    const region = this.find(address);
    return region !== undefined && address + length <= region.end ? address + region.delta : -1;
  }

  /** As {@link translate}, for an address in the VMM's own terms (vhost-user ring addresses). */
  translateUser(address: number, length: number): number {
    for (const region of this.#regions) {
      const offset = address - region.userAddress;
      if (offset >= 0 && offset + length <= region.size) return region.arenaAddress + offset;
    }
    return -1;
  }

  /** The guest physical address of an arena address, or -1. */
  guestAddressOf(arenaAddress: number): number {
    for (const region of this.#regions) {
      const offset = arenaAddress - region.arenaAddress;
      if (offset >= 0 && offset < region.size) return region.guestAddress + offset;
    }
    return -1;
  }

  /** Starts or (undefined) stops marking written pages. */
  set dirtyLog(log: DirtyLog | undefined) {
    this.#log = log;
  }

  get logging(): boolean {
    return this.#log !== undefined;
  }

  markWritten(arenaAddress: number, length: number): void {
    const guestAddress = this.guestAddressOf(arenaAddress);
    if (guestAddress >= 0) this.#log?.mark(guestAddress, length);
  }
}
