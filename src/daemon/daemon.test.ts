// suite: takes=12
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isMainThread } from 'node:worker_threads';
import { runLane } from '../engine/lane.ts';
import { EmbeddedGuests, newFlow } from '../guest/embedded/launcher.ts';
import { Arena } from '../memory/arena.ts';
import { connectUnix, type UnixConnection, UnixListener } from '../os/unix-socket.ts';
import { SocketChannel } from '../transport/channel.ts';
import { VhostUserClient } from '../transport/vhost-user/client.ts';
import { TEST_FEATURES, TestGuest, TestRing } from '../transport/vhost-user/testing.ts';
import type { NetConfig } from './config.ts';
import type { Daemon } from './daemon.ts';
import type { LaneCommands, LaneEvent } from './lane-commands.ts';
import { DomainLane } from './lane-program.ts';
import { stage, until } from './testing.ts';

/** Name of a switch that makes this file's lane crash, a moment after it was added. */
const FATAL_SWITCH = 'fatal';

function cardOf(daemon: Daemon, port: string): NetConfig {
  const card = daemon.config.guests.flatMap(({ net }) => net).find((net) => net.port === port);
  assert.ok(card, port);
  return card;
}

/** Has embedded guests behind all cards, named after their ports. */
async function attachAll(t: TestContext, daemon: Daemon): Promise<EmbeddedGuests> {
  const guests = await EmbeddedGuests.start();
  t.after(() => guests[Symbol.asyncDispose]());
  for (const { port, socket, mac } of daemon.config.guests.flatMap(({ net }) => net)) {
    await guests.attach({ name: port, socket, mac });
  }
  return guests;
}

/** Round trips of `from`, which pings `to`, since the start of the roles. */
async function ping(guests: EmbeddedGuests, daemon: Daemon, from: string, to: string) {
  const { mac } = cardOf(daemon, to);
  await guests.start({
    [to]: [{ role: 'echo' }],
    [from]: [{ role: 'ping', mac, flow: newFlow(), frame: 100, intervalUs: 500 }],
  });
  return async (): Promise<number> => {
    const reading = await guests.read();
    return reading.guests[from]?.pairs[0]?.roundTrips ?? 0;
  };
}

if (!isMainThread) {
  runLane<LaneCommands, LaneEvent>((host) => {
    const lane = new DomainLane(host);
    const { addSwitch } = lane.commands;
    return {
      commands: {
        ...lane.commands,
        addSwitch: (args) => {
          if (args.name === FATAL_SWITCH) {
            host.loop.setTimer(0, () => {
              throw new Error('a bug in the lane');
            });
          }
          return addSwitch(args);
        },
      },
      close: () => lane.close(),
    };
  });
} else {
  const GUESTS =
    'guests: { a: { net: [{ method: paravirtual, switch: one }] }, b: { net: [{ method: paravirtual, switch: two }] } }';

  test('frames cross a wire between two switches; another lane runs apart', async (t) => {
    const { start } = stage(
      t,
      `lanes: 2\nswitches: { one: { wire: { switch: two } }, two: {}, three: {} }\n${GUESTS}`,
    );
    const daemon = await start();
    assert.equal(daemon.laneOf('one'), daemon.laneOf('two'));
    assert.notEqual(daemon.laneOf('one'), daemon.laneOf('three'));
    const guests = await attachAll(t, daemon);
    const roundTrips = await ping(guests, daemon, 'a/net0', 'b/net0');
    await until('frames', async () => (await roundTrips()) > 20);
    const ports = await daemon.ports();
    assert.deepEqual(ports.map(({ port, kind }) => `${kind} ${port}`).toSorted(), [
      'guest a/net0',
      'guest b/net0',
      'switch one/wire',
      'switch one/wire:two',
    ]);
    assert.ok(daemon.countersOf('one/wire').rx_frames > 20);
  });

  test('guests on switches without a wire do not reach each other', async (t) => {
    const { start } = stage(t, `switches: { one: {}, two: {} }\n${GUESTS}`);
    const daemon = await start();
    const guests = await attachAll(t, daemon);
    await ping(guests, daemon, 'a/net0', 'b/net0');
    await until('pings', () => daemon.countersOf('a/net0').tx_frames > 2);
    assert.equal(daemon.countersOf('b/net0').rx_frames, 0);
    assert.ok(daemon.countersOf('a/net0').tx_drop_no_target > 2);
  });

  test('a reload that fails in part does the rest, and can be completed', async (t) => {
    const text = (cards: string): string => `switches: { lan: {} }\nguests: { ${cards} }`;
    const one = (name: string): string =>
      `${name}: { net: [{ method: paravirtual, switch: lan }] }`;
    const { path, write, start } = stage(t, text(one('a')));
    const daemon = await start();
    const obstacle = join(path, 'run/b-net0.sock');
    mkdirSync(obstacle);
    write(text([one('a'), one('b'), one('c')].join(', ')));
    const report = await daemon.reload();
    assert.deepEqual(report.done, ['add port c/net0']);
    assert.equal(report.failed.length, 1);
    assert.match(report.failed[0]?.error ?? '', /b-net0\.sock exists and is not a socket/);
    rmSync(obstacle, { recursive: true });
    assert.deepEqual(await daemon.reload(), { done: ['add port b/net0'], failed: [] });
    assert.deepEqual(
      (await daemon.ports()).map(({ port }) => port),
      ['a/net0', 'c/net0', 'b/net0'],
    );
  });

  test('reloads at once are done one after the other', async (t) => {
    const { write, start } = stage(t, 'switches: { lan: {} }');
    const daemon = await start();
    write(`switches: { lan: {} }\nguests: { a: { net: [{ method: paravirtual, switch: lan }] } }`);
    const reports = await Promise.all([daemon.reload(), daemon.reload(), daemon.reload()]);
    assert.deepEqual(
      reports.map(({ done }) => done),
      [['add port a/net0'], [], []],
    );
  });

  test('a guest that breaks its device is told of as a fault, and harms nobody else', async (t) => {
    const { start } = stage(
      t,
      'switches: { lan: {} }\nguests: { a: { net: [{ method: paravirtual, switch: lan }] }, b: { net: [{ method: paravirtual, switch: lan }] }, bad: { net: [{ method: paravirtual, switch: lan }] } }',
    );
    const daemon = await start();
    const guests = await EmbeddedGuests.start();
    t.after(() => guests[Symbol.asyncDispose]());
    for (const port of ['a/net0', 'b/net0']) {
      const { socket, mac } = cardOf(daemon, port);
      await guests.attach({ name: port, socket, mac });
    }
    const roundTrips = await ping(guests, daemon, 'a/net0', 'b/net0');

    const client = new VhostUserClient(
      new SocketChannel(connectUnix(cardOf(daemon, 'bad/net0').socket)),
    );
    const memory = new TestGuest(Arena.create(2 ** 33));
    const features = client.negotiate(TEST_FEATURES);
    client.setMemoryTable([memory.region]);
    const ring = new TestRing(memory, 1, 64, features);
    ring.start(client);
    ring.queue.add(2 ** 40, 100, false);
    ring.queue.publish();
    await until('the fault', () => daemon.faults.length > 0);

    const [fault] = daemon.faults;
    assert.equal(fault?.port, 'bad/net0');
    assert.match(fault?.reason ?? '', /^the guest broke the device: /);
    const bad = (await daemon.ports()).find(({ port }) => port === 'bad/net0');
    assert.equal(bad?.fault, fault?.reason);
    const before = await roundTrips();
    await until('more frames', async () => (await roundTrips()) > before + 20);
    assert.equal(daemon.lanes()[0]?.device_failures, 0);

    // The guest goes; the next one finds a device that works.
    client.close();
    ring.close();
    memory.close();
    await until('the port to be free', async () => {
      const now = (await daemon.ports()).find(({ port }) => port === 'bad/net0');
      return now?.connected === false && now.fault === null;
    });
  });

  test('the crash of a lane ends the daemon with the reason, and its guests are disconnected', async (t) => {
    const { path, write, start } = stage(
      t,
      'switches: { one: {} }\nguests: { a: { net: [{ method: paravirtual, switch: one }] } }',
    );
    const daemon = await start(new URL(import.meta.url));
    const connection = connectUnix(cardOf(daemon, 'a/net0').socket);
    t.after(() => connection.close());
    write(
      `switches: { one: {}, ${FATAL_SWITCH}: {} }\nguests: { a: { net: [{ method: paravirtual, switch: one }] } }`,
    );
    await daemon.reload();
    const reason = await daemon.ended;
    assert.equal(reason?.message, 'lane 0 crashed: a bug in the lane');
    assert.deepEqual(
      readdirSync(join(path, 'run')).filter((file) => file.endsWith('.sock')),
      [],
    );
    const channel = new SocketChannel(connection);
    assert.equal(channel.receive(new Uint8Array(1)).bytes, -1);
    // The run directory is free for the next one.
    write('switches: { one: {} }');
    await start();
  });

  test('server: connect comes to a socket as soon as a VMM listens there, and again', async (t) => {
    const { start } = stage(
      t,
      'switches: { lan: {} }\nguests: { a: { net: [{ method: paravirtual, switch: lan, server: connect }] } }',
    );
    const daemon = await start();
    const { socket } = cardOf(daemon, 'a/net0');
    for (let round = 0; round < 2; round++) {
      const listener = new UnixListener(socket);
      let connection: UnixConnection | undefined;
      await until('a connection', () => {
        connection ??= listener.accept();
        return connection !== undefined;
      });
      const [port] = await daemon.ports();
      assert.equal(port?.connected, true);
      listener.close();
      connection?.close();
      await until('the end of the connection', async () => {
        const [now] = await daemon.ports();
        return now?.connected === false;
      });
    }
  });

  test('journals of cards that are gone are removed, those of others kept', async (t) => {
    const { path, write, start } = stage(t, 'switches: { one: {}, two: {} }\n'.concat(GUESTS));
    const daemon = await start();
    assert.ok(existsSync(join(path, 'run/a-net0.journal')));
    write('switches: { two: {} }\nguests: { b: { net: [{ method: paravirtual, switch: two }] } }');
    await daemon.reload();
    assert.ok(!existsSync(join(path, 'run/a-net0.journal')));
    assert.ok(existsSync(join(path, 'run/b-net0.journal')));
    await daemon.stop();
    assert.ok(existsSync(join(path, 'run/b-net0.journal')));
  });

  test('what comes and goes leaves no memory of the lane mapped', async (t) => {
    const none = 'switches: {}';
    const some = `switches: { one: { wire: { switch: two } }, two: {} }\n${GUESTS}`;
    const { write, start } = stage(t, none);
    const daemon = await start();
    const mapped = (): number => readFileSync('/proc/self/maps', 'utf8').split('memfd:').length;
    const before = mapped();
    for (let round = 0; round < 3; round++) {
      write(some);
      assert.equal((await daemon.reload()).failed.length, 0);
      assert.ok(mapped() > before);
      write(none);
      assert.equal((await daemon.reload()).failed.length, 0);
    }
    assert.equal(mapped(), before);
  });

  test('a start that fails leaves nothing running, and the directory unlocked', async (t) => {
    const { path, start } = stage(t, 'switches: { one: {}, two: {} }\n'.concat(GUESTS));
    const obstacle = join(path, 'run/b-net0.sock');
    mkdirSync(obstacle, { recursive: true });
    await assert.rejects(start(), {
      code: 'state',
      message: /^add port b\/net0: .*exists and is not a socket/,
    });
    assert.ok(!existsSync(join(path, 'run/a-net0.sock')));
    rmSync(obstacle, { recursive: true });
    await start();
  });
}
