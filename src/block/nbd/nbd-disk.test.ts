// suite: cores=0.5 takes=30
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { type LogLevel, loggerTo } from '../../base/log.ts';
import * as nbd from '../../spec/nbd.ts';
import type { DiskLane } from '../disk.ts';
import { type NbdDiskOptions, openNbdDisk } from '../open/nbd.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
  REQUEST_UNMAP,
} from '../requests.ts';
import { DiskClient, testDisk, testLane } from '../testing.ts';
import type { NbdDiskDescription } from './description.ts';
import { NbdDisk } from './nbd-disk.ts';
import {
  ALL_FLAGS,
  chunk,
  dataChunk,
  errorChunk,
  holeChunk,
  ListeningServer,
  type ServedRequest,
  serveNbd,
  simpleReply,
  TestServer,
  type TestServerOptions,
} from './testing.ts';

const EIO = 5;
const BLOCK = 512;

function socketPath(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-nbd-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return join(directory, 'nbd.sock');
}

/** A server, a disk on it, and a client of that, all of which end with the test. */
class Rig {
  readonly listening: ListeningServer;
  readonly disk: NbdDisk;
  readonly client: DiskClient;
  readonly log: { readonly level: LogLevel; readonly message: string; readonly reason: string }[];

  private constructor(
    listening: ListeningServer,
    description: NbdDiskDescription,
    lane: DiskLane,
    log: Rig['log'],
  ) {
    this.listening = listening;
    this.log = log;
    this.disk = new NbdDisk(description, lane);
    this.client = new DiskClient(this.disk, lane);
  }

  get server(): TestServer {
    return this.listening.server;
  }

  static async make(
    t: TestContext,
    options: TestServerOptions = {},
    disk: Partial<NbdDiskOptions> = {},
  ): Promise<Rig> {
    const listening = await serveNbd(socketPath(t), options);
    const description = await openNbdDisk({
      name: 'data',
      uri: listening.uri,
      retryMs: 1,
      ...disk,
    });
    const log: Rig['log'] = [];
    const lane: DiskLane = {
      ...testLane(),
      log: loggerTo((level, message, fields) =>
        log.push({ level, message, reason: String(fields['reason'] ?? '') }),
      ),
    };
    const rig = new Rig(listening, description, lane, log);
    t.after(async () => {
      if (rig.client.inFlight > 0) lane.loop.removePoller(rig.client);
      else {
        rig.client.close();
        rig.disk.close();
      }
      await listening.close();
    });
    return rig;
  }

  async write(offset: number, byte: number, bytes = BLOCK, flags = 0): Promise<number> {
    const data = Buffer.alloc(bytes, byte);
    return (await this.client.request({ op: DISK_WRITE, offset, bytes, data, flags })).result;
  }

  read(offset: number, bytes = BLOCK): Promise<{ readonly result: number; readonly data: Buffer }> {
    return this.client.request({ op: DISK_READ, offset, bytes });
  }

  /** Types of the requests that the server has seen. */
  types(): number[] {
    return this.server.requests.map(({ type }) => type);
  }

  reasons(): string {
    return this.log.map(({ message, reason }) => `${message}: ${reason}`).join('\n');
  }
}

/** Does something to the first request of a type, nothing to others. */
function once<T>(
  type: number,
  what: (request: ServedRequest) => T,
): (r: ServedRequest) => T | undefined {
  let done = false;
  return (request) => {
    if (done || request.type !== type) return undefined;
    done = true;
    return what(request);
  };
}

for (const [name, options] of [
  ['structured replies', { chunks: 1 }],
  ['structured replies in chunks and holes', { chunks: 5, shuffle: 3 }],
  ['simple replies', { structured: false, shuffle: 2 }],
  [
    'a server without NBD_OPT_GO, FUA and trim',
    {
      structured: false,
      knowsGo: false,
      flags: nbd.NBD_FLAG_HAS_FLAGS | nbd.NBD_FLAG_SEND_FLUSH,
    },
  ],
  [
    'a server that takes little at once',
    {
      blocks: { min: 512, preferred: 512, max: 4096 },
      shuffle: 4,
    },
  ],
  ['several connections', { connections: 4, shuffle: 2 }],
] as const) {
  const servers = new Map<string, TestServer>();
  testDisk(
    `nbd, ${name}`,
    async ({ lane, bytes, readonly, place, test }) => {
      let server = servers.get(place);
      if (server === undefined) {
        server = new TestServer({ bytes, ...options });
        servers.set(place, server);
      }
      const listening = await new ListeningServer(server, socketPath(test)).listen();
      test.after(() => listening.close());
      const connections = 'connections' in options ? options.connections : 1;
      const uri = listening.uri;
      return new NbdDisk(await openNbdDisk({ name: place, uri, readonly, connections }), lane);
    },
    { sameThread: true, runs: 8 },
  );
}

describe('an NBD disk', () => {
  it('tells what the server told', async (t) => {
    const rig = await Rig.make(t, {
      bytes: 3 << 20,
      blocks: { min: 4096, preferred: 65_536, max: 1 << 20 },
    });
    assert.deepEqual(rig.disk.info, {
      bytes: 3 << 20,
      readonly: false,
      blockBytes: 4096,
      physicalBlockBytes: 4096,
      optimalBytes: 65_536,
      discardBytes: 4096,
      writeZeroes: true,
      volatileCache: true,
    });
  });

  it('sends flags as requests have them', async (t) => {
    const rig = await Rig.make(t);
    const range = { offset: 1024, bytes: 1024 };
    await rig.write(0, 1, BLOCK, REQUEST_FUA);
    await rig.client.request({ op: DISK_WRITE_ZEROES, ...range });
    await rig.client.request({ op: DISK_WRITE_ZEROES, ...range, flags: REQUEST_UNMAP });
    await rig.client.request({ op: DISK_DISCARD, ...range });
    await rig.client.flush();
    const { NBD_CMD_FLAG_FUA: fua, NBD_CMD_FLAG_NO_HOLE: noHole } = nbd;
    assert.deepEqual(
      rig.server.requests.map(({ type, flags, offset, length }) => [type, flags, offset, length]),
      [
        [nbd.NBD_CMD_WRITE, fua, 0, 512],
        [nbd.NBD_CMD_WRITE_ZEROES, noHole, 1024, 1024],
        [nbd.NBD_CMD_WRITE_ZEROES, 0, 1024, 1024],
        [nbd.NBD_CMD_TRIM, 0, 1024, 1024],
        [nbd.NBD_CMD_FLUSH, 0, 0, 0],
      ],
    );
  });

  it('follows a durable write with a flush where the server knows no FUA', async (t) => {
    const rig = await Rig.make(t, { flags: ALL_FLAGS & ~nbd.NBD_FLAG_SEND_FUA });
    assert.equal(await rig.write(0, 1, BLOCK, REQUEST_FUA), 0);
    assert.deepEqual(rig.types(), [nbd.NBD_CMD_WRITE, nbd.NBD_CMD_FLUSH]);
  });

  it('splits what is larger than the server takes', async (t) => {
    const rig = await Rig.make(t, { blocks: { min: 512, preferred: 512, max: 5000 } });
    assert.equal(await rig.write(512, 7, 10_240), 0);
    assert.deepEqual(
      rig.server.requests.map(({ offset, length }) => [offset, length]),
      [
        [512, 4608],
        [5120, 4608],
        [9728, 1024],
      ],
    );
    assert.ok((await rig.read(512, 10_240)).data.every((byte) => byte === 7));
  });

  for (const structured of [true, false]) {
    const form = structured ? 'structured' : 'simple';
    for (const [error, errno] of [
      [nbd.NBD_EPERM, 1],
      [nbd.NBD_EIO, 5],
      [nbd.NBD_ENOSPC, 28],
      [nbd.NBD_ENOTSUP, 95],
      [4242, 22],
      [0xffff_ffff, 22],
    ] as const) {
      it(`passes error ${error} on as errno ${errno}, ${form}`, async (t) => {
        let on = true;
        const rig = await Rig.make(t, { structured, misdeed: () => (on ? { error } : undefined) });
        assert.equal(await rig.write(0, 1), -errno);
        assert.equal((await rig.read(0)).result, -errno);
        assert.equal((await rig.client.request({ op: DISK_FLUSH })).result, -errno);
        on = false;
        assert.equal(await rig.write(0, 1), 0);
        assert.equal(rig.server.connections, 2, 'the first is the handshake of the main thread');
      });
    }
  }

  it('fails a split request whose piece fails', async (t) => {
    const rig = await Rig.make(t, {
      blocks: { min: 512, preferred: 512, max: 4096 },
      misdeed: ({ offset }) => (offset === 8192 ? { error: nbd.NBD_ENOSPC } : undefined),
    });
    assert.equal(await rig.write(0, 1, 16_384), -28);
    assert.equal(await rig.write(0, 1, 8192), 0);
  });

  it('keeps the memory of a write that is answered before all of it is sent', async (t) => {
    const bytes = 4 << 20;
    const rig = await Rig.make(t, { bytes: 2 * bytes, eager: true });
    const lane = testLane();
    const client = new DiskClient(rig.disk, lane, { slots: 1, slotBytes: bytes });
    for (const [index, byte] of [3, 4].entries()) {
      const data = Buffer.alloc(bytes, byte);
      const { result } = await client.request({
        op: DISK_WRITE,
        offset: index * bytes,
        bytes,
        data,
      });
      assert.equal(result, 0);
    }
    await client.flush();
    client.close();
    const { disk } = rig.server;
    assert.ok(disk.subarray(0, bytes).every((byte) => byte === 3));
    assert.ok(disk.subarray(bytes).every((byte) => byte === 4));
  });

  it('takes an error chunk after data, and one with an offset', async (t) => {
    const payload = Buffer.from([0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    const rig = await Rig.make(t, {
      misdeed: ({ cookie, offset, length, type }) =>
        type === nbd.NBD_CMD_READ
          ? {
              bytes: Buffer.concat([
                dataChunk(cookie, offset, Buffer.alloc(length), false),
                chunk(cookie, nbd.NBD_REPLY_TYPE_ERROR_OFFSET, payload, false),
                chunk(cookie, 0x8777, Buffer.alloc(100, 1), false),
                chunk(cookie, nbd.NBD_REPLY_TYPE_NONE, Buffer.alloc(0), true),
              ]),
            }
          : undefined,
    });
    assert.equal((await rig.read(0)).result, -EIO);
    assert.equal(await rig.write(0, 1), 0);
    assert.equal(rig.log.length, 0);
  });
});

describe('an NBD disk whose server breaks the protocol', () => {
  const none = Buffer.alloc(0);
  const cases: readonly (readonly [
    string,
    (request: ServedRequest) => Buffer,
    RegExp,
    TestServerOptions?,
  ])[] = [
    ['garbage', () => Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), /begins with 0x48545450/],
    ['another cookie', ({ cookie }) => simpleReply(cookie ^ 1n), /no request/],
    ['an old cookie', ({ cookie }) => simpleReply(cookie - 2n ** 32n), /no request/],
    ['a simple reply to a read', ({ cookie }) => simpleReply(cookie, 0), /simple reply to a read/],
    [
      'a chunk without structured replies',
      ({ cookie }) => chunk(cookie, nbd.NBD_REPLY_TYPE_NONE, none, true),
      /begins with 0x668e33ef/,
      { structured: false },
    ],
    ['an unknown chunk', ({ cookie }) => chunk(cookie, 77, none, true), /unknown type 77/],
    [
      'a status chunk for a read',
      ({ cookie }) => chunk(cookie, 5, Buffer.alloc(12), true),
      /unknown type 5/,
    ],
    ['an end without data', ({ cookie }) => chunk(cookie, 0, none, true), /512 bytes short/],
    [
      'less data than asked for',
      ({ cookie, offset }) => dataChunk(cookie, offset, Buffer.alloc(100), true),
      /412 bytes short/,
    ],
    [
      'data beyond the request',
      ({ cookie, offset }) => dataChunk(cookie, offset + 1, Buffer.alloc(512), true),
      /outside of what was asked for/,
    ],
    [
      'data before the request',
      ({ cookie, offset }) => dataChunk(cookie, offset - 1, Buffer.alloc(512), true),
      /outside of what was asked for/,
    ],
    [
      'data twice',
      ({ cookie, offset }) =>
        Buffer.concat([
          dataChunk(cookie, offset, Buffer.alloc(512), false),
          dataChunk(cookie, offset, Buffer.alloc(512), true),
        ]),
      /overlap/,
    ],
    [
      'a hole beyond the request',
      ({ cookie, offset }) => holeChunk(cookie, offset, 1024, true),
      /outside of what was asked for/,
    ],
    [
      'an empty hole',
      ({ cookie, offset }) => holeChunk(cookie, offset, 0, true),
      /chunk of 0 bytes/,
    ],
    ['a short hole', ({ cookie }) => chunk(cookie, 2, Buffer.alloc(11), true), /hole chunk of 11/],
    ['data without data', ({ cookie }) => chunk(cookie, 1, Buffer.alloc(8), true), /chunk of 8/],
    ['an end with content', ({ cookie }) => chunk(cookie, 0, Buffer.alloc(1), true), /content/],
    ['an end that is none', ({ cookie }) => chunk(cookie, 0, none, false), /not last/],
    ['an error without error', ({ cookie }) => errorChunk(cookie, 0, ''), /without an error/],
    ['a short error', ({ cookie }) => chunk(cookie, 0x8001, Buffer.alloc(5), true), /chunk of 5/],
    ['a huge error', ({ cookie }) => chunk(cookie, 0x8001, Buffer.alloc(9999), true), /of 9999/],
    [
      'an error whose text is longer than itself',
      ({ cookie }) => chunk(cookie, 0x8001, Buffer.from([0, 0, 0, 5, 0, 9]), true),
      /text of 9/,
    ],
    [
      'that it shuts down',
      ({ cookie }) => errorChunk(cookie, nbd.NBD_ESHUTDOWN, ''),
      /shutting down/,
    ],
  ];
  for (const [name, reply, reason, options] of cases) {
    it(`${name}: names it, connects again, and reads`, async (t) => {
      const rig = await Rig.make(t, {
        ...options,
        misdeed: once(nbd.NBD_CMD_READ, (request) => ({ bytes: reply(request) })),
      });
      assert.equal(await rig.write(8192, 3), 0);
      const { result, data } = await rig.read(8192);
      assert.equal(result, 0);
      assert.ok(data.every((byte) => byte === 3));
      assert.match(rig.reasons(), reason);
      assert.match(rig.reasons(), /connected to the NBD server again/);
    });
  }

  it('answers twice: the second answer is to no request', async (t) => {
    const rig = await Rig.make(t, {
      misdeed: once(nbd.NBD_CMD_WRITE, ({ cookie }) => ({
        bytes: Buffer.concat([simpleReply(cookie), simpleReply(cookie)]),
      })),
    });
    assert.equal(await rig.write(0, 3), 0);
    assert.equal(await rig.write(0, 4), 0);
    assert.match(rig.reasons(), /no request/);
  });
});

describe('an NBD disk that loses its connection', () => {
  it('does each request once more, whatever byte the connection ended at', async (t) => {
    // The handshake is cut at each byte in negotiation.test.ts; here it has about 170 bytes, the
    // replies to what follows 80 or 100, and a read's data comes behind them.
    const cuts = [...Array(300).keys()].filter((cut) => cut >= 160 || cut % 16 === 0);
    for (const structured of [true, false]) {
      let cut = 0;
      let armed = false;
      const rig = await Rig.make(t, {
        structured,
        cutAfter: () => {
          if (!armed) return Number.POSITIVE_INFINITY;
          armed = false;
          return cut;
        },
      });
      const from = structured ? 0 : 160;
      for (const [round, at] of cuts.filter((one) => one >= from).entries()) {
        const bytes = at + 1;
        const byte = (round % 255) + 1;
        cut = bytes;
        armed = true;
        rig.listening.disconnectAll();
        const results: number[] = [];
        const done = (result: number): void => {
          results.push(result);
        };
        for (let i = 0; i < 4; i++) {
          const data = Buffer.alloc(BLOCK, byte);
          rig.client.submit({ op: DISK_WRITE, offset: i * BLOCK, bytes: BLOCK, data, done });
        }
        rig.client.submit({ op: DISK_FLUSH, done });
        await rig.client.drain();
        assert.deepEqual(results, [0, 0, 0, 0, 0], `cut after ${bytes} bytes`);
        const { result, data } = await rig.read(0, 4 * BLOCK);
        assert.equal(result, 0);
        assert.ok(
          data.every((value) => value === byte),
          `cut after ${bytes} bytes`,
        );
      }
    }
  });

  it('sends flushes again behind writes', async (t) => {
    let misdeeds = 0;
    const rig = await Rig.make(t, { misdeed: () => (misdeeds-- > 0 ? 'silence' : undefined) });
    misdeeds = 3;
    const done: number[] = [];
    const submit = (op: number): void => {
      const data = Buffer.alloc(BLOCK, 9);
      const range = op === DISK_WRITE ? { offset: 0, bytes: BLOCK, data } : {};
      rig.client.submit({ op, ...range, done: (result) => done.push(result) });
    };
    submit(DISK_FLUSH);
    submit(DISK_WRITE);
    submit(DISK_WRITE);
    await rig.client.run(() => rig.server.requests.length === 3);
    rig.listening.disconnectAll();
    await rig.client.drain();
    assert.deepEqual(done, [0, 0, 0]);
    assert.deepEqual(rig.types().slice(3), [
      nbd.NBD_CMD_WRITE,
      nbd.NBD_CMD_WRITE,
      nbd.NBD_CMD_FLUSH,
    ]);
  });

  it('goes on over the connections that are left', async (t) => {
    const rig = await Rig.make(
      t,
      {
        misdeed: ({ offset }, connection) =>
          connection === 2 && offset === 0 ? 'disconnect' : undefined,
      },
      { connections: 3 },
    );
    for (let i = 0; i < 40; i++) {
      for (let k = 0; k < 8; k++) {
        const data = Buffer.alloc(BLOCK, i + 1);
        rig.client.submit({ op: DISK_WRITE, offset: 0, bytes: BLOCK, data });
      }
      await rig.client.drain();
    }
    assert.ok((await rig.read(0)).data.every((byte) => byte === 40));
  });

  it('waits for a server that comes back', async (t) => {
    const rig = await Rig.make(t);
    assert.equal(await rig.write(0, 5), 0);
    await rig.listening.close();
    let result: number | undefined;
    const done = (value: number): void => {
      result = value;
    };
    rig.client.submit({ op: DISK_READ, offset: 0, bytes: BLOCK, done });
    await rig.client.run(() => rig.log.length > 0);
    assert.equal(result, undefined);
    const again = await new ListeningServer(rig.server, rig.listening.path).listen();
    t.after(() => again.close());
    await rig.client.drain();
    assert.equal(result, 0);
  });

  it('fails requests with EIO once it has waited long enough, and works when the server is back', async (t) => {
    const rig = await Rig.make(t, {}, { reconnectMs: 100 });
    await rig.write(0, 5);
    await rig.listening.close();
    assert.equal((await rig.read(0)).result, -EIO);
    assert.match(rig.reasons(), /requests fail until it is back/);
    // From now on at once.
    assert.equal((await rig.read(0)).result, -EIO);
    const again = await new ListeningServer(rig.server, rig.listening.path).listen();
    t.after(() => again.close());
    await rig.client.run(() => rig.log.some(({ message }) => /again/.test(message)));
    assert.equal((await rig.read(0)).result, 0);
  });

  it('fails requests at once when it is not to wait', async (t) => {
    const rig = await Rig.make(
      t,
      { misdeed: once(nbd.NBD_CMD_READ, () => 'disconnect' as const) },
      { reconnectMs: 0 },
    );
    assert.equal(await rig.write(0, 5), 0);
    assert.equal((await rig.read(0)).result, -EIO);
    await rig.client.run(() => rig.log.some(({ message }) => /again/.test(message)));
    assert.equal((await rig.read(0)).result, 0);
  });

  it('fails the request that the server dies of, again and again, and no other', async (t) => {
    const rig = await Rig.make(
      t,
      { misdeed: ({ offset }) => (offset === 4096 ? 'disconnect' : undefined) },
      { reconnectMs: 300 },
    );
    assert.equal((await rig.read(4096)).result, -EIO);
    assert.equal(await rig.write(0, 5), 0);
    assert.equal((await rig.read(0)).result, 0);
  });

  it('takes a server that is silent for gone', async (t) => {
    const rig = await Rig.make(
      t,
      { misdeed: once(nbd.NBD_CMD_READ, () => 'silence' as const) },
      { replyMs: 100 },
    );
    assert.equal((await rig.read(0)).result, 0);
    assert.match(rig.reasons(), /no answer for 0.1 s/);
  });

  it('names what has changed meanwhile, and fails what waits', async (t) => {
    const rig = await Rig.make(t, {}, { reconnectMs: 200 });
    const { path } = rig.listening;
    for (const [options, what] of [
      [{ bytes: 2 << 20 }, /2097152 bytes, it had 1048576/],
      [{ flags: ALL_FLAGS | nbd.NBD_FLAG_READ_ONLY }, /read-only now/],
      [{ flags: ALL_FLAGS & ~nbd.NBD_FLAG_SEND_FLUSH }, /does not allow flush/],
      [{ blocks: { min: 4096, preferred: 4096, max: 2 ** 25 } }, /smallest block is 4096/],
      [{ blocks: { min: 512, preferred: 4096, max: 4096 } }, /takes 4096 bytes at once/],
      [{ name: 'other' }, /no default export/],
    ] as const) {
      await rig.listening.close();
      await using other = await serveNbd(path, options);
      await rig.client.run(() => what.test(rig.reasons()));
      assert.equal(await rig.write(0, 1), -EIO);
      assert.equal(other.server.requests.length, 0);
    }
  });

  it('tells of writes that may be lost: in the log, or by a flush that fails', async (t) => {
    for (const afterLoss of ['trust', 'fail'] as const) {
      const rig = await Rig.make(t, {}, { afterLoss });
      const flush = async (): Promise<number> =>
        (await rig.client.request({ op: DISK_FLUSH })).result;
      await rig.write(0, 1);
      assert.equal(await flush(), 0);
      rig.listening.disconnectAll();
      await rig.client.run(() => rig.log.some(({ message }) => /is lost/.test(message)));
      assert.equal(await flush(), 0, 'nothing was at risk');
      assert.doesNotMatch(rig.reasons(), /had not been flushed/);
      await rig.write(0, 2);
      await rig.write(0, 3, BLOCK, REQUEST_FUA);
      rig.listening.disconnectAll();
      await rig.client.run(() => /had not been flushed/.test(rig.reasons()));
      assert.equal(await flush(), afterLoss === 'fail' ? -EIO : 0);
      assert.equal(await flush(), 0, 'it is told once');
    }
  });
});
