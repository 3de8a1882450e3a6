import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { SluiceError } from '../../base/errors.ts';
import { loggerTo } from '../../base/log.ts';
import * as nbd from '../../spec/nbd.ts';
import { NbdDisk } from '../nbd/nbd-disk.ts';
import { ALL_FLAGS, serveNbd, TestServer } from '../nbd/testing.ts';
import { DiskClient, testLane } from '../testing.ts';
import { openNbdDisk } from './nbd.ts';

function socketPath(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-nbd-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return join(directory, 'nbd.sock');
}

function refused(code: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SluiceError, String(error));
    assert.match(error.message, message);
    return error.code === code;
  };
}

describe('openNbdDisk', () => {
  it('describes an export so that a lane can be given it', async (t) => {
    await using server = await serveNbd(socketPath(t), { name: 'data', bytes: 8192 });
    const description = await openNbdDisk({ name: 'd', uri: server.uri, connections: 3 });
    assert.equal(description.connections, 3);
    assert.equal(description.export.bytes, 8192);
    assert.equal(description.exportName, 'data');
    assert.deepEqual(structuredClone(description), description);
    assert.equal(server.server.requests.length, 0, 'nothing but options were sent');
  });

  it('takes one connection where the server allows no more, and says so', async (t) => {
    const flags = ALL_FLAGS & ~nbd.NBD_FLAG_CAN_MULTI_CONN;
    await using server = await serveNbd(socketPath(t), { flags });
    const said: string[] = [];
    const log = loggerTo((_, message) => said.push(message));
    const { connections } = await openNbdDisk({ name: 'd', uri: server.uri, connections: 3, log });
    assert.equal(connections, 1);
    assert.deepEqual(said, ['the NBD server allows one connection only']);
  });

  for (const host of ['127.0.0.1', '[::1]', 'localhost']) {
    it(`reaches a server at ${host}`, async (t) => {
      const listener = createServer((socket) => {
        const connection = server.connect();
        const pass = (): void => {
          socket.write(connection.take());
        };
        socket.on('data', (bytes: Buffer) => {
          connection.push(bytes);
          pass();
        });
        socket.on('error', () => socket.destroy());
        pass();
      });
      const server = new TestServer({ name: 'x' });
      listener.listen(0, host.replace(/[[\]]/g, ''));
      try {
        await once(listener, 'listening');
      } catch {
        return t.skip('the machine has no such address');
      }
      t.after(() => listener.close());
      const address = listener.address();
      assert.ok(address !== null && typeof address === 'object');
      const uri = `nbd://${host}:${address.port}/x`;
      const description = await openNbdDisk({ name: 'd', uri });
      const lane = testLane();
      const disk = new NbdDisk(description, lane);
      const client = new DiskClient(disk, lane);
      await client.write(512, Buffer.alloc(512, 8));
      assert.ok((await client.read(512, 512)).every((byte) => byte === 8));
      client.close();
      disk.close();
      return undefined;
    });
  }

  it('names what is wrong', async (t) => {
    const path = socketPath(t);
    const uri = `nbd+unix:///?socket=${path}`;
    await assert.rejects(openNbdDisk({ name: 'd', uri }), refused('not-found', /disk d, .*ENOENT/));
    await assert.rejects(
      openNbdDisk({ name: 'd', uri: 'nbd://127.0.0.1:1/x' }),
      refused('not-found', /ECONNREFUSED: 127\.0\.0\.1:1/),
    );
    await assert.rejects(
      openNbdDisk({ name: 'd', uri: 'nbd://no-such-host.invalid/x' }),
      refused('not-found', /host no-such-host\.invalid/),
    );
    for (const connections of [0, 17, 1.5]) {
      await assert.rejects(
        openNbdDisk({ name: 'd', uri, connections }),
        refused('config', /connections/),
      );
    }
    for (const [options, code, message] of [
      [{ bytes: 1000 }, 'unsupported', /1000 bytes, no multiple/],
      [{ bytes: 0 }, 'unsupported', /0 bytes/],
      [{ name: 'other' }, 'not-found', /no default export/],
      [{ flags: ALL_FLAGS | nbd.NBD_FLAG_READ_ONLY }, 'state', /only be read/],
      [{ cutAfter: () => 30 }, 'protocol', /closed during the handshake/],
      [{ cutAfter: () => 0 }, 'protocol', /closed during the handshake/],
    ] as const) {
      await using server = await serveNbd(path, options);
      assert.equal(server.path, path);
      await assert.rejects(openNbdDisk({ name: 'd', uri }), refused(code, message));
    }
    await using server = await serveNbd(path, { flags: ALL_FLAGS | nbd.NBD_FLAG_READ_ONLY });
    const { readonly } = await openNbdDisk({ name: 'd', uri: server.uri, readonly: true });
    assert.equal(readonly, true);
  });

  it('does not wait for ever', async (t) => {
    const path = socketPath(t);
    const silent = createServer();
    silent.listen(path);
    await once(silent, 'listening');
    t.after(() => silent.close());
    const uri = `nbd+unix:///?socket=${path}`;
    await assert.rejects(
      openNbdDisk({ name: 'd', uri, connectMs: 50 }),
      refused('state', /no answer in 0\.05 s/),
    );
  });
});
