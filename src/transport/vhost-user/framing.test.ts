import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { closeAll, closeFd, createEventFd, identify } from '../../os/fd.ts';
import { unixSocketPair } from '../../os/unix-socket.ts';
import { type ByteChannel, SocketChannel } from '../channel.ts';
import { FdBag } from '../fd-bag.ts';
import { MAX_UNSENT_BYTES, MessageWriter } from '../message-writer.ts';
import { pipePair } from '../pipe.ts';
import { encodeMessage, encodeU64, MAX_MESSAGE_FDS, requestName } from './codec.ts';
import { MessageReader } from './framing.ts';

function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

const KINDS: readonly [string, (chunk?: number) => [ByteChannel, ByteChannel]][] = [
  ['pipe', (chunk) => pipePair(chunk === undefined ? {} : { chunk })],
  [
    'socket',
    () => {
      const [a, b] = unixSocketPair();
      return [new SocketChannel(a), new SocketChannel(b)];
    },
  ],
];

for (const [kind, makePair] of KINDS) {
  describe(`framing over a ${kind}`, () => {
    test('test_messages_split_and_coalesced', () => {
      fc.assert(
        fc.property(
          fc.array(fc.uint8Array({ maxLength: 60 }), { minLength: 1, maxLength: 6 }),
          fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 10 }),
          (payloads, cuts) => {
            const [sender, receiver] = makePair();
            const reader = new MessageReader(receiver, requestName);
            const stream = Buffer.concat(payloads.map((p, i) => encodeMessage(i + 1, 8, p)));
            const seen: Uint8Array[] = [];
            let at = 0;
            for (let i = 0; at < stream.length; i++) {
              const end = at + (cuts[i % cuts.length] as number);
              sender.send(stream.subarray(at, end), []);
              at = end;
              for (let m = reader.read(); m !== undefined; m = reader.read()) {
                assert.notEqual(m, 'gone');
                if (m === 'gone') break;
                assert.equal(m.request, seen.length + 1);
                assert.equal(m.flags, 9);
                seen.push(m.payload.slice());
              }
            }
            assert.deepEqual(seen, payloads);
            sender.close();
            assert.equal(reader.read(), 'gone');
            receiver.close();
          },
        ),
        { numRuns: 50 },
      );
    });

    test('test_fds_belong_to_the_message_they_came_with', () => {
      const before = openFds();
      const [sender, receiver] = makePair();
      const reader = new MessageReader(receiver, requestName);
      const [a, b] = [createEventFd(), createEventFd()];
      sender.send(encodeMessage(1, 0, encodeU64(1n)), []);
      sender.send(encodeMessage(12, 0, encodeU64(2n)), [a]);
      sender.send(encodeMessage(13, 0, encodeU64(3n)), []);
      sender.send(encodeMessage(14, 0, encodeU64(4n)), [a, b]);
      const counts: number[] = [];
      for (let m = reader.read(); m !== undefined && m !== 'gone'; m = reader.read()) {
        counts.push(m.fds.count);
        if (m.fds.count === 1) assert.equal(identify(m.fds.peek(0)).id, identify(a).id);
        m.fds.close();
      }
      assert.deepEqual(counts, [0, 1, 0, 2]);
      closeAll([a, b]);
      sender.close();
      receiver.close();
      assert.equal(openFds(), before);
    });

    test('test_too_many_fds_close_fds', () => {
      const before = openFds();
      const [sender, receiver] = makePair();
      const reader = new MessageReader(receiver, requestName);
      const fd = createEventFd();
      sender.send(encodeMessage(5, 0, encodeU64(0n)), new Array(MAX_MESSAGE_FDS + 1).fill(fd));
      assert.throws(() => reader.read(), { code: 'protocol' });
      reader.close();
      closeFd(fd);
      sender.close();
      receiver.close();
      assert.equal(openFds(), before);
    });

    test('test_truncated_message_closes_fds', () => {
      const before = openFds();
      const [sender, receiver] = makePair();
      const reader = new MessageReader(receiver, requestName);
      const fd = createEventFd();
      sender.send(encodeMessage(12, 0, encodeU64(0n)).subarray(0, 15), [fd]);
      assert.equal(reader.read(), undefined);
      sender.close();
      assert.throws(() => reader.read(), {
        code: 'protocol',
        message: 'SET_VRING_KICK: the peer closed after 15 bytes of it',
      });
      reader.close();
      closeFd(fd);
      receiver.close();
      assert.equal(openFds(), before);
    });
  });
}

describe('framing over a narrow pipe', () => {
  test('test_byte_by_byte', () => {
    const before = openFds();
    const [sender, receiver] = pipePair({ chunk: 1 });
    const reader = new MessageReader(receiver, requestName);
    const fd = createEventFd();
    sender.send(encodeMessage(12, 0, encodeU64(7n)), [fd]);
    const m = reader.read();
    assert.ok(m !== undefined && m !== 'gone');
    assert.deepEqual(m.payload, encodeU64(7n));
    assert.equal(m.fds.count, 1);
    m.fds.close();
    closeFd(fd);
    sender.close();
    receiver.close();
    assert.equal(openFds(), before);
  });

  test('test_a_blocked_writer_goes_on', () => {
    const [sender, receiver] = pipePair({ capacity: 10 });
    const writer = new MessageWriter(sender);
    const reader = new MessageReader(receiver, requestName);
    writer.send(encodeMessage(1, 4, encodeU64(1n)));
    assert.ok(writer.blocked);
    assert.equal(reader.read(), undefined);
    writer.flush();
    const m = reader.read();
    assert.ok(m !== undefined && m !== 'gone');
    assert.deepEqual(m.payload, encodeU64(1n));
    assert.ok(!writer.blocked);
    sender.close();
    receiver.close();
  });

  test('test_unread_replies_are_bounded_and_close_fds', () => {
    const before = openFds();
    const [sender, receiver] = pipePair({ capacity: 5000 });
    const writer = new MessageWriter(sender);
    const big = encodeMessage(1, 4, new Uint8Array(4000));
    let sent = 0;
    assert.throws(
      () => {
        for (; sent < 100; sent++) writer.send(big, new FdBag([createEventFd()]));
      },
      { code: 'protocol', message: /unread/ },
    );
    assert.ok(sent * big.length > MAX_UNSENT_BYTES && sent < 100);
    writer.close();
    sender.close();
    receiver.close();
    assert.equal(openFds(), before);
  });

  test('test_closing_a_pipe_closes_undelivered_fds', () => {
    const before = openFds();
    const [sender, receiver] = pipePair();
    const fd = createEventFd();
    sender.send(new Uint8Array(3), [fd, fd]);
    closeFd(fd);
    sender.close();
    receiver.close();
    assert.equal(openFds(), before);
  });
});
