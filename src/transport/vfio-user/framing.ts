/**
 * Messages on a stream, taken apart at their boundaries, however the bytes arrive. As much is read at
 * once as there is: a trap costs one system call, and a burst of posted writes one for all of them.
 *
 * A receive never goes beyond a byte that descriptors came with (unix(7)): they belong to the message
 * that holds the last byte that was received.
 */
import type { SluiceError } from '../../base/errors.ts';
import { HEADER_BYTES } from '../../spec/vfio-user.ts';
import type { ByteChannel } from '../channel.ts';
import { FdBag } from '../fd-bag.ts';
import { protocolError } from '../protocol-error.ts';
import {
  checkHeader,
  commandName,
  MAX_MESSAGE_BYTES,
  MAX_MESSAGE_FDS,
  type Message,
} from './codec.ts';

/** What is asked for in one receive, at least. */
const READ_BYTES = 16 * 1024;
const FIRST_BYTES = 64 * 1024;

/** Descriptors that came, and where in the stream the last byte of their receive lies. */
interface Arrived {
  readonly end: number;
  readonly fds: readonly number[];
}

export class MessageReader {
  readonly #channel: ByteChannel;
  #buffer = new Uint8Array(FIRST_BYTES);
  /** The first READ_BYTES of the buffer: where nearly every receive goes. */
  #start = this.#buffer.subarray(0, READ_BYTES);
  /** The part of the buffer that was received and not yet returned. */
  #from = 0;
  #to = 0;
  /** Where in the stream the buffer begins. */
  #base = 0;
  #arrived: Arrived[] = [];
  /** Nothing more was there at the last look. */
  #drained = false;
  #message: Message;

  constructor(channel: ByteChannel) {
    this.#channel = channel;
    this.#message = messageOver(this.#buffer);
  }

  /** A whole message was received and not returned yet: nothing will wake anybody for it. */
  get ready(): boolean {
    const size = this.#sizeOfNext();
    return size !== 0 && this.#to - this.#from >= size;
  }

  /**
   * The next whole message, always the same object; undefined if it is not all there yet; 'gone' when
   * the peer has closed between two messages. Its descriptors: {@link takeFds}.
   * @param look false: the last look is still good, and what it left nothing of is not asked again
   * @throws SluiceError `protocol`: the stream cannot be understood any more.
   */
  read(look = true): Message | 'gone' | undefined {
    if (look) this.#drained = false;
    for (;;) {
      const size = this.#sizeOfNext();
      if (size !== 0 && this.#to - this.#from >= size) return this.#finish(size);
      // What was short of the room for it was all there is: a look costs a system call.
      if (this.#drained) return undefined;
      const isGone = !this.#receive(Math.max(size, HEADER_BYTES));
      if (!isGone) continue;
      if (this.#from === this.#to) return 'gone';
      throw protocolError(`the peer closed after ${this.#to - this.#from} bytes of a message`);
    }
  }

  /**
   * The descriptors of the message that was read last; whoever takes them closes the bag.
   * @throws SluiceError `protocol` for more than a message may bring.
   */
  takeFds(): FdBag {
    const end = this.#base + this.#from;
    let count = 0;
    while (count < this.#arrived.length && (this.#arrived[count] as Arrived).end <= end) count++;
    if (count === 0) return new FdBag();
    const bag = new FdBag(this.#arrived.splice(0, count).flatMap(({ fds }) => fds));
    if (bag.count <= MAX_MESSAGE_FDS) return bag;
    bag.close();
    throw tooManyFds(commandName(this.#message.command));
  }

  /** True if the message that was read last brought descriptors: they must be taken. */
  get hasFds(): boolean {
    const first = this.#arrived[0];
    return first !== undefined && first.end <= this.#base + this.#from;
  }

  /** Closes descriptors that nobody took. */
  close(): void {
    const bag = new FdBag(this.#arrived.flatMap(({ fds }) => fds));
    this.#arrived = [];
    bag.close();
  }

  /** The size of the message that begins at `#from`, or 0 while its header is not there. */
  #sizeOfNext(): number {
    if (this.#to - this.#from < HEADER_BYTES) return 0;
    const { view } = this.#message;
    const size = view.getUint32(this.#from + 4, true);
    checkHeader(view.getUint16(this.#from + 2, true), size, view.getUint32(this.#from + 8, true));
    return size;
  }

  #finish(size: number): Message {
    const message = this.#message;
    const { view } = message;
    const at = this.#from;
    message.id = view.getUint16(at, true);
    message.command = view.getUint16(at + 2, true);
    message.flags = view.getUint32(at + 8, true);
    message.error = view.getUint32(at + 12, true);
    message.at = at + HEADER_BYTES;
    message.length = size - HEADER_BYTES;
    this.#from = at + size;
    return message;
  }

  /** Receives some more of a message of `wanted` bytes. False if the peer has gone. */
  #receive(wanted: number): boolean {
    this.#makeRoom(wanted);
    const room = Math.min(this.#buffer.length - this.#to, READ_BYTES);
    const received = this.#channel.receive(
      this.#to === 0 ? this.#start : this.#buffer.subarray(this.#to, this.#to + room),
    );
    const { bytes, fds } = received;
    if (bytes > 0) this.#to += bytes;
    if (fds.length > 0) {
      this.#arrived.push({ end: this.#base + this.#to, fds });
      // Those of whole messages were taken. What is left belongs to the one that was not whole yet, and
      // now perhaps to one behind it, with which its end has come.
      const count = this.#arrived.reduce((sum, arrived) => sum + arrived.fds.length, 0);
      const isTooMany = fds.length > MAX_MESSAGE_FDS || count > 2 * MAX_MESSAGE_FDS;
      if (received.truncated || isTooMany) throw tooManyFds(this.#what());
    } else {
      // After descriptors a receive is short although there is more.
      this.#drained = bytes >= 0 && bytes < room;
    }
    return bytes !== -1;
  }

  #makeRoom(wanted: number): void {
    const kept = this.#to - this.#from;
    if (kept === 0) {
      this.#base += this.#from;
      this.#from = 0;
      this.#to = 0;
    }
    if (this.#from + wanted <= this.#buffer.length && this.#to < this.#buffer.length) return;
    this.#base += this.#from;
    if (wanted <= this.#buffer.length && kept < this.#buffer.length) {
      this.#buffer.copyWithin(0, this.#from, this.#to);
    } else {
      const larger = new Uint8Array(
        Math.min(Math.max(wanted * 2, FIRST_BYTES), 2 * MAX_MESSAGE_BYTES),
      );
      larger.set(this.#buffer.subarray(this.#from, this.#to));
      this.#buffer = larger;
      this.#start = larger.subarray(0, READ_BYTES);
      this.#message = messageOver(larger);
    }
    this.#from = 0;
    this.#to = kept;
  }

  #what(): string {
    const hasHeader = this.#to - this.#from >= HEADER_BYTES;
    return hasHeader
      ? commandName(this.#message.view.getUint16(this.#from + 2, true))
      : 'a message';
  }
}

function tooManyFds(what: string): SluiceError {
  return protocolError(`${what}: more than ${MAX_MESSAGE_FDS} descriptors, or more than fit`);
}

function messageOver(bytes: Uint8Array<ArrayBuffer>): Message {
  const view = new DataView(bytes.buffer);
  return { id: 0, command: 0, flags: 0, error: 0, at: 0, length: 0, bytes, view };
}
