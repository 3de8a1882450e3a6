/**
 * Moves a command's data between the disk and the guest's memory: directly where that can be reached, else
 * through the port's buffer, which one command has at a time.
 */
import { DISK_READ, DISK_WRITE, type RequestTable } from '../../block/requests.ts';
import { DMA_DONE, DMA_REFUSED, type DmaSpace } from '../../memory/dma.ts';
import { AHCI_MAX_SLOTS } from '../../spec/ahci.ts';
import type { PortBuffer } from './ata-device.ts';
import type { CommandSlots } from './command-slots.ts';
import * as slot from './command-slots.ts';
import { PRDT_END, PRDT_FETCH, PRDT_INDIRECT, PRDT_OK, Prdt } from './prdt.ts';

// Outcomes beside those of DMA.
/** Another slot has the buffer. */
export const MOVE_WAITS = 2;
/** A request to the disk was made: it is to be submitted. */
export const MOVE_REQUEST = 3;
/** The PRDT is shorter than the data. */
export const MOVE_OVERFLOW = 4;
/** The part is in the guest's memory, or the buffer holds what the guest sent. */
export const MOVE_END = 5;

export class DataMover {
  /** Slots that waited for the buffer and can go on. */
  woken = 0;
  /** Parts that went through the buffer. */
  copied = 0;
  private owner = -1;
  private readonly slots: CommandSlots;
  private readonly buffer: PortBuffer;
  private readonly prdt: Prdt;

  constructor(slots: CommandSlots, buffer: PortBuffer) {
    this.slots = slots;
    this.buffer = buffer;
    this.prdt = new Prdt(slots, buffer.view);
  }

  /** Begins the next part: a request between disk and guest, as large as one can be, or by the buffer. */
  part(i: number, dma: DmaSpace, table: RequestTable, block: number): number {
    const { slots } = this;
    const toGuest = slots.action[i] === slot.ACTION_DISK_IN;
    const op = toGuest ? DISK_READ : DISK_WRITE;
    const outcome = this.prdt.gather(i, dma, table, op, toGuest, block);
    if (outcome === PRDT_OK) return MOVE_REQUEST;
    if (outcome !== PRDT_INDIRECT) return this.without(i, outcome, slot.SLOT_PART);
    if (this.owner >= 0) {
      slots.state[i] = slot.SLOT_WAIT_BUFFER;
      return MOVE_WAITS;
    }
    this.owner = i;
    this.copied++;
    slots.buffered[i] = 1;
    if (toGuest) return this.request(i, table, DISK_READ);
    slots.part[i] = Math.min(slots.left[i] as number, this.buffer.bytes);
    slots.moved[i] = 0;
    slots.state[i] = slot.SLOT_MOVE;
    return DMA_DONE;
  }

  /** Moves the buffer to or from the guest, an entry of the PRDT at a time. */
  move(i: number, dma: DmaSpace, tag: number): number {
    const { slots } = this;
    const action = slots.action[i] as number;
    const toGuest = action === slot.ACTION_BUFFER_IN || action === slot.ACTION_DISK_IN;
    const part = slots.part[i] as number;
    for (;;) {
      const moved = slots.moved[i] as number;
      if (moved === part) return MOVE_END;
      const found = this.prdt.next(i, part - moved, dma, toGuest);
      if (found !== PRDT_OK) return this.without(i, found, slot.SLOT_MOVE);
      const iova = this.prdt.iova[0] as number;
      const { length } = this.prdt;
      const at = this.buffer.at + moved;
      this.prdt.skip(i, length);
      slots.moved[i] = moved + length;
      const outcome = toGuest ? dma.write(iova, length, at, tag) : dma.read(iova, length, at, tag);
      if (outcome !== DMA_DONE) return outcome;
    }
  }

  /** A request between disk and buffer, for the next part. */
  request(i: number, table: RequestTable, op: number): number {
    const { slots, buffer } = this;
    const part = Math.min(slots.left[i] as number, buffer.bytes);
    slots.part[i] = part;
    table.begin(i, op, slots.flags[i] as number, slots.offset[i] as number, part);
    table.add(i, buffer.at, part);
    return MOVE_REQUEST;
  }

  /** The slot does not need the buffer any more: it is the next one's who waits for it. */
  release(i: number): void {
    const { slots } = this;
    slots.buffered[i] = 0;
    if (this.owner !== i) return;
    this.owner = -1;
    for (let next = 0; next < AHCI_MAX_SLOTS; next++) {
      if (slots.state[next] !== slot.SLOT_WAIT_BUFFER) continue;
      slots.state[next] = slot.SLOT_PART;
      this.woken |= 1 << next;
    }
  }

  /** The PRDT gave nothing. */
  private without(i: number, outcome: number, after: number): number {
    const { slots } = this;
    if (outcome !== PRDT_FETCH) return outcome === PRDT_END ? MOVE_OVERFLOW : DMA_REFUSED;
    slots.after[i] = after;
    slots.state[i] = slot.SLOT_FETCH_PRDS;
    return DMA_DONE;
  }
}
