/**
 * Statistics registers of the physical function (§8.2.3.23): counted as frames pass, cleared as they
 * are read. Octets are with check sequence, as silicon has them.
 */
import { ETHERNET_MIN_FRAME_BYTES, MAC_BYTES } from '../../spec/ethernet.ts';
import { R } from './registers.ts';

/** Frame check sequence. */
export const FCS_BYTES = 4;

/** Counters stay at their end. */
const MOST = 0xffff_ffff;
const TWO_32 = 4294967296;
/** Upper halves of octet counters have four bits (§8.2.3.23.25). */
const HIGH_MASK = 0xf;

const { GPRC, BPRC, MPRC, GORCL, TORL, TPR, PRC, ROC, RXNFGPC, RXNFGBCL } = R;
const { GPTC, BPTC, MPTC, GOTCL, TPT, PTC } = R;
const { RXDGPC, RXDGBCL, TXDGPC, TXDGBCL, RXMPC } = R;

export class Statistics {
  readonly #words: Uint32Array;

  constructor(words: Uint32Array) {
    this.#words = words;
  }

  count(register: number, by: number): void {
    const words = this.#words;
    const value = (words[register] as number) + by;
    words[register] = value > MOST ? MOST : value;
  }

  /** A good frame came from the wire, with its first bytes at `at`; `length` without check sequence. */
  arrived(length: number): void {
    const octets = onWire(length);
    this.count(TPR, 1);
    this.octets(TORL, octets);
    this.count(RXNFGPC, 1);
    this.octets(RXNFGBCL, octets);
  }

  /** It is longer than the guest wants them. */
  oversized(): void {
    this.count(ROC, 1);
  }

  /** It passed the filters. */
  received(bytes: Uint8Array, at: number, length: number): void {
    const octets = onWire(length);
    this.count(GPRC, 1);
    this.octets(GORCL, octets);
    this.count(PRC + sizeGroup(octets), 1);
    if (((bytes[at] as number) & 1) !== 0) this.count(isBroadcast(bytes, at) ? BPRC : MPRC, 1);
  }

  /** It is in a queue of the guest; `bytes` without check sequences. */
  queued(frames: number, bytes: number): void {
    this.count(RXDGPC, frames);
    this.octets(RXDGBCL, bytes + frames * FCS_BYTES);
  }

  /** The guest had no descriptor for it. */
  missed(frames: number): void {
    this.count(RXMPC, frames);
  }

  /** `frames` frames were sent alike, of `length` bytes each without check sequence. */
  transmitted(bytes: Uint8Array, at: number, length: number, frames: number): void {
    const octets = onWire(length);
    this.count(GPTC, frames);
    this.count(TPT, frames);
    this.octets(GOTCL, frames * octets);
    this.count(TXDGPC, frames);
    this.octets(TXDGBCL, frames * octets);
    this.count(PTC + sizeGroup(octets), frames);
    if (((bytes[at] as number) & 1) !== 0) {
      this.count(isBroadcast(bytes, at) ? BPTC : MPTC, frames);
    }
  }

  /** Adds to a counter of 36 bits, whose upper half is the next register. */
  octets(low: number, by: number): void {
    const words = this.#words;
    const sum = (words[low] as number) + by;
    words[low] = sum;
    if (sum >= TWO_32) words[low + 1] = ((words[low + 1] as number) + 1) & HIGH_MASK;
  }
}

/** Bytes of a frame on the wire, padded, with check sequence. */
function onWire(length: number): number {
  return Math.max(length, ETHERNET_MIN_FRAME_BYTES) + FCS_BYTES;
}

function sizeGroup(octets: number): number {
  if (octets <= 64) return 0;
  if (octets <= 127) return 1;
  if (octets <= 255) return 2;
  if (octets <= 511) return 3;
  return octets <= 1023 ? 4 : 5;
}

function isBroadcast(bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < MAC_BYTES; i++) if (bytes[at + i] !== 0xff) return false;
  return true;
}
