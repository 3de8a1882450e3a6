/** Interrupts of both kinds of functions, by the rules of §7.3. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { InterruptMode } from '../../pci/interrupts.ts';
import {
  IXGBE_EITR_COUNTER_KEEP,
  IXGBE_EITR_UNIT_NS,
  IXGBE_GPIE_EIAME,
  IXGBE_GPIE_MSIX,
  IXGBE_GPIE_OTHER_CLEAR_DISABLE,
  IXGBE_INT_LINK,
  IXGBE_INT_TCP_TIMER,
  IXGBE_IVAR_VALID,
} from '../../spec/ixgbe.ts';
import { IXGBE_VF_IVAR_MISC } from '../../spec/ixgbe-mailbox.ts';
import { PF_LAYOUT, vfLayout } from './function.ts';
import { Interrupts } from './interrupts.ts';
import { R, REGISTER_WORDS } from './registers.ts';

const V = IXGBE_IVAR_VALID;
/** EITR of about 100 us. */
const INTERVAL = 49 << 3;
const INTERVAL_NS = 49 * IXGBE_EITR_UNIT_NS;

class Bench {
  readonly words = new Uint32Array(REGISTER_WORDS);
  readonly loop = { now: 1_000_000 };
  readonly vectors: number[] = [];
  mode: InterruptMode;
  level = false;
  readonly irq: Interrupts;

  constructor(mode: InterruptMode, layout = PF_LAYOUT.interrupts) {
    this.mode = mode;
    const bench = this;
    this.irq = new Interrupts({
      layout,
      words: this.words,
      loop: this.loop,
      output: {
        get mode() {
          return bench.mode;
        },
        signal: (vector) => this.vectors.push(vector),
        setLevel: (level) => {
          this.level = level;
        },
      },
      sent: () => undefined,
    });
    if (mode === 'msix') this.irq.control = IXGBE_GPIE_MSIX | IXGBE_GPIE_EIAME;
  }

  /** A queue's receive and transmit causes go to these vectors. */
  assign(queue: number, receive: number, transmit: number): void {
    const index = R.IVAR + (queue >>> 1);
    const entries = V | receive | ((V | transmit) << 8);
    this.words[index] = (this.words[index] as number) | (entries << (16 * (queue & 1)));
  }

  sent(): number[] {
    return this.vectors.splice(0);
  }
}

describe('MSI-X', () => {
  test('queues interrupt by the vectors that they are assigned to', () => {
    const b = new Bench('msix');
    b.assign(0, 3, 4);
    b.assign(5, 40, 63);
    b.irq.enableVectors(0, 0xffff_ffff);
    b.irq.enableVectors(1, 0xffff_ffff);
    b.irq.received(0);
    b.irq.transmitted(0);
    b.irq.received(5);
    b.irq.transmitted(5);
    assert.deepEqual(b.sent(), [3, 4, 40, 63]);
    b.irq.received(1);
    assert.deepEqual(b.sent(), [], 'no valid entry');
  });

  test('what is masked waits, and is sent once', () => {
    const b = new Bench('msix');
    b.assign(0, 2, 2);
    b.irq.received(0);
    b.irq.received(0);
    assert.deepEqual(b.sent(), []);
    assert.equal(b.irq.causes, 1 << 2);
    b.irq.enable(1 << 2);
    assert.deepEqual(b.sent(), [2]);
    b.irq.disableVectors(0, 1 << 2);
    b.irq.received(0);
    assert.deepEqual(b.sent(), []);
    b.irq.enableVectors(0, 1 << 2);
    assert.deepEqual(b.sent(), [2]);
  });

  test('EIAC clears the cause with the message, EIAM masks it', () => {
    const b = new Bench('msix');
    b.assign(0, 1, 1);
    b.irq.autoClear = 0xffff;
    b.irq.setVectorAutoMask(0, 0xffff_ffff);
    b.irq.enable(2);
    b.irq.received(0);
    assert.deepEqual(b.sent(), [1]);
    assert.equal(b.irq.causes, 0);
    assert.equal(b.irq.mask, 0);
    b.irq.received(0);
    assert.deepEqual(b.sent(), []);
    b.irq.enableVectors(0, 2);
    assert.deepEqual(b.sent(), [1]);
  });

  test('without EIAME a message masks nothing; without EIAC an enabled cause interrupts again', () => {
    const b = new Bench('msix');
    b.irq.control = IXGBE_GPIE_MSIX;
    b.assign(0, 1, 1);
    b.irq.autoMask = 0xffff;
    b.irq.enable(2);
    b.irq.received(0);
    assert.deepEqual(b.sent(), [1]);
    assert.equal(b.irq.mask, 2);
    assert.equal(b.irq.causes, 2);
    b.irq.disable(2);
    b.irq.enable(2);
    assert.deepEqual(b.sent(), [1]);
  });

  test('other causes go to the vector of IVAR_MISC, and stay until they are cleared', () => {
    const b = new Bench('msix');
    b.words[R.IVAR_MISC] = (V | 9) << 8;
    b.irq.enable(IXGBE_INT_LINK);
    b.irq.raiseOther(IXGBE_INT_LINK);
    assert.deepEqual(b.sent(), [9]);
    assert.equal(b.irq.causes, IXGBE_INT_LINK);
    b.irq.update();
    assert.deepEqual(b.sent(), [], 'one message an event');
    b.irq.writeCauses(IXGBE_INT_LINK);
    assert.equal(b.irq.causes, 0);
    b.irq.raiseOther(IXGBE_INT_LINK);
    assert.deepEqual(b.sent(), [9]);
  });

  test('the TCP timer has the other entry of IVAR_MISC', () => {
    const b = new Bench('msix');
    b.words[R.IVAR_MISC] = ((V | 9) << 8) | (V | 7);
    b.irq.enable(IXGBE_INT_TCP_TIMER | IXGBE_INT_LINK);
    b.irq.raiseOther(IXGBE_INT_TCP_TIMER | IXGBE_INT_LINK);
    assert.deepEqual(b.sent(), [7, 9]);
  });

  test('EICS raises what it names', () => {
    const b = new Bench('msix');
    b.words[R.IVAR_MISC] = (V | 9) << 8;
    b.irq.enable(0x8 | IXGBE_INT_LINK);
    b.irq.setCauses(0x8 | IXGBE_INT_LINK);
    assert.deepEqual(b.sent().sort(), [3, 9]);
    b.irq.enableVectors(1, 1);
    b.irq.setVectors(1, 1);
    assert.deepEqual(b.sent(), [32]);
  });

  test('a read of EICR clears all, or with OCD other causes only', () => {
    const b = new Bench('msix');
    b.irq.setCauses(0x5 | IXGBE_INT_LINK);
    b.irq.control = IXGBE_GPIE_MSIX | IXGBE_GPIE_OTHER_CLEAR_DISABLE;
    assert.equal(b.irq.readCauses(), 0x5 | IXGBE_INT_LINK);
    assert.equal(b.irq.causes, 0x5);
    b.irq.control = IXGBE_GPIE_MSIX;
    assert.equal(b.irq.readCauses(), 0x5);
    assert.equal(b.irq.causes, 0);
  });
});

describe('throttling', () => {
  test('EITR holds back in units of 2 us, and loses nothing', () => {
    const b = new Bench('msix');
    b.assign(0, 1, 1);
    b.irq.enable(2);
    b.irq.setModeration(1, INTERVAL | IXGBE_EITR_COUNTER_KEEP);
    assert.equal(b.words[R.EITR + 1], INTERVAL);
    b.irq.received(0);
    b.irq.received(0);
    assert.deepEqual(b.sent(), [1]);
    assert.equal(b.irq.arm(), true);
    b.loop.now += INTERVAL_NS - 1;
    assert.equal(b.irq.poll(), 0);
    assert.deepEqual(b.sent(), []);
    b.loop.now += 1;
    assert.equal(b.irq.poll(), 1);
    assert.deepEqual(b.sent(), [1]);
    assert.equal(b.irq.arm(), false);
    assert.equal(b.irq.poll(), 0);
  });

  test('each vector waits for itself', () => {
    const b = new Bench('msix');
    b.assign(0, 1, 2);
    b.irq.enable(6);
    b.irq.setModeration(1, INTERVAL);
    b.irq.received(0);
    b.irq.received(0);
    b.irq.transmitted(0);
    b.irq.transmitted(0);
    assert.deepEqual(b.sent(), [1, 2, 2]);
  });

  test('a write to EITR without CNT_WDIS, and an immediate frame, end the wait', () => {
    const b = new Bench('msix');
    b.assign(0, 1, 1);
    b.irq.enable(2);
    b.irq.setModeration(1, INTERVAL);
    b.irq.received(0);
    b.irq.received(0);
    assert.deepEqual(b.sent(), [1]);
    b.irq.setModeration(1, INTERVAL);
    assert.deepEqual(b.sent(), [1]);
    b.irq.hurry(0);
    b.irq.received(0);
    assert.deepEqual(b.sent(), [1]);
  });

  test('a vector above 23 has its EITR in the second row', () => {
    const b = new Bench('msix');
    b.assign(0, 40, 40);
    b.irq.enableVectors(1, 1 << 8);
    b.irq.setModeration(40, INTERVAL);
    assert.equal(b.words[R.EITR_HIGH + 16], INTERVAL);
    b.irq.received(0);
    b.irq.received(0);
    assert.deepEqual(b.sent(), [40]);
  });
});

describe('MSI and INTx', () => {
  test('one message when a cause is enabled, the next when all were cleared', () => {
    const b = new Bench('msi');
    b.assign(0, 0, 1);
    b.irq.enable(3);
    b.irq.received(0);
    b.irq.transmitted(0);
    assert.deepEqual(b.sent(), [0]);
    assert.equal(b.irq.readCauses(), 3);
    b.irq.received(0);
    assert.deepEqual(b.sent(), [0]);
  });

  test('the line is as long asserted as an enabled cause is there', () => {
    const b = new Bench('intx');
    b.assign(0, 0, 0);
    b.irq.received(0);
    assert.equal(b.level, false);
    b.irq.enable(1);
    assert.equal(b.level, true);
    b.irq.readCauses();
    assert.equal(b.level, false);
    b.irq.raiseOther(IXGBE_INT_LINK);
    assert.equal(b.level, false);
    b.irq.enable(IXGBE_INT_LINK);
    assert.equal(b.level, true);
    b.irq.disable(IXGBE_INT_LINK);
    assert.equal(b.level, false);
  });

  test('EIAM masks as EICR is read', () => {
    const b = new Bench('msi');
    b.assign(0, 0, 0);
    b.irq.autoMask = 1;
    b.irq.enable(1);
    b.irq.received(0);
    b.irq.readCauses();
    assert.equal(b.irq.mask, 0);
    b.irq.received(0);
    assert.deepEqual(b.sent(), [0], 'the first only');
  });

  test('MSI-X without GPIE.Multiple_MSIX has one vector', () => {
    const b = new Bench('msix');
    b.irq.control = 0;
    b.assign(0, 5, 5);
    b.irq.enable(1 << 5);
    b.irq.received(0);
    assert.deepEqual(b.sent(), [0]);
  });
});

describe('of a virtual function', () => {
  test('three vectors, the mailbox has its own entry', () => {
    const b = new Bench('msix', vfLayout(4).interrupts);
    b.words[IXGBE_VF_IVAR_MISC / 4] = V | 2;
    b.words[vfLayout(4).interrupts.ivar] = V | 0 | ((V | 1) << 8);
    b.irq.enable(0xffff_ffff);
    assert.equal(b.irq.mask, 7);
    b.irq.received(0);
    b.irq.transmitted(0);
    b.irq.raiseMailbox();
    assert.deepEqual(b.sent(), [0, 1, 2]);
    assert.equal(b.irq.readCauses(), 7);
    assert.equal(b.irq.causes, 0);
  });

  test('a vector that it has not reaches nobody', () => {
    const b = new Bench('msix', vfLayout(4).interrupts);
    b.words[vfLayout(4).interrupts.ivar] = V | 9;
    b.irq.enable(0xffff_ffff);
    b.irq.received(0);
    assert.deepEqual(b.sent(), []);
    assert.equal(b.irq.causes, 0);
  });
});

test('a reset forgets causes, masks and waits', () => {
  const b = new Bench('msix');
  b.assign(0, 1, 1);
  b.irq.enable(2);
  b.irq.setModeration(1, INTERVAL);
  b.irq.received(0);
  b.irq.received(0);
  b.sent();
  b.irq.reset();
  assert.equal(b.irq.causes, 0);
  assert.equal(b.irq.mask, 0);
  assert.equal(b.irq.control, 0);
  b.loop.now += 10 * INTERVAL_NS;
  assert.equal(b.irq.poll(), 0);
  assert.deepEqual(b.sent(), []);
});

test('the driver domain throttles every vector, also one that its driver does not throttle', () => {
  const b = new Bench('msix');
  b.assign(0, 1, 1);
  b.assign(1, 2, 2);
  b.irq.enable(0xffff);
  b.irq.leastIntervalNs = 3 * INTERVAL_NS;
  b.irq.setModeration(2, INTERVAL);
  for (let i = 0; i < 2; i++) for (const queue of [0, 1]) b.irq.received(queue);
  assert.deepEqual(b.sent(), [1, 2]);
  b.loop.now += INTERVAL_NS;
  assert.equal(b.irq.poll(), 0);
  b.loop.now += 2 * INTERVAL_NS;
  assert.equal(b.irq.poll(), 1);
  assert.deepEqual(b.sent(), [2, 1]);
  // A guest's reset does not end it; a driver that wants less gets less.
  b.irq.reset();
  assert.equal(b.irq.leastIntervalNs, 3 * INTERVAL_NS);
});

test('no write to EITR, immediate frame or reset gets round the throttle of the driver domain', () => {
  const b = new Bench('msix');
  b.irq.leastIntervalNs = INTERVAL_NS;
  const setUp = (): void => {
    b.irq.control = IXGBE_GPIE_MSIX | IXGBE_GPIE_EIAME;
    b.assign(0, 1, 1);
    b.irq.enable(2);
    b.irq.setModeration(1, 0);
  };
  setUp();
  for (let i = 0; i < 100; i++) {
    b.irq.received(0);
    b.irq.setModeration(1, 0);
    b.irq.hurry(0);
    b.irq.received(0);
    b.irq.reset();
    setUp();
    b.irq.received(0);
  }
  assert.deepEqual(b.sent(), [1]);
  b.loop.now += INTERVAL_NS;
  assert.equal(b.irq.poll(), 1);
  assert.deepEqual(b.sent(), [1]);
});

test('no interrupt is lost, and none comes without a reason, whatever the order', () => {
  const queue = fc.nat(63);
  const step = fc.oneof(
    fc.record({ kind: fc.constant('frame' as const), queue }),
    fc.record({ kind: fc.constant('mask' as const), queue }),
    fc.record({ kind: fc.constant('unmask' as const), queue }),
    fc.record({ kind: fc.constant('throttle' as const), queue }),
    fc.record({ kind: fc.constant('autoMask' as const), queue }),
    fc.record({ kind: fc.constant('time' as const), queue }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const b = new Bench('msix');
      b.irq.autoClear = 0xffff;
      for (let i = 0; i < 64; i++) b.assign(i, i, i);
      /** Vectors whose queues have had a frame since their last message. */
      const owed = new Set<number>();
      const settle = (): void => {
        for (const vector of b.sent()) assert.ok(owed.delete(vector), `vector ${vector}`);
      };
      for (const { kind, queue: vector } of steps) {
        const word = vector >>> 5;
        const bit = (1 << (vector & 31)) >>> 0;
        if (kind === 'frame') {
          owed.add(vector);
          b.irq.received(vector);
        } else if (kind === 'mask') b.irq.disableVectors(word, bit);
        else if (kind === 'unmask') b.irq.enableVectors(word, bit);
        else if (kind === 'throttle') b.irq.setModeration(vector, INTERVAL);
        else if (kind === 'autoMask') b.irq.setVectorAutoMask(word, bit);
        else {
          b.loop.now += (INTERVAL_NS * vector) / 32;
          b.irq.poll();
        }
        settle();
      }
      b.irq.enableVectors(0, 0xffff_ffff);
      b.irq.enableVectors(1, 0xffff_ffff);
      settle();
      b.loop.now += INTERVAL_NS;
      b.irq.poll();
      settle();
      assert.deepEqual([...owed], []);
      assert.equal(b.irq.arm(), false);
    }),
    { numRuns: 300 },
  );
});
