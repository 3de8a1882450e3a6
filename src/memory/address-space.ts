/**
 * What a device may reach: addresses that a guest uses, translated to arena addresses.
 * Implemented by the memory table of vhost-user and by DMA domains.
 */

/** A run of addresses that lies in one piece in the arena. Never changed after it was made. */
export interface MemoryRange {
  /** First address, in the guest's terms (guest physical address or I/O virtual address). */
  readonly start: number;
  /** The address after the last. */
  readonly end: number;
  /** Arena address minus guest address. */
  readonly delta: number;
  readonly writable: boolean;
}

export interface AddressSpace {
  /** Changes whenever a range is taken away: a cached {@link MemoryRange} is good until then. */
  readonly generation: number;
  /** The range that holds `address`, or undefined. Addresses are exact numbers below 2^53. */
  find(address: number): MemoryRange | undefined;
  /** Tells that the device wrote here, for a dirty log. Arena address and length in bytes. */
  markWritten(arenaAddress: number, length: number): void;
  /** True while {@link markWritten} must be called. */
  readonly logging: boolean;
}
