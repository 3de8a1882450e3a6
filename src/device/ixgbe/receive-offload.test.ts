/** What the card says of a frame's headers, and where it splits them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  IXGBE_PSRTYPE_IPV4,
  IXGBE_PSRTYPE_IPV6,
  IXGBE_PSRTYPE_L2,
  IXGBE_PSRTYPE_TCP,
  IXGBE_PSRTYPE_UDP,
} from '../../spec/ixgbe.ts';
import {
  IXGBE_RXD_ERROR_IP,
  IXGBE_RXD_ERROR_L4,
  IXGBE_RXD_IP_CHECKED,
  IXGBE_RXD_L4_CHECKED,
  IXGBE_RXD_TYPE_IPV4,
  IXGBE_RXD_TYPE_IPV4_OPTIONS,
  IXGBE_RXD_TYPE_IPV6,
  IXGBE_RXD_TYPE_SCTP,
  IXGBE_RXD_TYPE_TCP,
  IXGBE_RXD_TYPE_UDP,
  IXGBE_RXD_UDP_CHECKED,
} from '../../spec/ixgbe-descriptors.ts';
import { CHECKED_IP, CHECKED_L4, CHECKED_UDP, WRONG_IP, WRONG_L4 } from '../receive-checksum.ts';
import { HeaderSplit } from './header-split.ts';
import { checksumStatus, packetType, splitLength } from './receive-offload.ts';

const ALL =
  IXGBE_PSRTYPE_TCP |
  IXGBE_PSRTYPE_UDP |
  IXGBE_PSRTYPE_IPV4 |
  IXGBE_PSRTYPE_IPV6 |
  IXGBE_PSRTYPE_L2;

interface Shape {
  readonly tag?: boolean;
  readonly v6?: boolean;
  readonly options?: number;
  readonly protocol?: number;
  readonly fragment?: number;
  readonly offset?: number;
}

/** A frame of 120 bytes; `offset`: words of the TCP header. */
function frame(shape: Shape): Buffer {
  const { tag = false, v6 = false, options = 0, protocol = 6, fragment = 0, offset = 5 } = shape;
  const bytes = Buffer.alloc(120);
  let at = 12;
  if (tag) {
    bytes.writeUInt32BE(0x8100_0005, at);
    at += 4;
  }
  bytes.writeUInt16BE(v6 ? 0x86dd : 0x0800, at);
  at += 2;
  if (v6) bytes[at + 6] = protocol;
  else {
    bytes[at] = 0x45 + options;
    bytes.writeUInt16BE(fragment, at + 6);
    bytes[at + 9] = protocol;
  }
  at += v6 ? 40 : 20 + 4 * options;
  if (protocol === 6) bytes[at + 12] = offset << 4;
  return bytes;
}

const V4 = IXGBE_RXD_TYPE_IPV4;
const V6 = IXGBE_RXD_TYPE_IPV6;

test('types and header lengths of frames', () => {
  const cases: readonly [Shape, number, number][] = [
    [{}, V4 | IXGBE_RXD_TYPE_TCP, 54],
    [{ offset: 8 }, V4 | IXGBE_RXD_TYPE_TCP, 66],
    [{ tag: true }, V4 | IXGBE_RXD_TYPE_TCP, 58],
    [{ options: 2 }, V4 | IXGBE_RXD_TYPE_IPV4_OPTIONS | IXGBE_RXD_TYPE_TCP, 62],
    [{ protocol: 17 }, V4 | IXGBE_RXD_TYPE_UDP, 42],
    [{ protocol: 132 }, V4 | IXGBE_RXD_TYPE_SCTP, 34],
    [{ protocol: 1 }, V4, 34],
    [{ fragment: 0x2000 }, V4, 34],
    [{ fragment: 0x0010 }, V4, 34],
    [{ v6: true }, V6 | IXGBE_RXD_TYPE_TCP, 74],
    [{ v6: true, protocol: 17, tag: true }, V6 | IXGBE_RXD_TYPE_UDP, 66],
    [{ v6: true, protocol: 58 }, V6, 54],
  ];
  for (const [shape, type, header] of cases) {
    const bytes = frame(shape);
    const name = JSON.stringify(shape);
    assert.equal(packetType(bytes, 0, bytes.length), type, name);
    assert.equal(splitLength(bytes, 0, bytes.length, ALL), header, name);
  }
  const other = Buffer.alloc(60, 1);
  assert.equal(packetType(other, 0, 60), 0);
  assert.equal(splitLength(other, 0, 60, ALL), 14);
});

test('only headers that are asked for are split off', () => {
  const bytes = frame({});
  const cases = [
    [0, 0],
    [IXGBE_PSRTYPE_UDP, 0],
    [IXGBE_PSRTYPE_L2, 14],
    [IXGBE_PSRTYPE_IPV6 | IXGBE_PSRTYPE_L2, 14],
    [IXGBE_PSRTYPE_IPV4, 34],
    [IXGBE_PSRTYPE_IPV4 | IXGBE_PSRTYPE_UDP, 34],
    [IXGBE_PSRTYPE_TCP, 54],
  ] as const;
  for (const [wanted, header] of cases) assert.equal(splitLength(bytes, 0, 120, wanted), header);
});

test('status bits of checksums', () => {
  assert.equal(checksumStatus(0), 0);
  assert.equal(
    checksumStatus(CHECKED_IP | CHECKED_L4 | CHECKED_UDP),
    IXGBE_RXD_IP_CHECKED | IXGBE_RXD_L4_CHECKED | IXGBE_RXD_UDP_CHECKED,
  );
  assert.equal(
    checksumStatus(CHECKED_IP | CHECKED_L4 | WRONG_IP | WRONG_L4) >>> 0,
    (IXGBE_RXD_IP_CHECKED | IXGBE_RXD_L4_CHECKED | IXGBE_RXD_ERROR_IP | IXGBE_RXD_ERROR_L4) >>> 0,
  );
});

test('any bytes: no more than there are is looked at, and no more than there is room is split off', () => {
  const split = new HeaderSplit();
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 14, maxLength: 120 }),
      fc.record({ v6: fc.boolean(), tag: fc.boolean(), protocol: fc.constantFrom(6, 17, 132) }),
      fc.nat({ max: 120 }),
      fc.nat({ max: 0xffff_ffff }),
      fc.constantFrom(0, 64, 128, 1024, 4032),
      fc.boolean(),
      (noise, shape, cut, wanted, room, always) => {
        const bytes = frame(shape);
        bytes.set(noise.subarray(14), 22);
        const length = Math.max(14, cut);
        const seen = bytes.subarray(0, length);
        // What lies behind `length` makes no difference.
        const more = Buffer.concat([seen, Buffer.alloc(100, 0xff)]);
        assert.equal(packetType(more, 0, length), packetType(seen, 0, length));
        split.plan(more, 0, length, length, wanted, room, always);
        const first = [split.bytes, split.info, split.error];
        split.plan(seen, 0, length, length, wanted, room, always);
        assert.deepEqual([split.bytes, split.info, split.error], first);
        assert.ok(split.bytes <= room && split.bytes <= length);
      },
    ),
  );
});
