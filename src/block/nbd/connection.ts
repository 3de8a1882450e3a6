/**
 * One connection of a lane to an NBD server: connects, negotiates, sends pieces, reads replies, and
 * does so again when it is lost. It never blocks; it is driven by the loop's epoll, by timers, and
 * by {@link NbdConnection.poll}.
 */
import { SluiceError } from '../../base/errors.ts';
import { EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '../../os/epoll.ts';
import { IoQueue } from '../../os/io-queue.ts';
import type { Timer } from '../../os/poll-loop.ts';
import type { StreamAddress } from '../../os/stream-socket.ts';
import { NBD_CMD_READ, NBD_CMD_WRITE, REQUEST_BYTES } from '../../spec/nbd.ts';
import type { DiskLane } from '../disk.ts';
import { encodeDisconnect, type NbdExport, writeRequest } from './codec.ts';
import { NbdNegotiation } from './negotiation.ts';
import { PIECE_ANSWERED, PIECE_SENDING, PIECE_SENT, type PieceTable } from './pieces.ts';
import { ReplyReader, type ReplySink, STAGING_BYTES } from './reply-reader.ts';

/** What a connection sends and receives through: a {@link StreamSocket}, or a test's. */
export interface NbdSocket {
  /** To wait on; -1: there is nothing to wait on, polling drives the connection. */
  readonly fd: number;
  /** Why it ended. */
  readonly reason: string;
  connected(): boolean;
  send(list: IoQueue): number;
  receive(list: IoQueue): number;
  close(): void;
}

export type ConnectNbd = (address: StreamAddress) => NbdSocket;

/** Who uses a connection. */
export interface ConnectionOwner extends ReplySink {
  /** The handshake is done. @throws SluiceError if the export cannot be used */
  negotiated(found: NbdExport): void;
  /** Pieces can be issued. */
  ready(connection: NbdConnection): void;
  /** It is not ready any more; what was on it has to be sent again. It tries again by itself. */
  lost(connection: NbdConnection, reason: SluiceError): void;
  /** All of an answered piece has been sent at last. */
  answeredPieceSent(piece: number): void;
}

export interface ConnectionOptions {
  readonly index: number;
  readonly lane: DiskLane;
  readonly pieces: PieceTable;
  readonly owner: ConnectionOwner;
  readonly connect: ConnectNbd;
  readonly addresses: readonly StreamAddress[];
  readonly exportName: string;
  /** Between attempts to connect: the first pause, doubling up to the last. */
  readonly firstDelayUs: number;
  readonly lastDelayUs: number;
  /** Arena addresses: of {@link HEADER_BYTES} bytes a piece, and of the reader's staging buffer. */
  readonly headers: number;
  readonly staging: number;
  /** Ranges that one piece may have. */
  readonly ranges: number;
}

/** Distance of request headers: 28 bytes, aligned. */
export const HEADER_BYTES = 32;

/** Connecting and negotiating must be done in this time. */
const CONNECT_US = 10_000_000;
/** Receives in one turn. */
const MAX_RECEIVES = 64;
/**
 * A receive that finds nothing costs a system call: after it, up to this many turns of the loop pass
 * without one, doubling each time. (A wake-up from sleep is always followed by one.)
 */
const MAX_PAUSE = 32;
/** Answers of a handshake are received here, of the staging buffer; its output is sent from the rest. */
const HANDSHAKE_INPUT = STAGING_BYTES / 2;

const EVENTS = EPOLLIN | EPOLLRDHUP | EPOLLET;

type State = 'waiting' | 'connecting' | 'negotiating' | 'ready' | 'closed';

export class NbdConnection {
  readonly index: number;
  /** Pieces that are on it. */
  inFlight = 0;
  readonly #lane: DiskLane;
  readonly #pieces: PieceTable;
  readonly #owner: ConnectionOwner;
  readonly #connect: ConnectNbd;
  readonly #options: ConnectionOptions;
  readonly #reader: ReplyReader;
  readonly #send: IoQueue;
  /** Pieces that are not wholly sent, in order, and where in the list each ends. */
  readonly #sending: Uint32Array;
  readonly #sendingEnd: Uint32Array;
  #sendingHead = 0;
  #sendingTail = 0;
  /** When the server was last heard, in ns of the loop's clock. */
  readonly #heard = new Float64Array(1);
  #state: State = 'waiting';
  #socket: NbdSocket | undefined;
  #negotiation: NbdNegotiation | undefined;
  #attempts = 0;
  #delayUs = 0;
  #timer: Timer | undefined;
  /** There may be something to receive: epoll told so, or the last look did not come to an end. */
  #readable = false;
  /** The peer has closed: from now on a look ends only with the connection. */
  #hangup = false;
  /** The kernel took less than there is. */
  #blocked = false;
  #pause = 0;
  #nextPause = 1;

  constructor(options: ConnectionOptions) {
    const { index, lane, pieces, owner, staging, ranges } = options;
    this.index = index;
    this.#options = options;
    this.#lane = lane;
    this.#pieces = pieces;
    this.#owner = owner;
    this.#connect = options.connect;
    this.#reader = new ReplyReader({
      arena: lane.arena,
      pieces,
      sink: owner,
      connection: index,
      staging,
      ranges: ranges + 1,
    });
    // Room for the longest piece behind as many short ones as there are.
    this.#send = new IoQueue(lane.arena.pointer(0), 2 * (ranges + 1) + pieces.slots);
    this.#sending = new Uint32Array(this.#send.capacity);
    this.#sendingEnd = new Uint32Array(this.#send.capacity);
  }

  get isReady(): boolean {
    return this.#state === 'ready';
  }

  /** When the server was last heard, or had nothing to answer; ns of the loop's clock. */
  get heardAt(): number {
    return this.#heard[0] as number;
  }

  /** Begins to connect. */
  start(): void {
    this.#retryIn(0);
  }

  /** True if a piece with so many ranges of data can be issued. */
  hasRoom(ranges: number): boolean {
    return this.#state === 'ready' && this.#send.room > ranges;
  }

  /** Queues a piece; {@link flush} sends it. */
  issue(piece: number): void {
    const pieces = this.#pieces;
    const generation = ((pieces.generation[piece] as number) + 1) >>> 0;
    const command = pieces.command[piece] as number;
    const length = pieces.length[piece] as number;
    const header = this.#options.headers + piece * HEADER_BYTES;
    if (this.inFlight++ === 0) this.#heard[0] = this.#lane.loop.now;
    pieces.generation[piece] = generation;
    pieces.connection[piece] = this.index;
    pieces.state[piece] = PIECE_SENDING;
    pieces.error[piece] = 0;
    pieces.left[piece] = length;
    writeRequest(
      this.#lane.arena.view,
      header,
      pieces.flags[piece] as number,
      command,
      generation,
      piece,
      pieces.offset[piece] as number,
      length,
    );
    this.#send.add(header, REQUEST_BYTES);
    if (command === NBD_CMD_WRITE) {
      const requests = this.#owner.requestsOf(pieces.queue[piece] as number);
      pieces.gather(this.#send, requests, piece, 0, length);
    } else if (command === NBD_CMD_READ) {
      this.#reader.reads++;
    }
    const tail = this.#sendingTail++;
    this.#sending[tail] = piece;
    this.#sendingEnd[tail] = this.#send.tail;
  }

  /** Sends what was issued. */
  flush(): void {
    if (this.#state === 'ready' && !this.#blocked && !this.#send.empty) this.#sendAll();
  }

  /** Looks for replies, and goes on with sending. */
  poll(): void {
    if (this.#state !== 'ready') {
      if (this.#socket?.fd === -1) this.#drive(EPOLLIN | EPOLLOUT);
      return;
    }
    if (!this.#readable) {
      if (this.inFlight === 0) return;
      if (this.#pause > 0) {
        this.#pause--;
        return;
      }
    }
    if (this.#blocked) this.#sendAll();
    if (this.#state === 'ready') this.#receiveAll();
  }

  /** Looks once more; true if there is so much that it could not be read to its end. */
  arm(): boolean {
    if (this.#state === 'ready' && this.#readable) this.#receiveAll();
    return this.#state === 'ready' && this.#readable;
  }

  disarm(): void {
    this.#pause = 0;
  }

  /** The server has answered a request: the next loss is a new one. */
  proved(): void {
    this.#delayUs = 0;
  }

  /** Ends the connection and begins anew. */
  fail(reason: SluiceError): void {
    if (this.#state === 'closed') return;
    const delayUs = this.#delayUs;
    const { firstDelayUs, lastDelayUs } = this.#options;
    this.#delayUs = Math.min(lastDelayUs, Math.max(firstDelayUs, 2 * delayUs));
    this.#disconnect();
    this.#state = 'waiting';
    this.#owner.lost(this, reason);
    this.#retryIn(delayUs);
  }

  /** Ends it for good; tells the server, if that can be done at once. */
  close(): void {
    if (this.#state === 'ready' && this.#send.empty) {
      const { arena } = this.#lane;
      const bytes = encodeDisconnect();
      arena.bytes.set(bytes, this.#options.staging);
      this.#send.add(this.#options.staging, bytes.length);
      this.#socket?.send(this.#send);
    }
    this.#disconnect();
    this.#state = 'closed';
  }

  #disconnect(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const socket = this.#socket;
    if (socket !== undefined) {
      if (socket.fd >= 0) this.#lane.loop.epoll.remove(socket.fd);
      socket.close();
    }
    this.#socket = undefined;
    this.#negotiation = undefined;
    this.#reader.reset();
    this.#send.clear();
    this.#sendingHead = 0;
    this.#sendingTail = 0;
    this.inFlight = 0;
    this.#readable = false;
    this.#hangup = false;
    this.#blocked = false;
  }

  #retryIn(delayUs: number): void {
    this.#timer = this.#lane.loop.setTimer(delayUs, () => this.#begin());
  }

  #begin(): void {
    const { addresses, exportName } = this.#options;
    const address = addresses[this.#attempts++ % addresses.length];
    if (address === undefined) return;
    this.#state = 'connecting';
    this.#timer = this.#lane.loop.setTimer(CONNECT_US, () => {
      this.fail(new SluiceError('state', `${address.text}: no connection in time`));
    });
    try {
      this.#negotiation = new NbdNegotiation(exportName, 'go');
      this.#socket = this.#connect(address);
      const { fd } = this.#socket;
      // Level-triggered until the handshake is done: each event is followed by one step.
      if (fd >= 0) this.#lane.loop.epoll.add(fd, EPOLLOUT, (events) => this.#event(events));
    } catch (error) {
      this.#failBy(error);
    }
  }

  #event(events: number): void {
    if (this.#state !== 'ready') {
      this.#drive(events);
      return;
    }
    if ((events & ~EPOLLOUT) !== 0) this.#readable = true;
    if ((events & ~(EPOLLOUT | EPOLLIN)) !== 0) this.#hangup = true;
    if ((events & EPOLLOUT) !== 0 && this.#blocked) this.#sendAll();
  }

  /** One step of the handshake. */
  #drive(events: number): void {
    try {
      if (this.#state === 'connecting') this.#connected();
      if (this.#state === 'negotiating') this.#negotiate(events);
    } catch (error) {
      this.#failBy(error);
    }
  }

  #connected(): void {
    const socket = this.#socket;
    if (socket === undefined) return;
    if (!socket.connected()) throw this.#ended(socket);
    this.#state = 'negotiating';
    if (socket.fd >= 0) this.#lane.loop.epoll.modify(socket.fd, EPOLLIN | EPOLLRDHUP);
  }

  #negotiate(events: number): void {
    const socket = this.#socket;
    const negotiation = this.#negotiation;
    if (socket === undefined || negotiation === undefined) return;
    const { staging } = this.#options;
    const { arena } = this.#lane;
    if ((events & ~EPOLLOUT) !== 0) {
      const { list } = this.#reader;
      list.clear();
      list.add(staging, HANDSHAKE_INPUT);
      const received = socket.receive(list);
      if (received === -1) throw this.#ended(socket);
      if (received > 0) negotiation.push(arena.bytes.slice(staging, staging + received));
    }
    const output = negotiation.take();
    if (output.length > 0) {
      if (!this.#send.empty || output.length > STAGING_BYTES - HANDSHAKE_INPUT) {
        throw new SluiceError('protocol', 'the server answers what it was not asked yet');
      }
      arena.bytes.set(output, staging + HANDSHAKE_INPUT);
      this.#send.add(staging + HANDSHAKE_INPUT, output.length);
    }
    if (!this.#send.empty) {
      const sent = socket.send(this.#send);
      if (sent === -1) throw this.#ended(socket);
      this.#send.consume(sent);
    }
    const found = negotiation.result;
    if (found !== undefined) {
      this.#becomeReady(socket, found);
    } else if (socket.fd >= 0) {
      const more = this.#send.empty ? 0 : EPOLLOUT;
      this.#lane.loop.epoll.modify(socket.fd, EPOLLIN | EPOLLRDHUP | more);
    }
  }

  #becomeReady(socket: NbdSocket, found: NbdExport): void {
    this.#owner.negotiated(found);
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#negotiation = undefined;
    this.#reader.reset();
    this.#reader.structured = found.structured;
    this.#state = 'ready';
    this.#readable = true;
    if (socket.fd >= 0) this.#lane.loop.epoll.modify(socket.fd, EVENTS);
    this.#owner.ready(this);
  }

  #sendAll(): void {
    const socket = this.#socket as NbdSocket;
    const list = this.#send;
    let sent = 0;
    while (!list.empty) {
      sent = socket.send(list);
      if (sent <= 0) break;
      list.consume(sent);
      this.#noteSent();
    }
    if (sent === -1) {
      this.fail(this.#ended(socket));
      return;
    }
    const blocked = !list.empty;
    if (blocked === this.#blocked) return;
    this.#blocked = blocked;
    if (socket.fd >= 0) {
      this.#lane.loop.epoll.modify(socket.fd, blocked ? EVENTS | EPOLLOUT : EVENTS);
    }
  }

  /** Pieces behind which the list has come are sent. */
  #noteSent(): void {
    const list = this.#send;
    const { state } = this.#pieces;
    while (this.#sendingHead < this.#sendingTail) {
      const head = this.#sendingHead;
      if (!list.empty && list.head < (this.#sendingEnd[head] as number)) return;
      this.#sendingHead = head + 1;
      const piece = this.#sending[head] as number;
      if (state[piece] === PIECE_ANSWERED) this.#owner.answeredPieceSent(piece);
      else state[piece] = PIECE_SENT;
    }
    this.#sendingHead = 0;
    this.#sendingTail = 0;
  }

  #receiveAll(): void {
    const socket = this.#socket as NbdSocket;
    const reader = this.#reader;
    try {
      for (let i = 0; i < MAX_RECEIVES; i++) {
        const wanted = reader.prepare();
        const received = socket.receive(reader.list);
        if (received === 0) {
          this.#readable = false;
          this.#pause = this.#nextPause;
          this.#nextPause = Math.min(2 * this.#nextPause, MAX_PAUSE);
          return;
        }
        if (received === -1) throw this.#ended(socket);
        this.#nextPause = 1;
        this.#heard[0] = this.#lane.loop.now;
        reader.take(received);
        // The socket was emptied, and what comes later is a new event (epoll(7)).
        if (received < wanted && !this.#hangup && socket.fd >= 0) {
          this.#readable = false;
          return;
        }
      }
      this.#readable = true;
    } catch (error) {
      this.#failBy(error);
    }
  }

  #ended(socket: NbdSocket): SluiceError {
    return new SluiceError('state', socket.reason);
  }

  /** What Sluice throws on purpose ends the connection; anything else is a fault of the program. */
  #failBy(error: unknown): void {
    if (!(error instanceof SluiceError)) throw error;
    this.fail(error);
  }
}
