/**
 * A disk in memory of this process: fast, empty at first, gone at the end. Sparse: it takes as much
 * memory as was written to and not discarded.
 *
 * Requests are copies within the arena, done in batches (`memory/copy.ts`) when the device sends its
 * burst, and complete at the next poll.
 */
import { constants } from 'node:os';
import { alignDown, alignUp } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import type { Arena } from '../memory/arena.ts';
import { CopyQueue } from '../memory/copy.ts';
import { PAGE } from '../os/mapping.ts';
import { machineMemory } from '../os/memory-size.ts';
import { removePages } from '../os/remove-pages.ts';
import {
  type Disk,
  type DiskInfo,
  type DiskLane,
  type DiskQueue,
  type DiskQueueOptions,
  type DiskSink,
  SECTOR_BYTES,
} from './disk.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  type RequestTable,
} from './requests.ts';
import { SlotRing } from './slot-ring.ts';

/** What the main thread tells a lane of a memory disk. Can be posted. */
export interface MemoryDiskDescription {
  readonly kind: 'memory';
  /** As the configuration names it. */
  readonly name: string;
  readonly bytes: number;
  readonly readonly?: boolean;
  /** Default: {@link SECTOR_BYTES}. */
  readonly blockBytes?: number;
}

/** Below this, filling a range with zeroes is cheaper than giving its pages back and taking them anew. */
const REMOVE_BYTES = 64 * 1024;

/** Disks of one lane share the table of copies: it cannot be given back. */
const copyQueues = new WeakMap<Arena, CopyQueue>();

function copiesOf(arena: Arena): CopyQueue {
  let copies = copyQueues.get(arena);
  if (copies === undefined) {
    copies = new CopyQueue(arena);
    copyQueues.set(arena, copies);
  }
  return copies;
}

export class MemoryDisk implements Disk {
  readonly name: string;
  readonly info: DiskInfo;
  /** Arena address of the first byte. */
  readonly #start: number;
  readonly #arena: Arena;
  readonly #copies: CopyQueue;
  #queues = 0;

  /**
   * @throws SluiceError `config` for a size that is no multiple of the block, or more than the machine
   * has memory; `memory` if no address space is left
   */
  constructor(description: MemoryDiskDescription, lane: DiskLane) {
    const { name, bytes, blockBytes = SECTOR_BYTES } = description;
    if (!(Number.isSafeInteger(bytes) && bytes > 0 && bytes % blockBytes === 0)) {
      throw new SluiceError('config', `disk ${name}: a size of ${bytes} bytes`, {
        remedy: `give a multiple of ${blockBytes} bytes`,
      });
    }
    if (bytes > machineMemory()) {
      throw new SluiceError(
        'config',
        `disk ${name}: ${bytes} bytes of memory, on a machine that has ${machineMemory()}`,
        { remedy: 'make the disk smaller, or a sparse file' },
      );
    }
    this.name = name;
    const page = Math.max(PAGE, blockBytes);
    this.info = {
      bytes,
      readonly: description.readonly ?? false,
      blockBytes,
      physicalBlockBytes: page,
      optimalBytes: 0,
      discardBytes: page,
      writeZeroes: true,
      volatileCache: false,
    };
    this.#arena = lane.arena;
    this.#start = lane.arena.allocate(bytes, 'sluice-disk');
    this.#copies = copiesOf(lane.arena);
  }

  /** A memory disk never changes. */
  onChange(): { readonly remove: () => void } {
    return { remove: () => undefined };
  }

  open(options: DiskQueueOptions): DiskQueue {
    this.#queues++;
    return new MemoryQueue(options, this.#arena, this.#start, this.#copies, () => this.#queues--);
  }

  close(): void {
    if (this.#queues > 0) {
      throw new SluiceError('state', `disk ${this.name} is closed while a device uses it`);
    }
    this.#arena.unmap(this.#start, this.info.bytes);
  }
}

class MemoryQueue implements DiskQueue {
  readonly #requests: RequestTable;
  readonly #sink: DiskSink;
  readonly #arena: Arena;
  readonly #start: number;
  readonly #copies: CopyQueue;
  readonly #closed: () => void;
  /** Requests in flight, with their results. */
  readonly #done: SlotRing;
  /** Of these, those whose copies have been made. */
  #sent = 0;

  constructor(
    options: DiskQueueOptions,
    arena: Arena,
    start: number,
    copies: CopyQueue,
    closed: () => void,
  ) {
    this.#requests = options.requests;
    this.#sink = options.sink;
    this.#arena = arena;
    this.#start = start;
    this.#copies = copies;
    this.#closed = closed;
    this.#done = new SlotRing(options.requests.slots);
  }

  get inFlight(): number {
    return this.#done.count;
  }

  submit(slot: number): void {
    this.#done.push(slot, this.#perform(slot));
  }

  flush(): void {
    this.#copies.flush();
    this.#sent = this.#done.count;
  }

  poll(): number {
    const count = this.#sent;
    if (count === 0) return 0;
    this.#sent = 0;
    const done = this.#done;
    for (let i = 0; i < count; i++) {
      const result = done.firstValue;
      this.#sink.complete(done.shift(), result);
    }
    return count;
  }

  arm(): boolean {
    return this.#sent > 0;
  }

  disarm(): void {
    // Nothing was armed: a memory disk completes nothing while the lane sleeps.
  }

  close(): void {
    if (this.#done.count > 0) {
      throw new SluiceError(
        'state',
        `a disk is closed with ${this.#done.count} requests in flight`,
      );
    }
    this.#closed();
  }

  #perform(slot: number): number {
    const requests = this.#requests;
    const op = requests.op[slot] as number;
    const at = this.#start + (requests.offset[slot] as number);
    switch (op) {
      case DISK_READ:
      case DISK_WRITE:
        this.#transfer(slot, at, op === DISK_READ);
        return 0;
      case DISK_FLUSH:
        return 0;
      case DISK_DISCARD:
        this.#discard(at, requests.bytes[slot] as number);
        return 0;
      case DISK_WRITE_ZEROES:
        this.#zero(at, requests.bytes[slot] as number);
        return 0;
      default:
        return -constants.errno.EOPNOTSUPP;
    }
  }

  #transfer(slot: number, start: number, read: boolean): void {
    const { address, length, count, segments } = this.#requests;
    const first = slot * segments;
    const end = first + (count[slot] as number);
    let at = start;
    for (let i = first; i < end; i++) {
      const memory = address[i] as number;
      const bytes = length[i] as number;
      if (read) this.#copies.push(memory, at, bytes);
      else this.#copies.push(at, memory, bytes);
      at += bytes;
    }
  }

  /** Forgets the pages that lie wholly within. */
  #discard(at: number, bytes: number): void {
    const first = alignUp(at, PAGE);
    const end = alignDown(at + bytes, PAGE);
    if (end > first) this.#remove(first, end - first);
  }

  /** Blocks are never reserved, so that giving them back is as good as filling them, whatever was asked. */
  #zero(at: number, bytes: number): void {
    // Copies that were asked for before are done before.
    this.#copies.flush();
    const memory = this.#arena.bytes;
    const first = alignUp(at, PAGE);
    const end = alignDown(at + bytes, PAGE);
    if (end - first < REMOVE_BYTES || !this.#remove(first, end - first)) {
      memory.fill(0, at, at + bytes);
      return;
    }
    memory.fill(0, at, first);
    memory.fill(0, end, at + bytes);
  }

  #remove(at: number, bytes: number): boolean {
    this.#copies.flush();
    return removePages(this.#arena.pointer(at), bytes);
  }
}
