/**
 * The commands of one port that are under way: a slot of the command list each, as a structure of
 * arrays, and what was fetched of them, in memory of the lane.
 */
import { AHCI_MAX_SLOTS, AHCI_PRD_BYTES, AHCI_TABLE_PRDT } from '../../spec/ahci.ts';

/** Entries of a PRDT that are fetched at once: more than Linux uses (168). */
export const PRD_WINDOW = 256;

// What a slot is about to do. The engine does it, or waits for memory or the disk and then goes on.
export const SLOT_FREE = 0;
export const SLOT_FETCH_HEADER = 1;
export const SLOT_FETCH_TABLE = 2;
export const SLOT_EXECUTE = 3;
/** Fetches the next entries of the PRDT, then does what `after` says. */
export const SLOT_FETCH_PRDS = 4;
/** Begins what the device asks for. */
export const SLOT_BEGIN = 5;
/** The disk moves data from or to the guest's memory. */
export const SLOT_PART = 6;
/** Waits for the disk. */
export const SLOT_DISK = 7;
/** Moves the port's buffer to or from the guest's memory. */
export const SLOT_MOVE = 8;
/** Waits until another slot does not need the port's buffer any more. */
export const SLOT_WAIT_BUFFER = 9;
/** The command is done: byte count, FIS, registers. */
export const SLOT_TELL_COUNT = 10;
export const SLOT_TELL_FIS = 11;
export const SLOT_TOLD = 12;

// What the device asks the engine for.
/** Nothing: the outcome is in its registers. */
export const ACTION_NONE = 0;
/** `left` bytes from or to the disk at `offset`. */
export const ACTION_DISK_IN = 1;
export const ACTION_DISK_OUT = 2;
/** `left` bytes of the port's buffer, to the guest; or from it, and then the device is asked again. */
export const ACTION_BUFFER_IN = 3;
export const ACTION_BUFFER_OUT = 4;
/** Reads the disk and tells nobody what it read. */
export const ACTION_VERIFY = 5;
/** A flush. */
export const ACTION_FLUSH = 6;
/** Ranges to forget, one after the other as the device gives them. */
export const ACTION_RANGES = 7;

// How the command's end is told.
export const PROTOCOL_NONDATA = 0;
export const PROTOCOL_PIO_IN = 1;
export const PROTOCOL_PIO_OUT = 2;
export const PROTOCOL_DMA = 3;
export const PROTOCOL_QUEUED = 4;
export const PROTOCOL_PACKET_PIO = 5;
export const PROTOCOL_PACKET_DMA = 6;
/** A software reset is over: the device sends its signature. */
export const PROTOCOL_SIGNATURE = 7;

const HEADER_AT = 0;
/** The command table begins here in a slot's memory. */
const TABLE_AT = 128;
export const SLOT_MEMORY = TABLE_AT + AHCI_TABLE_PRDT + PRD_WINDOW * AHCI_PRD_BYTES;

export class CommandSlots {
  readonly state = new Uint8Array(AHCI_MAX_SLOTS);
  /** State after {@link SLOT_FETCH_PRDS}. */
  readonly after = new Uint8Array(AHCI_MAX_SLOTS);
  readonly action = new Uint8Array(AHCI_MAX_SLOTS);
  readonly protocol = new Uint8Array(AHCI_MAX_SLOTS);
  /** 1: the port was stopped; what is on its way for the slot ends silently. */
  readonly dropped = new Uint8Array(AHCI_MAX_SLOTS);
  /** REQUEST_* */
  readonly flags = new Uint8Array(AHCI_MAX_SLOTS);
  readonly tag = new Uint8Array(AHCI_MAX_SLOTS);
  /** Bytes from or to the disk: where, how many are left, how many the present part has. */
  readonly offset = new Float64Array(AHCI_MAX_SLOTS);
  readonly left = new Float64Array(AHCI_MAX_SLOTS);
  readonly part = new Uint32Array(AHCI_MAX_SLOTS);
  /** Bytes of the part in the port's buffer that have been moved. */
  readonly moved = new Uint32Array(AHCI_MAX_SLOTS);
  /** 1: the present part goes through the port's buffer. */
  readonly buffered = new Uint8Array(AHCI_MAX_SLOTS);
  /** Bytes from or to the guest: what PRDBC is to say. */
  readonly done = new Float64Array(AHCI_MAX_SLOTS);
  /** Command header's first word, and the table's IOVA. */
  readonly header = new Uint32Array(AHCI_MAX_SLOTS);
  readonly table = new Float64Array(AHCI_MAX_SLOTS);
  /** PRDT: its length; the entry and the byte in it that come next; the entries in memory. */
  readonly prds = new Uint16Array(AHCI_MAX_SLOTS);
  readonly prd = new Uint32Array(AHCI_MAX_SLOTS);
  readonly prdOffset = new Uint32Array(AHCI_MAX_SLOTS);
  readonly windowStart = new Uint32Array(AHCI_MAX_SLOTS);
  readonly windowCount = new Uint32Array(AHCI_MAX_SLOTS);
  /** 1: an entry that is done has its I bit set. */
  readonly interrupts = new Uint8Array(AHCI_MAX_SLOTS);
  private readonly memory: number;

  /** @param memory arena address of 32 times {@link SLOT_MEMORY} bytes */
  constructor(memory: number) {
    this.memory = memory;
  }

  headerAt(slot: number): number {
    return this.memory + slot * SLOT_MEMORY + HEADER_AT;
  }

  tableAt(slot: number): number {
    return this.memory + slot * SLOT_MEMORY + TABLE_AT;
  }

  /** Where the entry `index` of the PRDT lies, which must be in the window. */
  prdAt(slot: number, index: number): number {
    return (
      this.tableAt(slot) +
      AHCI_TABLE_PRDT +
      (index - (this.windowStart[slot] as number)) * AHCI_PRD_BYTES
    );
  }

  /** A new command is to be fetched. */
  begin(slot: number): void {
    this.state[slot] = SLOT_FETCH_HEADER;
    this.action[slot] = ACTION_NONE;
    this.protocol[slot] = PROTOCOL_NONDATA;
    this.dropped[slot] = 0;
    this.flags[slot] = 0;
    this.offset[slot] = 0;
    this.left[slot] = 0;
    this.part[slot] = 0;
    this.moved[slot] = 0;
    this.buffered[slot] = 0;
    this.done[slot] = 0;
    this.prd[slot] = 0;
    this.prdOffset[slot] = 0;
    this.interrupts[slot] = 0;
  }
}
