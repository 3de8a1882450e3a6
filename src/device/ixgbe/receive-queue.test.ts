/** Frames in a driver's receive buffers, with descriptors and memory of every kind. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import { createDataPath } from '../../net/data-path.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import {
  IXGBE_PSRTYPE_IPV4,
  IXGBE_PSRTYPE_L2,
  IXGBE_PSRTYPE_TCP,
  IXGBE_PSRTYPE_UDP,
} from '../../spec/ixgbe.ts';
import {
  IXGBE_DESCTYPE_LEGACY,
  IXGBE_DESCTYPE_ONE_BUFFER,
  IXGBE_DESCTYPE_SPLIT,
  IXGBE_DESCTYPE_SPLIT_ALWAYS,
  IXGBE_QUEUE_ENABLE,
  IXGBE_RXD_DONE,
  IXGBE_RXD_END,
  IXGBE_RXD_ERROR_HEADER,
  IXGBE_RXD_ERROR_IP,
  IXGBE_RXD_IP_CHECKED,
  IXGBE_RXD_RSS_IPV4_TCP,
  IXGBE_RXD_TYPE_IPV4,
  IXGBE_RXD_TYPE_TCP,
  IXGBE_RXD_VLAN,
} from '../../spec/ixgbe-descriptors.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { type Reach, TEST_BASE } from '../e1000/testing.ts';
import { DELIVERED, NO_BUFFER, TOO_BIG } from './queue-parts.ts';
import { packetType } from './receive-offload.ts';
import { LoopCard, QueueRig, type ReceiveShape, RIG_BYTES } from './testing-queue.ts';

const arena = Arena.create();
const path = createDataPath(arena, new PollLoop());
const REACHES: readonly Reach[] = ['mapped', 'pages', 'remote'];

const sender = new QueueRig(path, arena);
sender.startTransmit();

function rig(reach: Reach, shape: Partial<ReceiveShape> = {}): QueueRig {
  const to = new QueueRig(path, arena);
  to.memory.reach = reach;
  to.startReceive(shape);
  if (reach === 'remote') {
    // Its first frame is lost, and tells the queue that buffers have to be fetched ahead.
    send(to, [frame(60)]);
    assert.equal(to.counts.missed, 1);
    to.counts.missed = 0;
  }
  return to;
}

/** Sends frames through a card to `to`, and takes turns until all is quiet. */
function send(to: QueueRig, frames: readonly Buffer[]): void {
  const card = new LoopCard(to);
  for (const one of frames) {
    sender.data(one);
    sender.kick();
    sender.run(card);
    settle(to);
  }
}

function settle(to: QueueRig): void {
  for (let i = 0; i < 8; i++) {
    if (to.bounce.used) to.receive.poll();
    to.memory.settle();
  }
}

/** Puts one frame with everything that can be told of it. */
function put(to: QueueRig, bytes: Buffer, status = 0, types = 0, hash = 0, vlan = 0): number {
  let result = -1;
  sender.data(bytes);
  sender.kick();
  sender.run({
    send: (burst: Burst) => {
      const at = (burst.headerAt[0] as number) - burst.slotsAt + NET_HEADER_BYTES;
      const length = (burst.headerLength[0] as number) - NET_HEADER_BYTES;
      result = to.receive.put(burst, 0, at, length, status, types, hash, vlan);
      burst.copies.flush();
    },
    publish: () => to.receive.writeBack(),
  });
  settle(to);
  return result;
}

function frame(length: number, type = 0x88b5): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 14; i < length; i++) bytes[i] = (i * 31 + length) & 0xff;
  bytes.set([0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, type >>> 8, type & 0xff]);
  return bytes;
}

function ipv4(length: number, protocol: number): Buffer {
  const bytes = frame(length, 0x0800);
  bytes.set([0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 14);
  bytes.writeUInt16BE(length - 14, 16);
  if (protocol === 6) bytes[34 + 12] = 0x80;
  return bytes;
}

for (const reach of REACHES) {
  describe(`receive queue, memory ${reach}`, () => {
    test('frames of all sizes are whole, in buffers anywhere', () => {
      for (const gap of [0, 3968, 1500]) {
        const to = rig(reach, { gap });
        const sizes = [60, 61, 68, 69, 128, 1513, 1514, 2048, 2049, 4000, 4096, 9014, 15_872];
        send(
          to,
          sizes.map((size) => frame(size)),
        );
        const got = to.received();
        assert.deepEqual(
          got.map(({ bytes }) => bytes),
          sizes.map((size) => frame(size)),
        );
        for (const { descriptors, bytes } of got) {
          assert.equal(descriptors, Math.ceil(bytes.length / 2048));
        }
        assert.equal(to.counts.received, sizes.length);
        assert.equal(to.counts.missed, 0);
      }
    });

    test('goes round the ring many times', () => {
      const to = rig(reach, { entries: 8 });
      for (let i = 0; i < 60; i++) {
        send(to, [frame(60 + i), frame(3000)]);
        assert.deepEqual(
          to.received().map(({ bytes }) => bytes),
          [frame(60 + i), frame(3000)],
        );
      }
      assert.equal(to.counts.missed, 0);
      assert.ok(to.receiveInterrupts >= 60);
    });

    test('short frames are padded, a check sequence has its place', () => {
      const to = rig(reach);
      send(to, [frame(20)]);
      to.settings.fcsBytes = 4;
      send(to, [frame(20), frame(2048), frame(2045)]);
      const got = to.received();
      assert.deepEqual(
        got.map(({ bytes }) => bytes.length),
        [60, 64, 2052, 2049],
      );
      assert.deepEqual(got[0]?.bytes, Buffer.concat([frame(20), Buffer.alloc(40)]));
      assert.deepEqual(got[2]?.bytes, Buffer.concat([frame(2048), Buffer.alloc(4)]));
      assert.equal(got[2]?.descriptors, 2);
      assert.equal(to.counts.receivedBytes, 60 + 60 + 2048 + 2045);
    });

    test('what is told of a frame stands in its last descriptor', () => {
      const status = IXGBE_RXD_IP_CHECKED | IXGBE_RXD_VLAN | IXGBE_RXD_ERROR_IP;
      const types = IXGBE_RXD_TYPE_IPV4 | IXGBE_RXD_TYPE_TCP | IXGBE_RXD_RSS_IPV4_TCP;
      for (const size of [100, 5000]) {
        const to = rig(reach);
        assert.equal(put(to, frame(size), status, types, 0xfedc_ba98 | 0, 0x6005), DELIVERED);
        const [got] = to.received();
        assert.ok(got !== undefined);
        assert.equal(got.status, (status | IXGBE_RXD_DONE | IXGBE_RXD_END) >>> 0);
        assert.equal(got.types, types);
        assert.equal(got.hash, 0xfedc_ba98);
        assert.equal(got.vlan, 0x6005);
        assert.equal(got.bytes.length, size);
      }
    });

    test('legacy descriptors', () => {
      const to = rig(reach, { type: IXGBE_DESCTYPE_LEGACY });
      const status = IXGBE_RXD_IP_CHECKED | IXGBE_RXD_ERROR_IP;
      assert.equal(put(to, frame(3000), status, 0, 0, 7), DELIVERED);
      const [got] = to.received();
      assert.equal(got?.status, (status | IXGBE_RXD_DONE | IXGBE_RXD_END) >>> 0);
      assert.equal(got?.vlan, 7);
      assert.deepEqual(got?.bytes, frame(3000));
    });

    test('headers are split off as asked for', () => {
      const to = rig(reach, { type: IXGBE_DESCTYPE_SPLIT, headerBytes: 128 });
      to.settings.splitHeaders =
        IXGBE_PSRTYPE_TCP | IXGBE_PSRTYPE_UDP | IXGBE_PSRTYPE_IPV4 | IXGBE_PSRTYPE_L2;
      const cases = [
        { bytes: ipv4(1000, 6), header: 34 + 32 },
        { bytes: ipv4(1000, 17), header: 34 + 8 },
        { bytes: ipv4(5000, 1), header: 34 },
        { bytes: frame(1000), header: 14 },
      ];
      send(
        to,
        cases.map(({ bytes }) => bytes),
      );
      const got = to.received();
      for (const [i, { bytes, header }] of cases.entries()) {
        assert.deepEqual(got[i]?.bytes, bytes, `${i}`);
        assert.equal(got[i]?.headerBytes, header, `${i}`);
        assert.equal(got[i]?.isSplit, true, `${i}`);
      }
      to.settings.splitHeaders = IXGBE_PSRTYPE_TCP;
      send(to, [ipv4(1000, 17)]);
      const [plain] = to.received();
      assert.equal(plain?.isSplit, false);
      assert.deepEqual(plain?.bytes, ipv4(1000, 17));
    });

    test('header buffers are used always, where asked for', () => {
      const to = rig(reach, { type: IXGBE_DESCTYPE_SPLIT_ALWAYS, headerBytes: 64 });
      to.settings.splitHeaders = IXGBE_PSRTYPE_TCP;
      const cases = [
        { bytes: frame(60), header: 60, split: false },
        { bytes: frame(500), header: 64, split: false },
        { bytes: ipv4(500, 6), header: 66, split: true },
      ];
      send(
        to,
        cases.map(({ bytes }) => bytes),
      );
      const got = to.received();
      for (const [i, { bytes, header, split }] of cases.entries()) {
        assert.deepEqual(got[i]?.bytes, bytes, `${i}`);
        assert.equal(got[i]?.headerBytes, header, `${i}`);
        assert.equal(got[i]?.isSplit, split, `${i}`);
      }
      assert.equal((got[2]?.status ?? 0) & IXGBE_RXD_ERROR_HEADER, IXGBE_RXD_ERROR_HEADER);
    });

    test('a frame without a buffer is lost, and counted', () => {
      const to = new QueueRig(path, arena);
      to.memory.reach = reach;
      to.startReceive({ entries: 8 }, false);
      to.give(2);
      if (reach === 'remote') send(to, [frame(60)]);
      to.counts.missed = 0;
      send(to, [frame(100), frame(5000), frame(101), frame(102)]);
      assert.deepEqual(
        to.received(false).map(({ bytes }) => bytes.length),
        [100, 101],
      );
      assert.equal(to.counts.missed, 2);
      assert.equal(to.receive.free, 0);
    });

    test('a buffer that nothing may be written to costs its frame only', () => {
      const to = rig(reach, { entries: 8 });
      send(to, [frame(100)]);
      assert.equal(to.received(false).length, 1);
      const ring = TEST_BASE + 0x1_0000;
      const index = to.rx('RDH');
      to.memory.bytes(ring + 16 * index, 16).writeBigUInt64LE(BigInt(TEST_BASE + RIG_BYTES), 0);
      to.receive.reset();
      settle(to);
      send(to, [frame(101), frame(102)]);
      assert.ok(to.memory.faults.length > 0);
      assert.equal(to.received(false).at(-1)?.bytes.length, 102);
    });
  });
}

test('a run of frames ends up as each of them by itself', () => {
  const all = new Uint8Array(arena.buffer, path.tables.take(), 64);
  for (let i = 0; i < all.length; i++) all[i] = i;
  const alone = new QueueRig(path, arena);
  const run = new QueueRig(path, arena);
  let inRuns = 0;
  const shapes = fc.array(
    fc.record({
      length: fc.oneof(fc.integer({ min: 60, max: 130 }), fc.integer({ min: 14, max: 3000 })),
      type: fc.constantFrom(0x88b5, 0x0800, 0x86dd, 0x8100, 0x88a8),
      version: fc.constantFrom(0x45, 0x46, 0x40, 0x60),
      fragment: fc.constantFrom(0, 0x4000, 0x2000, 0x0001, 0x1fff),
      protocol: fc.constantFrom(1, 6, 17, 132),
      pieces: fc.constantFrom(1, 1, 1, 3),
    }),
    { minLength: 1, maxLength: 20 },
  );
  fc.assert(
    fc.property(
      shapes,
      fc.constantFrom(1, 2, 4),
      fc.integer({ min: 2, max: 31 }),
      (list, packetKiB, given) => {
        for (const rig of [alone, run]) {
          rig.reset();
          rig.startReceive({ packetKiB, entries: 32 }, false);
          rig.give(given);
        }
        for (const { length, type, version, fragment, protocol, pieces } of list) {
          const bytes = frame(length, type);
          if (length >= 24) {
            bytes[14] = version;
            bytes.writeUInt16BE(fragment, 20);
            bytes[type === 0x86dd ? 20 : 23] = protocol;
          }
          sender.data(bytes, 0, 0, Math.ceil(length / pieces));
        }
        sender.kick();
        const each = (rig: QueueRig, burst: Burst, slot: number): void => {
          const at = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
          const length = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
          const type = packetType(burst.slots8, at, length);
          rig.receive.put(burst, slot, at, length, 0, type, 0, 0);
        };
        sender.run({
          send: (burst) => {
            for (let i = 0; i < burst.count; i++) each(alone, burst, i);
            burst.copies.flush();
            for (let i = 0; i < burst.count; ) {
              const put = run.receive.putRun(burst, all, i, burst.count, 0, false, 0);
              inRuns += put;
              i += put;
              if (i < burst.count) each(run, burst, i++);
            }
            burst.copies.flush();
          },
          publish: () => {
            alone.receive.writeBack();
            run.receive.writeBack();
          },
        });
        assert.deepEqual(run.counts, alone.counts);
        assert.deepEqual(run.received(false), alone.received(false));
      },
    ),
  );
  assert.ok(inRuns > 100, `${inRuns} frames in runs`);
  path.tables.give(all.byteOffset);
});

describe('receive queue', () => {
  test('takes nothing while it is disabled or its registers point outside of the ring', () => {
    const to = rig('mapped');
    for (const [register, value] of [
      ['RXDCTL', 0],
      ['RDT', 64],
      ['RDH', 0xffff_ffff],
      ['RDLEN', 0],
      ['RDBAH', 0xffff_ffff],
      ['SRRCTL', 0],
      ['SRRCTL', 2 | (7 << 25)],
    ] as const) {
      const before = to.rx(register);
      to.setRx(register, value);
      assert.notEqual(put(to, frame(100)), DELIVERED, `${register} ${value}`);
      to.setRx(register, before);
    }
    assert.equal(to.received().length, 0);
    assert.equal(put(to, frame(100)), DELIVERED);
    assert.equal(to.received().length, 1);
  });

  test('a frame that no ring of this shape can take', () => {
    const to = rig('mapped', { entries: 8, packetKiB: 1 });
    assert.equal(put(to, frame(7168)), DELIVERED);
    assert.equal(put(to, frame(9000)), TOO_BIG);
    assert.equal(put(to, frame(7169)), TOO_BIG);
    assert.equal(put(to, frame(100)), NO_BUFFER);
    assert.equal(to.received().length, 1);
    assert.equal(put(to, frame(100)), DELIVERED);
  });

  test('more descriptors than a turn has room for', () => {
    const to = rig('mapped', { entries: 128, packetKiB: 1 });
    const frames = Array.from({ length: 12 }, () => frame(9014));
    const card = new LoopCard(to);
    for (const one of frames) sender.data(one);
    sender.kick();
    sender.run(card);
    assert.deepEqual(
      to.received().map(({ bytes }) => bytes),
      frames,
    );
    assert.equal(to.counts.missed, 0);
  });

  test('is where the registers say, after the driver set it up again', () => {
    const to = rig('mapped', { entries: 32 });
    send(to, [frame(100)]);
    assert.equal(to.received().length, 1);
    to.startReceive({ entries: 16, packetKiB: 4, gap: 100 });
    send(to, [frame(3000)]);
    const [got] = to.received();
    assert.deepEqual(got?.bytes, frame(3000));
    assert.equal(got?.descriptors, 1);
  });

  test('writes nothing to a ring that was disabled while frames were delivered', () => {
    const to = rig('mapped');
    sender.data(frame(100));
    sender.kick();
    sender.run({
      send: (burst) => {
        new LoopCard(to).send(burst);
        to.setRx('RXDCTL', 0);
      },
      publish: () => to.receive.writeBack(),
    });
    to.setRx('RXDCTL', IXGBE_QUEUE_ENABLE);
    assert.equal(to.received().length, 0);
    assert.equal(to.receiveInterrupts, 0);
    assert.equal(put(to, frame(101)), DELIVERED);
    assert.deepEqual(to.received()[0]?.bytes, frame(101));
  });

  test('writes nothing to a ring that was set up anew while frames were delivered', () => {
    const to = rig('mapped');
    assert.equal(put(to, frame(100)), DELIVERED);
    sender.data(frame(101));
    sender.kick();
    sender.run({
      send: (burst) => {
        new LoopCard(to).send(burst);
        to.startReceive();
      },
      publish: () => to.receive.writeBack(),
    });
    assert.equal(to.received().length, 0);
    assert.equal(to.rx('RDH'), 0);
    assert.equal(put(to, frame(102)), DELIVERED);
    assert.deepEqual(to.received()[0]?.bytes, frame(102));
  });

  test('reads as enabled until its last access is over', () => {
    const to = rig('remote');
    const card = new LoopCard(to);
    sender.data(frame(100));
    sender.kick();
    sender.run(card);
    to.setRx('RXDCTL', 0);
    to.receive.poll();
    assert.equal(to.receive.enabled, true);
    settle(to);
    assert.equal(to.receive.enabled, false);
    assert.notEqual(put(to, frame(101)), DELIVERED);
  });

  test('marks what it writes while the transport logs', () => {
    const to = rig('mapped');
    to.memory.logging = true;
    send(to, [frame(100)]);
    assert.deepEqual(to.memory.dirty.length, 2);
    send(to, [frame(5000)]);
    assert.deepEqual(to.memory.dirty.length, 2 + 6);
  });

  test('legacy, split and single buffers are the layouts that there are', () => {
    for (let type = 0; type < 8; type++) {
      const to = rig('mapped', { type, headerBytes: 128 });
      const known = [
        IXGBE_DESCTYPE_LEGACY,
        IXGBE_DESCTYPE_ONE_BUFFER,
        IXGBE_DESCTYPE_SPLIT,
        IXGBE_DESCTYPE_SPLIT_ALWAYS,
      ] as number[];
      assert.equal(put(to, frame(100)) === DELIVERED, known.includes(type), `${type}`);
    }
  });
});
