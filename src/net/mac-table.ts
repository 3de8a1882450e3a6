/**
 * Which port a station is behind: MAC address and VLAN to port index (IEEE 802.1Q §8.8, the
 * filtering database).
 *
 * The table is a row of buckets of eight entries, a cache line of keys each; a key can stand in
 * one bucket only, so that no lookup takes more than eight comparisons, whatever a guest sends.
 * The hash is seeded at random. A port may hold a bounded share of the entries, and a port that
 * needs room gives up its own entries first: a guest that makes addresses up displaces its own.
 */
import { randomFillSync } from 'node:crypto';
import { isPowerOfTwo } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import { formatMacPair, isMulticastLow } from './mac.ts';

/** Entries of a bucket: a key is 8 bytes, a cache line 64. */
const WAYS = 8;
/** Places for each entry that the table may hold: overfull buckets stay rare. */
const SPREAD = 4;
const FREE = -1;

export const DEFAULT_MAC_ENTRIES = 8192;
/** Seconds after which a station that was not heard of is forgotten (802.1Q table 8-6). */
export const DEFAULT_AGEING_S = 300;
const DEFAULT_PORTS = 256;
/** Part of the entries that one port may hold unless told. */
const DEFAULT_SHARE = 1 / 4;

export interface MacTableOptions {
  /** Most entries, a power of two. */
  readonly entries?: number;
  /** Seconds until an entry that is not refreshed is forgotten. */
  readonly ageing?: number;
  /** Ports are numbered 0 … ports - 1. */
  readonly ports?: number;
  /** Most learned entries of one port. */
  readonly entriesPerPort?: number;
  /** Seed of the hash; random unless a test needs repeatable buckets. */
  readonly seed?: number;
}

/** One row of {@link MacTable.list}. */
export interface MacEntry {
  readonly mac: string;
  readonly vlan: number;
  readonly port: number;
  readonly static: boolean;
  /** Nanoseconds since the station was last heard; 0 for static entries. */
  readonly age: number;
}

/** What {@link MacTable.learn} did. */
export const LEARN_KNOWN = 0;
export const LEARN_NEW = 1;
/** The station was behind another port before. */
export const LEARN_MOVED = 2;
/** Nothing: a multicast source, a static entry of another port, or no room. */
export const LEARN_REFUSED = 3;

export class MacTable {
  readonly maxEntries: number;
  readonly entriesPerPort: number;
  readonly ageingNs: number;
  /** Changes whenever any lookup may give another answer than before. */
  generation = 0;
  /** Entries in use. */
  count = 0;
  /** Learned entries that were replaced although they had not aged. */
  replaced = 0;
  /** Stations that were not learned for want of room. */
  refused = 0;
  /** Stations that changed their port. */
  moved = 0;
  /** Learned entries by port. */
  readonly learnedBy: Uint32Array;
  readonly #bucketMask: number;
  readonly #seed: number;
  /** Two words an entry: the address's low number; its high number, with the VLAN above. */
  readonly #keys: Uint32Array;
  readonly #ports: Int16Array;
  readonly #static: Uint8Array;
  /** When each station was last heard, in ns. */
  readonly #heard: Float64Array;
  /** Where the search for something to replace goes on. */
  #hand = 0;

  constructor(options: MacTableOptions = {}) {
    this.maxEntries = options.entries ?? DEFAULT_MAC_ENTRIES;
    const ports = options.ports ?? DEFAULT_PORTS;
    if (!isPowerOfTwo(this.maxEntries) || this.maxEntries < WAYS) {
      throw new SluiceError('config', `a MAC table of ${this.maxEntries} entries`, {
        remedy: `choose a power of two from ${WAYS} on`,
      });
    }
    this.entriesPerPort =
      options.entriesPerPort ?? Math.max(WAYS, Math.floor(this.maxEntries * DEFAULT_SHARE));
    this.ageingNs = (options.ageing ?? DEFAULT_AGEING_S) * 1e9;
    this.learnedBy = new Uint32Array(ports);
    const places = this.maxEntries * SPREAD;
    this.#bucketMask = places / WAYS - 1;
    this.#seed = options.seed ?? (randomFillSync(new Uint32Array(1))[0] as number);
    this.#keys = new Uint32Array(2 * places);
    this.#ports = new Int16Array(places).fill(FREE);
    this.#static = new Uint8Array(places);
    this.#heard = new Float64Array(places);
  }

  /** The port behind which a station is, or -1 if that is not known. */
  lookup(low: number, high: number, vlan: number): number {
    const place = this.#find(low, high | (vlan << 16));
    return place === FREE ? FREE : (this.#ports[place] as number);
  }

  /**
   * A frame from this source came in by `port` at `now` (ns). Returns one of LEARN_*.
   * Never throws, never allocates, looks at no more than a bounded number of entries.
   */
  learn(low: number, high: number, vlan: number, port: number, now: number): number {
    if (isMulticastLow(low)) return LEARN_REFUSED;
    const key = high | (vlan << 16);
    const place = this.#find(low, key);
    if (place === FREE) return this.#learnNew(low, key, port, now);
    const old = this.#ports[place] as number;
    if (old === port) {
      this.#heard[place] = now;
      return LEARN_KNOWN;
    }
    if (this.#static[place] !== 0) return LEARN_REFUSED;
    if ((this.learnedBy[port] as number) >= this.entriesPerPort) {
      this.refused++;
      return LEARN_REFUSED;
    }
    this.learnedBy[old] = (this.learnedBy[old] as number) - 1;
    this.learnedBy[port] = (this.learnedBy[port] as number) + 1;
    this.#ports[place] = port;
    this.#heard[place] = now;
    this.moved++;
    this.generation++;
    return LEARN_MOVED;
  }

  /**
   * A station whose port is known from the configuration: it is never learned elsewhere, never
   * ages and is never replaced. Not for the hot path.
   * @throws SluiceError `state` if there is no room.
   */
  addStatic(low: number, high: number, vlan: number, port: number): void {
    const key = high | (vlan << 16);
    let place = this.#find(low, key);
    if (place !== FREE) this.#release(place);
    place = this.#placeFor(low, key, FREE);
    if (place === FREE || !this.#makeRoom(place)) {
      const text = `no room in the MAC table for ${formatMacPair(low, high)}, VLAN ${vlan}`;
      throw new SluiceError('state', text, { remedy: 'give the switch a larger table' });
    }
    this.#take(place, low, key, port, 0, 1);
  }

  /** Forgets one station, static or not; true if it was known. */
  remove(low: number, high: number, vlan: number): boolean {
    const place = this.#find(low, high | (vlan << 16));
    if (place === FREE) return false;
    this.#release(place);
    return true;
  }

  /** Forgets all stations behind a port, static ones included. Returns how many. */
  removePort(port: number): number {
    const ports = this.#ports;
    let removed = 0;
    for (let place = 0; place < ports.length; place++) {
      if (ports[place] !== port) continue;
      this.#release(place);
      removed++;
    }
    return removed;
  }

  /** Forgets the learned stations that were not heard of for the ageing time. Returns how many. */
  sweep(now: number): number {
    const oldest = now - this.ageingNs;
    const ports = this.#ports;
    let removed = 0;
    for (let place = 0; place < ports.length; place++) {
      if (ports[place] === FREE || this.#static[place] !== 0) continue;
      if ((this.#heard[place] as number) > oldest) continue;
      this.#release(place);
      removed++;
    }
    return removed;
  }

  /** All entries, by port, VLAN and address. */
  list(now: number): MacEntry[] {
    const rows: MacEntry[] = [];
    for (const [place, port] of this.#ports.entries()) {
      if (port === FREE) continue;
      const key = this.#keys[2 * place + 1] as number;
      const fixed = this.#static[place] !== 0;
      rows.push({
        mac: formatMacPair(this.#keys[2 * place] as number, key & 0xffff),
        vlan: key >>> 16,
        port,
        static: fixed,
        age: fixed ? 0 : now - (this.#heard[place] as number),
      });
    }
    return rows.sort(
      (a, b) => a.port - b.port || a.vlan - b.vlan || (a.mac < b.mac ? -1 : a.mac > b.mac ? 1 : 0),
    );
  }

  #bucket(low: number, key: number): number {
    let hash = Math.imul(low ^ this.#seed, 0x9e37_79b1);
    hash = Math.imul(hash ^ (hash >>> 15) ^ key, 0x85eb_ca77);
    hash = Math.imul(hash ^ (hash >>> 13) ^ this.#seed, 0xc2b2_ae3d);
    return ((hash ^ (hash >>> 16)) & this.#bucketMask) * WAYS;
  }

  #find(low: number, key: number): number {
    const keys = this.#keys;
    const wanted = key >>> 0;
    const from = this.#bucket(low, key);
    for (let place = from; place < from + WAYS; place++) {
      if (keys[2 * place] === low && keys[2 * place + 1] === wanted && this.#ports[place] !== FREE)
        return place;
    }
    return FREE;
  }

  #learnNew(low: number, key: number, port: number, now: number): number {
    const limited = (this.learnedBy[port] as number) >= this.entriesPerPort;
    // At its limit a port can only exchange entries of its own, and only within the bucket.
    const place = limited
      ? this.#oldest(this.#bucket(low, key), port)
      : this.#placeFor(low, key, port);
    if (place === FREE || !(limited || this.#makeRoom(place))) {
      this.refused++;
      return LEARN_REFUSED;
    }
    this.#take(place, low, key, port, now, 0);
    return LEARN_NEW;
  }

  /**
   * A free place in the bucket; else the one of the entry to replace: the port's own oldest,
   * else anybody's oldest. FREE if all are static.
   */
  #placeFor(low: number, key: number, port: number): number {
    const from = this.#bucket(low, key);
    for (let place = from; place < from + WAYS; place++) {
      if (this.#ports[place] === FREE) return place;
    }
    const own = this.#oldest(from, port);
    return own === FREE ? this.#oldest(from, FREE) : own;
  }

  /** The learned entry of a bucket that was not heard of for longest: of one port, or (-1) of any. */
  #oldest(from: number, port: number): number {
    let oldest = FREE;
    for (let place = from; place < from + WAYS; place++) {
      const owner = this.#ports[place] as number;
      if (owner === FREE || this.#static[place] !== 0) continue;
      if (port !== FREE && owner !== port) continue;
      if (oldest === FREE || (this.#heard[place] as number) < (this.#heard[oldest] as number))
        oldest = place;
    }
    return oldest;
  }

  /**
   * Keeps the table within its bound when a free place is about to be filled: replaces the oldest
   * learned entry of the next bucket that has one, looking at a bounded number of buckets.
   */
  #makeRoom(place: number): boolean {
    if (this.count < this.maxEntries || this.#ports[place] !== FREE) return true;
    for (let tries = 0; tries < WAYS * SPREAD; tries++) {
      const victim = this.#oldest((this.#hand & this.#bucketMask) * WAYS, FREE);
      this.#hand = (this.#hand + 1) & this.#bucketMask;
      if (victim === FREE) continue;
      this.#release(victim);
      this.replaced++;
      return true;
    }
    return false;
  }

  #take(place: number, low: number, key: number, port: number, now: number, fixed: 0 | 1): void {
    if (this.#ports[place] !== FREE) {
      this.#release(place);
      this.replaced++;
    }
    this.#keys[2 * place] = low;
    this.#keys[2 * place + 1] = key;
    this.#ports[place] = port;
    this.#static[place] = fixed;
    this.#heard[place] = now;
    if (fixed === 0) this.learnedBy[port] = (this.learnedBy[port] as number) + 1;
    this.count++;
    this.generation++;
  }

  #release(place: number): void {
    const port = this.#ports[place] as number;
    if (this.#static[place] === 0) this.learnedBy[port] = (this.learnedBy[port] as number) - 1;
    this.#ports[place] = FREE;
    this.#static[place] = 0;
    this.count--;
    this.generation++;
  }
}
