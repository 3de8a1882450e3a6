import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { bitMask, MiB } from '../../base/bits.ts';
import { silentLogger } from '../../base/log.ts';
import { TokenBucket } from '../../base/token-bucket.ts';
import type { AddressSpace, MemoryRange } from '../../memory/address-space.ts';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { createPatch } from '../../net/patch.ts';
import { PortPolicy } from '../../net/policy.ts';
import { rarpAnnouncement } from '../../net/rarp.ts';
import { Switch } from '../../net/switch.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { createDeviceQueue } from '../../ring/create.ts';
import { type DriverQueue, layOutQueue, SegmentList } from '../../ring/driver-queue.ts';
import { PackedDriverQueue } from '../../ring/packed-driver-queue.ts';
import { SplitDriverQueue } from '../../ring/split-driver-queue.ts';
import { VIRTIO_F_VERSION_1 } from '../../spec/virtio.ts';
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from '../../spec/virtio-net.ts';
import { VirtioNet, type VirtioNetOptions } from './virtio-net.ts';

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);

const MODERN = bitMask(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF);
const SEGMENTS = MODERN | bitMask(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4);
const GUEST_BASE = 0x4000_0000;
const MEMORY = 8 * MiB;
const RING = 64;

/** A guest in this process: a device, its rings, and a driver's hand on the other end of them. */
class Guest {
  readonly device: VirtioNet;
  readonly receive: DriverQueue[] = [];
  readonly transmit: DriverQueue[] = [];
  readonly broken: Error[] = [];
  readonly calls: number[] = [];
  readonly headerBytes: number;
  readonly #at = arena.allocate(MEMORY);
  #next = GUEST_BASE;
  /** Where each receive buffer lies, by queue and id. */
  readonly #buffers = new Map<string, { address: number; length: number }>();

  constructor(
    index: number,
    features: bigint,
    options: Partial<VirtioNetOptions> = {},
    packed = false,
  ) {
    const mac = parseMac(`52:54:00:00:00:0${index}`);
    this.device = new VirtioNet({
      name: `g${index}`,
      path,
      mac,
      queuePairs: 1,
      log: silentLogger,
      ...options,
    });
    this.device.onBroken = (reason) => this.broken.push(reason);
    this.device.setDriverFeatures(features);
    this.headerBytes = features === 0n ? 10 : 12;
    const range: MemoryRange = {
      start: GUEST_BASE,
      end: GUEST_BASE + MEMORY,
      delta: this.#at - GUEST_BASE,
      writable: true,
    };
    const memory: AddressSpace = {
      generation: 0,
      logging: false,
      find: (address) => (address >= range.start && address < range.end ? range : undefined),
      markWritten: () => undefined,
    };
    for (let i = 0; i < this.device.maxQueues; i++) {
      const layout = layOutQueue(this.#next, RING, packed);
      this.#next += Math.ceil(layout.bytes / 4096) * 4096;
      const setup = {
        memory: { arena, arenaAddress: this.#at, guestAddress: GUEST_BASE, size: MEMORY },
        layout,
        kick: { signal: () => undefined },
        eventIdx: false,
        indirect: false,
        inOrder: false,
      };
      const driver = packed ? new PackedDriverQueue(setup) : new SplitDriverQueue(setup);
      const start = packed ? 0x8000 : 0;
      const queue = createDeviceQueue({
        arena,
        memory,
        size: RING,
        packed,
        eventIdx: false,
        indirect: false,
        inOrder: false,
        descriptor: layout.descriptor + range.delta,
        driver: layout.driver + range.delta,
        device: layout.device + range.delta,
        direction: this.device.direction(i),
        interrupt: { signal: () => this.calls.push(i) },
        position: { avail: start, used: start },
      });
      this.device.startQueue(i, queue);
      this.device.setQueueEnabled(i, true);
      (i % 2 === 0 ? this.receive : this.transmit).push(driver);
    }
  }

  /** Takes frames back that the driver had sent, as Linux does with what it has not found used. */
  takeBack(count: number, queue = 0): void {
    const { driver } = (this.transmit[queue] as DriverQueue).layout;
    const index = new Uint16Array(arena.buffer, driver - GUEST_BASE + this.#at, 2);
    index[1] = (index[1] as number) - count;
  }

  /** Guest memory that nobody uses yet. */
  take(bytes: number): number {
    const at = this.#next;
    this.#next += Math.ceil(bytes / 64) * 64;
    assert.ok(this.#next <= GUEST_BASE + MEMORY);
    return at;
  }

  write(address: number, bytes: Uint8Array): void {
    arena.bytes.set(bytes, address - GUEST_BASE + this.#at);
  }

  read(address: number, length: number): Buffer {
    const at = address - GUEST_BASE + this.#at;
    return Buffer.from(arena.bytes.slice(at, at + length));
  }

  /** Makes receive buffers of the given sizes available. */
  offer(sizes: readonly number[], queue = 0): void {
    const ring = this.receive[queue] as DriverQueue;
    for (const length of sizes) {
      const address = this.take(length);
      const id = ring.add(address, length, true);
      assert.ok(id >= 0);
      this.#buffers.set(`${queue}:${id}`, { address, length });
    }
    ring.publish();
  }

  /** Sends frames, each in pieces of the given size (0: whole), behind a virtio_net_hdr. */
  send(
    frames: readonly Buffer[],
    piece = 0,
    queue = 0,
    header = Buffer.alloc(this.headerBytes),
  ): void {
    const ring = this.transmit[queue] as DriverQueue;
    for (const frame of frames) {
      const bytes = Buffer.concat([header, frame]);
      const segments = new SegmentList(RING);
      const step = piece === 0 ? bytes.length : piece;
      for (let at = 0; at < bytes.length; at += step) {
        const part = bytes.subarray(at, at + step);
        const address = this.take(part.length);
        this.write(address, part);
        segments.push(address, part.length, false);
      }
      assert.ok(ring.addChain(segments, false) >= 0);
    }
    ring.publish();
  }

  /** Buffers that the device has filled, as the driver finds them. */
  received(queue = 0): Buffer[] {
    const ring = this.receive[queue] as DriverQueue;
    const out: Buffer[] = [];
    for (let count = ring.collectUsed(64); count > 0; count = ring.collectUsed(64)) {
      for (let i = 0; i < count; i++) {
        const buffer = this.#buffers.get(`${queue}:${ring.usedId[i]}`);
        assert.ok(buffer);
        out.push(this.read(buffer.address, ring.usedLength[i] as number));
      }
    }
    return out;
  }
}

function frame(to: number, from: number, bytes: number): Buffer {
  const out = Buffer.alloc(bytes);
  out.set([
    ...parseMac(`52:54:00:00:00:0${to}`),
    ...parseMac(`52:54:00:00:00:0${from}`),
    0x88,
    0xb5,
  ]);
  for (let i = 14; i < bytes; i++) out[i] = (i * 13 + bytes) & 0xff;
  return out;
}

/** Ethernet, IPv4 and TCP without options. */
const TCP_HEADERS = 14 + 20 + 20;

function tcpFrame(to: number, from: number, payload: number): Buffer {
  const out = frame(to, from, TCP_HEADERS + payload);
  out.fill(0, 12, TCP_HEADERS);
  out.writeUInt16BE(0x0800, 12);
  out[14] = 0x45;
  out.writeUInt16BE(40 + payload, 16);
  out[23] = 6;
  out[46] = 0x50;
  return out;
}

/** virtio_net_hdr of a {@link tcpFrame} that is to be cut. */
function segmentHeader(): Buffer<ArrayBuffer> {
  const header = Buffer.alloc(12);
  header.set([VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4]);
  header.writeUInt16LE(TCP_HEADERS, 2);
  header.writeUInt16LE(1448, 4);
  header.writeUInt16LE(34, 6);
  header.writeUInt16LE(16, 8);
  return header;
}

function connect(...guests: readonly Guest[]): Switch {
  const lan = new Switch('lan', path);
  for (const { device } of guests) {
    lan.addPort(device, new PortPolicy({}, 0));
    device.owner = lan;
  }
  return lan;
}

for (const packed of [false, true]) {
  describe(`frames between two guests, ${packed ? 'packed' : 'split'} rings`, () => {
    const pair = (features: [bigint, bigint]): [Guest, Guest] => {
      const guests: [Guest, Guest] = [
        new Guest(1, features[0], {}, packed),
        new Guest(2, features[1], {}, packed),
      ];
      connect(...guests);
      return guests;
    };

    test('arrive whole, whatever pieces they were sent in', () => {
      const [a, b] = pair([MODERN, MODERN]);
      for (const piece of [0, 12, 13, 40, 64, 700]) {
        const sizes = [60, 64, 65, 200, 1514].filter(
          (bytes) => bytes + 12 <= RING * (piece || 2000),
        );
        const sent = sizes.map((bytes) => frame(2, 1, bytes));
        for (const one of sent) {
          b.offer([2048]);
          a.send([one], piece);
          assert.equal(a.device.poll(), 1);
          const [got] = b.received();
          assert.ok(got);
          assert.deepEqual(got.subarray(12), one);
          assert.equal(got.readUInt16LE(10), 1);
          assert.equal((a.transmit[0] as DriverQueue).collectUsed(64), 1);
        }
      }
    });

    test('arrive whole over a wire between two switches, whatever pieces they were sent in', () => {
      const a = new Guest(1, MODERN, {}, packed);
      const b = new Guest(2, MODERN, {}, packed);
      const left = connect(a);
      const right = connect(b);
      const [near, far] = createPatch('wire', 'far', path);
      left.addPort(near, new PortPolicy({}, 0));
      right.addPort(far, new PortPolicy({}, 0));
      near.owner = left;
      far.owner = right;
      for (const piece of [0, 40, 64, 700]) {
        const sent = [frame(2, 1, 60), frame(2, 1, 700)];
        b.offer([2048, 2048]);
        for (const one of sent) {
          a.send([one], piece);
          a.device.poll();
          assert.equal((a.transmit[0] as DriverQueue).collectUsed(64), 1);
        }
        assert.deepEqual(
          b.received().map((got) => got.subarray(12)),
          sent,
        );
      }
      near.close();
      far.close();
    });

    test('spill over mergeable buffers, and num_buffers tells over how many', () => {
      const [a, b] = pair([MODERN, MODERN]);
      b.offer(new Array(40).fill(256));
      const sent = [frame(2, 1, 1000), frame(2, 1, 100), frame(2, 1, 5000)];
      a.send(sent);
      a.device.poll();
      const got = b.received();
      const counts = sent.map((one) => Math.ceil((one.length + 12) / 256));
      assert.equal(
        got.length,
        counts.reduce((x, y) => x + y),
      );
      let at = 0;
      for (const [index, one] of sent.entries()) {
        const pieces = got.slice(at, at + (counts[index] as number));
        at += pieces.length;
        assert.equal((pieces[0] as Buffer).readUInt16LE(10), pieces.length);
        assert.deepEqual(Buffer.concat(pieces).subarray(12), one);
      }
      assert.ok(b.device.counters.snapshot().rx_drop_no_buffer === 0);
    });

    test('are cut for a driver without offloads, whatever pieces they were sent in', () => {
      const [a, b] = pair([MODERN, MODERN]);
      const sent = tcpFrame(2, 1, 5000);
      const header = segmentHeader();
      for (const piece of [0, 300, 1000, 4096]) {
        b.offer(new Array(4).fill(2048));
        a.send([sent], piece, 0, header);
        a.device.poll();
        const got = b.received();
        assert.deepEqual(
          got.map(({ length }) => length - 12 - TCP_HEADERS),
          [1448, 1448, 1448, 656],
        );
        const payload = got.map((segment) => segment.subarray(12 + TCP_HEADERS));
        assert.deepEqual(Buffer.concat(payload), sent.subarray(TCP_HEADERS));
        assert.equal((a.transmit[0] as DriverQueue).collectUsed(64), 1);
      }
    });

    test('of many segments wait for buffers, and nobody overtakes them', () => {
      const [a, b] = pair([MODERN, SEGMENTS]);
      const sent = tcpFrame(2, 1, 5000);
      a.send([sent], 0, 0, segmentHeader());
      a.device.poll();
      a.send([frame(2, 1, 100)]);
      a.device.poll();
      assert.equal((a.transmit[0] as DriverQueue).collectUsed(64), 2, 'the sender has them back');
      assert.equal(b.device.arm(), false);
      b.offer([2048, 2048]);
      assert.equal(b.device.arm(), true, 'buffers are waited for');
      assert.equal(b.device.poll(), 0, 'they are too few');
      assert.equal(b.device.arm(), false);
      b.device.disarm();
      b.offer([2048, 2048]);
      assert.equal(b.device.poll(), 2);
      const got = b.received();
      assert.equal((got[0] as Buffer).readUInt16LE(10), 3);
      assert.equal((got[0] as Buffer)[1], VIRTIO_NET_HDR_GSO_TCPV4);
      assert.deepEqual(Buffer.concat(got.slice(0, 3)).subarray(12), sent);
      assert.deepEqual((got[3] as Buffer).subarray(12), frame(2, 1, 100));
      const { rx_frames, rx_bytes, rx_drop_no_buffer } = b.device.counters.snapshot();
      assert.deepEqual([rx_frames, rx_bytes, rx_drop_no_buffer], [2, sent.length + 100, 0]);
      // None waits any more: those of one segment do not begin to.
      a.send([frame(2, 1, 100)]);
      a.device.poll();
      assert.equal(b.device.counters.snapshot().rx_drop_no_buffer, 1);
    });

    test('that waited when their ring was stopped are lost and counted', () => {
      const [a, b] = pair([MODERN, SEGMENTS]);
      a.send([tcpFrame(2, 1, 5000), tcpFrame(2, 1, 5000)], 0, 0, segmentHeader());
      a.device.poll();
      assert.equal(b.device.counters.snapshot().rx_drop_no_buffer, 0);
      b.device.stopQueue(0);
      assert.equal(b.device.counters.snapshot().rx_drop_no_buffer, 2);
      assert.equal(b.device.poll(), 0);
    });

    test('are dropped and counted when no buffer is there; the next ones pass', () => {
      const [a, b] = pair([MODERN, MODERN]);
      a.send([frame(2, 1, 100), frame(2, 1, 100)]);
      b.offer([2048]);
      a.device.poll();
      assert.equal(b.received().length, 1);
      assert.equal(b.device.counters.snapshot().rx_drop_no_buffer, 1);
      b.offer([2048]);
      a.send([frame(2, 1, 300)]);
      a.device.poll();
      assert.deepEqual(b.received()[0]?.subarray(12), frame(2, 1, 300));
    });

    test('that found too few buffers to spill over pass when more are there', () => {
      const [a, b] = pair([MODERN, MODERN]);
      b.offer([256, 256]);
      a.send([frame(2, 1, 1000)]);
      a.device.poll();
      assert.equal(b.received().length, 0);
      assert.equal(b.device.counters.snapshot().rx_drop_no_buffer, 1);
      b.offer([256, 256]);
      a.send([frame(2, 1, 1000)]);
      a.device.poll();
      const got = b.received();
      assert.equal(got.length, 4);
      assert.deepEqual(Buffer.concat(got).subarray(12), frame(2, 1, 1000));
    });

    test('larger than a buffer that cannot be merged are dropped, the buffer stays', () => {
      const [a, b] = pair([MODERN, bitMask(VIRTIO_F_VERSION_1)]);
      b.offer([256]);
      a.send([frame(2, 1, 1000), frame(2, 1, 100)]);
      a.device.poll();
      assert.deepEqual(
        b.received().map((got) => got.subarray(12)),
        [frame(2, 1, 100)],
      );
      assert.equal(b.device.counters.snapshot().rx_drop_too_big, 1);
    });

    test('need no header of 12 bytes where a legacy driver has 10', () => {
      const [a, b] = pair([0n, MODERN]);
      b.offer([2048]);
      a.offer([2048]);
      a.send([frame(2, 1, 200)], 33);
      a.device.poll();
      assert.deepEqual(b.received()[0]?.subarray(12), frame(2, 1, 200));
      b.send([frame(1, 2, 200)]);
      b.device.poll();
      assert.deepEqual(a.received()[0]?.subarray(10), frame(1, 2, 200));
    });

    test('wrap around the rings many times in order', () => {
      const [a, b] = pair([MODERN, MODERN]);
      for (let round = 0; round < 20; round++) {
        b.offer(new Array(37).fill(128));
        const sent = Array.from({ length: 37 }, (_, i) => frame(2, 1, 60 + ((round + i) % 50)));
        a.send(sent);
        a.device.poll();
        assert.deepEqual(
          b.received().map((got) => got.subarray(12)),
          sent,
        );
        assert.equal((a.transmit[0] as DriverQueue).collectUsed(64), 37);
      }
    });
  });
}

describe('a device', () => {
  test('tells its address, link, queues and MTU in configuration space', () => {
    const { device } = new Guest(3, MODERN, { queuePairs: 2, mtu: 9000 });
    const view = Buffer.from(device.readConfig());
    assert.deepEqual(view.subarray(0, 6), Buffer.from(parseMac('52:54:00:00:00:03')));
    assert.deepEqual(
      [view.readUInt16LE(6), view.readUInt16LE(8), view.readUInt16LE(10)],
      [1, 2, 9000],
    );
    assert.ok((device.features & bitMask(VIRTIO_NET_F_MTU)) !== 0n);
    let changes = 0;
    device.onConfigChange = () => {
      changes++;
    };
    device.setLink(false);
    assert.equal(changes, 1);
    assert.equal(Buffer.from(device.readConfig()).readUInt16LE(6), 0);
  });

  test('whose link is down or whose driver has stopped gets nothing', () => {
    const [a, b] = [new Guest(1, MODERN), new Guest(2, MODERN)];
    connect(a, b);
    b.offer([2048, 2048]);
    b.device.setLink(false);
    a.send([frame(2, 1, 100)]);
    a.device.poll();
    b.device.setLink(true);
    b.device.setQueueEnabled(0, false);
    a.send([frame(2, 1, 100)]);
    a.device.poll();
    assert.equal(b.device.counters.snapshot().rx_drop_link_down, 2);
    assert.equal(b.received().length, 0);
    b.device.setQueueEnabled(0, true);
    a.send([frame(2, 1, 100)]);
    a.device.poll();
    assert.equal(b.received().length, 1);
  });

  test('that its driver broke stops; the others go on', () => {
    const [a, b, c] = [new Guest(1, MODERN), new Guest(2, MODERN), new Guest(3, MODERN)];
    connect(a, b, c);
    const ring = a.transmit[0] as DriverQueue;
    ring.add(GUEST_BASE + MEMORY, 100, false);
    ring.publish();
    assert.equal(a.device.poll(), 0);
    assert.equal(a.broken.length, 1);
    assert.match((a.broken[0] as Error).message, /not in the guest's memory/);
    assert.equal(a.device.poll(), 0);
    c.offer([2048]);
    b.send([frame(3, 2, 100)]);
    b.device.poll();
    assert.equal(c.received().length, 1);
  });

  test('that its driver ends without stopping the rings rests, and is not broken', () => {
    const [a, b] = [new Guest(1, MODERN), new Guest(2, MODERN)];
    connect(a, b);
    a.send([frame(2, 1, 100), frame(2, 1, 100)]);
    assert.equal(a.device.poll(), 2);
    const [, sending] = a.device.queues();
    assert.ok(sending);
    a.takeBack(2);
    assert.equal(a.device.poll(), 0);
    assert.deepEqual(a.broken, []);
    assert.deepEqual(a.device.queues(), [], 'no ring is looked at');
    // The next life.
    a.takeBack(-2);
    a.device.stopQueue(1);
    a.device.startQueue(1, sending.queue);
    a.device.setQueueEnabled(1, true);
    a.send([frame(2, 1, 100)]);
    assert.equal(a.device.poll(), 1);
  });

  test('whose receive ring is broken loses the frame, its sender nothing', () => {
    const [a, b, c] = [new Guest(1, MODERN), new Guest(2, MODERN), new Guest(3, MODERN)];
    connect(a, b, c);
    const ring = b.receive[0] as DriverQueue;
    ring.add(4096, 100, true);
    ring.publish();
    c.offer([2048]);
    a.send([frame(2, 1, 100), frame(3, 1, 100)]);
    assert.equal(a.device.poll(), 2);
    assert.equal(b.broken.length, 1);
    assert.equal(c.received().length, 1);
    assert.equal(a.broken.length, 0);
  });

  for (const method of ['collect', 'publish'] as const) {
    test(`whose own code fails in ${method} ends in its own turn, not in its sender's`, () => {
      const [a, b] = [new Guest(1, MODERN), new Guest(2, MODERN)];
      connect(a, b);
      const [first] = b.device.queues();
      assert.ok(first);
      const failure = new RangeError('a mistake of ours');
      const failing = Object.create(first.queue, {
        [method]: {
          value: () => {
            throw failure;
          },
        },
      }) as typeof first.queue;
      b.device.startQueue(0, failing);
      b.offer([2048]);
      a.send([frame(2, 1, 60)]);
      assert.equal(a.device.poll(), 1);
      assert.equal((a.transmit[0] as DriverQueue).collectUsed(64), 1);
      assert.throws(() => b.device.poll(), failure);
      assert.equal(a.device.poll(), 0);
    });
  }

  test('with a transmit limit sends no more than the bucket lets through', () => {
    const now = loop.now;
    const txLimit = new TokenBucket({ rate: 8000, burst: 8 * 3000 }, now);
    const [a, b] = [new Guest(1, MODERN, { txLimit }), new Guest(2, MODERN)];
    connect(a, b);
    b.offer(new Array(60).fill(2048));
    a.send([frame(2, 1, 1514), frame(2, 1, 1514), frame(2, 1, 1514)]);
    assert.equal(a.device.poll(), 3);
    a.send([frame(2, 1, 1514)]);
    assert.equal(a.device.poll(), 0);
    assert.equal(a.device.arm(), false);
    loop.now = now + 10e9;
    assert.equal(a.device.poll(), 1);
    assert.equal(b.received().length, 4);
  });

  test('with several queues keeps each flow in one of them', () => {
    const [a, b] = [new Guest(1, MODERN), new Guest(2, MODERN, { queuePairs: 4 })];
    connect(a, b);
    for (let q = 0; q < 4; q++) b.offer(new Array(64).fill(512), q);
    const flows = Array.from({ length: 16 }, (_, flow) =>
      Array.from({ length: 4 }, (_unused, n) => {
        const out = frame(2, 1, 100);
        out.set(
          [0x08, 0x00, 0x45, 0, 0, 86, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
          12,
        );
        out.writeUInt16BE(1000 + flow, 34);
        out.writeUInt16BE(53, 36);
        out[60] = n;
        return out;
      }),
    );
    for (let n = 0; n < 4; n++) {
      a.send(flows.map((flow) => flow[n] as Buffer));
      a.device.poll();
      (a.transmit[0] as DriverQueue).collectUsed(64);
    }
    const perQueue = [0, 1, 2, 3].map((q) => b.received(q).map((got) => got.subarray(12)));
    const seen = new Map<number, number>();
    for (const [queue, frames] of perQueue.entries()) {
      const next = new Map<number, number>();
      for (const one of frames) {
        const flow = one.readUInt16BE(34);
        assert.equal(seen.get(flow) ?? queue, queue);
        seen.set(flow, queue);
        assert.equal(one[60], next.get(flow) ?? 0);
        next.set(flow, (one[60] as number) + 1);
      }
    }
    assert.equal(perQueue.flat().length, 64);
    assert.ok(perQueue.filter((frames) => frames.length > 0).length >= 2);
  });

  test('that is stopped gives back the buffers that it read ahead', () => {
    const [a, b] = [new Guest(1, MODERN), new Guest(2, MODERN)];
    connect(a, b);
    b.offer([2048, 2048, 2048]);
    a.send([frame(2, 1, 100)]);
    a.device.poll();
    const running = b.device.queues()[0];
    assert.ok(running);
    b.device.stopQueue(0);
    assert.deepEqual(running.queue.position(), { avail: 1, used: 1 });
  });

  test('offers offloads to senders as its driver negotiated', () => {
    const { device } = new Guest(1, MODERN);
    assert.equal(device.offloads, 0);
    device.setDriverFeatures(MODERN | bitMask(VIRTIO_NET_F_GUEST_CSUM));
    assert.equal(device.offloads, 1);
  });

  test('announces a MAC address, shows the MTU of the VMM, counts kicks and calls', () => {
    const [a, b] = [new Guest(1, MODERN), new Guest(2, MODERN)];
    connect(a, b);
    b.offer([2048]);
    const mac = Uint8Array.from([0x52, 0x54, 0, 1, 2, 3]);
    a.device.announce(mac);
    assert.deepEqual(b.received()[0]?.subarray(12), Buffer.from(rarpAnnouncement(mac)));
    a.device.setMtu(9000);
    assert.equal(new DataView(a.device.readConfig().buffer).getUint16(10, true), 9000);
    a.device.countKick();
    a.device.countCall();
    a.device.countCall();
    const { kicks, calls } = a.device.counters.snapshot();
    assert.deepEqual([kicks, calls], [1, 2]);
  });

  test('injects a frame in its guest’s name', () => {
    const [a, b] = [new Guest(1, MODERN), new Guest(2, MODERN)];
    connect(a, b);
    b.offer([2048]);
    a.device.inject(frame(2, 1, 60));
    assert.deepEqual(b.received()[0]?.subarray(12), frame(2, 1, 60));
  });
});
