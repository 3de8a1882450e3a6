/**
 * Receive side scaling (§7.1.2.8): the Toeplitz hash of a frame's addresses and ports, and the queue
 * that the redirection table has for it.
 */
import { WINDOW_BYTES } from '../../memory/arena.ts';
import { Slab } from '../../memory/slab.ts';
import type { DataPath } from '../../net/data-path.ts';
import { networkOffset, read16 } from '../../net/frame.ts';
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  IP_PROTOCOL_TCP,
  IP_PROTOCOL_UDP,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET_MASK,
  IPV4_MIN_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV6_HEADER_BYTES,
  IPV6_NEXT_HEADER,
  IPV6_SOURCE,
} from '../../spec/ethernet.ts';
import {
  IXGBE_MRQC_IPV4,
  IXGBE_MRQC_IPV4_TCP,
  IXGBE_MRQC_IPV4_UDP,
  IXGBE_MRQC_IPV6,
  IXGBE_MRQC_IPV6_TCP,
  IXGBE_MRQC_IPV6_UDP,
} from '../../spec/ixgbe.ts';
import {
  IXGBE_RXD_RSS_IPV4,
  IXGBE_RXD_RSS_IPV4_TCP,
  IXGBE_RXD_RSS_IPV4_UDP,
  IXGBE_RXD_RSS_IPV6,
  IXGBE_RXD_RSS_IPV6_TCP,
  IXGBE_RXD_RSS_IPV6_UDP,
  IXGBE_RXD_RSS_NONE,
} from '../../spec/ixgbe-descriptors.ts';

/** The longest input: two IPv6 addresses and two ports. */
const INPUT_BYTES = 36;
const IPV4_ADDRESSES = 8;
const IPV6_ADDRESSES = 32;
const PORTS = 4;

const TABLE_WORDS = INPUT_BYTES * 256;

/** Tables of a lane: WebAssembly hashes by them too. */
const slabs = new WeakMap<DataPath, Slab>();

export class Rss {
  /** Arena address of the table: what each value of each byte of the input adds to the hash. */
  readonly tableAt: number;
  readonly #table: Uint32Array;
  readonly #slab: Slab;
  /** The hash of the last frame: in a typed array, since it is no small integer. */
  readonly hash = new Uint32Array(1);

  constructor(path: DataPath) {
    const { arena } = path;
    const slab = slabs.get(path) ?? new Slab(arena, 4 * TABLE_WORDS, 'sluice-rss');
    slabs.set(path, slab);
    this.#slab = slab;
    this.tableAt = slab.take();
    this.#table = new Uint32Array(arena.buffer, this.tableAt, TABLE_WORDS);
    this.#table.fill(0);
  }

  /** Gives its memory back. */
  release(): void {
    this.#slab.give(this.tableAt);
  }

  /** WebAssembly reaches the table. */
  get isNear(): boolean {
    return this.tableAt + 4 * TABLE_WORDS <= WINDOW_BYTES;
  }

  /** The key of ten words as they stand in RSSRK: the first byte is the lowest of a word. */
  setKey(words: Uint32Array, at = 0): void {
    const bit = (index: number): number =>
      ((words[at + (index >>> 5)] as number) >>> (8 * ((index >>> 3) & 3) + 7 - (index & 7))) & 1;
    for (let byte = 0; byte < INPUT_BYTES; byte++) {
      const base = byte * 256;
      for (let i = 0; i < 8; i++) {
        // The 32 bits of the key that begin at this bit of the input.
        let window = 0;
        for (let k = 0; k < 32; k++) window = (window << 1) | bit(8 * byte + i + k);
        this.#table[base + (0x80 >>> i)] = window;
      }
      this.#combine(base);
    }
  }

  /**
   * Hashes a frame whose first `length` bytes begin at `at`, as far as `control` (MRQC) asks for it.
   * Returns its RSS type, one of IXGBE_RXD_RSS_*; {@link hash} is its hash, 0 with type none.
   */
  classify(bytes: Uint8Array, at: number, length: number, control: number): number {
    this.hash[0] = 0;
    const network = networkOffset(bytes, at, length);
    if (network < 0) return IXGBE_RXD_RSS_NONE;
    const ip = at + network;
    const type = read16(bytes, ip - 2);
    const left = length - network;
    if (type === ETHERTYPE_IPV4 && left >= IPV4_MIN_HEADER_BYTES) {
      return this.#ipv4(bytes, ip, left, control);
    }
    if (type === ETHERTYPE_IPV6 && left >= IPV6_HEADER_BYTES) {
      return this.#ipv6(bytes, ip, left, control);
    }
    return IXGBE_RXD_RSS_NONE;
  }

  #ipv4(bytes: Uint8Array, ip: number, left: number, control: number): number {
    const header = 4 * ((bytes[ip] as number) & 0xf);
    const fragment = read16(bytes, ip + IPV4_FRAGMENT);
    const whole = (fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET_MASK)) === 0;
    if (whole && header >= IPV4_MIN_HEADER_BYTES && header + PORTS <= left) {
      const protocol = bytes[ip + IPV4_PROTOCOL] as number;
      const tcp = protocol === IP_PROTOCOL_TCP && (control & IXGBE_MRQC_IPV4_TCP) !== 0;
      const udp = protocol === IP_PROTOCOL_UDP && (control & IXGBE_MRQC_IPV4_UDP) !== 0;
      if (tcp || udp) {
        this.#add(bytes, ip + IPV4_SOURCE, IPV4_ADDRESSES, 0);
        this.#add(bytes, ip + header, PORTS, IPV4_ADDRESSES);
        return tcp ? IXGBE_RXD_RSS_IPV4_TCP : IXGBE_RXD_RSS_IPV4_UDP;
      }
    }
    if ((control & IXGBE_MRQC_IPV4) === 0) return IXGBE_RXD_RSS_NONE;
    this.#add(bytes, ip + IPV4_SOURCE, IPV4_ADDRESSES, 0);
    return IXGBE_RXD_RSS_IPV4;
  }

  #ipv6(bytes: Uint8Array, ip: number, left: number, control: number): number {
    const protocol = bytes[ip + IPV6_NEXT_HEADER] as number;
    const tcp = protocol === IP_PROTOCOL_TCP && (control & IXGBE_MRQC_IPV6_TCP) !== 0;
    const udp = protocol === IP_PROTOCOL_UDP && (control & IXGBE_MRQC_IPV6_UDP) !== 0;
    if ((tcp || udp) && IPV6_HEADER_BYTES + PORTS <= left) {
      this.#add(bytes, ip + IPV6_SOURCE, IPV6_ADDRESSES, 0);
      this.#add(bytes, ip + IPV6_HEADER_BYTES, PORTS, IPV6_ADDRESSES);
      return tcp ? IXGBE_RXD_RSS_IPV6_TCP : IXGBE_RXD_RSS_IPV6_UDP;
    }
    if ((control & IXGBE_MRQC_IPV6) === 0) return IXGBE_RXD_RSS_NONE;
    this.#add(bytes, ip + IPV6_SOURCE, IPV6_ADDRESSES, 0);
    return IXGBE_RXD_RSS_IPV6;
  }

  /** Bytes of a frame, which are the hash's input from byte `from` on. */
  #add(bytes: Uint8Array, at: number, count: number, from: number): void {
    const table = this.#table;
    let hash = this.hash[0] as number;
    for (let i = 0; i < count; i++) {
      hash ^= table[(from + i) * 256 + (bytes[at + i] as number)] as number;
    }
    this.hash[0] = hash;
  }

  /** From the values of one bit to those of all. */
  #combine(base: number): void {
    const table = this.#table;
    table[base] = 0;
    for (let v = 1; v < 256; v++) {
      const lowest = v & -v;
      if (lowest === v) continue;
      table[base + v] = (table[base + lowest] as number) ^ (table[base + (v ^ lowest)] as number);
    }
  }
}

/** The queue that the table at `at` (RETA: four entries a word, four bits each) has for a hash. */
export function rssQueue(words: Uint32Array, at: number, hash: number): number {
  return ((words[at + ((hash >>> 2) & 31)] as number) >>> (8 * (hash & 3))) & 0xf;
}
