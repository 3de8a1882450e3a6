/**
 * The Internet checksum (RFC 1071) over arena memory.
 *
 * Sums are ones' complement sums of 16-bit little-endian words: byte order does not matter to
 * such a sum but for where its bytes stand (RFC 1071 §2 (B)), so the result is stored as it came.
 */
import { type WasmFunction, wasm } from '../base/webassembly.ts';
import { type Arena, WINDOW_BYTES } from '../memory/arena.ts';
import { CHECKSUM_WASM } from './checksum.wasm.ts';

type Sum = (from: number, length: number) => number;

/** A sum below 2^53 brought down to 16 bits. */
export function foldSum(sum: number): number {
  let rest = sum;
  while (rest > 0x7fff_ffff) rest = Math.floor(rest / 0x10000) + (rest % 0x10000);
  const folded = (rest & 0xffff) + (rest >>> 16);
  return (folded & 0xffff) + (folded >>> 16);
}

/** The two bytes of a 16-bit number exchanged: the sum of bytes that begin at an odd place. */
export function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

/** Bytes brought into the window at a time from where WebAssembly does not reach. */
const BOUNCE_BYTES = 16384;

export class Checksum {
  /** As {@link sum}, of what lies in the window only: for other modules of WebAssembly to import. */
  readonly sumInWindow: WasmFunction;
  readonly #sum: Sum;
  readonly #bytes: Uint8Array;
  readonly #bounceAt: number;

  constructor(arena: Arena) {
    this.#bytes = arena.bytes;
    this.#bounceAt = arena.allocate(BOUNCE_BYTES, 'sluice-checksum');
    const module = new wasm.Module(Buffer.from(CHECKSUM_WASM, 'base64'));
    const instance = new wasm.Instance(module, { sluice: { window: arena.window } });
    this.#sum = instance.exports['sum'] as Sum;
    this.sumInWindow = instance.exports['sum'] as WasmFunction;
  }

  /**
   * The sum of `length` bytes (below 2^32) at an arena address of any alignment, folded to 16 bits.
   * The range must have been checked.
   */
  sum(address: number, length: number): number {
    return address + length <= WINDOW_BYTES
      ? this.#sum(address, length)
      : this.#sumAbove(address, length);
  }

  #sumAbove(address: number, length: number): number {
    let sum = 0;
    for (let done = 0; done < length; done += BOUNCE_BYTES) {
      const part = Math.min(BOUNCE_BYTES, length - done);
      this.#bytes.copyWithin(this.#bounceAt, address + done, address + done + part);
      sum += this.#sum(this.#bounceAt, part);
    }
    return foldSum(sum);
  }
}
