import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { loggerTo } from '../../base/log.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { connectUnix, UnixListener } from '../../os/unix-socket.ts';
import * as vu from '../../spec/vhost-user.ts';
import { SocketChannel } from '../channel.ts';
import { VhostUserClient } from './client.ts';
import { encodeMessage } from './codec.ts';
import { type ServerOptions, VhostUserServer } from './server.ts';
import { ReturningDevice, TEST_FEATURES, TestGuest, TestRing, testArena } from './testing.ts';

const directory = mkdtempSync(join(tmpdir(), 'sluice-server-'));
after(() => rmSync(directory, { recursive: true }));
let sockets = 0;
const newPath = (): string => join(directory, `${sockets++}.sock`);

class ServerBench {
  readonly loop = new PollLoop({ idlePollUs: 10 });
  readonly device = new ReturningDevice(testArena());
  readonly log: string[] = [];
  readonly path: string;
  readonly events: boolean[] = [];
  readonly server: VhostUserServer;

  constructor(options: Partial<ServerOptions> = {}) {
    this.path = options.path ?? newPath();
    this.server = new VhostUserServer({
      arena: testArena(),
      loop: this.loop,
      device: this.device,
      log: loggerTo((level, message) => this.log.push(`${level}: ${message}`)),
      onConnection: (connected) => this.events.push(connected),
      ...options,
      path: this.path,
    });
  }

  pump(): void {
    this.loop.epoll.wait(0);
    this.device.poll();
  }

  connect(): VhostUserClient {
    return VhostUserClient.connect(this.path, { pump: () => this.pump(), timeoutMs: 2000 });
  }

  /** Runs the loop until something is so, for two seconds at most. */
  runUntil(isSo: () => boolean): void {
    const limit = this.loop.setTimer(2_000_000, () => this.loop.stop());
    const look = {
      poll: () => {
        if (isSo()) this.loop.stop();
        return 0;
      },
      arm: () => isSo(),
      disarm: () => undefined,
    };
    this.loop.addPoller(look);
    this.loop.run();
    this.loop.removePoller(look);
    limit.cancel();
    assert.ok(isSo(), 'did not happen in time');
  }

  close(): void {
    this.server.close();
    this.loop.close();
  }
}

function openFds(): string[] {
  return readdirSync('/proc/self/fd');
}

describe('vhost-user server', () => {
  test('test_serves_one_front_end_after_another', () => {
    testArena();
    const before = openFds();
    const bench = new ServerBench();
    const guest = new TestGuest(testArena());
    for (let round = 1; round <= 3; round++) {
      const client = bench.connect();
      client.negotiate(TEST_FEATURES);
      client.setMemoryTable([guest.region]);
      const ring = new TestRing(guest, 1, 64, client.features);
      ring.start(client);
      ring.offer(8);
      bench.pump();
      assert.equal(ring.take().length, 8);
      assert.equal(bench.server.describe()?.rings[1]?.started, true);
      client.close();
      bench.pump();
      assert.ok(!bench.server.connected);
      assert.equal(bench.device.resets, round);
      assert.equal(bench.device.queues.size, 0);
      ring.close();
    }
    assert.equal(bench.server.connections, 3);
    assert.deepEqual(bench.events, [true, false, true, false, true, false]);
    guest.close();
    bench.close();
    assert.deepEqual(openFds(), before);
    assert.ok(!existsSync(bench.path));
  });

  test('test_a_second_front_end_is_refused', () => {
    const bench = new ServerBench();
    const first = bench.connect();
    first.negotiate(TEST_FEATURES);
    const second = bench.connect();
    assert.throws(() => second.negotiate(TEST_FEATURES), {
      code: 'state',
      message: `${bench.path} has closed the connection`,
    });
    assert.ok(first.isAlive());
    assert.equal(first.getQueueCount(), 4);
    assert.match(bench.log.join(), /already connected/);
    first.close();
    second.close();
    bench.close();
  });

  test('test_a_front_end_may_take_the_place_of_one_that_died', () => {
    const bench = new ServerBench();
    const first = bench.connect();
    first.negotiate(TEST_FEATURES);
    // Both events wait when the loop looks.
    first.close();
    const second = bench.connect();
    second.negotiate(TEST_FEATURES);
    assert.ok(second.isAlive());
    second.close();
    bench.close();
  });

  test('test_the_client_notices_that_the_server_has_gone', () => {
    const bench = new ServerBench();
    const client = bench.connect();
    client.negotiate(TEST_FEATURES);
    assert.ok(client.isAlive());
    bench.server.close();
    assert.ok(!client.isAlive());
    assert.throws(() => client.getQueueCount(), { code: 'state', message: /has closed/ });
    client.close();
    bench.loop.close();
  });

  test('test_a_server_that_does_not_answer', () => {
    const listener = new UnixListener(newPath());
    const client = VhostUserClient.connect(listener.path, { timeoutMs: 30 });
    assert.throws(() => client.negotiate(TEST_FEATURES), {
      code: 'state',
      message: `${listener.path} has not answered for 30 ms`,
    });
    client.close();
    listener.close();
  });

  test('test_a_bad_message_ends_the_connection_only', () => {
    const bench = new ServerBench();
    const client = bench.connect();
    client.negotiate(TEST_FEATURES);
    client.sendRaw(encodeMessage(200, 0, new Uint8Array(8)));
    bench.pump();
    assert.ok(!client.isAlive());
    client.close();
    const again = bench.connect();
    again.negotiate(TEST_FEATURES);
    again.close();
    bench.close();
  });

  test('test_replies_wait_for_a_slow_reader', () => {
    const bench = new ServerBench();
    const channel = new SocketChannel(connectUnix(bench.path));
    const ask = encodeMessage(vu.VHOST_USER_GET_FEATURES, 0, new Uint8Array(0));
    // More replies than the socket holds, fewer than are kept for the reader.
    const asked = 2500;
    for (let i = 0; i < asked; i++) {
      bench.loop.epoll.wait(0);
      assert.equal(channel.send(ask, []), ask.length);
    }
    for (let i = 0; i < 200; i++) bench.loop.epoll.wait(0);
    const answer = new Uint8Array(4096);
    let bytes = 0;
    let held = 0;
    for (let idle = 0; idle < 50; idle++) {
      const received = channel.receive(answer);
      if (received.bytes > 0) {
        bytes += received.bytes;
        idle = 0;
        continue;
      }
      if (held === 0) held = asked * 20 - bytes;
      bench.loop.epoll.wait(0);
    }
    assert.ok(held > 0, 'the socket held all: the test tests nothing');
    assert.equal(bytes, asked * 20);
    channel.close();
    bench.close();
  });

  test('test_paths_that_cannot_be', () => {
    const file = newPath();
    writeFileSync(file, '');
    const bench = new ServerBench();
    const before = openFds();
    for (const [path, code] of [
      [bench.path, 'state'],
      [file, 'config'],
      [join(directory, 'x'.repeat(120)), 'config'],
      [join(directory, 'nowhere', 'a.sock'), 'system'],
    ] as const) {
      assert.throws(() => new ServerBench({ path, loop: bench.loop }), { code });
    }
    const { length } = openFds();
    assert.equal(length - before.length, 4, 'only the loops of the benches stay');
    bench.close();
  });

  test('test_access_to_the_socket', () => {
    const bench = new ServerBench({ access: { mode: 0o600 } });
    assert.equal(statSync(bench.path).mode & 0o777, 0o600);
    bench.close();
  });
});

/** Run in a process that may have few descriptors. */
const OUT_OF_DESCRIPTORS = `
import { closeSync, openSync } from 'node:fs';
const base = process.argv[1], path = process.argv[2];
const { Arena } = await import(base + '/memory/arena.ts');
const { loggerTo } = await import(base + '/base/log.ts');
const { PollLoop } = await import(base + '/os/poll-loop.ts');
const { connectUnix } = await import(base + '/os/unix-socket.ts');
const { VhostUserServer } = await import(base + '/transport/vhost-user/server.ts');
const { ReturningDevice } = await import(base + '/transport/vhost-user/testing.ts');
const loop = new PollLoop();
const arena = Arena.create();
const lines = [];
const log = loggerTo((level, message) => lines.push(level + ': ' + message));
const connected = () => loop.stop();
const device = new ReturningDevice(arena);
const server = new VhostUserServer({ arena, loop, device, log, path, onConnection: connected });
connectUnix(path);
const files = [];
try {
  for (;;) files.push(openSync('/dev/null'));
} catch {}
for (let i = 0; i < 10; i++) loop.epoll.wait(0);
for (const file of files) closeSync(file);
if (server.connected) throw new Error('connected without a descriptor');
loop.run();
console.log(JSON.stringify({ lines, connected: server.connected }));
process.exit(0);
`;

test('test_running_out_of_descriptors_is_said_once_and_waited_for', () => {
  const path = newPath();
  const run = 'ulimit -n 64; exec "$0" --no-warnings --input-type=module -e "$1" "$2" "$3"';
  const source = join(import.meta.dirname, '../..');
  const args = ['-c', run, process.execPath, OUT_OF_DESCRIPTORS, source, path];
  const output = execFileSync('/bin/sh', args, { encoding: 'utf8' });
  const { lines, connected } = JSON.parse(output) as { lines: string[]; connected: boolean };
  assert.ok(connected);
  assert.deepEqual(lines, [
    `error: accepting on ${path}: EMFILE: accept4 ${path}`,
    `info: a front-end is connected to ${path}`,
  ]);
});

describe('vhost-user server that connects', () => {
  test('test_waits_for_the_front_end_and_comes_back', () => {
    const path = newPath();
    const bench = new ServerBench({
      path,
      role: 'connect',
      reconnectMs: { first: 1, longest: 4 },
    });
    assert.match(bench.log.join(), /ENOENT: connect .*: waiting for the front-end/);
    for (let round = 1; round <= 2; round++) {
      const listener = new UnixListener(path);
      bench.runUntil(() => bench.server.connected);
      const connection = listener.accept();
      assert.ok(connection !== undefined);
      const client = new VhostUserClient(new SocketChannel(connection), {
        pump: () => bench.pump(),
      });
      client.negotiate(TEST_FEATURES);
      listener.close();
      client.close();
      bench.runUntil(() => !bench.server.connected);
    }
    assert.equal(bench.server.connections, 2);
    const complaints = bench.log.filter((line) => line.includes('waiting for'));
    assert.ok(complaints.length <= 2, 'said once, not at each attempt');
    bench.close();
  });

  test('test_closing_ends_the_attempts', () => {
    const bench = new ServerBench({ role: 'connect', reconnectMs: { first: 1, longest: 1 } });
    bench.server.close();
    const listener = new UnixListener(bench.path);
    bench.loop.setTimer(5000, () => bench.loop.stop());
    bench.loop.run();
    assert.equal(listener.accept(), undefined);
    listener.close();
    bench.loop.close();
  });
});
