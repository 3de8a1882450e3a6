/** Walks the PRDT of a command (AHCI §4.2.3.3): into the segments of a disk request, or piece by piece. */
import { TWO_32 } from '../../base/bits.ts';
import type { RequestTable } from '../../block/requests.ts';
import { DMA_FAULT, type DmaSpace } from '../../memory/dma.ts';
import {
  AHCI_PRD_ADDRESS,
  AHCI_PRD_COUNT,
  AHCI_PRD_COUNT_MASK,
  AHCI_PRD_INTERRUPT,
} from '../../spec/ahci.ts';
import type { CommandSlots } from './command-slots.ts';

/** Segments of a disk request: an entry may lie in pieces when the guest has an IOMMU of its own. */
export const PART_SEGMENTS = 256;
/** Bytes of a disk request: below what Linux moves in one call. */
const PART_BYTES = 1024 * 1024 * 1024;
/** What an IOMMU maps at least at once. */
const PAGE = 4096;
/** Addresses from 2^53 on are no exact numbers. */
const HIGH_LIMIT = 2 ** 21;

/** Why {@link Prdt.gather} or {@link Prdt.next} gave nothing. */
export const PRDT_OK = 0;
/** The entries in memory are used up: fetch more. */
export const PRDT_FETCH = 1;
/** The table is at its end before the data are. */
export const PRDT_END = 2;
/** Not reachable directly. */
export const PRDT_INDIRECT = 3;
/** An address that cannot be; a fault was recorded. */
export const PRDT_BAD = 4;

const addresses = new Float64Array(PART_SEGMENTS);
const lengths = new Uint32Array(PART_SEGMENTS);

export class Prdt {
  /** Of the piece that {@link next} found: IOVA. */
  readonly iova = new Float64Array(1);
  /** Its bytes. */
  length = 0;
  private readonly slots: CommandSlots;
  private readonly view: DataView;

  constructor(slots: CommandSlots, view: DataView) {
    this.slots = slots;
    this.view = view;
  }

  /**
   * Makes the largest disk request, in whole blocks, of what comes next in the table; the cursor moves
   * behind it. Sets `part` of the slot. PRDT_*: nothing was made unless PRDT_OK.
   */
  gather(
    slot: number,
    dma: DmaSpace,
    table: RequestTable,
    op: number,
    toGuest: boolean,
    block: number,
  ): number {
    const { slots } = this;
    const left = Math.min(slots.left[slot] as number, PART_BYTES);
    const startPrd = slots.prd[slot] as number;
    const startOffset = slots.prdOffset[slot] as number;
    let bytes = 0;
    let count = 0;
    let why = PRDT_OK;
    while (bytes < left) {
      why = this.next(slot, left - bytes, dma, toGuest);
      if (why !== PRDT_OK) break;
      const iova = this.iova[0] as number;
      let length = this.length;
      let address = dma.translate(iova, length, toGuest);
      if (address < 0) {
        length = Math.min(length, PAGE - (iova % PAGE));
        address = dma.translate(iova, length, toGuest);
        if (address < 0) {
          why = PRDT_INDIRECT;
          break;
        }
      }
      const last = count - 1;
      if (last >= 0 && (addresses[last] as number) + (lengths[last] as number) === address) {
        lengths[last] = (lengths[last] as number) + length;
      } else {
        if (count === PART_SEGMENTS) break;
        addresses[count] = address;
        lengths[count] = length;
        count++;
      }
      bytes += length;
      this.skip(slot, length);
    }
    const whole = bytes - (bytes % block);
    if (whole === 0) {
      slots.prd[slot] = startPrd;
      slots.prdOffset[slot] = startOffset;
      if (why === PRDT_OK) return PRDT_INDIRECT;
      // Even a whole window has no block: its pieces are put together elsewhere.
      if (why === PRDT_FETCH && startPrd === slots.windowStart[slot]) return PRDT_INDIRECT;
      return why;
    }
    if (whole < bytes) {
      slots.prd[slot] = startPrd;
      slots.prdOffset[slot] = startOffset;
      this.skipOver(slot, whole);
    }
    table.begin(slot, op, slots.flags[slot] as number, slots.offset[slot] as number, whole);
    let rest = whole;
    for (let i = 0; i < count && rest > 0; i++) {
      const length = Math.min(lengths[i] as number, rest);
      table.addFrom(slot, addresses, i, 0, length);
      rest -= length;
    }
    slots.part[slot] = whole;
    return PRDT_OK;
  }

  /** Finds the piece that comes next, of at most `most` bytes. The cursor stays: see {@link skip}. */
  next(slot: number, most: number, dma: DmaSpace, toGuest: boolean): number {
    const { slots, view } = this;
    const index = slots.prd[slot] as number;
    if (index >= (slots.prds[slot] as number)) return PRDT_END;
    if (index >= (slots.windowStart[slot] as number) + (slots.windowCount[slot] as number)) {
      return PRDT_FETCH;
    }
    const at = slots.prdAt(slot, index);
    const offset = slots.prdOffset[slot] as number;
    const length = this.bytesAt(at) - offset;
    this.length = length < most ? length : most;
    const high = view.getUint32(at + AHCI_PRD_ADDRESS + 4, true);
    if (high >= HIGH_LIMIT) {
      dma.fault(0, this.length, toGuest, DMA_FAULT.address);
      return PRDT_BAD;
    }
    // Bit 0 of the address is reserved (§4.2.3.3).
    const low = (view.getUint32(at + AHCI_PRD_ADDRESS, true) & ~1) >>> 0;
    this.iova[0] = high * TWO_32 + low + offset;
    return PRDT_OK;
  }

  /** Moves the cursor by `length` bytes, at most to the end of its entry. */
  skip(slot: number, length: number): void {
    const { slots } = this;
    const index = slots.prd[slot] as number;
    const at = slots.prdAt(slot, index);
    const offset = (slots.prdOffset[slot] as number) + length;
    if (offset < this.bytesAt(at)) {
      slots.prdOffset[slot] = offset;
      return;
    }
    slots.prd[slot] = index + 1;
    slots.prdOffset[slot] = 0;
    if ((this.view.getUint32(at + AHCI_PRD_COUNT, true) & AHCI_PRD_INTERRUPT) !== 0) {
      slots.interrupts[slot] = 1;
    }
  }

  /** Moves the cursor by any number of bytes within the entries in memory. */
  private skipOver(slot: number, bytes: number): void {
    const { slots } = this;
    let left = bytes;
    while (left > 0) {
      const at = slots.prdAt(slot, slots.prd[slot] as number);
      const length = Math.min(left, this.bytesAt(at) - (slots.prdOffset[slot] as number));
      this.skip(slot, length);
      left -= length;
    }
  }

  private bytesAt(at: number): number {
    return ((this.view.getUint32(at + AHCI_PRD_COUNT, true) & AHCI_PRD_COUNT_MASK) | 1) + 1;
  }
}
