/** Frames of a wire that are taken in runs: whatever they are, they end up as each of them by itself. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import {
  IXGBE_FCTRL_BROADCAST,
  IXGBE_FCTRL_UNICAST_ALL,
  IXGBE_HLREG0_JUMBO,
  IXGBE_MRQC_IPV4,
  IXGBE_MRQC_IPV4_TCP,
  IXGBE_MRQC_IPV4_UDP,
  IXGBE_MRQC_IPV6,
  IXGBE_MRQC_IPV6_TCP,
  IXGBE_MRQC_IPV6_UDP,
  IXGBE_MRQC_RSS,
} from '../../spec/ixgbe.ts';
import {
  IXGBE_RXD_ERROR_IP,
  IXGBE_RXD_ERROR_L4,
  IXGBE_RXD_IP_CHECKED,
  IXGBE_RXD_L4_CHECKED,
  IXGBE_RXD_UDP_CHECKED,
} from '../../spec/ixgbe-descriptors.ts';
import {
  IXGBE_VF_GORCH,
  IXGBE_VF_GORCL,
  IXGBE_VF_GPRC,
  IXGBE_VF_MPRC,
  IXGBE_VF_PSRTYPE,
} from '../../spec/ixgbe-mailbox.ts';
import { IxgbeCard } from './card.ts';
import { FrameRuns, RUN_BYTES, RUN_LONGEST, RUN_PADDED, RUN_SHORTEST } from './frame-runs.ts';
import { PortRig } from './testing-port.ts';
import { TestWire, VfRig } from './testing-virtual-function.ts';

const arena = Arena.create();
const path = createDataPath(arena, new PollLoop());
const runs = FrameRuns.of(path);
const area = arena.allocate(BATCH * 4096, 'test-frames');
/** The same list twice: only the first is where runs are looked for. */
const near = new Uint8Array(arena.buffer, path.tables.take(), BATCH);
const far = new Uint8Array(BATCH);
for (let i = 0; i < BATCH; i++) {
  near[i] = i;
  far[i] = i;
}
const ends: (() => void)[] = [];

after(() => {
  for (const end of ends.reverse()) end();
});

const OWN = ['52:54:00:00:00:01', '52:54:00:00:00:02'];
const OTHER = '52:54:00:00:99:99';
const ALL = 'ff:ff:ff:ff:ff:ff';
const GROUP = '01:00:5e:00:00:fb';

interface Shape {
  readonly length: number;
  readonly type: number;
  readonly version: number;
  readonly fragment: number;
  readonly protocol: number;
  /** Of the packet, more or less than there are. */
  readonly lie: number;
  readonly ip: 'good' | 'bad';
  readonly transport: 'good' | 'bad' | 'none';
  readonly ports: number;
}

const shape: fc.Arbitrary<Shape> = fc.record({
  length: fc.oneof(
    fc.integer({ min: 60, max: 140 }),
    fc.integer({ min: 14, max: 1600 }),
    fc.constant(1514),
  ),
  type: fc.oneof(
    { weight: 40, arbitrary: fc.constantFrom(0x0800, 0x0800, 0x0800, 0x86dd, 0x86dd, 0x88b5) },
    { weight: 1, arbitrary: fc.constantFrom(0x8100, 0x88a8) },
  ),
  version: fc.constantFrom(0x45, 0x45, 0x45, 0x46, 0x43),
  fragment: fc.constantFrom(0, 0x4000, 0x4000, 0x2000, 0x0001),
  protocol: fc.constantFrom(6, 17, 17, 1, 132),
  lie: fc.constantFrom(0, 0, 0, 0, -1, -7, 1, -2000),
  ip: fc.constantFrom('good', 'good', 'good', 'bad'),
  transport: fc.constantFrom('good', 'good', 'bad', 'none'),
  ports: fc.integer({ min: 0, max: 0xffff }),
});

/** Ones' complement sum of big-endian words. */
function sum(bytes: Buffer, from: number, to: number, start = 0): number {
  let total = start;
  for (let i = from; i < to; i += 2) {
    total += ((bytes[i] as number) << 8) | (i + 1 < to ? (bytes[i + 1] as number) : 0);
  }
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

function build(to: string, what: Shape): Buffer {
  const { length, type, version, fragment, protocol, lie, ip, transport, ports } = what;
  const bytes = Buffer.from(Array.from({ length: Math.max(length, 96) }, (_, i) => i * 31 + ports));
  bytes.set([...parseMac(to), ...parseMac(OTHER)]);
  bytes.writeUInt16BE(type, 12);
  const is4 = type === 0x0800;
  if (is4 || type === 0x86dd) {
    const start = is4 ? 34 : 54;
    const size = Math.max(0, length - start + lie);
    if (is4) {
      bytes[14] = version;
      bytes.writeUInt16BE(Math.max(0, length - 14 + lie), 16);
      bytes.writeUInt16BE(fragment, 20);
      bytes[23] = protocol;
    } else {
      bytes[14] = 0x60;
      bytes.writeUInt16BE(size, 18);
      bytes[20] = protocol;
    }
    bytes.writeUInt16BE(ports, start);
    const field = start + (protocol === 6 ? 16 : 6);
    bytes.writeUInt16BE(0, field);
    if (transport !== 'none') {
      const pseudo = sum(bytes, is4 ? 26 : 22, start, protocol + size);
      const whole = ~sum(bytes, start, Math.min(start + size, length), pseudo) & 0xffff;
      bytes.writeUInt16BE((whole || 0xffff) ^ (transport === 'bad' ? 0x0400 : 0), field);
    }
    if (is4) {
      bytes.writeUInt16BE(0, 24);
      bytes.writeUInt16BE((~sum(bytes, 14, 34) & 0xffff) ^ (ip === 'bad' ? 1 : 0), 24);
    }
  }
  return bytes.subarray(0, length);
}

/** Frames in a burst, as a switch hands it over; `cut` bytes less of each in its slot. */
function fill(frames: readonly Buffer[], cut: number): Burst {
  const { burst } = path;
  burst.clear();
  for (const [i, bytes] of frames.entries()) {
    arena.bytes.set(bytes, area + i * 4096);
    burst.chains.add(area + i * 4096, bytes.length);
  }
  burst.sourceHeaderBytes = 0;
  burst.gather();
  for (const [i, bytes] of frames.entries()) {
    if (bytes.length <= 68) continue;
    burst.headerLength[i] = (burst.headerLength[i] as number) - cut;
    burst.skip[i] = (burst.skip[i] as number) - cut;
  }
  burst.needs.fill(0, 0, frames.length);
  burst.tci.fill(0, 0, frames.length);
  return burst;
}

/** How often each of these was said of a frame that came. */
const said = new Map(
  [
    IXGBE_RXD_ERROR_IP,
    IXGBE_RXD_ERROR_L4,
    IXGBE_RXD_IP_CHECKED,
    IXGBE_RXD_L4_CHECKED,
    IXGBE_RXD_UDP_CHECKED,
  ].map((bit) => [bit, 0]),
);

function note(frames: readonly { readonly status: number }[]): void {
  for (const { status } of frames) {
    for (const [bit, times] of said) if ((status & bit) !== 0) said.set(bit, times + 1);
  }
}

const bursts = fc.record({
  /** One destination for all of them, or one for each. */
  to: fc.oneof(
    fc.constantFrom(...OWN, OTHER, ALL, GROUP).map((mac) => [mac]),
    fc.array(fc.constantFrom(...OWN, OTHER, ALL, GROUP), { minLength: 2, maxLength: 5 }),
  ),
  shapes: fc.array(shape, { minLength: 1, maxLength: 24 }),
  cut: fc.constantFrom(0, 0, 1, 3, 10),
  mode: fc.integer({ min: 0, max: 7 }),
});

test('for virtual functions', () => {
  const card = new IxgbeCard({
    name: 'nic0/0',
    path,
    mode: 'sriov',
    port: 0,
    mac: parseMac('52:54:00:00:99:00'),
  });
  card.owner = new TestWire(arena);
  ends.push(() => card.close());
  const rigs = OWN.map((mac, index) => {
    const fn = card.createVf(index, { mac });
    const rig = new VfRig(fn, arena);
    ends.push(() => {
      fn.detach();
      fn.close();
    });
    rig.start();
    return rig;
  });
  let whole = 0;
  const take = (burst: Burst, list: Uint8Array, count: number): unknown => {
    const of = { ...card.counters.snapshot() };
    const before = rigs.map(({ vf }) => ({ ...vf.counters.snapshot() }));
    const words = rigs.map(({ vf }) => vf.words.slice());
    for (const rig of rigs) {
      for (const queue of [0, 1]) rig.startReceive(queue);
      rig.interrupts();
    }
    card.deliver(burst, list, count, false);
    burst.copies.flush();
    card.flush();
    const port = Object.entries(card.counters.snapshot()).map(
      ([name, value]) => value - of[name as 'rx_frames'],
    );
    const each = rigs.map((rig, i) => {
      const frames = [rig.received(0), rig.received(1)];
      note(frames.flat());
      const counted = Object.entries(rig.vf.counters.snapshot()).map(
        ([name, value]) => value - (before[i]?.[name as 'rx_frames'] ?? 0),
      );
      const registers = [IXGBE_VF_GPRC, IXGBE_VF_GORCL, IXGBE_VF_GORCH, IXGBE_VF_MPRC].map(
        (at) => (rig.vf.words[at / 4] as number) - (words[i]?.[at / 4] ?? 0),
      );
      return { frames, counted, registers, interrupts: rig.interrupts().sort() };
    });
    return { port, each };
  };
  fc.assert(
    fc.property(bursts, ({ to, shapes, cut, mode }) => {
      for (const { set } of rigs.map((rig) => ({ set: rig.set.bind(rig) }))) {
        set(IXGBE_VF_PSRTYPE, (mode & 1) << 29);
      }
      const frames = shapes.map((what, i) => build(to[i % to.length] as string, what));
      const burst = fill(frames, cut);
      if (runs.survey(burst, near, 0, frames.length) === frames.length) whole++;
      const together = take(burst, near, frames.length);
      assert.deepEqual(together, take(burst, far, frames.length));
    }),
    { numRuns: 300 },
  );
  assert.ok(whole > 30, `${whole} bursts in one run`);
  for (const [bit, times] of said) assert.ok(times > 30, `${bit.toString(16)}: ${times}`);
});

test('for a guest that has the port', () => {
  const rig = new PortRig(path, arena, parseMac(OWN[0] as string));
  ends.push(() => {
    rig.pf.detach();
    rig.pf.close();
  });
  rig.start(4);
  for (let word = 0; word < 32; word++) rig.set('RETA', 0x0302_0100, word);
  for (let word = 0; word < 10; word++) rig.set('RSSRK', Math.imul(word + 1, 0x9e37_79b1), word);
  let whole = 0;
  const queues = [0, 1, 2, 3];
  const take = (burst: Burst, list: Uint8Array, count: number): unknown => {
    for (const queue of queues) rig.startReceive(queue);
    const counters = { ...rig.pf.counters.snapshot() };
    const before = rig.pf.words.slice();
    rig.interrupts();
    rig.pf.deliver(burst, list, count, false);
    burst.copies.flush();
    rig.pf.flush();
    const changed: [number, number][] = [];
    for (const [i, value] of rig.pf.words.entries()) {
      if (value !== before[i]) changed.push([i, value - (before[i] as number)]);
    }
    const counted = Object.entries(rig.pf.counters.snapshot()).map(
      ([name, value]) => value - counters[name as 'rx_frames'],
    );
    const frames = queues.map((queue) => rig.received(queue));
    note(frames.flat());
    return { frames, changed, counted, interrupts: rig.interrupts().sort() };
  };
  fc.assert(
    fc.property(bursts, ({ to, shapes, cut, mode }) => {
      rig.set('FCTRL', IXGBE_FCTRL_BROADCAST | ((mode & 1) !== 0 ? IXGBE_FCTRL_UNICAST_ALL : 0));
      const jumbo = (mode & 2) !== 0 ? IXGBE_HLREG0_JUMBO : 0;
      rig.set('HLREG0', (rig.get('HLREG0') & ~IXGBE_HLREG0_JUMBO) | jumbo);
      rig.set('MAXFRS', 9216 << 16);
      const some = IXGBE_MRQC_IPV4_TCP | IXGBE_MRQC_IPV6 | IXGBE_MRQC_IPV6_UDP;
      const rest = IXGBE_MRQC_IPV4 | IXGBE_MRQC_IPV4_UDP | IXGBE_MRQC_IPV6_TCP;
      const hashed = (to.length & 1) !== 0 ? some | rest : some;
      rig.set('MRQC', (mode & 4) !== 0 ? IXGBE_MRQC_RSS | hashed : 0);
      const frames = shapes.map((what, i) => build(to[i % to.length] as string, what));
      const burst = fill(frames, cut);
      if (runs.survey(burst, near, 0, frames.length) === frames.length) whole++;
      const together = take(burst, near, frames.length);
      assert.deepEqual(together, take(burst, far, frames.length));
    }),
    { numRuns: 200 },
  );
  assert.ok(whole > 20, `${whole} bursts in one run`);
});

test('a survey ends at the first frame that differs, and tells of those before it', () => {
  const plain: Shape = {
    length: 100,
    type: 0x88b5,
    version: 0,
    fragment: 0,
    protocol: 0,
    lie: 0,
    ip: 'good',
    transport: 'none',
    ports: 0,
  };
  const lengths = [100, 14, 60, 1514, 61];
  const frames = lengths.map((length) => build(OTHER, { ...plain, length }));
  const end = (other: Buffer): number => {
    const burst = fill([...frames, other, frames[0] as Buffer], 0);
    return runs.survey(burst, near, 0, frames.length + 2);
  };
  assert.equal(end(build(ALL, plain)), 5);
  assert.equal(end(build(OTHER, { ...plain, type: 0x8100 })), 5);
  assert.equal(end(build(OTHER, { ...plain, type: 0x88a8 })), 5);
  assert.equal(end((frames[0] as Buffer).subarray(0, 13)), 5);
  assert.equal(end(build(OTHER, { ...plain, length: 1000 })), 7);
  fill([build(ALL, plain), ...frames], 0);
  assert.ok(runs.arePlain(path.burst, near, 6), 'wherever they go');
  assert.equal(runs.sums[RUN_BYTES], 100 + 1749);
  assert.ok(!runs.arePlain(path.burst, far, 6));
  const burst = fill(frames, 0);
  const at = (burst.headerAt[3] as number) - burst.slotsAt;
  assert.equal(runs.survey(burst, near, 1, 3), 3);
  assert.equal(runs.sums[RUN_BYTES], 74);
  assert.equal(runs.sums[RUN_PADDED], 120);
  assert.equal(runs.sums[RUN_LONGEST], 60);
  assert.equal(runs.sums[RUN_SHORTEST], 14);
  burst.slots8[at + 1] = 1;
  assert.equal(runs.survey(burst, near, 0, 5), 3, 'to be cut');
  assert.ok(!runs.arePlain(burst, near, 5));
  assert.equal(runs.survey(burst, far, 0, 5), 0, 'a list that WebAssembly does not see');
});
