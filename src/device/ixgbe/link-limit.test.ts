import assert from 'node:assert/strict';
import test from 'node:test';
import { TokenBucket } from '../../base/token-bucket.ts';
import { Arena } from '../../memory/arena.ts';
import { CopyQueue } from '../../memory/copy.ts';
import { Burst } from '../../net/burst.ts';
import { megabitBucket } from '../../net/megabit-bucket.ts';
import {
  type LinkTime,
  linkMegabits,
  ReceiveLimit,
  SlotLimit,
  segmentedBytes,
  TransmitSchedule,
  wireBits,
  wireBitsOf,
} from './link-limit.ts';

const SECOND = 1e9;
const TURN_NS = 1000;

/** A clock that goes as the test wants it. */
function stoppedClock(): LinkTime & { pass: (ns: number) => void } {
  const clock = new Float64Array(1);
  return {
    clock,
    readClock: () => undefined,
    pass: (ns) => {
      clock[0] = (clock[0] as number) + ns;
    },
  };
}

interface Flow {
  readonly pool: number;
  /** Bits of what it sends at once. */
  readonly bits: number;
  /** Megabits a second: at most, at least. */
  readonly most?: number;
  readonly least?: number;
  /** Turns in which it has nothing to send. */
  readonly idle?: (turn: number) => boolean;
}

/** Lets flows send for a second, each as often as it may; megabits that each did. */
function run(flows: readonly Flow[], link: '10G' | 'none'): number[] {
  const clock = stoppedClock();
  const schedule = new TransmitSchedule(link, undefined, clock);
  for (const { pool, most = 0, least = 0 } of flows) {
    schedule.setRates(
      pool,
      most === 0 ? undefined : megabitBucket(most, 0),
      least === 0 ? undefined : megabitBucket(least, 0),
    );
  }
  const sent = flows.map(() => 0);
  const turns = SECOND / TURN_NS;
  for (let turn = 0; turn < turns; turn++) {
    clock.pass(TURN_NS);
    for (const [index, { pool, bits, idle }] of flows.entries()) {
      const pending = idle?.(turn) !== true;
      if (!schedule.admits(pool, { pending }) || !pending) continue;
      schedule.charge(pool, bits, bits);
      sent[index] = (sent[index] as number) + bits;
    }
  }
  return sent.map((bits) => bits / 1e6);
}

const total = (rates: readonly number[]): number => rates.reduce((sum, rate) => sum + rate, 0);

/** Jain's index. */
function fairness(rates: readonly number[]): number {
  const squares = rates.reduce((sum, rate) => sum + rate * rate, 0);
  return total(rates) ** 2 / (rates.length * squares);
}

function near(value: number, expected: number, part = 0.02): void {
  assert.ok(Math.abs(value - expected) <= expected * part, `${value} instead of ${expected}`);
}

/** Bits of 64 frames. */
const LARGE = 64 * 1538 * 8;
const SMALL = 64 * 84 * 8;

test('a frame takes preamble, check sequence and gap of the wire, and no less than 84 bytes', () => {
  const arena = Arena.create();
  const burst = new Burst(arena, new CopyQueue(arena));
  const at = arena.allocate(0x1_0000, 'test-frames');
  for (const bytes of [14, 60, 64, 1514, 5054]) burst.chains.add(at, bytes);
  burst.sourceHeaderBytes = 0;
  burst.gather();
  assert.deepEqual(
    [0, 1, 2, 3].map((slot) => wireBits(burst, slot, false) / 8),
    [84, 84, 88, 1538],
  );
  assert.equal(wireBits(burst, 3, true) / 8, 1542);
  // A TCP frame that is to be cut: type 1, headers of 54 bytes, 1448 each.
  const header = (burst.headerAt[4] as number) - burst.slotsAt;
  burst.slots8.set([1, 1, 54, 0, 1448 & 0xff, 1448 >> 8], header);
  assert.equal(segmentedBytes(burst, 4), 5054 + 3 * 54);
  assert.equal(wireBits(burst, 4, false) / 8, 5054 + 3 * 54 + 4 * 24);
  assert.equal(wireBits(burst, 4, true) / 8, 5054 + 3 * 54 + 4 * 28);
});

test('after a pause one burst may be sent above the rate, and no other', () => {
  const clock = stoppedClock();
  const schedule = new TransmitSchedule('none', undefined, clock);
  const limit = megabitBucket(100, 0);
  schedule.setRates(0, limit, undefined);
  clock.pass(10 * SECOND);
  assert.ok(schedule.admits(0, { pending: true }));
  schedule.charge(0, 0, limit.burst);
  assert.ok(!schedule.admits(0, { pending: true }));
  assert.ok(schedule.waitNs(0) > 0);
});

test('a 10 Gb/s wire carries that, whoever sends', () => {
  near(total(run([{ pool: 0, bits: LARGE }], '10G')), 10_000);
  near(total(run([{ pool: 0, bits: SMALL }], '10G')), 10_000);
  assert.equal(linkMegabits('10G'), 10_000);
  assert.equal(linkMegabits('none'), undefined);
});

test('without a limit nobody is asked, nor counted', () => {
  const schedule = new TransmitSchedule('none', undefined, stoppedClock());
  assert.ok(!schedule.counts);
  for (let i = 0; i < 100; i++) {
    schedule.charge(1, 1e12, 1e12);
    assert.ok(schedule.admits(1, { pending: true }));
  }
  assert.equal(schedule.waitNs(1), 0);
});

test('a busy wire is shared in equal parts', () => {
  const flows = Array.from({ length: 30 }, (_, pool) => ({ pool, bits: LARGE }));
  const rates = run(flows, '10G');
  near(total(rates), 10_000);
  assert.ok(fairness(rates) >= 0.995, `${fairness(rates)}`);
});

test('parts are of bits, not of bursts: small frames get as much as large ones', () => {
  const rates = run(
    [
      { pool: 3, bits: LARGE },
      { pool: 60, bits: SMALL },
    ],
    '10G',
  );
  near(total(rates), 10_000);
  near(rates[0] as number, 5000, 0.05);
  near(rates[1] as number, 5000, 0.05);
});

test('who had nothing to send has no claim to the past, and nobody starves', () => {
  const half = SECOND / TURN_NS / 2;
  const rates = run(
    [
      { pool: 1, bits: LARGE },
      { pool: 2, bits: LARGE, idle: (turn) => turn < half },
    ],
    '10G',
  );
  near(total(rates), 10_000);
  near(rates[0] as number, 7500, 0.03);
  near(rates[1] as number, 2500, 0.05);
});

test('max_tx_rate is kept within five per cent', () => {
  for (const link of ['10G', 'none'] as const) {
    for (const most of [10, 100, 1000, 5000]) {
      const bits = most < 100 ? 1538 * 8 : LARGE;
      // What may come at once after a pause comes on top once.
      const once = megabitBucket(most, 0).burst / 1e6;
      const [rate = 0] = run([{ pool: 5, bits, most }], link);
      near(rate, most + once, 0.05);
    }
  }
});

test('a limit of one leaves the rest to the others', () => {
  const rates = run(
    [
      { pool: 1, bits: LARGE, most: 1000 },
      { pool: 2, bits: LARGE },
      { pool: 3, bits: LARGE },
    ],
    '10G',
  );
  near(total(rates), 10_000);
  near(rates[0] as number, 1050, 0.05);
  near(rates[1] as number, rates[2] as number, 0.02);
});

test('min_tx_rate is had on a busy wire, and no more than a fair part beyond it', () => {
  const flows = Array.from({ length: 20 }, (_, pool) => ({
    pool,
    bits: LARGE,
    ...(pool === 7 ? { least: 4000 } : {}),
  }));
  const rates = run(flows, '10G');
  near(total(rates), 10_000);
  assert.ok((rates[7] as number) >= 3900, `${rates[7]}`);
  assert.ok((rates[7] as number) <= 4900, `${rates[7]}`);
  const others = rates.filter((_, pool) => pool !== 7);
  assert.ok(fairness(others) >= 0.995);
});

test('who waits and goes does not hold the others', () => {
  const clock = stoppedClock();
  const schedule = new TransmitSchedule('10G', undefined, clock);
  schedule.charge(9, 200e6, 200e6);
  assert.ok(!schedule.admits(1, { pending: true }));
  assert.ok(!schedule.admits(2, { pending: true }));
  assert.ok(schedule.waitNs(1) > 0);
  schedule.leave(1);
  clock.pass(SECOND);
  assert.ok(schedule.admits(2, { pending: true }), 'it was the turn of 1');
  schedule.charge(2, 400e6, 400e6);
  assert.ok(!schedule.admits(1, { pending: true }));
  assert.ok(!schedule.admits(2, { pending: true }));
  assert.ok(schedule.admits(1, { pending: false }), 'nothing to send');
  clock.pass(SECOND);
  assert.ok(schedule.admits(2, { pending: true }));
});

test('who has the turn, and does not come any more, holds the others for one round', () => {
  const clock = stoppedClock();
  const schedule = new TransmitSchedule('10G', undefined, clock);
  const pending = { pending: true };
  schedule.charge(9, 200e6, 200e6);
  for (const pool of [1, 2, 3, 4]) assert.ok(!schedule.admits(pool, pending));
  clock.pass(SECOND);
  // 1 to 3 have taken their doorbells back.
  const asked = [1, 2, 3, 4, 5].map(() => schedule.admits(4, pending));
  assert.ok(asked.includes(true), 'it never gets its turn');
  // They may come again, and have lost nothing.
  schedule.charge(4, 400e6, 400e6);
  for (const pool of [4, 1]) assert.ok(!schedule.admits(pool, pending));
  clock.pass(SECOND);
  assert.ok(!schedule.admits(4, pending), 'it is the turn of 1');
  assert.ok(schedule.admits(1, pending));
  assert.ok(schedule.admits(4, pending));
});

test('limits that stay the same keep what was had of them', () => {
  const clock = stoppedClock();
  const schedule = new TransmitSchedule('none', undefined, clock);
  schedule.setRates(1, megabitBucket(100, 0), undefined);
  schedule.charge(1, 0, 1e9);
  assert.ok(!schedule.admits(1, { pending: true }));
  schedule.setRates(1, megabitBucket(100, 0), undefined);
  assert.ok(!schedule.admits(1, { pending: true }), 'the same again');
  schedule.setRates(1, megabitBucket(200, 0), undefined);
  assert.ok(schedule.admits(1, { pending: true }));
  schedule.setRates(1, undefined, undefined);
  assert.ok(!schedule.counts);
});

test('what comes faster than the wire carries is lost', () => {
  const clock = stoppedClock();
  const limit = new ReceiveLimit('10G', undefined, clock);
  const bits = 1538 * 8;
  let arrived = 0;
  const offered = 1000;
  for (let ms = 0; ms < offered; ms++) {
    for (let i = 0; i < 2000; i++) if (limit.admits(bits)) arrived += bits;
    clock.pass(1e6);
  }
  near(arrived / 1e6, 10_000);
  assert.ok(!new ReceiveLimit('none', undefined).isSet);
});

/** Gigabits of frames a second that two ports send through one slot, as many at once as they may. */
function throughSlot(bytes: number): number {
  const clock = stoppedClock();
  const slot = new SlotLimit(clock);
  const ports = [0, 1].map(() => new TransmitSchedule('none', slot, clock));
  // What may come at once after a pause is not what is asked for.
  while (slot.ready) slot.sent(bytes);
  let frames = 0;
  for (let ms = 0; ms < 100; ms++) {
    clock.pass(1e6);
    for (let refused = 0; refused < ports.length; ) {
      refused = 0;
      for (const port of ports) {
        if (port.admits(0, { pending: true })) {
          slot.sent(bytes);
          frames++;
        } else refused++;
      }
    }
  }
  return (frames * bytes * 8) / 0.1 / 1e9;
}

test('frames that arrive together are let in as one by one, or asked for one by one', () => {
  const clock = stoppedClock();
  const [together, alone] = [
    new ReceiveLimit('10G', undefined, clock),
    new ReceiveLimit('10G', undefined, clock),
  ];
  const [frames, padded] = [64, 64 * 1514];
  const bits = wireBitsOf(frames, padded);
  assert.equal(bits, 64 * 8 * (1514 + 24));
  let whole = 0;
  for (let turn = 0; turn < 400; turn++) {
    clock.pass(turn < 300 ? 1000 : 100_000);
    let arrived = 0;
    for (let i = 0; i < frames; i++) if (alone.admits(bits / frames)) arrived++;
    if (together.admitsRun(bits)) {
      whole++;
      assert.equal(arrived, frames);
      continue;
    }
    let admitted = 0;
    for (let i = 0; i < frames; i++) if (together.admits(bits / frames)) admitted++;
    assert.equal(admitted, arrived);
  }
  assert.ok(whole > 100 && whole < 300, `${whole} of 400`);
  assert.ok(new ReceiveLimit('none', undefined, clock).admitsRun(bits));
  const slot = new ReceiveLimit('none', new SlotLimit(clock), clock);
  assert.ok(!slot.admitsRun(bits), 'a slot is asked for each frame');
});

test('a slot of eight lanes carries less than its 32 Gb/s of frames, for both ports together', () => {
  const [large, small] = [throughSlot(1514), throughSlot(64)];
  assert.ok(large > 26 && large < 30, `${large}`);
  assert.ok(small > 15 && small < 21, `${small}: small frames have more around them`);
});

test('what is received takes of the slot too, and holds those back who send', () => {
  const clock = stoppedClock();
  const slot = new SlotLimit(clock);
  const port = new TransmitSchedule('none', slot, clock);
  assert.ok(port.admits(0, { pending: true }));
  // Forty milliseconds of the slot.
  for (let i = 0; i < 10_000; i++) slot.received(10, 10 * 1514);
  assert.ok(!port.admits(0, { pending: true }));
  assert.ok(port.waitNs(0) > 1e6);
  assert.ok(!new ReceiveLimit('none', slot, clock).admits(1));
  clock.pass(100e6);
  assert.ok(port.admits(0, { pending: true }));
});

test('a bucket that was spent beyond its end pays before it gives', () => {
  const bucket = new TokenBucket({ rate: SECOND, burst: 100 }, 0);
  bucket.spend(250);
  assert.equal(bucket.tokens, -150);
  bucket.refill(150);
  assert.equal(bucket.take(1), false);
  bucket.refill(151);
  assert.equal(bucket.take(1), true);
});
