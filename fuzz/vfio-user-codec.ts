/**
 * Arbitrary bytes, arbitrarily cut, with arbitrary descriptors, as messages of vfio-user: what is read must
 * be what a parser of the whole stream, with all the bytes before it, finds.
 */
import assert from 'node:assert/strict';
import { SluiceError } from '../src/base/errors.ts';
import { closeFd, createEventFd } from '../src/os/fd.ts';
import * as vfu from '../src/spec/vfio-user.ts';
import { pipePair } from '../src/transport/pipe.ts';
import {
  decodeVersion,
  encodeMessage,
  encodeVersion,
  MAX_MESSAGE_BYTES,
  MAX_MESSAGE_FDS,
  type Message,
  Refusal,
} from '../src/transport/vfio-user/codec.ts';
import { MessageReader } from '../src/transport/vfio-user/framing.ts';
import { openDescriptors } from '../src/transport/vfio-user/testing.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const MESSAGES = 12;

/** JSON that is nearly what a client sends. */
function versionData(random: Random): string {
  const value = (): unknown =>
    random.pick<unknown>([
      ...[1, 4096, random.nasty(32), -1, 0.5, 1e300],
      ...[null, true, 'x', [], {}, [[[[]]]]],
    ] as [unknown, ...unknown[]]);
  const names = ['max_msg_fds', 'max_data_xfer_size', 'pgsizes', 'max_dma_maps', 'write_multiple'];
  const capabilities: Record<string, unknown> = {};
  for (const name of names) if (random.oneIn(2)) capabilities[name] = value();
  if (random.oneIn(3)) {
    capabilities['migration'] = random.oneIn(3)
      ? value()
      : { pgsize: value(), max_bitmap_size: value() };
  }
  const text = JSON.stringify(random.oneIn(8) ? value() : { capabilities });
  const cut = random.oneIn(8) ? text.slice(0, random.below(text.length)) : text;
  return random.oneIn(8) ? cut : `${cut}\0`;
}

function payload(random: Random, command: number): Uint8Array {
  if (command === vfu.VFIO_USER_VERSION && !random.oneIn(5)) {
    const text = Buffer.from(versionData(random), 'utf8');
    const bytes = new Uint8Array(vfu.VERSION_BYTES + text.length);
    bytes[2] = random.below(3);
    bytes.set(text, vfu.VERSION_BYTES);
    if (random.oneIn(8)) bytes[random.below(bytes.length)] = random.u32();
    return bytes;
  }
  // Longer than one receive, now and then.
  return random.bytes(random.oneIn(15) ? random.below(100_000) : random.below(300));
}

function message(random: Random): Uint8Array {
  const command = random.oneIn(10)
    ? random.nasty(16)
    : random.oneIn(3)
      ? vfu.VFIO_USER_VERSION
      : random.below(vfu.VFIO_USER_COMMANDS.length);
  const flags = random.oneIn(10) ? random.nasty(32) : random.pick([0, 1, 0x10, 0x20, 0x21]);
  const content = payload(random, command);
  const bytes = encodeMessage(random.nasty(16), command, flags, content, random.nasty(32));
  if (random.oneIn(12)) {
    // A size that is not the message's.
    const size = random.oneIn(2) ? random.nasty(32) : random.below(60);
    new DataView(bytes.buffer).setUint32(4, size, true);
  }
  return bytes;
}

/** The messages of a stream, as bytes; the rest is not whole yet. `isBad`: then it makes no sense. */
function parse(stream: Uint8Array): { readonly messages: Uint8Array[]; readonly isBad: boolean } {
  const messages: Uint8Array[] = [];
  const view = new DataView(stream.buffer, stream.byteOffset, stream.length);
  for (let at = 0; stream.length - at >= vfu.HEADER_BYTES; ) {
    const size = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true) & vfu.FLAG_TYPE_MASK;
    if (size < vfu.HEADER_BYTES || size > MAX_MESSAGE_BYTES || type > vfu.FLAG_TYPE_REPLY) {
      return { messages, isBad: true };
    }
    if (stream.length - at < size) break;
    messages.push(stream.subarray(at, at + size));
    at += size;
  }
  return { messages, isBad: false };
}

/** A version that was understood comes out the same when it is written and read again. */
function checkVersion(received: Message): void {
  let version: ReturnType<typeof decodeVersion>;
  try {
    version = decodeVersion(received);
  } catch (error) {
    if (error instanceof Refusal) return;
    throw error;
  }
  for (const value of Object.values(version.capabilities)) {
    assert.ok(typeof value !== 'number' || (Number.isSafeInteger(value) && value >= 0));
  }
  const bytes = encodeVersion(version);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const again = decodeVersion({ ...received, at: 0, length: bytes.length, bytes, view });
  assert.deepEqual(again, version);
}

function check(received: Message, expected: Uint8Array | undefined): void {
  assert.ok(expected !== undefined, 'a message that was not sent');
  const { id, command, flags, error, at, length } = received;
  const content = received.bytes.subarray(at, at + length);
  const again = encodeMessage(id, command, flags, content, error);
  assert.ok(Buffer.compare(again, expected) === 0, 'a message that was sent otherwise');
  if (command === vfu.VFIO_USER_VERSION) checkVersion(received);
}

/** A client that sends what it likes, and the reader of what has come. */
class Stream {
  readonly reader: MessageReader;
  /** All that was sent, and how many messages of it were read, which have so many bytes. */
  readonly #sent: Uint8Array[] = [];
  #read = 0;
  #readBytes = 0;
  /** Where in the stream descriptors went along. */
  readonly #carried: { readonly from: number; readonly to: number; readonly fds: number }[] = [];
  #sentBytes = 0;
  #fdsSent = 0;
  #fdsTaken = 0;
  /** A receive may be short although there is more: the reader is asked until nothing came. */
  #isDry = false;
  readonly #fd = createEventFd();
  readonly #ends: ReturnType<typeof pipePair>;

  constructor(chunk: number) {
    this.#ends = pipePair({ chunk });
    const [, receiver] = this.#ends;
    this.reader = new MessageReader({
      fd: receiver.fd,
      receive: (into) => {
        const received = receiver.receive(into);
        this.#isDry = received.bytes === 0;
        return received;
      },
      send: (bytes, fds) => receiver.send(bytes, fds),
      close: () => receiver.close(),
    });
  }

  send(bytes: Uint8Array, fds: number): void {
    this.#sent.push(bytes);
    if (bytes.length === 0) return;
    const from = this.#sentBytes;
    this.#sentBytes += bytes.length;
    if (fds > 0) this.#carried.push({ from, to: this.#sentBytes, fds });
    this.#fdsSent += fds;
    this.#ends[0].send(bytes, new Array<number>(fds).fill(this.#fd));
  }

  /** Reads all that is there. */
  readAll(): void {
    const { reader } = this;
    const { messages, isBad } = parse(Buffer.concat(this.#sent));
    for (this.#isDry = false; ; ) {
      const received = reader.read();
      if (received === undefined && this.#isDry) break;
      if (received === undefined) continue;
      assert.ok(received !== 'gone', 'gone, although the sender is there');
      const expected = messages[this.#read++];
      check(received, expected);
      const bag = reader.takeFds();
      const { count } = bag;
      bag.close();
      this.#fdsTaken += count;
      this.#checkFds(count, expected?.length ?? 0);
      assert.ok(!reader.hasFds, 'descriptors that were taken are still there');
    }
    assert.ok(!isBad, 'a header that makes no sense was passed over');
    assert.equal(this.#read, messages.length, 'a message that came was not returned');
    assert.ok(!reader.ready, 'ready, although nothing is there');
    assert.ok(this.#fdsTaken <= this.#fdsSent, 'descriptors out of nowhere');
  }

  /** Those that came with the bytes of the message that was read last; of a piece at its border, perhaps. */
  #checkFds(count: number, bytes: number): void {
    const from = this.#readBytes;
    const to = from + bytes;
    this.#readBytes = to;
    let [least, most] = [0, 0];
    for (const piece of this.#carried) {
      if (piece.from >= from && piece.to <= to) least += piece.fds;
      if (piece.from < to && piece.to > from) most += piece.fds;
    }
    assert.ok(count <= MAX_MESSAGE_FDS, `${count} descriptors with one message`);
    assert.ok(count >= least && count <= most, `${count} descriptors, not ${least} to ${most}`);
  }

  /** Whether the stream may have been given up. */
  judge(error: SluiceError): void {
    // Who brings too many descriptors loses what came along with them.
    if (this.#fdsSent - this.#fdsTaken > MAX_MESSAGE_FDS) return;
    const { messages, isBad } = parse(Buffer.concat(this.#sent));
    assert.ok(isBad, `a good stream was given up: ${error.message}`);
    assert.equal(this.#read, messages.length, 'messages before the bad one were lost');
  }

  close(): void {
    this.reader.close();
    for (const end of this.#ends) end.close();
    closeFd(this.#fd);
  }
}

function run(random: Random): void {
  const before = openDescriptors();
  const stream = new Stream(random.oneIn(4) ? 1 + random.below(40) : 1 + random.below(70_000));
  try {
    for (let i = 0; i < MESSAGES; i++) {
      const bytes = message(random);
      const { length } = bytes;
      let cut = random.oneIn(3)
        ? length - random.below(Math.min(length, 300))
        : random.below(length + 1);
      stream.send(bytes.subarray(0, cut), random.oneIn(3) ? random.below(5) : 0);
      // Piece by piece, each with descriptors.
      if (random.oneIn(20)) {
        for (let pieces = 0; pieces < 12 && cut < length; pieces++, cut++) {
          stream.send(bytes.subarray(cut, cut + 1), random.below(5));
        }
      }
      if (!random.oneIn(30)) {
        stream.send(bytes.subarray(cut), random.oneIn(6) ? random.below(MAX_MESSAGE_FDS + 1) : 0);
      }
      if (!random.oneIn(3)) stream.readAll();
    }
  } catch (error) {
    if (!(error instanceof SluiceError && error.code === 'protocol')) throw error;
    stream.judge(error);
  } finally {
    stream.close();
  }
  assert.equal(openDescriptors(), before, 'descriptors were left open');
}

export const vfioUserCodec: FuzzTarget = { name: 'vfio-user-codec', run };
