import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SluiceError } from '../../base/errors.ts';
import * as nbd from '../../spec/nbd.ts';
import type { NbdExport } from './codec.ts';
import { NbdNegotiation } from './negotiation.ts';
import { ALL_FLAGS, TestServer, type TestServerOptions, u16, u32, u64 } from './testing.ts';

interface Outcome {
  readonly found: NbdExport | undefined;
  /** Bytes that the server sent. */
  readonly sent: number;
}

/** Lets both talk, the server's bytes cut into pieces of `cut`. */
function negotiate(
  options: TestServerOptions,
  { name = '', cut = 1e9, goal = 'go' as 'go' | 'info' } = {},
): Outcome {
  const server = new TestServer(options).connect();
  const client = new NbdNegotiation(name, goal);
  let sent = 0;
  for (let bytes = server.take(); bytes.length > 0; bytes = server.take()) {
    for (let at = 0; at < bytes.length; at += cut) client.push(bytes.subarray(at, at + cut));
    sent += bytes.length;
    server.push(client.take());
  }
  return { found: client.result, sent };
}

function refused(code: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SluiceError, String(error));
    assert.match(error.message, message);
    return error.code === code;
  };
}

const greeting = (magic = nbd.NBD_OPTION_MAGIC, flags = 3): Buffer =>
  Buffer.concat([u64(nbd.NBD_MAGIC), u64(magic), u16(flags)]);

const reply = (option: number, type: number, payload: Uint8Array = new Uint8Array(0)): Buffer =>
  Buffer.concat([
    u64(nbd.NBD_OPTION_REPLY_MAGIC),
    u32(option),
    u32(type),
    u32(payload.length),
    payload,
  ]);

describe('NbdNegotiation', () => {
  const blocks = { min: 4096, preferred: 65_536, max: 1 << 20 };
  const described = {
    bytes: 1 << 20,
    flags: ALL_FLAGS,
    minBlock: 4096,
    preferredBlock: 65_536,
    maxPayload: 1 << 20,
    structured: true,
  };

  it('learns about an export, wherever its bytes are cut', () => {
    for (const goal of ['go', 'info'] as const) {
      for (let cut = 1; cut < 60; cut++) {
        const { found } = negotiate({ blocks, name: 'data' }, { name: 'data', cut, goal });
        assert.deepEqual(found, described);
      }
    }
  });

  it('knows nothing before the last byte', () => {
    const { sent } = negotiate({ blocks });
    for (let length = 1; length <= sent; length++) {
      const { found } = negotiate({ blocks, cutAfter: () => length });
      assert.equal(found !== undefined, length === sent, `${length} of ${sent} bytes`);
    }
  });

  it('takes the defaults of the protocol where the server says nothing', () => {
    assert.deepEqual(negotiate({ structured: false }).found, {
      bytes: 1 << 20,
      flags: ALL_FLAGS,
      minBlock: 512,
      preferredBlock: 4096,
      maxPayload: 1 << 25,
      structured: false,
    });
  });

  it('does with NBD_OPT_EXPORT_NAME where the server knows nothing else', () => {
    const { found } = negotiate({ knowsGo: false, structured: false });
    assert.equal(found?.bytes, 1 << 20);
  });

  it('reads the zeroes behind an export where the server does not leave them out', () => {
    const client = new NbdNegotiation('', 'go');
    client.push(greeting(nbd.NBD_OPTION_MAGIC, nbd.NBD_FLAG_FIXED_NEWSTYLE));
    assert.equal(Buffer.from(client.take()).readUInt32BE(), nbd.NBD_FLAG_FIXED_NEWSTYLE);
    client.push(reply(nbd.NBD_OPT_STRUCTURED_REPLY, nbd.NBD_REP_ERR_UNSUP));
    client.push(reply(nbd.NBD_OPT_GO, nbd.NBD_REP_ERR_UNSUP));
    client.push(Buffer.concat([u64(4096), u16(1)]));
    const size = (): number | undefined => client.result?.bytes;
    assert.equal(size(), undefined);
    client.push(Buffer.alloc(124));
    assert.equal(size(), 4096);
  });

  it('says goodbye as the phase has it', () => {
    const bye = (goal: 'go' | 'info'): Buffer => {
      const server = new TestServer().connect();
      const client = new NbdNegotiation('', goal);
      for (let bytes = server.take(); bytes.length > 0; bytes = server.take()) {
        client.push(bytes);
        server.push(client.take());
      }
      return Buffer.from(client.goodbye());
    };
    assert.equal(bye('go').readUInt32BE(), nbd.NBD_REQUEST_MAGIC);
    assert.equal(bye('go').readUInt16BE(6), nbd.NBD_CMD_DISC);
    assert.equal(bye('info').readUInt32BE(8), nbd.NBD_OPT_ABORT);
  });

  for (const [refuse, code, message] of [
    [nbd.NBD_REP_ERR_UNKNOWN, 'not-found', /no default export: because/],
    [nbd.NBD_REP_ERR_TLS_REQD, 'unsupported', /demands TLS/],
    [nbd.NBD_REP_ERR_POLICY, 'state', /does not let us/],
    [nbd.NBD_REP_ERR_SHUTDOWN, 'state', /shutting down/],
    [nbd.NBD_REP_ERR_BLOCK_SIZE_REQD, 'state', /0x80000008: because/],
  ] as const) {
    it(`names refusal 0x${refuse.toString(16)}`, () => {
      assert.throws(() => negotiate({ refuse }), refused(code, message));
    });
  }

  const go = (...parts: Buffer[]): Buffer[] => [
    greeting(),
    reply(nbd.NBD_OPT_STRUCTURED_REPLY, nbd.NBD_REP_ACK),
    ...parts,
  ];
  const info = (...payload: Buffer[]): Buffer =>
    reply(nbd.NBD_OPT_GO, nbd.NBD_REP_INFO, Buffer.concat(payload));
  const sizes = (min: number, preferred: number, max: number): Buffer =>
    info(u16(nbd.NBD_INFO_BLOCK_SIZE), u32(min), u32(preferred), u32(max));
  const size = info(u16(nbd.NBD_INFO_EXPORT), u64(512), u16(1));
  const ack = reply(nbd.NBD_OPT_GO, nbd.NBD_REP_ACK);

  for (const [name, parts, code, message] of [
    ['another protocol', [Buffer.from('SSH-2.0-OpenSSH_9.2p1\r\n')], 'protocol', /not of an NBD/],
    ['oldstyle', [greeting(nbd.NBD_OLDSTYLE_MAGIC)], 'unsupported', /fixed newstyle/],
    ['newstyle that is not fixed', [greeting(nbd.NBD_OPTION_MAGIC, 2)], 'unsupported', /fixed/],
    ['another second magic', [greeting(77n)], 'protocol', /goes on with 0x4d/],
    ['garbage for a reply', [greeting(), Buffer.alloc(20, 7)], 'protocol', /begins with 0x7070/],
    [
      'a reply to something else',
      [greeting(), reply(nbd.NBD_OPT_LIST, nbd.NBD_REP_ACK)],
      'protocol',
      /option 3, expected one to 8/,
    ],
    [
      'a huge reply',
      [greeting(), reply(nbd.NBD_OPT_STRUCTURED_REPLY, 1, Buffer.alloc(70_000))],
      'protocol',
      /70000 bytes/,
    ],
    [
      'information for structured replies',
      [greeting(), reply(nbd.NBD_OPT_STRUCTURED_REPLY, nbd.NBD_REP_INFO)],
      'protocol',
      /reply 3 to/,
    ],
    [
      'a server for an export',
      go(reply(nbd.NBD_OPT_GO, nbd.NBD_REP_SERVER)),
      'protocol',
      /reply 2/,
    ],
    ['no size', go(ack), 'protocol', /does not tell the size/],
    ['a size beyond 2^53', go(info(u16(0), u64(2n ** 60n), u16(1))), 'protocol', /out of range/],
    ['a short size', go(info(u16(0), u32(7))), 'protocol', /6 bytes, expected 12/],
    ['information without a kind', go(info()), 'protocol', /no kind/],
    ['blocks of 3', go(sizes(3, 4096, 65_536)), 'protocol', /block of 3 bytes/],
    ['blocks of 0', go(sizes(0, 4096, 65_536)), 'protocol', /block of 0 bytes/],
    ['blocks of 128 KiB', go(sizes(131_072, 131_072, 131_072)), 'protocol', /131072/],
    ['a preferred block below the least', go(sizes(4096, 512, 65_536)), 'protocol', /preferred/],
    ['a largest payload below that', go(sizes(512, 4096, 512)), 'protocol', /at most 512/],
    ['too much information', go(...Array<Buffer>(65).fill(size)), 'protocol', /more than 64/],
    ['more than was asked for', go(size, ack, Buffer.alloc(1)), 'protocol', /more than was asked/],
  ] as const) {
    it(`refuses ${name}`, () => {
      const client = new NbdNegotiation('', 'go');
      assert.throws(() => client.push(Buffer.concat([...parts])), refused(code, message));
    });
  }
});
