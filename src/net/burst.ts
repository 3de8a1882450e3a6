/**
 * Up to 64 frames on their way from one port to others.
 *
 * The payload stays where the sender has it. Of each frame the first bytes (the virtio_net_hdr and
 * the headers that decide where it goes) are copied once into memory of the lane, its *slot*:
 * lookup, spoof check, tags, segmentation and the delivered headers all use that copy, because
 * the sender can change its own at any moment.
 *
 * What is delivered is `headerLength` bytes at `headerAt`, then the chain's bytes from `skip` on.
 */
import type { Arena } from '../memory/arena.ts';
import { type CopyQueue, FRAME_TABLE, GATHER_COPY_BYTES } from '../memory/copy.ts';
import { BATCH, ChainBatch } from '../ring/chain-batch.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_NUM_BUFFERS,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
} from '../spec/virtio-net.ts';

/**
 * Bytes of a frame's start, virtio_net_hdr included, that {@link Burst.gather} copies: a frame of 64
 * bytes is in its slot wholly.
 */
export const GATHER_BYTES = GATHER_COPY_BYTES;

/** Where a slot's content begins: room before it for a header that grows. */
export const SLOT_HEADROOM = 16;

/** Slots of ordinary bursts: the headroom, the gathered bytes, room to complete the headers in. */
export const SLOT_BYTES = 128;

export interface BurstOptions {
  /** Bytes of a slot, a multiple of 64; larger for bursts whose headers are written by us. */
  readonly slotBytes?: number;
}

export class Burst {
  readonly arena: Arena;
  readonly copies: CopyQueue;
  readonly slotBytes: number;
  /** The frames where their sender has them, virtio_net_hdr first. */
  readonly chains: ChainBatch;
  /** Arena address of the frame table that holds some of the arrays below. */
  readonly tableAt: number;
  /** Bytes of virtio_net_hdr that each chain begins with: 12, 10 for a legacy driver, or none. */
  sourceHeaderBytes = NET_HEADER_BYTES;
  /** Arena address of the header to deliver (virtio_net_hdr of 12 bytes, then the frame's start). */
  readonly headerAt: Float64Array;
  /** Bytes at `headerAt`. */
  readonly headerLength: Uint32Array;
  /** Bytes of the chain that the header stands for. */
  readonly skip: Uint32Array;
  /** Bytes of the frame, without virtio_net_hdr and without an 802.1Q tag that was taken off. */
  readonly frameLength: Uint32Array;
  /** Offloads that a receiver must take, a mask of OFFLOAD_* (`port.ts`). */
  readonly needs: Uint8Array;
  /** Tag control information of the frame's VLAN: priority, DEI, VLAN id (0: none). IEEE 802.1Q §9.6. */
  readonly tci: Uint16Array;
  /** Arena address of slot 0; slot i begins at `slotsAt + i * slotBytes`. */
  readonly slotsAt: number;
  /**
   * The slots, as bytes, 16-bit and 32-bit little-endian words. Index from slot 0's first byte. The
   * bytes reach over the tagged headers too.
   */
  readonly slots8: Uint8Array;
  readonly slots16: Uint16Array;
  readonly slots32: Uint32Array;
  /** As {@link slotsAt}, for headers with a tag put in. */
  readonly taggedAt: number;

  constructor(arena: Arena, copies: CopyQueue, options: BurstOptions = {}) {
    this.arena = arena;
    this.copies = copies;
    this.slotBytes = options.slotBytes ?? SLOT_BYTES;
    const bytes = BATCH * this.slotBytes;
    this.slotsAt = arena.allocate(2 * bytes + FRAME_TABLE.size, 'sluice-slots');
    this.tableAt = this.slotsAt + 2 * bytes;
    const words = (at: number): Uint32Array =>
      new Uint32Array(arena.buffer, this.tableAt + at, BATCH);
    this.headerAt = new Float64Array(arena.buffer, this.tableAt + FRAME_TABLE.headerAt, BATCH);
    this.headerLength = words(FRAME_TABLE.headerLength);
    this.skip = words(FRAME_TABLE.skip);
    this.frameLength = words(FRAME_TABLE.frameLength);
    this.tci = new Uint16Array(arena.buffer, this.tableAt + FRAME_TABLE.tci, BATCH);
    this.needs = new Uint8Array(arena.buffer, this.tableAt + FRAME_TABLE.needs, BATCH);
    this.chains = new ChainBatch({ arena, tableAt: this.tableAt });
    this.slots8 = new Uint8Array(arena.buffer, this.slotsAt, 2 * bytes);
    this.slots16 = new Uint16Array(arena.buffer, this.slotsAt, bytes / 2);
    this.slots32 = new Uint32Array(arena.buffer, this.slotsAt, bytes / 4);
    this.taggedAt = this.slotsAt + bytes;
  }

  get count(): number {
    return this.chains.count;
  }

  clear(): void {
    this.chains.clear();
  }

  /** Bytes of all its frames, for a limit of what may be sent. Frames that were refused have none. */
  totalBytes(): number {
    const { count } = this;
    let bytes = 0;
    for (let i = 0; i < count; i++) bytes += this.frameLength[i] as number;
    return bytes;
  }

  /** Gives the burst's memory back. */
  release(): void {
    this.arena.unmap(this.slotsAt, 2 * BATCH * this.slotBytes + FRAME_TABLE.size);
  }

  /**
   * Copies the start of each frame into its slot and sets header, skip, length, an empty VLAN and
   * num_buffers 1.
   */
  gather(): void {
    const { chains, copies, sourceHeaderBytes, slotBytes, tableAt } = this;
    const count = chains.count;
    // A legacy header is two bytes shorter: it is put in two bytes later and then moved up.
    const shift = NET_HEADER_BYTES - sourceHeaderBytes;
    const slots = this.slotsAt + SLOT_HEADROOM;
    let done = 0;
    while (done < count) {
      done = copies.gather(tableAt, done, count, slots, slotBytes, shift);
      if (done === count) break;
      this.#gatherPieces(done, slots + done * slotBytes, shift);
      done++;
    }
    if (shift !== 0 && sourceHeaderBytes !== 0) this.#padLegacyHeaders(count);
  }

  /**
   * The header of frame `slot` with its 802.1Q tag put in, in a slot of its own. Its length is
   * `headerLength + 4`. The untagged header is not touched.
   */
  tag(slot: number): number {
    const from = (this.headerAt[slot] as number) - this.slotsAt;
    const length = this.headerLength[slot] as number;
    const { slots8 } = this;
    const to = this.taggedAt - this.slotsAt + slot * this.slotBytes;
    const addresses = NET_HEADER_BYTES + 12;
    slots8.copyWithin(to, from, from + addresses);
    slots8.copyWithin(to + addresses + 4, from + addresses, from + length);
    const tci = this.tci[slot] as number;
    slots8[to + addresses] = 0x81;
    slots8[to + addresses + 1] = 0x00;
    slots8[to + addresses + 2] = tci >>> 8;
    slots8[to + addresses + 3] = tci & 0xff;
    shiftOffloadOffsets(slots8, to, 4);
    return this.slotsAt + to;
  }

  /** Takes the 802.1Q tag out of the header of frame `slot`, into `tci`. */
  untag(slot: number): void {
    const at = (this.headerAt[slot] as number) - this.slotsAt;
    const { slots8 } = this;
    const tagAt = at + NET_HEADER_BYTES + 12;
    this.tci[slot] = ((slots8[tagAt + 2] as number) << 8) | (slots8[tagAt + 3] as number);
    slots8.copyWithin(at + 4, at, tagAt);
    this.headerAt[slot] = (this.headerAt[slot] as number) + 4;
    this.headerLength[slot] = (this.headerLength[slot] as number) - 4;
    this.frameLength[slot] = (this.frameLength[slot] as number) - 4;
    shiftOffloadOffsets(slots8, at + 4, -4);
  }

  /** Takes out the gathered frames that have a flag in `bad`; those behind them move up. */
  drop(bad: Uint8Array): void {
    const { chains } = this;
    const count = chains.count;
    let to = 0;
    for (let from = 0; from < count; from++) {
      if (bad[from] !== 0) continue;
      if (to !== from) this.#move(from, to);
      to++;
    }
    if (to < count) chains.truncate(to);
  }

  /** Copies bytes [from, from + length) of a chain to an arena address (queued). Slow path. */
  copyFromChain(slot: number, from: number, length: number, to: number): void {
    const { chains, copies } = this;
    let offset = from;
    let left = length;
    let target = to;
    let segment = -1;
    const last = chains.more[slot] as number;
    while (left > 0 && segment < last) {
      const at = (chains.moreStart[slot] as number) + segment;
      const address =
        segment < 0 ? (chains.address[slot] as number) : (chains.moreAddress[at] as number);
      const bytes =
        segment < 0 ? (chains.length[slot] as number) : (chains.moreLength[at] as number);
      segment++;
      if (offset >= bytes) {
        offset -= bytes;
        continue;
      }
      const part = Math.min(left, bytes - offset);
      copies.push(target, address + offset, part);
      target += part;
      left -= part;
      offset = 0;
    }
  }

  /** A switch finds a frame's headers by its index: they move along. */
  #move(from: number, to: number): void {
    const { chains, slotBytes } = this;
    const at = from * slotBytes;
    this.slots8.copyWithin(to * slotBytes, at, at + slotBytes);
    this.headerAt[to] = (this.headerAt[from] as number) + (to - from) * slotBytes;
    this.headerLength[to] = this.headerLength[from] as number;
    this.skip[to] = this.skip[from] as number;
    this.frameLength[to] = this.frameLength[from] as number;
    this.needs[to] = this.needs[from] as number;
    this.tci[to] = this.tci[from] as number;
    chains.address[to] = chains.address[from] as number;
    chains.length[to] = chains.length[from] as number;
    chains.total[to] = chains.total[from] as number;
    chains.more[to] = chains.more[from] as number;
    chains.moreStart[to] = chains.moreStart[from] as number;
    chains.readable[to] = chains.readable[from] as number;
  }

  /** What WebAssembly does for other frames, for one that is in pieces or not in the window. */
  #gatherPieces(slot: number, at: number, shift: number): void {
    const total = this.chains.total[slot] as number;
    const gathered = Math.min(total, GATHER_BYTES - shift);
    this.copyFromChain(slot, 0, gathered, at + shift);
    this.copies.flush();
    const words = (at - this.slotsAt) >>> 1;
    if (shift === NET_HEADER_BYTES) this.slots16.fill(0, words, words + NET_HEADER_BYTES / 2);
    if (shift === 0 || shift === NET_HEADER_BYTES) {
      this.slots16[words + NET_HEADER_NUM_BUFFERS / 2] = 1;
    }
    this.tci[slot] = 0;
    this.headerAt[slot] = at;
    this.headerLength[slot] = gathered + shift;
    this.skip[slot] = gathered;
    this.frameLength[slot] = Math.max(0, total - this.sourceHeaderBytes);
  }

  #padLegacyHeaders(count: number): void {
    const { slots8, slotBytes } = this;
    for (let i = 0; i < count; i++) {
      const at = i * slotBytes + SLOT_HEADROOM;
      slots8.copyWithin(at, at + 2, at + NET_HEADER_BYTES);
      slots8[at + NET_HEADER_NUM_BUFFERS] = 1;
      slots8[at + NET_HEADER_NUM_BUFFERS + 1] = 0;
    }
  }
}

/**
 * Moves hdr_len and csum_start of a virtio_net_hdr at `at` by `delta` bytes, where they are in use:
 * a tag was put into the frame or taken out of it before them.
 */
function shiftOffloadOffsets(bytes: Uint8Array, at: number, delta: number): void {
  const flags = bytes[at] as number;
  const gsoType = bytes[at + 1] as number;
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) add16(bytes, at + 6, delta);
  if (gsoType !== VIRTIO_NET_HDR_GSO_NONE) add16(bytes, at + 2, delta);
}

function add16(bytes: Uint8Array, at: number, delta: number): void {
  const value = (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
  bytes[at] = (value + delta) & 0xff;
  bytes[at + 1] = ((value + delta) >>> 8) & 0xff;
}
