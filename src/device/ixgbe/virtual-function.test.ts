import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { IXGBE_LINKS_10G, IXGBE_LINKS_UP, IXGBE_STATUS_MASTER_ENABLE } from '../../spec/ixgbe.ts';
import {
  IXGBE_VF_CTRL,
  IXGBE_VF_EIAM,
  IXGBE_VF_EICR,
  IXGBE_VF_EICS,
  IXGBE_VF_EIMC,
  IXGBE_VF_EIMS,
  IXGBE_VF_EITR,
  IXGBE_VF_FRTIMER,
  IXGBE_VF_IVAR,
  IXGBE_VF_IVAR_MISC,
  IXGBE_VF_LINKS,
  IXGBE_VF_MAILBOX,
  IXGBE_VF_MAILBOX_MEMORY,
  IXGBE_VF_PSRTYPE,
  IXGBE_VF_RX_QUEUES,
  IXGBE_VF_STATUS,
  IXGBE_VF_TX_QUEUES,
  IXGBE_VFMAILBOX_RESET_DONE,
  IXGBE_VFMAILBOX_VF_OWNS,
} from '../../spec/ixgbe-mailbox.ts';
import { IxgbeCard } from './card.ts';
import { MAILBOX_VECTOR, VfRig } from './testing-virtual-function.ts';
import type { VirtualFunction } from './virtual-function.ts';

const arena = Arena.create();
const path = createDataPath(arena, new PollLoop());
const ends: (() => void)[] = [];
const RESET = 0x0400_0000;

afterEach(() => {
  for (const end of ends.splice(0).reverse()) end();
});

function macOf(index: number): string {
  return `52:54:00:00:00:0${index}`;
}

/** VFs 1 and 2 of port 1, of which nobody has asked for anything yet. */
function rigs(queues: 2 | 4 = 2): [VfRig, VfRig] {
  const card = new IxgbeCard({
    name: 'nic0/1',
    path,
    mode: 'sriov',
    port: 1,
    mac: parseMac('52:54:00:00:99:00'),
    link: 'none',
    queuesPerVf: queues,
  });
  ends.push(() => card.close());
  const make = (index: number): VfRig => {
    const vf: VirtualFunction = card.createVf(index, { mac: macOf(index) });
    const rig = new VfRig(vf, arena);
    ends.push(() => {
      vf.detach();
      card.removeVf(index).close();
    });
    return rig;
  };
  return [make(1), make(2)];
}

test('is what drivers look for: 8086:10ed with three vectors and 16 KiB of registers', () => {
  const [{ vf }] = rigs();
  assert.equal(vf.readConfig(0, 4), 0x10ed_8086);
  assert.equal(vf.irqs.msix, 3);
  assert.equal(vf.irqs.intx, false);
  assert.equal(vf.bars[0]?.bytes, 0x4000);
  assert.deepEqual(
    vf.bars[0]?.areas.map(({ offset, bytes }) => [offset, bytes]),
    [
      [0x1000, 0x1000],
      [0x2000, 0x1000],
    ],
  );
});

test('status, link and timer are read, and nothing of them is written', () => {
  const [rig] = rigs();
  for (const value of [0, 0xffff_ffff]) {
    for (const register of [IXGBE_VF_STATUS, IXGBE_VF_LINKS, IXGBE_VF_FRTIMER]) {
      rig.set(register, value);
    }
    assert.equal(rig.get(IXGBE_VF_STATUS), (1 << 2) | IXGBE_STATUS_MASTER_ENABLE, 'of port 1');
    assert.equal(rig.get(IXGBE_VF_LINKS), IXGBE_LINKS_UP | IXGBE_LINKS_10G);
    assert.equal(rig.get(IXGBE_VF_FRTIMER), Math.floor(path.loop.now / 1e6) % 2 ** 32);
  }
});

test('registers of queues keep the bits that they have, and end with the last queue', () => {
  const masks: [number, number][] = [
    [IXGBE_VF_RX_QUEUES, 0xffff_ff80],
    [IXGBE_VF_RX_QUEUES + 0x04, 0xffff_ffff],
    [IXGBE_VF_RX_QUEUES + 0x08, 0x000f_ff80],
    [IXGBE_VF_RX_QUEUES + 0x10, 0xffff],
    [IXGBE_VF_RX_QUEUES + 0x18, 0xffff],
    [IXGBE_VF_TX_QUEUES, 0xffff_ff80],
    [IXGBE_VF_TX_QUEUES + 0x08, 0x000f_ff80],
    [IXGBE_VF_TX_QUEUES + 0x18, 0xffff],
  ];
  for (const queues of [2, 4] as const) {
    const [rig] = rigs(queues);
    for (const [offset, mask] of masks) {
      for (let queue = 0; queue < 8; queue++) {
        const register = offset + 0x40 * queue;
        rig.set(register, 0xffff_ffff);
        assert.equal(rig.get(register), queue < queues ? mask : 0, register.toString(16));
      }
    }
    for (const end of ends.splice(0).reverse()) end();
  }
});

test('only aligned words are written, any width is read', () => {
  const [{ vf }] = rigs();
  const at = IXGBE_VF_RX_QUEUES + 4;
  vf.writeBar(0, at, 4, 0x1234_5678);
  vf.writeBar(0, at, 1, 0xff);
  vf.writeBar(0, at + 2, 2, 0xffff);
  assert.equal(vf.readBar(0, at, 4), 0x1234_5678);
  assert.equal(vf.readBar(0, at, 2), 0x5678);
  assert.equal(vf.readBar(0, at + 3, 1), 0x12);
  assert.equal(vf.readBar(0, 0x3ffc, 4), 0);
});

test('the mailbox is where the datasheet has it', () => {
  const [rig] = rigs();
  assert.equal(rig.get(IXGBE_VF_MAILBOX), IXGBE_VFMAILBOX_RESET_DONE);
  rig.set(IXGBE_VF_MAILBOX, IXGBE_VFMAILBOX_VF_OWNS);
  rig.set(IXGBE_VF_MAILBOX_MEMORY + 4 * 15, 0xdead_beef);
  assert.equal(rig.get(IXGBE_VF_MAILBOX_MEMORY + 4 * 15), 0xdead_beef);
  assert.equal(rig.get(IXGBE_VF_MAILBOX), IXGBE_VFMAILBOX_VF_OWNS);
});

test('a reset brings registers to their beginning, and the function to the mailbox’s', () => {
  const [rig] = rigs();
  rig.start();
  assert.notEqual(rig.get(IXGBE_VF_TX_QUEUES + 0x28), 0);
  rig.set(IXGBE_VF_CTRL, RESET);
  assert.equal(rig.get(IXGBE_VF_CTRL), 0, 'it clears itself');
  assert.equal(rig.get(IXGBE_VF_TX_QUEUES + 0x28), 0);
  assert.equal(rig.get(IXGBE_VF_RX_QUEUES + 0x14), 0x402);
  assert.equal(rig.get(IXGBE_VF_EIMS), 0);
  assert.equal(rig.get(IXGBE_VF_IVAR), 0);
});

test('causes, masks and vectors', () => {
  const [rig] = rigs();
  rig.enableInterrupts();
  rig.set(IXGBE_VF_EIMC, 7);
  rig.set(IXGBE_VF_EICS, 5);
  assert.deepEqual(rig.interrupts(), []);
  assert.equal(rig.get(IXGBE_VF_EICR), 5);
  rig.set(IXGBE_VF_EIMS, 3);
  assert.equal(rig.get(IXGBE_VF_EIMS), 3);
  rig.set(IXGBE_VF_EICS, 2);
  assert.deepEqual(rig.interrupts(), [1]);
  rig.set(IXGBE_VF_EIMS, 7);
  rig.set(IXGBE_VF_EIAM, 4);
  rig.set(IXGBE_VF_IVAR_MISC, 0x80 | MAILBOX_VECTOR);
  rig.interrupts();
  rig.driver.begin(8);
  assert.deepEqual(rig.interrupts(), [MAILBOX_VECTOR], 'masked by itself');
  assert.equal(rig.get(IXGBE_VF_EIMS), 3);
});

test('throttles have their bits, and as many as there are vectors', () => {
  const [rig] = rigs();
  for (let vector = 0; vector < 4; vector++) {
    rig.set(IXGBE_VF_EITR + 4 * vector, 0x7fff_ffff);
    assert.equal(rig.get(IXGBE_VF_EITR + 4 * vector), vector < 3 ? 0x01ff_8ff8 : 0);
  }
});

/** A TCP frame over IPv4 of one of many flows: whatever the key is, their hashes differ. */
function flow(index: number): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.set([...parseMac(macOf(2)), ...parseMac(macOf(1)), 0x08, 0x00, 0x45, 0]);
  bytes.writeUInt16BE(50, 16);
  bytes.set([64, 6], 22);
  bytes.writeUInt32BE(Math.imul(index, 0x9e37_79b1) >>> 0, 26);
  bytes.writeUInt32BE(Math.imul(index, 0x85eb_ca77) >>> 0, 30);
  bytes.writeUInt32BE(Math.imul(index, 0xc2b2_ae3d) >>> 0, 34);
  bytes[46] = 0x50;
  return bytes;
}

test('flows are spread over the queues that the VF has asked for, and no others', () => {
  const [a, b] = rigs();
  for (const rig of [a, b]) rig.start();
  b.startReceive(1);
  const flows = Array.from({ length: 40 }, (_, i) => flow(i + 1));
  const counts = (): [number, number] => {
    a.send(...flows);
    return [b.received(0).length, b.received(1).length];
  };
  assert.deepEqual(counts(), [40, 0]);
  b.set(IXGBE_VF_PSRTYPE, 1 << 29);
  const [zero, one] = counts();
  assert.equal(zero + one, 40);
  assert.ok(zero >= 5 && one >= 5, `${zero} and ${one}`);
  const again = counts();
  assert.deepEqual(again, [zero, one], 'a flow stays where it is');
  b.set(IXGBE_VF_PSRTYPE, (7 << 29) >>> 0);
  const [first, second] = counts();
  assert.ok(first + second === 40, 'of two queues more than two cannot be had');
});

test('nothing reaches a function that nobody is attached to', () => {
  const [a, b] = rigs();
  for (const rig of [a, b]) rig.start();
  b.vf.detach();
  assert.equal(b.vf.receiving, false);
  a.send(flow(1));
  assert.equal(b.vf.counters.snapshot().rx_drop_link_down, 1);
  assert.equal(a.vf.poll(), 0);
});
