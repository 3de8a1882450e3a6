/**
 * Frames on their way through the switch inside the card: from a virtual function to others and to the
 * wire, and from the wire. `veb.ts` says where each goes; here they are checked, get or lose the tag of
 * their port's VLAN, and are handed over in runs, as `net/switch.ts` does it.
 *
 * A frame of a pool whose port has a VLAN is of that VLAN, whatever tag it has inside (VMVIR, §7.4.5):
 * the inner tag passes as part of the frame.
 */
import type { CounterBlock } from '../../base/counters.ts';
import { FRAME_TABLE } from '../../memory/copy.ts';
import { Burst, SLOT_HEADROOM } from '../../net/burst.ts';
import { appendFrame } from '../../net/burst-copy.ts';
import type { DataPath } from '../../net/data-path.ts';
import { MAX_FRAME_BYTES, read16 } from '../../net/frame.ts';
import { PORT_COUNTER_INDEX, type PortCounter } from '../../net/port.ts';
import type { FrameTaker } from '../../net/software-offload.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_VLAN,
  VLAN_ID_MASK,
  VLAN_TAG_BYTES,
} from '../../spec/ethernet.ts';
import { IXGBE_POOLS } from '../../spec/ixgbe.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_FLAGS,
  VIRTIO_NET_HDR_F_DATA_VALID,
} from '../../spec/virtio-net.ts';
import { FrameRuns } from './frame-runs.ts';
import { MANY, NOBODY, type Veb, WIRE } from './veb.ts';

const TX_DROP_BAD_LENGTH = PORT_COUNTER_INDEX.tx_drop_bad_length;
const TX_DROP_SPOOF = PORT_COUNTER_INDEX.tx_drop_spoof;
const TX_DROP_VLAN = PORT_COUNTER_INDEX.tx_drop_vlan;
const TX_DROP_NO_TARGET = PORT_COUNTER_INDEX.tx_drop_no_target;
const RX_DROP_BAD_OFFLOAD = PORT_COUNTER_INDEX.rx_drop_bad_offload;
const GSO_FRAMES = PORT_COUNTER_INDEX.gso_frames;
const GSO_SEGMENTS = PORT_COUNTER_INDEX.gso_segments;
const CSUM_FRAMES = PORT_COUNTER_INDEX.csum_frames;

/** Targets beside those of {@link Veb.route}: dropped and counted; of a VLAN by a tag in its bytes. */
const DROPPED = -2;
const TAG_INSIDE = -3;

/** 802.1Q tag protocol identifier as two bytes of a frame read little-endian. */
const TPID_LE = 0x0081;
const ADDRESSES = 12;
/** Where a frame's destination stands, in words from its slot's beginning. */
const FIRST_ADDRESS = (SLOT_HEADROOM + NET_HEADER_BYTES) >>> 2;
/** Room for the headers of any frame: those that were cut in software have the longest. */
const OUT_SLOT_BYTES = 512;
/** Lists of frames that have room in a frame table. */
const LISTS_PER_TABLE = Math.floor(FRAME_TABLE.size / BATCH);
/** The wire has a place among the senders, behind all pools. */
const SENDERS = IXGBE_POOLS + 1;

/** A function with a pool. */
export interface VebMember {
  readonly counters: CounterBlock<PortCounter>;
  /** As `NicFunction.accept` and `flush`. */
  accept(burst: Burst, frames: Uint8Array, count: number, tagged: boolean, local: boolean): void;
  flush(): void;
}

export class VebPath implements FrameTaker {
  readonly #veb: Veb;
  readonly #path: DataPath;
  readonly #runs: FrameRuns;
  /** Hands a burst to the wire; all copies are done when it returns. False: there is none. */
  readonly #forward: (burst: Burst) => boolean;
  readonly #members: (VebMember | undefined)[] = new Array(IXGBE_POOLS).fill(undefined);
  /** Tag of each pool's port; 0: none. */
  readonly #portTci = new Int32Array(IXGBE_POOLS);
  /** What each sender sent last: from where to where, and what was decided. */
  readonly #sourceLow = new Int32Array(SENDERS);
  readonly #sourceHigh = new Int32Array(SENDERS);
  readonly #targetLow = new Int32Array(SENDERS);
  readonly #targetHigh = new Int32Array(SENDERS);
  readonly #targetVlan = new Int32Array(SENDERS);
  readonly #target = new Int32Array(SENDERS).fill(NOBODY);
  readonly #generation = new Float64Array(SENDERS).fill(-1);
  /** By frame: where it goes, and for {@link MANY} the pools and the wire. */
  readonly #targets = new Int16Array(BATCH);
  readonly #lows = new Int32Array(BATCH);
  readonly #highs = new Int32Array(BATCH);
  readonly #wires = new Uint8Array(BATCH);
  readonly #listsAt: number;
  readonly #run: Uint8Array;
  readonly #single: Uint8Array;
  readonly #addresses: Uint32Array;
  /** Frames of each pool, while those of a burst are handed out: how many, which, and whose there are. */
  readonly #poolCounts = new Uint8Array(IXGBE_POOLS);
  readonly #poolLists: readonly Uint8Array[];
  readonly #pools = new Uint8Array(IXGBE_POOLS);
  readonly #poolTables: readonly number[];
  readonly #touched = new Uint8Array(IXGBE_POOLS);
  readonly #isTouched = new Uint8Array(IXGBE_POOLS);
  #touchedCount = 0;
  /** Who gets the frames that are being made fit. */
  #fittedFor: VebMember | undefined;
  /** Frames to the wire with headers of their own, and frames from it without their tag. */
  readonly #out: Burst;

  constructor(veb: Veb, path: DataPath, forward: (burst: Burst) => boolean) {
    this.#veb = veb;
    this.#path = path;
    this.#runs = FrameRuns.of(path);
    this.#forward = forward;
    this.#out = new Burst(path.arena, path.copies, { slotBytes: OUT_SLOT_BYTES });
    this.#listsAt = path.tables.take();
    const list = (index: number): Uint8Array =>
      new Uint8Array(path.arena.buffer, this.#listsAt + index * BATCH, BATCH);
    this.#run = list(0);
    this.#single = list(1);
    this.#addresses = new Uint32Array(path.arena.buffer, this.#listsAt + 2 * BATCH, 4);
    const tables = Math.ceil(IXGBE_POOLS / LISTS_PER_TABLE);
    this.#poolTables = Array.from({ length: tables }, () => path.tables.take());
    this.#poolLists = Array.from({ length: IXGBE_POOLS }, (_, pool) => {
      const table = this.#poolTables[Math.floor(pool / LISTS_PER_TABLE)] as number;
      return new Uint8Array(path.arena.buffer, table + (pool % LISTS_PER_TABLE) * BATCH, BATCH);
    });
  }

  /** Gives its memory back. */
  close(): void {
    this.#out.release();
    for (const table of [this.#listsAt, ...this.#poolTables]) this.#path.tables.give(table);
  }

  setMember(pool: number, member: VebMember | undefined): void {
    this.#members[pool] = member;
    this.#generation[pool] = -1;
  }

  /** Tag that a pool's port puts into all its frames, and takes out of those to it; 0: none. */
  setPortTci(pool: number, tci: number): void {
    this.#portTci[pool] = tci;
    this.#generation.fill(-1);
  }

  /** Takes a burst of the pool's function: when it returns, all copies are done. */
  fromMember(pool: number, burst: Burst): void {
    const member = this.#members[pool];
    if (member === undefined) return;
    this.#out.clear();
    if (this.#classify(pool, burst, member.counters.values)) {
      this.#handOverAlike(pool, burst, member.counters.values);
    } else {
      this.#handOver(burst, member.counters.values);
    }
    if (this.#out.count > 0 && !this.#forward(this.#out)) {
      add(member.counters.values, TX_DROP_NO_TARGET, this.#out.count);
    }
    burst.copies.flush();
  }

  /** Takes frames from the wire, as `Port.deliver`. What no pool wants is not for this port. */
  fromWire(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    if (count === 0) return;
    if (!tagged && this.#runs.survey(burst, frames, 0, count) === count) {
      this.#alikeFromWire(burst, frames, count);
      return;
    }
    if (!tagged && this.#runs.arePlain(burst, frames, count)) {
      this.#plainFromWire(burst, frames, count);
      return;
    }
    for (let k = 0; k < count; k++) this.#routeFromWire(burst, frames[k] as number, tagged);
    const targets = this.#targets;
    const run = this.#run;
    let k = 0;
    while (k < count) {
      const first = frames[k] as number;
      let length = 0;
      do run[length++] = frames[k++] as number;
      while (k < count && this.#goTogether(first, frames[k] as number));
      const target = targets[first] as number;
      if (target === TAG_INSIDE) {
        for (let i = 0; i < length; i++) this.#deliverTagInside(burst, run[i] as number);
      } else if (target === MANY) {
        this.#toMany(first, burst, run, length, tagged, false);
      } else if (target !== NOBODY) {
        this.#toMember(target, burst, run, length, tagged, false);
      }
    }
  }

  /** Frames to one destination, without tags and metadata. */
  #alikeFromWire(burst: Burst, frames: Uint8Array, count: number): void {
    const first = frames[0] as number;
    this.#routeFromWire(burst, first, false);
    const target = this.#targets[first] as number;
    if (target === MANY) {
      this.#toMany(first, burst, frames, count, false, false);
      return;
    }
    const member = this.#members[target];
    if (member === undefined) return;
    this.#touch(target);
    member.accept(burst, frames, count, false, false);
  }

  /** Frames without tags and metadata: those of each function are handed over together. */
  #plainFromWire(burst: Burst, frames: Uint8Array, count: number): void {
    const { headerAt, slots8, slotsAt } = burst;
    const counts = this.#poolCounts;
    let pools = 0;
    for (let k = 0; k < count; k++) {
      const slot = frames[k] as number;
      const at = (headerAt[slot] as number) - slotsAt + NET_HEADER_BYTES;
      const target = this.#route(slots8, at, 0);
      if (target === MANY) {
        // Each function gets its frames in order.
        this.#handOverPools(burst, pools);
        pools = 0;
        this.#keepPools(slot);
        this.#single[0] = slot;
        this.#toMany(slot, burst, this.#single, 1, false, false);
      } else if (target !== NOBODY) {
        const at = counts[target] as number;
        if (at === 0) this.#pools[pools++] = target;
        (this.#poolLists[target] as Uint8Array)[at] = slot;
        counts[target] = at + 1;
      }
    }
    this.#handOverPools(burst, pools);
  }

  /** Hands over what the lists of the first so many of `#pools` have. */
  #handOverPools(burst: Burst, pools: number): void {
    for (let i = 0; i < pools; i++) {
      const pool = this.#pools[i] as number;
      const count = this.#poolCounts[pool] as number;
      this.#poolCounts[pool] = 0;
      const member = this.#members[pool];
      if (member === undefined) continue;
      this.#touch(pool);
      member.accept(burst, this.#poolLists[pool] as Uint8Array, count, false, false);
    }
  }

  /** Tells all functions of the frames that they got since the last time. */
  publish(): void {
    for (let i = 0; i < this.#touchedCount; i++) {
      const pool = this.#touched[i] as number;
      this.#isTouched[pool] = 0;
      this.#members[pool]?.flush();
    }
    this.#touchedCount = 0;
  }

  /**
   * Decides where each frame of a pool goes. True if all are alike: without tag and offloads, between the
   * two stations that are kept for the pool.
   */
  #classify(pool: number, burst: Burst, values: Float64Array): boolean {
    const { slots32, count: frames } = burst;
    const words = burst.slotBytes >>> 2;
    const targets = this.#targets;
    const tci = this.#portTci[pool] as number;
    let i = 0;
    let uniform = true;
    while (i < frames) {
      if (
        this.#generation[pool] === this.#veb.generation &&
        ((slots32[i * words + FIRST_ADDRESS] as number) | 0) === this.#targetLow[pool]
      ) {
        const next = this.#alike(pool, burst, i, tci);
        if (uniform && next === frames) return true;
        const target = this.#target[pool] as number;
        for (; i < next; i++) targets[i] = target;
        if (i === frames) break;
      }
      uniform = false;
      targets[i] = this.#classifyOne(pool, burst, i, values);
      i++;
    }
    return uniform;
  }

  /** Index of the first frame from `first` on that is not just like what the pool sent last. */
  #alike(pool: number, burst: Burst, first: number, tci: number): number {
    const sourceLow = this.#sourceLow[pool] as number;
    const sourceHigh = this.#sourceHigh[pool] as number;
    const addresses = this.#addresses;
    addresses[0] = this.#targetLow[pool] as number;
    addresses[1] = (this.#targetHigh[pool] as number) | (sourceLow << 16);
    addresses[2] = (sourceLow >>> 16) | (sourceHigh << 16);
    return burst.copies.alike(
      burst.tableAt,
      first,
      burst.count,
      burst.slotsAt + SLOT_HEADROOM,
      burst.slotBytes,
      ETHERNET_HEADER_BYTES,
      MAX_FRAME_BYTES,
      addresses.byteOffset,
      tci,
    );
  }

  #classifyOne(pool: number, burst: Burst, i: number, values: Float64Array): number {
    const { slots16, slots32, tci } = burst;
    const veb = this.#veb;
    const at = i * (burst.slotBytes >>> 2) + (SLOT_HEADROOM >>> 2);
    const length = burst.frameLength[i] as number;
    if (length < ETHERNET_HEADER_BYTES || length > MAX_FRAME_BYTES) {
      return drop(values, TX_DROP_BAD_LENGTH);
    }
    const low = (slots32[at + 3] as number) | 0;
    const middle = slots32[at + 4] as number;
    const high = middle & 0xffff;
    const last = slots32[at + 5] as number;
    const sourceLow = (middle >>> 16) | (last << 16);
    const sourceHigh = last >>> 16;
    const port = this.#portTci[pool] as number;
    const isTagged = slots16[at * 2 + 12] === TPID_LE;
    let tag = port;
    let hidden = false;
    if (port === 0 && isTagged) {
      // Padding would make one of what there is of a tag.
      if (length < ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES) return drop(values, TX_DROP_BAD_LENGTH);
      burst.untag(i);
      tag = tci[i] as number;
      // A tag behind one of no VLAN would be looked at by nobody here, and by whoever gets the frame.
      hidden = (tag & VLAN_ID_MASK) === 0 && slots16[at * 2 + 14] === TPID_LE;
    }
    tci[i] = tag;
    const vlan = tag & VLAN_ID_MASK;
    if (!veb.allowsSource(pool, sourceLow, sourceHigh)) return drop(values, TX_DROP_SPOOF);
    if (hidden) return drop(values, TX_DROP_VLAN);
    if (!veb.allowsVlan(pool, vlan)) return drop(values, TX_DROP_VLAN);
    const target = veb.route(pool, low, high, vlan);
    if (target === MANY) this.#keepPools(i);
    else if (!isTagged) {
      this.#sourceLow[pool] = sourceLow;
      this.#sourceHigh[pool] = sourceHigh;
      this.#targetLow[pool] = low;
      this.#targetHigh[pool] = high;
      this.#target[pool] = target;
      this.#generation[pool] = veb.generation;
    }
    return target;
  }

  #keepPools(i: number): void {
    const { targets, toWire } = this.#veb;
    this.#lows[i] = targets[0] as number;
    this.#highs[i] = targets[1] as number;
    this.#wires[i] = toWire ? 1 : 0;
  }

  /** Frames of a pool that all go where the pool's last one went. */
  #handOverAlike(pool: number, burst: Burst, values: Float64Array): void {
    const target = this.#target[pool] as number;
    const frames = burst.count;
    if (target < 0) {
      add(values, TX_DROP_NO_TARGET, frames);
      return;
    }
    const tci = this.#portTci[pool] as number;
    if (target !== WIRE) {
      const member = this.#members[target];
      if (member === undefined) return;
      this.#touch(target);
      member.accept(burst, this.#runs.all, frames, this.#isTaggedFor(target, tci), true);
    } else if (tci === 0) {
      if (!this.#forward(burst)) add(values, TX_DROP_NO_TARGET, frames);
    } else {
      for (let i = 0; i < frames; i++) appendFrame(this.#out, burst, i, true);
    }
  }

  /** Delivers runs of frames that go to the same places; each gets its frames in order. */
  #handOver(burst: Burst, values: Float64Array): void {
    const targets = this.#targets;
    const run = this.#run;
    const frames = burst.count;
    let i = 0;
    while (i < frames) {
      const first = i;
      let length = 0;
      do run[length++] = i++;
      while (i < frames && this.#goTogether(first, i));
      const target = targets[first] as number;
      if (target === DROPPED) continue;
      if (target === NOBODY) {
        add(values, TX_DROP_NO_TARGET, length);
        continue;
      }
      if (target === WIRE || (target === MANY && this.#wires[first] === 1)) {
        this.#toWire(burst, length);
      }
      if (target === MANY) this.#toMany(first, burst, run, length, true, true);
      else if (target !== WIRE) this.#toMember(target, burst, run, length, true, true);
    }
  }

  #goTogether(one: number, other: number): boolean {
    const target = this.#targets[one];
    if (target !== this.#targets[other]) return false;
    if (target !== MANY) return true;
    return (
      this.#lows[one] === this.#lows[other] &&
      this.#highs[one] === this.#highs[other] &&
      this.#wires[one] === this.#wires[other]
    );
  }

  /** The first `length` frames of the run leave the card, with their tag. */
  #toWire(burst: Burst, length: number): void {
    for (let k = 0; k < length; k++) {
      const slot = this.#run[k] as number;
      appendFrame(this.#out, burst, slot, burst.tci[slot] !== 0);
    }
  }

  /** Hands frames to all pools that frame `first` goes to. */
  #toMany(
    first: number,
    burst: Burst,
    list: Uint8Array,
    length: number,
    tagged: boolean,
    local: boolean,
  ): void {
    this.#toSet(this.#lows[first] as number, 0, burst, list, length, tagged, local);
    this.#toSet(this.#highs[first] as number, 32, burst, list, length, tagged, local);
  }

  /** Hands frames to the pools of one word, the first of which is `base`. */
  #toSet(
    pools: number,
    base: number,
    burst: Burst,
    list: Uint8Array,
    length: number,
    tagged: boolean,
    local: boolean,
  ): void {
    for (let left = pools; left !== 0; left &= left - 1) {
      this.#toMember(base + 31 - Math.clz32(left & -left), burst, list, length, tagged, local);
    }
  }

  /**
   * Hands frames to a function: at once if they are tagged alike and it can take them as they are; others
   * are made fit. `tagged`: they have the tag of their `tci`, if that is not 0. `local`: they are of the card.
   */
  #toMember(
    pool: number,
    burst: Burst,
    list: Uint8Array,
    length: number,
    tagged: boolean,
    local: boolean,
  ): void {
    const member = this.#members[pool];
    if (member === undefined) return;
    this.#touch(pool);
    const { needs, tci } = burst;
    const first = tagged && this.#isTaggedFor(pool, tci[list[0] as number] as number);
    let isAlike = true;
    for (let k = 0; k < length && isAlike; k++) {
      const slot = list[k] as number;
      const withTag = tagged && this.#isTaggedFor(pool, tci[slot] as number);
      isAlike = needs[slot] === 0 && withTag === first;
    }
    if (isAlike) {
      member.accept(burst, list, length, first, local);
      return;
    }
    for (let k = 0; k < length; k++) {
      const slot = list[k] as number;
      const withTag = tagged && this.#isTaggedFor(pool, tci[slot] as number);
      if (needs[slot] === 0) {
        this.#single[0] = slot;
        member.accept(burst, this.#single, 1, withTag, local);
      } else {
        this.#convert(member, burst, slot, withTag);
      }
    }
  }

  /** A tag is not for the guest if it is that of its port's VLAN. */
  #isTaggedFor(pool: number, tci: number): boolean {
    if (tci === 0) return false;
    const port = this.#portTci[pool] as number;
    return port === 0 || (port & VLAN_ID_MASK) !== (tci & VLAN_ID_MASK);
  }

  #touch(pool: number): void {
    if (this.#isTouched[pool] === 1) return;
    this.#isTouched[pool] = 1;
    this.#touched[this.#touchedCount++] = pool;
  }

  /** Completes a checksum, or cuts a frame: the guest gets what would have been on a wire. */
  #convert(member: VebMember, burst: Burst, slot: number, tagged: boolean): void {
    const { values } = member.counters;
    this.#fittedFor = member;
    const frames = this.#path.software.handOver(burst, slot, 0, this, tagged);
    this.#fittedFor = undefined;
    if (frames === 0) add(values, RX_DROP_BAD_OFFLOAD, 1);
    else if (frames === 1) add(values, CSUM_FRAMES, 1);
    else {
      add(values, GSO_FRAMES, 1);
      add(values, GSO_SEGMENTS, frames);
    }
  }

  /** Frames that were made fit: their checksums are good, and the guest need not look. */
  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    for (let i = 0; i < count; i++) {
      const header = (burst.headerAt[frames[i] as number] as number) - burst.slotsAt;
      burst.slots8[header + NET_HEADER_FLAGS] = VIRTIO_NET_HDR_F_DATA_VALID;
    }
    this.#fittedFor?.accept(burst, frames, count, tagged, true);
  }

  #routeFromWire(burst: Burst, slot: number, tagged: boolean): void {
    const bytes = burst.slots8;
    const at = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
    const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
    if (!tagged && read16(bytes, at + ADDRESSES) === ETHERTYPE_VLAN) {
      const isWhole = gathered >= ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
      this.#targets[slot] = isWhole ? TAG_INSIDE : NOBODY;
      return;
    }
    const vlan = tagged ? (burst.tci[slot] as number) & VLAN_ID_MASK : 0;
    this.#targets[slot] = this.#route(bytes, at, vlan);
    if (this.#targets[slot] === MANY) this.#keepPools(slot);
  }

  /** Where a frame from the wire goes, with its first bytes at `at`; remembers the last one. */
  #route(bytes: Uint8Array, at: number, vlan: number): number {
    const veb = this.#veb;
    const low = read32le(bytes, at);
    const high = (bytes[at + 4] as number) | ((bytes[at + 5] as number) << 8);
    if (
      this.#generation[WIRE] === veb.generation &&
      this.#targetLow[WIRE] === low &&
      this.#targetHigh[WIRE] === high &&
      this.#targetVlan[WIRE] === vlan
    ) {
      return this.#target[WIRE] as number;
    }
    const target = veb.route(WIRE, low, high, vlan);
    if (target === MANY) return target;
    this.#generation[WIRE] = veb.generation;
    this.#targetLow[WIRE] = low;
    this.#targetHigh[WIRE] = high;
    this.#targetVlan[WIRE] = vlan;
    this.#target[WIRE] = target;
    return target;
  }

  /** A frame from the wire with its tag among its bytes: it loses it, in a copy of its headers. */
  #deliverTagInside(burst: Burst, slot: number): void {
    const out = this.#out;
    out.clear();
    appendFrame(out, burst, slot, false);
    out.untag(0);
    const at = (out.headerAt[0] as number) - out.slotsAt + NET_HEADER_BYTES;
    const vlan = (out.tci[0] as number) & VLAN_ID_MASK;
    // As from a pool: what stands behind a tag of no VLAN is of one that nobody has looked at.
    if (vlan === 0 && read16(out.slots8, at + ADDRESSES) === ETHERTYPE_VLAN) return;
    const target = this.#route(out.slots8, at, vlan);
    const single = this.#single;
    const { targets } = this.#veb;
    single[0] = 0;
    if (target === MANY) {
      const high = targets[1] as number;
      this.#toSet(targets[0] as number, 0, out, single, 1, true, false);
      this.#toSet(high, 32, out, single, 1, true, false);
    } else if (target !== NOBODY) {
      this.#toMember(target, out, single, 1, true, false);
    }
    out.copies.flush();
    out.clear();
  }
}

function read32le(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  );
}

function drop(values: Float64Array, counter: number): number {
  add(values, counter, 1);
  return DROPPED;
}

function add(values: Float64Array, counter: number, by: number): void {
  values[counter] = (values[counter] as number) + by;
}
