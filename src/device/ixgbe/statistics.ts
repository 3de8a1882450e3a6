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

  /** Good frames came from the wire, whatever the filters say; octets are those of {@link onWire}. */
  arrived(frames: number, octets: number): void {
    this.count(TPR, frames);
    this.octets(TORL, octets);
    this.count(RXNFGPC, frames);
    this.octets(RXNFGBCL, octets);
  }

  /** One is longer than the guest wants them. */
  oversized(): void {
    this.count(ROC, 1);
  }

  /** Frames passed the filters; each is told of by {@link passed}, too. */
  received(frames: number, octets: number): void {
    this.count(GPRC, frames);
    this.octets(GORCL, octets);
  }

  /** `frames` frames that begin alike, of so many octets each, or of others in the same group of sizes. */
  passed(bytes: Uint8Array, at: number, octets: number, frames = 1): void {
    this.count(PRC + sizeGroup(octets), frames);
    if (((bytes[at] as number) & 1) !== 0) {
      this.count(isBroadcast(bytes, at) ? BPRC : MPRC, frames);
    }
  }

  /** Frames are in a queue of the guest; `bytes` without check sequences. */
  queued(frames: number, bytes: number): void {
    this.count(RXDGPC, frames);
    this.octets(RXDGBCL, bytes + frames * FCS_BYTES);
  }

  /** The guest had no descriptor for them. */
  missed(frames: number): void {
    this.count(RXMPC, frames);
  }

  /** Frames were sent; each is told of by {@link left}, too. */
  transmitted(frames: number, octets: number): void {
    this.count(GPTC, frames);
    this.count(TPT, frames);
    this.octets(GOTCL, octets);
    this.count(TXDGPC, frames);
    this.octets(TXDGBCL, octets);
  }

  /** As {@link passed}, of frames that leave. */
  left(bytes: Uint8Array, at: number, octets: number, frames: number): void {
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

/** Bytes of a frame of so many bytes on the wire: padded, with check sequence. */
export function onWire(length: number): number {
  return (length < ETHERNET_MIN_FRAME_BYTES ? ETHERNET_MIN_FRAME_BYTES : length) + FCS_BYTES;
}

/** Sizes are counted in groups: 64, then to 127, 255, 511, 1023, and more. */
function sizeGroup(octets: number): number {
  if (octets <= 64) return 0;
  const group = 26 - Math.clz32(octets);
  return group < 5 ? group : 5;
}

/** Whether frames from the one length to the other, without check sequence, count in one group of sizes. */
export function isOneGroup(shortest: number, longest: number): boolean {
  return sizeGroup(onWire(shortest)) === sizeGroup(onWire(longest));
}

function isBroadcast(bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < MAC_BYTES; i++) if (bytes[at + i] !== 0xff) return false;
  return true;
}
