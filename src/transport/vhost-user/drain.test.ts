import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { bitMask } from '../../base/bits.ts';
import { loggerTo } from '../../base/log.ts';
import { closeFd } from '../../os/fd.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { UnixListener } from '../../os/unix-socket.ts';
import * as vu from '../../spec/vhost-user.ts';
import { VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED } from '../../spec/virtio.ts';
import { SocketChannel } from '../channel.ts';
import { VhostUserClient } from './client.ts';
import { encodeMessage, encodeRequest } from './codec.ts';
import { VhostUserServer } from './server.ts';
import { Bench, SlowDevice, TEST_FEATURES, TestGuest, TestRing, testArena } from './testing.ts';

const PACKED = bitMask(VIRTIO_F_RING_PACKED);

/** A bench whose device has taken `count` requests from each of its first two rings. */
class DrainBench extends Bench {
  readonly slow: SlowDevice;
  readonly started: TestRing[];

  constructor(features: bigint, count = 2) {
    const slow = new SlowDevice(testArena());
    super({ device: slow });
    this.slow = slow;
    this.started = this.bringUp(features);
    for (const ring of this.started) ring.offer(count);
    slow.poll();
    assert.equal(slow.requests.length, 2 * count);
  }

  /** Sends a message and sees that no answer comes, nor one to what is sent behind it. */
  sendAndWait(request: number, payload: Uint8Array, fds: readonly number[] = []): void {
    this.client.sendRaw(encodeMessage(request, vu.FLAG_NEED_REPLY, payload), fds);
    this.client.sendRaw(encodeMessage(vu.VHOST_USER_GET_FEATURES, 0, new Uint8Array(0)));
    for (let i = 0; i < 3; i++) this.pump();
    assert.equal(this.client.receiveRaw(), undefined);
    assert.ok(this.session.waiting);
  }

  /** The first 8 bytes of the next answer as a number. */
  answer(): number {
    this.pump();
    const payload = this.client.receiveRaw();
    assert.ok(payload !== undefined, 'no answer');
    return Number(new DataView(payload.buffer).getBigUint64(0, true));
  }

  finishAll(index?: number): void {
    const isMine = (at: number): boolean =>
      index === undefined || this.slow.requests[at]?.index === index;
    for (let at = this.slow.requests.length - 1; at >= 0; at--)
      if (isMine(at)) this.slow.finish(at);
  }
}

for (const packed of [false, true]) {
  const features = packed ? TEST_FEATURES | PACKED : TEST_FEATURES;
  describe(`requests in flight and messages, ${packed ? 'packed' : 'split'}`, () => {
    test('test_get_vring_base_waits_for_its_ring_only', () => {
      const bench = new DrainBench(features);
      const [, tx] = bench.started as [TestRing, TestRing];
      const state = encodeRequest({ request: vu.VHOST_USER_GET_VRING_BASE, index: 1, num: 0 });
      bench.sendAndWait(vu.VHOST_USER_GET_VRING_BASE, state);
      tx.offer(3);
      assert.equal(bench.slow.poll(), 0, 'nothing more is taken');
      bench.slow.finish(2);
      bench.pump();
      assert.ok(bench.session.waiting, 'one is in flight still');
      bench.slow.finish(2);
      assert.deepEqual(tx.take(), [0, 0]);
      const base = packed ? (2 | 0x8000) * 0x1_0001 : 2;
      assert.equal(bench.answer(), 1 + base * 2 ** 32);
      assert.equal(bench.answer(), Number(bench.client.offeredFeatures), 'then the next message');
      assert.equal(bench.slow.requests.length, 2, 'the other ring goes on');
      bench.finishAll();
      bench.close();
    });

    const messages = [
      ['reset_device', { request: vu.VHOST_USER_RESET_DEVICE }],
      ['set_status_0', { request: vu.VHOST_USER_SET_STATUS, value: 0n }],
      ['set_features', { request: vu.VHOST_USER_SET_FEATURES, value: bitMask(32) }],
    ] as const;
    for (const [name, message] of messages) {
      test(`test_${name}_waits_for_all`, () => {
        const { request } = message;
        const bench = new DrainBench(features);
        bench.sendAndWait(request, encodeRequest(message));
        bench.finishAll(0);
        bench.pump();
        assert.ok(bench.session.waiting);
        bench.finishAll(1);
        assert.equal(bench.answer(), 0);
        assert.equal(bench.slow.queues.size, 0);
        bench.close();
      });
    }

    test('test_memory_is_not_unmapped_under_a_request', () => {
      const bench = new DrainBench(features);
      const { region } = bench.guest;
      const table = {
        request: vu.VHOST_USER_SET_MEM_TABLE,
        regions: [region],
      } as const;
      bench.sendAndWait(vu.VHOST_USER_SET_MEM_TABLE, encodeRequest(table), [region.fd]);
      const [request] = bench.slow.requests;
      const address = (request as { address: number }).address;
      bench.arena.bytes.fill(0x77, address, address + 100);
      const [rx] = bench.started as [TestRing];
      const seen = rx.buffersAt - bench.guest.guestAddress + bench.guest.arenaAddress;
      assert.equal(bench.arena.bytes[seen], 0x77, 'what is written still reaches the guest');
      rx.offer(4);
      assert.equal(bench.slow.poll(), 0);
      bench.finishAll();
      assert.equal(bench.answer(), 0);
      assert.equal(bench.slow.poll(), 4, 'the rings go on in the new memory');
      bench.finishAll();
      assert.equal(rx.take().length, 6);
      bench.close();
    });

    test('test_a_ring_that_is_moved_or_set_up_again_waits', () => {
      const bench = new DrainBench(features);
      const [, tx] = bench.started as [TestRing, TestRing];
      const { guest, client } = bench;
      const user = {
        descriptor: guest.userAddressOf(tx.layout.descriptor),
        driver: guest.userAddressOf(tx.layout.driver),
        device: guest.userAddressOf(tx.layout.device),
      };
      client.setRingAddress(1, user);
      assert.equal(bench.slow.requests.length, 4, 'the same addresses stop nothing');
      const base = encodeRequest({ request: vu.VHOST_USER_SET_VRING_BASE, index: 1, num: 0 });
      bench.sendAndWait(vu.VHOST_USER_SET_VRING_BASE, base);
      bench.finishAll(1);
      assert.equal(bench.answer(), 0);
      bench.finishAll();
      bench.close();
    });

    test('test_a_message_that_is_refused_ends_the_hold', () => {
      const bench = new DrainBench(features);
      const [, tx] = bench.started as [TestRing, TestRing];
      const unknown = { request: vu.VHOST_USER_SET_FEATURES, value: 1n << 63n } as const;
      bench.sendAndWait(unknown.request, encodeRequest(unknown));
      bench.finishAll();
      assert.equal(bench.answer(), 1);
      tx.offer(1);
      assert.equal(bench.slow.poll(), 1, 'the rings go on');
      bench.finishAll();
      bench.close();
    });

    test('test_a_ring_is_disabled_at_once', () => {
      const bench = new DrainBench(features);
      const [rx] = bench.started as [TestRing];
      bench.client.enableRing(0, false);
      rx.offer(1);
      assert.equal(bench.slow.poll(), 0);
      bench.finishAll();
      assert.equal(rx.take().length, 2, 'what was taken is finished');
      bench.client.enableRing(0, true);
      assert.equal(bench.slow.poll(), 1);
      bench.finishAll();
      bench.close();
    });

    test('test_each_ring_starts_by_itself', () => {
      const bench = new Bench();
      const [rx, tx] = bench.bringUp(features) as [TestRing, TestRing];
      const { region } = bench.guest;
      // Without the first ring's memory.
      const skip = 0x4_0000;
      const part = {
        ...region,
        guestAddress: region.guestAddress + skip,
        userAddress: region.userAddress + skip,
        mmapOffset: skip,
        size: region.size - skip,
      };
      assert.throws(() => bench.client.setMemoryTable([part]), /refused SET_MEM_TABLE/);
      assert.ok(rx.wasTold() && !tx.wasTold());
      assert.deepEqual([...bench.device.queues.keys()], [1]);
      tx.offer(3);
      assert.equal(bench.device.poll(), 3);
      bench.close();
    });

    test('test_requests_in_flight_come_again_after_a_kill', () => {
      const arena = testArena();
      const guest = new TestGuest(arena);
      const connect = (): Bench => new Bench({ device: new SlowDevice(arena) }, guest);
      const first = connect();
      first.client.negotiate(features);
      const area = first.client.getInflight(4, 64);
      const keep = first.client.setInflight.bind(first.client);
      keep(area, area.fd);
      first.client.setMemoryTable([guest.region]);
      const ring = new TestRing(guest, 1, 64, first.client.features);
      ring.start(first.client);
      ring.offer(10);
      const dead = first.device as SlowDevice;
      assert.equal(dead.poll(), 10);
      // The third, seventh and second are done; then the process is gone.
      const taken = dead.requests.map(({ id }) => id);
      const done = [2, 6, 1].map((at) => taken[at] as number);
      for (const id of done) dead.finish(dead.requests.findIndex((one) => one.id === id));
      ring.offer(5);
      first.close();

      const second = connect();
      second.client.negotiate(features);
      second.client.setInflight(area, area.fd);
      second.client.setMemoryTable([guest.region]);
      // QEMU knows of a split ring what it shows, of a packed one where it began.
      ring.start(second.client, packed ? ring.initialBase : 3);
      const device = second.device as SlowDevice;
      // A guest that is paused and goes on before anything is taken up.
      const base = second.client.stopRing(1);
      second.client.setStatus(0);
      second.client.setFeatures(second.client.features);
      ring.start(second.client, base);
      assert.match(second.log.join(), /ring 1 takes 7 requests up again that were in flight/);
      assert.equal(device.poll(), 7);
      assert.deepEqual(
        device.requests.map(({ id }) => id),
        taken.filter((id) => !done.includes(id)),
      );
      assert.equal(device.poll(), 5);
      while (device.requests.length > 0) device.finish(device.requests.length >> 1);
      assert.equal(ring.take().length, 15);
      assert.equal(ring.queue.outstanding, 0);
      // A reset ends the life of the notes: the next ring begins anew.
      second.client.resetDevice();
      second.client.setFeatures(second.client.features);
      const again = new TestRing(guest, 1, 64, second.client.features);
      again.start(second.client);
      again.offer(2);
      assert.equal(device.poll(), 2);
      device.finish();
      device.finish();
      assert.equal(again.take().length, 2);
      second.close();
      for (const one of [ring, again]) one.close();
      closeFd(area.fd);
      guest.close();
    });
  });
}

test('test_a_device_that_tracks_requests_offers_no_in_order', () => {
  const bench = new Bench({ device: new SlowDevice(testArena()) });
  bench.client.negotiate(TEST_FEATURES);
  assert.equal(bench.client.offeredFeatures & bitMask(VIRTIO_F_IN_ORDER), 0n);
  bench.close();
});

test('test_an_in_flight_area_of_the_other_kind_starts_no_ring', () => {
  const bench = new Bench({ device: new SlowDevice(testArena()) });
  const { client, guest } = bench;
  client.negotiate(TEST_FEATURES | PACKED);
  const area = client.getInflight(4, 64);
  client.setInflight(area, area.fd);
  closeFd(area.fd);
  client.setFeatures(client.features & ~PACKED);
  client.setMemoryTable([guest.region]);
  const ring = new TestRing(guest, 0, 64, client.features);
  assert.throws(() => ring.start(client), /refused SET_VRING_KICK/);
  assert.match(bench.log.join(), /the in-flight area is not made for that/);
  ring.close();
  bench.close();
});

test('test_a_resize_reaches_the_guest', () => {
  const bench = new Bench();
  const { client, device } = bench;
  client.negotiate(TEST_FEATURES);
  device.config[0] = 77;
  device.onConfigChange?.();
  assert.equal(client.serveBackEnd(), 1);
  assert.equal(bench.configChanges, 1);
  const config = client.getConfig(0, vu.MAX_CONFIG_BYTES);
  assert.equal(config.length, vu.MAX_CONFIG_BYTES);
  assert.equal(config[0], 77);
  assert.ok(config.subarray(device.configBytes).every((byte) => byte === 0));
  client.setConfig(0, Uint8Array.of(1));
  assert.equal(device.config[0], 1);
  bench.close();
});

describe('requests in flight and the end of a connection', () => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-drain-'));
  after(() => rmSync(directory, { recursive: true }));
  let sockets = 0;

  class ServerBench {
    readonly loop = new PollLoop({ idlePollUs: 10 });
    readonly device = new SlowDevice(testArena());
    readonly log: string[] = [];
    readonly path = join(directory, `${sockets++}.sock`);
    readonly guest = new TestGuest(testArena());
    readonly server: VhostUserServer;

    constructor(role: 'listen' | 'connect' = 'listen') {
      this.server = new VhostUserServer({
        arena: testArena(),
        loop: this.loop,
        device: this.device,
        log: loggerTo((level, message) => this.log.push(`${level}: ${message}`)),
        path: this.path,
        role,
        reconnectMs: { first: 1, longest: 1 },
      });
    }

    connect(): VhostUserClient {
      const pump = (): void => this.turn();
      return VhostUserClient.connect(this.path, { pump, timeoutMs: 2000 });
    }

    /** A turn of the loop, with its timers. */
    turn(): void {
      this.loop.setTimer(0, () => this.loop.stop());
      this.loop.run();
    }

    /** Brings a ring up; the device has a request of it in flight. */
    start(client: VhostUserClient): TestRing {
      client.negotiate(TEST_FEATURES);
      client.setMemoryTable([this.guest.region]);
      const ring = new TestRing(this.guest, 0, 64, client.features);
      ring.start(client);
      ring.offer(1);
      assert.equal(this.device.poll(), 1);
      return ring;
    }

    end(): void {
      this.guest.close();
      this.loop.close();
    }
  }

  test('test_the_next_front_end_waits_for_the_drain', () => {
    const bench = new ServerBench();
    const first = bench.connect();
    const ring = bench.start(first);
    first.close();
    const second = bench.connect();
    second.sendRaw(encodeMessage(vu.VHOST_USER_GET_FEATURES, 0, new Uint8Array(0)));
    for (let i = 0; i < 20; i++) bench.turn();
    assert.equal(bench.loop.epoll.wait(0), 0, 'whoever waits keeps nobody awake');
    assert.equal(second.receiveRaw(), undefined);
    assert.ok(!bench.server.connected);
    assert.equal(bench.device.queues.size, 1, 'nothing was stopped');
    const { address } = bench.device.requests[0] as { address: number };
    testArena().bytes.fill(0x66, address, address + 100);
    const seen = ring.buffersAt - bench.guest.guestAddress + bench.guest.arenaAddress;
    assert.equal(testArena().bytes[seen], 0x66, 'memory is mapped still');
    bench.device.finish();
    for (let i = 0; i < 20; i++) bench.turn();
    assert.equal(bench.device.queues.size, 0);
    assert.ok(second.receiveRaw() !== undefined);
    second.close();
    for (let i = 0; i < 5; i++) bench.turn();
    ring.close();
    bench.server.close();
    bench.end();
  });

  test('test_a_waiting_front_end_that_goes_is_noticed', () => {
    const bench = new ServerBench();
    const first = bench.connect();
    const ring = bench.start(first);
    first.sendRaw(encodeMessage(vu.VHOST_USER_RESET_DEVICE, 0, new Uint8Array(0)));
    for (let i = 0; i < 5; i++) bench.turn();
    assert.ok(bench.server.connected);
    first.sendRaw(encodeMessage(vu.VHOST_USER_GET_FEATURES, 0, new Uint8Array(0)));
    assert.equal(bench.loop.epoll.wait(0), 0, 'what is not read yet keeps nobody awake');
    first.close();
    for (let i = 0; i < 5; i++) bench.turn();
    assert.ok(!bench.server.connected);
    bench.device.finish();
    for (let i = 0; i < 5; i++) bench.turn();
    assert.equal(bench.device.queues.size, 0);
    ring.close();
    bench.server.close();
    bench.end();
  });

  test('test_closing_tells_when_the_device_is_free', () => {
    testArena();
    const before = readdirSync('/proc/self/fd');
    const bench = new ServerBench();
    const client = bench.connect();
    const ring = bench.start(client);
    const told: string[] = [];
    bench.server.close(() => told.push('first'));
    bench.server.close(() => told.push('second'));
    assert.ok(!client.isAlive());
    for (let i = 0; i < 5; i++) bench.turn();
    assert.deepEqual(told, []);
    bench.device.finish();
    for (let i = 0; i < 5; i++) bench.turn();
    assert.deepEqual(told, ['first', 'second']);
    let atOnce = false;
    bench.server.close(() => {
      atOnce = true;
    });
    assert.ok(atOnce);
    client.close();
    ring.close();
    bench.end();
    assert.deepEqual(readdirSync('/proc/self/fd'), before);
  });

  test('test_a_server_that_connects_comes_back_after_the_drain', () => {
    const bench = new ServerBench('connect');
    const listener = new UnixListener(bench.path);
    const accept = (): VhostUserClient | undefined => {
      for (let i = 0; i < 20; i++) bench.turn();
      const connection = listener.accept();
      return connection === undefined
        ? undefined
        : new VhostUserClient(new SocketChannel(connection), { pump: () => bench.turn() });
    };
    let client: VhostUserClient | undefined;
    while (client === undefined) client = accept();
    const ring = bench.start(client);
    client.close();
    assert.equal(accept(), undefined, 'not while a request is in flight');
    bench.device.finish();
    let again: VhostUserClient | undefined;
    while (again === undefined) again = accept();
    again.negotiate(TEST_FEATURES);
    again.close();
    listener.close();
    ring.close();
    bench.server.close();
    for (let i = 0; i < 5; i++) bench.turn();
    bench.end();
  });
});
