/** Sources, sinks, echoes and pings on emulated cards: their driver against the device model. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import type { E1000Model } from '../../device/e1000/function.ts';
import type { Reach } from '../../device/e1000/testing.ts';
import type { E1000DriverOptions } from '../../driver/e1000/e1000-driver.ts';
import { DEFAULT_NET_WISHES } from '../../driver/virtio-net/negotiation.ts';
import { parseMac } from '../../net/mac.ts';
import { Echo } from './echo.ts';
import { InProcessSwitch } from './in-process.ts';
import { Ping } from './ping.ts';
import type { Role } from './role.ts';
import { InProcessCard } from './testing-card.ts';
import { assertAll, turnUntil } from './testing-roles.ts';
import { Traffic } from './traffic.ts';

const lan = new InProcessSwitch();
const cards: InProcessCard[] = [];

afterEach(() => {
  for (const card of cards.splice(0)) card.release();
  lan.release();
});

const MODELS: readonly E1000Model[] = ['82540', '82574'];

function mac(last: number): Uint8Array {
  return parseMac(`52:54:00:00:00:0${last}`);
}

function add(
  last: number,
  model: E1000Model,
  frame: number,
  { reach, ...more }: Partial<E1000DriverOptions> & { readonly reach?: Reach } = {},
): InProcessCard {
  const mtu = more.mtu ?? 1500;
  const segments = Math.ceil(frame / (mtu - 40));
  const options: E1000DriverOptions = {
    sendBytes: frame,
    sendFrames: Math.max(1, Math.floor(64 / segments)),
    receiveBuffers: 256,
    mtu,
    coalesce: frame > mtu + 14 ? { frame, buffers: 4 } : undefined,
    ...more,
  };
  const card = new InProcessCard(lan, mac(last), model, options, reach);
  cards.push(card);
  return card;
}

function turn(roles: readonly Role[], done: () => boolean): void {
  const devices = (): number => cards.reduce((work, one) => work + one.poll(), lan.poll());
  turnUntil(devices, roles, done);
}

function source(to: number, flow: number, frameBytes: number, frames: number) {
  return { targets: [{ mac: mac(to), flow }], frameBytes, frames };
}

describe('source and sink, both with emulated cards', () => {
  for (const model of MODELS) {
    for (const [reach, frame, mtu, count] of [
      ['mapped', 60, 1500, 2000],
      ['mapped', 1514, 1500, 2000],
      ['mapped', 9014, 9000, 500],
      ['mapped', 8900, 1500, 500],
      ['mapped', 65000, 1500, 200],
      ['pages', 1514, 1500, 500],
      ['remote', 1514, 1500, 200],
      ['pages', 65000, 1500, 50],
    ] as const) {
      it(`${model}, memory ${reach}: ${frame} bytes, MTU ${mtu}`, () => {
        const a = add(1, model, frame, { mtu, reach });
        const b = add(2, model, frame, { mtu, reach });
        const sender = new Traffic(a.context, {}, source(2, 7, frame, count));
        const receiver = new Traffic(b.context, { verifyEvery: 1 }, source(1, 8, 60, 1));
        turn([receiver], () => receiver.counts().sent === 1);
        turn([sender, receiver], () => receiver.counts().received === count);
        assertAll(receiver, count);
        sender.stop();
        turn([sender, receiver], () => sender.drained);
        assert.ok(sender.drained);
        assert.deepEqual(a.memory.faults, []);
        assert.deepEqual(b.memory.faults, []);
      });
    }
  }
});

describe('an emulated card and a virtio-net device on one switch', () => {
  for (const frame of [64, 1514, 65000]) {
    it(`frames of ${frame} bytes go both ways`, () => {
      const card = add(1, '82574', frame);
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
      const one = new Traffic(card.context, { verifyEvery: 1 }, source(2, 1, frame, count));
      const other = new Traffic(virtio, { verifyEvery: 1 }, source(1, 2, frame, count));
      const all = (): boolean =>
        one.counts().received === count && other.counts().received === count;
      turn([one, other], all);
      assertAll(one, count);
      assertAll(other, count);
    });
  }
});

describe('echo and ping', () => {
  for (const model of MODELS) {
    for (const frame of [64, 1514, 20000]) {
      it(`${model}: a frame of ${frame} bytes comes back`, () => {
        const a = add(1, model, frame);
        const b = add(2, model, frame);
        const ping = new Ping(a.context, { mac: mac(2), flow: 3, frameBytes: frame });
        const echo = new Echo(b.context);
        turn([ping, echo], () => ping.counts().roundTrips >= 600);
        const { roundTrips, timeouts, foreign } = ping.counts();
        assert.ok(roundTrips >= 600, `${roundTrips} round trips`);
        // One that comes back after its time, where this process had not the processor, is foreign then.
        assert.equal(foreign, timeouts, 'frames were lost');
      });
    }
  }
});

describe('traps', () => {
  it('are a tail for each burst that is sent, and for each eighth of the ring that is given back', () => {
    const [a, b] = [add(1, '82574', 64), add(2, '82574', 64)];
    const count = 6400;
    const sender = new Traffic(a.context, {}, source(2, 7, 64, count));
    const receiver = new Traffic(b.context, {}, source(1, 8, 64, 1));
    turn([receiver], () => receiver.counts().sent === 1);
    const before = [a.bus.writes, b.bus.writes, a.bus.reads, b.bus.reads] as const;
    turn([sender, receiver], () => receiver.counts().received === count);
    const [sent, given] = [a.bus.writes - before[0], b.bus.writes - before[1]];
    assert.ok(sent >= count / 64 && sent <= count / 32, `${sent} for ${count} frames`);
    assert.ok(given >= count / 64 && given <= count / 32, `${given} for ${count} frames`);
    assert.deepEqual([a.bus.reads, b.bus.reads], [before[2], before[3]], 'nobody waits for a trap');
  });

  for (const [model, interrupts, kind, asked, acknowledged] of [
    ['82574', undefined, 'msix', 1, 0],
    ['82540', undefined, 'msi', 1, 2],
    ['82540', ['intx'], 'intx', 1, 2],
  ] as const) {
    it(`of an interrupt by ${kind}: ${asked + acknowledged}`, () => {
      const frame = 64;
      const b = add(2, model, frame, interrupts === undefined ? {} : { interrupts });
      const a = add(1, '82574', frame);
      const sink = new Traffic(b.context, {}, source(1, 8, frame, 1));
      turn([sink], () => sink.counts().sent === 1);
      const send = (count: number): void => {
        const sender = new Traffic(a.context, {}, source(2, 7, frame, count));
        turn([sender], () => sender.counts().sent === count);
        turn([], () => false);
      };
      const accesses = (): number => b.bus.reads + b.bus.writes;
      // What has come while nobody wanted interrupts comes as one.
      assert.equal(sink.arm(), false);
      sink.disarm();
      sink.arm();
      const calls = b.driver.gate.calls;
      let before = accesses();
      send(1);
      assert.equal(b.driver.gate.calls, calls + 1);
      send(1);
      assert.equal(b.driver.gate.calls, calls + 1, 'once each time that it was asked for');
      sink.disarm();
      assert.equal(accesses() - before, acknowledged);
      turn([sink], () => sink.counts().received === 2);
      before = accesses();
      sink.arm();
      // The buffers of both frames are given back too.
      assert.equal(accesses() - before, asked + 1);
    });
  }
});
