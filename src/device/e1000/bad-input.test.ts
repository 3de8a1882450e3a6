/** Whatever a driver writes, to registers and to memory: it harms its own card at most. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MiB } from '../../base/bits.ts';
import { TestDriver } from '../../driver/e1000/testing.ts';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PortPolicy } from '../../net/policy.ts';
import { Switch } from '../../net/switch.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { CTRL_RST, E1000_REGISTERS, type E1000RegisterName } from '../../spec/e1000.ts';
import { E1000 } from './e1000.ts';
import { E1000_MODELS } from './function.ts';
import { type Reach, TEST_BASE, TestMemory } from './testing.ts';

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);
const NAMES = Object.keys(E1000_REGISTERS) as E1000RegisterName[];
const REACHES: readonly Reach[] = ['mapped', 'pages', 'remote'];

const words = fc.tuple(
  fc.oneof(
    fc.integer({ min: TEST_BASE, max: TEST_BASE + 2 * MiB }),
    fc.nat({ max: 0xffff_ffff }),
    fc.constant(0),
  ),
  fc.constantFrom(0, 0, 0, 1, 0x20_0000, 0xffff_ffff),
  fc.oneof(
    fc.nat({ max: 0xffff_ffff }),
    fc.tuple(fc.nat({ max: 2000 }), fc.nat({ max: 255 })).map(([n, c]) => n + c * 0x100_0000),
    fc.nat({ max: 2000 }).map((n) => 0x2910_0000 + n),
  ),
  fc.nat({ max: 0xffff_ffff }),
);

const step = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(fc.constant('descriptor' as const), words) },
  {
    weight: 2,
    arbitrary: fc.tuple(
      fc.constant('register' as const),
      fc.tuple(fc.nat({ max: NAMES.length - 1 }), fc.nat({ max: 0xffff_ffff })),
    ),
  },
  { weight: 2, arbitrary: fc.tuple(fc.constant('turn' as const), fc.constant([])) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('settle' as const), fc.constant([])) },
);

interface Rig {
  readonly bad: TestDriver;
  readonly good: TestDriver;
  readonly other: TestDriver;
}

const rigs = E1000_MODELS.map((model): Rig => {
  const lan = new Switch(model, path);
  const make = (last: number): TestDriver => {
    const name = `${model}-${last}`;
    const device = new E1000({ name, model, path, mac: parseMac(`52:54:00:00:00:0${last}`) });
    device.owner = lan;
    lan.addPort(device, new PortPolicy({}, 0));
    return new TestDriver(device, new TestMemory(arena, 2 * MiB));
  };
  const rig = { bad: make(1), good: make(2), other: make(3) };
  rig.good.start();
  rig.other.start();
  return rig;
});

function frame(to: number, from: number): Buffer {
  const bytes = Buffer.alloc(100, 7);
  bytes.set([0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, from, 0x88, 0xb5]);
  return bytes;
}

for (const [index, { bad, good, other }] of rigs.entries()) {
  test(`${E1000_MODELS[index]}: a wild driver`, () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...REACHES),
        fc.array(step, { maxLength: 60 }),
        (reach, steps) => {
          bad.memory.settle();
          bad.set('CTRL', CTRL_RST);
          bad.memory.reach = reach;
          bad.start();
          for (const [kind, values] of steps) {
            if (kind === 'descriptor') {
              const [low, high, command, options] = values;
              bad.context([low, high, command, options]);
              if ((options & 3) === 0) bad.kick();
            } else if (kind === 'register') {
              const [name, value] = values;
              bad.set(NAMES[name] as E1000RegisterName, value);
              bad.get(NAMES[name] as E1000RegisterName);
            } else if (kind === 'turn') bad.device.poll();
            else bad.memory.settle();
          }
          bad.kick();
          bad.run();
          bad.memory.faults.length = 0;
          good.received();
          good.send(frame(3, 2));
          good.run();
          const got = other.received();
          assert.ok(got.some((one) => one.bytes.subarray(0, 100).equals(frame(3, 2))));
        },
      ),
      { numRuns: 150 },
    );
  });
}
