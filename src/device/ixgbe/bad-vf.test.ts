/** Guests that do to their virtual function what no driver does: others' frames go on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { IXGBE_QUEUE_ENABLE } from '../../spec/ixgbe-descriptors.ts';
import {
  IXGBE_MESSAGE_INFO_SHIFT,
  IXGBE_VF_MAILBOX,
  IXGBE_VF_MAILBOX_MEMORY,
  IXGBE_VF_REGISTER_BYTES,
  IXGBE_VF_RX_QUEUES,
  IXGBE_VF_SET_VLAN,
  IXGBE_VF_TX_QUEUES,
} from '../../spec/ixgbe-mailbox.ts';
import { TEST_BASE } from '../e1000/testing.ts';
import { IxgbeCard } from './card.ts';
import { TestWire, VfRig } from './testing-virtual-function.ts';

const arena = Arena.create();
const path = createDataPath(arena, new PollLoop());
const GUEST_BYTES = 8 * 1024 * 1024;
const FAR = '52:54:00:00:99:99';

function macOf(index: number): string {
  return `52:54:00:00:00:0${index}`;
}

function frame(to: string, from: string): Buffer {
  return Buffer.concat([parseMac(to), parseMac(from), Buffer.alloc(60, 7)]);
}

const card = new IxgbeCard({
  name: 'nic0/0',
  path,
  mode: 'sriov',
  port: 0,
  mac: parseMac('52:54:00:00:99:00'),
  link: 'none',
});
const wire = new TestWire(arena);
card.owner = wire;
const [bad, one, other] = [1, 2, 3].map((index) => {
  const made = new VfRig(card.createVf(index, { mac: macOf(index) }), arena);
  made.start();
  return made;
}) as [VfRig, VfRig, VfRig];

/** The two other guests still reach each other and the wire. */
function othersGoOn(): void {
  one.received();
  other.received();
  wire.take();
  one.send(frame(macOf(3), macOf(2)), frame(FAR, macOf(2)));
  assert.equal(other.received().length, 1);
  assert.equal(wire.take().length, 1);
}

/** Nothing was written outside of the guest's memory, nor read. */
function faultsAreItsOwn(): void {
  for (const rig of [one, other]) assert.deepEqual(rig.memory.faults, []);
}

const queueRegister = fc
  .tuple(
    fc.constantFrom(IXGBE_VF_RX_QUEUES, IXGBE_VF_TX_QUEUES),
    fc.nat(2),
    fc.nat(0xf).map((word) => 4 * word),
  )
  .map(([base, queue, word]) => base + 0x40 * queue + word);
const mailboxWord = fc.nat(15).map((word) => IXGBE_VF_MAILBOX_MEMORY + 4 * word);
const offset = fc.oneof(
  queueRegister,
  queueRegister,
  mailboxWord,
  fc.constant(IXGBE_VF_MAILBOX),
  fc.nat(IXGBE_VF_REGISTER_BYTES - 1),
);
const value = fc.oneof(
  fc.constantFrom(0, 1, 0xffff_ffff, IXGBE_QUEUE_ENABLE, 128, 1024, 4, 0x0400_0000),
  fc.nat(70),
  fc.nat(GUEST_BYTES * 2).map((at) => TEST_BASE + at),
  fc.integer({ min: 0, max: 0xffff_ffff }),
);
const access = fc.oneof(
  fc.record({
    kind: fc.constant('write' as const),
    offset,
    length: fc.constantFrom(1, 2, 4, 4, 4),
    value,
  }),
  fc.record({ kind: fc.constant('read' as const), offset, length: fc.constantFrom(1, 2, 4) }),
  fc.record({ kind: fc.constant('memory' as const), at: fc.nat(0x1000), value }),
  fc.record({ kind: fc.constant('turn' as const) }),
  fc.record({
    kind: fc.constant('reach' as const),
    reach: fc.constantFrom('mapped' as const, 'pages' as const, 'remote' as const),
  }),
);

test('any register, any width, any order', () => {
  fc.assert(
    fc.property(fc.array(access, { maxLength: 120 }), fc.boolean(), (accesses, starts) => {
      if (starts) {
        bad.memory.reach = 'mapped';
        bad.start();
      }
      for (const step of accesses) {
        switch (step.kind) {
          case 'write':
            bad.vf.writeBar(0, step.offset, step.length, step.value % 2 ** (8 * step.length));
            break;
          case 'read':
            assert.ok(bad.vf.readBar(0, step.offset, step.length) >= 0);
            break;
          case 'memory':
            bad.memory.bytes(TEST_BASE + 4 * step.at, 4).writeUInt32LE(step.value);
            break;
          case 'turn':
            bad.vf.poll();
            bad.memory.settle();
            break;
          case 'reach':
            bad.memory.reach = step.reach;
        }
      }
      othersGoOn();
      one.send(frame(macOf(1), macOf(2)));
      bad.memory.settle();
      faultsAreItsOwn();
    }),
    { numRuns: 400 },
  );
});

test('registers of queues that change under the lane’s hands', () => {
  const words = bad.vf.words;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(queueRegister, value, fc.boolean()), { maxLength: 60 }),
      (stores) => {
        bad.memory.reach = 'mapped';
        bad.start();
        for (const [register, stored, turns] of stores) {
          // As a store through the mapped page: no mask, no trap.
          words[register / 4] = stored;
          if (turns) bad.vf.poll();
          one.send(frame(macOf(1), macOf(2)));
        }
        othersGoOn();
        faultsAreItsOwn();
      },
    ),
    { numRuns: 200 },
  );
});

test('a mailbox that is flooded keeps nobody’s words but its own', () => {
  bad.memory.reach = 'mapped';
  bad.start();
  for (let i = 0; i < 50_000; i++) {
    bad.set(IXGBE_VF_MAILBOX_MEMORY, i & 0x1f);
    bad.set(IXGBE_VF_MAILBOX, 1 | (i & 0xfe));
  }
  othersGoOn();
  bad.start();
  one.send(frame(macOf(1), macOf(2)));
  assert.equal(bad.received().length, 1, 'and is of use again after a reset');
});

test('no tag of a VLAN hides behind one of none, or in padding', () => {
  const trunk = new VfRig(card.createVf(9, { mac: macOf(9) }), arena);
  trunk.start();
  trunk.driver.ask(IXGBE_VF_SET_VLAN | (1 << IXGBE_MESSAGE_INFO_SHIFT), 20);
  const tag = (tci: number): Buffer => Buffer.of(0x81, 0, 0, tci);
  const addresses = Buffer.concat([parseMac(macOf(9)), parseMac(macOf(1))]);
  const within = Buffer.alloc(50, 7);
  bad.memory.reach = 'mapped';
  bad.start();
  const before = bad.vf.counters.snapshot();
  bad.send(Buffer.concat([addresses, tag(0), tag(20), within]));
  bad.send(Buffer.concat([addresses, tag(20)]));
  const after = bad.vf.counters.snapshot();
  assert.equal(after.tx_drop_vlan - before.tx_drop_vlan, 1, 'behind a tag without VLAN');
  assert.equal(after.tx_drop_bad_length - before.tx_drop_bad_length, 1, 'a tag, and nothing else');
  bad.send(Buffer.concat([addresses, tag(0), within]));
  assert.equal(trunk.received().length, 1, 'a tag without VLAN by itself may be sent');
  assert.deepEqual(wire.take(), []);
  trunk.vf.detach();
  card.removeVf(9).close();
});

test('VFs that come and go between frames leave nothing behind', () => {
  const before = card.vfs.size;
  for (let round = 0; round < 20; round++) {
    const index = 4 + (round % 59);
    const vf = card.createVf(index, { mac: macOf(9), vlan: round % 2 });
    const rig = new VfRig(vf, arena);
    rig.start();
    one.send(frame(macOf(9), macOf(2)));
    assert.equal(rig.received().length, round % 2 === 0 ? 1 : 0);
    rig.queue(frame(macOf(2), macOf(9)));
    rig.kick();
    vf.detach();
    card.removeVf(index);
    vf.poll();
    vf.close();
  }
  assert.equal(card.vfs.size, before);
  othersGoOn();
});
