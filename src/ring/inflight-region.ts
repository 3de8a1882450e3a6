/**
 * A queue's region of the in-flight area (QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking"):
 * memory that the front-end keeps while a back-end dies and another takes its place.
 *
 * Each value is stored whole, by one instruction, and in the order of the program: a process that is
 * killed has made either all of a store or none of it, and none of those after it. (A DataView
 * stores byte by byte until its caller is compiled.)
 */
import { SluiceError } from '../base/errors.ts';
import { INFLIGHT_SPLIT, INFLIGHT_VERSION } from '../spec/vhost-user.ts';

export class InflightRegion {
  readonly bytes: number;
  private readonly u8: Uint8Array;
  private readonly u16: Uint16Array;
  private readonly u32: Uint32Array;
  private readonly f64: Float64Array;

  /** `offset` and `bytes` are multiples of 8. */
  constructor(buffer: ArrayBufferLike, offset: number, bytes: number) {
    this.bytes = bytes;
    this.u8 = new Uint8Array(buffer, offset, bytes);
    this.u16 = new Uint16Array(buffer, offset, bytes / 2);
    this.u32 = new Uint32Array(buffer, offset, bytes / 4);
    this.f64 = new Float64Array(buffer, offset, bytes / 8);
  }

  get8(at: number): number {
    return this.u8[at] as number;
  }

  get16(at: number): number {
    return this.u16[at >>> 1] as number;
  }

  get32(at: number): number {
    return this.u32[at >>> 2] as number;
  }

  set8(at: number, value: number): void {
    this.u8[at] = value;
  }

  set16(at: number, value: number): void {
    this.u16[at >>> 1] = value;
  }

  set32(at: number, value: number): void {
    this.u32[at >>> 2] = value;
  }

  /** Stores eight bytes at once: those of `from[0]`, which must not be a NaN, whose bits may change. */
  set64(at: number, from: Float64Array): void {
    this.f64[at >>> 3] = from[0] as number;
  }

  /**
   * True if a back-end has noted anything here.
   * @throws SluiceError `ring` for a region that cannot be that of a ring of `size` entries, for which
   * `wanted` bytes are needed
   */
  isBegun(size: number, wanted: number): boolean {
    if (this.bytes < wanted) {
      throw new SluiceError(
        'ring',
        `an in-flight region of ${this.bytes} bytes, a ring of ${size} entries takes ${wanted}`,
      );
    }
    // Both layouts begin alike.
    const version = this.get16(INFLIGHT_SPLIT.version);
    if (version === 0) return false;
    if (version !== INFLIGHT_VERSION) {
      throw new SluiceError(
        'ring',
        `an in-flight region of version ${version}, known is ${INFLIGHT_VERSION}`,
      );
    }
    const entries = this.get16(INFLIGHT_SPLIT.descNum);
    if (entries < size) {
      throw new SluiceError('ring', `an in-flight region of ${entries} entries for ${size}`);
    }
    return true;
  }

  /** Begins the notes of a ring of `size` entries: all is zero but what `fill` writes. */
  begin(size: number, fill: () => void): void {
    this.set16(INFLIGHT_SPLIT.version, 0);
    this.u8.fill(0);
    this.set16(INFLIGHT_SPLIT.descNum, size);
    fill();
    this.set16(INFLIGHT_SPLIT.version, INFLIGHT_VERSION);
  }
}
