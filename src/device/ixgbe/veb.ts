/**
 * The switch inside the card (virtual Ethernet bridge, §7.10.3): to which pools a frame goes, and
 * whether it goes to the wire, by address, VLAN, multicast hash, broadcast, promiscuous modes and
 * mirroring rules; and which addresses and VLANs a pool may send from.
 *
 * Tables have the size of the hardware's: 128 addresses (RAL, RAH, MPSAR), 64 VLANs that guests ask for
 * (PFVLVF), four mirroring rules (PFMRCTL). Sets of pools are two 32-bit words in flat arrays. What a unicast frame
 * costs does not depend on how many pools there are. Nothing is allocated but by changes of the tables.
 */
import { randomFillSync } from 'node:crypto';
import { VLAN_IDS } from '../../spec/ethernet.ts';
import { IXGBE_POOLS, IXGBE_RECEIVE_ADDRESSES } from '../../spec/ixgbe.ts';

/** The wire: as a frame's source, and as what {@link Veb.route} returns if it goes there only. */
export const WIRE = IXGBE_POOLS;
/** It goes to the pools in {@link Veb.targets}, and to the wire if {@link Veb.toWire}. */
export const MANY = IXGBE_POOLS + 1;
export const NOBODY = -1;

/** VLANs that guests can ask for, as PFVLVF has entries; and as many more for the ports' own. */
export const VEB_VLANS = 64;
const VLAN_ENTRIES = 2 * VEB_VLANS;
export const VEB_MIRRORS = 4;
/** Buckets of the multicast table. */
const MULTICAST_BUCKETS = 4096;
/** Bits 47:36 of the address, as MCSTCTRL.MO 0 has it (§8.2.3.7.3), out of its high number. */
const MULTICAST_SHIFT = 4;
/** Places of the hash table: at most half of them are in use. */
const PLACES = 2 * IXGBE_RECEIVE_ADDRESSES;
const PLACE_MASK = PLACES - 1;
const HASH_SHIFT = 24;
const FREE = 0;

/** What a pool lets in, and what it is checked for. */
export type PoolFlag =
  /** It receives at all (PFVFRE). */
  | 'receive'
  /** Frames without tag (PFVML2FLT.AUPE). */
  | 'untagged'
  /** Broadcasts (BAM). */
  | 'broadcast'
  /** The multicast hashes of its list (ROMPE). */
  | 'multicast'
  /** All multicasts (MPE). */
  | 'allMulticast'
  /** All unicasts of its VLANs. The 82599 has it for the physical function, its successors as UPE. */
  | 'promiscuous'
  /** Sources are checked (PFVFSPOOF): MAC address, VLAN. */
  | 'checkMac'
  | 'checkVlan';

const FLAGS: readonly PoolFlag[] = [
  'receive',
  'untagged',
  'broadcast',
  'multicast',
  'allMulticast',
  'promiscuous',
  'checkMac',
  'checkVlan',
];

/** Which traffic a mirroring rule copies (§7.10.3.8), and to which pool. */
export interface MirrorRule {
  /** What these pools receive. */
  readonly pools?: readonly number[];
  /** What comes from the wire; what goes there. */
  readonly uplink?: boolean;
  readonly downlink?: boolean;
  /** What is of these VLANs; 0: of none. */
  readonly vlans?: readonly number[];
  readonly to: number;
}

/** A mirroring rule as it is looked at. */
interface Mirror {
  readonly low: number;
  readonly high: number;
  readonly uplink: boolean;
  readonly downlink: boolean;
  readonly vlans: Uint8Array;
  readonly to: number;
}

export class Veb {
  /** After {@link MANY}: pools 0 to 31, and 32 to 63. */
  readonly targets = new Uint32Array(2);
  /** After {@link MANY}: the frame goes to the wire too. */
  toWire = false;
  /** Changes whenever {@link route} and the checks may answer otherwise than before. */
  generation = 0;
  /** Two words a flag: the pools that have it. */
  readonly #receive = new Uint32Array(2);
  readonly #untagged = new Uint32Array(2);
  readonly #broadcast = new Uint32Array(2);
  readonly #multicast = new Uint32Array(2);
  readonly #allMulticast = new Uint32Array(2);
  readonly #promiscuous = new Uint32Array(2);
  readonly #checkMac = new Uint32Array(2);
  readonly #checkVlan = new Uint32Array(2);
  /** Addresses: two words each (signed: small integers for the engine), and the pools that have them. */
  readonly #addresses = new Int32Array(2 * IXGBE_RECEIVE_ADDRESSES);
  readonly #addressPools = new Uint32Array(2 * IXGBE_RECEIVE_ADDRESSES);
  /** Hash table: index of an address and one more, or {@link FREE}. */
  readonly #places = new Uint8Array(PLACES);
  readonly #seed: number;
  /** Index of a VLAN's entry and one more; VLANs of entries (0: free) and their pools. */
  readonly #vlanIndex = new Uint8Array(VLAN_IDS);
  readonly #vlans = new Uint16Array(VLAN_ENTRIES);
  readonly #vlanPools = new Uint32Array(2 * VLAN_ENTRIES);
  #vlanCount = 0;
  readonly #multicastPools = new Uint32Array(2 * MULTICAST_BUCKETS);
  /** The buckets of each pool. */
  readonly #multicastLists: number[][] = Array.from({ length: IXGBE_POOLS }, () => []);
  readonly #mirrors: (Mirror | undefined)[] = new Array(VEB_MIRRORS).fill(undefined);
  #mirroring = false;

  constructor(seed = randomFillSync(new Uint32Array(1))[0] as number) {
    this.#seed = seed;
  }

  // Frames

  /**
   * Where a frame goes: one pool's number, {@link WIRE}, {@link MANY} or {@link NOBODY}. `from` is the pool
   * that sent it, or WIRE; the destination stands in the numbers of `net/mac.ts`, the low one signed or not
   * (as a signed one it is not allocated for the call); `vlan` is 0 for a frame without tag or with a
   * priority only.
   */
  route(from: number, low: number, high: number, vlan: number): number {
    const entry = vlan === 0 ? -1 : (this.#vlanIndex[vlan] as number) - 1;
    if (vlan !== 0 && entry < 0) {
      // Of no pool's VLANs. Rules may still copy it.
      return this.#mirroring ? this.#ending(from, vlan, 0, 0, true) : from === WIRE ? NOBODY : WIRE;
    }
    const members = entry < 0 ? this.#untagged : this.#vlanPools;
    const at = entry < 0 ? 0 : 2 * entry;
    let first = members[at] as number;
    let second = members[at + 1] as number;
    // Not back to the sender (§7.10.3.4).
    if (from < 32) first &= ~(1 << from);
    else if (from < WIRE) second &= ~(1 << from);
    let toWire = true;
    if ((low & 1) === 0) {
      const index = this.#find(low, high);
      let exactFirst = 0;
      let exactSecond = 0;
      if (index >= 0) {
        exactFirst = first & (this.#addressPools[2 * index] as number);
        exactSecond = second & (this.#addressPools[2 * index + 1] as number);
        toWire = (exactFirst | exactSecond) === 0;
      }
      first &= exactFirst | (this.#promiscuous[0] as number);
      second &= exactSecond | (this.#promiscuous[1] as number);
    } else if ((low | 0) === -1 && high === 0xffff) {
      first &= this.#broadcast[0] as number;
      second &= this.#broadcast[1] as number;
    } else {
      const bucket = 2 * ((high >>> MULTICAST_SHIFT) & (MULTICAST_BUCKETS - 1));
      const hashed = this.#multicastPools;
      first &=
        ((hashed[bucket] as number) & (this.#multicast[0] as number)) |
        (this.#allMulticast[0] as number);
      second &=
        ((hashed[bucket + 1] as number) & (this.#multicast[1] as number)) |
        (this.#allMulticast[1] as number);
    }
    return this.#ending(from, vlan, first, second, toWire);
  }

  /** Whether a pool may send from this address. */
  allowsSource(pool: number, low: number, high: number): boolean {
    if (!has(this.#checkMac, 0, pool)) return true;
    const index = this.#find(low, high);
    return index >= 0 && has(this.#addressPools, 2 * index, pool);
  }

  /** Whether a pool may send in this VLAN; 0 is no tag. */
  allowsVlan(pool: number, vlan: number): boolean {
    return !has(this.#checkVlan, 0, pool) || this.inVlan(pool, vlan);
  }

  // Tables

  setFlag(pool: number, flag: PoolFlag, on: boolean): void {
    put(this.#flag(flag), 0, pool, on);
    this.generation++;
  }

  flag(pool: number, flag: PoolFlag): boolean {
    return has(this.#flag(flag), 0, pool);
  }

  /** Gives a pool an address. False if the table is full. */
  addAddress(low: number, high: number, pool: number): boolean {
    let index = this.#find(low, high);
    if (index < 0) {
      index = this.#freeAddress();
      if (index < 0) return false;
      this.#addresses[2 * index] = low;
      this.#addresses[2 * index + 1] = high;
      put(this.#addressPools, 2 * index, pool, true);
      this.#insert(index);
    } else {
      put(this.#addressPools, 2 * index, pool, true);
    }
    this.generation++;
    return true;
  }

  removeAddress(low: number, high: number, pool: number): void {
    const index = this.#find(low, high);
    if (index < 0) return;
    put(this.#addressPools, 2 * index, pool, false);
    this.#rehash();
    this.generation++;
  }

  /** Addresses in use, of {@link IXGBE_RECEIVE_ADDRESSES}. */
  get addressCount(): number {
    let count = 0;
    for (let i = 0; i < IXGBE_RECEIVE_ADDRESSES; i++) if (this.#addressInUse(i)) count++;
    return count;
  }

  /**
   * Lets a pool into a VLAN, 1 to 4095. False if the table is full; for the one VLAN of a pool's port
   * (`reserved`) it never is, whatever guests have asked for.
   */
  addVlan(vlan: number, pool: number, reserved = false): boolean {
    let entry = (this.#vlanIndex[vlan] as number) - 1;
    if (entry < 0) {
      if (this.#vlanCount >= (reserved ? VLAN_ENTRIES : VEB_VLANS)) return false;
      entry = this.#vlans.indexOf(0);
      this.#vlanCount++;
      this.#vlans[entry] = vlan;
      this.#vlanIndex[vlan] = entry + 1;
    }
    put(this.#vlanPools, 2 * entry, pool, true);
    this.generation++;
    return true;
  }

  removeVlan(vlan: number, pool: number): void {
    const entry = (this.#vlanIndex[vlan] as number) - 1;
    if (entry < 0) return;
    put(this.#vlanPools, 2 * entry, pool, false);
    if (
      ((this.#vlanPools[2 * entry] as number) | (this.#vlanPools[2 * entry + 1] as number)) ===
      0
    ) {
      this.#vlans[entry] = 0;
      this.#vlanIndex[vlan] = 0;
      this.#vlanCount--;
    }
    this.generation++;
  }

  /** Whether a pool is in a VLAN; 0: takes frames without tag. */
  inVlan(pool: number, vlan: number): boolean {
    if (vlan === 0) return has(this.#untagged, 0, pool);
    const entry = (this.#vlanIndex[vlan] as number) - 1;
    return entry >= 0 && has(this.#vlanPools, 2 * entry, pool);
  }

  /** The VLANs of a pool, ascending. */
  vlansOf(pool: number): number[] {
    return Array.from(this.#vlans)
      .filter((vlan, entry) => vlan !== 0 && has(this.#vlanPools, 2 * entry, pool))
      .sort((a, b) => a - b);
  }

  /** Adds one multicast hash of twelve bits to a pool's list. */
  addMulticast(hash: number, pool: number): void {
    const bucket = hash & (MULTICAST_BUCKETS - 1);
    if (has(this.#multicastPools, 2 * bucket, pool)) return;
    put(this.#multicastPools, 2 * bucket, pool, true);
    this.#multicastLists[pool]?.push(bucket);
    this.generation++;
  }

  clearMulticast(pool: number): void {
    const buckets = this.#multicastLists[pool] ?? [];
    for (const bucket of buckets) put(this.#multicastPools, 2 * bucket, pool, false);
    buckets.length = 0;
    this.generation++;
  }

  /** Takes everything of a pool out of the tables. */
  clearPool(pool: number): void {
    for (const flag of FLAGS) put(this.#flag(flag), 0, pool, false);
    for (let i = 0; i < IXGBE_RECEIVE_ADDRESSES; i++) put(this.#addressPools, 2 * i, pool, false);
    this.#rehash();
    for (const vlan of this.vlansOf(pool)) this.removeVlan(vlan, pool);
    this.clearMulticast(pool);
  }

  /** Sets or ends one of the four mirroring rules. */
  setMirror(index: number, rule: MirrorRule | undefined): void {
    this.#mirrors[index] = rule === undefined ? undefined : compile(rule);
    this.#mirroring = this.#mirrors.some((mirror) => mirror !== undefined);
    this.generation++;
  }

  #flag(flag: PoolFlag): Uint32Array {
    switch (flag) {
      case 'receive':
        return this.#receive;
      case 'untagged':
        return this.#untagged;
      case 'broadcast':
        return this.#broadcast;
      case 'multicast':
        return this.#multicast;
      case 'allMulticast':
        return this.#allMulticast;
      case 'promiscuous':
        return this.#promiscuous;
      case 'checkMac':
        return this.#checkMac;
      case 'checkVlan':
        return this.#checkVlan;
    }
  }

  /** The answer for a frame that these pools get, before those that do not receive are left out. */
  #ending(from: number, vlan: number, first: number, second: number, toWire: boolean): number {
    const wire = toWire && from !== WIRE;
    let low = first;
    let high = second;
    if (this.#mirroring) {
      const mirrors = this.#mirrors;
      for (let i = 0; i < VEB_MIRRORS; i++) {
        const mirror = mirrors[i];
        if (mirror === undefined || mirror.to === from) continue;
        const copied =
          ((first & mirror.low) | (second & mirror.high)) !== 0 ||
          (mirror.uplink && from === WIRE) ||
          (mirror.downlink && wire) ||
          ((mirror.vlans[vlan >> 3] as number) & (1 << (vlan & 7))) !== 0;
        if (!copied) continue;
        if (mirror.to < 32) low |= 1 << mirror.to;
        else high |= 1 << mirror.to;
      }
    }
    low &= this.#receive[0] as number;
    high &= this.#receive[1] as number;
    if ((low | high) === 0) return wire ? WIRE : NOBODY;
    if (!wire) {
      if (high === 0 && (low & (low - 1)) === 0) return 31 - Math.clz32(low);
      if (low === 0 && (high & (high - 1)) === 0) return 63 - Math.clz32(high);
    }
    this.targets[0] = low;
    this.targets[1] = high;
    this.toWire = wire;
    return MANY;
  }

  #hash(low: number, high: number): number {
    let hash = Math.imul(low ^ this.#seed, 0x9e37_79b1);
    hash = Math.imul(hash ^ (hash >>> 15) ^ high, 0x85eb_ca77);
    return (hash ^ (hash >>> 13)) >>> HASH_SHIFT;
  }

  /** Index of an address, or -1. */
  #find(low: number, high: number): number {
    const places = this.#places;
    const addresses = this.#addresses;
    const wanted = low | 0;
    let place = this.#hash(wanted, high);
    for (;;) {
      const index = (places[place] as number) - 1;
      if (index < 0) return -1;
      if (addresses[2 * index] === wanted && addresses[2 * index + 1] === high) return index;
      place = (place + 1) & PLACE_MASK;
    }
  }

  #addressInUse(index: number): boolean {
    const pools = this.#addressPools;
    return ((pools[2 * index] as number) | (pools[2 * index + 1] as number)) !== 0;
  }

  #freeAddress(): number {
    for (let i = 0; i < IXGBE_RECEIVE_ADDRESSES; i++) if (!this.#addressInUse(i)) return i;
    return -1;
  }

  #insert(index: number): void {
    const places = this.#places;
    const low = this.#addresses[2 * index] as number;
    let place = this.#hash(low, this.#addresses[2 * index + 1] as number);
    while (places[place] !== FREE) place = (place + 1) & PLACE_MASK;
    places[place] = index + 1;
  }

  /** After an entry has gone: those behind it may have to move up. */
  #rehash(): void {
    this.#places.fill(FREE);
    for (let i = 0; i < IXGBE_RECEIVE_ADDRESSES; i++) if (this.#addressInUse(i)) this.#insert(i);
  }
}

function has(sets: Uint32Array, at: number, pool: number): boolean {
  return (((sets[at + (pool >>> 5)] as number) >>> (pool & 31)) & 1) !== 0;
}

function put(sets: Uint32Array, at: number, pool: number, on: boolean): void {
  const word = at + (pool >>> 5);
  const bit = 1 << (pool & 31);
  sets[word] = on ? (sets[word] as number) | bit : (sets[word] as number) & ~bit;
}

function compile(rule: MirrorRule): Mirror {
  const pools = new Uint32Array(2);
  for (const pool of rule.pools ?? []) put(pools, 0, pool, true);
  const vlans = new Uint8Array(VLAN_IDS / 8);
  for (const vlan of rule.vlans ?? []) {
    vlans[vlan >> 3] = (vlans[vlan >> 3] as number) | (1 << (vlan & 7));
  }
  return {
    low: (pools[0] as number) | 0,
    high: (pools[1] as number) | 0,
    uplink: rule.uplink === true,
    downlink: rule.downlink === true,
    vlans,
    to: rule.to,
  };
}
