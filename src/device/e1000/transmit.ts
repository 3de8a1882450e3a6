/**
 * The transmit ring (SDM §3.3, §3.4; DS §7.2): descriptors are fetched once into memory of the lane,
 * frames go to the switch as a burst with offload metadata, and done bits are written back.
 *
 * Frames of which a piece cannot be reached at an address of ours (memory without a descriptor) are
 * copied to the lane first, one at a time; nothing waits meanwhile but this ring.
 */
import type { TokenBucket } from '../../base/token-bucket.ts';
import { DMA_DONE, DMA_PENDING, DMA_REFUSED } from '../../memory/dma.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { PORT_COUNTER_INDEX, type Port, type PortOwner } from '../../net/port.ts';
import { BATCH, MORE_SEGMENTS } from '../../ring/chain-batch.ts';
import {
  INT_TXQE,
  TCTL_EN,
  TX_DESCRIPTOR_BYTES,
  TXD_DD,
  TXD_EOP,
  TXD_EXTENDED,
  TXD_IDE,
  TXD_LENGTH,
  TXD_LENGTH_LEGACY,
  TXD_RS,
  TXD_TSE,
  TXD_TYPE_DATA,
  TXD_TYPE_MASK,
  TXD_VLE,
} from '../../spec/e1000.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { type DeviceMemory, type DmaClient, iova, withinPage } from '../device-memory.ts';
import {
  CONTEXT_HEADER_BYTES,
  CONTEXT_SEGMENT_BYTES,
  CONTEXT_WORDS,
  headerBytesNeeded,
} from '../transmit-context.ts';
import { gatherMore, insertTag } from '../transmit-headers.ts';
import type { Interrupts } from './interrupts.ts';
import { R, type RegisterFile } from './registers.ts';
import type { Statistics } from './statistics.ts';
import { applyDescriptors, decodeContext } from './transmit-offloads.ts';

const { TCTL, TDBAL, TDBAH, TDLEN, TDH, TDT, VET, TSCTC, TSCTFC } = R;
const TX_DROP_BAD_OFFLOAD = PORT_COUNTER_INDEX.tx_drop_bad_offload;
const TX_DROP_BAD_LENGTH = PORT_COUNTER_INDEX.tx_drop_bad_length;

/** This ring's number in {@link DeviceMemory}. */
const TRANSMIT = 0;
const WORDS = TX_DESCRIPTOR_BYTES / 4;
/** Room for one frame that is copied to the lane. */
export const TX_BOUNCE_BYTES = 128 * 1024;
export const TX_SCRATCH_BYTES = BATCH * TX_DESCRIPTOR_BYTES;

/** How a frame ended up in the burst. */
const TAKEN = 0;
/** Its end is not in the ring yet, or not fetched. */
const UNFINISHED = 1;
/** A piece of it cannot be translated. */
const REMOTE = 2;

export interface TransmitParts {
  readonly path: DataPath;
  readonly memory: DeviceMemory;
  readonly registers: RegisterFile;
  readonly interrupts: Interrupts;
  readonly statistics: Statistics;
  readonly counters: Float64Array;
  /** Bits that the guest may send; a debt is the owner's to wait for. */
  readonly limit: TokenBucket | undefined;
  /** Arena address of {@link TX_SCRATCH_BYTES}, and of {@link TX_BOUNCE_BYTES}. */
  readonly scratchAt: number;
  readonly bounceAt: number;
}

export class TransmitRing implements DmaClient {
  readonly #parts: TransmitParts;
  readonly #words: Uint32Array;
  readonly #descriptors: Uint32Array;
  /** Contexts of the frames in the burst, and the present one behind them. */
  readonly #contexts = new Uint32Array((BATCH + 1) * CONTEXT_WORDS);
  /** Words of each frame's first descriptor, and of its last one's third. */
  readonly #command = new Uint32Array(BATCH);
  readonly #options = new Uint32Array(BATCH);
  readonly #special = new Uint32Array(BATCH);
  readonly #bad = new Uint8Array(BATCH);
  readonly #list = new Uint8Array(BATCH).map((_, index) => index);
  /** Descriptors in the scratch memory, and the next of them to be looked at. */
  #fetched = 0;
  #next = 0;
  /** The one that the head stands at. */
  #start = 0;
  /** Accesses that this ring waits for. */
  #waiting = 0;
  /** The frame in the bounce memory: it came, or could not be read. */
  #bounced = false;
  #bounceBytes = 0;
  #failed = false;
  /** What the guest is to be told when its done bits have arrived. */
  #owed = 0;
  /** A fetch was refused: nothing changes until the map or the tail does. */
  #refused = false;
  #refusedGeneration = 0;
  #refusedTail = 0;

  constructor(parts: TransmitParts) {
    this.#parts = parts;
    this.#words = parts.registers.words;
    const { arena } = parts.path;
    this.#descriptors = new Uint32Array(arena.buffer, parts.scratchAt, BATCH * WORDS);
    parts.memory.setClient(TRANSMIT, this);
  }

  reset(): void {
    this.#contexts.fill(0);
    this.#fetched = 0;
    this.#next = 0;
    this.#start = 0;
    this.#waiting = 0;
    this.#owed = 0;
    this.#failed = false;
    this.#bounced = false;
    this.#refused = false;
  }

  /** There is work, and nothing that it waits for. */
  get pending(): boolean {
    const words = this.#words;
    const head = words[TDH] as number;
    const tail = words[TDT] as number;
    if (head === tail || ((words[TCTL] as number) & TCTL_EN) === 0) return false;
    // Outside of the ring: nothing is fetched, and the lane may sleep.
    const entries = ringEntries(words);
    if (head >= entries || tail >= entries) return false;
    return this.#waiting === 0 && this.#parts.memory.ready && !this.#isRefused();
  }

  completed(ok: boolean): void {
    if (!ok) this.#failed = true;
    this.#waiting--;
    if (this.#waiting === 0 && this.#owed !== 0) {
      const reported = this.#owed;
      this.#owed = 0;
      this.#interrupt(reported);
    }
  }

  /** Sends a burst: to `owner`, or back to `loopback`. Returns the frames that were taken. */
  poll(port: Port, owner: PortOwner | undefined, loopback: boolean): number {
    if (!this.pending) return 0;
    const words = this.#words;
    const entries = ringEntries(words);
    const head = words[TDH] as number;
    const tail = words[TDT] as number;
    if (this.#fetched === 0) {
      const available = (tail - head + entries) % entries;
      if (!this.#fetch(head, Math.min(available, BATCH), entries)) return 0;
    }
    if (this.#failed && !this.#bounced) {
      // The descriptors did not come.
      this.#failed = false;
      this.#refuse();
      return 0;
    }
    const { burst } = this.#parts.path;
    burst.clear();
    const first = this.#start;
    this.#collect(burst);
    if (this.#waiting > 0) return 0;
    const used = this.#next - first;
    if (used === 0) {
      this.#endWindow();
      return 0;
    }
    const frames = burst.count;
    if (frames > 0) {
      this.#send(burst, port, owner, loopback);
      if (!loopback) this.#parts.limit?.take(8 * burst.totalBytes());
    }
    const reported = this.#writeBack(first, this.#next, head, entries);
    words[TDH] = (head + used) % entries;
    this.#start = this.#next;
    if (this.#next === this.#fetched) this.#fetched = 0;
    if (frames > 0) {
      if (loopback) port.flush();
      else owner?.publish();
    }
    this.#interrupt(reported);
    return used;
  }

  #isRefused(): boolean {
    if (!this.#refused) return false;
    const generation = this.#parts.memory.space?.generation ?? 0;
    if (generation === this.#refusedGeneration && this.#refusedTail === this.#words[TDT])
      return true;
    this.#refused = false;
    return false;
  }

  #refuse(): void {
    this.#fetched = 0;
    this.#refused = true;
    this.#refusedGeneration = this.#parts.memory.space?.generation ?? 0;
    this.#refusedTail = this.#words[TDT] as number;
  }

  #fetch(head: number, count: number, entries: number): boolean {
    const { memory, scratchAt } = this.#parts;
    const base = ringBase(this.#words);
    this.#next = 0;
    this.#start = 0;
    this.#failed = false;
    const result = memory.bring(
      TRANSMIT,
      base,
      TX_DESCRIPTOR_BYTES,
      entries,
      head,
      count,
      scratchAt,
    );
    if (result === DMA_REFUSED) {
      this.#refuse();
      return false;
    }
    this.#fetched = count;
    if (result === DMA_DONE) return true;
    this.#waiting = result - 1;
    return false;
  }

  /** Nothing of the window could be used: its first frame goes on in descriptors behind it. */
  #endWindow(): void {
    const words = this.#words;
    const entries = ringEntries(words);
    const available = ((words[TDT] as number) - (words[TDH] as number) + entries) % entries;
    const partial = this.#next > 0 || this.#fetched < BATCH;
    if (partial && this.#fetched - this.#next >= available) {
      // The driver has not finished the frame: look again when the tail moves.
      this.#refuse();
      return;
    }
    if (partial) {
      this.#fetched = 0;
      return;
    }
    // A frame of more descriptors than a burst takes: they are given back, and nothing is sent.
    const { counters } = this.#parts;
    counters[TX_DROP_BAD_LENGTH] = (counters[TX_DROP_BAD_LENGTH] as number) + 1;
    const head = words[TDH] as number;
    const reported = this.#writeBack(0, this.#fetched, head, entries);
    words[TDH] = (head + this.#fetched) % entries;
    this.#fetched = 0;
    this.#interrupt(reported);
  }

  /** Takes frames from the window into the burst. */
  #collect(burst: Burst): void {
    const { chains } = burst;
    while (this.#next < this.#fetched && chains.count < BATCH) {
      if (this.#takeContext()) continue;
      const result = this.#collectFrame(burst);
      if (result === TAKEN) continue;
      if (result === REMOTE && chains.count === 0) this.#bounce(burst);
      return;
    }
  }

  #takeContext(): boolean {
    const descriptors = this.#descriptors;
    const at = this.#next * WORDS;
    const command = descriptors[at + 2] as number;
    if ((command & TXD_EXTENDED) === 0 || (command & TXD_TYPE_MASK) === TXD_TYPE_DATA) return false;
    decodeContext(descriptors, at, this.#contexts, BATCH * CONTEXT_WORDS);
    if ((command & TXD_TSE) !== 0) this.#parts.statistics.count(TSCTC, 1);
    this.#next++;
    return true;
  }

  /** One frame of which nothing but addresses is known: its segments, translated. */
  #collectFrame(burst: Burst): number {
    const { chains } = burst;
    const descriptors = this.#descriptors;
    const slot = chains.count;
    const moreBefore = chains.moreCount;
    let total = 0;
    let pieces = 0;
    let index = this.#next;
    let ended = false;
    chains.more[slot] = 0;
    chains.moreStart[slot] = moreBefore;
    while (index < this.#fetched && !ended) {
      const at = index * WORDS;
      const command = descriptors[at + 2] as number;
      const extended = (command & TXD_EXTENDED) !== 0;
      let left = command & (extended ? TXD_LENGTH : TXD_LENGTH_LEGACY);
      let address = iova(descriptors[at] as number, descriptors[at + 1] as number);
      while (left > 0) {
        let part = left;
        let from = this.#parts.memory.translate(address, part, false);
        if (from < 0) {
          part = address < 0 ? left : withinPage(address, left);
          if (part < left) from = this.#parts.memory.translate(address, part, false);
        }
        if (from < 0 || chains.moreCount === MORE_SEGMENTS) {
          chains.moreCount = moreBefore;
          chains.more[slot] = 0;
          return REMOTE;
        }
        if (pieces === 0) {
          chains.address[slot] = from;
          chains.length[slot] = part;
        } else {
          const more = chains.moreCount++;
          chains.moreAddress[more] = from;
          chains.moreLength[more] = part;
          chains.more[slot] = pieces;
          chains.shaped = true;
        }
        pieces++;
        total += part;
        address += part;
        left -= part;
      }
      ended = (command & TXD_EOP) !== 0;
      index++;
    }
    if (!ended) {
      chains.moreCount = moreBefore;
      chains.more[slot] = 0;
      return UNFINISHED;
    }
    if (pieces === 0) {
      // A frame of no bytes at all is nothing to send.
      this.#next = index;
      return TAKEN;
    }
    this.#note(slot, this.#next, index - 1);
    chains.count = slot + 1;
    chains.id[slot] = 0;
    chains.total[slot] = total;
    chains.readable[slot] = pieces;
    this.#next = index;
    return TAKEN;
  }

  #note(slot: number, first: number, last: number): void {
    const descriptors = this.#descriptors;
    this.#command[slot] = descriptors[first * WORDS + 2] as number;
    this.#options[slot] = descriptors[first * WORDS + 3] as number;
    // VLE and the tag are valid in the last descriptor (SDM §3.3.7.1).
    const vlan = (descriptors[last * WORDS + 2] as number) & TXD_VLE;
    this.#special[slot] = vlan === 0 ? 0 : ((descriptors[last * WORDS + 3] as number) >>> 16) | TAG;
    this.#bad[slot] = 0;
    if (!this.#usesContext(slot)) return;
    const contexts = this.#contexts;
    const present = BATCH * CONTEXT_WORDS;
    for (let i = 0; i < CONTEXT_WORDS; i++) {
      contexts[slot * CONTEXT_WORDS + i] = contexts[present + i] as number;
    }
  }

  /** Brings the next frame to the lane; when it is there, makes it the burst's only one. */
  #bounce(burst: Burst): void {
    const { memory, bounceAt, counters } = this.#parts;
    const descriptors = this.#descriptors;
    let last = this.#next;
    while (((descriptors[last * WORDS + 2] as number) & TXD_EOP) === 0) {
      if (++last === this.#fetched) return;
    }
    if (!this.#bounced) {
      let bytes = 0;
      this.#failed = false;
      for (let i = this.#next; i <= last && !this.#failed; i++) {
        const at = i * WORDS;
        const command = descriptors[at + 2] as number;
        const length = command & ((command & TXD_EXTENDED) !== 0 ? TXD_LENGTH : TXD_LENGTH_LEGACY);
        if (length === 0) continue;
        if (bytes + length > TX_BOUNCE_BYTES) {
          counters[TX_DROP_BAD_LENGTH] = (counters[TX_DROP_BAD_LENGTH] as number) + 1;
          this.#failed = true;
          break;
        }
        const address = iova(descriptors[at] as number, descriptors[at + 1] as number);
        const result = memory.read(TRANSMIT, address, length, bounceAt + bytes);
        if (result === DMA_REFUSED) this.#failed = true;
        else if (result !== DMA_DONE) this.#waiting++;
        bytes += length;
      }
      this.#bounced = true;
      this.#bounceBytes = bytes;
      if (this.#waiting > 0) return;
    }
    this.#bounced = false;
    if (!this.#failed && this.#bounceBytes > 0) {
      this.#note(burst.chains.add(bounceAt, this.#bounceBytes), this.#next, last);
    }
    this.#failed = false;
    this.#next = last + 1;
  }

  #send(burst: Burst, port: Port, owner: PortOwner | undefined, loopback: boolean): void {
    this.#gather(burst);
    this.#describe(burst);
    if (loopback) {
      burst.needs.fill(0, 0, burst.count);
      port.deliver(burst, this.#list, burst.count, false);
      burst.copies.flush();
    } else owner?.forward(port, burst);
  }

  /** Copies the start of each frame into its slot. */
  #gather(burst: Burst): void {
    burst.sourceHeaderBytes = 0;
    burst.gather();
    for (let i = 0; i < burst.count; i++) {
      if (!this.#usesContext(i)) continue;
      gatherMore(burst, i, headerBytesNeeded(this.#contexts, i * CONTEXT_WORDS));
    }
  }

  #usesContext(slot: number): boolean {
    const command = this.#command[slot] as number;
    if ((command & TXD_EXTENDED) === 0) return false;
    return (command & TXD_TSE) !== 0 || ((this.#options[slot] as number) & OPTIONS) !== 0;
  }

  /** Tags, metadata and statistics of the gathered frames; what is contradictory is dropped. */
  #describe(burst: Burst): void {
    const { statistics, counters } = this.#parts;
    const bytes = burst.slots8;
    for (let i = 0; i < burst.count; i++) {
      const command = this.#command[i] as number;
      const options = this.#options[i] as number;
      const legacy = (command & TXD_EXTENDED) === 0;
      const frame = (burst.headerAt[i] as number) - burst.slotsAt + NET_HEADER_BYTES;
      const special = this.#special[i] as number;
      const shift = special === 0 ? 0 : insertTag(burst, i, this.#words[VET] as number, special);
      const length = burst.frameLength[i] as number;
      const at = i * CONTEXT_WORDS;
      if (!applyDescriptors(burst, i, command, options, this.#contexts, at, shift)) {
        this.#bad[i] = 1;
        if ((command & TXD_TSE) !== 0 && !legacy) statistics.count(TSCTFC, 1);
        counters[TX_DROP_BAD_OFFLOAD] = (counters[TX_DROP_BAD_OFFLOAD] as number) + 1;
        continue;
      }
      if (legacy || (command & TXD_TSE) === 0) {
        statistics.transmitted(bytes, frame, length, 1);
        continue;
      }
      const size = this.#contexts[at + CONTEXT_SEGMENT_BYTES] as number;
      const header = (this.#contexts[at + CONTEXT_HEADER_BYTES] as number) + shift;
      const whole = Math.floor((length - header) / size);
      const rest = (length - header) % size;
      statistics.transmitted(bytes, frame, header + size, whole);
      if (rest > 0) statistics.transmitted(bytes, frame, header + rest, 1);
    }
    burst.drop(this.#bad);
  }

  /** Sets DD where it was asked for. Returns REPORTED and DELAYED. */
  #writeBack(first: number, end: number, head: number, entries: number): number {
    const { memory, scratchAt } = this.#parts;
    const descriptors = this.#descriptors;
    const base = ringBase(this.#words);
    let result = 0;
    for (let i = first; i < end; i++) {
      const command = descriptors[i * WORDS + 2] as number;
      if ((command & TXD_RS) === 0) continue;
      result |= REPORTED;
      if ((command & TXD_IDE) === 0) result |= AT_ONCE;
      const word = i * WORDS + 3;
      descriptors[word] = (descriptors[word] as number) | TXD_DD;
      const index = (head + i - first) % entries;
      const address = base < 0 ? -1 : base + index * TX_DESCRIPTOR_BYTES + 12;
      const at = memory.translate(address, 4, true);
      if (at < 0) {
        const written = memory.write(TRANSMIT, address, 4, scratchAt + 4 * word);
        if (written === DMA_PENDING) this.#waiting++;
        continue;
      }
      memory.arena.view.setUint32(at, descriptors[word] as number, true);
      if (memory.space?.logging === true) memory.space.markWritten(at, 4);
    }
    return result;
  }

  #interrupt(reported: number): void {
    const { interrupts } = this.#parts;
    if (this.#waiting > 0) {
      this.#owed = reported | OWED;
      return;
    }
    if (this.#words[TDH] === this.#words[TDT]) interrupts.raise(INT_TXQE);
    if ((reported & REPORTED) !== 0) interrupts.transmitted((reported & AT_ONCE) === 0);
  }
}

/** In `#special`: there is a tag, whatever it says. */
const TAG = 0x1_0000;
/** Data descriptors with a use for the context, besides TSE (SDM §3.3.7.2). */
const OPTIONS = 0x300;
const REPORTED = 1;
const AT_ONCE = 2;
const OWED = 4;

function ringEntries(words: Uint32Array): number {
  return (words[TDLEN] as number) / TX_DESCRIPTOR_BYTES;
}

function ringBase(words: Uint32Array): number {
  return iova(words[TDBAL] as number, words[TDBAH] as number);
}
