/**
 * Reads the replies of one connection, apart from any socket. Data of reads goes straight into the
 * memory that the request names; what else comes goes through a small staging buffer.
 *
 *   reader.prepare()      lists in `reader.list` where the next bytes are to be put
 *   reader.take(bytes)    so many have been put there: tells the sink what they complete
 *
 * Layouts are in `codec.ts`. A reply that the protocol does not allow is a SluiceError `protocol`:
 * the connection cannot be used any more. Memory beside that of the piece is never written.
 */
import { TWO_32 } from '../../base/bits.ts';
import type { Arena } from '../../memory/arena.ts';
import { IoQueue } from '../../os/io-queue.ts';
import { IOV_MAX } from '../../os/io-vector.ts';
import * as nbd from '../../spec/nbd.ts';
import type { RequestTable } from '../requests.ts';
import { protocolError } from './codec.ts';
import { PIECE_SENDING, PIECE_SENT, type PieceTable } from './pieces.ts';

/** Bytes of the staging buffer: holds any chunk but data, and many replies to writes. */
export const STAGING_BYTES = 16 * 1024;
/** What is read beyond data while more data may follow: a chunk's header and its offset. */
const LOOKAHEAD = nbd.STRUCTURED_REPLY_BYTES + nbd.OFFSET_BYTES;
/** The largest payload of an error chunk: its text is a string of the protocol. */
const MAX_ERROR_BYTES = nbd.ERROR_CHUNK_BYTES + nbd.MAX_STRING_BYTES + nbd.OFFSET_BYTES;

export interface ReplySink {
  /** The table of requests of a queue. */
  requestsOf(queue: number): RequestTable;
  /** A piece is answered in full; `error` is the server's errno, 0: done. */
  answered(piece: number, error: number): void;
}

export interface ReplyReaderOptions {
  readonly arena: Arena;
  readonly pieces: PieceTable;
  readonly sink: ReplySink;
  /** The connection's number, as pieces have it. */
  readonly connection: number;
  /** Arena address of {@link STAGING_BYTES} bytes for this reader alone. */
  readonly staging: number;
  /** Ranges that one piece may have, and one more. */
  readonly ranges: number;
}

export class ReplyReader {
  readonly list: IoQueue;
  /** Replies come in chunks, as negotiated. */
  structured = false;
  /** Reads that are on this connection: while there are any, data may follow a header. */
  reads = 0;
  readonly #arena: Arena;
  readonly #view: DataView;
  readonly #pieces: PieceTable;
  readonly #sink: ReplySink;
  readonly #connection: number;
  readonly #staging: number;
  /** For ranges that are written here, not by a receive. */
  readonly #local: IoQueue;
  /** Bytes `start` to `end` - 1 of the staging buffer are read and not understood. */
  #start = 0;
  #end = 0;
  /** Bytes that must be there before the message can be understood. */
  #needed = 4;
  /** The piece that data comes for, where in it, and how much; none while `#dataLeft` is 0. */
  #piece = 0;
  #dataAt = 0;
  #dataLeft = 0;
  /** The last chunk of the reply: after its data the piece is answered. */
  #done = false;

  constructor(options: ReplyReaderOptions) {
    const { arena } = options;
    this.#arena = arena;
    this.#view = arena.view;
    this.#pieces = options.pieces;
    this.#sink = options.sink;
    this.#connection = options.connection;
    this.#staging = options.staging;
    this.list = new IoQueue(arena.pointer(0), options.ranges);
    this.#local = new IoQueue(arena.pointer(0), options.ranges);
  }

  /** Forgets the connection that was. */
  reset(): void {
    this.#start = 0;
    this.#end = 0;
    this.#needed = 4;
    this.#dataLeft = 0;
    this.reads = 0;
    this.list.clear();
  }

  /** Lists where the next bytes go; how many fit, 0 if one call cannot take all of the list. */
  prepare(): number {
    const { list } = this;
    const data = this.#dataLeft;
    list.clear();
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
    }
    if (data > 0) {
      const requests = this.#sink.requestsOf(this.#pieces.queue[this.#piece] as number);
      this.#pieces.gather(list, requests, this.#piece, this.#dataAt, data);
    } else if (this.#start > 0 && this.#start + MAX_ERROR_BYTES > STAGING_BYTES / 2) {
      this.#compact();
    }
    const missing = this.#needed - (this.#end - this.#start);
    // What is staged beyond a message may be data, which is then copied: little, if data may come.
    const wanted = this.reads > 0 ? Math.max(missing, LOOKAHEAD) : STAGING_BYTES - this.#end;
    list.add(this.#staging + this.#end, wanted);
    return list.tail > IOV_MAX ? 0 : data + wanted;
  }

  /** Understands `bytes` bytes that were put where {@link prepare} said. @throws SluiceError `protocol` */
  take(bytes: number): void {
    let staged = bytes;
    if (this.#dataLeft > 0) {
      const data = Math.min(bytes, this.#dataLeft);
      staged -= data;
      this.#dataArrived(data);
    }
    this.#end += staged;
    for (;;) {
      const there = this.#end - this.#start;
      if (this.#dataLeft > 0) {
        if (there === 0) return;
        this.#copyStaged(Math.min(there, this.#dataLeft));
      } else if (there >= this.#needed) {
        this.#message();
      } else {
        return;
      }
    }
  }

  /** Moves what is staged to the start of the buffer. */
  #compact(): void {
    const { bytes } = this.#arena;
    bytes.copyWithin(this.#staging, this.#staging + this.#start, this.#staging + this.#end);
    this.#end -= this.#start;
    this.#start = 0;
  }

  /** Data that came together with a header. */
  #copyStaged(length: number): void {
    const list = this.#local;
    const requests = this.#sink.requestsOf(this.#pieces.queue[this.#piece] as number);
    list.clear();
    this.#pieces.gather(list, requests, this.#piece, this.#dataAt, length);
    let from = this.#staging + this.#start;
    for (let i = 0; i < list.tail; i++) {
      const bytes = list.length[i] as number;
      this.#arena.bytes.copyWithin(list.address[i] as number, from, from + bytes);
      from += bytes;
    }
    this.#start += length;
    this.#dataArrived(length);
  }

  #dataArrived(length: number): void {
    this.#dataAt += length;
    this.#dataLeft -= length;
    if (this.#dataLeft === 0 && this.#done) this.#finish(this.#piece);
  }

  /** Understands the message at the start of the staging buffer, or learns how long it is. */
  #message(): void {
    const at = this.#staging + this.#start;
    const magic = this.#view.getUint32(at);
    if (magic === nbd.NBD_SIMPLE_REPLY_MAGIC) {
      if (this.#needed < nbd.SIMPLE_REPLY_BYTES) this.#needed = nbd.SIMPLE_REPLY_BYTES;
      else this.#simple(at);
      return;
    }
    if (magic !== nbd.NBD_STRUCTURED_REPLY_MAGIC || !this.structured) {
      throw protocolError(`a reply begins with 0x${magic.toString(16)}`);
    }
    if (this.#needed < nbd.STRUCTURED_REPLY_BYTES) this.#needed = nbd.STRUCTURED_REPLY_BYTES;
    else this.#chunk(at);
  }

  /** The piece that a cookie names. */
  #find(at: number): number {
    const high = this.#view.getUint32(at);
    const piece = this.#view.getUint32(at + 4);
    const pieces = this.#pieces;
    const state = pieces.state[piece];
    if (
      piece >= pieces.slots ||
      (state !== PIECE_SENT && state !== PIECE_SENDING) ||
      pieces.generation[piece] !== high ||
      pieces.connection[piece] !== this.#connection
    ) {
      throw protocolError(
        `a reply to no request (cookie 0x${(high * TWO_32 + piece).toString(16)})`,
      );
    }
    if (state === PIECE_SENDING && pieces.command[piece] !== nbd.NBD_CMD_WRITE) {
      throw protocolError('a reply to a request that is not sent yet');
    }
    return piece;
  }

  #next(length: number): void {
    this.#start += length;
    this.#needed = 4;
  }

  #simple(at: number): void {
    const piece = this.#find(at + 8);
    const error = this.#view.getUint32(at + 4);
    const read = this.#pieces.command[piece] === nbd.NBD_CMD_READ;
    if (read && this.structured) throw protocolError('a simple reply to a read');
    this.#next(nbd.SIMPLE_REPLY_BYTES);
    if (read && error === 0) {
      this.#beginData(piece, 0, this.#pieces.length[piece] as number, true);
      return;
    }
    this.#noteError(piece, error);
    this.#finish(piece);
  }

  #chunk(at: number): void {
    const view = this.#view;
    const flags = view.getUint16(at + 4);
    const type = view.getUint16(at + 6);
    const length = view.getUint32(at + 16);
    const piece = this.#find(at + 8);
    const done = (flags & nbd.NBD_REPLY_FLAG_DONE) !== 0;
    const payload = at + nbd.STRUCTURED_REPLY_BYTES;
    if ((type & nbd.NBD_REPLY_TYPE_ERROR_BIT) !== 0) {
      this.#errorChunk(piece, type, payload, length, done);
      return;
    }
    switch (type) {
      case nbd.NBD_REPLY_TYPE_NONE:
        if (length !== 0 || !done)
          throw protocolError('a chunk of no type with content, or not last');
        this.#next(nbd.STRUCTURED_REPLY_BYTES);
        this.#finish(piece);
        return;
      case nbd.NBD_REPLY_TYPE_OFFSET_DATA: {
        if (length <= nbd.OFFSET_BYTES) throw protocolError(`a data chunk of ${length} bytes`);
        if (!this.#have(nbd.OFFSET_BYTES)) return;
        const bytes = length - nbd.OFFSET_BYTES;
        const from = this.#within(piece, payload, bytes);
        this.#next(nbd.STRUCTURED_REPLY_BYTES + nbd.OFFSET_BYTES);
        this.#beginData(piece, from, bytes, done);
        return;
      }
      case nbd.NBD_REPLY_TYPE_OFFSET_HOLE: {
        if (length !== nbd.HOLE_BYTES) throw protocolError(`a hole chunk of ${length} bytes`);
        if (!this.#have(nbd.HOLE_BYTES)) return;
        const bytes = view.getUint32(payload + nbd.OFFSET_BYTES);
        const from = this.#within(piece, payload, bytes);
        this.#next(nbd.STRUCTURED_REPLY_BYTES + nbd.HOLE_BYTES);
        this.#zero(piece, from, bytes);
        if (done) this.#finish(piece);
        return;
      }
      default:
        throw protocolError(`a chunk of unknown type ${type}`);
    }
  }

  /** True if a chunk's payload of so many bytes is staged; else asks for it. */
  #have(payload: number): boolean {
    const wanted = nbd.STRUCTURED_REPLY_BYTES + payload;
    if (this.#end - this.#start >= wanted) return true;
    this.#needed = wanted;
    return false;
  }

  /** Where in a read's data a chunk lies that begins at the offset at `at`. */
  #within(piece: number, at: number, bytes: number): number {
    const pieces = this.#pieces;
    if (pieces.command[piece] !== nbd.NBD_CMD_READ) throw protocolError('data for no read');
    const offset = this.#view.getUint32(at) * TWO_32 + this.#view.getUint32(at + 4);
    const from = offset - (pieces.offset[piece] as number);
    if (from < 0 || bytes === 0 || from + bytes > (pieces.length[piece] as number)) {
      throw protocolError(`a chunk of ${bytes} bytes at ${offset}, outside of what was asked for`);
    }
    if (bytes > (pieces.left[piece] as number)) throw protocolError('chunks that overlap');
    return from;
  }

  #errorChunk(piece: number, type: number, payload: number, length: number, done: boolean): void {
    if (length < nbd.ERROR_CHUNK_BYTES || length > MAX_ERROR_BYTES) {
      throw protocolError(`an error chunk of ${length} bytes`);
    }
    if (!this.#have(length)) return;
    const view = this.#view;
    const error = view.getUint32(payload);
    const text = view.getUint16(payload + 4);
    const known = type === nbd.NBD_REPLY_TYPE_ERROR || type === nbd.NBD_REPLY_TYPE_ERROR_OFFSET;
    const offset = type === nbd.NBD_REPLY_TYPE_ERROR_OFFSET ? nbd.OFFSET_BYTES : 0;
    if (known && nbd.ERROR_CHUNK_BYTES + text + offset !== length) {
      throw protocolError(`an error chunk of ${length} bytes with a text of ${text}`);
    }
    if (error === 0) throw protocolError('an error chunk without an error');
    this.#next(nbd.STRUCTURED_REPLY_BYTES + length);
    this.#noteError(piece, error);
    if (done) this.#finish(piece);
  }

  #noteError(piece: number, error: number): void {
    const { error: errors } = this.#pieces;
    // The first is the cause.
    if (errors[piece] === 0) errors[piece] = error > 0x7fff_ffff ? nbd.NBD_EINVAL : error;
  }

  #beginData(piece: number, from: number, bytes: number, done: boolean): void {
    const { left } = this.#pieces;
    left[piece] = (left[piece] as number) - bytes;
    this.#piece = piece;
    this.#dataAt = from;
    this.#dataLeft = bytes;
    this.#done = done;
  }

  #zero(piece: number, from: number, bytes: number): void {
    const { left } = this.#pieces;
    left[piece] = (left[piece] as number) - bytes;
    const list = this.#local;
    list.clear();
    const requests = this.#sink.requestsOf(this.#pieces.queue[piece] as number);
    this.#pieces.gather(list, requests, piece, from, bytes);
    for (let i = 0; i < list.tail; i++) {
      const address = list.address[i] as number;
      this.#arena.bytes.fill(0, address, address + (list.length[i] as number));
    }
  }

  /** All that the server has to say about a piece is said. */
  #finish(piece: number): void {
    const pieces = this.#pieces;
    const error = pieces.error[piece] as number;
    if (pieces.command[piece] === nbd.NBD_CMD_READ) {
      if (error === 0 && pieces.left[piece] !== 0) {
        throw protocolError(
          `a read of ${pieces.length[piece]} bytes ends ${pieces.left[piece]} bytes short`,
        );
      }
      this.reads--;
    }
    this.#sink.answered(piece, error);
  }
}
