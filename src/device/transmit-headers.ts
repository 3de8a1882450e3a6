/** Headers of gathered frames, as cards that send them change them: more of them in the slot, a tag. */
import type { Burst } from '../net/burst.ts';
import { VLAN_TAG_BYTES } from '../spec/ethernet.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';

/** Destination and source: a tag goes behind them. */
const ADDRESSES = 12;
/** Most bytes of a frame in its slot: what there is room for with a tag. */
const GATHERED_MOST = 92;

/** Brings more of a frame's start into its slot, if headers of `needed` bytes are not there wholly. */
export function gatherMore(burst: Burst, slot: number, needed: number): void {
  const skip = burst.skip[slot] as number;
  const most = Math.min(needed, GATHERED_MOST, burst.chains.total[slot] as number);
  if (most <= skip) return;
  const header = burst.headerAt[slot] as number;
  const length = burst.headerLength[slot] as number;
  burst.copyFromChain(slot, skip, most - skip, header + length);
  burst.copies.flush();
  burst.headerLength[slot] = length + most - skip;
  burst.skip[slot] = most;
}

/**
 * Puts an 802.1Q tag with EtherType `type` behind the addresses of frame `slot`. Returns the bytes that
 * it takes: 0 if the frame is too short to have addresses.
 */
export function insertTag(burst: Burst, slot: number, type: number, tci: number): number {
  const bytes = burst.slots8;
  const at = (burst.headerAt[slot] as number) - burst.slotsAt;
  const length = burst.headerLength[slot] as number;
  if (length < NET_HEADER_BYTES + ADDRESSES) return 0;
  const tagAt = at + NET_HEADER_BYTES + ADDRESSES;
  bytes.copyWithin(tagAt + VLAN_TAG_BYTES, tagAt, at + length);
  bytes[tagAt] = type >>> 8;
  bytes[tagAt + 1] = type;
  bytes[tagAt + 2] = tci >>> 8;
  bytes[tagAt + 3] = tci;
  burst.headerLength[slot] = length + VLAN_TAG_BYTES;
  burst.frameLength[slot] = (burst.frameLength[slot] as number) + VLAN_TAG_BYTES;
  return VLAN_TAG_BYTES;
}
