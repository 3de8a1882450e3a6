/** Sources, sinks, echoes and pings on functions of an 82599: their drivers against the device model. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import type { Reach } from '../../device/e1000/testing.ts';
import type { IxgbeDriverOptions } from '../../driver/ixgbe/plan.ts';
import { DEFAULT_NET_WISHES } from '../../driver/virtio-net/negotiation.ts';
import { parseMac } from '../../net/mac.ts';
import { Echo } from './echo.ts';
import { InProcessSwitch } from './in-process.ts';
import { Ping } from './ping.ts';
import type { Role } from './role.ts';
import { type InProcessFunction, InProcessPort } from './testing-ixgbe.ts';
import { assertAll, turnUntil } from './testing-roles.ts';
import { Traffic } from './traffic.ts';
import { Watch } from './watch.ts';

const lan = new InProcessSwitch();
const ports: InProcessPort[] = [];

afterEach(() => {
  for (const port of ports.splice(0)) port.release();
  lan.release();
});

function mac(last: number): Uint8Array {
  return parseMac(`52:54:00:00:00:0${last}`);
}

function optionsFor(frame: number, more: Partial<IxgbeDriverOptions> = {}): IxgbeDriverOptions {
  const mtu = more.mtu ?? 1500;
  const segments = Math.ceil(frame / (mtu - 40));
  return {
    sendBytes: frame,
    sendFrames: Math.max(1, Math.floor(64 / segments)),
    receiveBuffers: 256,
    mtu,
    pairs: 1,
    coalesce: frame > mtu + 14 ? { frame, buffers: 4 } : undefined,
    ...more,
  };
}

function port(mode: 'direct' | 'sriov', number: number): InProcessPort {
  const made = new InProcessPort(lan, { name: `nic0/${number}`, mode, mac: mac(number) });
  ports.push(made);
  return made;
}

/** Two guests on one network, and the addresses of both. */
type Arrangement = (
  options: IxgbeDriverOptions,
  reach: Reach,
) => readonly [InProcessFunction, InProcessFunction];

const ARRANGEMENTS: Readonly<Record<string, Arrangement>> = {
  'two ports of their own': (options, reach) => [
    port('direct', 1).direct(options, reach),
    port('direct', 2).direct(options, reach),
  ],
  'virtual functions of one port': (options, reach) => {
    const shared = port('sriov', 8);
    return [shared.virtual(0, options, {}, reach), shared.virtual(5, options, {}, reach)];
  },
  'virtual functions of two ports': (options, reach) => [
    port('sriov', 8).virtual(0, options, {}, reach),
    port('sriov', 9).virtual(0, options, {}, reach),
  ],
  'a port and a virtual function': (options, reach) => [
    port('direct', 1).direct(options, reach),
    port('sriov', 8).virtual(3, options, {}, reach),
  ],
};

function turn(roles: readonly Role[], done: () => boolean): void {
  const devices = (): number => ports.reduce((work, one) => work + one.poll(), lan.poll());
  turnUntil(devices, roles, done);
}

function source(to: InProcessFunction, flow: number, frameBytes: number, frames: number) {
  return { targets: [{ mac: to.driver.mac, flow }], frameBytes, frames };
}

for (const [name, arrange] of Object.entries(ARRANGEMENTS)) {
  describe(`source and sink: ${name}`, () => {
    for (const [reach, frame, mtu, count] of [
      ['mapped', 60, 1500, 2000],
      ['mapped', 1514, 1500, 2000],
      ['mapped', 9014, 9000, 500],
      ['mapped', 65000, 1500, 200],
      ['pages', 1514, 1500, 500],
      ['remote', 1514, 1500, 200],
      ['pages', 65000, 1500, 50],
    ] as const) {
      it(`memory ${reach}: ${frame} bytes, MTU ${mtu}`, () => {
        const [a, b] = arrange(optionsFor(frame, { mtu }), reach);
        const sender = new Traffic(a.context, {}, source(b, 7, frame, count));
        const receiver = new Traffic(b.context, { verifyEvery: 1 }, source(a, 8, 60, 1));
        turn([receiver], () => receiver.counts().sent === 1);
        turn([sender, receiver], () => receiver.counts().received === count);
        assertAll(receiver, count);
        sender.stop();
        turn([sender, receiver], () => sender.drained);
        assert.ok(sender.drained);
        assert.deepEqual([...a.memory.faults, ...b.memory.faults], []);
      });
    }
  });
}

describe('a virtual function and a virtio-net device on one network', () => {
  for (const frame of [64, 1514, 65000]) {
    it(`frames of ${frame} bytes go both ways`, () => {
      const card = port('sriov', 8).virtual(1, optionsFor(frame));
      const sizes = {
        queuePairs: 1,
        queueSize: 256,
        sendBytes: frame,
        sendFrames: frame > 1514 ? 2 : 64,
        receiveBytes: frame > 1514 ? 65600 : 1536,
        receiveBuffers: 256,
      };
      const virtio = lan.add(mac(2), DEFAULT_NET_WISHES, sizes).contexts[0];
      assert.ok(virtio !== undefined);
      const count = 200;
      const targets = [{ mac: mac(2), flow: 1 }];
      const one = new Traffic(
        card.context,
        { verifyEvery: 1 },
        { targets, frameBytes: frame, frames: count },
      );
      const other = new Traffic(virtio, { verifyEvery: 1 }, source(card, 2, frame, count));
      const all = (): boolean =>
        one.counts().received === count && other.counts().received === count;
      turn([one, other], all);
      assertAll(one, count);
      assertAll(other, count);
    });
  }
});

describe('echo, ping and watch', () => {
  for (const [name, arrange] of Object.entries(ARRANGEMENTS)) {
    for (const frame of [64, 20000]) {
      it(`${name}: a frame of ${frame} bytes comes back`, () => {
        const [a, b] = arrange(optionsFor(frame), 'mapped');
        const ping = new Ping(a.context, { mac: b.driver.mac, flow: 3, frameBytes: frame });
        const echo = new Echo(b.context);
        turn([ping, echo], () => ping.counts().roundTrips >= 600);
        const { roundTrips, timeouts, foreign } = ping.counts();
        assert.ok(roundTrips >= 600, `${roundTrips} round trips`);
        // One that comes back after its time, where this process had not the processor, is foreign then.
        assert.equal(foreign, timeouts, 'frames were lost');
      });
    }
  }

  it('a guest that watches tells when it found the frame', () => {
    const shared = port('sriov', 8);
    const [a, b] = [shared.virtual(0, optionsFor(64)), shared.virtual(1, optionsFor(64))];
    const options = { mac: b.driver.mac, flow: 5, frameBytes: 64, until: 'found' } as const;
    const ping = new Ping(a.context, options);
    const watch = new Watch(b.context);
    turn([ping, watch], () => ping.counts().roundTrips >= 100);
    assert.ok(ping.counts().roundTrips >= 100);
    assert.ok(watch.counts().received >= 100);
    assert.ok(ping.counts().latencyUs.p50 > 0);
  });
});

describe('several pairs of queues', () => {
  for (const [name, make] of [
    ['of a port', (options: IxgbeDriverOptions) => port('direct', 1).direct(options)],
    [
      'of a virtual function',
      (options: IxgbeDriverOptions) => port('sriov', 8).virtual(2, options),
    ],
  ] as const) {
    it(`${name}: flows are spread over them`, () => {
      const b = make(optionsFor(64, { pairs: 2, sendFrames: 32 }));
      const a = port('direct', 4).direct(optionsFor(64));
      assert.equal(b.contexts.length, 2);
      const flows = Array.from({ length: 16 }, (_, flow) => ({ mac: b.driver.mac, flow }));
      const sender = new Traffic(a.context, {}, { targets: flows, frameBytes: 64, frames: 1600 });
      const sinks = b.contexts.map(
        (context) => new Traffic(context, { verifyEvery: 1 }, undefined),
      );
      const received = (): number[] => sinks.map((sink) => sink.counts().received);
      turn([sender, ...sinks], () => received().reduce((sum, one) => sum + one) === 1600);
      assert.equal(
        received().reduce((sum, one) => sum + one),
        1600,
      );
      for (const [pair, count] of received().entries()) assert.ok(count > 0, `pair ${pair}`);
      for (const sink of sinks) assert.deepEqual(sink.counts().corrupt, 0);
    });
  }
});

describe('traps', () => {
  for (const [name, arrange] of Object.entries(ARRANGEMENTS)) {
    it(`${name}: none for frames, one for each interrupt that is asked for`, () => {
      const [a, b] = arrange(optionsFor(64), 'mapped');
      const sink = new Traffic(b.context, {}, source(a, 8, 64, 1));
      turn([sink], () => sink.counts().sent === 1);
      const accesses = (): number[] => [a, b].map(({ bus }) => bus.reads + bus.writes);
      const before = accesses();
      const sender = new Traffic(a.context, {}, source(b, 7, 64, 6400));
      turn([sender, sink], () => sink.counts().received === 6400);
      assert.equal(sink.counts().received, 6400);
      assert.deepEqual(accesses(), before);
      // What has come while nobody wanted interrupts comes as one.
      sink.arm();
      turn([], () => false);
      assert.equal(b.driver.vectors.calls, 1);
      sink.disarm();
      turn([sink], () => false);
      const asked = accesses()[1] as number;
      sink.arm();
      assert.equal(accesses()[1], asked + 1);
      const calls = b.driver.vectors.calls;
      const more = new Traffic(a.context, {}, source(b, 7, 64, 3));
      turn([more], () => false);
      assert.equal(b.driver.vectors.calls, calls + 1, 'once each time that it was asked for');
      assert.equal(accesses()[1], asked + 1, 'and nothing is acknowledged');
    });
  }
});
