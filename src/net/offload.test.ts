import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Arena } from '../memory/arena.ts';
import { CopyQueue } from '../memory/copy.ts';
import { Burst } from './burst.ts';
import { BAD_OFFLOAD, classifyOffload } from './offload.ts';
import {
  OFFLOAD_CSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
} from './port.ts';

const arena = Arena.create();
const copies = new CopyQueue(arena);
const burst = new Burst(arena, copies);
const memory = arena.allocate(4096);

interface Header {
  flags?: number;
  gsoType?: number;
  headerLength?: number;
  gsoSize?: number;
  csumStart?: number;
  csumOffset?: number;
}

/** Classifies a frame with a virtio_net_hdr; returns the mask and the header as it was left. */
function classify(header: Header, frame: Uint8Array): [number, Required<Header>] {
  const view = new DataView(arena.buffer, memory, 12);
  view.setUint8(0, header.flags ?? 0);
  view.setUint8(1, header.gsoType ?? 0);
  view.setUint16(2, header.headerLength ?? 0, true);
  view.setUint16(4, header.gsoSize ?? 0, true);
  view.setUint16(6, header.csumStart ?? 0, true);
  view.setUint16(8, header.csumOffset ?? 0, true);
  view.setUint16(10, 0, true);
  arena.bytes.set(frame, memory + 12);
  burst.clear();
  burst.chains.add(memory, 12 + frame.length);
  burst.gather();
  const mask = classifyOffload(burst, 0);
  const after = new DataView(arena.buffer, burst.headerAt[0], 12);
  return [
    mask,
    {
      flags: after.getUint8(0),
      gsoType: after.getUint8(1),
      headerLength: after.getUint16(2, true),
      gsoSize: after.getUint16(4, true),
      csumStart: after.getUint16(6, true),
      csumOffset: after.getUint16(8, true),
    },
  ];
}

/** A frame of `length` bytes with an EtherType at `typeAt` and a protocol or next header. */
function frameOf(type: number, protocol: number, length: number, tags: readonly number[] = []) {
  const frame = new Uint8Array(length);
  const view = new DataView(frame.buffer);
  let at = 12;
  for (const tag of tags) {
    view.setUint16(at, tag);
    at += 4;
  }
  view.setUint16(at, type);
  frame[at + 2] = type === 0x86dd ? 0x60 : 0x45;
  frame[at + 2 + (type === 0x86dd ? 6 : 9)] = protocol;
  return frame;
}

const tcp4: Header = {
  flags: 1,
  gsoType: 1,
  headerLength: 54,
  gsoSize: 1448,
  csumStart: 34,
  csumOffset: 16,
};
const tcp4Frame = frameOf(0x0800, 6, 3000);
const udp4: Header = {
  flags: 1,
  gsoType: 5,
  headerLength: 42,
  gsoSize: 1400,
  csumStart: 34,
  csumOffset: 6,
};
const udp4Frame = frameOf(0x0800, 17, 3000);

test('a checksum to be completed needs CSUM', () => {
  const [mask] = classify({ flags: 1, csumStart: 34, csumOffset: 16 }, tcp4Frame);
  assert.equal(mask, OFFLOAD_CSUM);
});

test('each segmentation type needs its offload and CSUM', () => {
  const tcp6Frame = frameOf(0x86dd, 6, 3000);
  const udp6Frame = frameOf(0x86dd, 17, 3000);
  const cases: readonly [Header, Uint8Array, number][] = [
    [tcp4, tcp4Frame, OFFLOAD_TSO4],
    [{ ...tcp4, gsoType: 0x81 }, tcp4Frame, OFFLOAD_TSO4 | OFFLOAD_ECN],
    [{ ...tcp4, gsoType: 4, csumStart: 54 }, tcp6Frame, OFFLOAD_TSO6],
    [{ ...tcp4, gsoType: 0x84, csumStart: 54 }, tcp6Frame, OFFLOAD_TSO6 | OFFLOAD_ECN],
    [udp4, udp4Frame, OFFLOAD_USO4],
    [{ ...udp4, csumStart: 54 }, udp6Frame, OFFLOAD_USO6],
    [{ ...tcp4, csumStart: 38 }, frameOf(0x0800, 6, 3000, [0x8100]), OFFLOAD_TSO4],
    [{ ...tcp4, csumStart: 42 }, frameOf(0x0800, 6, 3000, [0x88a8, 0x8100]), OFFLOAD_TSO4],
  ];
  for (const [header, frame, mask] of cases) {
    assert.equal(classify(header, frame)[0], mask | OFFLOAD_CSUM, JSON.stringify(header));
  }
});

test('metadata that contradict the frame are refused', () => {
  const cases: readonly [string, Header, Uint8Array][] = [
    ['segmentation without NEEDS_CSUM', { ...tcp4, flags: 0 }, tcp4Frame],
    ['no segment size', { ...tcp4, gsoSize: 0 }, tcp4Frame],
    ['UFO, which is not offered', { ...udp4, gsoType: 3 }, udp4Frame],
    ['an unknown type', { ...tcp4, gsoType: 2 }, tcp4Frame],
    ['ECN without a type', { ...tcp4, gsoType: 0x80 }, tcp4Frame],
    ['ECN with UDP', { ...udp4, gsoType: 0x85 }, udp4Frame],
    ['TCPv6 in IPv4', { ...tcp4, gsoType: 4 }, tcp4Frame],
    ['TCPv4 in IPv6', { ...tcp4, csumStart: 54 }, frameOf(0x86dd, 6, 3000)],
    ['TCPv4 of protocol UDP', tcp4, udp4Frame],
    ['UDP of protocol TCP', udp4, tcp4Frame],
    ['a type over ARP', tcp4, frameOf(0x0806, 6, 3000)],
    ['transport before the end of the IPv4 header', { ...tcp4, csumStart: 33 }, tcp4Frame],
    ['a checksum field that is not TCP’s', { ...tcp4, csumOffset: 6 }, tcp4Frame],
    ['headers without payload', tcp4, frameOf(0x0800, 6, 54)],
    [
      'a checksum field beyond the frame',
      { flags: 1, csumStart: 44, csumOffset: 15 },
      frameOf(0x0800, 6, 60),
    ],
    [
      'offsets that overflow 16 bits',
      { flags: 1, csumStart: 0xffff, csumOffset: 0xffff },
      tcp4Frame,
    ],
    [
      'a checksum from within the Ethernet header',
      { flags: 1, csumStart: 12, csumOffset: 20 },
      tcp4Frame,
    ],
    [
      'a checksum from within the tag',
      { flags: 1, csumStart: 16, csumOffset: 20 },
      frameOf(0x0800, 6, 200, [0x8100]),
    ],
  ];
  for (const [what, header, frame] of cases) {
    assert.equal(classify(header, frame)[0], BAD_OFFLOAD, what);
  }
  assert.equal(
    classify({ flags: 1, csumStart: 44, csumOffset: 14 }, frameOf(0x0800, 6, 60))[0],
    OFFLOAD_CSUM,
  );
});

test('flags that only a device may set are taken out', () => {
  const [mask, header] = classify({ flags: 2 | 4 | 0x80, headerLength: 99 }, tcp4Frame);
  assert.deepEqual([mask, header.flags, header.headerLength], [0, 0, 0]);
  assert.equal(classify({ ...tcp4, flags: 3 }, tcp4Frame)[1].flags, 1);
});

test('a header length that cannot be is put right, one that can be is kept', () => {
  assert.equal(classify({ ...tcp4, headerLength: 66 }, tcp4Frame)[1].headerLength, 66);
  assert.equal(classify({ ...tcp4, headerLength: 10 }, tcp4Frame)[1].headerLength, 54);
  assert.equal(classify({ ...tcp4, headerLength: 65_000 }, tcp4Frame)[1].headerLength, 54);
  assert.equal(classify({ ...udp4, headerLength: 0 }, udp4Frame)[1].headerLength, 42);
});

test('any metadata are refused or lie within the frame', () => {
  const word = fc.oneof(fc.nat(0xffff), fc.nat(80));
  const headers = fc.record({
    flags: fc.nat(255),
    gsoType: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 4, 5, 0x81, 0x84)),
    headerLength: word,
    gsoSize: word,
    csumStart: word,
    csumOffset: fc.oneof(word, fc.constantFrom(6, 16)),
  });
  const frames = fc.oneof(
    fc.uint8Array({ minLength: 14, maxLength: 120 }),
    fc.constantFrom(tcp4Frame, udp4Frame, frameOf(0x86dd, 6, 90, [0x8100])),
  );
  fc.assert(
    fc.property(headers, frames, (given, frame) => {
      const [mask, header] = classify(given, frame);
      if (mask === BAD_OFFLOAD) return;
      assert.equal(header.flags, given.flags & 1);
      assert.equal((mask & OFFLOAD_CSUM) !== 0, header.flags === 1);
      assert.equal((mask & ~OFFLOAD_CSUM) !== 0, header.gsoType !== 0);
      assert.ok(header.headerLength <= frame.length);
      if (mask === 0) return;
      assert.ok(header.csumStart >= 14 && header.csumStart + header.csumOffset + 2 <= frame.length);
      if (header.gsoType !== 0) assert.ok(header.gsoSize > 0);
    }),
    { numRuns: 2000 },
  );
});
