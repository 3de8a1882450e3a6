/**
 * Messages on a stream, taken apart at their boundaries, however the bytes arrive.
 *
 * The header is read first and alone, then the payload and no more: descriptors that arrive with
 * any of these bytes belong to this message.
 */
import { HEADER_BYTES } from '../../spec/vhost-user.ts';
import type { ByteChannel } from '../channel.ts';
import { FdBag } from '../fd-bag.ts';
import { protocolError } from '../protocol-error.ts';
import { decodeHeader, type Header, MAX_MESSAGE_FDS, MAX_PAYLOAD_BYTES } from './codec.ts';

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
