import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MiB } from '../../base/bits.ts';
import { TokenBucket } from '../../base/token-bucket.ts';
import { TestDriver } from '../../driver/e1000/testing.ts';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PortPolicy } from '../../net/policy.ts';
import { Switch } from '../../net/switch.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { E1000 } from './e1000.ts';
import { TestMemory } from './testing.ts';

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);
const lan = new Switch('lan', path);

function card(last: number, txLimit?: TokenBucket): TestDriver {
  const mac = parseMac(`52:54:00:00:00:0${last}`);
  const name = `g${last}`;
  const device = new E1000({
    name,
    model: '82574',
    path,
    mac,
    ...(txLimit === undefined ? {} : { txLimit }),
  });
  device.owner = lan;
  lan.addPort(device, new PortPolicy({}, 0));
  const driver = new TestDriver(device, new TestMemory(arena, 2 * MiB));
  driver.start();
  return driver;
}

function frame(to: number): Buffer {
  const bytes = Buffer.alloc(1000);
  bytes.set([0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5]);
  return bytes;
}

test('with a transmit limit a card leaves in its ring what is beyond, and drops nothing', () => {
  const now = loop.now;
  const a = card(1, new TokenBucket({ rate: 8000, burst: 8 * 2500 }, now));
  const b = card(2);
  for (let i = 0; i < 3; i++) a.send(frame(2));
  a.run();
  // More than the bucket had: the debt is to be paid first.
  assert.equal(b.received().length, 3);
  a.send(frame(2));
  a.send(frame(2));
  assert.equal(a.device.poll(), 0);
  assert.equal(a.get('TDH'), 3);
  assert.equal(a.done(3), false);
  assert.equal(a.device.arm(), false, 'the loop may sleep until the timer');
  loop.now = now + 0.4e9;
  assert.equal(a.device.poll(), 0, '500 bytes of debt take half a second');
  loop.now = now + 0.6e9;
  a.run();
  assert.equal(b.received().length, 2);
  assert.equal(a.done(4), true);
  const { tx_frames: sent } = a.device.counters.snapshot();
  assert.equal(sent, 5);
  a.device.close();
});
