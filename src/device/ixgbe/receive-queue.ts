/**
 * A receive queue (§7.1): buffers are filled as frames are delivered, descriptors written back when the
 * copies are done. Advanced descriptors with one buffer or with headers split off, and legacy ones.
 *
 * The queue's registers may be in a page that the guest maps: they are read anew in each turn, and no
 * buffer is remembered from one turn to the next. Where descriptors must be brought by messages they
 * are, by {@link ReceiveQueue.poll}, since no frame can wait for them.
 */
import { WINDOW_BYTES } from '../../memory/arena.ts';
import { DMA_DONE, DMA_PENDING, DMA_REFUSED } from '../../memory/dma.ts';
import type { Burst } from '../../net/burst.ts';
import { ETHERNET_MIN_FRAME_BYTES } from '../../spec/ethernet.ts';
import {
  IXGBE_DESCRIPTOR_BYTES,
  IXGBE_DESCTYPE_LEGACY,
  IXGBE_DESCTYPE_ONE_BUFFER,
  IXGBE_RXD_DONE,
  IXGBE_RXD_END,
  IXGBE_SRRCTL_HEADER_SIZE,
  IXGBE_SRRCTL_HEADER_SIZE_SHIFT,
  IXGBE_SRRCTL_PACKET_SIZE,
  IXGBE_SRRCTL_TYPE,
  IXGBE_SRRCTL_TYPE_SHIFT,
} from '../../spec/ixgbe-descriptors.ts';
import { type DmaClient, iova } from '../device-memory.ts';
import { DoneDescriptors } from './done-descriptors.ts';
import { EnableBit } from './enable-bit.ts';
import { FrameRuns } from './frame-runs.ts';
import { HeaderSplit } from './header-split.ts';
import { type PlainFrames, plainFramesFor } from './plain-frames.ts';
import {
  DELIVERED,
  NO_BUFFER,
  type QueueParts,
  RING_ALIGN,
  RING_BYTES,
  RX,
  receiveClient,
  TOO_BIG,
  WINDOW,
} from './queue-parts.ts';
import { ReceiveBuffers } from './receive-buffers.ts';
import { RingWindow } from './ring-window.ts';

const BYTES = IXGBE_DESCRIPTOR_BYTES;
const WORDS = BYTES / 4;
/** No descriptor at an address of ours. */
const NOWHERE = -1;

export class ReceiveQueue implements DmaClient {
  readonly index: number;
  readonly #parts: QueueParts;
  readonly #words: Uint32Array;
  readonly #block: number;
  readonly #client: number;
  readonly #enable: EnableBit;
  readonly #window: RingWindow;
  readonly #buffers: ReceiveBuffers;
  readonly #split: HeaderSplit;
  /** What is written back of the descriptors that were used. */
  readonly #done: DoneDescriptors;
  readonly #plain: PlainFrames;
  readonly #runs: FrameRuns;
  readonly #span = new Float64Array(3);
  #used = 0;
  /** Frames that were put since the last write-back. */
  #frames = 0;
  #bytes = 0;
  /** The ring as its registers were when this turn began. */
  #layout = IXGBE_DESCTYPE_LEGACY;
  #packetBytes = 0;
  #headerBytes = 0;
  #entries = 0;
  #head = 0;
  #tail = 0;
  readonly #base = new Float64Array(1);
  /** Arena address of the next descriptor, and how many follow it in one piece. */
  readonly #at = new Float64Array(1);
  #run = 0;
  readonly #touched = new Uint32Array(1);
  /**
   * Descriptors that were brought by messages: how many are left, the next, and where that one stands
   * in the ring at #ownBase; and how many are on their way.
   */
  #own: Uint32Array | undefined;
  #fetched = 0;
  #next = 0;
  #ownIndex = 0;
  readonly #ownBase = new Float64Array(1);
  #coming = 0;
  #fetching = 0;
  #failed = false;
  /** Writes on their way to the guest; and what waits for them, or for a fetch. */
  #writing = 0;
  #late = false;
  #owed = false;

  constructor(parts: QueueParts, index: number, blockWord: number) {
    this.index = index;
    this.#parts = parts;
    this.#words = parts.words;
    this.#block = blockWord;
    this.#client = receiveClient(index);
    this.#enable = new EnableBit(parts.words, blockWord + RX.RXDCTL);
    this.#window = RingWindow.ofReceive(parts.path);
    this.#buffers = new ReceiveBuffers(parts, index, this.#client);
    this.#split = new HeaderSplit();
    this.#done = new DoneDescriptors(parts.path);
    this.#plain = plainFramesFor(parts.path.arena);
    this.#runs = FrameRuns.of(parts.path);
    parts.memory.setClient(this.#client, this);
  }

  /** The driver has enabled the queue. */
  get enabled(): boolean {
    return this.#enable.isSet;
  }

  /** Descriptors that the driver has given, as the registers say. */
  get free(): number {
    const words = this.#words;
    const entries = ringEntries(words, this.#block);
    const head = words[this.#block + RX.RDH] as number;
    const tail = words[this.#block + RX.RDT] as number;
    if (!this.enabled || head >= entries || tail >= entries) return 0;
    return tail >= head ? tail - head : tail - head + entries;
  }

  /** The function was reset: its memory has no clients, its registers are as at the beginning. */
  reset(): void {
    this.#used = 0;
    this.#frames = 0;
    this.#bytes = 0;
    this.#writing = 0;
    this.#fetching = 0;
    this.#late = false;
    this.#owed = false;
    this.#enable.isDraining = false;
    this.#forgetOwn();
    this.#buffers.forget();
    this.#done.release();
  }

  /**
   * Queues the copies of frame `slot` into the next buffers: `length` bytes at `at` of the burst's slots
   * (its headers, without virtio_net_hdr), then the chain from `skip` on. `status` (signed) has status
   * and errors without DD and EOP; `types` has RSS and packet type; `hash` is of RSS; `vlan` is the tag
   * that was taken off. {@link DELIVERED}, or what became of it else, which is counted.
   */
  put(
    burst: Burst,
    slot: number,
    at: number,
    length: number,
    status: number,
    types: number,
    hash: number,
    vlan: number,
  ): number {
    if ((this.#used === 0 || this.#writing > 0) && !this.#begin()) return this.#miss();
    const { chains } = burst;
    const { path, memory, settings } = this.#parts;
    const skip = burst.skip[slot] as number;
    const rest = (chains.total[slot] as number) - skip;
    const frame = length + rest;
    const wire = frame < ETHERNET_MIN_FRAME_BYTES ? ETHERNET_MIN_FRAME_BYTES : frame;
    const bytes = wire + settings.fcsBytes;
    if (this.#layout === IXGBE_DESCTYPE_ONE_BUFFER && bytes <= this.#packetBytes) {
      if (this.#used === WINDOW && !this.#makeRoom()) return this.#miss();
      const descriptor = this.#descriptor();
      if (descriptor >= 0) {
        const { view } = memory.arena;
        const low = view.getUint32(descriptor, true);
        const to = memory.translate(iova(low, view.getUint32(descriptor + 4, true)), bytes, true);
        if (to >= 0) {
          const { copies } = path;
          copies.push(to, burst.slotsAt + at, length);
          if (rest > 0) {
            if (chains.more[slot] === 0) {
              copies.push(to + length, (chains.address[slot] as number) + skip, rest);
            } else {
              burst.copyFromChain(slot, skip, rest, to + length);
            }
          }
          if (bytes > frame) copies.push(to + frame, this.#window.zerosAt, bytes - frame);
          if (memory.logging) memory.markWritten(to, bytes);
          const done = this.#done.words;
          const word = this.#used * WORDS;
          done[word] = types;
          done[word + 1] = hash;
          done[word + 2] = status | IXGBE_RXD_DONE | IXGBE_RXD_END;
          done[word + 3] = bytes | (vlan << 16);
          this.#used++;
          this.#run--;
          this.#at[0] = descriptor + BYTES;
          this.#frames++;
          this.#bytes += wire;
          return DELIVERED;
        }
      }
    }
    return this.#spill(burst, slot, at, length, bytes, wire, status, types, hash, vlan);
  }

  /**
   * As {@link put} for frames `frames[first…count)` without tag and metadata, as long as each fits a buffer;
   * returns how many were put, and 0 where none can be put this way. `status` is of all of them; `verifies`
   * adds that of their checksums. `hashesAt` is the arena address of their RSS hashes and types, as
   * {@link FrameRuns.hash} writes them; 0: they have none.
   */
  putRun(
    burst: Burst,
    frames: Uint8Array,
    first: number,
    count: number,
    status: number,
    verifies: boolean,
    hashesAt: number,
  ): number {
    if ((this.#used === 0 || this.#writing > 0) && !this.#begin()) return 0;
    const { memory, path, settings } = this.#parts;
    const { arena, copies } = path;
    const isPlain =
      this.#layout === IXGBE_DESCTYPE_ONE_BUFFER &&
      settings.fcsBytes === 0 &&
      !memory.logging &&
      this.#done.isNear &&
      this.#runs.reaches(burst, frames);
    if (!isPlain || (this.#used === WINDOW && !this.#makeRoom())) return 0;
    const ring = this.#descriptor();
    if (ring < 0) return 0;
    const room = WINDOW - this.#used;
    const end = ring + BYTES * (this.#run < room ? this.#run : room);
    const { view } = arena;
    const address = iova(view.getUint32(ring, true), view.getUint32(ring + 4, true));
    const span = this.#span;
    if (end > WINDOW_BYTES || !memory.span(address, true, span)) return 0;
    if ((span[1] as number) + (span[2] as number) > WINDOW_BYTES) return 0;
    const result = this.#plain.fill(
      burst.tableAt,
      frames.byteOffset,
      first,
      count,
      ring,
      end,
      span[0] as number,
      span[1] as number,
      span[2] as number,
      this.#packetBytes,
      copies.place(2 * room),
      this.#done.at + BYTES * this.#used,
      status,
      verifies ? 1 : 0,
      hashesAt,
    );
    const done = result & 0xff;
    copies.wrote(result >>> 8);
    this.#used += done;
    this.#run -= done;
    this.#at[0] = ring + BYTES * done;
    this.#frames += done;
    this.#bytes += burst.chains.sum[0] as number;
    return done;
  }

  /** The copies are done: descriptors go back to the driver, and it is interrupted. */
  writeBack(): void {
    if (this.#used === 0 || this.#writing > 0) return;
    if (this.#fetching > 0) {
      this.#late = true;
      this.#run = 0;
      return;
    }
    if (this.#parts.bounce.used && this.enabled) {
      // Payload goes before the descriptors that tell of it.
      this.#writing = this.#buffers.write();
      if (this.#writing > 0) {
        this.#run = 0;
        return;
      }
    }
    this.#finish();
    this.#touchNext();
  }

  /**
   * For a function that has met memory which is reached by messages ({@link QueueBounce.used}): brings
   * descriptors ahead, and answers a driver that disables the queue. Once a turn of the lane.
   */
  poll(): void {
    if (this.#writing > 0 || this.#fetching > 0) {
      this.#enable.hold();
      return;
    }
    if (this.#used > 0 || this.#fetched > 0 || !this.#begin()) return;
    const { memory } = this.#parts;
    const isDirect = this.#free() === 0 || this.#aimed().load(memory, this.#entries, this.#head, 1);
    if (!isDirect) this.#bring(1);
  }

  completed(ok: boolean): void {
    if (!ok) this.#failed = true;
    if (this.#fetching > 0) {
      if (--this.#fetching > 0) return;
      this.#fetched = this.#failed ? 0 : this.#coming;
      this.#coming = 0;
      this.#failed = false;
      this.#drained();
      if (this.#late) {
        this.#late = false;
        this.writeBack();
      }
      return;
    }
    if (--this.#writing > 0) return;
    this.#failed = false;
    if (this.#used > 0) {
      this.#buffers.forget();
      this.#finish();
    }
    if (this.#writing > 0) return;
    this.#drained();
    if (this.#owed) {
      this.#owed = false;
      this.#parts.interrupts.received(this.index);
    }
  }

  get #baseNow(): number {
    return this.#base[0] as number;
  }

  /** The lane's window, on this queue's ring. */
  #aimed(): RingWindow {
    this.#window.base[0] = this.#base[0] as number;
    return this.#window;
  }

  /** Reads the registers: a turn begins. False if the queue takes nothing now. */
  #begin(): boolean {
    const words = this.#words;
    const block = this.#block;
    if (!this.enabled || this.#enable.isDraining || this.#writing > 0) return false;
    if (!this.#parts.memory.ready) return false;
    const entries = ringEntries(words, block);
    const head = words[block + RX.RDH] as number;
    // The barrier: descriptors are read after the tail that says that they are there.
    const tail = Atomics.load(words, block + RX.RDT);
    const low = ((words[block + RX.RDBAL] as number) & RING_ALIGN) >>> 0;
    const base = iova(low, words[block + RX.RDBAH] as number);
    if (base < 0 || head >= entries || tail >= entries) return false;
    const control = words[block + RX.SRRCTL] as number;
    this.#layout = (control >>> IXGBE_SRRCTL_TYPE_SHIFT) & IXGBE_SRRCTL_TYPE;
    this.#packetBytes = 1024 * (control & IXGBE_SRRCTL_PACKET_SIZE);
    this.#headerBytes =
      64 * ((control >>> IXGBE_SRRCTL_HEADER_SIZE_SHIFT) & IXGBE_SRRCTL_HEADER_SIZE);
    this.#done.hold();
    this.#entries = entries;
    this.#base[0] = base;
    this.#head = head;
    this.#tail = tail;
    this.#run = 0;
    if (this.#fetched > 0 && (this.#ownIndex !== head || this.#ownBase[0] !== base)) {
      // The driver began anew meanwhile: what was fetched before is void.
      this.#forgetOwn();
    }
    return true;
  }

  /** Descriptors that are the card's and not used. */
  #free(): number {
    const owned = this.#tail - this.#head;
    return (owned >= 0 ? owned : owned + this.#entries) - this.#used;
  }

  /** Looks whether the driver has given more in the meantime. */
  #hasFree(needed: number): boolean {
    if (this.#free() >= needed) return true;
    const tail = Atomics.load(this.#words, this.#block + RX.RDT);
    if (tail >= this.#entries) return false;
    this.#tail = tail;
    return this.#free() >= needed;
  }

  /** Arena address of the next descriptor; {@link NOWHERE} if there is none, or none of ours. */
  #descriptor(): number {
    if (this.#run > 0) return this.#at[0] as number;
    if (!this.#hasFree(1)) return NOWHERE;
    const entries = this.#entries;
    const index = (this.#head + this.#used) % entries;
    const count = Math.min(this.#free(), entries - index, WINDOW);
    const { memory } = this.#parts;
    if (!this.#aimed().find(memory, index, count)) return NOWHERE;
    this.#run = this.#window.found;
    this.#at[0] = this.#window.where[0] as number;
    return this.#at[0] as number;
  }

  /** Descriptors that were used go back before all copies are queued, since more are needed. */
  #makeRoom(): boolean {
    this.#parts.path.copies.flush();
    this.writeBack();
    return this.#used === 0 && this.#begin();
  }

  /** A frame over several buffers, or split, or legacy, or to where addresses do not reach. */
  #spill(
    burst: Burst,
    slot: number,
    at: number,
    length: number,
    bytes: number,
    wire: number,
    status: number,
    types: number,
    hash: number,
    vlan: number,
  ): number {
    const split = this.#split;
    const wanted = this.#parts.settings.splitHeaders;
    const room = this.#headerBytes;
    const isKnown = split.choose(this.#layout, burst.slots8, at, length, bytes, wanted, room);
    if (!isKnown || this.#packetBytes === 0) return this.#miss();
    const needed = Math.max(1, Math.ceil((bytes - split.bytes) / this.#packetBytes));
    if (needed > WINDOW || needed >= this.#entries) return this.#miss(TOO_BIG);
    if (needed > WINDOW - this.#used && !this.#makeRoom()) return this.#miss();
    if (!this.#hasFree(needed)) return this.#miss();
    const { memory } = this.#parts;
    const index = (this.#head + this.#used) % this.#entries;
    let words = this.#window.words;
    let first = 0;
    if (!this.#aimed().load(memory, this.#entries, index, needed)) {
      if (this.#fetched < needed && !this.#bring(needed)) return this.#miss();
      words = this.#own as Uint32Array;
      first = this.#next;
    }
    const buffers = this.#buffers;
    buffers.begin();
    let left = bytes - split.bytes;
    let isReached = true;
    for (let d = 0; d < needed && isReached; d++) {
      const word = (first + d) * WORDS;
      if (d === 0 && split.bytes > 0) {
        isReached = buffers.add(
          iova(words[word + 2] as number, words[word + 3] as number),
          split.bytes,
        );
      }
      const part = Math.min(left, this.#packetBytes);
      if (part > 0 && isReached) {
        isReached = buffers.add(iova(words[word] as number, words[word + 1] as number), part);
      }
      left -= part;
    }
    if (!isReached) {
      buffers.undo();
      return this.#miss();
    }
    this.#write(burst, slot, at, length, bytes);
    this.#use(words, first, needed, bytes, status, types, hash, vlan);
    this.#frames++;
    this.#bytes += wire;
    return DELIVERED;
  }

  /** Queues the copies to the destinations. */
  #write(burst: Burst, slot: number, at: number, length: number, bytes: number): void {
    const { scatter } = this.#parts.path;
    scatter.write(burst.slotsAt + at, length);
    const written = length + scatter.writeChain(burst, slot);
    if (bytes > written) scatter.write(this.#window.zerosAt, bytes - written);
  }

  /** Fills in what is written back of `count` descriptors. */
  #use(
    words: Uint32Array,
    first: number,
    count: number,
    bytes: number,
    status: number,
    types: number,
    hash: number,
    vlan: number,
  ): void {
    const done = this.#done.words;
    const split = this.#split;
    let left = bytes - split.bytes;
    for (let d = 0; d < count; d++) {
      const to = (this.#used + d) * WORDS;
      const isLast = d === count - 1;
      const part = Math.min(left, this.#packetBytes);
      left -= part;
      // What is told of the packet is valid with its end only (§7.1.6.2).
      const bits = (isLast ? status | IXGBE_RXD_END : 0) | IXGBE_RXD_DONE;
      const tag = isLast ? vlan << 16 : 0;
      if (this.#layout === IXGBE_DESCTYPE_LEGACY) {
        const from = (first + d) * WORDS;
        done[to] = words[from] as number;
        done[to + 1] = words[from + 1] as number;
        done[to + 2] = part;
        // Status in the lowest byte, errors (the highest bits of the advanced ones) above it.
        done[to + 3] = (bits & 0xff) | ((bits >>> 24) << 8) | tag;
        continue;
      }
      done[to] = (isLast ? types : 0) | (d === 0 ? split.info : 0);
      done[to + 1] = isLast ? hash : 0;
      done[to + 2] = bits | (d === 0 ? split.error : 0);
      done[to + 3] = part | tag;
    }
    this.#used += count;
    this.#run = 0;
    if (this.#fetched > 0) {
      this.#fetched -= count;
      this.#next += count;
      this.#ownIndex = (this.#ownIndex + count) % this.#entries;
    }
  }

  /** Writes the used descriptors back; the queue's turn is over. */
  #finish(): void {
    const { memory, interrupts } = this.#parts;
    const used = this.#used;
    const entries = this.#entries;
    const head = this.#head;
    this.#used = 0;
    // A queue that was disabled or set up anew meanwhile has nothing that could be written to.
    if (!this.enabled || this.#words[this.#block + RX.RDH] !== head) {
      this.#buffers.forget();
      this.#count();
      return;
    }
    if (this.#aimed().locate(memory, entries, head, used)) {
      const isLegacy = this.#layout === IXGBE_DESCTYPE_LEGACY;
      this.#done.store(memory, this.#window, used, isLegacy);
    } else this.#writeDone(head, used);
    this.#words[this.#block + RX.RDH] = (head + used) % entries;
    this.#count();
    if (this.#writing > 0) this.#owed = true;
    else interrupts.received(this.index);
  }

  /** Has the next descriptor near, which the guest's processor wrote: the next frame does not wait for it. */
  #touchNext(): void {
    // None: what stands in #at is of another turn, and the memory there may have gone.
    if (this.#run === 0) return;
    this.#touched[0] = this.#parts.memory.arena.view.getUint32(this.#at[0] as number, true);
  }

  #count(): void {
    this.#parts.statistics.received(this.index, this.#frames, this.#bytes);
    this.#frames = 0;
    this.#bytes = 0;
  }

  #writeDone(head: number, used: number): void {
    const { memory, bounce } = this.#parts;
    const from = bounce.doneWindow(this.index);
    memory.arena.bytes.copyWithin(from, this.#done.at, this.#done.at + used * BYTES);
    for (let i = 0; i < used; i++) {
      const address = this.#baseNow + ((head + i) % this.#entries) * BYTES;
      const result = memory.write(this.#client, address, BYTES, from + i * BYTES);
      if (result === DMA_PENDING) this.#writing++;
    }
  }

  /** Begins to bring descriptors; true if at least `needed` are here already. */
  #bring(needed: number): boolean {
    const { memory, bounce } = this.#parts;
    if (this.#fetching > 0) return false;
    const index = (this.#head + this.#used) % this.#entries;
    const count = Math.min(this.#free(), WINDOW);
    if (count < needed) return false;
    const to = bounce.receiveWindow(this.index);
    this.#own ??= new Uint32Array(memory.arena.buffer, to, WINDOW * WORDS);
    this.#forgetOwn();
    this.#ownIndex = index;
    this.#ownBase[0] = this.#baseNow;
    const result = memory.bring(
      this.#client,
      this.#baseNow,
      BYTES,
      this.#entries,
      index,
      count,
      to,
    );
    if (result === DMA_REFUSED) return false;
    if (result === DMA_DONE) {
      this.#fetched = count;
      return true;
    }
    this.#coming = count;
    this.#fetching = result - 1;
    return false;
  }

  #forgetOwn(): void {
    this.#fetched = 0;
    this.#next = 0;
    this.#coming = 0;
    this.#failed = false;
  }

  #miss(why: number = NO_BUFFER): number {
    this.#parts.statistics.missed(this.index, 1);
    return why;
  }

  #drained(): void {
    if (!this.#enable.isDraining) return;
    this.#enable.drained();
    this.#forgetOwn();
  }
}

function ringEntries(words: Uint32Array, block: number): number {
  return ((words[block + RX.RDLEN] as number) & RING_BYTES) / BYTES;
}
