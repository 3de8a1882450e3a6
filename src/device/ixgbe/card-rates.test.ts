/** Rates of virtual functions at their rings: what is too much waits there, and is not lost. */
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { IxgbeCard, type IxgbeCardOptions } from './card.ts';
import { SlotLimit } from './link-limit.ts';
import { TestWire, VF_ENTRIES, VfRig } from './testing-virtual-function.ts';
import type { VfChange } from './vf-policy-settings.ts';

const arena = Arena.create();
const loop = new PollLoop();
const path = createDataPath(arena, loop);
const ends: (() => void)[] = [];
const FAR = '52:54:00:00:99:99';
/** So large that what is owed for a ring of them takes seconds at the rate of the tests. */
const LARGE = 9000;

afterEach(() => {
  for (const end of ends.splice(0).reverse()) end();
});

function macOf(index: number): string {
  return `52:54:00:00:00:0${index}`;
}

function frame(to: string, from: number, length = LARGE): Buffer {
  const bytes = Buffer.alloc(length, from);
  bytes.set([...parseMac(to), ...parseMac(macOf(from)), 0x88, 0xb5]);
  return bytes;
}

function rig(options: Partial<IxgbeCardOptions> = {}) {
  const card = new IxgbeCard({
    name: 'nic0/0',
    path,
    mode: 'sriov',
    port: 0,
    mac: parseMac('52:54:00:00:99:00'),
    link: 'none',
    ...options,
  });
  const wire = new TestWire(arena);
  card.owner = wire;
  ends.push(() => card.close());
  const vf = (index: number, settings: VfChange = {}): VfRig => {
    const made = new VfRig(card.createVf(index, { mac: macOf(index), ...settings }), arena);
    ends.push(() => {
      made.vf.detach();
      card.removeVf(index).close();
    });
    made.start(undefined, 9018);
    return made;
  };
  return { card, wire, vf };
}

/** Sends all that the ring holds, and one more. */
function overspend(from: VfRig, index: number, to: string): void {
  from.send(...new Array(VF_ENTRIES - 1).fill(frame(to, index)));
  assert.ok(from.sent(), 'what comes at once after a pause passes');
  from.send(frame(to, index));
}

test('beyond max_tx_rate frames wait in the ring, and others go on', () => {
  const { card, wire, vf } = rig();
  const [slow, other] = [vf(1, { max_tx_rate: 1 }), vf(2)];
  overspend(slow, 1, FAR);
  assert.ok(!slow.sent());
  assert.equal(wire.take().length, VF_ENTRIES - 1);
  other.send(frame(FAR, 2));
  assert.equal(wire.take().length, 1);
  assert.equal(slow.vf.counters.snapshot().tx_drop_no_target, 0);
  assert.equal(slow.vf.arm(), false, 'the lane may sleep meanwhile');
  card.setVf(1, { max_tx_rate: 0 });
  assert.equal(slow.vf.arm(), true);
  slow.vf.poll();
  assert.equal(wire.take().length, 1, 'it was not lost');
});

test('max_tx_rate holds frames between VFs back, too', () => {
  const { vf } = rig();
  const [slow, other] = [vf(1, { max_tx_rate: 1 }), vf(2)];
  overspend(slow, 1, macOf(2));
  assert.ok(!slow.sent());
  assert.ok(other.received().length > 0);
});

test('a rate that is set again at run time does not forgive what was sent', () => {
  const { card, vf } = rig();
  const slow = vf(1, { max_tx_rate: 1 });
  overspend(slow, 1, FAR);
  card.setVf(1, { max_tx_rate: 1, spoofchk: false });
  slow.vf.poll();
  assert.ok(!slow.sent());
});

test('a VF that takes its doorbell back when it has the turn does not hold the others', () => {
  const clock = new Float64Array(1);
  const slot = new SlotLimit({ clock, readClock: () => undefined });
  const { vf, wire } = rig({ slot });
  const [fickle, other] = [vf(1), vf(2)];
  // What takes a second of the slot.
  slot.sent(4e9);
  fickle.send(frame(FAR, 1));
  other.send(frame(FAR, 2));
  assert.equal(wire.take().length, 0);
  fickle.tx(0, 'TDT', 0);
  clock[0] = 10e9;
  for (let turn = 0; turn < 4; turn++) for (const each of [fickle, other]) each.vf.poll();
  assert.ok(other.sent());
  assert.equal(wire.take().length, 1);
});

test('a VF that was reset, or removed, waits for nothing', () => {
  const { card, vf, wire } = rig({ link: '10G' });
  const [slow, other] = [vf(1, { max_tx_rate: 1 }), vf(2)];
  overspend(slow, 1, FAR);
  slow.start(undefined, 9018);
  wire.take();
  other.send(frame(FAR, 2));
  slow.vf.detach();
  other.send(frame(FAR, 2));
  card.setVf(2, { max_tx_rate: 100 });
  other.vf.poll();
  assert.ok(other.sent());
  assert.equal(wire.take().length, 2);
});
