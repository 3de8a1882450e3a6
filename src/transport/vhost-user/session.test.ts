import assert from 'node:assert/strict';
import { openSync, readdirSync } from 'node:fs';
import { describe, test } from 'node:test';
import { bitMask } from '../../base/bits.ts';
import { closeFd, createEventFd, createPipe, drainEventFd, signalEventFd } from '../../os/fd.ts';
import { createMemfd } from '../../os/mapping.ts';
import { unixSocketPair } from '../../os/unix-socket.ts';
import * as vu from '../../spec/vhost-user.ts';
import { VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED } from '../../spec/virtio.ts';
import { encodeRequest, encodeU64 } from './codec.ts';
import { protocolMask } from './offer.ts';
import { Bench, type BenchOptions, TEST_FEATURES, TestRing } from './testing.ts';

const PACKED = bitMask(VIRTIO_F_RING_PACKED);
const IN_ORDER = bitMask(VIRTIO_F_IN_ORDER);

function openFds(): string[] {
  return readdirSync('/proc/self/fd');
}

/** Runs a test on a bench and sees that no descriptor is left behind. */
function onBench(name: string, options: BenchOptions, body: (bench: Bench) => void): void {
  test(name, () => {
    new Bench().close(); // what is made once a process is made now
    const before = openFds();
    const bench = new Bench(options);
    try {
      body(bench);
    } finally {
      bench.close();
    }
    assert.deepEqual(openFds(), before, 'descriptors were left open');
  });
}

describe('vhost-user negotiation', () => {
  onBench('test_features_are_offered_and_taken', {}, ({ client, device }) => {
    const chosen = client.negotiate(TEST_FEATURES | PACKED | IN_ORDER);
    assert.equal(chosen, TEST_FEATURES | PACKED | IN_ORDER | bitMask(30));
    assert.equal(device.driverFeatures, TEST_FEATURES | PACKED | IN_ORDER);
    assert.deepEqual(client.protocolFeatureNames, [
      'MQ',
      'LOG_SHMFD',
      'RARP',
      'REPLY_ACK',
      'MTU',
      'BACKEND_REQ',
      'CONFIG',
      'INFLIGHT_SHMFD',
      'RESET_DEVICE',
      'CONFIGURE_MEM_SLOTS',
      'STATUS',
    ]);
    assert.equal(client.getQueueCount(), 4);
    assert.equal(client.getMemorySlots(), 32);
  });

  onBench(
    'test_features_can_be_withheld',
    { withheldFeatures: PACKED, withheldProtocolFeatures: ['CONFIG'] },
    ({ client }) => {
      client.negotiate(TEST_FEATURES | PACKED);
      assert.equal(client.offeredFeatures & (PACKED | bitMask(5, 16)), 0n);
      assert.ok(!client.has('CONFIG'));
      assert.throws(() =>
        client.exchange(vu.VHOST_USER_GET_STATUS, encodeU64(0n), { wanted: true }),
      );
    },
  );

  onBench('test_features_that_were_not_offered_are_refused', {}, (bench) => {
    bench.client.negotiate(TEST_FEATURES);
    assert.throws(() => bench.client.setFeatures(1n << 63n), {
      code: 'protocol',
      message: 'the bench refused SET_FEATURES, result 1',
    });
    assert.deepEqual(bench.log, [
      'warn: SET_FEATURES: feature bits 0x8000000000000000 were not offered',
    ]);
    assert.ok(bench.client.isAlive());
  });

  onBench('test_status_is_kept_and_reset', {}, ({ client, device }) => {
    client.negotiate(TEST_FEATURES);
    client.setStatus(1 | 2 | 8);
    assert.equal(client.getStatus(), 11);
    client.setStatus(0);
    assert.equal(client.getStatus(), 0);
    assert.equal(device.driverFeatures, 0n);
    client.setStatus(8);
    assert.equal(client.getStatus(), 0, 'FEATURES_OK without features');
  });

  onBench('test_messages_without_their_protocol_feature_are_refused', {}, (bench) => {
    bench.client.negotiate(TEST_FEATURES, protocolMask('REPLY_ACK'));
    for (const request of [vu.VHOST_USER_SEND_RARP, vu.VHOST_USER_NET_SET_MTU]) {
      const flags = vu.FLAG_NEED_REPLY;
      const reply = bench.client.exchange(request, encodeU64(1500n), { flags, wanted: true });
      assert.deepEqual(reply, encodeU64(1n));
    }
    assert.match(bench.log[0] ?? '', /SEND_RARP without the protocol feature RARP/);
    assert.throws(() => bench.client.getStatus(), /closed the connection/);
  });

  onBench('test_unsupported_messages', {}, (bench) => {
    bench.client.negotiate(TEST_FEATURES);
    const refused = [
      vu.VHOST_USER_SET_VRING_ENDIAN,
      vu.VHOST_USER_CLOSE_CRYPTO_SESSION,
      vu.VHOST_USER_POSTCOPY_LISTEN,
      vu.VHOST_USER_POSTCOPY_END,
      vu.VHOST_USER_IOTLB_MSG,
      vu.VHOST_USER_VRING_KICK,
      vu.VHOST_USER_SET_DEVICE_STATE_FD,
      99,
    ];
    for (const request of refused) {
      const flags = vu.FLAG_NEED_REPLY;
      const reply = bench.client.exchange(request, encodeU64(0n), { flags, wanted: true });
      assert.deepEqual(reply, encodeU64(1n), `request ${request}`);
    }
    assert.equal(bench.log.length, refused.length);
    assert.match(bench.log.at(-1) ?? '', /request 99 is not supported/);
    assert.ok(bench.client.isAlive());
  });

  onBench('test_an_error_nobody_waits_for_closes_the_connection', {}, (bench) => {
    bench.client.negotiate(TEST_FEATURES);
    bench.client.exchange(99, encodeU64(0n), { wanted: false });
    assert.ok(!bench.client.isAlive());
    assert.match(bench.log.at(-1) ?? '', /closing the connection: request 99 failed/);
  });
});

for (const packed of [false, true]) {
  const features = packed ? TEST_FEATURES | PACKED : TEST_FEATURES;
  describe(`vhost-user rings, ${packed ? 'packed' : 'split'}`, () => {
    for (const socket of [false, true]) {
      const over = socket ? 'socket' : 'pipe';
      onBench(`test_buffers_go_through_over_a_${over}`, { socket }, (bench) => {
        const [rx, tx] = bench.bringUp(features) as [TestRing, TestRing];
        for (let round = 0; round < 10; round++) {
          rx.offer(20);
          tx.offer(30);
          bench.device.poll();
          assert.deepEqual(rx.take(), new Array(20).fill(100));
          assert.deepEqual(tx.take(), new Array(30).fill(0));
        }
        assert.ok(rx.wasCalled());
        assert.ok(bench.device.calls > 0);
        const at = rx.buffersAt - bench.guest.guestAddress + bench.guest.arenaAddress;
        assert.equal(bench.arena.bytes[at], 0x55);
      });
    }

    onBench('test_kicks_wake_the_loop', {}, (bench) => {
      const [rx] = bench.bringUp(features) as [TestRing];
      signalEventFd(rx.kick);
      assert.equal(bench.loop.epoll.wait(1000), 1);
      assert.equal(bench.device.kicks, 1);
      assert.equal(bench.loop.epoll.wait(0), 0, 'an edge is seen once');
      signalEventFd(rx.kick);
      assert.equal(bench.loop.epoll.wait(1000), 1);
    });

    onBench('test_a_stopped_ring_goes_on_where_it_stood', {}, (bench) => {
      const [rx, tx] = bench.bringUp(features) as [TestRing, TestRing];
      rx.offer(50);
      tx.offer(50);
      bench.device.poll();
      assert.equal(rx.take().length + tx.take().length, 100);
      tx.offer(10);
      const base = bench.client.stopRing(1);
      assert.equal(base, packed ? (50 | 0x8000) + (50 | 0x8000) * 65536 : 50);
      assert.equal(bench.device.queues.has(1), false);
      assert.equal(bench.device.poll(), 0);
      tx.start(bench.client, base);
      bench.device.poll();
      assert.equal(tx.take().length, 10);
    });

    onBench('test_a_ring_is_served_only_when_enabled', {}, (bench) => {
      const [, tx] = bench.bringUp(features) as [TestRing, TestRing];
      bench.client.enableRing(1, false);
      tx.offer(3);
      assert.equal(bench.device.poll(), 0);
      bench.client.enableRing(1, true);
      assert.equal(bench.device.poll(), 3);
    });

    onBench('test_the_memory_table_can_be_replaced_under_running_rings', {}, (bench) => {
      const [rx, tx] = bench.bringUp(features) as [TestRing, TestRing];
      rx.offer(40);
      bench.device.poll();
      assert.equal(rx.take().length, 40);
      rx.offer(5);
      tx.offer(5);
      // The same memory in two pieces.
      const { region } = bench.guest;
      const half = region.size / 2;
      bench.client.setMemoryTable([
        { ...region, size: half },
        {
          ...region,
          size: half,
          guestAddress: region.guestAddress + half,
          userAddress: region.userAddress + half,
          mmapOffset: half,
        },
      ]);
      bench.device.poll();
      assert.equal(rx.take().length, 5);
      assert.equal(tx.take().length, 5);
      assert.equal(bench.session.describe().memory.length, 2);
    });

    onBench('test_a_memory_table_without_the_rings_stops_them', {}, (bench) => {
      bench.bringUp(features);
      const { region } = bench.guest;
      const elsewhere = { ...region, userAddress: region.userAddress + (1 << 30) };
      assert.throws(() => bench.client.setMemoryTable([elsewhere]), /refused SET_MEM_TABLE/);
      assert.equal(bench.device.queues.size, 0);
      assert.ok(bench.client.isAlive());
    });

    onBench('test_regions_can_be_added_and_removed', {}, (bench) => {
      const [rx] = bench.bringUp(features) as [TestRing];
      const fd = createMemfd('more', 1 << 20);
      const more = {
        fd,
        guestAddress: 1 << 30,
        size: 1 << 20,
        userAddress: 1 << 30,
        mmapOffset: 0,
      };
      bench.client.addRegion(more);
      closeFd(fd);
      rx.offer(5);
      bench.client.removeRegion(more);
      assert.equal(bench.device.poll(), 5);
      assert.throws(() => bench.client.removeRegion(more), /refused REM_MEM_REG/);
      assert.equal(bench.session.describe().memory.length, 1);
    });

    onBench('test_a_broken_ring_is_told_and_begins_anew', {}, (bench) => {
      const [rx, tx] = bench.bringUp(features) as [TestRing, TestRing];
      bench.client.setStatus(15);
      // A buffer that is not in the guest's memory.
      tx.queue.add(0x6666_0000, 100, false);
      tx.queue.publish();
      bench.device.poll();
      assert.ok(tx.wasTold() && rx.wasTold());
      assert.equal(bench.client.getStatus(), 15 | 64);
      assert.equal(bench.client.serveBackEnd(), 1);
      assert.equal(bench.configChanges, 1);
      assert.match(bench.log.at(-1) ?? '', /the guest broke the device: 0x66660000/);
      bench.client.stopRing(0);
      bench.client.stopRing(1);
      assert.equal(bench.client.getStatus(), 15);
      assert.equal(bench.device.driverFeatures, features);
      const again = new TestRing(bench.guest, 1, 64, bench.client.features);
      again.start(bench.client);
      again.offer(7);
      bench.device.poll();
      assert.equal(again.take().length, 7);
      again.close();
    });

    onBench('test_a_driver_that_starts_again_without_stopping', {}, (bench) => {
      // User-Mode Linux after rmmod: ENABLE 0, GET_FEATURES; then set-up from the beginning.
      const [, tx] = bench.bringUp(features) as [TestRing, TestRing];
      tx.offer(30);
      bench.device.poll();
      bench.client.enableRing(1, false);
      bench.client.exchange(vu.VHOST_USER_GET_FEATURES, new Uint8Array(0), { wanted: true });
      const options = { flags: vu.FLAG_NEED_REPLY, wanted: true };
      const num = encodeRequest({ request: vu.VHOST_USER_SET_VRING_NUM, index: 1, num: 32 });
      bench.client.exchange(vu.VHOST_USER_SET_VRING_NUM, num, options);
      bench.client.enableRing(1, true);
      assert.equal(bench.device.queues.has(1), false, 'the old ring is no longer looked at');
      const again = new TestRing(bench.guest, 1, 32, bench.client.features);
      again.start(bench.client);
      again.offer(9);
      bench.device.poll();
      assert.equal(again.take().length, 9);
      again.close();
    });

    onBench('test_reset_device_stops_all', {}, (bench) => {
      bench.bringUp(features);
      bench.client.resetDevice();
      assert.equal(bench.device.queues.size, 0);
      assert.equal(bench.device.resets, 1);
      assert.equal(bench.session.describe().memory.length, 1, 'memory stays');
      assert.equal(bench.client.stopRing(0), packed ? 0x8000_8000 : 0);
    });
  });
}

describe('vhost-user ring set-up', () => {
  onBench('test_rings_that_cannot_be_are_refused', {}, (bench) => {
    const { client, guest } = bench;
    client.negotiate(TEST_FEATURES);
    client.setMemoryTable([guest.region]);
    const kick = createEventFd();
    const base = guest.userAddress;
    const good = {
      size: 64,
      descriptor: base,
      driver: base + 4096,
      device: base + 8192,
      base: 0,
      kick,
      call: undefined,
    };
    for (const [bad, message] of [
      [{ ...good, descriptor: 4096 }, 'SET_VRING_KICK'],
      [{ ...good, descriptor: base + guest.size - 512 }, 'SET_VRING_KICK'],
      [{ ...good, descriptor: base + 8 }, 'SET_VRING_KICK'],
      [{ ...good, driver: base + 4097 }, 'SET_VRING_KICK'],
      [{ ...good, device: base + guest.size - 4 }, 'SET_VRING_KICK'],
      [{ ...good, size: 63 }, 'SET_VRING_KICK'],
      [{ ...good, size: 0 }, 'SET_VRING_NUM'],
      [{ ...good, size: 2048 }, 'SET_VRING_NUM'],
    ] as const) {
      assert.throws(() => client.startRing(0, bad), {
        message: `the bench refused ${message}, result 1`,
      });
      assert.equal(bench.device.queues.size, 0);
    }
    assert.throws(() => client.startRing(4, good), /refused SET_VRING_NUM/);
    client.startRing(0, good);
    assert.equal(bench.device.queues.size, 1);
    closeFd(kick);
  });

  onBench('test_packed_positions_outside_the_ring_are_refused', {}, (bench) => {
    const { client, guest } = bench;
    client.negotiate(TEST_FEATURES | PACKED);
    client.setMemoryTable([guest.region]);
    const ring = new TestRing(guest, 0, 64, client.features);
    assert.throws(() => ring.start(client, 0x8040_8040), /refused SET_VRING_KICK/);
    ring.start(client, 0x803f_803f);
    ring.close();
  });

  onBench('test_a_base_without_a_used_half', {}, (bench) => {
    // DPDK's virtio_user says 0x8000 for a new packed ring.
    const { client, guest } = bench;
    client.negotiate(TEST_FEATURES | PACKED);
    client.setMemoryTable([guest.region]);
    const ring = new TestRing(guest, 1, 64, client.features);
    ring.start(client, 0x8000);
    ring.offer(5);
    bench.device.poll();
    assert.equal(ring.take().length, 5);
    ring.close();
  });

  onBench('test_rings_start_enabled_without_protocol_features', {}, (bench) => {
    const { client, guest, device } = bench;
    client.negotiate(TEST_FEATURES, 0n);
    client.setFeatures(TEST_FEATURES);
    client.setMemoryTable([guest.region]);
    const ring = new TestRing(guest, 1, 64, client.features);
    client.startRing(1, {
      size: 64,
      descriptor: guest.userAddressOf(ring.layout.descriptor),
      driver: guest.userAddressOf(ring.layout.driver),
      device: guest.userAddressOf(ring.layout.device),
      base: 0,
      kick: ring.kick,
      call: ring.call,
    });
    client.exchange(vu.VHOST_USER_GET_FEATURES, new Uint8Array(0), { wanted: true });
    assert.deepEqual([...device.enabled], [1]);
    ring.close();
  });

  onBench('test_without_a_kick_descriptor_the_ring_is_polled', {}, (bench) => {
    const { client, guest } = bench;
    client.negotiate(TEST_FEATURES);
    client.setMemoryTable([guest.region]);
    const ring = new TestRing(guest, 1, 64, client.features);
    client.startRing(1, {
      size: 64,
      descriptor: guest.userAddressOf(ring.layout.descriptor),
      driver: guest.userAddressOf(ring.layout.driver),
      device: guest.userAddressOf(ring.layout.device),
      base: 0,
      kick: undefined,
      call: undefined,
    });
    client.enableRing(1, true);
    ring.offer(4);
    // The loop sleeps without a kick to wait for, and yet finds the buffers.
    let found = 0;
    bench.loop.addPoller({
      poll: () => {
        found += bench.device.poll();
        if (found > 0) bench.loop.stop();
        return 0;
      },
      arm: () => false,
      disarm: () => undefined,
    });
    bench.device.paused = true;
    bench.loop.setTimer(3000, () => {
      bench.device.paused = false;
    });
    bench.loop.run();
    assert.equal(found, 4);
    assert.equal(ring.take().length, 4);
    ring.close();
  });

  // User-Mode Linux has the sockets (arch/um/os-Linux/file.c, os_pipe).
  const lines = {
    pipe: createPipe,
    socket: () => {
      const [read, write] = unixSocketPair();
      return { read: read.fd, write: write.fd };
    },
  };
  for (const [kind, create] of Object.entries(lines)) {
    onBench(`test_a_${kind}_for_calls_gets_eight_bytes`, {}, (bench) => {
      const [, tx] = bench.bringUp(TEST_FEATURES) as [TestRing, TestRing];
      const { read, write } = create();
      bench.client.setRingCall(1, write);
      closeFd(write);
      assert.ok(drainEventFd(read), 'what was due before is told again');
      tx.offer(1);
      bench.device.poll();
      assert.ok(drainEventFd(read));
      closeFd(read);
    });
  }

  onBench('test_a_socket_for_kicks_is_refused', {}, (bench) => {
    bench.bringUp(TEST_FEATURES, 1);
    const [read, write] = unixSocketPair();
    const options = { fds: [read.fd], flags: vu.FLAG_NEED_REPLY, wanted: true };
    const reply = bench.client.exchange(vu.VHOST_USER_SET_VRING_KICK, encodeU64(0n), options);
    assert.deepEqual(reply, encodeU64(1n));
    read.close();
    write.close();
  });

  onBench('test_a_pipe_for_kicks_is_emptied', {}, (bench) => {
    const { read, write } = createPipe();
    bench.bringUp(TEST_FEATURES, 1);
    const payload = encodeU64(0n);
    const options = { fds: [read], flags: vu.FLAG_NEED_REPLY, wanted: true };
    const reply = bench.client.exchange(vu.VHOST_USER_SET_VRING_KICK, payload, options);
    assert.deepEqual(reply, encodeU64(0n));
    for (let i = 0; i < 20000; i++) {
      assert.ok(signalEventFd(write));
      if (i % 50 === 0) bench.loop.epoll.wait(0);
    }
    while (bench.loop.epoll.wait(0) > 0);
    assert.ok(bench.device.kicks > 20000 / 64);
    assert.ok(!drainEventFd(read));
    closeFd(read);
    closeFd(write);
  });

  onBench('test_a_kick_that_never_runs_dry_does_not_hold_the_lane', {}, (bench) => {
    bench.bringUp(TEST_FEATURES, 1);
    const fd = openSync('/dev/urandom', 'r');
    const options = { fds: [fd], flags: vu.FLAG_NEED_REPLY, wanted: true };
    bench.client.exchange(vu.VHOST_USER_SET_VRING_KICK, encodeU64(0n), options);
    bench.loop.epoll.wait(0);
    closeFd(fd);
  });

  onBench('test_descriptors_that_cannot_be_waited_for', {}, (bench) => {
    bench.client.negotiate(TEST_FEATURES);
    const fd = createMemfd('not-a-kick', 4096);
    const options = { fds: [fd], flags: vu.FLAG_NEED_REPLY, wanted: true };
    const reply = bench.client.exchange(vu.VHOST_USER_SET_VRING_KICK, encodeU64(0n), options);
    assert.deepEqual(reply, encodeU64(1n));
    closeFd(fd);
  });
});

describe('vhost-user device messages', () => {
  onBench('test_config_is_read_and_written', {}, ({ client, device }) => {
    client.negotiate(TEST_FEATURES);
    assert.deepEqual(client.getConfig(2, 4), new Uint8Array([3, 4, 5, 6]));
    // As User-Mode Linux does it, and beyond the device's fields.
    assert.deepEqual(client.getConfig(0, 1), new Uint8Array([1]));
    assert.deepEqual(client.getConfig(10, 4), new Uint8Array([11, 12, 0, 0]));
    client.setConfig(1, new Uint8Array([9]));
    assert.equal(device.config[1], 9);
    assert.throws(() => client.setConfig(1, new Uint8Array([9]), 7), /refused SET_CONFIG/);
  });

  onBench('test_bad_config_request_is_answered_with_nothing', {}, (bench) => {
    bench.client.negotiate(TEST_FEATURES);
    const contents = new Uint8Array(4);
    const payload = encodeRequest({
      request: vu.VHOST_USER_GET_CONFIG,
      offset: 255,
      flags: 0,
      contents,
    });
    const reply = bench.client.exchange(vu.VHOST_USER_GET_CONFIG, payload, { wanted: true });
    assert.equal(reply.length, 0);
    assert.ok(bench.client.isAlive());
  });

  onBench('test_config_changes_are_told', {}, (bench) => {
    bench.client.negotiate(TEST_FEATURES);
    bench.device.onConfigChange?.();
    bench.device.onConfigChange?.();
    assert.equal(bench.client.serveBackEnd(), 2);
    assert.equal(bench.configChanges, 2);
  });

  onBench('test_mtu_and_rarp_reach_the_device', {}, ({ client, device }) => {
    client.negotiate(TEST_FEATURES);
    client.setMtu(9000);
    assert.equal(device.mtu, 9000);
    assert.throws(() => client.setMtu(67), /refused NET_SET_MTU/);
    client.sendRarp(Uint8Array.from([0x52, 0x54, 0, 1, 2, 3]));
    assert.deepEqual(device.announced, ['525400010203']);
  });

  onBench('test_inflight_areas_come_and_go', {}, (bench) => {
    bench.client.negotiate(TEST_FEATURES);
    const area = bench.client.getInflight(4, 128);
    assert.ok(area.mmapSize >= 4 * 2112 && area.fd > 0);
    bench.client.setInflight(area, area.fd);
    closeFd(area.fd);
    assert.throws(() => bench.client.getInflight(5, 128), /closed the connection/);
  });
});

for (const packed of [false, true]) {
  describe(`vhost-user dirty log, ${packed ? 'packed' : 'split'}`, () => {
    onBench('test_written_pages_are_marked', {}, (bench) => {
      const features = (packed ? TEST_FEATURES | PACKED : TEST_FEATURES) | bitMask(26);
      const { client, guest } = bench;
      const bytes = 1 << 16;
      const fd = createMemfd('log', bytes);
      const at = bench.arena.mapFile(fd, bytes, 0);
      const marked = (guestAddress: number): boolean => {
        const page = guestAddress / 4096;
        return ((bench.arena.bytes[at + (page >> 3)] as number) & (1 << (page & 7))) !== 0;
      };
      const [rx] = bench.bringUp(features & ~bitMask(26)) as [TestRing];
      rx.offer(1);
      bench.device.poll();
      client.setLog(fd, bytes);
      closeFd(fd);
      rx.offer(1);
      bench.device.poll();
      assert.ok(!marked(rx.buffersAt), 'a log alone is not enough');
      client.setFeatures(client.features | bitMask(26));
      assert.equal(bench.device.queues.size, 2, 'rings go on');
      rx.take();
      rx.offer(1);
      bench.device.poll();
      assert.ok(marked(rx.buffersAt));
      assert.ok(!marked(rx.buffersAt + 4096));
      const ringPage = packed ? rx.layout.descriptor : 0x300_0000;
      assert.ok(!marked(ringPage), 'the ring is not logged unless asked for');
      const user = {
        descriptor: guest.userAddressOf(rx.layout.descriptor),
        driver: guest.userAddressOf(rx.layout.driver),
        device: guest.userAddressOf(rx.layout.device),
      };
      client.setRingAddress(0, { ...user, log: 0x300_0000 });
      rx.offer(1);
      bench.device.poll();
      assert.ok(marked(ringPage));
      client.setFeatures(client.features & ~bitMask(26));
      bench.arena.bytes.fill(0, at, at + bytes);
      rx.take();
      rx.offer(1);
      bench.device.poll();
      assert.ok(!marked(rx.buffersAt));
      bench.arena.unmap(at, bytes);
    });

    onBench('test_logs_that_do_not_fit_are_refused', {}, (bench) => {
      bench.client.negotiate(TEST_FEATURES);
      const fd = createMemfd('log', 8192);
      assert.throws(() => bench.client.setLog(fd, 8193), /refused SET_LOG_BASE/);
      assert.throws(() => bench.client.setLog(fd, 4096, 100), /refused SET_LOG_BASE/);
      assert.throws(() => bench.client.setLog(fd, 0), /refused SET_LOG_BASE/);
      bench.client.setLog(fd, 4096, 4096);
      closeFd(fd);
    });
  });
}
