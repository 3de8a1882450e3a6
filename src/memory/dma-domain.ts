/**
 * The DMA domain of a function: which I/O virtual addresses it may reach, where they lie, and what may
 * be done there. What an IOMMU is to a real function, this is to a device model: there is no other way
 * from it to a guest's memory.
 *
 * Maps do not overlap. Each is a piece of a memory file in the arena, or, without a descriptor, memory
 * that the transport reaches by messages ({@link RemoteMemory}).
 */
import { alignUp } from '../base/bits.ts';
import { SluiceError, SystemError } from '../base/errors.ts';
import {
  DMA_DONE,
  DMA_FAULT,
  DMA_PENDING,
  DMA_REFUSED,
  type DmaFault,
  type DmaSpace,
  MAX_DMA_COPY,
} from './dma.ts';
import { DmaFaultLog } from './dma-faults.ts';
import type { DmaFile, DmaFiles } from './dma-files.ts';
import { DMA_PAGE, DmaPageTable } from './dma-page-table.ts';

/** Maps that one function may have (vfio-user, "Capabilities": max_dma_maps). */
export const MAX_DMA_MAPS = 65535;

const READABLE = 1;
const WRITABLE = 2;
/** The memory has no descriptor. */
const REMOTE = 4;

/** Addresses are exact numbers. */
const LIMIT = 2 ** 53;

/** Memory that is reached by messages. Implemented by a transport. */
export interface RemoteMemory {
  /**
   * Begins to copy `length` bytes (at most {@link maxBytes}) from `iova` to the arena address `to`, or
   * the other way. {@link DmaDomain.complete} is told later, with `operation`. False: no more can be
   * under way, or nobody is there.
   */
  read(iova: number, length: number, to: number, operation: number): boolean;
  write(iova: number, length: number, from: number, operation: number): boolean;
  readonly maxBytes: number;
}

export interface DmaMapDescription {
  readonly iova: number;
  readonly length: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** Where the map begins in its file. */
  readonly offset: number;
}

export interface DmaDomainOptions {
  /** The function's name, for the fault log. */
  readonly name: string;
  readonly files: DmaFiles;
  /** Without it, memory that has no descriptor cannot be reached. */
  readonly remote?: RemoteMemory;
  /** Default: one of its own. A function keeps its log when its guest comes back. */
  readonly faults?: DmaFaultLog;
}

/** A copy of which pieces are under way. */
interface Operation {
  readonly tag: number;
  readonly iova: number;
  readonly length: number;
  readonly write: boolean;
  pieces: number;
  ok: boolean;
}

interface DmaMap {
  readonly description: DmaMapDescription;
  readonly file: DmaFile | undefined;
}

export class DmaDomain implements DmaSpace {
  generation = 0;
  onDone: ((tag: number, ok: boolean) => void) | undefined;
  readonly faults: DmaFaultLog;
  readonly #files: DmaFiles;
  readonly #bytes: Uint8Array;
  readonly #remote: RemoteMemory | undefined;
  readonly #table = new DmaPageTable();
  readonly #freeSlots: number[] = [];
  /** By slot. */
  readonly #maps: (DmaMap | undefined)[] = [];
  #start = new Float64Array(16);
  #end = new Float64Array(16);
  #delta = new Float64Array(16);
  #flags = new Uint8Array(16);
  #count = 0;
  #busMaster = false;
  /** The slots that were hit last by a read (0) and a write (1), or -1. */
  readonly #last = new Int32Array([-1, -1]);
  readonly #operations = new Map<number, Operation>();
  #nextOperation = 0;
  /** Pages that were written, a bit each, by file. */
  #dirty: Map<DmaFile, Uint8Array> | undefined;

  constructor(options: DmaDomainOptions) {
    this.#files = options.files;
    this.#bytes = options.files.arena.bytes;
    this.#remote = options.remote;
    this.faults = options.faults ?? new DmaFaultLog(options.name);
  }

  get count(): number {
    return this.#count;
  }

  /** Copies by message that are under way. */
  get pending(): number {
    return this.#operations.size;
  }

  get busMaster(): boolean {
    return this.#busMaster;
  }

  set busMaster(on: boolean) {
    if (on === this.#busMaster) return;
    this.#busMaster = on;
    this.#forget();
  }

  /** The maps, in no order. */
  describe(): readonly DmaMapDescription[] {
    return this.#maps.flatMap((map) => (map === undefined ? [] : [map.description]));
  }

  // The map

  /**
   * Adds a map: of a file (the descriptor stays the caller's), or without one of memory that is reached
   * by messages.
   * @throws SluiceError `state` if it overlaps another; `memory` if it is empty, not of whole pages, out
   * of range, past the end of its file, one too many, or scattered too widely.
   */
  map(description: DmaMapDescription, fd: number | undefined): void {
    const { iova, length, offset } = description;
    const isSound =
      [iova, length, offset].every((v) => Number.isSafeInteger(v) && v >= 0) &&
      length > 0 &&
      iova % DMA_PAGE === 0 &&
      length % DMA_PAGE === 0 &&
      offset % DMA_PAGE === 0 &&
      iova + length <= LIMIT &&
      offset + length <= LIMIT;
    if (!isSound) throw new SluiceError('memory', `${nameOf(iova, length)} cannot be mapped`);
    if (this.#count === MAX_DMA_MAPS) {
      throw new SluiceError('memory', `more than ${MAX_DMA_MAPS} DMA maps of one function`);
    }
    const end = iova + length;
    if (!this.#table.isFree(iova, end)) {
      throw new SluiceError('state', `${nameOf(iova, length)} overlaps another map`);
    }
    const file = fd === undefined ? undefined : this.#acquire(fd, offset + length);
    const slot = this.#freeSlots.pop() ?? this.#maps.length;
    try {
      this.#table.add(iova, end, slot);
    } catch (error) {
      this.#freeSlots.push(slot);
      if (slot === this.#maps.length) this.#maps.push(undefined);
      if (file !== undefined) this.#files.release(file);
      throw error;
    }
    if (slot === this.#start.length) this.#grow();
    this.#maps[slot] = { description, file };
    this.#start[slot] = iova;
    this.#end[slot] = end;
    this.#delta[slot] = file === undefined ? 0 : file.address + offset - iova;
    this.#flags[slot] =
      (description.readable ? READABLE : 0) |
      (description.writable ? WRITABLE : 0) |
      (file === undefined ? REMOTE : 0);
    this.#count++;
    // What was translated is still good, but what was refused may now be there.
    this.generation++;
  }

  /** True if a map begins at `iova` and has this length. */
  has(iova: number, length: number): boolean {
    return this.#slotOf(iova, length) !== -1;
  }

  /**
   * True if taking the maps in [iova, iova + length) away takes memory out of reach that I/O may be in
   * flight to.
   * @throws SluiceError as {@link unmap}
   */
  isDirect(iova: number, length: number): boolean {
    return this.#slotsIn(iova, length).some(
      (slot) => ((this.#flags[slot] as number) & REMOTE) === 0,
    );
  }

  /**
   * Takes all maps in [iova, iova + length) away, as the kernel's VFIO does it: a guest that switches
   * its IOMMU off has its VMM take away whole ranges. No I/O may be in flight there.
   * @throws SluiceError `not-found` if there is none, `memory` if one lies there with a part of it only.
   */
  unmap(iova: number, length: number): void {
    for (const slot of this.#slotsIn(iova, length)) this.#drop(slot);
    this.#forget();
  }

  /** Takes all maps away. No I/O may be in flight. */
  clear(): void {
    for (let slot = 0; slot < this.#maps.length; slot++) {
      if (this.#maps[slot] !== undefined) this.#drop(slot);
    }
    this.#forget();
  }

  #acquire(fd: number, end: number): DmaFile | undefined {
    try {
      return this.#files.acquire(fd, end);
    } catch (error) {
      // A descriptor that cannot be mapped for both directions: its memory is reached by messages.
      const isReadOnly = error instanceof SystemError && error.errnoName === 'EACCES';
      if (isReadOnly) return undefined;
      throw error;
    }
  }

  #slotOf(iova: number, length: number): number {
    if (!(iova >= 0 && iova < LIMIT)) return -1;
    const slot = this.#table.find(iova);
    const isWhole = slot !== -1 && this.#start[slot] === iova && this.#end[slot] === iova + length;
    return isWhole ? slot : -1;
  }

  #slotsIn(iova: number, length: number): readonly number[] {
    const exact = this.#slotOf(iova, length);
    if (exact !== -1) return [exact];
    const end = iova + length;
    const slots: number[] = [];
    for (let slot = 0; slot < this.#maps.length; slot++) {
      if (this.#maps[slot] === undefined) continue;
      const [start, last] = [this.#start[slot] as number, this.#end[slot] as number];
      if (last <= iova || start >= end) continue;
      if (start < iova || last > end) {
        throw new SluiceError(
          'memory',
          `${nameOf(iova, length)} is only a part of the map at ${nameOf(start, last - start)}`,
        );
      }
      slots.push(slot);
    }
    if (slots.length > 0) return slots;
    throw new SluiceError('not-found', `no map in ${nameOf(iova, length)}`);
  }

  #drop(slot: number): void {
    const map = this.#maps[slot];
    this.#table.remove(this.#start[slot] as number, this.#end[slot] as number);
    this.#maps[slot] = undefined;
    this.#freeSlots.push(slot);
    this.#count--;
    const file = map?.file;
    if (file === undefined) return;
    if (file.users === 1) this.#dirty?.delete(file);
    this.#files.release(file);
  }

  #forget(): void {
    this.generation++;
    this.#last.fill(-1);
  }

  #grow(): void {
    const length = this.#start.length * 2;
    const wider = (old: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> => {
      const grown = new Float64Array(length);
      grown.set(old);
      return grown;
    };
    this.#start = wider(this.#start);
    this.#end = wider(this.#end);
    this.#delta = wider(this.#delta);
    const flags = new Uint8Array(length);
    flags.set(this.#flags);
    this.#flags = flags;
  }

  // Access

  translate(iova: number, length: number, write: boolean): number {
    if (!this.#busMaster) return -1;
    const kind = write ? 1 : 0;
    let slot = this.#last[kind] as number;
    if (
      slot === -1 ||
      iova < (this.#start[slot] as number) ||
      iova >= (this.#end[slot] as number)
    ) {
      if (!(iova >= 0 && iova < LIMIT)) return -1;
      slot = this.#table.find(iova);
      if (slot === -1) return -1;
      const wanted = write ? WRITABLE : READABLE;
      if (((this.#flags[slot] as number) & (wanted | REMOTE)) !== wanted) return -1;
      this.#last[kind] = slot;
    }
    if (iova + length > (this.#end[slot] as number)) {
      return this.#translateOver(slot, iova, length, write);
    }
    return iova + (this.#delta[slot] as number);
  }

  span(iova: number, write: boolean, into: Float64Array): boolean {
    if (this.translate(iova, 1, write) < 0) return false;
    const slot = this.#last[write ? 1 : 0] as number;
    into[0] = this.#start[slot] as number;
    into[1] = this.#end[slot] as number;
    into[2] = this.#delta[slot] as number;
    return true;
  }

  /** As {@link translate}, over several maps that lie one behind the other in the arena too. */
  #translateOver(first: number, iova: number, length: number, write: boolean): number {
    const wanted = write ? WRITABLE : READABLE;
    const delta = this.#delta[first] as number;
    const end = iova + length;
    if (!(end <= LIMIT)) return -1;
    let at = this.#end[first] as number;
    while (at < end) {
      const slot = this.#table.find(at);
      const isNext =
        slot !== -1 &&
        this.#delta[slot] === delta &&
        ((this.#flags[slot] as number) & (wanted | REMOTE)) === wanted;
      if (!isNext) return -1;
      at = this.#end[slot] as number;
    }
    return iova + delta;
  }

  read(iova: number, length: number, to: number, tag: number): number {
    return this.#copy(iova, length, to, tag, false);
  }

  write(iova: number, length: number, from: number, tag: number): number {
    return this.#copy(iova, length, from, tag, true);
  }

  fault(iova: number, length: number, write: boolean, reason: DmaFault): void {
    this.faults.record(iova, length, write, reason);
  }

  /** Why an access would be refused, or -1 if it would not. */
  check(iova: number, length: number, write: boolean): DmaFault | -1 {
    if (!this.#busMaster) return DMA_FAULT.busMaster;
    const end = iova + length;
    if (!(iova >= 0 && length > 0 && end <= LIMIT)) return DMA_FAULT.address;
    for (let at = iova; at < end; ) {
      const slot = this.#table.find(at);
      if (slot === -1) return DMA_FAULT.unmapped;
      const flags = this.#flags[slot] as number;
      if ((flags & (write ? WRITABLE : READABLE)) === 0) {
        return write ? DMA_FAULT.readOnly : DMA_FAULT.writeOnly;
      }
      if ((flags & REMOTE) !== 0 && this.#remote === undefined) return DMA_FAULT.peer;
      at = this.#end[slot] as number;
    }
    return -1;
  }

  #copy(iova: number, length: number, lane: number, tag: number, write: boolean): number {
    const reason = length > MAX_DMA_COPY ? DMA_FAULT.address : this.check(iova, length, write);
    if (reason !== -1) {
      this.fault(iova, length, write, reason);
      return DMA_REFUSED;
    }
    let operation: Operation | undefined;
    let id = 0;
    const end = iova + length;
    for (let at = iova; at < end; ) {
      const slot = this.#table.find(at);
      const piece = Math.min(end, this.#end[slot] as number) - at;
      // In this order: the sum of both may not be an exact number.
      const mine = lane + (at - iova);
      if (((this.#flags[slot] as number) & REMOTE) === 0) {
        this.#copyDirect(at + (this.#delta[slot] as number), piece, mine, write);
      } else {
        if (operation === undefined) {
          operation = { tag, iova, length, write, pieces: 1, ok: true };
          id = this.#begin(operation);
        }
        this.#copyRemote(operation, id, at, piece, mine);
      }
      at += piece;
    }
    if (operation === undefined) return DMA_DONE;
    // The one piece that was counted ahead, so that nothing is over before all has begun.
    operation.pieces--;
    if (operation.pieces > 0) return DMA_PENDING;
    this.#operations.delete(id);
    this.fault(iova, length, write, DMA_FAULT.peer);
    return DMA_REFUSED;
  }

  #copyDirect(guest: number, length: number, lane: number, write: boolean): void {
    const bytes = this.#bytes;
    if (write) {
      bytes.copyWithin(guest, lane, lane + length);
      if (this.#dirty !== undefined) this.markWritten(guest, length);
    } else {
      bytes.copyWithin(lane, guest, guest + length);
    }
  }

  #begin(operation: Operation): number {
    do this.#nextOperation = (this.#nextOperation + 1) >>> 0;
    while (this.#operations.has(this.#nextOperation));
    this.#operations.set(this.#nextOperation, operation);
    return this.#nextOperation;
  }

  #copyRemote(operation: Operation, id: number, iova: number, length: number, lane: number): void {
    const remote = this.#remote;
    if (remote === undefined) return;
    for (let done = 0; done < length; ) {
      const part = Math.min(length - done, remote.maxBytes);
      const begun = operation.write
        ? remote.write(iova + done, part, lane + done, id)
        : remote.read(iova + done, part, lane + done, id);
      if (!begun) {
        operation.ok = false;
        return;
      }
      operation.pieces++;
      done += part;
    }
  }

  /** The transport tells that a piece of a copy is over. */
  complete(id: number, ok: boolean): void {
    const operation = this.#operations.get(id);
    if (operation === undefined) return;
    if (!ok) operation.ok = false;
    operation.pieces--;
    if (operation.pieces > 0) return;
    this.#operations.delete(id);
    const { tag, iova, length, write } = operation;
    if (!operation.ok) this.fault(iova, length, write, DMA_FAULT.peer);
    this.onDone?.(tag, operation.ok);
  }

  // Written pages

  get logging(): boolean {
    return this.#dirty !== undefined;
  }

  /** Begins anew, with nothing written, or ends. */
  set logging(on: boolean) {
    this.#dirty = on ? new Map() : undefined;
  }

  markWritten(arenaAddress: number, length: number): void {
    const dirty = this.#dirty;
    if (dirty === undefined || length === 0) return;
    const file = this.#files.at(arenaAddress);
    if (file === undefined) return;
    let bits = dirty.get(file);
    if (bits === undefined) {
      bits = new Uint8Array(alignUp(file.bytes, DMA_PAGE * 8) / (DMA_PAGE * 8));
      dirty.set(file, bits);
    }
    const from = arenaAddress - file.address;
    const last = Math.floor((from + length - 1) / DMA_PAGE);
    for (let page = Math.floor(from / DMA_PAGE); page <= last; page++) {
      bits[page >>> 3] = (bits[page >>> 3] as number) | (1 << (page & 7));
    }
  }

  /**
   * Sets a bit in `bitmap` for each page of `pageBytes` (a multiple of 4096) of the map [iova, iova +
   * length) that was written since it was asked for last, lowest bit first, and forgets that it was. Of
   * memory without a descriptor whoever holds it knows.
   */
  takeDirty(iova: number, length: number, pageBytes: number, bitmap: Uint8Array): void {
    const slot = this.#slotOf(iova, length);
    const file = slot === -1 ? undefined : this.#maps[slot]?.file;
    const bits = file === undefined ? undefined : this.#dirty?.get(file);
    if (file === undefined || bits === undefined) return;
    const first = (iova + (this.#delta[slot] as number) - file.address) / DMA_PAGE;
    const pages = length / DMA_PAGE;
    const pagesPerBit = pageBytes / DMA_PAGE;
    for (let i = 0; i < pages; i++) {
      const page = first + i;
      const byte = Math.floor(page / 8);
      const mask = 1 << (page & 7);
      if (((bits[byte] as number) & mask) === 0) continue;
      bits[byte] = (bits[byte] as number) & ~mask;
      const bit = Math.floor(i / pagesPerBit);
      bitmap[bit >>> 3] = (bitmap[bit >>> 3] as number) | (1 << (bit & 7));
    }
  }
}

function nameOf(iova: number, length: number): string {
  return `IOVA 0x${iova.toString(16)} + ${length} bytes`;
}
