import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { closeAll, closeFd, createEventFd, drainEventFd, identify, signalEventFd } from './fd.ts';
import { pinned } from './libc.ts';
import { createMemfd } from './mapping.ts';
import {
  connectUnix,
  isNobodyListening,
  MAX_SOCKET_PATH,
  SCM_MAX_FD,
  type UnixConnection,
  UnixListener,
  unixSocketPair,
} from './unix-socket.ts';

const directory = mkdtempSync(join(tmpdir(), 'sluice-socket-'));
after(() => rmSync(directory, { recursive: true }));

const buffer = pinned(65536);
const bytes = Buffer.from(buffer.buffer);

function send(connection: UnixConnection, text: string, fds: readonly number[] = []): number {
  bytes.write(text);
  return connection.send(buffer.address, Buffer.byteLength(text), fds);
}

const openFds = (): number => readdirSync('/proc/self/fd').length;

describe('a pair of sockets', () => {
  test('carries bytes and descriptors, which stay open at the sender', () => {
    const [a, b] = unixSocketPair();
    const event = createEventFd();
    const file = createMemfd('file', 8192);
    assert.equal(send(a, 'hello', [event, file]), 5);
    const got = b.receive(buffer.address, 100);
    assert.equal(bytes.toString('utf8', 0, got.bytes), 'hello');
    assert.equal(got.fds.length, 2);
    assert.equal(identify(got.fds[1] as number).id, identify(file).id);
    assert.ok(signalEventFd(got.fds[0] as number));
    assert.ok(drainEventFd(event));
    closeAll([...got.fds, event, file]);
    a.close();
    b.close();
  });

  test('tells "nothing yet" from "gone"', () => {
    const [a, b] = unixSocketPair();
    assert.equal(b.receive(buffer.address, 10).bytes, 0);
    a.close();
    assert.equal(b.receive(buffer.address, 10).bytes, -1);
    assert.equal(send(b, 'x'), -1);
    b.close();
  });

  test('takes as much as the other side has room for', () => {
    const [a, b] = unixSocketPair();
    let sent = 0;
    for (let part = a.send(buffer.address, 65536); part > 0; part = a.send(buffer.address, 65536))
      sent += part;
    let received = 0;
    for (
      let part = b.receive(buffer.address, 65536);
      part.bytes > 0;
      part = b.receive(buffer.address, 65536)
    )
      received += part.bytes;
    assert.ok(sent > 0);
    assert.equal(received, sent);
    a.close();
    b.close();
  });

  test('carries as many descriptors as the kernel allows, and not one more', () => {
    const [a, b] = unixSocketPair();
    const event = createEventFd();
    const before = openFds();
    send(a, 'x', new Array(SCM_MAX_FD).fill(event));
    const got = b.receive(buffer.address, 10);
    assert.equal(got.fds.length, SCM_MAX_FD);
    assert.equal(got.truncated, false);
    closeAll(got.fds);
    assert.equal(openFds(), before);
    assert.throws(() => send(a, 'x', new Array(SCM_MAX_FD + 1).fill(event)), {
      code: 'unsupported',
    });
    closeFd(event);
    a.close();
    b.close();
  });
});

describe('a listener', () => {
  test('accepts, sets who may connect, and takes its file away', () => {
    const path = join(directory, 'a.sock');
    const listener = new UnixListener(path, { mode: 0o640 });
    assert.equal(statSync(path).mode & 0o777, 0o640);
    assert.equal(listener.accept(), undefined);
    const client = connectUnix(path);
    const server = listener.accept();
    assert.ok(server);
    send(client, 'hi');
    assert.equal(server.receive(buffer.address, 10).bytes, 2);
    server.close();
    client.close();
    listener.close();
    assert.equal(existsSync(path), false);
  });

  test('replaces a socket that a dead process left, not one that is served', () => {
    const path = join(directory, 'b.sock');
    const first = new UnixListener(path);
    assert.throws(() => new UnixListener(path), {
      code: 'state',
      message: /in use by another process/,
    });
    closeFd(first.fd);
    const second = new UnixListener(path);
    second.close();
  });

  test('does not touch a file of another kind', () => {
    const path = join(directory, 'file');
    writeFileSync(path, 'precious');
    assert.throws(() => new UnixListener(path), { code: 'config', message: /is not a socket/ });
    assert.equal(statSync(path).size, 8);
  });

  test('leaves a socket alone that another listener has put in its place', () => {
    const path = join(directory, 'c.sock');
    const first = new UnixListener(path);
    rmSync(path);
    const second = new UnixListener(path);
    first.close();
    assert.ok(existsSync(path));
    second.close();
  });

  test('names the path, the error and the remedy', () => {
    assert.throws(
      () => new UnixListener(join(directory, 'none', 'x.sock')),
      /^SystemError: ENOENT: bind .*none\/x\.sock$/,
    );
    const long = `/${'x'.repeat(MAX_SOCKET_PATH)}`;
    assert.throws(() => new UnixListener(long), { code: 'config', remedy: /107 bytes/ });
    const before = openFds();
    assert.throws(
      () => connectUnix(join(directory, 'nobody')),
      (error) => isNobodyListening(error),
    );
    assert.equal(openFds(), before);
  });
});
