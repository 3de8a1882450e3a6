/** Moves frames from one burst to another: headers are copied, the payload stays where its sender has it. */
import { VLAN_TAG_BYTES } from '../spec/ethernet.ts';
import { type Burst, SLOT_HEADROOM } from './burst.ts';

/**
 * Appends a frame to the burst `out`, whose slots have room for its headers; pieces, and what lies above the
 * window, stay so. `tagged` puts the frame's 802.1Q tag into its header; else its VLAN stays behind. Returns
 * the frame's bytes.
 */
export function appendFrame(out: Burst, burst: Burst, slot: number, tagged: boolean): number {
  const { chains } = out;
  const source = burst.chains;
  const index = chains.add(source.address[slot] as number, source.length[slot] as number);
  chains.total[index] = source.total[slot] as number;
  const more = source.more[slot] as number;
  const start = source.moreStart[slot] as number;
  chains.more[index] = more;
  chains.shaped = chains.shaped || more > 0;
  chains.readable[index] = more + 1;
  chains.moreStart[index] = chains.moreCount;
  for (let i = 0; i < more; i++) {
    chains.moreAddress[chains.moreCount] = source.moreAddress[start + i] as number;
    chains.moreLength[chains.moreCount] = source.moreLength[start + i] as number;
    chains.moreCount++;
  }
  const tagBytes = tagged ? VLAN_TAG_BYTES : 0;
  const header = tagged ? burst.tag(slot) : (burst.headerAt[slot] as number);
  const length = (burst.headerLength[slot] as number) + tagBytes;
  const at = out.slotsAt + index * out.slotBytes + SLOT_HEADROOM;
  out.arena.bytes.copyWithin(at, header, header + length);
  out.headerAt[index] = at;
  out.headerLength[index] = length;
  out.skip[index] = burst.skip[slot] as number;
  const frameLength = (burst.frameLength[slot] as number) + tagBytes;
  out.frameLength[index] = frameLength;
  out.tci[index] = 0;
  out.needs[index] = burst.needs[slot] as number;
  return frameLength;
}
