/**
 * A device's way to a file: turns requests into entries of an {@link IoRing}, and what comes back
 * into completions. A request has one operation on its way at a time, so a ring of as many entries
 * as the table has slots never is full.
 *
 * Nothing is allocated for a request. Numbers of 2^31 and more stay in typed arrays.
 */
import { alignDown, KiB, MiB, TWO_32 } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import {
  ENTRY_FIXED_FILE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  FSYNC_DATASYNC,
  IO_FALLOCATE,
  IO_FSYNC,
  IO_READ,
  IO_READV,
  IO_WRITE,
  IO_WRITEV,
  type IoRing,
  RWF_DSYNC,
} from '../os/io-ring.ts';
import { IOV_MAX } from '../os/io-vector.ts';
import { EAGAIN, EINTR, EINVAL, EIO, EOPNOTSUPP, pinned } from '../os/libc.ts';
import type { DiskQueue, DiskQueueOptions, DiskSink } from './disk.ts';
import type { FileState } from './file-state.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
  REQUEST_UNMAP,
  type RequestTable,
} from './requests.ts';
import {
  gatherSegments,
  isMisaligned,
  scatterSegments,
  vectorOfRest,
  zeroSegments,
} from './segments.ts';
import { SlotRing } from './slot-ring.ts';

const BOUNCE_BYTES = 256 * KiB;
const BOUNCE_BUFFERS = 8;
const NO_BOUNCE = 255;
/** Written where a file system cannot be asked for zeroes. */
const ZERO_BYTES = 2 * MiB;

const IOVEC_WORDS = 4;
const IOVEC_BYTES = 16;

/** What a slot has on its way. */
const STEP_TRANSFER = 0;
const STEP_BOUNCE = 1;
const STEP_SYNC = 2;
const STEP_DISCARD = 3;
const STEP_PUNCH = 4;
const STEP_ZERO_RANGE = 5;
const STEP_ZEROES = 6;

const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
const ZERO_RANGE = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

export interface FileQueueOptions extends DiskQueueOptions {
  /** Has room for a result of each slot, twice. Closed with the queue. */
  readonly ring: IoRing;
  readonly state: FileState;
  /** Multiple that offsets and lengths must be: the disk's logical block. */
  readonly blockBytes: number;
  readonly log: Logger;
  readonly onClose: (queue: FileQueue) => void;
}

export class FileQueue implements DiskQueue {
  inFlight = 0;
  readonly #ring: IoRing;
  readonly #state: FileState;
  readonly #table: RequestTable;
  readonly #sink: DiskSink;
  readonly #log: Logger;
  readonly #onClose: (queue: FileQueue) => void;
  readonly #blockBytes: number;
  /** Process pointer of arena address 0. */
  readonly #base: number;
  readonly #step: Uint8Array;
  /** Bytes of a slot's request that are done. */
  readonly #done: Float64Array;
  /** Completions that need no operation, with their results. */
  readonly #local: SlotRing;
  /** Lists of iovecs for what is left of a transfer: made when the first is needed. */
  #rest: { readonly words: Uint32Array; readonly pointer: number } | undefined;
  #zeroesAt = 0;
  /** Entries were taken after the device's burst was sent, or did not go. */
  #again = false;
  // For O_DIRECT: memory that is aligned, and who waits for it.
  readonly #bounceAt: number;
  readonly #bounceOf: Uint8Array;
  readonly #freeBounces: Uint8Array;
  #freeBounceCount: number;
  readonly #bounceWaiters: SlotRing;

  constructor(options: FileQueueOptions) {
    const { requests, state } = options;
    const { slots, arena } = requests;
    this.#ring = options.ring;
    this.#state = state;
    this.#table = requests;
    this.#sink = options.sink;
    this.#log = options.log;
    this.#onClose = options.onClose;
    this.#blockBytes = options.blockBytes;
    this.#base = Number(arena.pointer(0));
    this.#step = new Uint8Array(slots);
    this.#done = new Float64Array(slots);
    this.#local = new SlotRing(slots);
    const bounces = state.traits.direct ? BOUNCE_BUFFERS : 0;
    this.#bounceAt = bounces === 0 ? 0 : arena.allocate(bounces * BOUNCE_BYTES, 'sluice-bounce');
    this.#bounceOf = new Uint8Array(slots).fill(NO_BOUNCE);
    this.#freeBounces = Uint8Array.from({ length: bounces }, (_, index) => index);
    this.#freeBounceCount = bounces;
    this.#bounceWaiters = new SlotRing(slots);
  }

  submit(slot: number): void {
    this.inFlight++;
    this.#done[slot] = 0;
    const op = this.#table.op[slot] as number;
    if (op === DISK_READ || op === DISK_WRITE) this.#start(slot, op);
    else this.#startOther(slot, op);
  }

  flush(): void {
    this.#ring.submit();
    this.#again = this.#ring.waiting() !== 0;
  }

  poll(): number {
    if (this.inFlight === 0) return 0;
    let completed = 0;
    // Only what is there now: a completion may submit more that need no operation.
    for (let left = this.#local.count; left > 0; left--) {
      const result = this.#local.firstValue;
      this.#complete(this.#local.shift(), result);
      completed++;
    }
    const ring = this.#ring;
    const count = ring.ready();
    for (let i = 0; i < count; i++) {
      if (this.#finish(ring.tag(i), ring.result(i))) completed++;
    }
    if (count !== 0) ring.consume(count);
    if (this.#again) this.flush();
    return completed;
  }

  arm(): boolean {
    if (this.inFlight === 0) return false;
    return this.#ring.arm() || this.#local.count !== 0 || this.#again;
  }

  disarm(): void {
    this.#ring.disarm();
  }

  close(): void {
    if (this.inFlight !== 0)
      throw new SluiceError('state', `${this.inFlight} disk requests are in flight`);
    this.#ring.close();
    const { arena } = this.#table;
    if (this.#state.traits.direct) arena.unmap(this.#bounceAt, BOUNCE_BUFFERS * BOUNCE_BYTES);
    if (this.#zeroesAt !== 0) arena.unmap(this.#zeroesAt, ZERO_BYTES);
    this.#onClose(this);
  }

  #complete(slot: number, result: number): void {
    this.inFlight--;
    this.#sink.complete(slot, result);
  }

  /** An operation has ended. True if its request has, too. */
  #finish(slot: number, result: number): boolean {
    const step = this.#step[slot] as number;
    if (step === STEP_TRANSFER) {
      const done = this.#done[slot] as number;
      if (result >= 0 && done + result === (this.#table.bytes[slot] as number)) {
        if ((this.#table.op[slot] as number) === DISK_WRITE) this.#state.dirty = true;
        this.#complete(slot, 0);
        return true;
      }
    }
    const end = this.#continue(slot, step, result);
    if (end === CONTINUED) {
      this.#again = true;
      return false;
    }
    this.#complete(slot, end);
    return true;
  }

  /** All but the end of an ordinary transfer: gives the request's result, or {@link CONTINUED}. */
  #continue(slot: number, step: number, result: number): number {
    if (result === -EAGAIN || result === -EINTR) return this.#repeat(slot, step);
    switch (step) {
      case STEP_TRANSFER:
        return this.#continueTransfer(slot, result);
      case STEP_BOUNCE:
        return this.#continueBounce(slot, result);
      case STEP_SYNC:
        return this.#endSync(result);
      case STEP_ZEROES:
        return this.#continueZeroes(slot, result);
      default:
        return this.#continueRange(slot, step, result);
    }
  }

  #repeat(slot: number, step: number): number {
    switch (step) {
      case STEP_TRANSFER:
        this.#transfer(slot);
        break;
      case STEP_BOUNCE:
        this.#bounce(slot);
        break;
      case STEP_SYNC:
        this.#state.flushing--;
        this.#sync(slot);
        break;
      case STEP_ZEROES:
        this.#writeZeroes(slot);
        break;
      default:
        this.#range(slot, step);
    }
    return CONTINUED;
  }

  // Reads and writes.

  #start(slot: number, op: number): void {
    const { traits, broken } = this.#state;
    if (op === DISK_WRITE && broken && this.#isDurable(slot)) {
      this.#local.push(slot, -EIO);
      return;
    }
    if (traits.direct && isMisaligned(this.#table, slot, traits.memoryAlignment))
      this.#startBounce(slot);
    else this.#transfer(slot);
  }

  /**
   * Takes an entry and fills in what all of them have: the place on the disk where the request goes on.
   * Returns its first word. Offsets and addresses are not passed along: a number that does not fit a
   * small integer may become an object on the heap then.
   */
  #entry(slot: number, op: number): number {
    const at = this.#ring.take();
    if (at === -1) throw new SluiceError('state', 'more disk requests than the table has slots');
    const { entries } = this.#ring;
    const offset = (this.#table.offset[slot] as number) + (this.#done[slot] as number);
    entries[at] = op | ENTRY_FIXED_FILE;
    entries[at + 1] = 0;
    entries[at + 2] = offset;
    entries[at + 3] = offset / TWO_32;
    entries[at + 7] = 0;
    entries[at + 8] = slot;
    entries[at + 9] = 0;
    return at;
  }

  #memory(at: number, pointer: number, length: number): void {
    const { entries } = this.#ring;
    entries[at + 4] = pointer;
    entries[at + 5] = pointer / TWO_32;
    entries[at + 6] = length;
  }

  #transfer(slot: number): void {
    const table = this.#table;
    const count = table.count[slot] as number;
    const isWrite = (table.op[slot] as number) === DISK_WRITE;
    this.#step[slot] = STEP_TRANSFER;
    if (count === 1) {
      const at = this.#entry(slot, isWrite ? IO_WRITE : IO_READ);
      this.#segment(at, slot);
      if (isWrite) this.#setDurable(at, slot);
      return;
    }
    const at = this.#entry(slot, isWrite ? IO_WRITEV : IO_READV);
    if ((this.#done[slot] as number) === 0 && count <= IOV_MAX) this.#segments(at, slot, count);
    else this.#memoryOfRest(at, slot);
    if (isWrite) this.#setDurable(at, slot);
  }

  /** The only segment, from where the request goes on. */
  #segment(at: number, slot: number): void {
    const table = this.#table;
    const { entries } = this.#ring;
    const done = this.#done[slot] as number;
    const index = slot * table.segments;
    const pointer = this.#base + (table.address[index] as number) + done;
    entries[at + 4] = pointer;
    entries[at + 5] = pointer / TWO_32;
    entries[at + 6] = (table.length[index] as number) - done;
  }

  /** The table's own list of segments. */
  #segments(at: number, slot: number, count: number): void {
    const table = this.#table;
    const { entries } = this.#ring;
    const pointer = table.iovecs + slot * table.segments * IOVEC_BYTES;
    entries[at + 4] = pointer;
    entries[at + 5] = pointer / TWO_32;
    entries[at + 6] = count;
  }

  #memoryOfRest(at: number, slot: number): void {
    const table = this.#table;
    const done = this.#done[slot] as number;
    this.#rest ??= pinnedVectors(table.slots * table.segments);
    const { words, pointer } = this.#rest;
    const index = slot * table.segments;
    const word = index * IOVEC_WORDS;
    const count = vectorOfRest(table, slot, done, this.#base, words, word, IOV_MAX);
    this.#memory(at, pointer + index * IOVEC_BYTES, count);
  }

  /** Whether a request must be durable when it completes, and something has to be done for that. */
  #isDurable(slot: number): boolean {
    return (
      ((this.#table.flags[slot] as number) & REQUEST_FUA) !== 0 && !this.#state.traits.memoryOnly
    );
  }

  #setDurable(at: number, slot: number): void {
    if (this.#isDurable(slot)) this.#ring.entries[at + 7] = RWF_DSYNC;
  }

  #continueTransfer(slot: number, result: number): number {
    const table = this.#table;
    const { direct } = this.#state.traits;
    const isWrite = (table.op[slot] as number) === DISK_WRITE;
    // The file wants more alignment than it tells.
    if (result === -EINVAL && direct && (this.#done[slot] as number) === 0) {
      this.#startBounce(slot);
      return CONTINUED;
    }
    if (isWrite) this.#wrote(slot, result);
    if (result < 0) return result;
    const end = this.#advance(slot, result, isWrite);
    if (end !== CONTINUED) return end;
    if (direct) this.#startBounce(slot);
    else this.#transfer(slot);
    return CONTINUED;
  }

  /** Something of a write may have reached the file, whatever became of it. */
  #wrote(slot: number, result: number): void {
    this.#state.dirty = true;
    // The file, not the request, may have lost something: see FileState.broken.
    if (result === -EIO && this.#isDurable(slot)) this.#break(result);
  }

  /** Counts what was done of a transfer that is not done. A result, or {@link CONTINUED}. */
  #advance(slot: number, result: number, isWrite: boolean): number {
    const table = this.#table;
    const state = this.#state;
    const before = this.#done[slot] as number;
    let done = before + result;
    const position = (table.offset[slot] as number) + done;
    if (!isWrite && position >= state.fileBytes) {
      zeroSegments(table, slot, done);
      return 0;
    }
    if (state.traits.direct) done = alignDown(done, this.#blockBytes);
    if (done === before) {
      this.#log.error('a file gave nothing where it should have data: was it truncated?', {
        offset: position,
        bytes: state.fileBytes,
      });
      return -EIO;
    }
    this.#done[slot] = done;
    state.continued++;
    return CONTINUED;
  }

  // O_DIRECT with memory that is not aligned: by pieces, through a buffer that is.

  #startBounce(slot: number): void {
    this.#state.bounced++;
    this.#step[slot] = STEP_BOUNCE;
    if (this.#freeBounceCount === 0) {
      this.#bounceWaiters.push(slot, 0);
      return;
    }
    this.#bounceOf[slot] = this.#freeBounces[--this.#freeBounceCount] as number;
    this.#bounce(slot);
  }

  #bounce(slot: number): void {
    const table = this.#table;
    const done = this.#done[slot] as number;
    const isWrite = (table.op[slot] as number) === DISK_WRITE;
    const length = Math.min((table.bytes[slot] as number) - done, BOUNCE_BYTES);
    const buffer = this.#bounceAt + (this.#bounceOf[slot] as number) * BOUNCE_BYTES;
    if (isWrite) gatherSegments(table, slot, done, buffer, length);
    const at = this.#entry(slot, isWrite ? IO_WRITE : IO_READ);
    this.#memory(at, this.#base + buffer, length);
    if (isWrite) this.#setDurable(at, slot);
  }

  #continueBounce(slot: number, result: number): number {
    const table = this.#table;
    const isWrite = (table.op[slot] as number) === DISK_WRITE;
    const end = this.#bounced(slot, result, isWrite);
    if (end === CONTINUED) {
      this.#bounce(slot);
      return CONTINUED;
    }
    const buffer = this.#bounceOf[slot] as number;
    this.#bounceOf[slot] = NO_BOUNCE;
    if (this.#bounceWaiters.count === 0) {
      this.#freeBounces[this.#freeBounceCount++] = buffer;
      return end;
    }
    const next = this.#bounceWaiters.shift();
    this.#bounceOf[next] = buffer;
    this.#bounce(next);
    this.#again = true;
    return end;
  }

  #bounced(slot: number, result: number, isWrite: boolean): number {
    if (isWrite) this.#wrote(slot, result);
    if (result < 0) return result;
    const table = this.#table;
    const done = this.#done[slot] as number;
    const buffer = this.#bounceAt + (this.#bounceOf[slot] as number) * BOUNCE_BYTES;
    if (!isWrite) scatterSegments(table, slot, done, buffer, result);
    if (done + result === (table.bytes[slot] as number)) return 0;
    return this.#advance(slot, result, isWrite);
  }

  // Flushes, and what must be durable when it completes.

  #sync(slot: number): void {
    // Offset and length 0: the whole file. The request has none, or it was its own.
    const at = this.#entry(slot, IO_FSYNC);
    this.#ring.entries.fill(0, at + 2, at + 7);
    this.#ring.entries[at + 7] = FSYNC_DATASYNC;
    this.#step[slot] = STEP_SYNC;
    const state = this.#state;
    state.flushing++;
    // What completes from now on needs another flush.
    state.dirty = false;
  }

  #endSync(result: number): number {
    const state = this.#state;
    state.flushing--;
    if (result >= 0) return 0;
    state.dirty = true;
    this.#break(result);
    return result;
  }

  /** With O_DIRECT nothing is lost that a later flush could not be told of. */
  #break(result: number): void {
    const state = this.#state;
    if (state.broken || state.traits.direct) return;
    state.broken = true;
    this.#log.error(
      'a flush failed, and writes that the guest had done may be lost: every further flush fails ' +
        'until the disk is opened anew',
      { result },
    );
  }

  // Discards and zeroes.

  #startOther(slot: number, op: number): void {
    const state = this.#state;
    if (op === DISK_FLUSH) {
      const idle = !state.dirty && state.flushing === 0;
      if (state.broken) this.#local.push(slot, -EIO);
      else if (idle || state.traits.memoryOnly) this.#local.push(slot, 0);
      else this.#sync(slot);
    } else if (op === DISK_DISCARD) {
      if (state.punch) this.#range(slot, STEP_DISCARD);
      else this.#local.push(slot, 0);
    } else if (op === DISK_WRITE_ZEROES) {
      const unmap = ((this.#table.flags[slot] as number) & REQUEST_UNMAP) !== 0;
      if (unmap && state.punch) this.#range(slot, STEP_PUNCH);
      else if (state.zeroRange) this.#range(slot, STEP_ZERO_RANGE);
      else this.#writeZeroes(slot);
    } else {
      this.#local.push(slot, -EOPNOTSUPP);
    }
  }

  #range(slot: number, step: number): void {
    const length = this.#table.bytes[slot] as number;
    const at = this.#entry(slot, IO_FALLOCATE);
    this.#memory(at, length, step === STEP_ZERO_RANGE ? ZERO_RANGE : PUNCH);
    this.#step[slot] = step;
  }

  #continueRange(slot: number, step: number, result: number): number {
    const state = this.#state;
    if (result === -EOPNOTSUPP) {
      if (step === STEP_ZERO_RANGE) state.zeroRange = false;
      else state.punch = false;
      // To forget what may be forgotten is a hint: not to take it is no error.
      if (step === STEP_DISCARD) return 0;
      if (step === STEP_PUNCH && state.zeroRange) this.#range(slot, STEP_ZERO_RANGE);
      else this.#writeZeroes(slot);
      return CONTINUED;
    }
    return this.#endChange(slot, result);
  }

  #writeZeroes(slot: number): void {
    const table = this.#table;
    if (this.#zeroesAt === 0) this.#zeroesAt = table.arena.allocate(ZERO_BYTES, 'sluice-zeroes');
    const done = this.#done[slot] as number;
    const length = Math.min((table.bytes[slot] as number) - done, ZERO_BYTES);
    const at = this.#entry(slot, IO_WRITE);
    this.#memory(at, this.#base + this.#zeroesAt, length);
    this.#step[slot] = STEP_ZEROES;
  }

  #continueZeroes(slot: number, result: number): number {
    if (result < 0) return this.#endChange(slot, result);
    const done = (this.#done[slot] as number) + result;
    if (result === 0) return this.#endChange(slot, -EIO);
    this.#done[slot] = done;
    if (done === (this.#table.bytes[slot] as number)) return this.#endChange(slot, 0);
    this.#writeZeroes(slot);
    return CONTINUED;
  }

  /** A range was changed by other means than a write: those know nothing of durability. */
  #endChange(slot: number, result: number): number {
    this.#state.dirty = true;
    if (result < 0) return result;
    if (!this.#isDurable(slot)) return 0;
    if (this.#state.broken) return -EIO;
    this.#sync(slot);
    return CONTINUED;
  }
}

/** The request goes on: no errno, and no result of a request, which is 0 or an errno. */
const CONTINUED = 1;

/** Room for lists of iovecs that the kernel can be pointed at. */
function pinnedVectors(count: number): { readonly words: Uint32Array; readonly pointer: number } {
  const { buffer, address } = pinned(count * IOVEC_BYTES);
  return { words: new Uint32Array(buffer), pointer: Number(address) };
}
