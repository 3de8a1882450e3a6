/**
 * Whatever a driver writes to its rings and, in pages that it maps, to their registers at any moment: no
 * access leaves its memory, no turn fails to end, and a neighbour's frames arrive.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import { createDataPath } from '../../net/data-path.ts';
import { MAX_FRAME_BYTES } from '../../net/frame.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { type Reach, TEST_BASE } from '../e1000/testing.ts';
import { RX, type TransmitSink, TX } from './queue-parts.ts';
import { LoopCard, QueueRig, RIG_BYTES } from './testing-queue.ts';

const arena = Arena.create();
const path = createDataPath(arena, new PollLoop());
const REACHES: readonly Reach[] = ['mapped', 'pages', 'remote'];
const TX_NAMES = Object.keys(TX) as (keyof typeof TX)[];
const RX_NAMES = Object.keys(RX) as (keyof typeof RX)[];

const word = fc.nat({ max: 0xffff_ffff });
const address = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: TEST_BASE, max: TEST_BASE + RIG_BYTES + 4096 }) },
  { weight: 1, arbitrary: word },
);
const command = fc.oneof(
  // Data with and without EOP, TSE, VLE; contexts; legacy; anything.
  fc
    .tuple(
      fc.nat({ max: 3000 }),
      fc.constantFrom(0x2b30_0000, 0x2230_0000, 0xab30_0000, 0x6b30_0000),
    )
    .map(([length, bits]) => bits + length),
  fc.constantFrom(0x2020_0000, 0x2020_0400, 0x2020_0c00),
  fc.tuple(fc.nat({ max: 0xffff }), fc.nat({ max: 0xff })).map(([low, c]) => c * 0x100_0000 + low),
  word,
);
const options = fc.oneof(fc.constantFrom(0, 0x100, 0x200, 0x300, 0x310, 0x5dc_1400), word);
const register = fc.tuple(
  fc.boolean(),
  fc.nat({ max: 7 }),
  fc.oneof(word, fc.nat({ max: 300 }), fc.constantFrom(0x0200_0000, TEST_BASE, 0x0202_0402)),
);

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('descriptor' as const),
      address,
      high: fc.constantFrom(0, 0, 0, 0, 1, 0x20_0000, 0xffff_ffff),
      command,
      options,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('buffer' as const),
      index: fc.nat({ max: 63 }),
      address,
      high: fc.constantFrom(0, 0, 0, 1, 0xffff_ffff),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('kick' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('turn' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('settle' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('register' as const), register }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
);

function write(rig: QueueRig, [isTx, index, value]: [boolean, number, number]): void {
  if (isTx) rig.setTx(TX_NAMES[index % TX_NAMES.length] as keyof typeof TX, value);
  else rig.setRx(RX_NAMES[index % RX_NAMES.length] as keyof typeof RX, value);
}

/** Looks at what the card is given, and lets the driver write registers meanwhile. */
class WildCard implements TransmitSink {
  readonly #card: LoopCard;
  readonly #rig: QueueRig;
  readonly #meanwhile: readonly [boolean, number, number][];
  #next = 0;

  constructor(rig: QueueRig, meanwhile: readonly [boolean, number, number][]) {
    this.#card = new LoopCard(rig);
    this.#rig = rig;
    this.#meanwhile = meanwhile;
  }

  send(burst: Burst): void {
    for (let i = 0; i < burst.count; i++) {
      const length = burst.frameLength[i] as number;
      const inSlot = (burst.headerLength[i] as number) - 12;
      const rest = (burst.chains.total[i] as number) - (burst.skip[i] as number);
      assert.ok(length >= 14 && length <= MAX_FRAME_BYTES + 4, `${length}`);
      assert.equal(inSlot + rest, length);
      assert.ok(inSlot <= burst.slotBytes - 28);
    }
    this.#write();
    this.#card.send(burst);
    this.#write();
  }

  publish(): void {
    this.#write();
    this.#card.publish();
  }

  #write(): void {
    const one = this.#meanwhile[this.#next++ % (this.#meanwhile.length + 1)];
    if (one !== undefined) write(this.#rig, one);
  }
}

test('a wild driver harms nobody else', () => {
  const bad = new QueueRig(path, arena);
  const good = new QueueRig(path, arena);
  // What lies around the wild driver's memory, in the arena.
  const guard = arena.allocate(4096, 'sluice-test-guard');
  arena.bytes.fill(0x5a, guard, guard + 4096);
  fc.assert(
    fc.property(
      fc.constantFrom(...REACHES),
      fc.array(step, { maxLength: 80 }),
      fc.array(register, { maxLength: 3 }),
      (reach, steps, meanwhile) => {
        bad.memory.settle();
        bad.reset();
        bad.memory.reach = reach;
        bad.startTransmit();
        bad.startReceive();
        const card = new WildCard(bad, meanwhile);
        for (const one of steps) {
          if (one.kind === 'descriptor') {
            bad.descriptor(one.address, one.command, one.options, one.high);
          } else if (one.kind === 'buffer') {
            const at = bad.memory.bytes(TEST_BASE + 0x1_0000 + 16 * one.index, 16);
            at.writeUInt32LE(one.address, 0);
            at.writeUInt32LE(one.high, 4);
          } else if (one.kind === 'kick') bad.kick();
          else if (one.kind === 'turn') bad.transmit.poll(card);
          else if (one.kind === 'settle') bad.memory.settle();
          else if (one.kind === 'register') write(bad, one.register);
          else {
            bad.startTransmit();
            bad.startReceive();
          }
          bad.receive.poll();
        }
        bad.kick();
        bad.run(card);
        bad.memory.settle();
        bad.memory.faults.length = 0;
        bad.malformed.length = 0;

        good.reset();
        good.startTransmit();
        good.startReceive();
        const frame = Buffer.alloc(1200, steps.length);
        good.send(frame);
        good.run(new LoopCard(good));
        assert.deepEqual(
          good.received().map(({ bytes }) => bytes),
          [frame],
        );
      },
    ),
    { numRuns: 300 },
  );
  assert.ok(arena.bytes.subarray(guard, guard + 4096).every((byte) => byte === 0x5a));
});

test('frames that are well formed arrive whole and in order, however they are laid out', () => {
  const rig = new QueueRig(path, arena);
  const frames = fc.array(
    fc.record({
      length: fc.oneof(fc.integer({ min: 60, max: 200 }), fc.integer({ min: 60, max: 9014 })),
      piece: fc.oneof(fc.constant(16_384), fc.integer({ min: 300, max: 4000 })),
      kick: fc.boolean(),
    }),
    { minLength: 1, maxLength: 40 },
  );
  fc.assert(
    fc.property(
      fc.constantFrom(...REACHES),
      fc.constantFrom(1, 2, 4, 16),
      fc.constantFrom(0, 1000, 3968),
      frames,
      (reach, packetKiB, gap, list) => {
        rig.memory.settle();
        rig.reset();
        rig.memory.reach = reach;
        rig.startTransmit(1024);
        rig.startReceive({ packetKiB, gap, entries: 64 });
        const card = new LoopCard(rig);
        // The first frame to memory that is reached by messages is lost.
        rig.send(Buffer.alloc(60));
        rig.run(card);
        for (let i = 0; i < 3; i++) rig.memory.settle();
        rig.received();
        const sent: Buffer[] = [];
        for (const [index, { length, piece, kick }] of list.entries()) {
          const bytes = Buffer.from(Array.from({ length }, (_, i) => (i * 7 + index) & 0xff));
          rig.data(bytes, 0, 0, piece);
          sent.push(bytes);
          if (kick || reach === 'remote') rig.kick();
          if (kick || reach === 'remote' || packetKiB < 16) {
            rig.kick();
            rig.run(card);
            for (let i = 0; i < 8; i++) {
              rig.receive.poll();
              rig.memory.settle();
            }
            assert.deepEqual(
              rig.received().map((one) => one.bytes),
              sent.splice(0),
            );
          }
        }
        rig.kick();
        rig.run(card);
        assert.deepEqual(
          rig.received().map((one) => one.bytes),
          sent,
        );
      },
    ),
    { numRuns: 60 },
  );
});

test('buffers and rings that a driver took back are not touched, under load', () => {
  const rig = new QueueRig(path, arena);
  const OLD = 0x5a;
  fc.assert(
    fc.property(
      fc.constantFrom<Reach>('mapped', 'pages'),
      fc.array(fc.record({ frames: fc.integer({ min: 1, max: 90 }), inTurn: fc.boolean() }), {
        minLength: 2,
        maxLength: 8,
      }),
      (reach, rounds) => {
        rig.reset();
        rig.memory.reach = reach;
        rig.startTransmit(256);
        let entries = 32;
        rig.startReceive({ entries });
        const card = new LoopCard(rig);
        for (const { frames, inTurn } of rounds) {
          for (let i = 0; i < frames; i++) rig.data(Buffer.alloc(200, i));
          rig.kick();
          const taken: number[] = [];
          /** Sets both rings up anew, and marks all that was the card's before. */
          const restart = (): void => {
            rig.setRx('RXDCTL', 0);
            for (let i = 0; i < entries; i++) {
              rig.memory.bytes(rig.buffer(i), 2048).fill(OLD);
              taken.push(rig.buffer(i));
            }
            entries = 96 - entries;
            rig.startReceive({ entries, gap: entries === 32 ? 0 : 0x10_0000 / 64 });
          };
          let turns = 0;
          rig.run({
            send: (burst) => {
              card.send(burst);
              if (inTurn && turns++ === 0) restart();
            },
            publish: () => card.publish(),
          });
          if (!inTurn) restart();
          const got = rig.received();
          assert.ok(got.every(({ bytes }) => bytes.length === 200));
          const now = Array.from({ length: entries }, (_, i) => rig.buffer(i));
          for (const at of taken.filter(
            (one) => !now.some((other) => Math.abs(one - other) < 2048),
          )) {
            assert.ok(
              rig.memory.bytes(at, 2048).every((byte) => byte === OLD),
              `buffer ${at}`,
            );
          }
        }
      },
    ),
    { numRuns: 60 },
  );
});
