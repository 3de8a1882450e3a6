import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isMainThread } from 'node:worker_threads';
import { SluiceError } from '../base/errors.ts';
import { type LogFields, loggerTo, silentLogger } from '../base/log.ts';
import { Arena } from '../memory/arena.ts';
import { type LaneHost, type LaneProgram, runLane } from './lane.ts';
import { LaneHandle, type LaneOptions } from './lane-handle.ts';
import { Later } from './later.ts';

type TestCommands = {
  readonly echo: { readonly args: string; readonly reply: string };
  readonly write: { readonly args: number; readonly reply: number };
  readonly read: { readonly args: number; readonly reply: number };
  readonly refuse: { readonly args: undefined; readonly reply: never };
  readonly wait: { readonly args: number; readonly reply: number };
  readonly never: { readonly args: undefined; readonly reply: undefined };
  readonly breakDevice: { readonly args: undefined; readonly reply: undefined };
  readonly crashLater: { readonly args: undefined; readonly reply: undefined };
  readonly spin: { readonly args: number; readonly reply: undefined };
};

/** Has this file, run as a program, end by process.exit while its lane sleeps. */
const EXIT_CHILD = 'exit-child';

/** The program that this file runs in a lane, when it is the worker's module. */
function program(host: LaneHost<string>): LaneProgram<TestCommands> {
  if (host.settings === 'fail') throw new SluiceError('unsupported', 'no such lane here');
  return {
    commands: {
      echo: (text) => {
        host.emit(`heard ${text}`);
        return text.toUpperCase();
      },
      write: (value) => {
        const at = host.arena.allocate(8);
        host.arena.view.setFloat64(at, value, true);
        return at;
      },
      read: (at) => host.arena.view.getFloat64(at, true),
      refuse: () => {
        throw new SluiceError('not-found', 'no port web/net0', { remedy: 'add it' });
      },
      wait: (value) => {
        const later = new Later<number>();
        host.loop.setTimer(1000, () => {
          if (value < 0) later.reject(new SluiceError('state', `not ${value}`));
          else later.resolve(value);
        });
        return later;
      },
      never: () => new Later<undefined>(),
      breakDevice: () => {
        const faulty = {
          poll: (): number => {
            throw new Error('a bug in a device');
          },
          arm: () => false,
          disarm: () => undefined,
        };
        host.loop.addPoller(host.guard('web/net0', faulty, () => host.emit('device failed')));
        return undefined;
      },
      crashLater: () => {
        host.loop.setTimer(0, () => {
          throw new Error('a bug in the lane');
        });
        return undefined;
      },
      spin: (turns) => {
        let left = turns;
        host.loop.addPoller({
          poll: () => (left > 0 ? (left-- > 0 ? 1 : 0) : 0),
          arm: () => left > 0,
          disarm: () => undefined,
        });
        return undefined;
      },
    },
    close: () => host.emit('closed'),
  };
}

function start(
  options: Partial<LaneOptions<string>> = {},
): Promise<LaneHandle<TestCommands, string>> {
  const [arena] = Arena.split(1, 2 ** 33);
  assert.ok(arena);
  return LaneHandle.start<TestCommands, string>({
    index: 0,
    arena,
    entry: new URL(import.meta.url),
    log: silentLogger,
    ...options,
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(1);
}

if (!isMainThread) {
  runLane(program);
} else if (process.argv.includes(EXIT_CHILD)) {
  const lane = await start();
  await until(() => lane.counters.snapshot().sleeps > 0);
  process.exit(7);
} else {
  test('a lane asleep in epoll_wait answers commands and tells events', async () => {
    const events: string[] = [];
    const lane = await start({ onEvent: (event) => events.push(event) });
    await until(() => lane.counters.snapshot().sleeps > 0);
    assert.equal(await lane.request('echo', 'hello'), 'HELLO');
    assert.deepEqual(events, ['heard hello']);
    await lane.stop();
    assert.deepEqual(events, ['heard hello', 'closed']);
    assert.equal(await lane.ended, undefined);
  });

  test('many commands at once are answered each with its own reply', async () => {
    const lane = await start();
    const asked = Array.from({ length: 500 }, (_, i) => lane.request('echo', `n${i}`));
    const replies = await Promise.all(asked);
    assert.deepEqual(
      replies,
      replies.map((_, i) => `N${i}`),
    );
    await lane.stop();
  });

  test('an error comes back with its class, code and remedy, and the lane goes on', async () => {
    const lane = await start();
    await assert.rejects(lane.request('refuse', undefined), (error) => {
      assert.ok(error instanceof SluiceError);
      assert.equal(error.code, 'not-found');
      assert.equal(error.message, 'no port web/net0');
      assert.equal(error.remedy, 'add it');
      return true;
    });
    assert.equal(await lane.request('echo', 'a'), 'A');
    await lane.stop();
  });

  test('a reply may come later, without holding up the lane', async () => {
    const lane = await start();
    const order: string[] = [];
    const tell = (what: string) => (): void => void order.push(what);
    await Promise.all([
      lane.request('wait', 7).then(tell('waited')),
      lane.request('echo', 'x').then(tell('echo')),
    ]);
    assert.deepEqual(order, ['echo', 'waited']);
    assert.equal(await lane.request('wait', 7), 7);
    await assert.rejects(lane.request('wait', -1), { code: 'state', message: 'not -1' });
    const never = assert.rejects(lane.request('never', undefined), /lane 0 has ended/);
    await lane.stop();
    await never;
  });

  test('lanes share one address space, each with a part of its own', async () => {
    const [first, second] = Arena.split(2, 2 ** 33);
    assert.ok(first && second);
    const one = await start({ arena: first });
    const two = await start({ arena: second, index: 1 });
    const at = await one.request('write', 1.5);
    assert.equal(await two.request('read', at), 1.5);
    assert.notEqual(await two.request('write', 2.5), at);
    assert.equal(await one.request('read', at), 1.5);
    await Promise.all([one.stop(), two.stop()]);
  });

  test('what a device throws ends that device alone', async () => {
    const events: string[] = [];
    const logged: (string | number | boolean | null | undefined)[] = [];
    const lane = await start({
      onEvent: (event) => events.push(event),
      log: loggerTo((level, _message, fields: LogFields) =>
        logged.push(level, fields['device'], fields['error']),
      ),
    });
    await lane.request('breakDevice', undefined);
    await until(() => events.length > 0);
    assert.deepEqual(events, ['device failed']);
    assert.deepEqual(logged, ['error', 'web/net0', 'a bug in a device']);
    assert.equal(lane.counters.snapshot().device_failures, 1);
    assert.equal(await lane.request('echo', 'on'), 'ON');
    await lane.stop();
  });

  test('the crash of a lane is reported, closes its program and fails what was asked', async () => {
    const events: string[] = [];
    const lane = await start({ onEvent: (event) => events.push(event) });
    await lane.request('crashLater', undefined);
    const reason = await lane.ended;
    assert.equal(reason?.message, 'a bug in the lane');
    assert.deepEqual(events, ['closed']);
    await assert.rejects(lane.request('echo', 'x'), /lane 0 has ended: a bug in the lane/);
  });

  test('a factory that throws fails the start', async () => {
    await assert.rejects(start({ settings: 'fail' }), /no such lane here/);
  });

  test('a processor that is not there is told with its lane', async () => {
    await assert.rejects(start({ cpus: [1023] }), {
      code: 'config',
      message: 'lane 0 cannot run on processors 1023: EINVAL: sched_setaffinity 1023',
    });
  });

  test('a lane runs where it is told to', async () => {
    const lane = await start({ cpus: [0] });
    const status = readFileSync(`/proc/self/task/${lane.tid}/status`, 'utf8');
    assert.match(status, /^Cpus_allowed_list:\t0$/m);
    await lane.stop();
  });

  test('an idle lane sleeps on: its thread gets no processor time', async () => {
    const lane = await start();
    await until(() => {
      const { sleeps, wakeups } = lane.counters.snapshot();
      return sleeps > wakeups;
    });
    await delay(20);
    const { turns } = lane.counters.snapshot();
    const before = lane.schedule().cpuNs;
    await delay(200);
    assert.equal(lane.counters.snapshot().turns, turns);
    assert.equal(lane.schedule().cpuNs, before);
    await lane.stop();
  });

  test('counters are live while the lane works, exact when sampled', async () => {
    const lane = await start();
    await lane.request('spin', 5_000_000);
    await until(() => lane.counters.snapshot().busy_turns >= 1024);
    await until(() => lane.counters.snapshot().busy_turns >= 5_000_000);
    await lane.sample();
    const sampled = lane.counters.snapshot();
    assert.equal(sampled.busy_turns, 5_000_000);
    assert.ok(sampled.turns >= sampled.busy_turns);
    assert.ok(sampled.heap_allocated_bytes > 0);
    assert.ok(lane.schedule().cpuNs > 0);
    await lane.stop();
    assert.throws(() => lane.schedule().cpuNs, /lane 0 has ended/);
  });

  test('process.exit does not hang on a lane that sleeps', () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', import.meta.filename, EXIT_CHILD],
      { encoding: 'utf8', timeout: 20_000 },
    );
    assert.equal(status, 7, stderr);
  });
}
