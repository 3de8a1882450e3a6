/**
 * Filters that choose a frame's queue before RSS does (§7.1.2.3 to §7.1.2.5): by EtherType, for TCP
 * SYN, by 5-tuple.
 */
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
  IXGBE_5TUPLES,
  IXGBE_ETQF_ENABLE,
  IXGBE_ETQF_TYPE,
  IXGBE_ETQS_IMMEDIATE,
  IXGBE_ETQS_QUEUE_ENABLE,
  IXGBE_ETQS_QUEUE_SHIFT,
  IXGBE_FTQF_ANY_DESTINATION,
  IXGBE_FTQF_ANY_DESTINATION_PORT,
  IXGBE_FTQF_ANY_PROTOCOL,
  IXGBE_FTQF_ANY_SOURCE,
  IXGBE_FTQF_ANY_SOURCE_PORT,
  IXGBE_FTQF_ENABLE,
  IXGBE_FTQF_PRIORITY,
  IXGBE_FTQF_PRIORITY_SHIFT,
  IXGBE_FTQF_PROTOCOL,
  IXGBE_FTQF_SCTP,
  IXGBE_FTQF_TCP,
  IXGBE_FTQF_UDP,
  IXGBE_L34TIMIR_IMMEDIATE,
  IXGBE_L34TIMIR_QUEUE_SHIFT,
  IXGBE_QUEUE_MASK,
  IXGBE_SYNQF_ENABLE,
  IXGBE_SYNQF_PRIORITY,
  IXGBE_SYNQF_QUEUE_SHIFT,
} from '../../spec/ixgbe.ts';
import { R } from './registers.ts';

const { ETQF, ETQS, FTQF, SAQF, DAQF, SDPQF, L34TIMIR, SYNQF } = R;

const ETHERTYPE_FILTERS = 8;
const IPV4_DESTINATION = IPV4_SOURCE + 4;
const PORTS_BYTES = 4;
const TCP_FLAGS = 13;
const TCP_SYN = 0x02;
const TCP_ACK = 0x10;
const IP_PROTOCOL_SCTP = 132;
/** No filter has the frame. */
export const NO_QUEUE = -1;
/** Set in what {@link QueueFilters.match} returns: the interrupt is to come at once. */
export const IMMEDIATE = 0x80;

export class QueueFilters {
  readonly #words: Uint32Array;
  /** 5-tuple filters that are enabled, the highest priority first; and how many. */
  readonly #tuples = new Uint8Array(IXGBE_5TUPLES);
  #count = 0;
  #types = false;
  #syn = false;

  constructor(words: Uint32Array) {
    this.#words = words;
  }

  /** Any frame can match something. */
  get any(): boolean {
    return this.#types || this.#syn || this.#count > 0;
  }

  /** A register of these was written. */
  update(): void {
    const words = this.#words;
    this.#types = false;
    for (let i = 0; i < ETHERTYPE_FILTERS; i++) {
      const usesQueue = ((words[ETQS + i] as number) & IXGBE_ETQS_QUEUE_ENABLE) !== 0;
      if (usesQueue && ((words[ETQF + i] as number) & IXGBE_ETQF_ENABLE) !== 0) this.#types = true;
    }
    this.#syn = ((words[SYNQF] as number) & IXGBE_SYNQF_ENABLE) !== 0;
    const enabled = Array.from({ length: IXGBE_5TUPLES }, (_, i) => i).filter(
      (i) => ((words[FTQF + i] as number) & IXGBE_FTQF_ENABLE) !== 0,
    );
    // Of equal priority the first is taken.
    enabled.sort((a, b) => this.#priority(b) - this.#priority(a) || a - b);
    this.#tuples.set(enabled);
    this.#count = enabled.length;
  }

  /**
   * The queue for a frame whose first `length` bytes begin at `at`, with {@link IMMEDIATE};
   * {@link NO_QUEUE} if none of the filters has it.
   */
  match(bytes: Uint8Array, at: number, length: number): number {
    const network = networkOffset(bytes, at, length);
    if (network < 0) return NO_QUEUE;
    const type = read16(bytes, at + network - 2);
    if (this.#types) {
      const queue = this.#byType(type);
      if (queue !== NO_QUEUE) return queue;
    }
    if (type !== ETHERTYPE_IPV4 || length < network + IPV4_MIN_HEADER_BYTES) return NO_QUEUE;
    const ip = at + network;
    const header = 4 * ((bytes[ip] as number) & 0xf);
    const protocol = bytes[ip + IPV4_PROTOCOL] as number;
    const fragment = read16(bytes, ip + IPV4_FRAGMENT);
    const isWhole = (fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET_MASK)) === 0;
    const left = isWhole && header >= IPV4_MIN_HEADER_BYTES ? length - network - header : 0;
    const control = this.#words[SYNQF] as number;
    const isSyn =
      this.#syn &&
      protocol === IP_PROTOCOL_TCP &&
      left > TCP_FLAGS &&
      ((bytes[ip + header + TCP_FLAGS] as number) & (TCP_SYN | TCP_ACK)) === TCP_SYN;
    const synQueue = (control >>> IXGBE_SYNQF_QUEUE_SHIFT) & IXGBE_QUEUE_MASK;
    if (isSyn && (control & IXGBE_SYNQF_PRIORITY) !== 0) return synQueue;
    if (this.#count > 0) {
      const queue = this.#byTuple(bytes, ip, protocol, left >= PORTS_BYTES ? ip + header : -1);
      if (queue !== NO_QUEUE) return queue;
    }
    return isSyn ? synQueue : NO_QUEUE;
  }

  #priority(filter: number): number {
    return (
      ((this.#words[FTQF + filter] as number) >>> IXGBE_FTQF_PRIORITY_SHIFT) & IXGBE_FTQF_PRIORITY
    );
  }

  #byType(type: number): number {
    const words = this.#words;
    for (let i = 0; i < ETHERTYPE_FILTERS; i++) {
      const filter = words[ETQF + i] as number;
      const queue = words[ETQS + i] as number;
      if ((filter & IXGBE_ETQF_ENABLE) === 0 || (filter & IXGBE_ETQF_TYPE) !== type) continue;
      if ((queue & IXGBE_ETQS_QUEUE_ENABLE) === 0) continue;
      return (
        ((queue >>> IXGBE_ETQS_QUEUE_SHIFT) & IXGBE_QUEUE_MASK) |
        ((queue & IXGBE_ETQS_IMMEDIATE) === 0 ? 0 : IMMEDIATE)
      );
    }
    return NO_QUEUE;
  }

  /** @param ports where the ports are, -1 without any */
  #byTuple(bytes: Uint8Array, ip: number, protocol: number, ports: number): number {
    const words = this.#words;
    // Registers hold addresses and ports as they stand in the frame (§8.2.3.7.17, §8.2.3.7.18).
    const source = read32le(bytes, ip + IPV4_SOURCE);
    const destination = read32le(bytes, ip + IPV4_DESTINATION);
    const both = ports < 0 ? 0 : read32le(bytes, ports);
    for (let i = 0; i < this.#count; i++) {
      const filter = this.#tuples[i] as number;
      const control = words[FTQF + filter] as number;
      const noSourcePort = (control & IXGBE_FTQF_ANY_SOURCE_PORT) !== 0;
      const noDestinationPort = (control & IXGBE_FTQF_ANY_DESTINATION_PORT) !== 0;
      if ((!noSourcePort || !noDestinationPort) && ports < 0) continue;
      const difference = both ^ (words[SDPQF + filter] as number);
      if (!noSourcePort && (difference & 0xffff) !== 0) continue;
      if (!noDestinationPort && difference >>> 16 !== 0) continue;
      const isSource = source === (words[SAQF + filter] as number);
      if ((control & IXGBE_FTQF_ANY_SOURCE) === 0 && !isSource) continue;
      const isDestination = destination === (words[DAQF + filter] as number);
      if ((control & IXGBE_FTQF_ANY_DESTINATION) === 0 && !isDestination) continue;
      if ((control & IXGBE_FTQF_ANY_PROTOCOL) === 0 && !isProtocol(control, protocol)) continue;
      const action = words[L34TIMIR + filter] as number;
      return (
        ((action >>> IXGBE_L34TIMIR_QUEUE_SHIFT) & IXGBE_QUEUE_MASK) |
        ((action & IXGBE_L34TIMIR_IMMEDIATE) === 0 ? 0 : IMMEDIATE)
      );
    }
    return NO_QUEUE;
  }
}

/** Whether the protocol field of FTQF stands for this one; its fourth value stands for all others. */
function isProtocol(control: number, protocol: number): boolean {
  switch (control & IXGBE_FTQF_PROTOCOL) {
    case IXGBE_FTQF_TCP:
      return protocol === IP_PROTOCOL_TCP;
    case IXGBE_FTQF_UDP:
      return protocol === IP_PROTOCOL_UDP;
    case IXGBE_FTQF_SCTP:
      return protocol === IP_PROTOCOL_SCTP;
    default:
      return (
        protocol !== IP_PROTOCOL_TCP &&
        protocol !== IP_PROTOCOL_UDP &&
        protocol !== IP_PROTOCOL_SCTP
      );
  }
}
