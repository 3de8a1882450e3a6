/** What a driver's transmit descriptors become, with memory of every kind. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Arena } from '../../memory/arena.ts';
import { addCrc32c, CRC32C_START, finishCrc32c } from '../../net/crc32c.ts';
import { createDataPath } from '../../net/data-path.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import {
  IXGBE_HEAD_WRITE_BACK,
  IXGBE_QUEUE_ENABLE,
  IXGBE_TXC_IPV4,
  IXGBE_TXC_L4_SCTP,
  IXGBE_TXC_L4_TCP,
  IXGBE_TXD_ADVANCED,
  IXGBE_TXD_END,
  IXGBE_TXD_INSERT_CHECKSUM,
  IXGBE_TXD_IP_CHECKSUM,
  IXGBE_TXD_L4_CHECKSUM,
  IXGBE_TXD_REPORT,
  IXGBE_TXD_SEGMENT,
  IXGBE_TXD_TYPE_DATA,
  IXGBE_TXD_VLAN,
} from '../../spec/ixgbe-descriptors.ts';
import { type Reach, TEST_BASE } from '../e1000/testing.ts';
import { MALFORMED_LENGTH, MALFORMED_OFFLOAD } from './queue-parts.ts';
import { LoopCard, QueueRig, RIG_BYTES } from './testing-queue.ts';

const arena = Arena.create();
const path = createDataPath(arena, new PollLoop());
const REACHES: readonly Reach[] = ['mapped', 'pages', 'remote'];
const DATA = IXGBE_TXD_ADVANCED | IXGBE_TXD_TYPE_DATA;

interface Lab {
  readonly from: QueueRig;
  readonly to: QueueRig;
  readonly card: LoopCard;
}

function lab(reach: Reach = 'mapped', entries = 64): Lab {
  const from = new QueueRig(path, arena);
  const to = new QueueRig(path, arena);
  from.memory.reach = reach;
  from.startTransmit(entries);
  to.startReceive({ packetKiB: 10, entries: 128 });
  return { from, to, card: new LoopCard(to) };
}

function frame(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 14; i < length; i++) bytes[i] = (i * 31 + length + seed) & 0xff;
  bytes.set([0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5].slice(0, length));
  return bytes;
}

function fold(sum: number): number {
  let rest = sum;
  while (rest > 0xffff) rest = (rest >>> 16) + (rest & 0xffff);
  return rest;
}

function sum(bytes: Buffer): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    total += ((bytes[i] as number) << 8) | (i + 1 < bytes.length ? (bytes[i + 1] as number) : 0);
  }
  return fold(total);
}

/** A TCP segment as Linux hands it over: with segmentation, lengths are left out. */
function tcp(payload: number, v6: boolean, segmented: boolean): Buffer {
  const ip = v6 ? 40 : 20;
  const at = 14 + ip;
  const bytes = frame(at + 20 + payload);
  bytes.fill(0, 14, at + 20);
  bytes.writeUInt16BE(v6 ? 0x86dd : 0x0800, 12);
  if (v6) {
    bytes.set([0x60, 0, 0, 0, 0, 0, 6, 64], 14);
    if (!segmented) bytes.writeUInt16BE(20 + payload, 18);
    bytes[22 + 15] = 1;
    bytes[38 + 15] = 2;
  } else {
    bytes.set([0x45, 0, 0, 0, 0, 7, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 14);
    if (!segmented) bytes.writeUInt16BE(40 + payload, 16);
  }
  bytes.writeUInt32BE(1000, at + 4);
  bytes.set([0x50, 0x18], at + 12);
  const addresses = v6 ? bytes.subarray(22, 54) : bytes.subarray(26, 34);
  bytes.writeUInt16BE(fold(sum(addresses) + 6 + (segmented ? 0 : 20 + payload)), at + 16);
  return bytes;
}

/** IP and TCP checksums are right, behind `shift` bytes of tag. */
function assertChecksums(bytes: Buffer, v6: boolean, shift = 0): void {
  const ip = 14 + shift;
  const at = ip + (v6 ? 40 : 20);
  const end = v6 ? bytes.readUInt16BE(ip + 4) + at : bytes.readUInt16BE(ip + 2) + ip;
  if (!v6) assert.equal(sum(bytes.subarray(ip, ip + 20)), 0xffff, 'IP checksum');
  const addresses = v6 ? bytes.subarray(ip + 8, ip + 40) : bytes.subarray(ip + 12, ip + 20);
  const pseudo = sum(addresses) + 6 + end - at;
  assert.equal(fold(sum(bytes.subarray(at, end)) + pseudo), 0xffff, 'TCP checksum');
}

for (const reach of REACHES) {
  describe(`transmit queue, memory ${reach}`, () => {
    test('sends frames of all sizes, in order, in one piece and in many', () => {
      const { from, to, card } = lab(reach);
      const sizes = [60, 61, 67, 68, 69, 128, 1513, 1514, 2048, 4000, 9014];
      for (const piece of [16_384, 700]) {
        for (const size of sizes) {
          from.data(frame(size), 0, 0, piece);
          from.kick();
          from.run(card);
        }
        assert.deepEqual(
          to.received().map(({ bytes }) => bytes),
          sizes.map((size) => frame(size)),
        );
      }
      assert.equal(from.tx('TDH'), from.tx('TDT'));
      assert.equal(from.counts.sent, 2 * sizes.length);
      assert.equal(from.counts.sentBytes, 2 * sizes.reduce((a, b) => a + b));
    });

    test('goes round the ring, and gives back what it was asked to report', () => {
      const { from, to, card } = lab(reach, 16);
      for (let round = 0; round < 5; round++) {
        for (let i = 0; i < 15; i++) {
          const address = from.place(frame(60 + i, round));
          const report = i % 3 === 0 ? IXGBE_TXD_REPORT : 0;
          from.descriptor(address, DATA | IXGBE_TXD_END | report | (60 + i), 0);
        }
        from.kick();
        from.run(card);
        for (let i = 0; i < 15; i++) {
          assert.equal(from.isDone((round * 15 + i) % 16), i % 3 === 0, `${round}.${i}`);
        }
        assert.deepEqual(
          to.received().map(({ bytes }) => bytes),
          Array.from({ length: 15 }, (_, i) => frame(60 + i, round)),
        );
      }
      assert.ok(from.transmitInterrupts >= 5);
    });

    test('writes the head back instead, where the driver wants that', () => {
      const { from, card } = lab(reach);
      const at = TEST_BASE + RIG_BYTES - 4096;
      from.memory.bytes(at, 4).fill(0xff);
      from.setTx('TDWBAL', at | IXGBE_HEAD_WRITE_BACK);
      for (let i = 0; i < 3; i++) from.data(frame(100));
      from.kick();
      from.run(card);
      assert.equal(from.memory.bytes(at, 4).readUInt32LE(0), 3);
      assert.equal(from.isDone(0), false);
    });

    for (const v6 of [false, true]) {
      const name = v6 ? 'IPv6' : 'IPv4';
      const types = IXGBE_TXC_L4_TCP | (v6 ? 0 : IXGBE_TXC_IPV4);
      const ip = v6 ? 40 : 20;
      const options = IXGBE_TXD_L4_CHECKSUM | (v6 ? 0 : IXGBE_TXD_IP_CHECKSUM);

      test(`puts ${name} and TCP checksums in`, () => {
        const { from, to, card } = lab(reach);
        for (const payload of [0, 1, 6, 100, 1400]) {
          from.context(14, ip, { types });
          from.data(tcp(payload, v6, false), 0, options, 90);
          from.kick();
          from.run(card);
          const [got] = to.received();
          assert.ok(got !== undefined, `${payload}`);
          assertChecksums(got.bytes, v6);
        }
      });

      test(`cuts ${name} frames into segments, with a tag`, () => {
        const { from, to, card } = lab(reach);
        const whole = tcp(10_000, v6, true);
        from.context(14, ip, { types, l4: 20, mss: 1400, vlan: 0x6007 });
        from.data(whole, IXGBE_TXD_SEGMENT | IXGBE_TXD_VLAN, options, 5000, whole.length - 34 - ip);
        from.kick();
        from.run(card);
        const got = to.received();
        assert.equal(got.length, 8);
        const headers = 14 + 4 + ip + 20;
        const payload = Buffer.concat(got.map(({ bytes }) => bytes.subarray(headers)));
        assert.deepEqual(payload, whole.subarray(headers - 4));
        for (const { bytes } of got) {
          assert.equal(bytes.readUInt32BE(12), 0x8100_6007);
          assertChecksums(bytes, v6, 4);
        }
        assert.equal(from.counts.sent, 8);
        assert.equal(from.counts.sentBytes, 10_000 + 8 * headers);
      });
    }

    test('puts SCTP checksums in', () => {
      const { from, to, card } = lab(reach);
      for (const piece of [16_384, 40]) {
        const bytes = frame(14 + 20 + 12 + 300);
        bytes.writeUInt16BE(0x0800, 12);
        from.context(14, 20, { types: IXGBE_TXC_IPV4 | IXGBE_TXC_L4_SCTP });
        from.data(bytes, 0, IXGBE_TXD_L4_CHECKSUM, piece);
        from.kick();
        from.run(card);
        const packet = to.received()[0]?.bytes.subarray(34);
        assert.ok(packet !== undefined);
        const sum = packet.readUInt32LE(8);
        packet.writeUInt32LE(0, 8);
        assert.equal(sum, finishCrc32c(addCrc32c(CRC32C_START, packet, 0, packet.length)));
      }
    });

    test('keeps two contexts', () => {
      const { from, to, card } = lab(reach);
      from.context(14, 0, { vlan: 5, index: 0 });
      from.context(14, 0, { vlan: 6, index: 1 });
      from.data(frame(100), IXGBE_TXD_VLAN, 0x10);
      from.data(frame(100), IXGBE_TXD_VLAN, 0x00);
      from.data(frame(100), IXGBE_TXD_VLAN, 0x10);
      from.kick();
      from.run(card);
      const tags = to.received().map(({ bytes }) => bytes.readUInt32BE(12));
      assert.deepEqual(tags, [0x8100_0006, 0x8100_0005, 0x8100_0006]);
    });

    test('takes legacy descriptors, with a checksum and a tag', () => {
      const { from, to, card } = lab(reach);
      const segment = tcp(333, false, false);
      segment.writeUInt16BE(~sum(segment.subarray(14, 34)) & 0xffff, 24);
      const command = IXGBE_TXD_INSERT_CHECKSUM | (50 << 16);
      from.descriptor(from.place(segment.subarray(0, 200)), command | 200, 34 << 8);
      from.descriptor(
        from.place(segment.subarray(200)),
        command | IXGBE_TXD_END | IXGBE_TXD_REPORT | IXGBE_TXD_VLAN | (segment.length - 200),
        (34 << 8) | (9 << 16),
      );
      from.kick();
      from.run(card);
      const [got] = to.received();
      assert.ok(got !== undefined);
      assert.equal(got.bytes.readUInt32BE(12), 0x8100_0009);
      assertChecksums(got.bytes, false, 4);
      assert.equal(from.isDone(1), true);
    });

    test('waits for the end of a frame, and for it alone', () => {
      const { from, to, card } = lab(reach);
      const bytes = frame(300);
      from.send(frame(80));
      from.descriptor(from.place(bytes.subarray(0, 100)), DATA | 100, 0);
      from.kick();
      from.run(card);
      assert.equal(to.received().length, 1);
      assert.equal(from.transmit.pending, false);
      from.descriptor(from.place(bytes.subarray(100)), DATA | IXGBE_TXD_END | 200, 0);
      from.kick();
      assert.equal(from.transmit.pending, true);
      from.run(card);
      assert.deepEqual(
        to.received().map((one) => one.bytes),
        [bytes],
      );
    });

    test('gives a frame of too many descriptors back, unsent', () => {
      const { from, to, card } = lab(reach, 128);
      for (let i = 0; i < 70; i++) from.descriptor(from.place(frame(20)), DATA | 20, 0);
      from.descriptor(from.place(frame(20)), DATA | IXGBE_TXD_END | 20, 0);
      from.data(frame(99));
      from.kick();
      from.run(card);
      const got = to.received();
      assert.deepEqual(got.at(-1)?.bytes, frame(99));
      assert.deepEqual(from.malformed, [[MALFORMED_LENGTH, 1]]);
      assert.equal(from.tx('TDH'), from.tx('TDT'));
    });

    test('loses a frame that cannot be read, and goes on', () => {
      const { from, to, card } = lab(reach);
      const good = from.place(frame(100));
      from.descriptor(good, DATA | 50, 0);
      from.descriptor(TEST_BASE + RIG_BYTES, DATA | IXGBE_TXD_END | IXGBE_TXD_REPORT | 50, 0);
      from.descriptor(good, DATA | IXGBE_TXD_END | 100, 0, 0xffff_ffff);
      from.data(frame(101));
      from.kick();
      from.run(card);
      assert.deepEqual(
        to.received().map(({ bytes }) => bytes),
        [frame(101)],
      );
      assert.equal(from.memory.faults.length, 2);
      assert.equal(from.isDone(1), true);
    });

    test('stops when the ring itself cannot be read, and starts when it can', () => {
      const { from, to, card } = lab(reach);
      from.data(frame(100));
      from.setTx('TDBAL', TEST_BASE + RIG_BYTES);
      from.kick();
      from.run(card);
      assert.equal(from.transmit.pending, false);
      assert.ok(from.memory.faults.length > 0);
      from.setTx('TDBAL', TEST_BASE);
      from.memory.generation++;
      assert.equal(from.transmit.pending, true);
      from.run(card);
      assert.equal(to.received().length, 1);
    });
  });
}

describe('transmit queue', () => {
  test('drops what contradicts itself and counts it, and what surrounds it arrives', () => {
    const { from, to, card } = lab();
    const lies: readonly (() => void)[] = [
      () => {
        from.context(14, 20, { types: IXGBE_TXC_IPV4 | IXGBE_TXC_L4_TCP });
        from.data(frame(40), 0, IXGBE_TXD_L4_CHECKSUM);
      },
      () => {
        from.context(127, 511, { types: IXGBE_TXC_IPV4, l4: 255, mss: 0 });
        from.data(frame(400), IXGBE_TXD_SEGMENT, IXGBE_TXD_IP_CHECKSUM);
      },
      () => {
        from.context(14, 20, { types: IXGBE_TXC_IPV4 | IXGBE_TXC_L4_TCP, l4: 20, mss: 0 });
        from.data(tcp(500, false, true), IXGBE_TXD_SEGMENT, IXGBE_TXD_L4_CHECKSUM);
      },
    ];
    for (const lie of lies) {
      from.data(frame(70));
      lie();
      from.data(frame(71));
    }
    from.kick();
    from.run(card);
    assert.deepEqual(
      to.received().map(({ bytes }) => bytes.length),
      [70, 71, 70, 71, 70, 71],
    );
    assert.deepEqual(from.malformed, [[MALFORMED_OFFLOAD, 3]]);
  });

  test('drops frames that are too short or too long', () => {
    const { from, to, card } = lab();
    from.descriptor(from.place(frame(13)), DATA | IXGBE_TXD_END | 13, 0);
    from.descriptor(from.place(frame(60)), DATA | IXGBE_TXD_END, 0);
    from.data(frame(15_873));
    from.data(frame(60));
    from.kick();
    from.run(card);
    assert.equal(to.received().length, 1);
    assert.equal(
      from.malformed.reduce((total, [, frames]) => total + frames, 0),
      3,
    );
  });

  test('does nothing while it is disabled or its registers point outside of the ring', () => {
    const { from, to, card } = lab();
    from.data(frame(100));
    from.setTx('TXDCTL', 0);
    from.kick();
    from.run(card);
    from.setTx('TXDCTL', IXGBE_QUEUE_ENABLE);
    for (const [register, value] of [
      ['TDT', 64],
      ['TDT', 0xffff_ffff],
      ['TDH', 64],
      ['TDLEN', 0],
      ['TDLEN', 0x7f],
    ] as const) {
      const before = from.tx(register);
      from.setTx(register, value);
      assert.equal(from.transmit.pending, false, `${register} ${value}`);
      from.run(card);
      from.setTx(register, before);
    }
    assert.equal(to.received().length, 0);
    from.run(card);
    assert.equal(to.received().length, 1);
  });

  test('goes on where the registers say, after the driver set up another ring', () => {
    for (const reach of REACHES) {
      const { from, to, card } = lab(reach);
      from.data(frame(100));
      from.kick();
      from.run(card);
      from.startTransmit(32);
      from.data(frame(101));
      from.kick();
      from.run(card);
      // In the midst of accesses by message, too: what was under way is not sent.
      from.data(frame(102));
      from.kick();
      if (from.transmit.pending) from.transmit.poll(card);
      from.startTransmit(16);
      from.data(frame(103));
      from.kick();
      from.run(card);
      const sizes = to.received().map(({ bytes }) => bytes.length);
      assert.deepEqual(
        sizes.filter((size) => size !== 102),
        [100, 101, 103],
        reach,
      );
    }
  });

  test('gives nothing back to a ring that was set up anew while its frames were sent', () => {
    const { from, to, card } = lab();
    from.data(frame(100));
    from.kick();
    from.run(card);
    from.data(frame(101));
    from.kick();
    from.run({
      send: (burst) => {
        card.send(burst);
        from.startTransmit();
        from.data(frame(102));
      },
      publish: () => card.publish(),
    });
    assert.equal(from.tx('TDH'), 0);
    assert.equal(from.isDone(0), false);
    from.kick();
    from.run(card);
    assert.deepEqual(
      to.received().map(({ bytes }) => bytes.length),
      [100, 101, 102],
    );
  });

  test('reads as enabled until its last access is over', () => {
    const { from, to, card } = lab('remote');
    from.data(frame(100));
    from.kick();
    from.transmit.poll(card);
    from.setTx('TXDCTL', 0);
    assert.equal(from.transmit.pending, true);
    from.transmit.poll(card);
    assert.equal(from.transmit.enabled, true);
    from.memory.settle();
    assert.equal(from.transmit.enabled, false);
    from.run(card);
    assert.equal(to.received().length, 0);
  });

  test('begins anew after a reset in the midst of accesses', () => {
    const { from, to, card } = lab('remote');
    from.data(frame(100));
    from.kick();
    from.transmit.poll(card);
    from.reset();
    from.startTransmit();
    from.data(frame(101));
    from.kick();
    from.run(card);
    assert.deepEqual(
      to.received().map(({ bytes }) => bytes),
      [frame(101)],
    );
  });

  test('marks what it writes while the transport logs', () => {
    const { from, card } = lab();
    from.memory.logging = true;
    from.data(frame(100));
    from.data(frame(100));
    from.kick();
    from.run(card);
    assert.equal(from.memory.dirty.length, 2);
  });
});
