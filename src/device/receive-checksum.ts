/**
 * Checksums of received frames, verified as silicon does (82540: SDM §3.2.9; 82574: DS §7.1.10; 82599:
 * datasheet §7.1.11).
 */
import type { Burst } from '../net/burst.ts';
import { Checksum, foldSum, swap16 } from '../net/checksum.ts';
import type { DataPath } from '../net/data-path.ts';
import { networkOffset, read16 } from '../net/frame.ts';
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
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER_BYTES,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  UDP_CHECKSUM,
} from '../spec/ethernet.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';

/** What {@link ReceiveChecksum.verify} found, or is asked to look at: the IPv4 header, TCP or UDP. */
export const CHECKED_IP = 0x01;
export const CHECKED_L4 = 0x02;
/** Besides {@link CHECKED_L4}: it is UDP. */
export const CHECKED_UDP = 0x04;
/** The checksum is wrong. */
export const WRONG_IP = 0x10;
export const WRONG_L4 = 0x20;

const ALL_ONES = 0xffff;

/** One summing module for all devices of a lane. */
const shared = new WeakMap<DataPath, Checksum>();

export class ReceiveChecksum {
  readonly #checksum: Checksum;

  constructor(path: DataPath) {
    let checksum = shared.get(path);
    if (checksum === undefined) {
      checksum = new Checksum(path.arena);
      shared.set(path, checksum);
    }
    this.#checksum = checksum;
  }

  /**
   * Verifies of frame `slot` what `wanted` asks for ({@link CHECKED_IP}, {@link CHECKED_L4}). Returns
   * what was verified and what is wrong; 0 if there is nothing of the kind.
   */
  verify(burst: Burst, slot: number, wanted: number): number {
    if (wanted === 0) return 0;
    const bytes = burst.slots8;
    const frame = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
    const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
    const network = networkOffset(bytes, frame, gathered);
    if (network < 0) return 0;
    const ip = frame + network;
    const type = read16(bytes, ip - 2);
    const length = burst.frameLength[slot] as number;
    if (type === ETHERTYPE_IPV4 && network + IPV4_MIN_HEADER_BYTES <= gathered) {
      const header = 4 * ((bytes[ip] as number) & 0xf);
      if (header < IPV4_MIN_HEADER_BYTES || network + header > gathered) return 0;
      const total = read16(bytes, ip + IPV4_TOTAL_LENGTH);
      const good = foldSum(this.#words(bytes, ip, header)) === ALL_ONES;
      const status = CHECKED_IP | (good ? 0 : WRONG_IP);
      const fragment = read16(bytes, ip + IPV4_FRAGMENT);
      const whole = (fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET_MASK)) === 0;
      if (!good || !whole || (wanted & CHECKED_L4) === 0) return status;
      if (total < header || network + total > length) return status;
      const protocol = bytes[ip + IPV4_PROTOCOL] as number;
      const pseudo = this.#words(bytes, ip + IPV4_SOURCE, 8);
      return (
        status | this.#transport(burst, slot, network + header, total - header, protocol, pseudo)
      );
    }
    if (type === ETHERTYPE_IPV6 && network + IPV6_HEADER_BYTES <= gathered) {
      const payload = read16(bytes, ip + IPV6_PAYLOAD_LENGTH);
      if ((wanted & CHECKED_L4) === 0) return 0;
      if (network + IPV6_HEADER_BYTES + payload > length) return 0;
      const protocol = bytes[ip + IPV6_NEXT_HEADER] as number;
      const pseudo = this.#words(bytes, ip + IPV6_SOURCE, 32);
      const start = network + IPV6_HEADER_BYTES;
      return this.#transport(burst, slot, start, payload, protocol, pseudo);
    }
    return 0;
  }

  /** Of TCP or UDP at `start` of the frame, `length` bytes with its header. */
  #transport(
    burst: Burst,
    slot: number,
    start: number,
    length: number,
    protocol: number,
    pseudo: number,
  ): number {
    const udp = protocol === IP_PROTOCOL_UDP;
    if (!udp && protocol !== IP_PROTOCOL_TCP) return 0;
    const header = burst.headerAt[slot] as number;
    const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
    const bytes = burst.slots8;
    const frame = header - burst.slotsAt + NET_HEADER_BYTES;
    if (start + UDP_CHECKSUM + 2 > gathered) return 0;
    // RFC 768: zero says that the sender made none.
    if (udp && read16(bytes, frame + start + UDP_CHECKSUM) === 0) return 0;
    const inSlot = Math.min(length, gathered - start);
    let sum = this.#checksum.sum(header + NET_HEADER_BYTES + start, inSlot);
    if (length > inSlot) {
      const rest = this.#chain(burst, slot, burst.skip[slot] as number, length - inSlot);
      sum += (inSlot & 1) === 0 ? rest : swap16(rest);
    }
    const all = swap16(foldSum(sum)) + pseudo + protocol + length;
    const good = foldSum(all) === ALL_ONES;
    return CHECKED_L4 | (udp ? CHECKED_UDP : 0) | (good ? 0 : WRONG_L4);
  }

  /** Folded little-endian sum of bytes [from, from + length) of a chain. */
  #chain(burst: Burst, slot: number, from: number, length: number): number {
    const { chains } = burst;
    const last = chains.more[slot] as number;
    let sum = 0;
    let done = 0;
    let skip = from;
    for (let i = -1; i < last && done < length; i++) {
      const at = (chains.moreStart[slot] as number) + i;
      const address = (i < 0 ? chains.address[slot] : chains.moreAddress[at]) as number;
      const bytes = (i < 0 ? chains.length[slot] : chains.moreLength[at]) as number;
      if (skip >= bytes) {
        skip -= bytes;
        continue;
      }
      const part = Math.min(bytes - skip, length - done);
      const partSum = this.#checksum.sum(address + skip, part);
      sum += (done & 1) === 0 ? partSum : swap16(partSum);
      done += part;
      skip = 0;
    }
    return foldSum(sum);
  }

  /** Big-endian words of the slots; `length` is even. */
  #words(bytes: Uint8Array, at: number, length: number): number {
    let sum = 0;
    for (let i = at; i < at + length; i += 2) sum += read16(bytes, i);
    return sum;
  }
}
