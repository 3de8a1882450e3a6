import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../memory/arena.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';
import type { Burst } from './burst.ts';
import { createDataPath, type DataPath } from './data-path.ts';
import { MAX_FRAME_BYTES } from './frame.ts';
import { parseMac } from './mac.ts';
import { PortPolicy, type PortPolicyOptions } from './policy.ts';
import { newPortCounters, OFFLOAD_CSUM, OFFLOAD_TSO4, type Port } from './port.ts';
import { Switch } from './switch.ts';

const path: DataPath = createDataPath(Arena.create(), new PollLoop());

const A = '52:54:00:00:00:0a';
const B = '52:54:00:00:00:0b';
const C = '52:54:00:00:00:0c';
const ALL = 'ff:ff:ff:ff:ff:ff';

/** A port that keeps what it gets, as the bytes would lie in a guest's buffers. */
class SinkPort implements Port {
  readonly counters = newPortCounters();
  readonly name: string;
  offloads = 0;
  readonly got: Buffer[] = [];
  readonly headers: Buffer[] = [];
  flushes = 0;
  readonly #pending: { at: number; length: number }[] = [];

  constructor(name: string) {
    this.name = name;
  }

  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      const header = tagged ? burst.tag(slot) : (burst.headerAt[slot] as number);
      const headerLength = (burst.headerLength[slot] as number) + (tagged ? 4 : 0);
      const rest = (burst.chains.total[slot] as number) - (burst.skip[slot] as number);
      const at = path.arena.allocate(headerLength + rest);
      burst.copies.push(at, header, headerLength);
      burst.copyFromChain(slot, burst.skip[slot] as number, rest, at + headerLength);
      this.#pending.push({ at, length: headerLength + rest });
    }
  }

  flush(): void {
    this.flushes++;
    for (const { at, length } of this.#pending.splice(0)) {
      const bytes = Buffer.from(path.arena.bytes.slice(at, at + length));
      this.headers.push(bytes.subarray(0, NET_HEADER_BYTES));
      this.got.push(bytes.subarray(NET_HEADER_BYTES));
      path.arena.unmap(at, length);
    }
  }
}

interface FrameOptions {
  readonly vlan?: number;
  readonly bytes?: number;
  readonly header?: readonly number[];
}

function frame(to: string, from: string, options: FrameOptions = {}): Buffer {
  const { vlan, bytes = 60 } = options;
  const tag = vlan === undefined ? [] : [0x81, 0x00, vlan >> 8, vlan & 0xff];
  const head = Buffer.from([...parseMac(to), ...parseMac(from), ...tag, 0x88, 0xb5]);
  const body = Buffer.alloc(Math.max(0, bytes - head.length));
  for (let i = 0; i < body.length; i++) body[i] = (i * 7) & 0xff;
  return Buffer.concat([head, body]);
}

/** Sends frames as one burst. */
function send(
  lan: Switch,
  port: Port,
  frames: readonly Buffer[],
  header: readonly number[] = [],
): void {
  const { burst, arena } = path;
  const room = 128 * 1024;
  const at = arena.allocate(frames.length * room);
  burst.clear();
  for (const [index, bytes] of frames.entries()) {
    arena.bytes.fill(0, at + index * room, at + index * room + NET_HEADER_BYTES);
    arena.bytes.set(header, at + index * room);
    arena.bytes.set(bytes, at + index * room + NET_HEADER_BYTES);
    burst.chains.add(at + index * room, NET_HEADER_BYTES + bytes.length);
  }
  burst.sourceHeaderBytes = NET_HEADER_BYTES;
  burst.gather();
  lan.forward(port, burst);
  lan.publish();
  arena.unmap(at, frames.length * room);
}

function lanOf(policies: Readonly<Record<string, PortPolicyOptions>>): {
  lan: Switch;
  ports: Record<string, SinkPort>;
} {
  const lan = new Switch('lan', path);
  const ports: Record<string, SinkPort> = {};
  for (const [name, options] of Object.entries(policies)) {
    const port = new SinkPort(name);
    ports[name] = port;
    lan.addPort(port, new PortPolicy(options, 0));
  }
  return { lan, ports };
}

function port(ports: Record<string, SinkPort>, name: string): SinkPort {
  const found = ports[name];
  assert.ok(found);
  return found;
}

describe('forwarding', () => {
  test('an unknown destination reaches all other ports, a learned one only its own', () => {
    const { lan, ports } = lanOf({ a: {}, b: {}, c: {} });
    send(lan, port(ports, 'a'), [frame(B, A)]);
    assert.deepEqual(
      [port(ports, 'a').got.length, port(ports, 'b').got.length, port(ports, 'c').got.length],
      [0, 1, 1],
    );
    send(lan, port(ports, 'b'), [frame(A, B)]);
    assert.equal(port(ports, 'a').got.length, 1);
    assert.equal(port(ports, 'c').got.length, 1);
    assert.deepEqual(port(ports, 'a').got[0], frame(A, B));
  });

  test('a station that moved is followed at the next frame', () => {
    const { lan, ports } = lanOf({ a: {}, b: {}, c: {} });
    send(lan, port(ports, 'b'), [frame(ALL, B)]);
    send(lan, port(ports, 'a'), [frame(B, A)]);
    send(lan, port(ports, 'c'), [frame(ALL, B)]);
    const before = port(ports, 'c').got.length;
    send(lan, port(ports, 'a'), [frame(B, A)]);
    assert.equal(port(ports, 'c').got.length, before + 1);
  });

  test('a station that is back after another used its address is followed at once', () => {
    const { lan, ports } = lanOf({ a: {}, b: {}, c: {} });
    for (const name of ['a', 'b', 'a']) send(lan, port(ports, name), [frame(ALL, A)]);
    const before = port(ports, 'b').got.length;
    send(lan, port(ports, 'c'), [frame(A, C)]);
    assert.equal(port(ports, 'b').got.length, before);
    assert.deepEqual(port(ports, 'a').got.at(-1), frame(A, C));
  });

  test('frames of a burst keep their order at each port, payloads of all sizes intact', () => {
    const { lan, ports } = lanOf({ a: {}, b: {}, c: {} });
    send(lan, port(ports, 'b'), [frame(ALL, B)]);
    send(lan, port(ports, 'c'), [frame(ALL, C)]);
    const sizes = Array.from({ length: 64 }, (_, i) => 14 + i * 23);
    const targets = sizes.map((_, i) => [B, C, ALL, B][i % 4] as string);
    const frames = sizes.map((bytes, i) => frame(targets[i] as string, A, { bytes }));
    const already = { b: port(ports, 'b').got.length, c: port(ports, 'c').got.length };
    send(lan, port(ports, 'a'), frames);
    const expected = (mac: string): Buffer[] =>
      frames.filter((_, i) => targets[i] === mac || targets[i] === ALL);
    assert.deepEqual(port(ports, 'b').got.slice(already.b), expected(B));
    assert.deepEqual(port(ports, 'c').got.slice(already.c), expected(C));
  });

  test('a burst ends up as its frames one by one, whoever is behind a port', () => {
    const policies = { a: {}, b: {}, c: { vlan: 10 } };
    const [together, alone] = [lanOf(policies), lanOf(policies)];
    for (const { lan, ports } of [together, alone]) {
      send(lan, ports['b'] as SinkPort, [frame(ALL, B)]);
      send(lan, ports['c'] as SinkPort, [frame(ALL, C)]);
    }
    const stations = [1, 2, 3].map((index) => `52:54:00:00:01:0${index}`);
    const frames = fc.array(
      fc.record({
        to: fc.constantFrom(B, B, B, C, ALL, ...stations),
        from: fc.constantFrom(...stations),
        vlan: fc.constantFrom(undefined, undefined, undefined, 0, 10),
        bytes: fc.constantFrom(13, 60, 60, 200, 1514),
      }),
      { minLength: 1, maxLength: 6 },
    );
    const times = fc.integer({ min: 1, max: 3 });
    fc.assert(
      fc.property(frames, times, (list, count) => {
        // Runs of frames that are alike.
        const burst = list.flatMap(({ to, from, vlan, bytes }) =>
          new Array<Buffer>(count).fill(
            frame(to, from, vlan === undefined ? { bytes } : { vlan, bytes: Math.max(bytes, 18) }),
          ),
        );
        send(together.lan, together.ports['a'] as SinkPort, burst);
        for (const one of burst) send(alone.lan, alone.ports['a'] as SinkPort, [one]);
        for (const name of Object.keys(policies)) {
          const [ours, theirs] = [together.ports[name], alone.ports[name]];
          assert.deepEqual(ours?.got.splice(0), theirs?.got.splice(0), name);
          assert.deepEqual(ours?.counters.snapshot(), theirs?.counters.snapshot(), name);
        }
        assert.deepEqual(
          together.lan.macs.list(path.loop.now).map(({ mac, port, vlan }) => [mac, port, vlan]),
          alone.lan.macs.list(path.loop.now).map(({ mac, port, vlan }) => [mac, port, vlan]),
        );
      }),
    );
  });

  test('a port is flushed once a burst, and only if it got something', () => {
    const { lan, ports } = lanOf({ a: {}, b: {}, c: {} });
    send(lan, port(ports, 'b'), [frame(ALL, B)]);
    const c = port(ports, 'c').flushes;
    send(
      lan,
      port(ports, 'a'),
      Array.from({ length: 10 }, () => frame(B, A)),
    );
    assert.equal(port(ports, 'b').flushes, 1);
    assert.equal(port(ports, 'c').flushes, c);
  });

  test('a frame to the port that it came from is dropped and counted', () => {
    const { lan, ports } = lanOf({ a: {}, b: {} });
    send(lan, port(ports, 'a'), [frame(ALL, B)]);
    send(lan, port(ports, 'a'), [frame(B, A)]);
    assert.equal(port(ports, 'a').counters.snapshot().tx_drop_no_target, 1);
    send(lan, port(ports, 'a'), [frame(B, A), frame(B, A)]);
    assert.equal(port(ports, 'a').counters.snapshot().tx_drop_no_target, 3);
    assert.equal(port(ports, 'b').got.length, 1);
  });

  test('a frame shorter than an Ethernet header is dropped and counted', () => {
    const { lan, ports } = lanOf({ a: {}, b: {} });
    send(lan, port(ports, 'a'), [Buffer.alloc(13), Buffer.alloc(0), frame(ALL, A)]);
    const counters = port(ports, 'a').counters.snapshot();
    assert.equal(counters.tx_drop_bad_length, 2);
    assert.equal(counters.tx_frames, 1);
    assert.equal(port(ports, 'b').got.length, 1);
  });

  test('a frame longer than any can be is dropped and counted, the longest is not', () => {
    const { lan, ports } = lanOf({ a: {}, b: {} });
    const longest = frame(ALL, A, { bytes: MAX_FRAME_BYTES });
    send(lan, port(ports, 'a'), [longest, Buffer.concat([longest, Buffer.alloc(1)])]);
    const counters = port(ports, 'a').counters.snapshot();
    assert.equal(counters.tx_drop_bad_length, 1);
    assert.equal(counters.tx_frames, 1);
    assert.deepEqual(port(ports, 'b').got, [longest]);
  });

  test('an unplugged port gets nothing more', () => {
    const { lan, ports } = lanOf({ a: {}, b: {} });
    send(lan, port(ports, 'b'), [frame(ALL, B)]);
    lan.removePort(port(ports, 'b'));
    send(lan, port(ports, 'a'), [frame(B, A)]);
    assert.equal(port(ports, 'b').got.length, 0);
    assert.throws(() => lan.removePort(port(ports, 'b')), { code: 'state' });
  });
});

describe('VLANs', () => {
  test('access ports see their own VLAN only, without tags', () => {
    const { lan, ports } = lanOf({ a: { vlan: 10 }, b: { vlan: 10 }, c: { vlan: 20 } });
    send(lan, port(ports, 'a'), [frame(ALL, A)]);
    assert.deepEqual(port(ports, 'b').got, [frame(ALL, A)]);
    assert.equal(port(ports, 'c').got.length, 0);
  });

  test('an access port may not send a tag', () => {
    const { lan, ports } = lanOf({ a: { vlan: 10 }, b: { vlan: 20 } });
    send(lan, port(ports, 'a'), [frame(ALL, A, { vlan: 20 })]);
    assert.equal(port(ports, 'b').got.length, 0);
    assert.equal(port(ports, 'a').counters.snapshot().tx_drop_vlan, 1);
  });

  test('an access port may not hide a tag behind one of no VLAN, or in padding', () => {
    const { lan, ports } = lanOf({ a: { vlan: 10 }, b: { vlan: 10, trunk: [20] } });
    const whole = frame(ALL, A, { vlan: 20 });
    const addresses = whole.subarray(0, 12);
    const none = Buffer.from([0x81, 0x00, 0, 0]);
    const hidden = Buffer.concat([addresses, none, whole.subarray(12)]);
    send(lan, port(ports, 'a'), [hidden, whole.subarray(0, 16)]);
    assert.deepEqual(port(ports, 'b').got, []);
    const counters = port(ports, 'a').counters.snapshot();
    assert.deepEqual([counters.tx_drop_vlan, counters.tx_drop_bad_length], [1, 1]);
  });

  test('a trunk gets the tag of an access port, and the access port gets none from the trunk', () => {
    const { lan, ports } = lanOf({ a: { vlan: 10 }, t: { trunk: [10, 20] }, c: { vlan: 20 } });
    send(lan, port(ports, 'a'), [frame(ALL, A, { bytes: 300 })]);
    assert.deepEqual(
      port(ports, 't').got,
      [frame(ALL, A, { vlan: 10, bytes: 304 })].map((b) => b.subarray(0, 304)),
    );
    send(lan, port(ports, 't'), [frame(A, B, { vlan: 10, bytes: 304 })]);
    assert.deepEqual(port(ports, 'a').got, [frame(A, B, { bytes: 300 })]);
    assert.equal(port(ports, 'c').got.length, 0);
  });

  test('the same station in two VLANs is two stations', () => {
    const { lan, ports } = lanOf({ a: { trunk: [10, 20] }, b: { vlan: 10 }, c: { vlan: 20 } });
    send(lan, port(ports, 'b'), [frame(ALL, B)]);
    send(lan, port(ports, 'c'), [frame(ALL, B)]);
    send(lan, port(ports, 'a'), [frame(B, A, { vlan: 20 }), frame(B, A, { vlan: 10 })]);
    assert.equal(port(ports, 'b').got.length, 1);
    assert.equal(port(ports, 'c').got.length, 1);
  });

  test('ports without VLAN settings pass tags on as they are', () => {
    const { lan, ports } = lanOf({ a: {}, b: {} });
    const tagged = frame(ALL, A, { vlan: 99, bytes: 200 });
    send(lan, port(ports, 'a'), [tagged]);
    assert.deepEqual(port(ports, 'b').got, [tagged]);
  });

  test('a checksum offset moves with a tag that is put in or taken out', () => {
    const { lan, ports } = lanOf({ a: { vlan: 10 }, t: { trunk: [10] } });
    port(ports, 't').offloads = OFFLOAD_CSUM;
    // NEEDS_CSUM, csum_start 34 (behind Ethernet and IPv4), csum_offset 6 (UDP)
    send(lan, port(ports, 'a'), [frame(ALL, A, { bytes: 100 })], [1, 0, 0, 0, 0, 0, 34, 0, 6, 0]);
    const header = port(ports, 't').headers[0];
    assert.ok(header);
    assert.equal(header.readUInt16LE(6), 38);
    assert.equal(header.readUInt16LE(8), 6);
  });
});

describe('policy', () => {
  test('a spoofed source is dropped, counted and not learned', () => {
    const { lan, ports } = lanOf({ a: { mac: parseMac(A), spoofchk: true }, b: {}, c: {} });
    send(lan, port(ports, 'b'), [frame(ALL, B)]);
    send(lan, port(ports, 'a'), [frame(ALL, B), frame(ALL, A)]);
    assert.equal(port(ports, 'a').counters.snapshot().tx_drop_spoof, 1);
    assert.equal(port(ports, 'b').got.length, 1);
    send(lan, port(ports, 'c'), [frame(B, C)]);
    assert.equal(port(ports, 'b').got.length, 2);
  });

  test('a receive limit drops what exceeds it and counts the drops', () => {
    const { lan, ports } = lanOf({ a: {}, b: { maxRxRate: 1 } });
    for (let i = 0; i < 10; i++)
      send(
        lan,
        port(ports, 'a'),
        Array.from({ length: 64 }, () => frame(ALL, A, { bytes: 1514 })),
      );
    const b = port(ports, 'b');
    const dropped = b.counters.snapshot().rx_drop_rate;
    assert.ok(dropped > 0);
    assert.equal(b.got.length + dropped, 640);
  });
});

describe('offloads', () => {
  const TSO = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0];

  function tcp(bytes: number): Buffer {
    const out = Buffer.alloc(bytes);
    out.set([...parseMac(ALL), ...parseMac(A), 0x08, 0x00, 0x45, 0, 0, 0]);
    out.writeUInt16BE(bytes - 14, 16);
    out.set([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 18);
    out.writeUInt32BE(1000, 38);
    out[46] = 0x50;
    out[47] = 0x10;
    for (let i = 54; i < bytes; i++) out[i] = (i * 31) & 0xff;
    return out;
  }

  test('metadata pass untouched to a port that takes them', () => {
    const { lan, ports } = lanOf({ a: {}, b: {} });
    port(ports, 'b').offloads = OFFLOAD_CSUM | OFFLOAD_TSO4;
    send(lan, port(ports, 'a'), [tcp(9000)], TSO);
    assert.equal(port(ports, 'b').got.length, 1);
    assert.deepEqual([...(port(ports, 'b').headers[0] ?? [])].slice(0, 10), TSO);
    assert.deepEqual(port(ports, 'b').got[0], tcp(9000));
  });

  test('a port that takes none gets segments with the same payload', () => {
    const { lan, ports } = lanOf({ a: {}, b: {}, c: {} });
    port(ports, 'c').offloads = OFFLOAD_CSUM | OFFLOAD_TSO4;
    send(lan, port(ports, 'a'), [frame(ALL, A), tcp(65000), frame(ALL, A)], []);
    send(lan, port(ports, 'a'), [tcp(65000)], TSO);
    const segments = port(ports, 'b').got.slice(3);
    assert.equal(segments.length, Math.ceil((65000 - 54) / 1460));
    assert.deepEqual(Buffer.concat(segments.map((s) => s.subarray(54))), tcp(65000).subarray(54));
    for (const header of port(ports, 'b').headers.slice(3))
      assert.deepEqual([...header], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert.equal(port(ports, 'b').counters.snapshot().gso_frames, 1);
    assert.deepEqual(port(ports, 'c').got.at(-1), tcp(65000));
  });

  test('metadata that contradict the frame are dropped and counted', () => {
    const { lan, ports } = lanOf({ a: {}, b: {} });
    send(lan, port(ports, 'a'), [tcp(100)], [1, 0, 0, 0, 0, 0, 99, 0, 16, 0]);
    assert.equal(port(ports, 'b').got.length, 0);
    assert.equal(port(ports, 'a').counters.snapshot().tx_drop_bad_offload, 1);
  });
});
