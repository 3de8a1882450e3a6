import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { DEFAULT_NET_WISHES, type NetWishes } from '../../driver/virtio-net/negotiation.ts';
import type { NetDriverOptions } from '../../driver/virtio-net/net-driver.ts';
import { parseMac } from '../../net/mac.ts';
import { Echo } from './echo.ts';
import { InProcessSwitch } from './in-process.ts';
import { Ping } from './ping.ts';
import type { Role } from './role.ts';
import { Traffic } from './traffic.ts';

const MACS = [1, 2, 3, 4].map((last) => parseMac(`52:54:00:00:00:0${last}`));
const lan = new InProcessSwitch();
afterEach(() => lan.release());

const SIZES: NetDriverOptions = {
  queuePairs: 1,
  queueSize: 256,
  sendBytes: 1514,
  sendFrames: 256,
  receiveBytes: 1536,
  receiveBuffers: 256,
};

function mac(index: number): Uint8Array {
  return MACS[index] as Uint8Array;
}

/** Turns everything until `done` or nothing has moved for a while. */
function turn(roles: readonly Role[], done: () => boolean): void {
  let idle = 0;
  while (!done() && idle < 1000) {
    let work = 0;
    for (const role of roles) work += role.poll();
    work += lan.poll();
    idle = work === 0 ? idle + 1 : 0;
  }
}

const VARIANTS: readonly (readonly [string, Partial<NetWishes>])[] = [
  ['split', {}],
  ['packed', { packed: true }],
  ['split, not in order', { inOrder: false }],
  ['packed, not in order', { packed: true, inOrder: false }],
  ['split, bare', { inOrder: false, eventIdx: false, indirect: false, mergeable: false }],
  ['packed, bare', { packed: true, inOrder: false, eventIdx: false, mergeable: false }],
];

describe('source and sink through a switch', () => {
  for (const [name, wishes] of VARIANTS) {
    for (const [frameBytes, receiveBytes] of [
      [60, 128],
      [64, 1536],
      [1514, 1536],
      [1514, 256],
      [9014, 1536],
      [65000, 2048],
      [65000, 65600],
    ] as const) {
      const whole = receiveBytes >= frameBytes + 12;
      if (!whole && wishes.mergeable === false) continue;
      it(`${name}: ${frameBytes} bytes into buffers of ${receiveBytes}`, () => {
        const all = { ...DEFAULT_NET_WISHES, ...wishes };
        // No more frames on their way than the receiver has buffers for.
        const sendFrames = Math.floor(256 / Math.ceil((frameBytes + 12) / receiveBytes));
        const sizes = { ...SIZES, sendBytes: frameBytes, sendFrames, receiveBytes };
        const mtu = frameBytes === 9014 ? 9000 : 1500;
        const a = lan.add(mac(0), all, sizes, {}, mtu);
        const b = lan.add(mac(1), all, sizes, {}, mtu);
        const count = 3000;
        const source = { targets: [{ mac: mac(1), flow: 7 }], frameBytes, frames: count };
        // One frame from b, so that the switch knows where it is.
        const hello = { targets: [{ mac: mac(0), flow: 8 }], frameBytes: 60, frames: 1 };
        const sender = new Traffic(a.contexts[0] as never, {}, source);
        const receiver = new Traffic(b.contexts[0] as never, { verifyEvery: 1 }, hello);
        turn([receiver], () => receiver.counts().sent === 1);
        turn([sender, receiver], () => receiver.counts().received === count);
        const counts = receiver.counts();
        assert.equal(sender.counts().sent, count);
        assert.deepEqual(sender.counts().sentByFlow, { 7: count });
        assert.equal(counts.received, count);
        assert.equal(counts.receivedBytes, counts.received * frameBytes);
        assert.equal(counts.verified, counts.received);
        assert.deepEqual(
          [counts.missing, counts.corrupt, counts.badMetadata, counts.reordered, counts.duplicates],
          [0, 0, 0, 0, 0],
        );
        sender.stop();
        turn([sender, receiver], () => sender.drained);
        assert.ok(sender.drained);
      });
    }
  }

  it('sees corrupt payloads, wrong metadata, loss and foreign frames', () => {
    const a = lan.add(mac(0), DEFAULT_NET_WISHES, SIZES);
    const b = lan.add(mac(1), DEFAULT_NET_WISHES, SIZES);
    const source = { targets: [{ mac: mac(1), flow: 0 }], frameBytes: 200, frames: 50 };
    const sender = new Traffic(a.contexts[0] as never, {}, source);
    const receiver = new Traffic(b.contexts[0] as never, { verifyEvery: 1 }, undefined);
    const ram = (a.contexts[0] as { ram: { u8: Uint8Array } }).ram.u8;
    const { sendPool } = a.driver.pairs[0] as (typeof a.driver.pairs)[0];
    const frameAt = (index: number): number => sendPool.first + index * sendPool.stride;
    const flip = (at: number): void => {
      ram[at] = (ram[at] as number) ^ 1;
    };
    flip(frameAt(3) + 12 + 199); // the last byte of a payload
    flip(frameAt(4) + 12 + 37); // the destination port
    ram[frameAt(5)] = 1; // needs a checksum, at offset 0: refused by the switch
    turn([sender, receiver], () => receiver.counts().received >= 50);
    const counts = receiver.counts();
    assert.equal(counts.received, 48);
    assert.equal(counts.corrupt, 1);
    assert.equal(counts.foreign, 1);
    assert.equal(counts.missing, 2);
  });

  it('spreads one source over its targets in turn', () => {
    const [a, b, c] = [0, 1, 2].map((i) => lan.add(mac(i), DEFAULT_NET_WISHES, SIZES));
    const targets = [1, 2].map((i) => ({ mac: mac(i), flow: i }));
    const sender = new Traffic(
      a?.contexts[0] as never,
      {},
      { targets, frameBytes: 100, frames: 1001 },
    );
    const sinks = [b, c].map((guest) => new Traffic(guest?.contexts[0] as never, {}, undefined));
    const hello = (guest: typeof b): Role =>
      new Traffic(
        guest?.contexts[0] as never,
        {},
        {
          targets: [{ mac: mac(0), flow: 9 }],
          frameBytes: 60,
          frames: 1,
        },
      );
    turn([hello(b), hello(c)], () => false);
    turn([sender, ...sinks], () => false);
    assert.deepEqual(sender.counts().sentByFlow, { 1: 501, 2: 500 });
    assert.deepEqual(
      sinks.map((sink) => sink.counts().received),
      [501, 500],
    );
    assert.deepEqual(
      sinks.map((sink) => sink.counts().receivedBytesByFlow),
      [{ 1: 50_100 }, { 2: 50_000 }],
    );
  });

  it('a sink tells the bytes of each flow that it got', () => {
    const [a, b, c] = [0, 1, 2].map((i) => lan.add(mac(i), DEFAULT_NET_WISHES, SIZES));
    const senders = [b, c].map(
      (guest, index) =>
        new Traffic(
          guest?.contexts[0] as never,
          {},
          {
            targets: [{ mac: mac(0), flow: 5 + index }],
            frameBytes: 100 + 100 * index,
            frames: 10,
            window: 4,
          },
        ),
    );
    const sink = new Traffic(a?.contexts[0] as never, {}, undefined);
    turn([sink, ...senders], () => sink.counts().received === 20);
    const counts = sink.counts();
    assert.deepEqual(counts.receivedBytesByFlow, { 5: 1000, 6: 2000 });
    assert.equal(counts.receivedBytes, 3000);
  });

  it('a source has no more frames on their way than its window', () => {
    const a = lan.add(mac(0), DEFAULT_NET_WISHES, SIZES);
    const options = { targets: [{ mac: mac(1), flow: 1 }], frameBytes: 100 };
    const { transmit } = a.driver.pairs[0] as (typeof a.driver.pairs)[0];
    for (const [window, expected] of [
      [5, 5],
      [1000, SIZES.sendFrames],
    ] as const) {
      const source = new Traffic(a.contexts[0] as never, {}, { ...options, window });
      // Nobody takes anything out of the ring.
      for (let i = 0; i < 20; i++) source.poll();
      assert.equal(transmit.queue.outstanding, expected);
      source.stop();
      turn([source], () => source.drained);
    }
  });
});

describe('echo and ping', () => {
  it('a ping that waits for the device alone needs no echo', () => {
    const a = lan.add(mac(0), DEFAULT_NET_WISHES, { ...SIZES, sendBytes: 60 });
    const ping = new Ping(a.contexts[0] as never, {
      mac: mac(1),
      flow: 3,
      frameBytes: 60,
      until: 'taken',
    });
    turn([ping], () => ping.counts().roundTrips >= 100);
    const { roundTrips, received, timeouts, latencyUs } = ping.counts();
    assert.deepEqual(
      { roundTrips, received, timeouts },
      { roundTrips: 100, received: 0, timeouts: 0 },
    );
    assert.ok(latencyUs.p50 > 0);
    ping.stop();
    turn([ping], () => ping.drained);
  });

  for (const [name, wishes] of VARIANTS) {
    for (const [frameBytes, receiveBytes] of [
      [60, 1536],
      [1514, 256],
      [65000, 2048],
    ] as const) {
      if (wishes.mergeable === false && receiveBytes < frameBytes + 12) continue;
      it(`${name}: ${frameBytes} bytes, buffers of ${receiveBytes}`, () => {
        const all = { ...DEFAULT_NET_WISHES, ...wishes };
        const sizes = { ...SIZES, sendBytes: frameBytes, receiveBytes };
        const a = lan.add(mac(0), all, sizes);
        const b = lan.add(mac(1), all, sizes);
        const ping = new Ping(a.contexts[0] as never, { mac: mac(1), flow: 3, frameBytes });
        const echo = new Echo(b.contexts[0] as never);
        turn([ping, echo], () => ping.counts().roundTrips >= 1000);
        const counts = ping.counts();
        assert.equal(counts.roundTrips, 1000);
        assert.equal(counts.timeouts, 0);
        assert.equal(counts.foreign, 0);
        assert.ok(counts.latencyUs.p50 > 0 && counts.latencyUs.p99 >= counts.latencyUs.p50);
        // The next ping may be on its way already.
        assert.ok(counts.sent - echo.counts().sent <= 1);
        ping.stop();
        echo.stop();
        turn([ping, echo], () => ping.drained && echo.drained);
        assert.ok(ping.drained && echo.drained);
      });
    }
  }
});
