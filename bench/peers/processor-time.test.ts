import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import {
  busiestThread,
  disturbance,
  type Occupancy,
  occupancy,
  type ProcessorSnapshot,
  parseProcessor,
  parseSchedstat,
  takeSnapshot,
  threadsBelow,
} from './processor-time.ts';

type Times = Readonly<Record<string, readonly [ran: number, waited: number]>>;

function snapshot(at: number, threads: Times, stolen = 0): ProcessorSnapshot {
  const entries = Object.entries(threads).map(
    ([id, [ran, waited]]) => [id, { ran, waited }] as const,
  );
  return { at, threads: new Map(entries), stolen };
}

function near(actual: Occupancy, expected: Occupancy): void {
  for (const key of ['busiest', 'others', 'kept', 'stolen'] as const) {
    assert.ok(Math.abs(actual[key] - expected[key]) < 1e-9, `${key} is ${actual[key]}`);
  }
}

test("the kernel's texts are read", () => {
  assert.deepEqual(parseSchedstat('1500000000 20000000 7\n'), { ran: 1.5, waited: 0.02 });
  const stat = 'cpu  9 9 9 9 9 9 9 999 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu10 1 2 3 4 5 6 7 50 0 0\n';
  assert.equal(parseProcessor(stat, 'cpu0').steal, 0.08);
  assert.equal(parseProcessor(stat, 'cpu10').steal, 0.5);
  const { steal, ...others } = parseProcessor(stat, 'cpu');
  assert.equal(steal, 9.99);
  assert.deepEqual(new Set(Object.values(others)), new Set([0.09]));
  assert.throws(() => parseProcessor(stat, 'cpu1'), /cpu1/);
});

test('the busiest thread is told from the others, whatever it did before', () => {
  const before = snapshot(10, { main: [100, 5], lane: [1, 1] });
  const after = snapshot(12, { main: [100.1, 5], lane: [2.8, 1], new: [0.1, 3] });
  near(occupancy(before, after, after), { busiest: 0.9, others: 0.1, kept: 0, stolen: 0 });
});

test("waiting for others disturbs, waiting for one's own threads does not", () => {
  const before = snapshot(0, { lane: [0, 0], gc: [0, 0] }, 1);
  const own = snapshot(1, { lane: [0.9, 0.1], gc: [0.1, 0.9] }, 1);
  near(occupancy(before, own, own), { busiest: 0.9, others: 0.1, kept: 0, stolen: 0 });
  const foreign = snapshot(1, { lane: [0.7, 0.3], gc: [0.1, 0.9] }, 1.5);
  near(occupancy(before, foreign, foreign), {
    busiest: 0.7,
    others: 0.1,
    kept: 0.2,
    stolen: 0.5,
  });
});

test('a wait that was not over at the end is told by the later snapshot', () => {
  const before = snapshot(0, { lane: [0, 0] });
  const after = snapshot(2, { lane: [1, 0] });
  const later = snapshot(3, { lane: [1.1, 1] });
  near(occupancy(before, after, later), { busiest: 0.5, others: 0, kept: 0.5, stolen: 0 });
  // Its end is no reason to forget it.
  near(occupancy(before, after, snapshot(3, {})), {
    busiest: 0.5,
    others: 0,
    kept: 0,
    stolen: 0,
  });
});

test('a sample that lost more than a little is disturbed, and why', () => {
  const quiet = { busiest: 0.99, others: 0, kept: 0.005, stolen: 0.005 };
  assert.equal(disturbance('the lane', quiet), undefined);
  assert.match(disturbance('the lane', { ...quiet, kept: 0.04 }) ?? '', /the lane.* 4\.0 %/);
  assert.match(disturbance('the lane', { ...quiet, stolen: 0.5 }) ?? '', /the host .* 50\.0 %/);
  const some = { ...quiet, kept: 0.02 };
  assert.equal(disturbance('the lane', some), undefined);
  assert.match(disturbance('the lane', some, 0.01) ?? '', /the lane.* 2\.0 %/);
});

test('children are found, and their time', async () => {
  const child = spawn('sh', ['-c', 'i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; read _'], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  try {
    assert.ok(child.pid !== undefined);
    const id = `/proc/${child.pid}/task/${child.pid}`;
    assert.ok(threadsBelow(process.pid).includes(id));
    let ran = 0;
    // Until it has run: schedstat counts in nanoseconds.
    while (ran === 0) ran = takeSnapshot(process.pid, 0).threads.get(id)?.ran ?? 0;
    assert.ok(ran > 0);
  } finally {
    child.stdin.end('\n');
    await once(child, 'close');
  }
  assert.deepEqual(threadsBelow(child.pid ?? 0), []);
});

test('of all threads below a process, the busiest is watched', async () => {
  const spinner = spawn('sh', ['-c', 'while :; do :; done']);
  try {
    await once(spinner, 'spawn');
    const ran = busiestThread(process.pid);
    const own = busiestThread(spinner.pid ?? 0);
    // Whatever else runs here: it gets its processor some time.
    while (own() === 0) await new Promise((next) => setTimeout(next, 10));
    assert.ok(ran() > 0);
    assert.equal(busiestThread(2 ** 30)(), 0, 'nobody has this number');
  } finally {
    spinner.kill();
  }
});
