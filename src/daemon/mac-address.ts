/** MAC addresses for cards whose configuration names none. */
import { createHash } from 'node:crypto';
import { formatMac } from '../net/mac.ts';

/**
 * A locally administered unicast address (IEEE 802 §8.2) made of the guest's name and the card's
 * number: the same after each restart, so that guests keep their interfaces' names and leases.
 */
export function defaultMac(guest: string, card: number): string {
  const hash = createHash('sha256').update(`${guest}\0net${card}`).digest();
  hash[0] = ((hash[0] as number) & 0xfc) | 0x02;
  return formatMac(hash);
}
