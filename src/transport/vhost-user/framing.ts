/**
 * Messages on a stream: taken apart at their boundaries, however the bytes arrive, and sent whole,
 * however slowly they leave.
 *
 * The header is read first and alone, then the payload and no more: descriptors that arrive with
 * any of these bytes belong to this message.
 */
import { HEADER_BYTES } from '../../spec/vhost-user.ts';
import type { ByteChannel } from '../channel.ts';
import { FdBag } from '../fd-bag.ts';
import {
  decodeHeader,
  type Header,
  MAX_MESSAGE_FDS,
  MAX_PAYLOAD_BYTES,
  protocolError,
} from './codec.ts';

/** A message as it came; whoever got it closes the bag. */
export interface RawMessage extends Header {
  /** Good until the next message is read. */
  readonly payload: Uint8Array;
  readonly fds: FdBag;
}

export class MessageReader {
  readonly #channel: ByteChannel;
  readonly #name: (request: number) => string;
  readonly #buffer = new Uint8Array(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  #filled = 0;
  #header: Header | undefined;
  #fds = new FdBag();

  /** `name` turns a request's number into its name, for errors. */
  constructor(channel: ByteChannel, name: (request: number) => string) {
    this.#channel = channel;
    this.#name = name;
  }

  /**
   * The next whole message; undefined if it is not all there yet; 'gone' when the peer has closed
   * between two messages.
   * @throws SluiceError `protocol`: the stream cannot be understood any more.
   */
  read(): RawMessage | 'gone' | undefined {
    for (;;) {
      const wanted = HEADER_BYTES + (this.#header?.size ?? 0);
      if (this.#header !== undefined && this.#filled === wanted) return this.#finish(this.#header);
      const received = this.#channel.receive(this.#buffer.subarray(this.#filled, wanted));
      this.#fds.add(received.fds);
      if (received.truncated || this.#fds.count > MAX_MESSAGE_FDS) {
        throw protocolError(
          `${this.#what()}: more than ${MAX_MESSAGE_FDS} descriptors, or more than fit`,
        );
      }
      if (received.bytes === 0) return undefined;
      if (received.bytes === -1) {
        if (this.#filled === 0) return 'gone';
        throw protocolError(`${this.#what()}: the peer closed after ${this.#filled} bytes of it`);
      }
      this.#filled += received.bytes;
      if (this.#header === undefined && this.#filled === HEADER_BYTES) {
        this.#header = decodeHeader(this.#buffer, this.#name);
      }
    }
  }

  /** Closes descriptors of a message that never became whole. */
  close(): void {
    this.#fds.close();
  }

  #finish(header: Header): RawMessage {
    const fds = this.#fds;
    this.#fds = new FdBag();
    this.#header = undefined;
    this.#filled = 0;
    return {
      ...header,
      payload: this.#buffer.subarray(HEADER_BYTES, HEADER_BYTES + header.size),
      fds,
    };
  }

  #what(): string {
    return this.#header === undefined ? 'a message' : this.#name(this.#header.request);
  }
}

/** Bytes that a peer may leave unread before it is given up. */
export const MAX_UNSENT_BYTES = 64 * 1024;

interface Outgoing {
  readonly bytes: Uint8Array;
  sent: number;
  readonly fds: FdBag;
}

export class MessageWriter {
  readonly #channel: ByteChannel;
  #queue: Outgoing[] = [];
  #unsent = 0;

  constructor(channel: ByteChannel) {
    this.#channel = channel;
  }

  /** True while something waits for the peer to read. */
  get blocked(): boolean {
    return this.#queue.length > 0;
  }

  /**
   * Sends a message, now or when the peer makes room. Owns the descriptors from here on, and closes
   * them once they are sent. False if the peer has gone.
   * @throws SluiceError `protocol` if the peer does not read what it asked for.
   */
  send(bytes: Uint8Array, fds: FdBag = new FdBag()): boolean {
    this.#queue.push({ bytes, sent: 0, fds });
    this.#unsent += bytes.length;
    const alive = this.flush();
    if (this.#unsent > MAX_UNSENT_BYTES) {
      throw protocolError(`the peer left ${this.#unsent} bytes of replies unread`);
    }
    return alive;
  }

  /** Goes on with what is left. False if the peer has gone. */
  flush(): boolean {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      const { bytes, fds } = first;
      const list = Array.from({ length: fds.count }, (_, index) => fds.peek(index));
      const sent = this.#channel.send(bytes.subarray(first.sent), list);
      if (sent === -1) return false;
      if (sent === 0) return true;
      fds.close();
      first.sent += sent;
      this.#unsent -= sent;
      if (first.sent === bytes.length) this.#queue.shift();
    }
    return true;
  }

  close(): void {
    for (const outgoing of this.#queue) outgoing.fds.close();
    this.#queue = [];
  }
}
