/** A guest's memory through the eyes of its own programs: bytes and words by offset. */
import type { DriverMemory } from '../../ring/driver-queue.ts';

export class GuestRam {
  readonly u8: Uint8Array;
  /** Little-endian words; index is the offset divided by 2 or 4. */
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;

  constructor(memory: DriverMemory) {
    const { arena, arenaAddress, size } = memory;
    this.u8 = new Uint8Array(arena.buffer, arenaAddress, size);
    this.u16 = new Uint16Array(arena.buffer, arenaAddress, size / 2);
    this.u32 = new Uint32Array(arena.buffer, arenaAddress, size / 4);
  }
}
