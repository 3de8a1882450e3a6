/**
 * What a protocol runs over: a stream of bytes that carries descriptors, such as a unix socket.
 * Another implementation is the pipe (`pipe.ts`), for tests and fuzzing.
 */
import { pinned } from '../os/libc.ts';
import type { Received, UnixConnection } from '../os/unix-socket.ts';

export interface ByteChannel {
  /** Descriptor to wait on for input, or -1 when the other end lives in this process. */
  readonly fd: number;
  /**
   * Reads at most `into.length` bytes, never beyond a byte that descriptors came with.
   * The caller owns the descriptors of the result.
   */
  receive(into: Uint8Array): Received;
  /**
   * Sends bytes, with descriptors attached to the first (which stay the caller's). Returns how many
   * bytes were taken: 0 when the other end must read first, -1 when it has gone.
   */
  send(bytes: Uint8Array, fds: readonly number[]): number;
  close(): void;
}

const STAGING_BYTES = 16 * 1024;
/** So many are copied one by one: for a part of an array an object would be made. */
const FEW_BYTES = 128;

/** A channel over a unix socket. Calls go through one staging buffer, whose address does not move. */
export class SocketChannel implements ByteChannel {
  readonly #connection: UnixConnection;
  readonly #staging = pinned(STAGING_BYTES);
  readonly #bytes = new Uint8Array(this.#staging.buffer);

  constructor(connection: UnixConnection) {
    this.#connection = connection;
  }

  get fd(): number {
    return this.#connection.fd;
  }

  receive(into: Uint8Array): Received {
    const length = Math.min(into.length, STAGING_BYTES);
    const received = this.#connection.receive(this.#staging.address, length);
    const { bytes } = received;
    if (bytes > FEW_BYTES) into.set(this.#bytes.subarray(0, bytes));
    else for (let i = 0; i < bytes; i++) into[i] = this.#bytes[i] as number;
    return received;
  }

  send(bytes: Uint8Array, fds: readonly number[]): number {
    const length = Math.min(bytes.length, STAGING_BYTES);
    this.#bytes.set(bytes.length === length ? bytes : bytes.subarray(0, length));
    return this.#connection.send(this.#staging.address, length, fds);
  }

  close(): void {
    this.#connection.close();
  }
}
