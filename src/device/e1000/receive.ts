/**
 * The receive ring (SDM §3.2; DS §7.1): legacy descriptors, and of the 82574 extended ones and those
 * with four buffers (packet split; headers are not split off). Buffers are filled as frames are
 * delivered, descriptors written back when the copies are done.
 */
import { DMA_DONE, DMA_PENDING, DMA_REFUSED } from '../../memory/dma.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import {
  INT_RXDMT0,
  INT_RXO,
  INT_SRPD,
  RCTL_BSEX,
  RCTL_BSIZE_SHIFT,
  RCTL_DTYP_SHIFT,
  RCTL_EN,
  RCTL_RDMTS_SHIFT,
  RCTL_SECRC,
  RFCTL_EXTEN,
  RX_DESCRIPTOR_BYTES,
  RX_SPLIT_DESCRIPTOR_BYTES,
  RXD_DD,
  RXD_EOP,
  RXD_EXTENDED_ERRORS_SHIFT,
} from '../../spec/e1000.ts';
import { ETHERNET_MIN_FRAME_BYTES } from '../../spec/ethernet.ts';
import { type DeviceMemory, type DmaClient, iova, withinPage } from '../device-memory.ts';
import type { Interrupts } from './interrupts.ts';
import { R, type RegisterFile } from './registers.ts';
import { FCS_BYTES, type Statistics } from './statistics.ts';

const { RCTL, RDBAL, RDBAH, RDLEN, RDH, RDT, PSRCTL, RFCTL, RSRPD, MPC, RNBC, ICRXDMTC, ICRXOC } =
  R;

/** What became of a frame. */
export const DELIVERED = 0;
export const NO_BUFFER = 1;
export const TOO_BIG = 2;

/** This ring's number in {@link DeviceMemory}. */
const RECEIVE = 1;
/** Words of the largest descriptor. */
const WORDS = RX_SPLIT_DESCRIPTOR_BYTES / 4;
const SPLIT_BUFFERS = 4;
/** Fetched descriptors, and descriptors to be written back. */
export const RX_SCRATCH_BYTES = 2 * BATCH * RX_SPLIT_DESCRIPTOR_BYTES;
/** Room for what goes to memory that is not ours to write to. */
export const RX_BOUNCE_BYTES = 256 * 1024;
/** Pieces in the bounce memory: at most one a page of frame, and one a buffer. */
const BOUNCES = 512;
/** Destinations of one frame in {@link DataPath.scatter}. */
const MOST_PIECES = 2048;

const LEGACY = 0;
const EXTENDED = 1;
const SPLIT = 2;

export interface ReceiveParts {
  readonly path: DataPath;
  readonly memory: DeviceMemory;
  readonly registers: RegisterFile;
  readonly interrupts: Interrupts;
  readonly statistics: Statistics;
  /** Arena address of {@link RX_SCRATCH_BYTES}, of {@link RX_BOUNCE_BYTES}, of 64 zeros. */
  readonly scratchAt: number;
  readonly bounceAt: number;
  readonly zerosAt: number;
}

export class ReceiveRing implements DmaClient {
  readonly #parts: ReceiveParts;
  readonly #words: Uint32Array;
  readonly #descriptors: Uint32Array;
  readonly #done: Uint32Array;
  readonly #doneAt: number;
  /** Orders what was copied before what says so. */
  readonly #fence = new Int32Array(new SharedArrayBuffer(4));
  /** As the driver set it up, read when the registers change. */
  #layout = LEGACY;
  #size = RX_DESCRIPTOR_BYTES;
  /** Head and tail count 16 bytes whatever a descriptor has (DS §10.2.5.7, §10.2.5.8): how many are one. */
  #units = 1;
  readonly #bufferBytes = new Uint32Array(SPLIT_BUFFERS);
  #buffersEach = 1;
  #entries = 0;
  #base = -1;
  /** Descriptors fetched and not used; the first of them. */
  #fetched = 0;
  #next = 0;
  /** Descriptors used and not written back. */
  #used = 0;
  /** Descriptors on their way to the lane, and accesses that bring them. */
  #coming = 0;
  #fetching = 0;
  #failed = false;
  /** Writes of payload or descriptors on their way to the guest. */
  #writing = 0;
  /** A frame is complete in descriptors that are not written back. */
  #completed = false;
  readonly #bounceIova = new Float64Array(BOUNCES);
  readonly #bounceFrom = new Float64Array(BOUNCES);
  readonly #bounceLength = new Uint32Array(BOUNCES);
  #bounces = 0;
  #bounceUsed = 0;

  constructor(parts: ReceiveParts) {
    this.#parts = parts;
    this.#words = parts.registers.words;
    const { arena } = parts.path;
    const half = BATCH * RX_SPLIT_DESCRIPTOR_BYTES;
    this.#descriptors = new Uint32Array(arena.buffer, parts.scratchAt, BATCH * WORDS);
    this.#doneAt = parts.scratchAt + half;
    this.#done = new Uint32Array(arena.buffer, this.#doneAt, BATCH * WORDS);
    parts.memory.setClient(RECEIVE, this);
  }

  reset(): void {
    this.#used = 0;
    this.#fetching = 0;
    this.#writing = 0;
    this.#bounces = 0;
    this.#bounceUsed = 0;
    this.#completed = false;
    this.configure();
  }

  /** A register of the ring was written: nothing that was fetched counts. */
  configure(): void {
    const words = this.#words;
    const control = words[RCTL] as number;
    this.#fetched = 0;
    this.#coming = 0;
    const split = ((control >>> RCTL_DTYP_SHIFT) & 3) === 1;
    const extended = ((words[RFCTL] as number) & RFCTL_EXTEN) !== 0;
    this.#layout = split ? SPLIT : extended ? EXTENDED : LEGACY;
    this.#size = split ? RX_SPLIT_DESCRIPTOR_BYTES : RX_DESCRIPTOR_BYTES;
    this.#units = this.#size / RX_DESCRIPTOR_BYTES;
    this.#buffersEach = split ? SPLIT_BUFFERS : 1;
    if (split) {
      const sizes = words[PSRCTL] as number;
      this.#bufferBytes[0] = 128 * (sizes & 0x7f);
      this.#bufferBytes[1] = 1024 * ((sizes >>> 8) & 0x3f);
      this.#bufferBytes[2] = 1024 * ((sizes >>> 16) & 0x3f);
      this.#bufferBytes[3] = 1024 * ((sizes >>> 24) & 0x3f);
    } else {
      const size = 2048 >>> ((control >>> RCTL_BSIZE_SHIFT) & 3);
      // BSEX multiplies by 16; 2048 times 16 is reserved (SDM §13.4.22).
      this.#bufferBytes[0] = (control & RCTL_BSEX) !== 0 && size < 2048 ? 16 * size : size;
    }
    this.#entries = Math.floor((words[RDLEN] as number) / this.#size);
    this.#base = iova(words[RDBAL] as number, words[RDBAH] as number);
  }

  get enabled(): boolean {
    return ((this.#words[RCTL] as number) & RCTL_EN) !== 0;
  }

  /** The descriptor that the device stands at, and the first that is the driver's. */
  get #head(): number {
    return Math.floor((this.#words[RDH] as number) / this.#units);
  }

  get #tail(): number {
    return Math.floor((this.#words[RDT] as number) / this.#units);
  }

  /**
   * The driver has given buffers: the first of them are fetched now, because where that takes messages
   * no frame can wait for them.
   */
  prefetch(): void {
    if (this.#fetched === 0 && this.enabled) this.#fetch(1);
  }

  completed(ok: boolean): void {
    if (this.#fetching > 0) {
      if (!ok) this.#failed = true;
      if (--this.#fetching === 0) {
        this.#fetched = this.#failed ? 0 : this.#coming;
        this.#next = 0;
        this.#coming = 0;
      }
      return;
    }
    if (--this.#writing === 0) {
      this.#bounceUsed = 0;
      this.writeBack();
    }
  }

  /**
   * Queues the copies of frame `slot` into the next buffers: `header` bytes (without virtio_net_hdr)
   * in two parts at `first` and `second`, then the chain. `status` has DD and EOP added; `vlan` is the
   * tag that was taken off.
   */
  put(
    burst: Burst,
    slot: number,
    first: number,
    firstLength: number,
    second: number,
    secondLength: number,
    status: number,
    errors: number,
    vlan: number,
  ): number {
    const { chains } = burst;
    const rest = (chains.total[slot] as number) - (burst.skip[slot] as number);
    const length = firstLength + secondLength + rest;
    const padded = length < ETHERNET_MIN_FRAME_BYTES ? ETHERNET_MIN_FRAME_BYTES : length;
    const fcs = ((this.#words[RCTL] as number) & RCTL_SECRC) === 0 ? FCS_BYTES : 0;
    const bytes = padded + fcs;
    const perDescriptor = this.#descriptorBytes();
    if (perDescriptor === 0) return this.#missed();
    const needed = Math.ceil(bytes / perDescriptor);
    if (needed > BATCH) return TOO_BIG;
    if (needed > BATCH - this.#used) {
      this.#parts.path.copies.flush();
      this.writeBack();
      if (needed > BATCH - this.#used) return this.#missed();
    }
    if (this.#fetched < needed && !this.#fetch(needed)) return this.#missed();
    const { scatter } = this.#parts.path;
    scatter.reset();
    const bouncesBefore = this.#bounces;
    const bounceUsedBefore = this.#bounceUsed;
    if (!this.#destinations(needed, bytes)) {
      this.#bounces = bouncesBefore;
      this.#bounceUsed = bounceUsedBefore;
      return this.#missed();
    }
    scatter.write(first, firstLength);
    if (secondLength > 0) scatter.write(second, secondLength);
    if (rest > 0) scatter.writeChain(burst, slot);
    if (bytes > length) scatter.write(this.#parts.zerosAt, bytes - length);
    this.#use(needed, bytes, status, errors, vlan);
    return DELIVERED;
  }

  /** The copies are done: descriptors go back to the driver, and it is interrupted. */
  writeBack(): void {
    if (this.#used === 0 || this.#writing > 0) return;
    if (this.#bounces > 0 && !this.#writeBounces()) return;
    const { memory } = this.#parts;
    const words = this.#words;
    const size = this.#size;
    const head = this.#head;
    const entries = this.#entries;
    const used = this.#used;
    const run = Math.min(used, entries - head);
    const base = this.#base;
    const one = memory.translate(base < 0 ? -1 : base + head * size, run * size, true);
    const two = run < used ? memory.translate(base, (used - run) * size, true) : 0;
    if (one >= 0 && two >= 0) {
      this.#store(one, two, run, used);
    } else {
      for (let i = 0; i < used; i++) {
        const address = base < 0 ? -1 : base + ((head + i) % entries) * size;
        const from = this.#doneAt + i * RX_SPLIT_DESCRIPTOR_BYTES;
        if (memory.write(RECEIVE, address, size, from) === DMA_PENDING) this.#writing++;
      }
    }
    words[RDH] = ((head + used) % entries) * this.#units;
    this.#used = 0;
    this.#interrupt();
  }

  /** Descriptor `i` to where it belongs, its status behind all else. */
  #store(one: number, two: number, run: number, used: number): void {
    const { memory } = this.#parts;
    const { view } = memory.arena;
    const done = this.#done;
    const size = this.#size;
    const statusWord = this.#layout === LEGACY ? 3 : 2;
    const firstWord = this.#layout === LEGACY ? 2 : 0;
    const words = size / 4;
    for (let i = 0; i < used; i++) {
      const at = i < run ? one + i * size : two + (i - run) * size;
      for (let w = firstWord; w < words; w++) {
        if (w !== statusWord) view.setUint32(at + 4 * w, done[i * WORDS + w] as number, true);
      }
    }
    Atomics.add(this.#fence, 0, 1);
    for (let i = 0; i < used; i++) {
      const at = i < run ? one + i * size : two + (i - run) * size;
      view.setUint32(at + 4 * statusWord, done[i * WORDS + statusWord] as number, true);
    }
    const { space } = memory;
    if (space?.logging === true) {
      space.markWritten(one, run * size);
      if (used > run) space.markWritten(two, (used - run) * size);
    }
  }

  /** Payload that could not be copied in place goes on its way. False if it is not there yet. */
  #writeBounces(): boolean {
    const { memory } = this.#parts;
    for (let i = 0; i < this.#bounces; i++) {
      const result = memory.write(
        RECEIVE,
        this.#bounceIova[i] as number,
        this.#bounceLength[i] as number,
        this.#bounceFrom[i] as number,
      );
      if (result === DMA_PENDING) this.#writing++;
    }
    this.#bounces = 0;
    if (this.#writing > 0) return false;
    this.#bounceUsed = 0;
    return true;
  }

  #interrupt(): void {
    const { interrupts, statistics } = this.#parts;
    const words = this.#words;
    if (this.#completed) {
      this.#completed = false;
      interrupts.received();
    }
    const entries = this.#entries;
    const free = (this.#tail - this.#head + entries) % entries;
    const threshold = entries >>> (1 + (((words[RCTL] as number) >>> RCTL_RDMTS_SHIFT) & 3));
    if (free <= threshold) {
      statistics.count(ICRXDMTC, 1);
      interrupts.raise(INT_RXDMT0);
    }
  }

  #missed(): number {
    const { statistics, interrupts } = this.#parts;
    statistics.count(MPC, 1);
    statistics.count(RNBC, 1);
    statistics.count(ICRXOC, 1);
    interrupts.raise(INT_RXO);
    return NO_BUFFER;
  }

  #descriptorBytes(): number {
    let bytes = 0;
    for (let i = 0; i < this.#buffersEach; i++) bytes += this.#bufferBytes[i] as number;
    return bytes;
  }

  /** Makes `needed` descriptors ready for use, with as many more as there are. */
  #fetch(needed: number): boolean {
    const { memory, scratchAt } = this.#parts;
    const entries = this.#entries;
    const head = this.#head;
    const tail = this.#tail;
    if (!memory.ready || this.#fetching > 0 || entries === 0) return false;
    if (head >= entries || tail >= entries) return false;
    const available = ((tail - head + entries) % entries) - this.#used;
    if (available < needed) return false;
    const count = Math.min(available, BATCH);
    const from = (head + this.#used) % entries;
    this.#failed = false;
    this.#fetched = 0;
    this.#next = 0;
    const size = this.#size;
    const result = memory.bring(RECEIVE, this.#base, size, entries, from, count, scratchAt);
    if (result === DMA_REFUSED) return false;
    if (result !== DMA_DONE) {
      this.#coming = count;
      this.#fetching = result - 1;
      return false;
    }
    this.#fetched = count;
    return true;
  }

  /** The buffers of the next descriptors, up to `bytes`, as destinations. */
  #destinations(descriptors: number, bytes: number): boolean {
    const words = this.#descriptors;
    const stride = this.#size / 4;
    let left = bytes;
    let pieces = 0;
    for (let d = 0; d < descriptors; d++) {
      const at = (this.#next + d) * stride;
      for (let b = 0; b < this.#buffersEach && left > 0; b++) {
        const length = Math.min(left, this.#bufferBytes[b] as number);
        if (length === 0) continue;
        const address = iova(words[at + 2 * b] as number, words[at + 2 * b + 1] as number);
        pieces += this.#destination(address, length);
        if (pieces > MOST_PIECES || this.#bounces > BOUNCES - BATCH) return false;
        if (this.#bounceUsed > RX_BOUNCE_BYTES - MOST_BUFFER) return false;
        left -= length;
      }
    }
    return true;
  }

  #destination(address: number, length: number): number {
    const { memory, path } = this.#parts;
    const whole = memory.translate(address, length, true);
    if (whole >= 0) {
      path.scatter.addDestination(whole, length);
      if (memory.space?.logging === true) memory.space.markWritten(whole, length);
      return 1;
    }
    let done = 0;
    let pieces = 0;
    while (done < length) {
      const at = address < 0 ? -1 : address + done;
      const part = at < 0 ? length : withinPage(at, length - done);
      const to = memory.translate(at, part, true);
      if (to >= 0) {
        path.scatter.addDestination(to, part);
        if (memory.space?.logging === true) memory.space.markWritten(to, part);
      } else {
        this.#addBounce(at, part);
      }
      pieces++;
      done += part;
    }
    return pieces;
  }

  #addBounce(address: number, length: number): void {
    const { bounceAt, path } = this.#parts;
    const from = bounceAt + this.#bounceUsed;
    const index = this.#bounces++;
    this.#bounceIova[index] = address;
    this.#bounceFrom[index] = from;
    this.#bounceLength[index] = length;
    this.#bounceUsed += length;
    path.scatter.addDestination(from, length);
  }

  /** Fills in what is written back of `count` descriptors. */
  #use(count: number, bytes: number, status: number, errors: number, vlan: number): void {
    const done = this.#done;
    const source = this.#descriptors;
    const stride = this.#size / 4;
    let left = bytes;
    for (let d = 0; d < count; d++) {
      const to = (this.#used + d) * WORDS;
      const last = d === count - 1;
      // Checksum, tag and errors are valid with the end of the packet only (SDM §3.2.3).
      const bits = last ? status | RXD_DD | RXD_EOP : RXD_DD;
      const wrong = last ? errors : 0;
      const tag = last ? vlan : 0;
      if (this.#layout === LEGACY) {
        const length = Math.min(left, this.#bufferBytes[0] as number);
        const from = (this.#next + d) * stride;
        done[to] = source[from] as number;
        done[to + 1] = source[from + 1] as number;
        done[to + 2] = length;
        done[to + 3] = bits | (wrong << 8) | (tag << 16);
        left -= length;
        continue;
      }
      const first = Math.min(left, this.#bufferBytes[0] as number);
      left -= first;
      done[to] = 0;
      done[to + 1] = 0;
      done[to + 2] = bits | (wrong << RXD_EXTENDED_ERRORS_SHIFT);
      done[to + 3] = first | (tag << 16);
      if (this.#layout === EXTENDED) continue;
      // Header status 0: no header was split off; the rest's lengths follow, 16 bits each.
      const second = Math.min(left, this.#bufferBytes[1] as number);
      left -= second;
      const third = Math.min(left, this.#bufferBytes[2] as number);
      left -= third;
      const fourth = Math.min(left, this.#bufferBytes[3] as number);
      left -= fourth;
      done[to + 4] = second << 16;
      done[to + 5] = third | (fourth << 16);
      done[to + 6] = 0;
      done[to + 7] = 0;
    }
    this.#used += count;
    this.#next += count;
    this.#fetched -= count;
    this.#completed = true;
    const small = this.#words[RSRPD] as number;
    if (small !== 0 && bytes <= small) this.#parts.interrupts.raise(INT_SRPD);
  }
}

/** The largest buffer there is (SDM §13.4.22; DS: 63 KiB with packet split). */
const MOST_BUFFER = 64 * 1024;
