/** What clients do that want no device, and what a trap costs. Command by command: session.test.ts. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { MAX_DMA_MAPS } from '../../memory/dma-domain.ts';
import { closeFd } from '../../os/fd.ts';
import { createMemfd } from '../../os/mapping.ts';
import { UnixConnection } from '../../os/unix-socket.ts';
import * as vfu from '../../spec/vfio-user.ts';
import { pipePair } from '../pipe.ts';
import {
  EMPTY_PAYLOAD,
  encodeMessage,
  MAX_MESSAGE_FDS,
  type Message,
  payloadOf,
  putU64,
  Refusal,
} from './codec.ts';
import { MessageReader } from './framing.ts';
import { Bench, openDescriptors, SHARED_BYTES } from './testing.ts';

const KB = 1024;
const [EEXIST, EINVAL] = [17, 22];
const refused = (errno: number) => (error: unknown) =>
  error instanceof Refusal && error.errno === errno;
const nothing = (): void => undefined;

describe('a client that wants no device', () => {
  let bench: Bench;
  let before = 0;
  let memory = -1;

  beforeEach(() => {
    before = openDescriptors();
    bench = Bench.ready({ socket: true });
    memory = createMemfd('guest', 64 * KB);
  });

  afterEach(() => {
    closeFd(memory);
    bench.close();
    assert.equal(openDescriptors(), before, 'descriptors leaked');
    assert.equal(bench.files.count, 0, 'memory stayed mapped');
  });

  const descriptors = (count: number): number[] => Array.from({ length: count }, () => memory);

  test('test_descriptors_with_pieces_of_a_message_are_bounded', () => {
    const message = encodeMessage(1, vfu.VFIO_USER_REGION_WRITE, 0, new Uint8Array(64 * KB));
    for (let piece = 0; piece < 64 && !bench.over; piece++) {
      bench.raw.send(
        message.subarray(piece * 100, (piece + 1) * 100),
        descriptors(MAX_MESSAGE_FDS),
      );
      bench.pump();
      assert.ok(openDescriptors() < before + 100, `${openDescriptors() - before} descriptors`);
    }
    assert.ok(bench.over);
    assert.match(bench.log.join(), /more than 16 descriptors/);
  });

  test('test_descriptors_of_a_message_and_of_the_next_that_come_at_once', () => {
    const channels = pipePair();
    const [near, far] = channels;
    const reader = new MessageReader(far);
    const message = encodeMessage(1, vfu.VFIO_USER_DEVICE_SET_IRQS, 0, new Uint8Array(20));
    near.send(message.subarray(0, 20), descriptors(MAX_MESSAGE_FDS));
    assert.equal(reader.read(), undefined);
    near.send(message.subarray(20), []);
    near.send(message, descriptors(MAX_MESSAGE_FDS - 1));
    for (const count of [MAX_MESSAGE_FDS, MAX_MESSAGE_FDS - 1]) {
      assert.equal((reader.read() as Message).length, 20);
      const bag = reader.takeFds();
      assert.equal(bag.count, count);
      bag.close();
    }
    // Too many of one message, though each piece brings few.
    near.send(message.subarray(0, 20), descriptors(MAX_MESSAGE_FDS));
    near.send(message.subarray(20), descriptors(1));
    assert.notEqual(reader.read(), undefined);
    assert.throws(() => reader.takeFds(), { code: 'protocol', message: /more than 16/ });
    reader.close();
    for (const channel of channels) channel.close();
  });

  test('test_descriptors_of_commands_that_wait_are_bounded', () => {
    bench.function.busy = true;
    bench.client.tell(vfu.VFIO_USER_DEVICE_RESET, EMPTY_PAYLOAD);
    const held = encodeMessage(2, vfu.VFIO_USER_DEVICE_GET_INFO, vfu.FLAG_NO_REPLY, EMPTY_PAYLOAD);
    for (let sent = 0; sent < 100; sent++) {
      if (bench.raw.send(held, descriptors(MAX_MESSAGE_FDS)) !== held.length) break;
      bench.pump();
    }
    assert.ok(openDescriptors() < before + 200, `${openDescriptors() - before} descriptors`);
    bench.function.finish();
    for (let i = 0; i < 100; i++) bench.pump();
    assert.deepEqual(bench.function.take(), ['reset']);
    bench.client.deviceInfo();
  });

  for (const waits of [false, true]) {
    test(`test_long_accesses_leave_time_for_others_${waits ? 'after_a_reset' : 'at_once'}`, () => {
      const { client, session, function: scratch } = bench;
      scratch.busy = waits;
      if (waits) client.tell(vfu.VFIO_USER_DEVICE_RESET, EMPTY_PAYLOAD);
      const payload = payloadOf(vfu.REGION_ACCESS_BYTES, (view) => {
        view.setUint32(8, vfu.REGION_BAR0 + 2, true);
        view.setUint32(12, SHARED_BYTES, true);
      });
      // None wants its answer.
      for (let i = 0; i < 10; i++) client.tell(vfu.VFIO_USER_REGION_READ, payload);
      client.post(0, 0, 4, 7);
      for (let i = 0; waits && i < 100; i++) bench.pump();
      if (waits) scratch.finish();
      session.readable();
      const first = scratch.take().length;
      assert.ok(first > 0 && first <= (3 * SHARED_BYTES) / 4 + 1, `${first} accesses at once`);
      assert.equal(client.read(0, 0, 4), 7);
      const rest = scratch.take();
      assert.equal(first + rest.length, Number(waits) + (10 * SHARED_BYTES) / 4 + 2);
      assert.deepEqual(rest.slice(-2), ['write 0+0/4=7', 'read 0+0/4']);
    });
  }

  test('test_a_million_maps_end_at_the_bound', () => {
    const { client, session } = bench;
    // Most want no answer, so that the test need not wait for each.
    for (let i = 0; i < MAX_DMA_MAPS - 1; i++) client.tell(vfu.VFIO_USER_DMA_MAP, remoteMap(i));
    client.map({ iova: MAX_DMA_MAPS * 8 * KB, length: 4 * KB });
    assert.equal(session.domain.count, MAX_DMA_MAPS);
    assert.throws(() => client.map({ iova: 2 ** 40, length: 4 * KB }), refused(EINVAL));
    for (let i = 0; i < 100; i++) client.tell(vfu.VFIO_USER_DMA_MAP, remoteMap(2 ** 20 + i));
    client.deviceInfo();
    assert.equal(session.domain.count, MAX_DMA_MAPS);
    client.unmap(0, 4 * KB);
    client.map({ iova: 0, length: 4 * KB, fd: memory });
    client.unmapAll();
    assert.equal(session.domain.count, 0);
  });

  test('test_maps_that_overlap_or_wrap_are_refused', () => {
    const { client, session } = bench;
    client.map({ iova: 16 * KB, length: 16 * KB, fd: memory });
    for (const [iova, length] of [
      [16, 16],
      [12, 8],
      [28, 8],
      [20, 4],
      [0, 1024],
    ] as const) {
      assert.throws(
        () => client.map({ iova: iova * KB, length: length * KB }),
        refused(EEXIST),
        `${iova} KiB, ${length} KiB`,
      );
    }
    const raw = new Uint8Array(vfu.DMA_MAP_BYTES);
    const view = new DataView(raw.buffer);
    const ask = (iova: bigint, length: bigint): void => {
      view.setUint32(0, raw.length, true);
      view.setUint32(4, vfu.DMA_MAP_READABLE | vfu.DMA_MAP_WRITEABLE, true);
      view.setBigUint64(16, iova, true);
      view.setBigUint64(24, length, true);
      client.ask(vfu.VFIO_USER_DMA_MAP, raw, nothing);
    };
    const page = 4096n;
    for (const [iova, length] of [
      [2n ** 64n - page, 2n * page],
      [2n ** 64n - page, page],
      [2n ** 53n - page, 2n * page],
      [page, 2n ** 64n - page],
    ] as const) {
      assert.throws(() => ask(iova, length), refused(EINVAL), `0x${iova.toString(16)}`);
    }
    assert.equal(session.domain.count, 1);
  });

  test('test_written_pages_of_vast_memory_without_a_descriptor', () => {
    const { client } = bench;
    const length = 2 ** 52;
    client.map({ iova: 0, length });
    client.logDirty(true);
    const pageBytes = 2 ** 31;
    const request = new Uint8Array(vfu.DIRTY_PAGES_BYTES + vfu.DIRTY_RANGE_BYTES);
    const view = new DataView(request.buffer);
    view.setUint32(4, vfu.DIRTY_PAGES_GET_BITMAP, true);
    view.setBigUint64(16, BigInt(length), true);
    view.setBigUint64(24, BigInt(pageBytes), true);
    view.setBigUint64(32, BigInt(length / pageBytes / 8), true);
    const bits = client.ask(vfu.VFIO_USER_DIRTY_PAGES, request, (m) =>
      m.bytes.slice(m.at + request.length, m.at + m.length),
    );
    assert.equal(bits.length, length / pageBytes / 8);
    assert.ok(bits.every((byte) => byte === 0));
    client.unmapAll();
  });

  /** The payload of a map of one page of memory without a descriptor. */
  function remoteMap(index: number): Uint8Array {
    return payloadOf(vfu.DMA_MAP_BYTES, (view) => {
      view.setUint32(4, vfu.DMA_MAP_READABLE, true);
      putU64(view, 16, index * 8 * KB);
      putU64(view, 24, 4 * KB);
    });
  }

  for (const [name, length] of [
    ['in its header', 9],
    ['in its payload', 30],
  ] as const) {
    test(`test_client_that_vanishes_${name.replaceAll(' ', '_')}`, () => {
      bench.client.map({ iova: 0, length: 4 * KB, fd: memory });
      const message = encodeMessage(1, vfu.VFIO_USER_REGION_WRITE, 0, new Uint8Array(64));
      bench.raw.send(message.subarray(0, length), [memory]);
      bench.client.close();
      bench.pump();
      assert.ok(bench.freed);
      assert.deepEqual(bench.function.take(), ['detach']);
    });
  }
});

describe('what a trap costs', () => {
  test('test_one_receive_and_one_send_a_trap', (t) => {
    const bench = Bench.ready({ socket: true });
    bench.client.read(0, 0, 4);
    const receive = t.mock.method(UnixConnection.prototype, 'receive');
    const send = t.mock.method(UnixConnection.prototype, 'send');
    const write = (): number =>
      bench.raw.send(
        encodeMessage(1, vfu.VFIO_USER_REGION_WRITE, vfu.FLAG_NO_REPLY, posted(0, 7)),
        [],
      );
    const read = encodeMessage(2, vfu.VFIO_USER_REGION_READ, 0, posted(0, 7).subarray(0, 16));
    // Posted writes and the read behind them come in one look.
    for (let i = 0; i < 10; i++) write();
    bench.raw.send(read, []);
    const [received, sent] = [receive.mock.callCount(), send.mock.callCount()];
    assert.ok(bench.session.readable());
    assert.equal(receive.mock.callCount() - received, 1);
    assert.equal(send.mock.callCount() - sent, 1);
    assert.equal(bench.function.take().length, 12);
    bench.close();
  });

  test('test_a_socket_in_use_is_looked_at_between_turns', () => {
    const bench = Bench.ready({ socket: true });
    bench.client.post(0, 4, 4, 9);
    // Nobody tells the session: its descriptor is in no epoll set.
    bench.loop.setTimer(1000, () => bench.loop.stop());
    bench.loop.run();
    assert.deepEqual(bench.function.take(), ['write 0+4/4=9']);
    bench.close();
  });

  /** The payload of a write of four bytes to BAR 0. */
  function posted(offset: number, value: number): Uint8Array {
    const payload = new Uint8Array(vfu.REGION_ACCESS_BYTES + 4);
    const view = new DataView(payload.buffer);
    view.setUint32(0, offset, true);
    view.setUint32(12, 4, true);
    view.setUint32(16, value, true);
    return payload;
  }
});
