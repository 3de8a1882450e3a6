/**
 * Which frames are received without virtualization (§7.1.1): addresses, multicast table, VLAN table.
 */
import {
  IXGBE_FCTRL_BROADCAST,
  IXGBE_FCTRL_MULTICAST_ALL,
  IXGBE_FCTRL_UNICAST_ALL,
  IXGBE_MCSTCTRL_ENABLE,
  IXGBE_MCSTCTRL_OFFSET,
  IXGBE_RAH_VALID,
  IXGBE_RECEIVE_ADDRESSES,
  IXGBE_VLNCTRL_FILTER,
} from '../../spec/ixgbe.ts';
import { R } from './registers.ts';

/** What became of a frame; {@link INEXACT} asks for a look by software (the PIF bit). */
export const REJECTED = 0;
export const EXACT = 1;
export const INEXACT = 2;

/** Bits of the address that index the table, by MCSTCTRL.MO (§8.2.3.7.3): how far to shift. */
const MULTICAST_SHIFT = new Uint8Array([4, 3, 2, 0]);

const { FCTRL, MCSTCTRL, MTA, RAL, RAH, VFTA, VLNCTRL } = R;

/** Whether a frame whose destination is at `at` passes: one of the three above. */
export function filterAddress(words: Uint32Array, bytes: Uint8Array, at: number): number {
  const low =
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24);
  const high = (bytes[at + 4] as number) | ((bytes[at + 5] as number) << 8);
  const control = words[FCTRL] as number;
  if (low === -1 && high === 0xffff) {
    return (control & IXGBE_FCTRL_BROADCAST) !== 0 ? EXACT : REJECTED;
  }
  for (let i = 0; i < IXGBE_RECEIVE_ADDRESSES; i++) {
    if (((words[RAL + 2 * i] as number) | 0) !== low) continue;
    const upper = words[RAH + 2 * i] as number;
    if ((upper & IXGBE_RAH_VALID) !== 0 && (upper & 0xffff) === high) return EXACT;
  }
  if ((low & 1) === 0) return (control & IXGBE_FCTRL_UNICAST_ALL) !== 0 ? INEXACT : REJECTED;
  if ((control & IXGBE_FCTRL_MULTICAST_ALL) !== 0) return INEXACT;
  const multicast = words[MCSTCTRL] as number;
  if ((multicast & IXGBE_MCSTCTRL_ENABLE) === 0) return REJECTED;
  const shift = MULTICAST_SHIFT[multicast & IXGBE_MCSTCTRL_OFFSET] as number;
  const index = (high >>> shift) & 0xfff;
  return (((words[MTA + (index >>> 5)] as number) >>> (index & 31)) & 1) !== 0 ? INEXACT : REJECTED;
}

/** Whether a frame of this VLAN passes. */
export function filterVlan(words: Uint32Array, vlan: number): boolean {
  if (((words[VLNCTRL] as number) & IXGBE_VLNCTRL_FILTER) === 0) return true;
  return (((words[VFTA + (vlan >>> 5)] as number) >>> (vlan & 31)) & 1) !== 0;
}
