/** Statistics registers (SDM §13.7; DS §10.2.7): counted as frames pass, cleared as they are read. */
import { MAC_BYTES } from '../../spec/ethernet.ts';
import { R, type RegisterFile } from './registers.ts';

/** Counters stay at their end (SDM §13.7). */
const MOST = 0xffff_ffff;
const TWO_32 = 4294967296;

/** Frame check sequence: silicon counts it. */
export const FCS_BYTES = 4;

const { GPRC, BPRC, MPRC, TPR, GORCL, TORL, PRC64 } = R;
const { GPTC, BPTC, MPTC, TPT, GOTCL, TOTL, PTC64 } = R;

export class Statistics {
  readonly #words: Uint32Array;
  /** Lower halves that were read, and whose upper ones were not yet. */
  readonly #told = new Set<number>();

  constructor(registers: RegisterFile) {
    this.#words = registers.words;
  }

  count(register: number, by: number): void {
    const words = this.#words;
    const value = (words[register] as number) + by;
    words[register] = value > MOST ? MOST : value;
  }

  /** A frame that passed the filters, with its first bytes at `at`; `length` without FCS. */
  received(bytes: Uint8Array, at: number, length: number): void {
    this.count(GPRC, 1);
    this.count(TPR, 1);
    this.#group(bytes, at, 1, BPRC, MPRC);
    this.#octets(GORCL, length + FCS_BYTES);
    this.#octets(TORL, length + FCS_BYTES);
    this.#size(PRC64, length + FCS_BYTES, 1);
  }

  /** `frames` frames were sent alike, of `length` bytes each without FCS. */
  transmitted(bytes: Uint8Array, at: number, length: number, frames: number): void {
    if (frames === 0) return;
    this.count(GPTC, frames);
    this.count(TPT, frames);
    this.#group(bytes, at, frames, BPTC, MPTC);
    this.#octets(GOTCL, frames * (length + FCS_BYTES));
    this.#octets(TOTL, frames * (length + FCS_BYTES));
    this.#size(PTC64, length + FCS_BYTES, frames);
  }

  /** The lower half of a 64-bit counter is read, and counts anew. */
  readLow(register: number): number {
    const low = this.#words[register] as number;
    this.#words[register] = 0;
    this.#told.add(register);
    return low;
  }

  /**
   * The upper half is read, which clears both (SDM §13.7): but for what has been counted since the lower one
   * was read, which nobody would be told of.
   */
  readHigh(register: number): number {
    const high = this.#words[register] as number;
    this.#words[register] = 0;
    if (!this.#told.delete(register - 1)) this.#words[register - 1] = 0;
    return high;
  }

  #octets(low: number, bytes: number): void {
    const words = this.#words;
    const sum = (words[low] as number) + bytes;
    words[low] = sum;
    if (sum >= TWO_32) words[low + 1] = (words[low + 1] as number) + 1;
  }

  #group(
    bytes: Uint8Array,
    at: number,
    frames: number,
    broadcast: number,
    multicast: number,
  ): void {
    if (((bytes[at] as number) & 1) === 0) return;
    this.count(isBroadcast(bytes, at) ? broadcast : multicast, frames);
  }

  #size(first: number, length: number, frames: number): void {
    const group =
      length <= 64
        ? 0
        : length <= 127
          ? 1
          : length <= 255
            ? 2
            : length <= 511
              ? 3
              : length <= 1023
                ? 4
                : 5;
    this.count(first + group, frames);
  }
}

export function isBroadcast(bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < MAC_BYTES; i++) if (bytes[at + i] !== 0xff) return false;
  return true;
}
