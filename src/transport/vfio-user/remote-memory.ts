/**
 * Guest memory without a descriptor, reached by DMA_READ and DMA_WRITE: requests from us to the client
 * on the connection that carries its own. Nobody waits for an answer: {@link DmaDomain.complete} is told
 * when it comes.
 */
import type { Arena } from '../../memory/arena.ts';
import type { RemoteMemory } from '../../memory/dma-domain.ts';
import * as vfu from '../../spec/vfio-user.ts';
import { protocolError } from '../protocol-error.ts';
import { commandName, type Message, putHeader, putU64 } from './codec.ts';

/** Requests that may be under way: what a device has no more of in flight than it has descriptors. */
export const MAX_DMA_REQUESTS = 1024;

interface Request {
  readonly command: number;
  readonly iova: number;
  readonly length: number;
  /** Arena address of what is read. */
  readonly lane: number;
  readonly operation: number;
}

export interface RemoteMemoryWiring {
  readonly arena: Arena;
  /** Sends a message. False: the client has gone. */
  readonly send: (bytes: Uint8Array) => boolean;
  readonly complete: (operation: number, ok: boolean) => void;
}

export class MessageMemory implements RemoteMemory {
  /** The client's max_data_xfer_size, once it is known. */
  maxBytes = 0;
  readonly #wiring: RemoteMemoryWiring;
  readonly #requests = new Map<number, Request>();
  #nextId = 0;
  #closed = false;

  constructor(wiring: RemoteMemoryWiring) {
    this.#wiring = wiring;
  }

  /** Requests that were not answered yet. */
  get pending(): number {
    return this.#requests.size;
  }

  read(iova: number, length: number, to: number, operation: number): boolean {
    return this.#send({ command: vfu.VFIO_USER_DMA_READ, iova, length, lane: to, operation });
  }

  write(iova: number, length: number, from: number, operation: number): boolean {
    return this.#send({ command: vfu.VFIO_USER_DMA_WRITE, iova, length, lane: from, operation });
  }

  #send(request: Request): boolean {
    if (this.#closed || this.maxBytes === 0 || this.#requests.size >= MAX_DMA_REQUESTS)
      return false;
    const { command, iova, length, lane, operation: _ } = request;
    do this.#nextId = (this.#nextId + 1) & 0xffff;
    while (this.#requests.has(this.#nextId));
    const isWrite = command === vfu.VFIO_USER_DMA_WRITE;
    const head = vfu.HEADER_BYTES + vfu.DMA_ACCESS_BYTES;
    const bytes = new Uint8Array(head + (isWrite ? length : 0));
    const view = new DataView(bytes.buffer);
    putHeader(view, this.#nextId, command, bytes.length, vfu.FLAG_TYPE_COMMAND, 0);
    putU64(view, vfu.HEADER_BYTES, iova);
    putU64(view, vfu.HEADER_BYTES + 8, length);
    if (isWrite) bytes.set(this.#wiring.arena.bytes.subarray(lane, lane + length), head);
    if (!this.#wiring.send(bytes)) return false;
    this.#requests.set(this.#nextId, request);
    return true;
  }

  /**
   * Takes a reply of the client's.
   * @throws SluiceError `protocol` for one to nothing that was asked.
   */
  reply(message: Message): void {
    const request = this.#requests.get(message.id);
    if (request === undefined || request.command !== message.command) {
      throw protocolError(`a reply to ${commandName(message.command)} that nobody waits for`);
    }
    this.#requests.delete(message.id);
    this.#wiring.complete(request.operation, this.#accept(request, message));
  }

  /** Checks a reply and takes what was read. */
  #accept({ command, iova, length, lane }: Request, message: Message): boolean {
    if ((message.flags & vfu.FLAG_ERROR) !== 0) return false;
    const isRead = command === vfu.VFIO_USER_DMA_READ;
    const { view, at } = message;
    const isShaped = isRead
      ? message.length === vfu.DMA_ACCESS_BYTES + length
      : message.length === vfu.DMA_WRITE_REPLY_BYTES || message.length === vfu.DMA_ACCESS_BYTES;
    if (!isShaped) return false;
    const isSame =
      view.getBigUint64(at, true) === BigInt(iova) && view.getUint32(at + 8, true) === length;
    if (!isSame) return false;
    if (isRead) {
      const from = at + vfu.DMA_ACCESS_BYTES;
      this.#wiring.arena.bytes.set(message.bytes.subarray(from, from + length), lane);
    }
    return true;
  }

  /**
   * Gives up on all that was asked: it failed, as the device sees it. Replies that come all the same
   * are dropped.
   */
  abandon(): void {
    for (const [id, request] of this.#requests) {
      if (request.operation === ABANDONED) continue;
      this.#requests.set(id, { ...request, operation: ABANDONED, length: 0 });
      this.#wiring.complete(request.operation, false);
    }
  }

  close(): void {
    this.#closed = true;
    this.abandon();
    this.#requests.clear();
  }
}

/** No operation has this number. */
const ABANDONED = -1;
