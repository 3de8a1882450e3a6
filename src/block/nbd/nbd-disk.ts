/**
 * A disk that is an export of an NBD server. Guest memory goes to and comes from the socket as it is;
 * many requests are on their way, over one connection or several, and are answered in any order.
 *
 * When a connection is lost, what was on it is sent again, on another one or once there is a new one.
 * Writing the same twice does no harm; flushes go last. A request that has waited for a server for
 * longer than `reconnectMs` completes with -EIO.
 */
import { describeError, SluiceError } from '../../base/errors.ts';
import type { LogFields } from '../../base/log.ts';
import { monotonicNs } from '../../os/clock.ts';
import type { Timer } from '../../os/poll-loop.ts';
import { type StreamAddress, StreamSocket } from '../../os/stream-socket.ts';
import * as nbd from '../../spec/nbd.ts';
import type { Disk, DiskInfo, DiskLane, DiskQueue, DiskQueueOptions } from '../disk.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
  REQUEST_UNMAP,
  type RequestTable,
} from '../requests.ts';
import type { NbdExport } from './codec.ts';
import {
  type ConnectionOwner,
  type ConnectNbd,
  HEADER_BYTES,
  NbdConnection,
} from './connection.ts';
import { checkSameExport, type NbdDiskDescription } from './description.ts';
import { diskInfoOf, errnoOf } from './disk-info.ts';
import { NbdQueue, type NbdQueueOwner, STAGE_FLUSH, STAGE_NEW, STAGE_RANGE } from './nbd-queue.ts';
import { PIECE_ANSWERED, PIECE_FREE, PIECE_LOST, PIECE_SENDING, PieceTable } from './pieces.ts';
import { STAGING_BYTES } from './reply-reader.ts';

const EIO = 5;
const EROFS = 30;
const EOPNOTSUPP = 95;

/** Pieces on their way at once. */
const PIECES = 1024;
/** Segments that a request may have. */
const MAX_SEGMENTS = 2048;
/** Largest range of one command without data; every server's arithmetic holds it. */
const MAX_EFFECT_BYTES = 2 ** 30;

/** Longest pause between attempts to connect. */
const LONGEST_RETRY_MS = 5000;
/** How often the patience of those who wait is looked at: at least, and at most. */
const LONGEST_TICK_MS = 1000;
const SHORTEST_TICK_MS = 10;
const NS_PER_MS = 1e6;

/** The command of each DISK_* but the flush, which has no range. */
const COMMANDS: Readonly<Record<number, number>> = {
  [DISK_READ]: nbd.NBD_CMD_READ,
  [DISK_WRITE]: nbd.NBD_CMD_WRITE,
  [DISK_DISCARD]: nbd.NBD_CMD_TRIM,
  [DISK_WRITE_ZEROES]: nbd.NBD_CMD_WRITE_ZEROES,
};

const connectStream =
  (silenceMs: number): ConnectNbd =>
  (address: StreamAddress) =>
    new StreamSocket(address, Math.min(silenceMs, 0x7fff_ffff));

export class NbdDisk implements Disk, ConnectionOwner, NbdQueueOwner {
  readonly name: string;
  readonly info: DiskInfo;
  readonly #description: NbdDiskDescription;
  readonly #lane: DiskLane;
  readonly #pieces = new PieceTable(PIECES);
  readonly #connections: readonly NbdConnection[];
  readonly #memory: number;
  readonly #memoryBytes: number;
  readonly #queues: (NbdQueue | undefined)[] = [];
  /** Largest piece in bytes, with data and without. */
  readonly #maxPayload: number;
  readonly #maxEffect: number;
  readonly #flags: number;
  /** Requests that wait to be issued, in order: a ring. */
  #waitingQueue = new Uint16Array(0);
  #waitingSlot = new Uint32Array(0);
  #waitingHead = 0;
  #waitingCount = 0;
  /** Pieces that wait for a connection. */
  readonly #lost = new Uint32Array(PIECES);
  #lostCount = 0;
  /** Whether there was a connection when one was lost last. */
  #hadReady = false;
  /** Requests fail at once: the server has been gone for too long. */
  #failing = false;
  /** When the last connection was lost, ns; and whether the server was tried since. */
  #outageSince = monotonicNs();
  #tried = false;
  /** Writes that completed; those of them that a flush has made durable. */
  #writes = 0;
  #durable = 0;
  /** Completed writes may be lost, and no flush has told so yet. */
  #writesAtRisk = false;
  #tick: Timer | undefined;
  #told = '';
  #closed = false;

  /** @param connect another way to make connections, for tests */
  constructor(description: NbdDiskDescription, lane: DiskLane, connect?: ConnectNbd) {
    const { export: found, connections, retryMs, reconnectMs } = description;
    this.name = description.name;
    this.info = diskInfoOf(description.name, found, description.readonly);
    this.#description = description;
    this.#lane = lane;
    this.#flags = found.flags;
    const { blockBytes } = this.info;
    const whole = (bytes: number): number => Math.floor(bytes / blockBytes) * blockBytes;
    this.#maxPayload = whole(Math.min(found.maxPayload, nbd.DEFAULT_MAX_PAYLOAD));
    this.#maxEffect = whole(MAX_EFFECT_BYTES);
    this.#memoryBytes = PIECES * HEADER_BYTES + connections * STAGING_BYTES;
    this.#memory = lane.arena.allocate(this.#memoryBytes, 'sluice-nbd');
    this.#connections = Array.from(
      { length: connections },
      (_, index) =>
        new NbdConnection({
          index,
          lane,
          pieces: this.#pieces,
          owner: this,
          connect: connect ?? connectStream(description.replyMs),
          addresses: description.addresses,
          exportName: description.exportName,
          firstDelayUs: 1000 * retryMs,
          lastDelayUs: 1000 * Math.max(retryMs, Math.min(LONGEST_RETRY_MS, reconnectMs / 4)),
          headers: this.#memory,
          staging: this.#memory + PIECES * HEADER_BYTES + index * STAGING_BYTES,
          ranges: MAX_SEGMENTS,
        }),
    );
    for (const connection of this.#connections) connection.start();
  }

  /** Never called back: an export keeps its size as long as it is used. */
  onChange(): { readonly remove: () => void } {
    return { remove: () => undefined };
  }

  /** @throws SluiceError `unsupported` for requests of too many segments */
  open(options: DiskQueueOptions): DiskQueue {
    if (options.requests.segments > MAX_SEGMENTS) {
      throw new SluiceError(
        'unsupported',
        `disk ${this.name}: requests of ${options.requests.segments} segments, at most ${MAX_SEGMENTS}`,
      );
    }
    const free = this.#queues.indexOf(undefined);
    const index = free === -1 ? this.#queues.length : free;
    const queue = new NbdQueue(index, this, options);
    this.#queues[index] = queue;
    this.#growWaiting(options.requests.slots);
    return queue;
  }

  close(): void {
    if (this.#closed) return;
    if (this.#queues.some((queue) => queue !== undefined)) {
      throw new SluiceError('state', `disk ${this.name} is in use`);
    }
    this.#closed = true;
    this.#tick?.cancel();
    for (const connection of this.#connections) connection.close();
    this.#lane.arena.unmap(this.#memory, this.#memoryBytes);
  }

  // NbdQueueOwner

  enqueue(queue: number, slot: number): void {
    const tail = (this.#waitingHead + this.#waitingCount++) % this.#waitingSlot.length;
    this.#waitingQueue[tail] = queue;
    this.#waitingSlot[tail] = slot;
  }

  flush(): void {
    this.#issueAll();
    const connections = this.#connections;
    for (let i = 0; i < connections.length; i++) (connections[i] as NbdConnection).flush();
    if (this.#tick === undefined && this.#hasWork()) this.#watch();
  }

  progress(): void {
    const connections = this.#connections;
    for (let i = 0; i < connections.length; i++) (connections[i] as NbdConnection).poll();
    if (this.#waitingCount > 0 || this.#lostCount > 0) this.flush();
  }

  arm(): boolean {
    let more = false;
    for (const connection of this.#connections) more = connection.arm() || more;
    return more;
  }

  disarm(): void {
    for (const connection of this.#connections) connection.disarm();
  }

  release(queue: number): void {
    this.#queues[queue] = undefined;
  }

  // ConnectionOwner

  requestsOf(queue: number): RequestTable {
    return this.#queue(queue).requests;
  }

  negotiated(found: NbdExport): void {
    checkSameExport(this.#description, found);
  }

  ready(connection: NbdConnection): void {
    this.#hadReady = true;
    this.#tried = true;
    this.#failing = false;
    if (this.#told !== '') {
      this.#told = '';
      this.#lane.log.info('connected to the NBD server again', this.#fields(connection));
    }
    this.flush();
  }

  lost(connection: NbdConnection, reason: SluiceError): void {
    const now = monotonicNs();
    const inFlight = this.#takeBack(connection.index, now);
    if (this.#hadReady && !this.#anyReady()) this.#outageSince = now;
    this.#hadReady = this.#anyReady();
    this.#tried = true;
    this.#tellLoss(connection, reason, inFlight);
    if (this.#description.reconnectMs === 0) this.#checkPatience();
    if (this.#hasWork()) this.#watch();
  }

  answered(piece: number, error: number): void {
    if (error === nbd.NBD_ESHUTDOWN) {
      throw new SluiceError('state', 'the server is shutting down');
    }
    const pieces = this.#pieces;
    this.#connectionOf(piece).proved();
    if (pieces.state[piece] === PIECE_SENDING) {
      pieces.state[piece] = PIECE_ANSWERED;
      pieces.error[piece] = error;
      return;
    }
    this.#connectionOf(piece).inFlight--;
    this.#finishPiece(piece, error);
  }

  answeredPieceSent(piece: number): void {
    this.#connectionOf(piece).inFlight--;
    this.#finishPiece(piece, this.#pieces.error[piece] as number);
  }

  // Requests and their pieces

  #issueAll(): void {
    if (!this.#anyReady()) {
      if (this.#failing) this.#failAll();
      return;
    }
    if (this.#lostCount > 0) this.#issueLost();
    if (this.#lostCount > 0) return;
    while (this.#waitingCount > 0) {
      const head = this.#waitingHead;
      const queue = this.#queue(this.#waitingQueue[head] as number);
      const slot = this.#waitingSlot[head] as number;
      if (!this.#issueRequest(queue, slot)) return;
      this.#shiftWaiting(queue, slot);
    }
  }

  #shiftWaiting(queue: NbdQueue, slot: number): void {
    this.#waitingHead = (this.#waitingHead + 1) % this.#waitingSlot.length;
    this.#waitingCount--;
    queue.waiting[slot] = 0;
    this.#settle(queue, slot);
  }

  /** What of the lost pieces finds a connection goes there. */
  #issueLost(): void {
    const pieces = this.#pieces;
    let issued = 0;
    for (; issued < this.#lostCount; issued++) {
      const piece = this.#lost[issued] as number;
      const { requests } = this.#queue(pieces.queue[piece] as number);
      const connection = this.#choose(requests.count[pieces.slot[piece] as number] as number);
      if (connection === undefined) break;
      connection.issue(piece);
    }
    this.#lost.copyWithin(0, issued, this.#lostCount);
    this.#lostCount -= issued;
  }

  /** Issues what is left of a request; false if some of it has to wait. */
  #issueRequest(queue: NbdQueue, slot: number): boolean {
    const { requests } = queue;
    if (queue.result[slot] !== 0) return true;
    if (queue.stage[slot] === STAGE_FLUSH) {
      return this.#issuePiece(queue, slot, nbd.NBD_CMD_FLUSH, 0, 0, 0);
    }
    const op = requests.op[slot] as number;
    if (queue.stage[slot] === STAGE_NEW) {
      queue.stage[slot] = STAGE_RANGE;
      const refusal = this.#refusal(op);
      if (refusal !== 0) {
        queue.result[slot] = refusal;
        return true;
      }
    }
    if (op === DISK_FLUSH) {
      if ((this.#flags & nbd.NBD_FLAG_SEND_FLUSH) === 0) return true;
      return this.#issuePiece(queue, slot, nbd.NBD_CMD_FLUSH, 0, 0, 0);
    }
    const bytes = requests.bytes[slot] as number;
    const most = op === DISK_READ || op === DISK_WRITE ? this.#maxPayload : this.#maxEffect;
    let issued = queue.issued[slot] as number;
    while (issued < bytes) {
      const length = Math.min(most, bytes - issued);
      const flags = this.#commandFlags(op, requests.flags[slot] as number);
      if (!this.#issuePiece(queue, slot, COMMANDS[op] as number, flags, issued, length)) {
        return false;
      }
      issued += length;
      queue.issued[slot] = issued;
    }
    return true;
  }

  /** Why a request cannot be done here, a negative errno; 0: it can. */
  #refusal(op: number): number {
    if (op !== DISK_READ && op !== DISK_FLUSH && this.info.readonly) return -EROFS;
    if (op === DISK_DISCARD && this.info.discardBytes === 0) return -EOPNOTSUPP;
    return op === DISK_WRITE_ZEROES && !this.info.writeZeroes ? -EOPNOTSUPP : 0;
  }

  #commandFlags(op: number, flags: number): number {
    let command = 0;
    if (op !== DISK_READ && (flags & REQUEST_FUA) !== 0 && this.#knowsFua) {
      command |= nbd.NBD_CMD_FLAG_FUA;
    }
    // Without it the server may give the blocks back; the guest wants to keep them.
    if (op === DISK_WRITE_ZEROES && (flags & REQUEST_UNMAP) === 0) {
      command |= nbd.NBD_CMD_FLAG_NO_HOLE;
    }
    return command;
  }

  get #knowsFua(): boolean {
    return (this.#flags & nbd.NBD_FLAG_SEND_FUA) !== 0;
  }

  #issuePiece(
    queue: NbdQueue,
    slot: number,
    command: number,
    flags: number,
    start: number,
    length: number,
  ): boolean {
    const pieces = this.#pieces;
    if (pieces.free === 0) return false;
    const connection = this.#choose(queue.requests.count[slot] as number);
    if (connection === undefined) return false;
    const piece = pieces.take();
    pieces.queue[piece] = queue.index;
    pieces.slot[piece] = slot;
    pieces.command[piece] = command;
    pieces.flags[piece] = flags;
    pieces.start[piece] = start;
    pieces.offset[piece] = length === 0 ? 0 : (queue.requests.offset[slot] as number) + start;
    pieces.length[piece] = length;
    pieces.writes[piece] = this.#writes;
    queue.outstanding[slot] = (queue.outstanding[slot] as number) + 1;
    connection.issue(piece);
    return true;
  }

  /** The connection with the fewest pieces that has room for so many ranges. */
  #choose(ranges: number): NbdConnection | undefined {
    const connections = this.#connections;
    let best: NbdConnection | undefined;
    for (let i = 0; i < connections.length; i++) {
      const connection = connections[i] as NbdConnection;
      if (!connection.hasRoom(ranges)) continue;
      if (best === undefined || connection.inFlight < best.inFlight) best = connection;
    }
    return best;
  }

  #finishPiece(piece: number, error: number): void {
    const pieces = this.#pieces;
    const queue = this.#queue(pieces.queue[piece] as number);
    const slot = pieces.slot[piece] as number;
    const command = pieces.command[piece];
    if (error !== 0) {
      if (queue.result[slot] === 0) queue.result[slot] = -errnoOf(error);
    } else if (command === nbd.NBD_CMD_FLUSH) {
      if (this.#writesAtRisk) {
        this.#writesAtRisk = false;
        queue.result[slot] = -EIO;
      }
      this.#durable = Math.max(this.#durable, pieces.writes[piece] as number);
    } else if (command !== nbd.NBD_CMD_READ) {
      const fua = ((pieces.flags[piece] as number) & nbd.NBD_CMD_FLAG_FUA) !== 0;
      if (!fua) this.#writes++;
    }
    this.#endPiece(piece, queue, slot);
  }

  #endPiece(piece: number, queue: NbdQueue, slot: number): void {
    this.#pieces.release(piece);
    queue.outstanding[slot] = (queue.outstanding[slot] as number) - 1;
    this.#settle(queue, slot);
  }

  /** Completes a request of which nothing is on its way and nothing waits. */
  #settle(queue: NbdQueue, slot: number): void {
    if (queue.outstanding[slot] !== 0 || queue.waiting[slot] !== 0) return;
    const { op, flags } = queue.requests;
    const durable =
      ((flags[slot] as number) & REQUEST_FUA) === 0 || this.#knowsFua || op[slot] === DISK_READ;
    if (
      !durable &&
      this.info.volatileCache &&
      op[slot] !== DISK_FLUSH &&
      queue.result[slot] === 0 &&
      queue.stage[slot] === STAGE_RANGE
    ) {
      queue.stage[slot] = STAGE_FLUSH;
      queue.waiting[slot] = 1;
      this.enqueue(queue.index, slot);
      return;
    }
    queue.done(slot);
  }

  // Losses

  /** Takes the pieces of a lost connection back, flushes behind all else; returns how many. */
  #takeBack(connection: number, now: number): number {
    let count = 0;
    for (const flushes of [false, true]) {
      for (let piece = 0; piece < PIECES; piece++) {
        if (this.#takeBackPiece(piece, connection, flushes, now)) count++;
      }
    }
    return count;
  }

  #takeBackPiece(piece: number, connection: number, flush: boolean, now: number): boolean {
    const pieces = this.#pieces;
    const state = pieces.state[piece];
    if (state === PIECE_FREE || state === PIECE_LOST) return false;
    if (pieces.connection[piece] !== connection) return false;
    if ((pieces.command[piece] === nbd.NBD_CMD_FLUSH) !== flush) return false;
    if (state === PIECE_ANSWERED) {
      this.#finishPiece(piece, pieces.error[piece] as number);
      return false;
    }
    pieces.state[piece] = PIECE_LOST;
    this.#lost[this.#lostCount++] = piece;
    const { since } = this.#queue(pieces.queue[piece] as number);
    const slot = pieces.slot[piece] as number;
    if (since[slot] === 0) since[slot] = now;
    return true;
  }

  #tellLoss(connection: NbdConnection, reason: SluiceError, inFlight: number): void {
    const { log } = this.#lane;
    const text = describeError(reason);
    const fields = { ...this.#fields(connection), in_flight: inFlight, reason: text };
    if (this.#told !== text) {
      this.#told = text;
      log.warn('the connection to the NBD server is lost', fields);
    }
    if (this.#writes <= this.#durable) return;
    this.#durable = this.#writes;
    this.#writesAtRisk = this.#description.afterLoss === 'fail';
    log.warn(
      this.#writesAtRisk
        ? 'completed writes had not been flushed: the next flush fails'
        : 'completed writes had not been flushed: they are lost if the server has crashed',
      fields,
    );
  }

  #watch(): void {
    if (this.#tick !== undefined || this.#closed) return;
    const { reconnectMs, replyMs } = this.#description;
    const wanted = Math.min(reconnectMs, replyMs) / 4;
    const ms = Math.max(SHORTEST_TICK_MS, Math.min(wanted, LONGEST_TICK_MS));
    this.#tick = this.#lane.loop.setTimer(1000 * ms, () => {
      this.#tick = undefined;
      this.#checkPatience();
      if (this.#hasWork()) this.#watch();
    });
  }

  /** Gives up what has waited for too long. */
  #checkPatience(): void {
    const now = monotonicNs();
    const { reconnectMs, replyMs } = this.#description;
    for (const connection of this.#connections) {
      if (!connection.isReady || connection.inFlight === 0) continue;
      if (now - connection.heardAt < replyMs * NS_PER_MS) continue;
      connection.fail(new SluiceError('state', `no answer for ${replyMs / 1000} s`));
    }
    const limit = reconnectMs * NS_PER_MS;
    if (this.#tried && !this.#anyReady() && now - this.#outageSince >= limit) {
      this.#giveUp();
      return;
    }
    this.#failExpired(now - limit);
    this.flush();
  }

  #giveUp(): void {
    if (!this.#failing) {
      this.#lane.log.error('the NBD server is gone: requests fail until it is back', {
        disk: this.name,
        server: this.#description.uri,
        waited_s: this.#description.reconnectMs / 1000,
      });
    }
    this.#failing = true;
    this.#failAll();
  }

  /** Fails everything that waits; nothing is on a connection. */
  #failAll(): void {
    while (this.#lostCount > 0) this.#failPiece(this.#lost[--this.#lostCount] as number);
    while (this.#waitingCount > 0) {
      const queue = this.#queue(this.#waitingQueue[this.#waitingHead] as number);
      const slot = this.#waitingSlot[this.#waitingHead] as number;
      queue.result[slot] = -EIO;
      this.#shiftWaiting(queue, slot);
    }
  }

  /** Fails requests that were first lost before a moment, though there are connections. */
  #failExpired(before: number): void {
    const pieces = this.#pieces;
    const expired = (piece: number): boolean => {
      const { since } = this.#queue(pieces.queue[piece] as number);
      const at = since[pieces.slot[piece] as number] as number;
      return pieces.state[piece] !== PIECE_FREE && at !== 0 && at <= before;
    };
    for (let piece = 0; piece < PIECES; piece++) {
      if (pieces.state[piece] === PIECE_LOST || !expired(piece)) continue;
      // The server may still take from its memory, or send into it.
      this.#connectionOf(piece).fail(
        new SluiceError('state', 'a request was lost again and again, for too long'),
      );
    }
    const lost = this.#lost.slice(0, this.#lostCount);
    const kept = lost.filter((piece) => !expired(piece));
    this.#lost.set(kept);
    this.#lostCount = kept.length;
    for (const piece of lost) if (!kept.includes(piece)) this.#failPiece(piece);
  }

  #failPiece(piece: number): void {
    const queue = this.#queue(this.#pieces.queue[piece] as number);
    const slot = this.#pieces.slot[piece] as number;
    queue.result[slot] = -EIO;
    this.#endPiece(piece, queue, slot);
  }

  // Small things

  #queue(index: number): NbdQueue {
    return this.#queues[index] as NbdQueue;
  }

  #connectionOf(piece: number): NbdConnection {
    return this.#connections[this.#pieces.connection[piece] as number] as NbdConnection;
  }

  #anyReady(): boolean {
    const connections = this.#connections;
    for (let i = 0; i < connections.length; i++) {
      if ((connections[i] as NbdConnection).isReady) return true;
    }
    return false;
  }

  #hasWork(): boolean {
    return this.#waitingCount > 0 || this.#pieces.free < PIECES;
  }

  #fields(connection: NbdConnection): LogFields {
    return { disk: this.name, server: this.#description.uri, connection: connection.index };
  }

  #growWaiting(slots: number): void {
    const queues = new Uint16Array(this.#waitingQueue.length + slots);
    const all = new Uint32Array(this.#waitingSlot.length + slots);
    for (let i = 0; i < this.#waitingCount; i++) {
      const from = (this.#waitingHead + i) % this.#waitingSlot.length;
      queues[i] = this.#waitingQueue[from] as number;
      all[i] = this.#waitingSlot[from] as number;
    }
    this.#waitingQueue = queues;
    this.#waitingSlot = all;
    this.#waitingHead = 0;
  }
}
