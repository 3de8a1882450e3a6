/** Messages on a stream, sent whole, however slowly they leave. */
import type { ByteChannel } from './channel.ts';
import { FdBag } from './fd-bag.ts';
import { protocolError } from './protocol-error.ts';

/** Bytes that a peer may leave unread before it is given up. */
export const MAX_UNSENT_BYTES = 64 * 1024;

interface Outgoing {
  readonly bytes: Uint8Array;
  sent: number;
  readonly fds: FdBag;
}

const NONE: readonly number[] = [];

/** For messages without descriptors: never anything in it. */
const NO_FDS = new FdBag();

export class MessageWriter {
  readonly #channel: ByteChannel;
  readonly #maxUnsent: number;
  #queue: Outgoing[] = [];
  #unsent = 0;

  constructor(channel: ByteChannel, maxUnsent: number = MAX_UNSENT_BYTES) {
    this.#channel = channel;
    this.#maxUnsent = maxUnsent;
  }

  /** True while something waits for the peer to read. */
  get blocked(): boolean {
    return this.#queue.length > 0;
  }

  /**
   * Sends a message, now or when the peer makes room: the bytes are the caller's again at once. Owns
   * the descriptors from here on, and closes them once they are sent. False if the peer has gone.
   * @throws SluiceError `protocol` if the peer does not read what it asked for.
   */
  send(bytes: Uint8Array, fds: FdBag = NO_FDS): boolean {
    if (this.#queue.length === 0 && fds.count === 0) {
      const sent = this.#channel.send(bytes, NONE);
      if (sent === bytes.length) return true;
      if (sent === -1) return false;
      bytes = bytes.subarray(sent);
    }
    this.#queue.push({ bytes: bytes.slice(), sent: 0, fds });
    this.#unsent += bytes.length;
    const alive = this.flush();
    if (this.#unsent > this.#maxUnsent) {
      throw protocolError(`the peer left ${this.#unsent} bytes of messages unread`);
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
