import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { DMA_PENDING, DMA_REFUSED } from '../../memory/dma.ts';
import { closeFd, createEventFd, drainEventFd, identify } from '../../os/fd.ts';
import { createMemfd } from '../../os/mapping.ts';
import * as vfu from '../../spec/vfio-user.ts';
import { encodeVersion, Refusal } from './codec.ts';
import { Bench, type BenchOptions, openDescriptors } from './testing.ts';

const KB = 1024;
const refused = (errno: number) => (error: unknown) =>
  error instanceof Refusal && error.errno === errno;
const [ENOENT, EEXIST, EINVAL, EOPNOTSUPP] = [2, 17, 22, 95];
const nothing = (): void => undefined;

for (const [name, options] of [
  ['pipe', {}],
  ['single bytes', { pipe: { chunk: 1 } }],
  ['socket', { socket: true }],
] satisfies [string, BenchOptions][]) {
  describe(`vfio-user over a ${name}`, () => {
    let bench: Bench;
    let before = 0;
    let eventFds: number[] = [];
    let memory = -1;

    beforeEach(() => {
      before = openDescriptors();
      bench = Bench.ready(options);
      memory = createMemfd('guest', 64 * KB);
      eventFds = Array.from({ length: 4 }, createEventFd);
    });

    afterEach(() => {
      for (const fd of [memory, ...eventFds]) closeFd(fd);
      bench.close();
      assert.ok(bench.freed);
      assert.equal(openDescriptors(), before, 'descriptors leaked');
      assert.equal(bench.files.count, 0, 'memory stayed mapped');
    });

    test('test_version_is_agreed_on', () => {
      const { server } = bench.client;
      assert.deepEqual([server?.major, server?.minor], [0, 0]);
      assert.equal(server?.capabilities.maxMessageFds, 16);
      assert.equal(server?.capabilities.maxDataBytes, 1048576);
      assert.equal(server?.capabilities.writeMultiple, true);
      assert.throws(() => bench.client.negotiate(), refused(EINVAL));
    });

    test('test_device_info', () => {
      assert.deepEqual(bench.client.deviceInfo(), { flags: 3, regions: 9, irqs: 5 });
      const short = new Uint8Array(16);
      assert.throws(
        () => bench.client.ask(vfu.VFIO_USER_DEVICE_GET_INFO, short, nothing),
        refused(EINVAL),
      );
    });

    test('test_region_info_tells_of_mappable_areas', () => {
      const plain = bench.client.regionInfo(0);
      assert.deepEqual([plain.flags, plain.bytes, plain.fds.count], [3, 4096, 0]);
      const shared = bench.client.regionInfo(2);
      assert.deepEqual([shared.flags, shared.bytes, shared.fileOffset], [15, 16384, 0]);
      assert.deepEqual(shared.areas, [{ offset: 4096, bytes: 4096 }]);
      assert.equal(shared.fds.count, 1);
      assert.equal(identify(shared.fds.peek(0)).id, identify(bench.function.sharedFd).id);
      shared.fds.close();
      const sizes = Array.from({ length: 9 }, (_, i) => bench.client.regionInfo(i));
      for (const info of sizes) info.fds.close();
      assert.deepEqual(
        sizes.map(({ bytes }) => bytes),
        [4096, 0, 16384, 0, 0, 0, 2048, 4096, 0],
      );
      assert.equal(sizes[6]?.flags, vfu.REGION_FLAG_READ);
      assert.throws(() => bench.client.regionInfo(9), refused(EINVAL));
    });

    test('test_short_region_info_has_the_offset_of_capabilities', () => {
      const request = new Uint8Array(vfu.REGION_INFO_BYTES);
      const view = new DataView(request.buffer);
      view.setUint32(0, request.length, true);
      view.setUint32(8, 2, true);
      const [length, argsz, capOffset] = bench.client.ask(
        vfu.VFIO_USER_DEVICE_GET_REGION_INFO,
        request,
        (m) => [m.length, m.view.getUint32(m.at, true), m.view.getUint32(m.at + 12, true)],
      );
      assert.deepEqual([length, argsz, capOffset], [32, 64, 32]);
    });

    test('test_registers_are_read_and_written', () => {
      const { client, function: scratch } = bench;
      client.write(0, 0x10, 4, 0xdead_beef);
      assert.equal(client.read(0, 0x10, 4), 0xdead_beef);
      assert.equal(client.read(0, 0x12, 2), 0xdead);
      client.write(0, 0x20, 8, 0x1_0000_0002);
      client.write(0, 0x31, 4, 0x04030201);
      client.write(7, 4, 2, 6);
      assert.deepEqual([...client.readBytes(6, 254, 4)], [254, 255, 0, 1]);
      assert.deepEqual(scratch.take(), [
        'write 0+16/4=3735928559',
        'read 0+16/4',
        'read 0+18/2',
        'write 0+32/4=2',
        'write 0+36/4=1',
        'write 0+49/1=1',
        'write 0+50/2=770',
        'write 0+52/1=4',
        'config 4/2=6',
      ]);
      assert.equal(client.readBytes(7, 0, 4096)[4], 6);
    });

    test('test_posted_writes_come_in_order', () => {
      const { client } = bench;
      client.post(0, 0, 4, 1);
      client.postMany([
        { region: 0, offset: 4, bytes: 4, value: 2 },
        { region: 0, offset: 8, bytes: 8, value: 3 },
      ]);
      client.post(0, 4092, 4, 4);
      assert.equal(client.read(0, 4, 4), 2);
      assert.deepEqual(bench.function.take(), [
        'write 0+0/4=1',
        'write 0+4/4=2',
        'write 0+8/4=3',
        'write 0+12/4=0',
        'write 0+4092/4=4',
        'read 0+4/4',
      ]);
    });

    test('test_bad_region_access_does_nothing', () => {
      const { client } = bench;
      for (const [region, offset, bytes] of [
        [0, 4093, 4],
        [0, 4096, 1],
        [1, 0, 4],
        [9, 0, 4],
        [0xffff_ffff, 0, 4],
        [0, 0, 0],
        [0, 2 ** 52, 4],
      ] as const) {
        assert.throws(() => client.readBytes(region, offset, bytes), refused(EINVAL));
        assert.throws(() => client.write(region, offset, bytes, 0), refused(EINVAL));
      }
      client.postMany([
        { region: 0, offset: 0, bytes: 4, value: 1 },
        { region: 0, offset: 0, bytes: 9, value: 1 },
      ]);
      assert.throws(
        () => client.ask(vfu.VFIO_USER_REGION_WRITE_MULTI, new Uint8Array(8).fill(255), nothing),
        refused(EINVAL),
      );
      assert.deepEqual(bench.function.take(), []);
    });

    test('test_dma_maps_come_and_go', () => {
      const { client, session, files } = bench;
      client.map({ iova: 0, length: 32 * KB, fd: memory });
      client.map({ iova: 1024 * KB, length: 4 * KB, fd: memory, offset: 4 * KB, writable: false });
      client.map({ iova: 2048 * KB, length: 4 * KB });
      assert.equal(session.domain.count, 3);
      assert.equal(files.count, 1);
      const { domain } = session;
      assert.equal(domain.translate(1024 * KB, 1, false), domain.translate(4 * KB, 1, false));
      assert.equal(domain.translate(1024 * KB, 1, true), -1);
      assert.throws(
        () => client.map({ iova: 28 * KB, length: 8 * KB, fd: memory }),
        refused(EEXIST),
      );
      assert.throws(() => client.unmap(0, 4 * KB), refused(EINVAL), 'a part of a map');
      assert.throws(() => client.unmap(0, 1028 * KB - 1), refused(EINVAL), 'a map and a part');
      assert.throws(() => client.unmap(4096 * KB, 4 * KB), refused(ENOENT));
      assert.equal(domain.count, 3);
      client.unmap(0, 32 * KB);
      assert.equal(domain.translate(0, 1, false), -1);
      // What a VMM sends when its guest switches the IOMMU off.
      client.map({ iova: 512 * KB, length: 4 * KB, fd: memory });
      client.unmap(0, 2 ** 32);
      assert.equal(domain.count, 0);
      client.map({ iova: 512 * KB, length: 4 * KB, fd: memory });
      client.unmapAll();
      assert.equal(domain.count, 0);
      assert.equal(files.count, 0);
    });

    test('test_bad_dma_map_is_refused', () => {
      const { client } = bench;
      const bad = [
        { iova: 1, length: 4 * KB },
        { iova: 0, length: 0 },
        { iova: 0, length: 100 },
        { iova: 0, length: 128 * KB },
        { iova: 0, length: 4 * KB, offset: 64 * KB },
        { iova: 0, length: 2 ** 52, offset: 2 ** 52 },
      ];
      for (const map of bad) {
        assert.throws(() => client.map({ ...map, fd: memory }), refused(EINVAL));
      }
      const two = [memory, memory];
      assert.throws(
        () => client.ask(vfu.VFIO_USER_DMA_MAP, new Uint8Array(32), nothing, two),
        refused(EINVAL),
      );
      assert.equal(bench.session.domain.count, 0);
    });

    test('test_unmap_waits_for_dma_in_flight', () => {
      const { client, session, function: scratch } = bench;
      client.map({ iova: 0, length: 4 * KB, fd: memory });
      scratch.busy = true;
      let polls = 0;
      const original = bench.pump.bind(bench);
      bench.pump = () => {
        original();
        if (scratch.held && ++polls === 20) {
          assert.equal(session.domain.count, 1, 'unmapped under way');
          scratch.finish();
        }
      };
      client.unmap(0, 4 * KB);
      assert.ok(polls >= 20);
      assert.equal(session.domain.count, 0);
      assert.ok(!scratch.held);
    });

    test('test_commands_behind_one_that_waits_stay_in_order', () => {
      const { client, function: scratch } = bench;
      scratch.busy = true;
      client.tell(vfu.VFIO_USER_DEVICE_RESET, new Uint8Array(0));
      client.post(0, 0, 4, 1);
      client.post(0, 4, 4, 2);
      for (let i = 0; i < 200; i++) bench.pump();
      assert.deepEqual(scratch.take(), []);
      scratch.finish();
      assert.equal(client.read(0, 4, 4), 2);
      assert.deepEqual(scratch.take(), ['reset', 'write 0+0/4=1', 'write 0+4/4=2', 'read 0+4/4']);
    });

    test('test_irq_info', () => {
      const counts = [0, 1, 2, 3, 4].map((index) => bench.client.irqInfo(index).count);
      assert.deepEqual(counts, [1, 4, 8, 0, 0]);
      assert.equal(bench.client.irqInfo(0).flags, 7);
      assert.equal(bench.client.irqInfo(2).flags, 3);
      assert.throws(() => bench.client.irqInfo(5), refused(EINVAL));
    });

    test('test_messages_reach_the_vectors_that_were_set_up', () => {
      const { client, function: scratch } = bench;
      const sink = scratch.wiring?.interrupts;
      // As QEMU begins: a vector without a descriptor.
      client.setIrqs(2, vfu.IRQ_SET_DATA_EVENTFD | vfu.IRQ_SET_ACTION_TRIGGER, 0, 1);
      client.setVectors(2, eventFds.slice(0, 2));
      for (const vector of [0, 1, 2, 7, 8, -1]) sink?.signalMsix(vector);
      sink?.signalMsi(0);
      assert.deepEqual(eventFds.map(drainEventFd), [true, true, false, false]);
      const none = vfu.IRQ_SET_DATA_NONE;
      client.setIrqs(2, none | vfu.IRQ_SET_ACTION_MASK, 1, 1);
      sink?.signalMsix(1);
      assert.ok(!drainEventFd(eventFds[1] as number));
      client.setIrqs(2, none | vfu.IRQ_SET_ACTION_UNMASK, 1, 1);
      assert.ok(drainEventFd(eventFds[1] as number), 'pending under the mask');
      const byBooleans = vfu.IRQ_SET_DATA_BOOL | vfu.IRQ_SET_ACTION_TRIGGER;
      client.setIrqs(2, byBooleans, 0, 2, { booleans: [false, true] });
      assert.deepEqual(eventFds.map(drainEventFd), [false, true, false, false]);
      client.setIrqs(2, none | vfu.IRQ_SET_ACTION_TRIGGER, 0, 0);
      sink?.signalMsix(0);
      assert.ok(!drainEventFd(eventFds[0] as number), 'all were disabled');
    });

    test('test_intx_is_masked_until_it_was_served', () => {
      const { client, function: scratch } = bench;
      const sink = scratch.wiring?.interrupts;
      const [line, unmasked] = eventFds as [number, number];
      sink?.setIntx(true);
      client.setVectors(0, [line]);
      assert.ok(drainEventFd(line), 'asserted before anybody listened');
      sink?.setIntx(false);
      sink?.setIntx(true);
      assert.ok(!drainEventFd(line), 'masks itself');
      const told = vfu.IRQ_SET_DATA_EVENTFD | vfu.IRQ_SET_ACTION_UNMASK;
      client.setIrqs(0, told, 0, 1, { fds: [unmasked] });
      client.setIrqs(0, vfu.IRQ_SET_DATA_NONE | vfu.IRQ_SET_ACTION_UNMASK, 0, 1);
      assert.ok(drainEventFd(line), 'still asserted');
      assert.ok(drainEventFd(unmasked));
      sink?.setIntx(false);
      client.setIrqs(0, vfu.IRQ_SET_DATA_NONE | vfu.IRQ_SET_ACTION_UNMASK, 0, 1);
      assert.ok(!drainEventFd(line));
    });

    test('test_bad_set_irqs_is_refused_and_closes_fds', () => {
      const { client } = bench;
      const on = vfu.IRQ_SET_DATA_EVENTFD | vfu.IRQ_SET_ACTION_TRIGGER;
      const fds = eventFds;
      for (const [index, flags, start, count] of [
        [5, on, 0, 4],
        [2, on, 7, 4],
        [2, on, 0, 3],
        [2, on, 0xffff_ffff, 4],
        [2, vfu.IRQ_SET_DATA_NONE | vfu.IRQ_SET_ACTION_TRIGGER, 0, 4],
        [2, 0, 0, 4],
        [2, on | vfu.IRQ_SET_ACTION_MASK, 0, 4],
        [2, on | 64, 0, 4],
        [3, on, 0, 4],
      ] as const) {
        assert.throws(() => client.setIrqs(index, flags, start, count, { fds }), refused(EINVAL));
      }
      assert.throws(() => client.setVectors(2, [memory]), refused(EINVAL), 'no eventfd');
      assert.equal(bench.session.describe().vectors.msix, 0);
    });

    test('test_reset_reaches_the_function', () => {
      bench.client.reset();
      assert.deepEqual(bench.function.take(), ['reset']);
      assert.throws(
        () => bench.client.ask(vfu.VFIO_USER_DEVICE_RESET, new Uint8Array(4), nothing),
        refused(EINVAL),
      );
      assert.deepEqual(bench.function.take(), []);
    });

    test('test_bad_request_closes_fds', () => {
      const { client } = bench;
      for (let command = 0; command < 20; command++) {
        if (command === vfu.VFIO_USER_DMA_MAP || command === vfu.VFIO_USER_DEVICE_SET_IRQS)
          continue;
        assert.throws(
          () => client.ask(command, new Uint8Array(64), nothing, eventFds),
          (error: unknown) =>
            error instanceof Refusal && [EINVAL, EOPNOTSUPP].includes(error.errno),
        );
      }
      client.tell(99, new Uint8Array(8), eventFds);
      client.deviceInfo();
    });

    test('test_unsupported_commands_are_refused', () => {
      for (const command of [
        vfu.VFIO_USER_DEVICE_GET_REGION_IO_FDS,
        vfu.VFIO_USER_DEVICE_FEATURE,
        vfu.VFIO_USER_MIG_DATA_READ,
        77,
      ]) {
        assert.throws(
          () => bench.client.ask(command, new Uint8Array(16), nothing),
          refused(EOPNOTSUPP),
        );
      }
    });

    test('test_written_pages_are_told', () => {
      const { client, session } = bench;
      const lane = bench.arena.allocate(4096);
      client.map({ iova: 64 * KB, length: 64 * KB, fd: memory });
      client.logDirty(true);
      session.domain.write(64 * KB + 3 * 4096 - 1, 2, lane, 0);
      assert.deepEqual([...client.readDirty(64 * KB, 64 * KB)], [12, 0, 0, 0, 0, 0, 0, 0]);
      session.domain.write(64 * KB, 1, lane, 0);
      assert.throws(() => client.unmapWithDirty(0, 64 * KB), refused(ENOENT));
      assert.deepEqual([...client.unmapWithDirty(64 * KB, 64 * KB)], [1, 0, 0, 0, 0, 0, 0, 0]);
      client.logDirty(false);
    });
  });
}

describe('vfio-user memory by messages', () => {
  test('test_dma_without_a_descriptor', () => {
    const guest = new Uint8Array(8192).map((_, i) => i & 0xff);
    const bench = Bench.ready({
      memory: {
        read: (iova, count) =>
          iova + count <= guest.length ? guest.slice(iova, iova + count) : undefined,
        write: (iova, bytes) => {
          guest.set(bytes, iova);
          return true;
        },
      },
      capabilities: {
        maxMessageFds: 1,
        maxDataBytes: 100,
        pageSizes: 4096,
        maxDmaMaps: 10,
        writeMultiple: false,
        migration: undefined,
      },
    });
    const { client, session, arena } = bench;
    assert.equal(client.server?.capabilities.writeMultiple, false);
    const lane = arena.allocate(8192);
    const done: [number, boolean][] = [];
    client.map({ iova: 0, length: 16 * KB });
    session.domain.onDone = (tag, ok) => done.push([tag, ok]);
    assert.equal(session.domain.read(10, 250, lane, 5), DMA_PENDING);
    while (done.length === 0) {
      client.serve();
      bench.pump();
    }
    assert.deepEqual([...arena.bytes.subarray(lane, lane + 250)], [...guest.subarray(10, 260)]);
    assert.equal(session.domain.write(4000, 150, lane, 6), DMA_PENDING);
    assert.equal(session.domain.read(8190, 4, lane, 7), DMA_PENDING);
    // A trap's answer does not wait for it, nor it for the trap.
    client.read(0, 0, 4);
    while (done.length < 3) {
      client.serve();
      bench.pump();
    }
    assert.deepEqual(done, [
      [5, true],
      [6, true],
      [7, false],
    ]);
    assert.deepEqual([...guest.subarray(4000, 4150)], [...arena.bytes.subarray(lane, lane + 150)]);
    assert.equal(session.domain.faults.list()[0]?.reason, 'refused by the guest');
    assert.equal(session.domain.read(10, 10, lane, 8), DMA_PENDING);
    bench.close();
    assert.deepEqual(done.at(-1), [8, false], 'the guest has gone');
    assert.equal(session.domain.read(10, 10, lane, 9), DMA_REFUSED);
  });
});

describe('vfio-user streams that make no sense', () => {
  const header = (command: number, size: number, flags = 0): Uint8Array => {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setUint16(2, command, true);
    view.setUint32(4, size, true);
    view.setUint32(8, flags, true);
    return bytes;
  };

  for (const [name, bytes] of [
    ['test_message_shorter_than_its_header', header(4, 15)],
    ['test_message_of_size_0', header(4, 0)],
    ['test_oversized_message', header(10, 64 * 1024 * 1024)],
    ['test_message_of_unknown_type', header(4, 32, 2)],
    ['test_reply_that_nobody_waits_for', header(11, 16, 1)],
  ] as const) {
    test(name, () => {
      const bench = Bench.ready();
      bench.client.tell(vfu.VFIO_USER_DEVICE_RESET, new Uint8Array(0));
      sendRaw(bench, bytes);
      assert.ok(bench.over);
      assert.deepEqual(bench.function.take(), ['reset', 'detach']);
      assert.match(bench.log.join(), /closing the connection/);
      assert.throws(() => bench.client.deviceInfo(), /closed the connection/);
      bench.close();
    });
  }

  for (const [name, payload] of [
    ['test_version_without_json', new Uint8Array(4).fill(9)],
    ['test_version_too_short', new Uint8Array(3)],
    ['test_version_that_is_no_json', Uint8Array.from([0, 0, 0, 0, 123, 0])],
    ['test_version_without_its_end', Uint8Array.from([0, 0, 0, 0, 123, 125])],
    ['test_version_of_a_wrong_type', versionOf('{"capabilities":{"max_msg_fds":"x"}}')],
    ['test_version_of_wrong_capabilities', versionOf('{"capabilities":3}')],
    ['test_version_without_room_for_data', versionOf('{"capabilities":{"max_data_xfer_size":0}}')],
  ] as const) {
    test(name, () => {
      const bench = new Bench();
      const ask = (): void => bench.client.ask(vfu.VFIO_USER_VERSION, payload, nothing);
      assert.throws(ask, refused(EINVAL));
      assert.ok(bench.over);
      assert.deepEqual(bench.function.take(), []);
      bench.close();
    });
  }

  test('test_version_without_data_has_defaults', () => {
    const bench = new Bench();
    bench.client.ask(vfu.VFIO_USER_VERSION, new Uint8Array(4), nothing);
    assert.equal(bench.session.describe().capabilities?.maxMessageFds, 1);
    bench.close();
  });

  test('test_command_before_version_is_refused', () => {
    const bench = new Bench();
    assert.throws(() => bench.client.deviceInfo(), refused(EINVAL));
    assert.ok(bench.over);
    bench.close();
  });

  test('test_guest_that_vanishes_while_dma_is_in_flight', () => {
    const bench = Bench.ready();
    bench.function.busy = true;
    bench.client.close();
    bench.pump();
    assert.ok(bench.over && !bench.freed);
    assert.deepEqual(bench.function.take(), []);
    bench.close();
    assert.ok(bench.freed);
    assert.deepEqual(bench.function.take(), ['detach']);
  });
});

function versionOf(json: string): Uint8Array {
  const text = Buffer.from(`${json}\0`);
  return Uint8Array.from([0, 0, 0, 0, ...text]);
}

/** Sends bytes that no client would, after what it sent. */
function sendRaw(bench: Bench, bytes: Uint8Array): void {
  bench.raw.send(bytes, []);
  bench.pump();
}

test('what a version says survives encoding', () => {
  const text = Buffer.from(
    encodeVersion({
      major: 0,
      minor: 0,
      capabilities: {
        maxMessageFds: 16,
        maxDataBytes: 1048576,
        pageSizes: 4096,
        maxDmaMaps: 65535,
        writeMultiple: true,
        migration: { pageSize: 4096, maxBitmapBytes: 8 },
      },
    }).subarray(4),
  ).toString();
  assert.equal(
    text,
    '{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"pgsizes":4096,"max_dma_maps":65535,"migration":{"pgsize":4096,"max_bitmap_size":8},"write_multiple":true}}\0',
  );
});
