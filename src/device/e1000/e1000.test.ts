/** Frames between two guests with emulated cards on one switch, and to a port that takes offloads. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MiB } from '../../base/bits.ts';
import { TEST_RING, TestDriver } from '../../driver/e1000/testing.ts';
import { Arena } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PortPolicy, type PortPolicyOptions } from '../../net/policy.ts';
import {
  newPortCounters,
  OFFLOAD_CSUM,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  type Port,
} from '../../net/port.ts';
import { Switch } from '../../net/switch.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import {
  BMCR_LOOPBACK,
  CTRL_RST,
  CTRL_VME,
  INT_RXDMT0,
  INT_RXT0,
  INT_TXDW,
  PHY_BMCR,
  RCTL_EN,
  RCTL_LPE,
  RCTL_UPE,
  RCTL_VFE,
  RXCSUM_IPOFLD,
  RXCSUM_TUOFLD,
  RXD_IPCS,
  RXD_IXSM,
  RXD_TCPCS,
  RXD_VP,
  TXC_IPV4,
  TXC_TCP,
  TXD_EOP,
  TXD_EXTENDED,
  TXD_POPTS_IXSM,
  TXD_POPTS_TXSM,
  TXD_RS,
  TXD_TSE,
  TXD_TYPE_DATA,
  TXD_VLE,
} from '../../spec/e1000.ts';
import { E1000 } from './e1000.ts';
import type { E1000Model } from './function.ts';
import { type Reach, TEST_BASE, TestMemory } from './testing.ts';

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);
let serial = 0;

interface Pair {
  readonly a: TestDriver;
  readonly b: TestDriver;
  readonly lan: Switch;
}

function pair(
  model: E1000Model,
  reach: Reach = 'mapped',
  control = RCTL_LPE,
  policy: PortPolicyOptions = {},
): Pair {
  const lan = new Switch(`lan${serial}`, path);
  const make = (last: number): TestDriver => {
    const mac = parseMac(`52:54:00:00:00:0${last}`);
    const device = new E1000({ name: `g${serial++}`, model, path, mac });
    device.owner = lan;
    lan.addPort(device, new PortPolicy(policy, 0));
    const driver = new TestDriver(device, new TestMemory(arena, 2 * MiB));
    driver.memory.reach = reach;
    driver.start(control);
    return driver;
  };
  return { a: make(1), b: make(2), lan };
}

function run({ a, b }: Pair): void {
  for (let i = 0; i < 4; i++) {
    a.run();
    b.run();
  }
}

function frame(length: number, to = 2, from = 1): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 14; i < length; i++) bytes[i] = (i * 31 + length) & 0xff;
  bytes.set([0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, from, 0x88, 0xb5]);
  return bytes;
}

function fold(sum: number): number {
  let rest = sum;
  while (rest > 0xffff) rest = (rest >>> 16) + (rest & 0xffff);
  return rest;
}

function sum(bytes: Buffer): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    total += ((bytes[i] as number) << 8) | (i + 1 < bytes.length ? (bytes[i + 1] as number) : 0);
  }
  return fold(total);
}

/** A TCP segment as a driver hands it over: `lengths` left out for segmentation. */
function tcp(payload: number, v6: boolean, segmented: boolean): Buffer {
  const ip = v6 ? 40 : 20;
  const bytes = frame(14 + ip + 20 + payload);
  bytes.writeUInt16BE(v6 ? 0x86dd : 0x0800, 12);
  bytes.fill(0, 14, 14 + ip + 20);
  const at = 14 + ip;
  if (v6) {
    bytes.set([0x60, 0, 0, 0, 0, 0, 6, 64], 14);
    if (!segmented) bytes.writeUInt16BE(20 + payload, 18);
    bytes[22 + 15] = 1;
    bytes[38 + 15] = 2;
  } else {
    bytes.set([0x45, 0, 0, 0, 0, 7, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 14);
    if (!segmented) bytes.writeUInt16BE(40 + payload, 16);
  }
  bytes.writeUInt32BE(1000, at + 4);
  bytes[at + 12] = 0x50;
  bytes[at + 13] = 0x18;
  const addresses = v6 ? bytes.subarray(22, 54) : bytes.subarray(26, 34);
  bytes.writeUInt16BE(fold(sum(addresses) + 6 + (segmented ? 0 : 20 + payload)), at + 16);
  return bytes;
}

/** IP and TCP checksums of a frame are right. */
function assertChecksums(bytes: Buffer, v6: boolean): void {
  const at = v6 ? 54 : 34;
  const length = (v6 ? bytes.readUInt16BE(18) + 54 : bytes.readUInt16BE(16) + 14) - at;
  if (!v6) assert.equal(sum(bytes.subarray(14, 34)), 0xffff, 'IP checksum');
  const pseudo = sum(v6 ? bytes.subarray(22, 54) : bytes.subarray(26, 34)) + 6 + length;
  assert.equal(fold(sum(bytes.subarray(at, at + length)) + pseudo), 0xffff, 'TCP checksum');
}

function sendOffloaded(driver: TestDriver, bytes: Buffer, v6: boolean, mss: number): void {
  const ip = v6 ? 40 : 20;
  const at = 14 + ip;
  const tse = mss === 0 ? 0 : TXD_TSE;
  driver.context([
    14 | (24 << 8) | ((at - 1) << 16),
    at | ((at + 16) << 8),
    (TXD_EXTENDED | TXC_TCP | (v6 ? 0 : TXC_IPV4) | tse | (bytes.length - at - 20)) >>> 0,
    ((at + 20) << 8) | (mss << 16),
  ]);
  const options = TXD_POPTS_TXSM | (v6 ? 0 : TXD_POPTS_IXSM);
  const command = TXD_EXTENDED | TXD_TYPE_DATA | tse;
  // Headers and payload in descriptors of their own, as Linux's frames often are.
  const header = driver.place(bytes.subarray(0, at + 20));
  const payload = driver.place(bytes.subarray(at + 20), 100);
  driver.descriptor(header, command | (at + 20), options);
  driver.descriptor(payload, command | TXD_EOP | TXD_RS | (bytes.length - at - 20), options);
  driver.kick();
}

/** A neighbour that takes all offloads, and keeps what it gets. */
class Recorder implements Port {
  readonly name = `recorder${serial++}`;
  readonly counters = newPortCounters();
  readonly offloads: number = OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6;
  readonly frames: Buffer[] = [];

  deliver(burst: Burst, frames: Uint8Array, count: number): void {
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      const header = burst.headerAt[slot] as number;
      const length = burst.headerLength[slot] as number;
      const rest = (burst.chains.total[slot] as number) - (burst.skip[slot] as number);
      const at = arena.allocate(length + rest);
      arena.bytes.copyWithin(at, header, header + length);
      burst.copyFromChain(slot, burst.skip[slot] as number, rest, at + length);
      burst.copies.flush();
      this.frames.push(Buffer.from(arena.bytes.slice(at, at + length + rest)));
      arena.unmap(at, length + rest);
    }
  }

  flush(): void {
    // Frames were kept as they were delivered.
  }
}

for (const model of ['82540', '82574'] as const) {
  for (const reach of ['mapped', 'pages', 'remote'] as const) {
    describe(`${model}, memory ${reach}`, () => {
      test('frames of all sizes arrive whole, in order', () => {
        const guests = pair(model, reach, RCTL_LPE | 0x0400_0000);
        const { a, b } = guests;
        run(guests);
        const sizes = [60, 61, 67, 68, 69, 128, 1513, 1514, 2048, 2049, 4000, 9014];
        for (const size of sizes) {
          a.send(frame(size));
          run(guests);
          const got = b.received();
          assert.equal(got.length, 1, `${size} bytes`);
          assert.ok(got[0]?.bytes.equals(frame(size)), `${size} bytes`);
        }
        assert.equal(b.get('GPRC'), sizes.length);
        assert.equal(a.get('GPTC'), sizes.length);
        assert.equal(a.get('GPTC'), 0);
        assert.ok(a.done(0));
        assert.deepEqual(a.memory.faults, []);
        assert.deepEqual(b.memory.faults, []);
      });

      test('octets between the halves of a counter that is read are told with the next', () => {
        const guests = pair(model, reach);
        const { a, b } = guests;
        const send = (size: number): void => {
          a.send(frame(size));
          run(guests);
          assert.equal(b.received().length, 1);
        };
        run(guests);
        send(100);
        for (const [guest, low, high] of [
          [a, 'GOTCL', 'GOTCH'],
          [b, 'GORCL', 'GORCH'],
          [b, 'TORL', 'TORH'],
        ] as const) {
          const before = guest.get(low);
          assert.ok(before >= 104, low);
          send(200);
          assert.equal(guest.get(high), 0);
          assert.equal(guest.get(low), 204, low);
          assert.equal(guest.get(high), 0);
          assert.equal(guest.get(low), 0, low);
          send(100);
          assert.equal(guest.get(high), 0);
          send(100);
          // The upper half alone clears both.
          guest.get(high);
          guest.get(high);
          assert.equal(guest.get(low), 0, low);
        }
      });

      test('segmentation and checksums are done for who cannot', () => {
        for (const v6 of [false, true]) {
          const guests = pair(model, reach, 0x0400_0000);
          const { a, b } = guests;
          b.set('RXCSUM', RXCSUM_IPOFLD | RXCSUM_TUOFLD);
          run(guests);
          const whole = tcp(9000, v6, true);
          sendOffloaded(a, whole, v6, 1440);
          run(guests);
          const got = b.received();
          assert.equal(got.length, 7);
          const at = v6 ? 74 : 54;
          for (const one of got) {
            assertChecksums(one.bytes, v6);
            assert.equal(one.status & RXD_IXSM, 0);
            assert.notEqual(one.status & RXD_TCPCS, 0);
            assert.equal((one.status & RXD_IPCS) !== 0, !v6);
            assert.equal(one.errors, 0);
          }
          const payload = Buffer.concat(got.map((one) => one.bytes.subarray(at)));
          assert.ok(payload.equals(whole.subarray(at)));
          sendOffloaded(a, tcp(700, v6, false), v6, 0);
          run(guests);
          const rest = b.received();
          assert.equal(rest.length, 1);
          for (const one of rest) assertChecksums(one.bytes, v6);
          assert.equal(a.get('TSCTC'), 1);
          assert.equal(a.get('GPTC'), 8);
        }
      });
    });
  }
}

test('a receiver that takes offloads gets metadata and whole headers', () => {
  const { a, lan } = pair('82574');
  const recorder = new Recorder();
  lan.addPort(recorder, new PortPolicy({}, 0));
  sendOffloaded(a, tcp(9000, false, true), false, 1448);
  a.run();
  const [got] = recorder.frames;
  assert.ok(got !== undefined);
  assert.deepEqual([...got.subarray(0, 12)], [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 1, 0]);
  const bytes = got.subarray(12);
  assert.equal(bytes.readUInt16BE(16), 9040);
  assert.equal(sum(bytes.subarray(14, 34)), 0xffff);
  assert.equal(bytes.readUInt16BE(50), fold(sum(bytes.subarray(26, 34)) + 6 + 9020));
});

test('tags are put in and taken off', () => {
  const guests = pair('82540', 'mapped', 0x0400_0000, { trunk: [10] });
  const { a, b } = guests;
  b.set('CTRL', b.get('CTRL') | CTRL_VME);
  a.send(frame(100), TXD_VLE, 0x200a);
  run(guests);
  const [stripped] = b.received();
  assert.ok(stripped?.bytes.equals(frame(100)));
  assert.equal(stripped?.vlan, 0x200a);
  assert.notEqual((stripped?.status ?? 0) & RXD_VP, 0);
  b.set('CTRL', b.get('CTRL') & ~CTRL_VME);
  a.send(frame(100), TXD_VLE, 0x200a);
  run(guests);
  const [got] = b.received();
  assert.ok(got !== undefined);
  assert.equal(got.bytes.length, 104);
  assert.equal(got.bytes.readUInt32BE(12), 0x8100_200a);
  b.set('RCTL', b.get('RCTL') | RCTL_VFE);
  a.send(frame(100), TXD_VLE, 10);
  run(guests);
  assert.deepEqual(b.received(), []);
  b.set('VFTA', 1 << 10);
  a.send(frame(100), TXD_VLE, 10);
  run(guests);
  assert.equal(b.received().length, 1);
});

test('filters by address, table and mode', () => {
  const guests = pair('82540');
  const { a, b } = guests;
  const arrives = (to: readonly number[]): boolean => {
    const bytes = frame(100);
    bytes.set(to);
    a.send(bytes);
    run(guests);
    return b.received().length === 1;
  };
  const multicast = [1, 0, 0x5e, 0, 0, 0xfb];
  assert.ok(arrives([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
  assert.ok(!arrives([0x52, 0x54, 0, 0, 0, 9]));
  b.set('RCTL', b.get('RCTL') | RCTL_UPE);
  assert.ok(arrives([0x52, 0x54, 0, 0, 0, 9]));
  assert.ok(!arrives(multicast));
  const hash = (0xfb00 >>> 4) & 0xfff;
  b.set('MTA', 2 ** (hash & 31), hash >>> 5);
  assert.ok(arrives(multicast));
});

test('long frames need LPE; without buffers frames are missed', () => {
  const guests = pair('82540', 'mapped', 0);
  const { a, b } = guests;
  a.send(frame(1515));
  run(guests);
  assert.deepEqual(b.received(), []);
  assert.equal(b.get('ROC'), 1);
  b.set('IMS', INT_RXDMT0);
  for (let i = 0; i < TEST_RING + 4; i++) {
    a.send(frame(60));
    a.run();
  }
  assert.equal(b.get('MPC'), 5);
  assert.ok(b.line);
  assert.equal(b.received().length, TEST_RING - 1);
  assert.equal(b.device.counters.snapshot().rx_drop_no_buffer, 5);
});

test('interrupts both sides, and delays when asked to', () => {
  const guests = pair('82540');
  const { a, b } = guests;
  a.set('IMS', INT_TXDW);
  b.set('IMS', INT_RXT0);
  b.set('RDTR', 1000);
  a.send(frame(60));
  a.run();
  assert.ok(a.line);
  assert.ok(!b.line);
  loop.now += 1000 * 1024;
  b.device.poll();
  assert.ok(b.line);
});

test('what is sent in loopback comes back', () => {
  const { a } = pair('82540');
  a.setPhy(PHY_BMCR, 0x0140 | BMCR_LOOPBACK);
  const bytes = Buffer.alloc(1024, 0xff);
  a.send(bytes);
  a.run();
  const [got] = a.received();
  assert.ok(got?.bytes.subarray(0, 1024).equals(bytes));
});

test('a frame from nowhere is a fault, and the ring goes on', () => {
  const guests = pair('82574');
  const { a, b } = guests;
  a.descriptor(0x10, TXD_EOP | TXD_RS | 100, 0);
  a.descriptor(2 ** 40, TXD_EOP | TXD_RS | 100, 0);
  a.send(frame(60));
  run(guests);
  assert.equal(a.memory.faults.length, 2);
  assert.ok(a.done(0) && a.done(2));
  assert.equal(b.received().length, 1);
});

test('extended descriptors, and four buffers each (82574)', () => {
  const guests = pair('82574', 'mapped', RCTL_LPE);
  const { a, b } = guests;
  b.set('RCTL', 0);
  b.set('RFCTL', 0x8000);
  b.set('RDH', 0);
  b.set('RDT', 8);
  b.set('RCTL', RCTL_EN | RCTL_LPE | 0x0400_0000);
  a.send(frame(200));
  run(guests);
  const at = b.memory.bytes(b.rx, 16);
  assert.equal(at.readUInt32LE(8) & 3, 3);
  assert.equal(at.readUInt16LE(12), 200);
  // Packet split: 128 bytes, then pages.
  b.set('RCTL', 0);
  const ring = TEST_BASE + 0x8_0000;
  const buffers = TEST_BASE + 0x9_0000;
  for (let i = 0; i < 8; i++) {
    const descriptor = b.memory.bytes(ring + 32 * i, 32).fill(0);
    for (let k = 0; k < 4; k++) {
      descriptor.writeBigUInt64LE(BigInt(buffers + i * 0x8000 + k * 0x1000), 8 * k);
    }
  }
  b.set('RDBAL', ring);
  b.set('PSRCTL', 1 | (4 << 8) | (4 << 16) | (4 << 24));
  b.set('RDH', 0);
  // Eight of them fill 16 units: the tail wraps with the ring.
  b.set('RDLEN', 8 * 32);
  b.set('RDT', 2 * 7);
  b.set('RCTL', RCTL_EN | RCTL_LPE | 0x0400_0400);
  const jumbo = frame(9014);
  a.send(jumbo);
  run(guests);
  assert.equal(b.get('RDH'), 2);
  const split = b.memory.bytes(ring, 32);
  assert.equal(split.readUInt32LE(8) & 3, 3);
  const lengths = [12, 18, 20, 22].map((offset) => split.readUInt16LE(offset));
  assert.deepEqual(lengths, [128, 4096, 4096, 694]);
  const parts = lengths.map((length, k) => b.memory.bytes(buffers + k * 0x1000, length));
  assert.ok(Buffer.concat(parts).equals(jumbo));
});

test('a reset with memory accesses on their way waits for them', () => {
  const guests = pair('82540', 'remote');
  const { a } = guests;
  a.send(frame(60));
  a.device.poll();
  assert.equal(a.device.hold(), false);
  let drained = 0;
  a.device.onDrained = () => drained++;
  a.set('CTRL', CTRL_RST);
  assert.equal(drained, 0);
  a.memory.settle();
  assert.equal(drained, 1);
  assert.equal(a.get('TDH'), 0);
  a.device.detach();
});

test('while it is held, a card begins no DMA', () => {
  const guests = pair('82540');
  const { a, b } = guests;
  a.send(frame(60));
  assert.equal(a.device.hold(), true);
  assert.equal(b.device.hold(), true);
  assert.equal(a.device.poll(), 0);
  a.device.resume();
  run(guests);
  assert.ok(a.done(0));
  assert.deepEqual(b.received(), []);
  b.device.resume();
  a.send(frame(60));
  run(guests);
  assert.equal(b.received().length, 1);
});

test('a frame that its driver has not finished waits', () => {
  const guests = pair('82540');
  const { a, b } = guests;
  const bytes = frame(300);
  a.descriptor(a.place(bytes.subarray(0, 100)), 100, 0);
  a.kick();
  run(guests);
  assert.equal(a.device.arm(), false, 'the loop may sleep');
  a.descriptor(a.place(bytes.subarray(100)), TXD_EOP | TXD_RS | 200, 0);
  a.kick();
  run(guests);
  assert.ok(b.received()[0]?.bytes.subarray(0, 300).equals(bytes));
});
