/** Which frames are received (SDM §14.3; DS §7.1.1): addresses, multicast table, VLAN table. */
import {
  RAH_AV,
  RCTL_BAM,
  RCTL_MO_SHIFT,
  RCTL_MPE,
  RCTL_UPE,
  RCTL_VFE,
  RECEIVE_ADDRESSES,
} from '../../spec/e1000.ts';
import { R } from './registers.ts';
import { isBroadcast } from './statistics.ts';

/** What became of a frame; {@link INEXACT} asks for a look by software (the PIF bit). */
export const REJECTED = 0;
export const EXACT = 1;
export const INEXACT = 2;

/** Bits of the address that index the table, by RCTL.MO (SDM §13.5.1): how far to shift. */
const MULTICAST_SHIFT = new Uint8Array([4, 3, 2, 0]);

const { RCTL, RA, MTA, VFTA } = R;

/** Whether a frame whose destination is at `at` passes. */
export function filterAddress(words: Uint32Array, bytes: Uint8Array, at: number): number {
  const low =
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24);
  const high = (bytes[at + 4] as number) | ((bytes[at + 5] as number) << 8);
  for (let i = 0; i < RECEIVE_ADDRESSES; i++) {
    const upper = words[RA + 2 * i + 1] as number;
    if (((words[RA + 2 * i] as number) | 0) !== low) continue;
    if ((upper & RAH_AV) !== 0 && (upper & 0xffff) === high) return EXACT;
  }
  const control = words[RCTL] as number;
  if ((low & 1) === 0) return (control & RCTL_UPE) !== 0 ? INEXACT : REJECTED;
  if (isBroadcast(bytes, at)) {
    return (control & (RCTL_BAM | RCTL_MPE)) !== 0 ? EXACT : REJECTED;
  }
  if ((control & RCTL_MPE) !== 0) return INEXACT;
  const shift = MULTICAST_SHIFT[(control >>> RCTL_MO_SHIFT) & 3] as number;
  const index = (high >>> shift) & 0xfff;
  return (((words[MTA + (index >>> 5)] as number) >>> (index & 31)) & 1) !== 0 ? INEXACT : REJECTED;
}

/** Whether a frame of this VLAN passes. */
export function filterVlan(words: Uint32Array, vlan: number): boolean {
  if (((words[RCTL] as number) & RCTL_VFE) === 0) return true;
  return (((words[VFTA + (vlan >>> 5)] as number) >>> (vlan & 31)) & 1) !== 0;
}
