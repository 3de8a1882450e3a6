import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Arena } from '../memory/arena.ts';
import { CopyQueue } from '../memory/copy.ts';
import { Burst } from './burst.ts';
import { BAD_OFFLOAD, classifyOffload } from './offload.ts';
import { OFFLOAD_CSUM } from './port.ts';
import { MAX_SEGMENTS, SoftwareOffload } from './software-offload.ts';

const arena = Arena.create();
const copies = new CopyQueue(arena);
const burst = new Burst(arena, copies);
const software = new SoftwareOffload(arena, copies);
const MEMORY = 1 << 20;
const memory = arena.allocate(MEMORY);

/** What a driver may send: everything that headers can differ in. */
interface Packet {
  readonly ipv6: boolean;
  readonly udp: boolean;
  /** Words of IPv4 options, or extension headers of these lengths (in units of eight bytes, less one). */
  readonly options: number;
  readonly extensions: readonly number[];
  readonly tcpOptions: number;
  /** Tags that stay in the frame, and whether one more is taken off by the switch. */
  readonly tags: number;
  readonly untag: boolean;
  readonly flags: number;
  readonly id: number;
  readonly sequence: number;
  readonly payload: Uint8Array;
  readonly gsoSize: number;
  readonly ecn: boolean;
}

const packets: fc.Arbitrary<Packet> = fc.record({
  ipv6: fc.boolean(),
  udp: fc.boolean(),
  options: fc.nat(10),
  extensions: fc.array(fc.nat(2), { maxLength: 2 }),
  tcpOptions: fc.nat(10),
  tags: fc.nat(1),
  untag: fc.boolean(),
  flags: fc.nat(255),
  id: fc.nat(0xffff),
  sequence: fc.oneof(fc.nat(0xffff_ffff), fc.constant(0xffff_fff0)),
  payload: fc.uint8Array({ minLength: 1, maxLength: 700 }),
  gsoSize: fc.integer({ min: 1, max: 300 }),
  ecn: fc.boolean(),
});

const be16 = (value: number): number[] => [(value >>> 8) & 0xff, value & 0xff];
const be32 = (value: number): number[] => [...be16(value >>> 16), ...be16(value & 0xffff)];
const le16 = (value: number): number[] => [value & 0xff, value >>> 8];
const filler = (length: number, from: number): number[] =>
  Array.from({ length }, (_, i) => (from + 37 * i) & 0xff);

/** RFC 1071 as the text has it: add with end-around carry, complement. */
function internetChecksum(bytes: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += ((bytes[i] as number) << 8) + (bytes[i + 1] ?? 0);
    sum = (sum & 0xffff) + (sum >>> 16);
  }
  return ~sum & 0xffff;
}

const SOURCE4 = [192, 168, 7, 1];
const TARGET4 = [192, 168, 7, 255];
const SOURCE6 = filler(16, 0xfd);
const TARGET6 = filler(16, 0x20);

function pseudoHeader(packet: Packet, length: number): number[] {
  const protocol = packet.udp ? 17 : 6;
  return packet.ipv6
    ? [...SOURCE6, ...TARGET6, ...be32(length), 0, 0, 0, protocol]
    : [...SOURCE4, ...TARGET4, 0, protocol, ...be16(length)];
}

const linkLength = (packet: Packet): number => 14 + 4 * packet.tags;
const extensionBytes = (packet: Packet): number =>
  packet.extensions.reduce((sum, units) => sum + 8 * (units + 1), 0);
const networkLength = (packet: Packet): number =>
  packet.ipv6 ? 40 + extensionBytes(packet) : 20 + 4 * packet.options;
const transportLength = (packet: Packet): number => (packet.udp ? 8 : 20 + 4 * packet.tcpOptions);

type ChecksumKind = 'full' | 'partial';

/** A frame of the packet that carries `payload`, by the standards, written without the code under test. */
function build(
  packet: Packet,
  payload: readonly number[],
  index: number,
  offset: number,
  flags: number,
  kind: ChecksumKind,
): number[] {
  const protocol = packet.udp ? 17 : 6;
  const length = transportLength(packet) + payload.length;
  const link = [...filler(6, 0x52), ...filler(6, 0x54)];
  for (let i = 0; i < packet.tags; i++) link.push(...be16(i === 0 ? 0x88a8 : 0x8100), 0x20, 7);
  link.push(...be16(packet.ipv6 ? 0x86dd : 0x0800));

  let network: number[];
  if (packet.ipv6) {
    const kinds = [0, 60];
    const next = [...packet.extensions.map((_, i) => kinds[i] as number), protocol];
    network = [
      0x60,
      0x12,
      0x34,
      0x56,
      ...be16(extensionBytes(packet) + length),
      next[0] as number,
      64,
    ];
    network.push(...SOURCE6, ...TARGET6);
    for (const [i, units] of packet.extensions.entries())
      network.push(next[i + 1] as number, units, ...filler(8 * units + 6, i));
  } else {
    const words = 5 + packet.options;
    const total = 4 * words + length;
    network = [0x40 | words, 3, ...be16(total), ...be16((packet.id + index) & 0xffff), 0x40, 0, 64];
    network.push(protocol, 0, 0, ...SOURCE4, ...TARGET4, ...filler(4 * packet.options, 1));
    network.splice(10, 2, ...be16(internetChecksum(network)));
  }

  let transport: number[];
  if (packet.udp) {
    transport = [...be16(5000), ...be16(53), ...be16(length), 0, 0];
  } else {
    transport = [
      ...be16(40_000),
      ...be16(80),
      ...be32((packet.sequence + offset) >>> 0),
      ...be32(77),
    ];
    transport.push((5 + packet.tcpOptions) << 4, flags, ...be16(512), 0, 0, 0, 0);
    transport.push(...filler(4 * packet.tcpOptions, 9));
  }
  const pseudo = pseudoHeader(packet, length);
  const at = packet.udp ? 6 : 16;
  let checksum: number;
  if (kind === 'partial') checksum = ~internetChecksum(pseudo) & 0xffff;
  else {
    checksum = internetChecksum([...pseudo, ...transport, ...payload]);
    if (packet.udp && checksum === 0) checksum = 0xffff;
  }
  transport.splice(at, 2, ...be16(checksum));
  return [...link, ...network, ...transport, ...payload];
}

/** The segments that the standards ask for. */
function segment(packet: Packet, kind: ChecksumKind): number[][] {
  const frames: number[][] = [];
  const payload = [...packet.payload];
  for (let offset = 0; offset < payload.length; offset += packet.gsoSize) {
    const last = offset + packet.gsoSize >= payload.length;
    let flags = packet.flags;
    if (!last) flags &= ~0x09;
    if (offset > 0) flags &= ~0x80;
    const part = payload.slice(offset, offset + packet.gsoSize);
    frames.push(build(packet, part, frames.length, offset, flags, kind));
  }
  return frames;
}

/** Puts a frame into the arena in pieces (with gaps), into the burst, and through the classifier. */
function send(
  frame: readonly number[],
  header: readonly number[],
  cuts: readonly number[],
  legacy: boolean,
): number {
  burst.sourceHeaderBytes = legacy ? 10 : 12;
  const bytes = Uint8Array.from([...header.slice(0, burst.sourceHeaderBytes), ...frame]);
  const { chains } = burst;
  const slot = chains.add(0, 0);
  chains.moreStart[slot] = chains.moreCount;
  chains.total[slot] = bytes.length;
  const ends = [...cuts.map((cut) => cut % bytes.length), bytes.length].sort((a, b) => a - b);
  let from = 0;
  let at = memory + 1000 * slot;
  for (const [i, end] of ends.entries()) {
    at += 3;
    arena.bytes.set(bytes.subarray(from, end), at);
    if (i === 0) {
      chains.address[slot] = at;
      chains.length[slot] = end - from;
    } else {
      const more = chains.moreCount++;
      chains.moreAddress[more] = at;
      chains.moreLength[more] = end - from;
      chains.more[slot] = (chains.more[slot] as number) + 1;
      chains.shaped = true;
    }
    at += end - from;
    from = end;
  }
  return slot;
}

/** The virtio_net_hdr and the frame of every slot of a burst, as a receiver gets them. */
function received(from: Burst): { header: number[]; frame: number[] }[] {
  return Array.from({ length: from.count }, (_, slot) => {
    const at = from.headerAt[slot] as number;
    const start = [...arena.bytes.subarray(at, at + (from.headerLength[slot] as number))];
    const { chains } = from;
    const chain: number[] = [];
    const add = (address: number, length: number) =>
      chain.push(...arena.bytes.subarray(address, address + length));
    add(chains.address[slot] as number, chains.length[slot] as number);
    for (let i = 0; i < (chains.more[slot] as number); i++) {
      const more = (chains.moreStart[slot] as number) + i;
      add(chains.moreAddress[more] as number, chains.moreLength[more] as number);
    }
    assert.equal(chain.length, chains.total[slot]);
    const frame = [...start.slice(12), ...chain.slice(from.skip[slot])];
    assert.equal(frame.length, from.frameLength[slot]);
    return { header: start.slice(0, 12), frame };
  });
}

/** Runs a frame to its end, as a switch does. */
function run(
  slot: number,
  mask: number,
): { count: number; frames: { header: number[]; frame: number[] }[] } {
  const frames: { header: number[]; frame: number[] }[] = [];
  software.out.clear();
  const count = software.start(burst, slot, mask);
  while (!software.fill()) {
    frames.push(...received(software.out));
    software.out.clear();
  }
  frames.push(...received(software.out));
  return { count, frames };
}

const cutsOf = fc.array(fc.nat(2000), { maxLength: 6 });
const TAG = [0x81, 0x00, 0xa0, 0x0a];

function frameToSend(packet: Packet, kind: ChecksumKind): number[] {
  const frame = build(packet, [...packet.payload], 0, 0, packet.flags, kind);
  if (packet.untag) frame.splice(12, 0, ...TAG);
  return frame;
}

function headerToSend(packet: Packet, gso: boolean): number[] {
  const start = linkLength(packet) + networkLength(packet) + (packet.untag ? 4 : 0);
  const type = packet.udp ? 5 : (packet.ipv6 ? 4 : 1) | (packet.ecn ? 0x80 : 0);
  const size = gso ? packet.gsoSize : 0;
  return [
    1,
    gso ? type : 0,
    ...le16(0),
    ...le16(size),
    ...le16(start),
    ...le16(packet.udp ? 6 : 16),
    0,
    0,
  ];
}

/** Gathers the burst and takes tags off, as a switch does. */
function classifyAll(untag: (slot: number) => boolean): void {
  burst.gather();
  for (let slot = 0; slot < burst.count; slot++) {
    const mask = classifyOffload(burst, slot);
    assert.notEqual(mask, BAD_OFFLOAD);
    burst.needs[slot] = mask;
    if (untag(slot)) burst.untag(slot);
    else burst.tci[slot] = 5;
  }
}

for (const [name, mask, kind] of [
  ['without offloads', 0, 'full'],
  ['that completes checksums', OFFLOAD_CSUM, 'partial'],
] as const) {
  test(`segments for a receiver ${name} are those of the standards`, () => {
    fc.assert(
      fc.property(packets, cutsOf, fc.boolean(), (packet, cuts, legacy) => {
        burst.clear();
        send(frameToSend(packet, 'partial'), headerToSend(packet, true), cuts, legacy);
        classifyAll(() => packet.untag);
        const expected = segment(packet, kind);
        const { count, frames } = run(0, mask);
        assert.equal(count, expected.length);
        assert.deepEqual(
          frames.map(({ frame }) => frame),
          expected,
        );
        const start = linkLength(packet) + networkLength(packet);
        const header =
          kind === 'full'
            ? [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
            : [1, 0, 0, 0, 0, 0, ...le16(start), ...le16(packet.udp ? 6 : 16), 1, 0];
        for (const frame of frames) assert.deepEqual(frame.header, header);
        const tci = packet.untag ? 0xa00a : 5;
        for (let i = 0; i < software.out.count; i++) {
          assert.equal(software.out.tci[i], tci);
          assert.equal(software.out.needs[i], kind === 'full' ? 0 : OFFLOAD_CSUM);
        }
      }),
      { numRuns: 300 },
    );
  });
}

test('a checksum is completed over the real bytes, and nothing else changes', () => {
  fc.assert(
    fc.property(packets, cutsOf, fc.boolean(), (packet, cuts, legacy) => {
      burst.clear();
      send(frameToSend(packet, 'partial'), headerToSend(packet, false), cuts, legacy);
      classifyAll(() => packet.untag);
      const { count, frames } = run(0, 0);
      assert.equal(count, 1);
      const expected = build(packet, [...packet.payload], 0, 0, packet.flags, 'full');
      const [result] = frames;
      const field = linkLength(packet) + networkLength(packet) + (packet.udp ? 6 : 16);
      // A TCP checksum of zero may be written as its complement: the same sum (RFC 1071 §1).
      if (expected[field] === 0 && expected[field + 1] === 0) expected.splice(field, 2, 0xff, 0xff);
      assert.deepEqual(result?.frame, expected);
      assert.deepEqual(result?.header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }),
    { numRuns: 300 },
  );
});

test('several frames share the output, in order, also where it runs full', () => {
  fc.assert(
    fc.property(fc.array(packets, { minLength: 2, maxLength: 8 }), cutsOf, (batch, cuts) => {
      burst.clear();
      for (const [i, packet] of batch.entries())
        send(frameToSend(packet, 'partial'), headerToSend(packet, i % 3 !== 0), cuts, false);
      classifyAll((slot) => (batch[slot] as Packet).untag);
      const frames: number[][] = [];
      const expected: number[][] = [];
      software.out.clear();
      for (const [slot, packet] of batch.entries()) {
        if (slot % 3 === 0)
          expected.push(build(packet, [...packet.payload], 0, 0, packet.flags, 'full'));
        else expected.push(...segment(packet, 'full'));
        assert.ok(software.start(burst, slot, 0) > 0);
        while (!software.fill()) {
          assert.equal(software.out.count, 64);
          frames.push(...received(software.out).map(({ frame }) => frame));
          software.out.clear();
        }
      }
      frames.push(...received(software.out).map(({ frame }) => frame));
      assert.deepEqual(frames, expected);
    }),
    { numRuns: 50 },
  );
});

const sample: Packet = {
  ipv6: false,
  udp: false,
  options: 0,
  extensions: [],
  tcpOptions: 3,
  tags: 0,
  untag: false,
  flags: 0xff,
  id: 0xffff,
  sequence: 0xffff_ff00,
  payload: Uint8Array.from(filler(600, 5)),
  gsoSize: 100,
  ecn: true,
};

test('the bytes in the slot win over what the sender wrote there afterwards', () => {
  burst.clear();
  send(frameToSend(sample, 'partial'), headerToSend(sample, true), [], false);
  classifyAll(() => false);
  const expected = segment(sample, 'full');
  // All that was gathered changes in the sender's memory: addresses, protocol, lengths, metadata.
  const gathered = burst.skip[0] as number;
  arena.bytes.fill(0xee, burst.chains.address[0], (burst.chains.address[0] as number) + gathered);
  assert.deepEqual(
    run(0, 0).frames.map(({ frame }) => frame),
    expected,
  );
});

test('frames whose headers contradict the metadata are reported and give nothing', () => {
  const broken: readonly [string, Partial<Packet>, (frame: number[], header: number[]) => void][] =
    [
      ['IPv4 header length', {}, (frame) => frame.splice(14, 1, 0x46)],
      ['IPv4 version', {}, (frame) => frame.splice(14, 1, 0x55)],
      ['more fragments', {}, (frame) => frame.splice(20, 1, 0x20)],
      ['fragment offset', {}, (frame) => frame.splice(21, 1, 1)],
      ['TCP header length too small', {}, (frame) => frame.splice(46, 1, 0x40)],
      [
        'TCP header and no payload',
        { payload: Uint8Array.of(1) },
        (frame) => frame.splice(46, 1, 0xf0),
      ],
      ['IPv6 next header', { ipv6: true }, (frame) => frame.splice(20, 1, 17)],
      ['IPv6 fragment', { ipv6: true, extensions: [0] }, (frame) => frame.splice(20, 1, 44)],
      [
        'IPv6 extension that overshoots',
        { ipv6: true, extensions: [0] },
        (frame) => frame.splice(55, 1, 4),
      ],
      [
        'routing header with segments left',
        { ipv6: true, extensions: [0] },
        (frame) => {
          frame[20] = 43;
          frame[57] = 1;
        },
      ],
      ['a transport header far behind', {}, (_, header) => header.splice(6, 2, ...le16(480))],
      ['segments larger than IP allows', { gsoSize: 65_500 }, () => undefined],
    ];
  for (const [what, change, damage] of broken) {
    const packet = { ...sample, ...change };
    const frame = frameToSend(packet, 'partial');
    const header = headerToSend(packet, true);
    damage(frame, header);
    burst.clear();
    send(frame, header, [], false);
    burst.gather();
    if (classifyOffload(burst, 0) === BAD_OFFLOAD) assert.fail(`${what}: refused too early`);
    const { count, frames } = run(0, 0);
    assert.equal(count, 0, what);
    assert.equal(frames.length, 0, what);
  }
});

test('one frame cannot become more than a bounded number of segments', () => {
  const packet = { ...sample, payload: new Uint8Array(MAX_SEGMENTS), gsoSize: 1 };
  burst.clear();
  send(frameToSend(packet, 'partial'), headerToSend(packet, true), [], false);
  classifyAll(() => false);
  const { count, frames } = run(0, 0);
  assert.equal(count, MAX_SEGMENTS);
  assert.equal(frames.length, MAX_SEGMENTS);
  const larger = { ...packet, payload: new Uint8Array(MAX_SEGMENTS + 1) };
  burst.clear();
  send(frameToSend(larger, 'partial'), headerToSend(larger, true), [], false);
  classifyAll(() => false);
  assert.equal(run(0, 0).count, 0);
});

test('a checksum field beyond what a slot holds is reported', () => {
  const frame = new Array<number>(1000).fill(0);
  burst.clear();
  send(frame, [1, 0, 0, 0, 0, 0, ...le16(600), ...le16(16), 0, 0], [], false);
  classifyAll(() => false);
  assert.equal(run(0, 0).count, 0);
});

test('a checksum may begin and stand anywhere in the frame', () => {
  const bytes = fc.uint8Array({ minLength: 100, maxLength: 400 });
  fc.assert(
    fc.property(
      bytes,
      fc.integer({ min: 14, max: 90 }),
      fc.nat(4),
      cutsOf,
      (data, start, pair, cuts) => {
        const frame = [...data];
        frame.splice(12, 2, 0x08, 0x06);
        const field = start + 2 * pair;
        burst.clear();
        send(frame, [1, 0, 0, 0, 0, 0, ...le16(start), ...le16(2 * pair), 0, 0], cuts, false);
        classifyAll(() => false);
        const expected = [...frame];
        const checksum = internetChecksum(frame.slice(start)) || 0xffff;
        expected.splice(field, 2, ...be16(checksum));
        assert.deepEqual(run(0, 0).frames[0]?.frame, expected);
      },
    ),
  );
});

test('a UDP checksum of zero is sent as its complement', () => {
  const packet: Packet = { ...sample, udp: true, payload: Uint8Array.of(0, 0, 0, 0), gsoSize: 2 };
  const plain = segment({ ...packet, payload: Uint8Array.of(0, 0) }, 'full')[0] as number[];
  // A payload equal to the checksum makes the sum all ones.
  const payload = Uint8Array.from([...plain.slice(40, 42), 0, 0]);
  for (const gso of [true, false]) {
    const chosen = { ...packet, payload: gso ? payload : payload.subarray(0, 2) };
    burst.clear();
    send(frameToSend(chosen, 'partial'), headerToSend(chosen, gso), [], false);
    classifyAll(() => false);
    const { frames } = run(0, 0);
    assert.deepEqual(frames[0]?.frame.slice(40, 42), [0xff, 0xff], `segmented: ${gso}`);
  }
});

test('frames in very many pieces wait for an empty output', () => {
  const packet: Packet = { ...sample, payload: Uint8Array.of(1), flags: 0x10 };
  const pieces = 40_000;
  burst.clear();
  send(frameToSend(packet, 'partial'), headerToSend(packet, false), [], false);
  const { chains } = burst;
  for (let i = 0; i < pieces; i++) {
    chains.moreAddress[i] = memory + 5000 + i;
    chains.moreLength[i] = 1;
  }
  chains.more[0] = pieces;
  chains.shaped = true;
  chains.moreCount = pieces;
  chains.total[0] = (chains.total[0] as number) + pieces;
  classifyAll(() => false);
  software.out.clear();
  assert.equal(software.start(burst, 0, 0), 1);
  assert.equal(software.fill(), true);
  const [first] = received(software.out);
  assert.equal(software.start(burst, 0, 0), 1);
  assert.equal(software.fill(), false);
  assert.equal(software.out.count, 1);
  software.out.clear();
  assert.equal(software.fill(), true);
  assert.deepEqual(received(software.out), [first]);
});
