/**
 * A transmit queue (§7.2): descriptors are fetched once into memory of the lane, frames go to the card as
 * a burst with offload metadata, and done bits or the head are written back.
 *
 * The queue's registers may be in a page that the guest maps: they are read anew in each turn, and the
 * head that stands there is where the queue goes on. Frames of which a piece cannot be reached at an
 * address of ours are copied to the lane first, one at a time; nothing waits meanwhile but this queue.
 */
import { WINDOW_BYTES } from '../../memory/arena.ts';
import { DMA_DONE, DMA_PENDING, DMA_REFUSED } from '../../memory/dma.ts';
import type { Burst } from '../../net/burst.ts';
import {
  IXGBE_DESCRIPTOR_BYTES,
  IXGBE_HEAD_WRITE_BACK,
  IXGBE_TXD_DONE,
  IXGBE_TXD_END,
  IXGBE_TXD_LENGTH,
  IXGBE_TXD_REPORT,
} from '../../spec/ixgbe-descriptors.ts';
import { type DmaClient, iova } from '../device-memory.ts';
import { EnableBit } from './enable-bit.ts';
import { type PlainFrames, plainFramesFor } from './plain-frames.ts';
import { type BounceHolder, TRANSMIT_BOUNCE_BYTES } from './queue-bounce.ts';
import {
  MALFORMED_LENGTH,
  MALFORMED_OFFLOAD,
  type QueueParts,
  RING_ALIGN,
  RING_BYTES,
  type TransmitSink,
  TX,
  transmitClient,
  WINDOW,
} from './queue-parts.ts';
import { RingWindow } from './ring-window.ts';
import { TransmitFrames, UNREACHABLE } from './transmit-frames.ts';
import { QUEUE_CONTEXTS_WORDS } from './transmit-offloads.ts';

const BYTES = IXGBE_DESCRIPTOR_BYTES;
const WORDS = BYTES / 4;
const STATUS_OFFSET = 12;
/** Bits of TDWBAL that are an address. */
const HEAD_ADDRESS = 0xffff_fffc;
/** A queue that nothing can be done with is looked at again after this long, in ns. */
const STALL_NS = 1_000_000;

/** The bounced frame: not begun, on its way, or here (or lost, if an access failed). */
const NONE = 0;
const COMING = 1;
const HERE = 2;
/** The function's bounce memory is another queue's now. */
const BUSY = -1;

export class TransmitQueue implements DmaClient, BounceHolder {
  readonly index: number;
  readonly #parts: QueueParts;
  readonly #words: Uint32Array;
  /** Index of the queue's block in the words. */
  readonly #block: number;
  readonly #client: number;
  readonly #enable: EnableBit;
  readonly #window: RingWindow;
  readonly #frames: TransmitFrames;
  readonly #plain: PlainFrames;
  readonly #contexts = new Uint32Array(QUEUE_CONTEXTS_WORDS);
  /** Until when the queue is left alone, unless tail or map change: {@link PollLoop.now}. */
  readonly #stalledUntil = new Float64Array(1);
  #stalledTail = -1;
  #stalledHead = -1;
  #stalledGeneration = -1;
  /**
   * Descriptors in memory of this queue, while some of them had to be brought by messages: how many,
   * and the next to be looked at; the first of them stands at index #ownHead of the ring at #ownBase.
   */
  #own: Uint32Array | undefined;
  #fetched = 0;
  #next = 0;
  #ownHead = 0;
  readonly #ownBase = new Float64Array(1);
  /** Accesses that this queue waits for. */
  #waiting = 0;
  #failed = false;
  #bounced = NONE;
  #bounceBytes = 0;
  /** An interrupt is due when what is written back has arrived. */
  #owed = false;

  constructor(parts: QueueParts, index: number, blockWord: number) {
    this.index = index;
    this.#parts = parts;
    this.#words = parts.words;
    this.#block = blockWord;
    this.#client = transmitClient(index);
    this.#enable = new EnableBit(parts.words, blockWord + TX.TXDCTL);
    this.#window = RingWindow.ofTransmit(parts.path);
    this.#frames = TransmitFrames.of(parts.path);
    this.#plain = plainFramesFor(parts.path.arena);
    parts.memory.setClient(this.#client, this);
  }

  /** The driver has enabled the queue. */
  get enabled(): boolean {
    return this.#enable.isSet;
  }

  /** There is work, and nothing that it waits for. */
  get pending(): boolean {
    if (this.#waiting > 0) return !this.#enable.isDraining && !this.enabled;
    const words = this.#words;
    const tail = words[this.#block + TX.TDT] as number;
    return tail !== (words[this.#block + TX.TDH] as number) && this.#isReady(tail);
  }

  /** The function was reset: its memory has no clients, its registers are as at the beginning. */
  reset(): void {
    this.#contexts.fill(0);
    this.#waiting = 0;
    this.#owed = false;
    this.#enable.isDraining = false;
    this.#stalledTail = -1;
    this.#leaveOwn();
  }

  /** See {@link BounceHolder}: descriptors that were fetched are fetched again. */
  yield(): boolean {
    if (this.#waiting > 0 || this.pending) return false;
    this.#leaveOwn();
    return true;
  }

  /**
   * Sends up to 64 frames. Returns the descriptors that were given back, 0 if nothing could be done.
   * Does nothing unless {@link pending}.
   */
  poll(sink: TransmitSink): number {
    const words = this.#words;
    const block = this.#block;
    if (this.#waiting > 0) {
      this.#enable.hold();
      return 0;
    }
    // The barrier: descriptors are read after the tail that says that they are there.
    const tail = Atomics.load(words, block + TX.TDT);
    const head = words[block + TX.TDH] as number;
    if (tail === head || !this.#isReady(tail)) return 0;
    const entries = ringEntries(words, block);
    this.#window.base[0] = ringBase(words, block);
    const available = tail > head ? tail - head : tail - head + entries;
    if (this.#fetched > 0) {
      const same = this.#ownHead === head && this.#ownBase[0] === this.#window.base[0];
      if (same) return this.#turnOwn(sink, entries, head, available);
      // The driver began anew meanwhile: what was fetched before is void.
      this.#leaveOwn();
    }
    const count = available < WINDOW ? available : WINDOW;
    if (!this.#window.load(this.#parts.memory, entries, head, count)) {
      this.#bring(entries, head, count);
      return 0;
    }
    return this.#turn(sink, entries, head, count, available);
  }

  completed(ok: boolean): void {
    if (!ok) this.#failed = true;
    this.#waiting--;
    if (this.#waiting > 0) return;
    this.#enable.drained();
    if (this.#bounced === COMING) this.#bounced = HERE;
    if (!this.enabled) this.#leaveOwn();
    if (this.#owed) {
      this.#owed = false;
      this.#parts.interrupts.transmitted(this.index);
    }
  }

  #isReady(tail: number): boolean {
    const words = this.#words;
    const block = this.#block;
    if (!this.#enable.isSet) return false;
    const entries = ringEntries(words, block);
    const head = words[block + TX.TDH] as number;
    // Outside of the ring: nothing is fetched, and the lane may sleep.
    if (head >= entries || tail >= entries) return false;
    const { memory, path } = this.#parts;
    if (!memory.ready) return false;
    if (this.#stalledTail !== tail) return true;
    const same =
      this.#stalledHead === head && this.#stalledGeneration === (memory.space?.generation ?? 0);
    return !same || path.loop.now > (this.#stalledUntil[0] as number);
  }

  /** Nothing changes until the tail, the map or the driver's mind does. */
  #stall(): void {
    const { memory, path } = this.#parts;
    this.#stalledTail = this.#words[this.#block + TX.TDT] as number;
    this.#stalledHead = this.#words[this.#block + TX.TDH] as number;
    this.#stalledGeneration = memory.space?.generation ?? 0;
    this.#stalledUntil[0] = path.loop.now + STALL_NS;
  }

  /** Frames of the window, which is in the lane's memory; all of it at addresses of ours. */
  #turn(
    sink: TransmitSink,
    entries: number,
    head: number,
    count: number,
    available: number,
  ): number {
    const { path, memory } = this.#parts;
    const { burst } = path;
    const frames = this.#frames;
    frames.begin(burst);
    const { words, wordsAt } = this.#window;
    const at = wordsAt < WINDOW_BYTES ? wordsAt : 0;
    const next = frames.collect(burst, memory, words, 0, count, this.#contexts, at);
    if (next > 0) {
      this.#send(sink, burst);
      this.#giveBack(this.#window.words, 0, next, entries, head);
      return next;
    }
    if (frames.ended === UNREACHABLE) {
      this.#adopt(head, count);
      return this.#turnOwn(sink, entries, head, available);
    }
    if (count < WINDOW) {
      // The driver has not finished the frame: look again when the tail moves.
      this.#stall();
      return 0;
    }
    // A frame of more descriptors than the card takes (§7.2.1.1): given back, and nothing is sent.
    frames.badLength++;
    this.#giveBack(this.#window.words, 0, count, entries, head);
    return count;
  }

  /** Sends what there is, and tells receivers: they wait for it, and nobody for what is counted. */
  #send(sink: TransmitSink, burst: Burst): void {
    const { settings, statistics } = this.#parts;
    const frames = this.#frames;
    if (burst.count > 0) frames.describe(burst, settings.vlanType);
    if (burst.count === 0) return;
    sink.send(burst);
    sink.publish();
    statistics.transmitted(this.index, frames.frames, frames.bytes);
  }

  /**
   * Descriptors `first…end) of `words`, the first of which is at index `head` of the ring, are done: the
   * driver is told.
   */
  #giveBack(words: Uint32Array, first: number, end: number, entries: number, head: number): void {
    const { statistics, interrupts } = this.#parts;
    const frames = this.#frames;
    const used = end - first;
    const next = head + used < entries ? head + used : head + used - entries;
    if (frames.badLength > 0) statistics.malformed(this.index, frames.badLength, MALFORMED_LENGTH);
    if (frames.badOffload > 0) {
      statistics.malformed(this.index, frames.badOffload, MALFORMED_OFFLOAD);
    }
    let reported = false;
    // Payload was read before it is given back.
    this.#window.fence();
    // A queue that was disabled or set up anew meanwhile has nothing that could be written to.
    if (this.enabled && this.#words[this.#block + TX.TDH] === head) {
      reported = this.#report(words, first, end, entries, head, next);
      this.#words[this.#block + TX.TDH] = next;
    }
    if (!reported) return;
    if (this.#waiting > 0) this.#owed = true;
    else interrupts.transmitted(this.index);
  }

  /** Sets DD where it was asked for, or writes the head. True if a report was asked for. */
  #report(
    words: Uint32Array,
    first: number,
    end: number,
    entries: number,
    head: number,
    next: number,
  ): boolean {
    const { memory } = this.#parts;
    const low = this.#words[this.#block + TX.TDWBAL] as number;
    if ((low & IXGBE_HEAD_WRITE_BACK) !== 0) {
      const asked = countReports(words, first, end) > 0;
      if (asked) this.#reportHead(low, next);
      return asked;
    }
    const window = this.#window;
    const isDirect = window.locate(memory, entries, head, end - first);
    const { view } = memory.arena;
    const { where } = window;
    const { logging } = memory;
    if (isDirect && window.isNear && !logging && words === window.words) {
      return this.#plain.report(window.wordsAt, first, end, window.whereAt) > 0;
    }
    let reports = 0;
    for (let i = first; i < end; i++) {
      const at = i * WORDS;
      if (((words[at + 2] as number) & IXGBE_TXD_REPORT) === 0) continue;
      reports++;
      const status = ((words[at + 3] as number) | IXGBE_TXD_DONE) >>> 0;
      if (isDirect) {
        const to = (where[i - first] as number) + STATUS_OFFSET;
        view.setUint32(to, status, true);
        if (logging) memory.markWritten(to, 4);
        continue;
      }
      this.#reportByMessage(i, first, status, entries, head);
    }
    return reports > 0;
  }

  #reportByMessage(i: number, first: number, status: number, entries: number, head: number): void {
    const { memory, bounce } = this.#parts;
    const from = bounce.transmitWindow(this.index) + i * BYTES + STATUS_OFFSET;
    memory.arena.view.setUint32(from, status, true);
    const base = this.#window.base[0] as number;
    const address = base < 0 ? -1 : base + ((head + i - first) % entries) * BYTES + STATUS_OFFSET;
    if (memory.write(this.#client, address, 4, from) === DMA_PENDING) this.#waiting++;
  }

  /** §7.2.3.5.2 */
  #reportHead(low: number, next: number): void {
    const { memory, bounce } = this.#parts;
    const high = this.#words[this.#block + TX.TDWBAH] as number;
    const address = iova((low & HEAD_ADDRESS) >>> 0, high);
    const at = memory.translate(address, 4, true);
    if (at >= 0) {
      memory.arena.view.setUint32(at, next, true);
      if (memory.logging) memory.markWritten(at, 4);
      return;
    }
    const from = bounce.headWord(this.index);
    memory.arena.view.setUint32(from, next, true);
    if (memory.write(this.#client, address, 4, from) === DMA_PENDING) this.#waiting++;
  }

  // What cannot be reached at addresses of ours: slow, one frame at a time.

  /** Fetches descriptors into the queue's own window. */
  #bring(entries: number, head: number, count: number): void {
    const { memory, bounce } = this.#parts;
    const to = bounce.transmitWindow(this.index);
    const base = this.#window.base[0] as number;
    const result = memory.bring(this.#client, base, BYTES, entries, head, count, to);
    if (result === DMA_REFUSED) {
      this.#stall();
      return;
    }
    this.#setOwn(head, count);
    if (result !== DMA_DONE) this.#waiting = result - 1;
  }

  /** The lane's window becomes the queue's own. */
  #adopt(head: number, count: number): void {
    this.#setOwn(head, count);
    this.#own?.set(this.#window.words.subarray(0, count * WORDS));
  }

  #setOwn(head: number, count: number): void {
    const { bounce, memory } = this.#parts;
    this.#own ??= new Uint32Array(
      memory.arena.buffer,
      bounce.transmitWindow(this.index),
      WINDOW * WORDS,
    );
    this.#fetched = count;
    this.#next = 0;
    this.#failed = false;
    this.#ownHead = head;
    this.#ownBase[0] = this.#window.base[0] as number;
    this.#bounced = NONE;
  }

  #leaveOwn(): void {
    this.#fetched = 0;
    this.#next = 0;
    this.#failed = false;
    this.#bounced = NONE;
    this.#parts.bounce.giveTransmit(this);
  }

  /** As {@link #turn}, from the queue's own window. */
  #turnOwn(sink: TransmitSink, entries: number, head: number, available: number): number {
    const own = this.#own;
    if (own === undefined) return 0;
    if (this.#failed && this.#bounced === NONE) {
      // The descriptors did not come.
      this.#leaveOwn();
      this.#stall();
      return 0;
    }
    const { path, memory } = this.#parts;
    const { burst } = path;
    const frames = this.#frames;
    const first = this.#next;
    frames.begin(burst);
    let next = first;
    if (this.#bounced === NONE) {
      next = frames.collect(burst, memory, own, first, this.#fetched, this.#contexts, 0);
    }
    if (next === first && (this.#bounced !== NONE || frames.ended === UNREACHABLE)) {
      next = this.#bounce(burst, own, first);
      if (next === BUSY || this.#bounced === COMING) return 0;
    }
    if (next === first) return this.#endOwn(own, entries, head, available);
    this.#send(sink, burst);
    this.#next = next;
    this.#ownHead = (head + next - first) % entries;
    this.#giveBack(own, first, next, entries, head);
    this.#parts.bounce.giveTransmit(this);
    if (next === this.#fetched) this.#leaveOwn();
    return next - first;
  }

  /** The next frame of the window goes on in descriptors behind it. */
  #endOwn(own: Uint32Array, entries: number, head: number, available: number): number {
    const first = this.#next;
    const left = this.#fetched - first;
    if (left === WINDOW) {
      this.#frames.badLength++;
      this.#giveBack(own, 0, WINDOW, entries, head);
      this.#leaveOwn();
      return WINDOW;
    }
    this.#leaveOwn();
    if (left >= available) this.#stall();
    return 0;
  }

  /**
   * Brings the next frame to the lane; when it is there, makes it the burst's only one. Returns the
   * descriptor behind it, `first` if it has no end, or {@link BUSY}.
   */
  #bounce(burst: Burst, own: Uint32Array, first: number): number {
    const { bounce } = this.#parts;
    let last = first;
    while (((own[last * WORDS + 2] as number) & IXGBE_TXD_END) === 0) {
      if (++last === this.#fetched) return first;
    }
    const at = bounce.takeTransmit(this);
    if (at < 0) return BUSY;
    if (this.#bounced === NONE) {
      this.#readFrame(own, first, last, at);
      if (this.#waiting > 0) {
        this.#bounced = COMING;
        return first;
      }
    }
    const isHere = !this.#failed;
    this.#bounced = NONE;
    this.#failed = false;
    if (isHere && this.#bounceBytes > 0) {
      this.#frames.add(burst, own, first, last, this.#contexts, at, this.#bounceBytes);
    }
    return last + 1;
  }

  #readFrame(own: Uint32Array, first: number, last: number, to: number): void {
    const { memory } = this.#parts;
    let bytes = 0;
    this.#failed = false;
    this.#bounced = HERE;
    for (let i = first; i <= last; i++) {
      const at = i * WORDS;
      const length = (own[at + 2] as number) & IXGBE_TXD_LENGTH;
      if (length === 0) continue;
      if (bytes + length > TRANSMIT_BOUNCE_BYTES) {
        this.#frames.badLength++;
        this.#failed = true;
        break;
      }
      const address = iova(own[at] as number, own[at + 1] as number);
      const result = memory.read(this.#client, address, length, to + bytes);
      if (result === DMA_REFUSED) {
        this.#failed = true;
        break;
      }
      if (result === DMA_PENDING) this.#waiting++;
      bytes += length;
    }
    this.#bounceBytes = bytes;
  }
}

function countReports(words: Uint32Array, first: number, end: number): number {
  let reports = 0;
  for (let i = first; i < end; i++) {
    if (((words[i * WORDS + 2] as number) & IXGBE_TXD_REPORT) !== 0) reports++;
  }
  return reports;
}

function ringEntries(words: Uint32Array, block: number): number {
  return ((words[block + TX.TDLEN] as number) & RING_BYTES) / BYTES;
}

function ringBase(words: Uint32Array, block: number): number {
  const low = ((words[block + TX.TDBAL] as number) & RING_ALIGN) >>> 0;
  return iova(low, words[block + TX.TDBAH] as number);
}
