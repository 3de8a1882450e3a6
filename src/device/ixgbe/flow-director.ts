/**
 * Perfect match filters of the flow director (§7.1.2.7): a frame's addresses, ports, protocol, VLAN and two
 * bytes of any other place choose its queue, under masks that all filters share. (Signature filters, which
 * only spread flows, hold nothing: RSS spreads them.)
 */
import { randomFillSync } from 'node:crypto';
import { networkOffset, read16, read32le } from '../../net/frame.ts';
import {
  ETHERTYPE_IPV4,
  IP_PROTOCOL_TCP,
  IP_PROTOCOL_UDP,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET_MASK,
  IPV4_MIN_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
} from '../../spec/ethernet.ts';
import {
  IXGBE_FDIRCMD_ADD,
  IXGBE_FDIRCMD_COMMAND,
  IXGBE_FDIRCMD_DROP,
  IXGBE_FDIRCMD_IPV6,
  IXGBE_FDIRCMD_L4_SCTP,
  IXGBE_FDIRCMD_L4_SHIFT,
  IXGBE_FDIRCMD_L4_TCP,
  IXGBE_FDIRCMD_L4_UDP,
  IXGBE_FDIRCMD_L4TYPE,
  IXGBE_FDIRCMD_QUERY,
  IXGBE_FDIRCMD_QUEUE_SHIFT,
  IXGBE_FDIRCMD_REMOVE,
  IXGBE_FDIRCMD_VALID,
  IXGBE_FDIRCTRL_FLEX,
  IXGBE_FDIRCTRL_FLEX_SHIFT,
  IXGBE_FDIRCTRL_INIT_DONE,
  IXGBE_FDIRCTRL_PERFECT,
  IXGBE_FDIRM_FLEX,
  IXGBE_FDIRM_L4,
  IXGBE_FDIRM_VLAN_ID,
  IXGBE_FDIRM_VLAN_PRIORITY,
  IXGBE_QUEUE_MASK,
} from '../../spec/ixgbe.ts';
import { R } from './registers.ts';

const { FDIRCTRL, FDIRCMD, FDIRHASH, FDIRIPSA, FDIRIPDA, FDIRPORT, FDIRVLAN, FDIRM } = R;
const { FDIRSIP4M, FDIRDIP4M, FDIRTCPM, FDIRUDPM, FDIRSCTPM, FDIRMATCH, FDIRMISS, FDIRFREE } = R;

/** As many as 64 KiB of packet buffer hold (§7.1.2.7.5), which is what there is here. */
const MOST_FILTERS = 2046;
const IPV4_DESTINATION = IPV4_SOURCE + 4;
const IP_PROTOCOL_SCTP = 132;
const ADDRESSES = 12;
const VLAN_ID = 0x0fff;

/** No filter has the frame; or one that wants it dropped. */
export const NO_FLOW = -1;
export const DROPPED_FLOW = -2;

/** Words of what is compared: kind of transport and tag, addresses, ports, the two other bytes. */
const KIND = 0;
const SOURCE = 1;
const DESTINATION = 2;
const PORTS = 3;
const FLEX = 4;
const FLOW_WORDS = 5;
/** Where the tag stands in the first of them. */
const VLAN_SHIFT = 8;

/** Places of the hash table: at most half of them are in use. */
const PLACES = 4096;
const HASH_SHIFT = 32 - 12;
const FREE = -1;

interface Filter {
  readonly flow: Uint32Array;
  readonly queue: number;
}

export class FlowDirector {
  readonly #words: Uint32Array;
  /** By what FDIRHASH had when they were added: a hash and the driver's own number. */
  readonly #filters = new Map<number, Filter>();
  /** The filters as the masks leave them, and for each place of a hash table which of them is there. */
  readonly #rows = new Uint32Array(MOST_FILTERS * FLOW_WORDS);
  readonly #rowQueues = new Int16Array(MOST_FILTERS);
  readonly #places = new Int16Array(PLACES).fill(FREE);
  /** That table is not up to date. */
  #stale = false;
  readonly #flow = new Uint32Array(FLOW_WORDS);
  /** What is not compared of ports, by the kind of transport, as of the last {@link #index}. */
  readonly #portMasks = new Uint32Array(IXGBE_FDIRCMD_L4TYPE + 1);
  readonly #keys: Uint32Array;

  /** @param keys of the hash, two words for each of a flow: no guest is to know them, or it makes all flows collide */
  constructor(words: Uint32Array, keys = randomFillSync(new Uint32Array(2 * FLOW_WORDS))) {
    this.#words = words;
    this.#keys = keys;
  }

  /** Any frame can match something. */
  get any(): boolean {
    return this.#filters.size > 0;
  }

  /** FDIRCTRL is written: the tables are laid out anew, and empty. */
  control(value: number): void {
    this.reset();
    this.#words[FDIRCTRL] = value | IXGBE_FDIRCTRL_INIT_DONE;
    this.#countFree();
  }

  reset(): void {
    this.#filters.clear();
    this.#stale = true;
  }

  /** A mask is written. */
  update(): void {
    this.#stale = true;
  }

  /** FDIRCMD is written: what it asks for is done at once, with what stands in the other registers. */
  command(value: number): void {
    const words = this.#words;
    const key = words[FDIRHASH] as number;
    let result = value & ~(IXGBE_FDIRCMD_COMMAND | IXGBE_FDIRCMD_VALID);
    switch (value & IXGBE_FDIRCMD_COMMAND) {
      case IXGBE_FDIRCMD_ADD:
        this.#add(key, value);
        break;
      case IXGBE_FDIRCMD_REMOVE:
        this.#filters.delete(key);
        break;
      case IXGBE_FDIRCMD_QUERY:
        if (this.#filters.has(key)) result |= IXGBE_FDIRCMD_VALID;
        break;
      default:
        break;
    }
    this.#stale = true;
    words[FDIRCMD] = result;
    this.#countFree();
  }

  /**
   * The queue for a frame whose first `length` bytes are at `at`, {@link NO_FLOW} or {@link DROPPED_FLOW}.
   * `tci` is its tag, 0 without one.
   */
  match(bytes: Uint8Array, at: number, length: number, tci: number): number {
    if (this.#stale) this.#index();
    const network = networkOffset(bytes, at, length);
    const isIpv4 =
      network >= 0 &&
      read16(bytes, at + network - 2) === ETHERTYPE_IPV4 &&
      length >= network + IPV4_MIN_HEADER_BYTES;
    if (!isIpv4) return NO_FLOW;
    const ip = at + network;
    const header = 4 * ((bytes[ip] as number) & 0xf);
    const fragment = read16(bytes, ip + IPV4_FRAGMENT);
    const isWhole = (fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET_MASK)) === 0;
    const l4 = isWhole ? l4Type(bytes[ip + IPV4_PROTOCOL] as number) : 0;
    const hasPorts = l4 !== 0 && length >= network + header + 4;
    // The tag may stand in the frame, too.
    const inner = network > ADDRESSES + 2 ? read16(bytes, at + ADDRESSES + 2) : 0;
    const flexAt =
      2 * (((this.#words[FDIRCTRL] as number) >>> IXGBE_FDIRCTRL_FLEX_SHIFT) & IXGBE_FDIRCTRL_FLEX);
    const flow = this.#flow;
    flow[KIND] = l4 | ((tci === 0 ? inner : tci) << VLAN_SHIFT);
    flow[SOURCE] = read32le(bytes, ip + IPV4_SOURCE);
    flow[DESTINATION] = read32le(bytes, ip + IPV4_DESTINATION);
    const transport = ip + header;
    flow[PORTS] = hasPorts ? read16(bytes, transport) | (read16(bytes, transport + 2) << 16) : 0;
    flow[FLEX] = flexAt + 2 <= length ? read16(bytes, at + flexAt) : 0;
    this.#mask(flow);
    const row = this.#places[this.#place(flow)] as number;
    const counter = row === FREE ? FDIRMISS : FDIRMATCH;
    this.#words[counter] = (this.#words[counter] as number) + 1;
    return row === FREE ? NO_FLOW : (this.#rowQueues[row] as number);
  }

  #add(key: number, command: number): void {
    const words = this.#words;
    const isPerfect = ((words[FDIRCTRL] as number) & IXGBE_FDIRCTRL_PERFECT) !== 0;
    if (!isPerfect || (command & IXGBE_FDIRCMD_IPV6) !== 0) return;
    if (this.#filters.size >= MOST_FILTERS && !this.#filters.has(key)) return;
    const queue = (command >>> IXGBE_FDIRCMD_QUEUE_SHIFT) & IXGBE_QUEUE_MASK;
    const l4 = (command >>> IXGBE_FDIRCMD_L4_SHIFT) & IXGBE_FDIRCMD_L4TYPE;
    const vlan = words[FDIRVLAN] as number;
    const flow = Uint32Array.of(
      l4 | ((vlan & 0xffff) << VLAN_SHIFT),
      words[FDIRIPSA] as number,
      words[FDIRIPDA] as number,
      words[FDIRPORT] as number,
      vlan >>> 16,
    );
    this.#filters.set(key, {
      flow,
      queue: (command & IXGBE_FDIRCMD_DROP) !== 0 ? DROPPED_FLOW : queue,
    });
  }

  #index(): void {
    const { length } = this.#flow;
    const masked = new Uint32Array(length);
    this.#places.fill(FREE);
    for (let l4 = 0; l4 <= IXGBE_FDIRCMD_L4TYPE; l4++) this.#portMasks[l4] = this.#portMask(l4);
    let rows = 0;
    for (const { flow, queue } of this.#filters.values()) {
      masked.set(flow);
      this.#mask(masked);
      const place = this.#place(masked);
      // Of filters that are alike under the masks, the one that was first goes on.
      if (this.#places[place] !== FREE) continue;
      this.#rows.set(masked, rows * FLOW_WORDS);
      this.#rowQueues[rows] = queue;
      this.#places[place] = rows++;
    }
    this.#stale = false;
  }

  /** The place of a masked flow, or the free one where it would be. */
  #place(flow: Uint32Array): number {
    // Multilinear, with factors of 16 bits: few flows collide, whichever a guest chooses.
    const keys = this.#keys;
    let hash = 0;
    for (let i = 0; i < FLOW_WORDS; i++) {
      const word = flow[i] as number;
      hash = (hash + Math.imul(keys[2 * i] as number, word & 0xffff)) | 0;
      hash = (hash + Math.imul(keys[2 * i + 1] as number, word >>> 16)) | 0;
    }
    let place = hash >>> HASH_SHIFT;
    for (;;) {
      const row = this.#places[place] as number;
      if (row === FREE || this.#isRow(row * FLOW_WORDS, flow)) return place;
      place = (place + 1) & (PLACES - 1);
    }
  }

  #isRow(at: number, flow: Uint32Array): boolean {
    for (let i = 0; i < FLOW_WORDS; i++) if (this.#rows[at + i] !== flow[i]) return false;
    return true;
  }

  /** Takes out of a flow what is not compared (§8.2.3.21: bits of masks that are set). */
  #mask(flow: Uint32Array): void {
    const words = this.#words;
    const mask = words[FDIRM] as number;
    const kind = flow[KIND] as number;
    const l4 = kind & IXGBE_FDIRCMD_L4TYPE;
    let vlan = kind >>> VLAN_SHIFT;
    if ((mask & IXGBE_FDIRM_VLAN_ID) !== 0) vlan &= ~VLAN_ID;
    if ((mask & IXGBE_FDIRM_VLAN_PRIORITY) !== 0) vlan &= VLAN_ID;
    flow[KIND] = ((mask & IXGBE_FDIRM_L4) !== 0 ? 0 : l4) | (vlan << VLAN_SHIFT);
    flow[SOURCE] = (flow[SOURCE] as number) & ~(words[FDIRSIP4M] as number);
    flow[DESTINATION] = (flow[DESTINATION] as number) & ~(words[FDIRDIP4M] as number);
    flow[PORTS] = (flow[PORTS] as number) & ~(this.#portMasks[l4] as number);
    if ((mask & IXGBE_FDIRM_FLEX) !== 0) flow[FLEX] = 0;
  }

  /** Masks of ports stand with the bits of each port in reverse order (§8.2.3.21.15). */
  #portMask(l4: number): number {
    const words = this.#words;
    switch (l4) {
      case IXGBE_FDIRCMD_L4_TCP:
        return reverseHalves(words[FDIRTCPM] as number);
      case IXGBE_FDIRCMD_L4_UDP:
        return reverseHalves(words[FDIRUDPM] as number);
      case IXGBE_FDIRCMD_L4_SCTP:
        return reverseHalves(words[FDIRSCTPM] as number);
      default:
        return 0xffff_ffff;
    }
  }

  #countFree(): void {
    this.#words[FDIRFREE] = MOST_FILTERS - this.#filters.size;
  }
}

function l4Type(protocol: number): number {
  if (protocol === IP_PROTOCOL_TCP) return IXGBE_FDIRCMD_L4_TCP;
  if (protocol === IP_PROTOCOL_UDP) return IXGBE_FDIRCMD_L4_UDP;
  return protocol === IP_PROTOCOL_SCTP ? IXGBE_FDIRCMD_L4_SCTP : 0;
}

function reverseHalves(value: number): number {
  let result = 0;
  for (let bit = 0; bit < 32; bit++) {
    if (((value >>> bit) & 1) !== 0) result |= 1 << ((bit & 16) + 15 - (bit & 15));
  }
  return result;
}
