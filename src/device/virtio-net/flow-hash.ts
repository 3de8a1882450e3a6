/**
 * Which receive queue a frame goes to: a hash of its flow, so that frames of one flow stay in order.
 * Read from the slot, which holds the first 52 bytes of the frame: IPv4 with its ports, the
 * addresses of IPv6.
 */

import type { Burst } from '../../net/burst.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';

const ETHERTYPE_IPV4_LE = 0x0008;
const ETHERTYPE_IPV6_LE = 0xdd86;
const TCP = 6;
const UDP = 17;

/** A 32-bit hash of frame `slot`'s addresses and ports. */
export function flowHash(burst: Burst, slot: number): number {
  const frame = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
  const words = burst.slots16;
  const at = frame >>> 1;
  const type = words[at + 6] as number;
  if (type === ETHERTYPE_IPV4_LE) {
    const ip = at + 7;
    let hash = mix(0, words, ip + 6, 4);
    const protocol = (words[ip + 4] as number) >>> 8;
    const plain =
      ((words[ip] as number) & 0xff) === 0x45 && ((words[ip + 3] as number) & 0xffbf) === 0;
    if (plain && (protocol === TCP || protocol === UDP)) hash = mix(hash, words, ip + 10, 2);
    return finish(hash ^ protocol);
  }
  if (type === ETHERTYPE_IPV6_LE) return finish(mix(0, words, at + 7 + 4, 15));
  return finish(mix(0, words, at, 6));
}

/** Folds `count` 16-bit words into the hash (multiplication by the golden ratio, as hash tables do). */
function mix(seed: number, words: Uint16Array, at: number, count: number): number {
  let hash = seed;
  for (let i = 0; i < count; i++)
    hash = Math.imul(hash ^ (words[at + i] as number), 0x9e3779b1) ^ (hash >>> 15);
  return hash;
}

function finish(hash: number): number {
  return (hash ^ (hash >>> 16)) >>> 0;
}
