/** Where the guests of a bench are on the ports of NICs, and how many NICs that takes. */
import { IXGBE_VFS } from '../spec/ixgbe.ts';
import type { NetOptions } from './net-options.ts';

export interface NicPlace {
  readonly nic: number;
  /** Of the NIC. */
  readonly port: number;
  /** Of the port, if guests share it. */
  readonly vf: number | undefined;
}

/** Guests that one NIC has room for. */
export function guestsPerNic({ method, ports = 1 }: NetOptions): number {
  return ports * (method === 'sriov' ? IXGBE_VFS : 1);
}

/**
 * The place of each guest: ports are taken in turn, so that neighbours are on different ones where there are
 * two; the next NIC when one is full.
 */
export function nicPlaces(options: NetOptions): NicPlace[] {
  const { method, guests, ports = 1 } = options;
  const perNic = guestsPerNic(options);
  return Array.from({ length: guests }, (_, guest) => {
    const inNic = guest % perNic;
    return {
      nic: Math.floor(guest / perNic),
      port: inNic % ports,
      vf: method === 'sriov' ? Math.floor(inNic / ports) : undefined,
    };
  });
}

/** The number of a place's port, of those of all NICs. */
export function portNumber({ ports = 1 }: NetOptions, { nic, port }: NicPlace): number {
  return nic * ports + port;
}
