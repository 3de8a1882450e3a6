/**
 * Requests on their way to an NBD server, as a structure of arrays. A request of a disk's queue is
 * one *piece*, or several where it is larger than the server takes at once; each piece is one
 * command on one connection, with a cookie of its own.
 */
import { NBD_CMD_READ, NBD_CMD_WRITE } from '../../spec/nbd.ts';
import type { RequestTable } from '../requests.ts';

/** What a piece is doing. */
export const PIECE_FREE = 0;
/** It waits for a connection: its own was lost. */
export const PIECE_LOST = 1;
/** On a connection, not all of it is sent. */
export const PIECE_SENDING = 2;
export const PIECE_SENT = 3;
/** Answered while the rest of it still has to be sent: its memory is in use until then. */
export const PIECE_ANSWERED = 4;

/** Where a piece's data goes or comes from: a list of ranges of arena addresses. */
export interface RangeList {
  add(address: number, length: number): void;
}

export class PieceTable {
  readonly slots: number;
  /** Free pieces. */
  free: number;
  /** PIECE_*. */
  readonly state: Uint8Array;
  /** NBD_CMD_*, NBD_CMD_FLAG_*. */
  readonly command: Uint8Array;
  readonly flags: Uint8Array;
  /** The disk's queue and its slot that this is a piece of. */
  readonly queue: Uint16Array;
  readonly slot: Uint32Array;
  /** First byte within the request. */
  readonly start: Float64Array;
  /** First byte on the disk, bytes. */
  readonly offset: Float64Array;
  readonly length: Uint32Array;
  /** Bytes of a read that have not come yet. */
  readonly left: Float64Array;
  /** What the server has said so far: an errno, 0: nothing bad. */
  readonly error: Int32Array;
  /** High half of the cookie: another number each time the piece is sent. */
  readonly generation: Uint32Array;
  /** The connection that it is on. */
  readonly connection: Uint8Array;
  /** For flushes: writes that were complete when it was sent first. */
  readonly writes: Float64Array;
  readonly #freeList: Uint32Array;

  constructor(slots: number) {
    this.slots = slots;
    this.free = slots;
    this.state = new Uint8Array(slots);
    this.command = new Uint8Array(slots);
    this.flags = new Uint8Array(slots);
    this.queue = new Uint16Array(slots);
    this.slot = new Uint32Array(slots);
    this.start = new Float64Array(slots);
    this.offset = new Float64Array(slots);
    this.length = new Uint32Array(slots);
    this.left = new Float64Array(slots);
    this.error = new Int32Array(slots);
    this.generation = new Uint32Array(slots);
    this.connection = new Uint8Array(slots);
    this.writes = new Float64Array(slots);
    this.#freeList = Uint32Array.from({ length: slots }, (_, index) => slots - 1 - index);
  }

  /** A piece that nobody uses; there must be one. */
  take(): number {
    return this.#freeList[--this.free] as number;
  }

  release(piece: number): void {
    this.state[piece] = PIECE_FREE;
    this.#freeList[this.free++] = piece;
  }

  /** True for commands with data, in either direction. */
  hasData(piece: number): boolean {
    const command = this.command[piece];
    return command === NBD_CMD_READ || command === NBD_CMD_WRITE;
  }

  /**
   * Lists the memory of `length` bytes of a piece's data from byte `from` of it on.
   * @param requests the table of the piece's queue
   */
  gather(
    list: RangeList,
    requests: RequestTable,
    piece: number,
    from: number,
    length: number,
  ): void {
    let skip = (this.start[piece] as number) + from;
    let left = length;
    const first = (this.slot[piece] as number) * requests.segments;
    for (let index = first; left > 0; index++) {
      const bytes = requests.length[index] as number;
      if (skip >= bytes) {
        skip -= bytes;
        continue;
      }
      const here = Math.min(bytes - skip, left);
      list.add((requests.address[index] as number) + skip, here);
      left -= here;
      skip = 0;
    }
  }
}
