/** What a front-end may do wrong: each is answered or ends the connection, and leaves nothing open. */
import assert from 'node:assert/strict';
import { mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Epoll } from '../../os/epoll.ts';
import { closeAll, closeFd, createEventFd, createPipe } from '../../os/fd.ts';
import { createMemfd } from '../../os/mapping.ts';
import { connectUnix, UnixListener } from '../../os/unix-socket.ts';
import * as vu from '../../spec/vhost-user.ts';
import { pipePair } from '../pipe.ts';
import { encodeMessage, encodeRequest, encodeU64 } from './codec.ts';
import { VhostUserSession } from './session.ts';
import { Bench, ReturningDevice, TEST_FEATURES, type TestRing, testArena } from './testing.ts';

function openFds(): string[] {
  return readdirSync('/proc/self/fd');
}

/** Sends raw bytes to a session that has been brought up, and sees what becomes of descriptors. */
function sendRaw(bytes: Uint8Array, fdCount: number, socket: boolean): Bench {
  const bench = new Bench({ socket });
  bench.bringUp(TEST_FEATURES);
  const fds = Array.from({ length: fdCount }, () => createEventFd());
  try {
    bench.client.sendRaw(bytes, fds);
  } finally {
    closeAll(fds);
  }
  for (let i = 0; i < 4; i++) bench.pump();
  return bench;
}

const CASES: readonly [name: string, bytes: Uint8Array, fds: number][] = [
  ['unknown_request', encodeMessage(200, 0, new Uint8Array(8)), 3],
  ['wrong_version', new Uint8Array(12), 2],
  ['oversized_payload', header(vu.VHOST_USER_SET_MEM_TABLE, 1, 1 << 20), 8],
  ['reply_flag', encodeMessage(vu.VHOST_USER_SET_OWNER, vu.FLAG_REPLY, new Uint8Array(0)), 1],
  ['unexpected_fds', encodeMessage(vu.VHOST_USER_GET_FEATURES, 0, new Uint8Array(0)), 5],
  ['missing_fd', encodeMessage(vu.VHOST_USER_SET_VRING_KICK, 0, encodeU64(0n)), 0],
  ['too_many_fds', encodeMessage(vu.VHOST_USER_SET_VRING_CALL, 0, encodeU64(0n)), 2],
  ['no_fd_flag_with_fd', encodeMessage(vu.VHOST_USER_SET_VRING_ERR, 0, encodeU64(0x100n)), 1],
  ['ring_out_of_range', encodeMessage(vu.VHOST_USER_SET_VRING_CALL, 0, encodeU64(7n)), 1],
  ['short_payload', encodeMessage(vu.VHOST_USER_SET_VRING_KICK, 0, new Uint8Array(7)), 1],
  ['log_fd_without_fd', encodeMessage(vu.VHOST_USER_SET_LOG_FD, 0, new Uint8Array(0)), 0],
  ['postcopy', encodeMessage(vu.VHOST_USER_POSTCOPY_ADVISE, 0, new Uint8Array(0)), 1],
  ['gpu_socket', encodeMessage(vu.VHOST_USER_GPU_SET_SOCKET, 0, new Uint8Array(0)), 1],
  ['enable_of_two', encodeMessage(vu.VHOST_USER_SET_VRING_ENABLE, 0, words(0, 2)), 0],
];

function words(a: number, b: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(a, b).buffer);
}

function header(request: number, flags: number, size: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(request, flags, size).buffer);
}

function region(change: object): Uint8Array {
  const good = { guestAddress: 1 << 30, size: 8192, userAddress: 1 << 30, mmapOffset: 0 };
  return encodeRequest({ request: vu.VHOST_USER_ADD_MEM_REG, region: { ...good, ...change } });
}

describe('bad vhost-user messages', () => {
  for (const [name, bytes, fds] of CASES) {
    for (const socket of [false, true]) {
      test(`test_${name}_closes_fds_over_a_${socket ? 'socket' : 'pipe'}`, () => {
        new Bench().close();
        const before = openFds();
        const bench = sendRaw(bytes, fds, socket);
        assert.ok(bench.over, 'the connection goes on');
        assert.match(bench.log.at(-1) ?? '', /closing the connection: /);
        bench.close();
        assert.deepEqual(openFds(), before);
      });
    }
  }

  test('test_a_bad_message_that_wants_an_answer_gets_one', () => {
    const before = openFds();
    for (const [name, bytes, fds] of CASES.slice(4)) {
      if (name === 'unexpected_fds' || name === 'postcopy') continue; // have answers of their own
      const asking = bytes.slice();
      asking[4] = (asking[4] as number) | vu.FLAG_NEED_REPLY;
      const bench = sendRaw(asking, fds, false);
      assert.ok(!bench.over, name);
      assert.deepEqual(bench.client.receiveRaw(), encodeU64(1n), name);
      bench.close();
    }
    assert.deepEqual(openFds(), before);
  });

  test('test_disconnect_in_the_middle_of_a_message_closes_fds', () => {
    for (const socket of [false, true]) {
      new Bench().close();
      const before = openFds();
      const whole = encodeMessage(vu.VHOST_USER_SET_VRING_KICK, 0, encodeU64(0n));
      for (let cut = 1; cut < whole.length; cut++) {
        const bench = sendRaw(whole.subarray(0, cut), 1, socket);
        assert.ok(!bench.over);
        bench.client.close();
        bench.pump();
        assert.ok(bench.over);
        bench.close();
      }
      assert.deepEqual(openFds(), before);
    }
  });

  test('test_bad_regions_are_refused_and_harm_nothing', () => {
    const bench = new Bench();
    const [, tx] = bench.bringUp(TEST_FEATURES) as [TestRing, TestRing];
    const fd = createMemfd('region', 8192);
    const before = openFds();
    const { guest } = bench;
    for (const change of [
      { size: 0 },
      { size: 8193 },
      { size: 2 ** 52 },
      { size: 2 ** 53 - 1 },
      { mmapOffset: 4096 },
      { mmapOffset: 2 ** 50 },
      { guestAddress: guest.guestAddress + 4096 },
      { userAddress: guest.userAddress - 4096 },
      { guestAddress: 2 ** 52 },
      { userAddress: 2 ** 53 - 4096 },
    ]) {
      const options = { flags: vu.FLAG_NEED_REPLY, fds: [fd], wanted: true };
      const reply = bench.client.exchange(vu.VHOST_USER_ADD_MEM_REG, region(change), options);
      assert.deepEqual(reply, encodeU64(1n), JSON.stringify(change));
    }
    assert.equal(bench.session.describe().memory.length, 1);
    assert.deepEqual(openFds(), before);
    tx.offer(3);
    bench.device.poll();
    assert.equal(tx.take().length, 3);
    closeFd(fd);
    bench.close();
  });

  test('test_more_regions_than_slots', () => {
    const bench = new Bench();
    bench.client.negotiate(TEST_FEATURES);
    const fd = createMemfd('region', 4096);
    const at = (index: number): object => ({
      guestAddress: index * 4096,
      userAddress: index * 4096,
      size: 4096,
    });
    for (let index = 0; index < 33; index++) {
      const options = { flags: vu.FLAG_NEED_REPLY, fds: [fd], wanted: true };
      const reply = bench.client.exchange(vu.VHOST_USER_ADD_MEM_REG, region(at(index)), options);
      assert.deepEqual(reply, encodeU64(index < 32 ? 0n : 1n));
    }
    closeFd(fd);
    bench.close();
  });

  test('test_strict_isolation_refuses_unsealed_memory', () => {
    const bench = new Bench({ isolation: 'strict' });
    bench.client.negotiate(TEST_FEATURES);
    const fd = createMemfd('unsealed', 1 << 20, false);
    const unsealed = { ...bench.guest.region, fd, size: 1 << 20 };
    assert.throws(() => bench.client.setMemoryTable([unsealed]), /refused SET_MEM_TABLE/);
    assert.match(bench.log.join(), /share=on,seal=on/);
    bench.client.setMemoryTable([bench.guest.region]);
    closeFd(fd);
    bench.close();
  });

  test('test_unsealed_memory_is_warned_of_once', () => {
    const bench = new Bench();
    bench.client.negotiate(TEST_FEATURES);
    const fd = createMemfd('unsealed', 1 << 20, false);
    const unsealed = { ...bench.guest.region, fd, size: 1 << 20 };
    bench.client.setMemoryTable([unsealed]);
    bench.client.setMemoryTable([unsealed]);
    assert.equal(bench.log.filter((line) => line.includes('shrunk')).length, 1);
    closeFd(fd);
    bench.close();
  });

  test('test_a_front_end_that_reads_no_replies_is_given_up', () => {
    const before = openFds();
    const [front, back] = pipePair({ capacity: 100 });
    const device = new ReturningDevice(testArena());
    const bench = new Bench();
    const session = new VhostUserSession(back, {
      device,
      arena: testArena(),
      loop: bench.loop,
      log: { debug: noop, info: noop, warn: noop, error: noop },
    });
    const ask = encodeMessage(vu.VHOST_USER_GET_FEATURES, 0, new Uint8Array(0));
    let asked = 0;
    let alive = true;
    while (alive && asked < 10_000) {
      front.send(ask, []);
      asked++;
      alive = session.readable();
    }
    assert.ok(asked > 100 && asked < 10_000);
    session.close();
    front.close();
    bench.close();
    assert.deepEqual(openFds(), before);
  });
});

function noop(): void {
  // Says nothing.
}

describe('arbitrary vhost-user conversations', () => {
  /** A request that may make sense, with descriptors that may be right. */
  const request = fc.record({
    id: fc.integer({ min: 0, max: 46 }),
    flags: fc.constantFrom(0, vu.FLAG_NEED_REPLY),
    payload: fc.oneof(
      fc.constant(new Uint8Array(0)),
      fc
        .record({ a: fc.integer({ min: 0, max: 5 }), b: fc.integer({ min: 0, max: 70 }) })
        .map(({ a, b }) => words(a, b)),
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(encodeU64),
      fc.uint8Array({ maxLength: 80 }),
      fc
        .record({ index: fc.integer({ min: 0, max: 4 }), at: fc.integer({ min: 0, max: 5000 }) })
        .map(({ index, at }) =>
          encodeRequest({
            request: vu.VHOST_USER_SET_VRING_ADDR,
            index,
            flags: at & 1,
            descriptor: 0x7f00_0000_0000 + at * 16,
            used: 0x7f00_0002_0000 + at * 4,
            available: 0x7f00_0001_0000 + at * 2,
            log: at * 4096,
          }),
        ),
      fc
        .integer({ min: 0, max: 3 })
        .map((pages) => region({ guestAddress: 2 ** 31 + pages * 4096 })),
    ),
    fds: fc.array(fc.constantFrom('eventfd', 'memory', 'guest'), { maxLength: 2 }),
  });

  test('test_no_conversation_crashes_or_leaks', () => {
    new Bench().close();
    const before = openFds();
    fc.assert(
      fc.property(fc.array(request, { minLength: 1, maxLength: 40 }), fc.boolean(), (list, up) => {
        const bench = new Bench();
        if (up) bench.bringUp(TEST_FEATURES);
        else bench.client.negotiate(TEST_FEATURES);
        const own = [createEventFd(), createMemfd('m', 8192)] as const;
        const fdOf = { eventfd: own[0], memory: own[1], guest: bench.guest.fd };
        for (const { id, flags, payload, fds } of list) {
          bench.client.sendRaw(
            encodeMessage(id, flags, payload),
            fds.map((kind) => fdOf[kind]),
          );
          bench.pump();
          if (bench.over) break;
          bench.device.poll();
          bench.loop.epoll.wait(0);
        }
        for (const line of bench.log) assert.doesNotMatch(line, /TypeError|RangeError|undefined/);
        closeAll(own);
        bench.close();
      }),
      { numRuns: 200 },
    );
    assert.deepEqual(openFds(), before);
  });
});

describe('descriptors of a wrong kind', () => {
  const kinds = {
    file: () => createMemfd('kick', 4096),
    device: () => openSync('/dev/null', 'r+'),
    epoll: () => new Epoll().fd,
    connection: () => connection('made'),
    'accepted connection': () => connection('accepted'),
  };
  const connection = (kept: 'made' | 'accepted'): number => {
    const path = join(mkdtempSync(join(tmpdir(), 'sluice-')), 'socket');
    const listener = new UnixListener(path);
    const made = connectUnix(path);
    const accepted = listener.accept() ?? assert.fail('nobody has connected');
    listener.close();
    rmSync(dirname(path), { recursive: true });
    const [ours, theirs] = kept === 'made' ? [made, accepted] : [accepted, made];
    theirs.close();
    return ours.fd;
  };
  const requests = {
    kick: vu.VHOST_USER_SET_VRING_KICK,
    call: vu.VHOST_USER_SET_VRING_CALL,
    error: vu.VHOST_USER_SET_VRING_ERR,
  };
  for (const [kind, make] of Object.entries(kinds)) {
    for (const [use, request] of Object.entries(requests)) {
      test(`${kind} as ${use} is refused`, () => {
        const bench = new Bench({ socket: true });
        bench.bringUp(TEST_FEATURES);
        const fd = make();
        const reply = bench.client.exchange(request, encodeU64(0n), {
          flags: vu.FLAG_NEED_REPLY,
          fds: [fd],
          wanted: true,
        });
        assert.deepEqual(reply, encodeU64(1n));
        assert.ok(bench.log.some((line) => line.includes('descriptor that is no eventfd')));
        closeFd(fd);
        bench.close();
      });
    }
  }

  test('a pipe without a writer as kick does not keep the loop awake', () => {
    const bench = new Bench({ socket: true });
    bench.bringUp(TEST_FEATURES);
    const { read, write } = createPipe();
    closeFd(write);
    bench.client.exchange(vu.VHOST_USER_SET_VRING_KICK, encodeU64(0n), {
      flags: vu.FLAG_NEED_REPLY,
      fds: [read],
      wanted: true,
    });
    closeFd(read);
    bench.loop.epoll.wait(0);
    assert.equal(bench.loop.epoll.wait(0), 0);
    bench.close();
  });
});

test('isolation strict refuses a dirty log and an in-flight area that can be shrunk', () => {
  const bench = new Bench({ socket: true, isolation: 'strict' });
  bench.bringUp(TEST_FEATURES);
  const area = { mmapSize: 65536, mmapOffset: 0, queues: 2, queueSize: 64, padded: true };
  const open = createMemfd('open', 65536, false);
  assert.throws(() => bench.client.setLog(open, 65536), { code: 'protocol' });
  assert.throws(() => bench.client.setInflight(area, open), { code: 'protocol' });
  const sealed = createMemfd('sealed', 65536);
  bench.client.setLog(sealed, 65536);
  bench.client.setInflight(area, sealed);
  closeAll([open, sealed]);
  bench.close();
});
