import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PortPolicy } from '../../net/policy.ts';
import { newPortCounters, type Port } from '../../net/port.ts';
import { Switch } from '../../net/switch.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import {
  IXGBE_QUEUE_ENABLE,
  IXGBE_RXD_L4_CHECKED,
  IXGBE_RXD_VLAN,
  IXGBE_RXDCTL_VLAN_STRIP,
  IXGBE_TXC_IPV4,
  IXGBE_TXC_L4_TCP,
  IXGBE_TXD_L4_CHECKSUM,
  IXGBE_TXD_SEGMENT,
  IXGBE_TXD_VLAN,
} from '../../spec/ixgbe-descriptors.ts';
import {
  IXGBE_VF_GOTCL,
  IXGBE_VF_GPRC,
  IXGBE_VF_GPTC,
  IXGBE_VF_LINKS,
  IXGBE_VF_MPRC,
  IXGBE_VF_RX_QUEUES,
  IXGBE_VF_SET_LPE,
  IXGBE_VF_SET_MULTICAST,
  IXGBE_VF_SET_VLAN,
  IXGBE_VF_TX_QUEUES,
  IXGBE_VF_UPDATE_XCAST_MODE,
  IXGBE_XCAST_PROMISCUOUS,
} from '../../spec/ixgbe-mailbox.ts';
import { IxgbeCard, type IxgbeCardOptions } from './card.ts';
import { MAILBOX_VECTOR, TestWire, VfRig } from './testing-virtual-function.ts';
import type { VfChange } from './vf-policy-settings.ts';

const arena = Arena.create();
const path = createDataPath(arena, new PollLoop());
const ends: (() => void)[] = [];

afterEach(() => {
  for (const end of ends.splice(0).reverse()) end();
});

const ALL = 'ff:ff:ff:ff:ff:ff';
const FAR = '52:54:00:00:99:99';
const GROUP = '01:00:5e:00:00:fb';
const PORT_MAC = parseMac('52:54:00:00:99:00');

function macOf(index: number): string {
  return `52:54:00:00:00:${index.toString(16).padStart(2, '0')}`;
}

/** A frame of `length` bytes; each byte of the payload tells where it is. */
function frame(to: string, from: string, length = 64, tags: readonly number[] = []): Buffer {
  const head = Buffer.concat([
    parseMac(to),
    parseMac(from),
    ...tags.map((tci) => Buffer.of(0x81, 0, tci >>> 8, tci)),
    Buffer.of(0x88, 0xb5),
  ]);
  const rest = Buffer.from(Array.from({ length: length - head.length }, (_, i) => i * 7));
  return Buffer.concat([head, rest]);
}

function tagged(bytes: Buffer, tci: number): Buffer {
  return Buffer.concat([
    bytes.subarray(0, 12),
    Buffer.of(0x81, 0, tci >>> 8, tci),
    bytes.subarray(12),
  ]);
}

interface Rig {
  readonly card: IxgbeCard;
  readonly wire: TestWire;
  readonly vf: (index: number, settings?: VfChange) => VfRig;
}

/** A port with a wire, and VFs that have started: VF n has the address of {@link macOf}. */
function rig(options: Partial<IxgbeCardOptions> = {}): Rig {
  const card = new IxgbeCard({
    name: 'nic0/0',
    path,
    mode: 'sriov',
    port: 0,
    mac: PORT_MAC,
    link: 'none',
    ...options,
  });
  const wire = new TestWire(arena);
  card.owner = wire;
  ends.push(() => card.close());
  return {
    card,
    wire,
    vf: (index, settings = {}) => {
      const fn = card.createVf(index, { mac: macOf(index), ...settings });
      const made = new VfRig(fn, arena);
      ends.push(() => {
        fn.detach();
        if (card.vfs.has(index)) card.removeVf(index);
        fn.close();
      });
      made.start();
      made.interrupts();
      return made;
    },
  };
}

/** Brings frames to the card from its wire, each in a piece of its own. */
function arrive(card: IxgbeCard, frames: readonly Buffer[], tci = 0): void {
  const { burst } = path;
  const at = arena.allocate(BATCH * 16_384, 'test-frames');
  const list = new Uint8Array(BATCH);
  burst.clear();
  for (const [i, bytes] of frames.entries()) {
    arena.bytes.set(bytes, at + i * 16_384);
    burst.chains.add(at + i * 16_384, bytes.length);
    list[i] = i;
  }
  burst.sourceHeaderBytes = 0;
  burst.gather();
  burst.needs.fill(0, 0, frames.length);
  burst.tci.fill(tci, 0, frames.length);
  card.deliver(burst, list, frames.length, tci !== 0);
  burst.copies.flush();
  card.flush();
  arena.unmap(at, BATCH * 16_384);
}

/** Enough of frames to tell them apart, and whether they are whole. */
const hexes = (frames: readonly Buffer[]): string[] =>
  frames.map((bytes) => {
    const sum = bytes.reduce((total, byte, i) => (total * 31 + byte + i) >>> 0, 7);
    return `${bytes.subarray(0, 22).toString('hex')} ${bytes.length} ${sum}`;
  });
const contents = (frames: readonly { readonly bytes: Buffer }[]): string[] =>
  hexes(frames.map(({ bytes }) => bytes));

test('frames go from VF to VF without the wire, and interrupt once', () => {
  const { vf, wire } = rig();
  const [a, b] = [vf(1), vf(2)];
  const frames = [64, 60, 1514, 300].map((length) => frame(macOf(2), macOf(1), length));
  a.send(...frames);
  assert.deepEqual(contents(b.received()), hexes(frames));
  assert.ok(a.sent());
  assert.deepEqual(b.interrupts(), [0]);
  assert.deepEqual(a.interrupts(), [0]);
  assert.deepEqual(wire.take(), []);
  assert.deepEqual(a.received(), []);
});

test('frames to others go to the wire, and come from it', () => {
  const { card, vf, wire } = rig();
  const [a, b] = [vf(1), vf(2)];
  const there = frame(FAR, macOf(1), 200);
  a.send(there);
  assert.deepEqual(hexes(wire.take()), hexes([there]));
  assert.equal(wire.published, 1);
  const back = [frame(macOf(1), FAR, 99), frame(macOf(2), FAR, 1514), frame(FAR, FAR)];
  arrive(card, back);
  assert.deepEqual(contents(a.received()), hexes([back[0] as Buffer]));
  assert.deepEqual(contents(b.received()), hexes([back[1] as Buffer]));
  const { rx_frames: frames, rx_bytes: bytes } = card.counters.snapshot();
  assert.deepEqual([frames, bytes], [3, 99 + 1514 + 64]);
});

test('a burst of frames to everywhere arrives in order everywhere', () => {
  const { vf, wire } = rig();
  const [a, b, c] = [vf(1), vf(2), vf(40)];
  const to = (mac: string, length: number): Buffer => frame(mac, macOf(1), length);
  const frames = [
    to(macOf(2), 60),
    to(macOf(2), 61),
    to(ALL, 62),
    to(FAR, 63),
    to(macOf(40), 64),
    to(macOf(2), 65),
    to(ALL, 66),
    to(FAR, 67),
  ];
  a.send(...frames);
  const pick = (...indices: number[]): string[] => hexes(indices.map((i) => frames[i] as Buffer));
  assert.deepEqual(contents(b.received()), pick(0, 1, 2, 5, 6));
  assert.deepEqual(contents(c.received()), pick(2, 4, 6));
  assert.deepEqual(hexes(wire.take()), pick(2, 3, 6, 7));
  assert.deepEqual(a.received(), []);
});

test('any frames, sent by any VF, arrive whole where they belong', () => {
  const { vf, wire } = rig();
  const vfs = new Map([1, 2, 33].map((index) => [index, vf(index)]));
  const targets = [macOf(1), macOf(2), macOf(33), ALL, FAR, GROUP];
  const one = fc.tuple(
    fc.constantFrom(1, 2, 33),
    fc.array(fc.tuple(fc.constantFrom(...targets), fc.integer({ min: 60, max: 1514 })), {
      minLength: 1,
      maxLength: 20,
    }),
  );
  fc.assert(
    fc.property(fc.array(one, { maxLength: 4 }), (bursts) => {
      for (const other of vfs.values()) other.received();
      wire.take();
      for (const [from, list] of bursts) {
        const frames = list.map(([to, length]) => ({ to, bytes: frame(to, macOf(from), length) }));
        vfs.get(from)?.send(...frames.map(({ bytes }) => bytes));
        for (const [index, other] of vfs) {
          const expected = frames.filter(
            ({ to }) => index !== from && (to === macOf(index) || to === ALL),
          );
          assert.deepEqual(contents(other.received()), hexes(expected.map(({ bytes }) => bytes)));
        }
        const local = [1, 2, 33].filter((index) => index !== from).map(macOf);
        const out = frames.filter(({ to }) => !local.includes(to));
        assert.deepEqual(hexes(wire.take()), hexes(out.map(({ bytes }) => bytes)));
      }
    }),
    { numRuns: 60 },
  );
});

test('spoofed sources are dropped and counted, unless the check is off', () => {
  const { card, vf, wire } = rig();
  const [a, b] = [vf(1), vf(2)];
  a.send(frame(FAR, macOf(7)), frame(macOf(2), macOf(1)), frame(ALL, macOf(2)));
  assert.deepEqual(contents(b.received()), hexes([frame(macOf(2), macOf(1))]));
  assert.deepEqual(wire.take(), []);
  assert.equal(a.vf.counters.snapshot().tx_drop_spoof, 2);
  card.setVf(1, { spoofchk: false });
  a.send(frame(FAR, macOf(7)));
  assert.equal(wire.take().length, 1);
});

test('a tag of a VLAN that the guest has not asked for is dropped and counted', () => {
  const { card, vf, wire } = rig();
  const a = vf(1);
  const bytes = frame(FAR, macOf(1), 100, [10]);
  a.send(bytes);
  assert.equal(a.vf.counters.snapshot().tx_drop_vlan, 1);
  a.driver.ask(IXGBE_VF_SET_VLAN | 0x1_0000, 10);
  a.send(bytes);
  assert.deepEqual(hexes(wire.take()), hexes([bytes]), 'with its tag');
  card.setVf(1, { spoofchk: false });
  a.send(frame(FAR, macOf(1), 100, [11]));
  assert.equal(wire.take().length, 1);
});

test('guests share a VLAN by tags, in descriptors or in bytes', () => {
  const { card, vf, wire } = rig();
  const [a, b, c] = [vf(1), vf(2), vf(3)];
  for (const one of [a, b]) one.driver.ask(IXGBE_VF_SET_VLAN | 0x1_0000, 10);
  const plain = frame(macOf(2), macOf(1), 100);
  a.sendWith(plain, { command: IXGBE_TXD_VLAN, vlan: 10 | (3 << 13) });
  assert.deepEqual(contents(b.received()), hexes([tagged(plain, 10 | (3 << 13))]));
  b.startReceive(0, IXGBE_RXDCTL_VLAN_STRIP);
  a.send(tagged(plain, 10));
  const [stripped] = b.received();
  assert.deepEqual(stripped?.bytes, plain);
  assert.equal(stripped?.vlan, 10);
  assert.notEqual((stripped?.status ?? 0) & IXGBE_RXD_VLAN, 0);
  a.send(frame(ALL, macOf(1), 64, [10]));
  assert.equal(b.received().length, 1);
  assert.deepEqual(c.received(), []);
  assert.equal(wire.take().length, 1);
  arrive(card, [frame(macOf(2), FAR, 80)], 10);
  assert.equal(b.received()[0]?.vlan, 10, 'the tag that the wire’s switch has taken off');
  arrive(card, [frame(macOf(2), FAR, 80, [10])]);
  assert.equal(b.received()[0]?.vlan, 10, 'a tag in the bytes');
  arrive(card, [frame(macOf(2), FAR, 80)], 11);
  assert.deepEqual(b.received(), []);
});

test('the VLAN of a port is put in and taken out unseen by the guest', () => {
  const { card, vf, wire } = rig();
  const [a, b] = [vf(1, { vlan: 20, qos: 5 }), vf(2, { vlan: 20 })];
  const [trunk, other] = [vf(3), vf(4)];
  trunk.driver.ask(IXGBE_VF_SET_VLAN | 0x1_0000, 20);
  const tci = 20 | (5 << 13);
  const out = frame(FAR, macOf(1), 90);
  a.send(out, out);
  assert.deepEqual(hexes(wire.take()), hexes([tagged(out, tci), tagged(out, tci)]));
  const local = frame(macOf(2), macOf(1), 90);
  a.send(local);
  assert.deepEqual(contents(b.received()), hexes([local]));
  const toTrunk = frame(macOf(3), macOf(1), 90);
  a.send(toTrunk);
  assert.deepEqual(contents(trunk.received()), hexes([tagged(toTrunk, tci)]));
  a.send(frame(macOf(4), macOf(1), 90));
  assert.deepEqual(other.received(), [], 'another network');
  assert.equal(wire.take().length, 1);
  const back = frame(macOf(1), FAR, 70);
  arrive(card, [back], 20);
  arrive(card, [tagged(back, 20)]);
  assert.deepEqual(contents(a.received()), hexes([back, back]));
  arrive(card, [back]);
  assert.deepEqual(a.received(), [], 'without a tag it is of no VLAN');
});

test('a guest’s own tag stays inside the VLAN of its port', () => {
  const { vf, wire } = rig();
  const [a, b] = [vf(1, { vlan: 20 }), vf(2, { vlan: 20 })];
  const inner = frame(macOf(2), macOf(1), 90, [30]);
  a.send(inner);
  assert.deepEqual(contents(b.received()), hexes([inner]));
  const out = frame(FAR, macOf(1), 90, [20]);
  a.send(out);
  assert.deepEqual(hexes(wire.take()), hexes([tagged(out, 20)]));
});

test('a VLAN of the port that comes and goes at run time is obeyed at once', () => {
  const { card, vf, wire } = rig();
  const a = vf(1);
  const bytes = frame(FAR, macOf(1));
  for (const vlan of [0, 7, 9, 0]) {
    card.setVf(1, { vlan });
    a.send(bytes);
    assert.deepEqual(hexes(wire.take()), hexes([vlan === 0 ? bytes : tagged(bytes, vlan)]));
  }
});

test('multicast, broadcast and promiscuous frames reach who wants them', () => {
  const { card, vf } = rig();
  const [a, b, c] = [vf(1), vf(2), vf(3, { trust: true })];
  const group = parseMac(GROUP);
  const hash = ((group[4] as number) >> 4) | ((group[5] as number) << 4);
  b.driver.ask(IXGBE_VF_SET_MULTICAST | 0x1_0000, hash);
  for (const one of [b, c]) one.driver.ask(IXGBE_VF_UPDATE_XCAST_MODE, IXGBE_XCAST_PROMISCUOUS);
  const frames = [frame(GROUP, macOf(1)), frame(FAR, macOf(1)), frame(ALL, macOf(1))];
  a.send(...frames);
  assert.deepEqual(contents(b.received()), hexes([frames[0], frames[2]] as Buffer[]), 'no trust');
  assert.deepEqual(contents(c.received()), hexes(frames));
  assert.equal(b.get(IXGBE_VF_MPRC), 2);
  arrive(card, [frame(macOf(1), FAR)]);
  assert.equal(c.received().length, 1);
});

test('a mirroring rule shows one VF what passes another and the wire', () => {
  const { card, vf } = rig();
  const [a, b, c] = [vf(1), vf(2), vf(3)];
  card.setMirror(0, { pools: [2], downlink: true, to: 3 });
  const frames = [frame(macOf(2), macOf(1)), frame(FAR, macOf(1))];
  a.send(...frames);
  assert.deepEqual(contents(c.received()), hexes(frames));
  assert.equal(b.received().length, 1);
  card.setMirror(0, undefined);
  a.send(...frames);
  assert.deepEqual(c.received(), []);
  assert.throws(() => card.setMirror(4, undefined), /no mirroring rule 4/);
  assert.throws(() => card.setMirror(0, { to: 63 }), /no VF 63/);
});

test('the link of a VF follows port and policy', () => {
  const { card, vf, wire } = rig();
  const [a, b, c] = [vf(1), vf(2, { state: 'enable' }), vf(3, { state: 'enable' })];
  const up = (one: VfRig): boolean => one.get(IXGBE_VF_LINKS) !== 0;
  card.setLink(false);
  assert.deepEqual([up(a), up(b)], [false, true]);
  assert.deepEqual(a.interrupts(), [MAILBOX_VECTOR]);
  a.send(frame(macOf(2), macOf(1)));
  assert.ok(!a.sent(), 'its frames wait');
  b.send(frame(macOf(3), macOf(2)), frame(FAR, macOf(2)));
  assert.equal(c.received().length, 1, 'between VFs that are up, frames go on');
  assert.equal(b.vf.counters.snapshot().tx_drop_no_target, 1);
  arrive(card, [frame(macOf(2), FAR)]);
  assert.deepEqual(b.received(), []);
  assert.equal(card.counters.snapshot().rx_drop_link_down, 1);
  card.setLink(true);
  a.vf.poll();
  assert.ok(a.sent());
  card.setVf(2, { state: 'disable' });
  assert.equal(up(b), false);
  a.send(frame(macOf(2), macOf(1)));
  assert.deepEqual(wire.take(), [], 'it is for a VF that is down');
});

test('frames longer than the guest has asked for are dropped and counted', () => {
  const { card, vf } = rig();
  const [a, b] = [vf(1), vf(2)];
  const frames = [1514, 1515, 3000, 60].map((length) => frame(macOf(2), macOf(1), length));
  a.send(...frames);
  assert.deepEqual(contents(b.received()), hexes([frames[0], frames[3]] as Buffer[]));
  assert.equal(b.vf.counters.snapshot().rx_drop_too_big, 2);
  b.driver.ask(IXGBE_VF_SET_LPE, 9018);
  a.send(...frames, frame(macOf(2), macOf(1), 9014));
  assert.equal(b.received().length, 5);
  b.driver.ask(IXGBE_VF_SET_LPE, 1518);
  arrive(card, [frame(macOf(2), FAR, 1518, [10])]);
  assert.deepEqual(b.received(), [], 'not of this VLAN');
});

/** IPv4 and TCP headers behind Ethernet's; the checksum of TCP is that of the pseudo header. */
function tcpFrame(to: string, from: string, payload: number): Buffer {
  const bytes = Buffer.concat([
    parseMac(to),
    parseMac(from),
    Buffer.of(8, 0),
    Buffer.from('45000000000040004006000010203040a0b0c0d0', 'hex'),
    Buffer.from('1234567800000001000000025018200000000000', 'hex'),
    Buffer.from(Array.from({ length: payload }, (_, i) => i * 3)),
  ]);
  bytes.writeUInt16BE(bytes.length - 14, 16);
  bytes.writeUInt16BE(fold(sum(bytes, 14, 34)) ^ 0xffff, 24);
  bytes.writeUInt16BE(fold(sum(bytes, 26, 34) + 6 + bytes.length - 34), 50);
  return bytes;
}

function sum(bytes: Buffer, from: number, to: number): number {
  let total = 0;
  for (let i = from; i < to; i += 2) {
    total += ((bytes[i] as number) << 8) | (i + 1 < to ? (bytes[i + 1] as number) : 0);
  }
  return total;
}

function fold(value: number): number {
  let folded = value;
  while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
}

/** Whether the checksums of an IPv4 TCP frame are right. */
function isGood(bytes: Buffer): boolean {
  const ip = fold(sum(bytes, 14, 34)) === 0xffff;
  return ip && fold(sum(bytes, 26, bytes.length) + 6 + bytes.length - 34) === 0xffff;
}

const TCP = { types: IXGBE_TXC_IPV4 | IXGBE_TXC_L4_TCP, l4: 20 };

test('a checksum that was left to the card is in the frame that a VF gets', () => {
  const { vf } = rig();
  const [a, b] = [vf(1), vf(2)];
  a.sendWith(tcpFrame(macOf(2), macOf(1), 501), { ...TCP, options: IXGBE_TXD_L4_CHECKSUM });
  const [one] = b.received();
  assert.ok(isGood(one?.bytes ?? Buffer.alloc(60)));
  assert.notEqual((one?.status ?? 0) & IXGBE_RXD_L4_CHECKED, 0, 'and the guest need not look');
  assert.equal(b.vf.counters.snapshot().csum_frames, 1);
});

test('a frame to be cut arrives in segments, a tag of a port’s VLAN or not', () => {
  for (const vlan of [0, 20]) {
    const { vf } = rig();
    const [a, b] = [vf(1, { vlan }), vf(2, { vlan })];
    const whole = tcpFrame(macOf(2), macOf(1), 5000);
    a.sendWith(whole, {
      ...TCP,
      command: IXGBE_TXD_SEGMENT,
      options: IXGBE_TXD_L4_CHECKSUM | 0x100,
      mss: 1448,
      payload: 5000,
    });
    const frames = b.received();
    assert.deepEqual(
      frames.map(({ bytes }) => bytes.length - 54),
      [1448, 1448, 1448, 656],
    );
    for (const { bytes } of frames) assert.ok(isGood(bytes));
    const payload = Buffer.concat(frames.map(({ bytes }) => bytes.subarray(54)));
    assert.deepEqual(payload, whole.subarray(54));
    assert.equal(b.vf.counters.snapshot().gso_segments, 4);
    for (const end of ends.splice(0).reverse()) end();
  }
});

test('frames and octets are counted where ethtool looks for them', () => {
  const { vf } = rig();
  const [a, b] = [vf(1), vf(2)];
  a.send(frame(macOf(2), macOf(1), 100), frame(macOf(2), macOf(1), 200));
  assert.equal(a.get(IXGBE_VF_GPTC), 2);
  assert.equal(a.get(IXGBE_VF_GOTCL), 308);
  assert.equal(a.get(IXGBE_VF_GPTC), 2, 'a read does not clear');
  assert.equal(b.get(IXGBE_VF_GPRC), 2);
  const { tx_frames: tx, tx_bytes: bytes } = a.vf.counters.snapshot();
  assert.deepEqual([tx, bytes], [2, 300]);
  assert.equal(b.vf.counters.snapshot().rx_frames, 2);
  b.start();
  assert.equal(b.get(IXGBE_VF_GPRC), 2, 'nor does a reset');
});

test('queue 1 works although one queue would do', () => {
  const { vf } = rig();
  const [a, b] = [vf(1), vf(2)];
  a.startTransmit(1);
  a.queue(frame(macOf(2), macOf(1)), {}, 1);
  a.kick(1);
  a.vf.poll();
  assert.equal(b.received().length, 1);
  assert.deepEqual(a.interrupts(), [1]);
});

test('a VF without a driver, without a buffer and after its end costs nobody anything', () => {
  const { card, vf, wire } = rig();
  const [a, b, c] = [vf(1), vf(2), vf(3)];
  b.rx(0, 'RXDCTL', 0);
  a.send(frame(macOf(2), macOf(1)), frame(macOf(3), macOf(1)));
  assert.equal(c.received().length, 1);
  assert.equal(b.vf.counters.snapshot().rx_drop_no_buffer, 1);
  b.vf.detach();
  a.send(frame(macOf(2), macOf(1)), frame(ALL, macOf(1)));
  assert.equal(c.received().length, 1);
  assert.equal(b.vf.counters.snapshot().rx_drop_link_down, 2);
  wire.take();
  card.removeVf(2);
  a.send(frame(macOf(2), macOf(1)));
  assert.equal(wire.take().length, 1, 'its address is of the wire now');
  assert.throws(() => card.setVf(2, {}), /no VF 2/);
});

test('VFs that cannot be are refused', () => {
  const { card, vf } = rig();
  vf(1);
  assert.throws(() => card.createVf(1), /a VF 1 already/);
  assert.throws(() => card.createVf(63), /no VF 63.*/);
  assert.throws(() => card.createVf(2, { mac: macOf(1) }), /vf1.*vf2/);
  assert.equal(card.vfs.size, 1, 'nothing is left of it');
  assert.throws(() => rig({ mode: 'direct' }).card.createVf(0), /one guest wholly/);
  assert.throws(() => rig({ queuesPerVf: 4 }).card.createVf(31), /no VF 31/);
});

test('ports of two cards on one switch reach each other, and a third port', () => {
  const lan = new Switch('lan', path);
  const [one, two] = [rig({ name: 'nic0/0' }), rig({ name: 'nic1/0' })];
  const seen: Buffer[] = [];
  const tap = new TestWire(arena);
  const sink: Port = {
    name: 'sink',
    counters: newPortCounters(),
    offloads: 0,
    deliver: (burst: Burst, frames: Uint8Array, count: number) => {
      tap.forward(sink, burst);
      const all = tap.take();
      for (let i = 0; i < count; i++) seen.push(all[frames[i] as number] as Buffer);
    },
    flush: () => undefined,
  };
  for (const port of [one.card, two.card, sink]) lan.addPort(port, new PortPolicy({}, 0));
  for (const { card } of [one, two]) card.owner = lan;
  const [a, b] = [one.vf(1), two.vf(2)];
  const out = frame(ALL, macOf(1), 77);
  a.send(out);
  assert.deepEqual(contents(b.received()), hexes([out]));
  assert.deepEqual(hexes(seen), hexes([out]));
  const back = [frame(macOf(1), macOf(2), 1000), frame(macOf(1), macOf(2), 60)];
  b.send(...back);
  assert.deepEqual(contents(a.received()), hexes(back));
  assert.equal(seen.length, 1, 'the switch has learned');
  assert.deepEqual(b.interrupts(), [0, 0], 'for what came, and what went');
});

test('a reset in the midst of DMA by messages: nothing is written after it, others go on', () => {
  const { vf } = rig();
  const [a, b, c] = [vf(1), vf(2), vf(3)];
  a.memory.reach = 'remote';
  a.send(frame(macOf(2), macOf(1)));
  b.memory.reach = 'remote';
  c.send(frame(macOf(2), macOf(3)));
  assert.deepEqual(b.received(), []);
  for (const one of [a, b]) one.set(0, 0x0400_0000);
  assert.equal(a.get(IXGBE_VF_TX_QUEUES + 0x28) & IXGBE_QUEUE_ENABLE, 0);
  assert.equal(b.get(IXGBE_VF_RX_QUEUES + 0x28) & IXGBE_QUEUE_ENABLE, 0);
  for (const one of [a, b]) one.memory.settle();
  a.vf.poll();
  assert.deepEqual(b.received(), []);
  for (const one of [a, b]) {
    one.memory.reach = 'mapped';
    one.start();
  }
  a.send(frame(macOf(2), macOf(1)));
  assert.equal(b.received().length, 1);
  c.send(frame(macOf(2), macOf(3)));
  assert.equal(b.received().length, 1);
});

test('a function-level reset ends what the guest asked for', () => {
  const { card, vf } = rig();
  const a = vf(1, { trust: true });
  a.driver.ask(IXGBE_VF_SET_VLAN | 0x1_0000, 10);
  a.driver.ask(IXGBE_VF_UPDATE_XCAST_MODE, IXGBE_XCAST_PROMISCUOUS);
  assert.deepEqual(card.describeVf(1).vlans, [10]);
  const express = a.transport.find(0x10);
  a.vf.writeConfig(express + 8, 2, 0x8000);
  const { vlans, mode, api } = card.describeVf(1);
  assert.deepEqual([vlans, mode, api], [[], 'none', undefined]);
  a.transport.enumerate();
  assert.equal(a.get(IXGBE_VF_TX_QUEUES + 0x28), 0);
});
