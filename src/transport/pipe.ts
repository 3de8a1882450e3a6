/**
 * Two channels joined in memory: what one sends the other receives, in order, in this process. With
 * it a protocol is tested and fuzzed without sockets and always in the same way.
 *
 * Descriptors are duplicated on their way, as a socket does it: the sender keeps its own.
 */
import { closeFd, duplicateFd } from '../os/fd.ts';
import type { Received } from '../os/unix-socket.ts';
import type { ByteChannel } from './channel.ts';

export interface PipeOptions {
  /** Bytes that may be on their way in one direction before `send` takes no more. */
  readonly capacity?: number;
  /** Most bytes that one `receive` returns: 1 brings every message in single bytes. */
  readonly chunk?: number;
}

interface Packet {
  bytes: Uint8Array;
  fds: readonly number[];
}

/** One direction. */
class Conduit {
  readonly packets: Packet[] = [];
  buffered = 0;
  writerGone = false;
  readerGone = false;

  drop(): void {
    this.readerGone = true;
    for (const packet of this.packets) for (const fd of packet.fds) closeFd(fd);
    this.packets.length = 0;
    this.buffered = 0;
  }
}

export class PipeEnd implements ByteChannel {
  readonly fd = -1;
  readonly #in: Conduit;
  readonly #out: Conduit;
  readonly #capacity: number;
  readonly #chunk: number;
  #open = true;

  constructor(incoming: Conduit, outgoing: Conduit, options: PipeOptions) {
    this.#in = incoming;
    this.#out = outgoing;
    this.#capacity = options.capacity ?? Number.POSITIVE_INFINITY;
    this.#chunk = options.chunk ?? Number.POSITIVE_INFINITY;
  }

  receive(into: Uint8Array): Received {
    const conduit = this.#in;
    let bytes = 0;
    let fds: readonly number[] = [];
    const room = Math.min(into.length, this.#chunk);
    while (bytes < room) {
      const packet = conduit.packets[0];
      if (packet === undefined) break;
      const carries = packet.fds.length > 0;
      if (carries) {
        // As on a socket: descriptors come with the first byte of their packet, and bytes of the
        // packet before them can be read in the same call.
        fds = packet.fds;
        packet.fds = [];
      }
      const part = Math.min(room - bytes, packet.bytes.length);
      into.set(packet.bytes.subarray(0, part), bytes);
      bytes += part;
      packet.bytes = packet.bytes.subarray(part);
      if (packet.bytes.length === 0) conduit.packets.shift();
      if (carries) break;
    }
    conduit.buffered -= bytes;
    const gone = bytes === 0 && into.length > 0 && conduit.writerGone;
    return { bytes: gone ? -1 : bytes, fds, truncated: false };
  }

  send(bytes: Uint8Array, fds: readonly number[]): number {
    const conduit = this.#out;
    if (conduit.readerGone || !this.#open) return -1;
    const length = Math.min(bytes.length, this.#capacity - conduit.buffered);
    if (length <= 0) return 0;
    conduit.packets.push({ bytes: bytes.slice(0, length), fds: fds.map(duplicateFd) });
    conduit.buffered += length;
    return length;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#in.drop();
    this.#out.writerGone = true;
  }
}

/** Two joined ends. */
export function pipePair(options: PipeOptions = {}): [PipeEnd, PipeEnd] {
  const there = new Conduit();
  const back = new Conduit();
  return [new PipeEnd(back, there, options), new PipeEnd(there, back, options)];
}
