/**
 * A back-end under a hostile front-end: messages that make sense, in an order that does not, or
 * changed here and there; rings of a real driver in between, whose memory is scribbled over.
 *
 * Allowed are answers, the end of the connection, and a broken device. Afterwards every descriptor
 * is closed, and memory beside the guest's is untouched. Half of the devices have requests in flight
 * from one message to the next, and throw if they are stopped then.
 */

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { bitMask } from '../src/base/bits.ts';
import { closeAll, createEventFd, createPipe } from '../src/os/fd.ts';
import { createMemfd } from '../src/os/mapping.ts';
import * as vu from '../src/spec/vhost-user.ts';
import {
  encodeMessage,
  encodeRequest,
  type FrontEndMessage,
} from '../src/transport/vhost-user/codec.ts';
import {
  Bench,
  SlowDevice,
  TEST_FEATURES,
  type TestRing,
  testArena,
} from '../src/transport/vhost-user/testing.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const STEPS = 40;
const CANARY_BYTES = 4096;
const CANARY = 0xa5;

interface Hostile {
  readonly random: Random;
  readonly bench: Bench;
  readonly rings: readonly TestRing[];
  /** An eventfd, the ends of a pipe, a memory file. */
  readonly fds: readonly [number, number, number, number];
}

function address({ random, bench }: Hostile): number {
  const { guest } = bench;
  return random.pick<() => number>([
    () => guest.userAddress + random.below(16) * 0x1_0000,
    () => guest.userAddress + guest.size - random.below(8192),
    () => guest.userAddress + random.below(guest.size),
    () => random.nasty(32) * 2 ** random.below(20),
  ])();
}

function region(hostile: Hostile): FrontEndMessage & { request: typeof vu.VHOST_USER_ADD_MEM_REG } {
  const { random, bench } = hostile;
  const { guest } = bench;
  return {
    request: vu.VHOST_USER_ADD_MEM_REG,
    region: {
      guestAddress: random.oneIn(3) ? guest.guestAddress : random.nasty(31) * 4096,
      size: random.oneIn(3) ? guest.size : random.nasty(24),
      userAddress: random.oneIn(3) ? guest.userAddress : random.nasty(31) * 4096,
      mmapOffset: random.oneIn(2) ? 0 : random.nasty(23),
    },
  };
}

function message(hostile: Hostile): FrontEndMessage {
  const { random, rings } = hostile;
  const index = random.below(5);
  const features = BigInt(random.pick([0, 1 << 5, random.nasty(31)]));
  return random.pick<() => FrontEndMessage>([
    () => ({
      request: random.pick([
        vu.VHOST_USER_GET_FEATURES,
        vu.VHOST_USER_SET_OWNER,
        vu.VHOST_USER_RESET_OWNER,
        vu.VHOST_USER_RESET_DEVICE,
        vu.VHOST_USER_GET_STATUS,
        vu.VHOST_USER_SET_BACKEND_REQ_FD,
        vu.VHOST_USER_SET_LOG_FD,
      ]),
    }),
    () => ({
      request: random.pick([vu.VHOST_USER_SET_FEATURES, vu.VHOST_USER_SET_PROTOCOL_FEATURES]),
      value: random.oneIn(2) ? TEST_FEATURES | bitMask(34, 26, 30) : features,
    }),
    () => ({ request: vu.VHOST_USER_SET_STATUS, value: BigInt(random.nasty(9)) }),
    () => ({
      request: random.pick([
        vu.VHOST_USER_SET_VRING_NUM,
        vu.VHOST_USER_SET_VRING_BASE,
        vu.VHOST_USER_GET_VRING_BASE,
        vu.VHOST_USER_SET_VRING_ENABLE,
      ]),
      index,
      num: random.pick([0, 1, 32, 64, 0x8000_8000, random.nasty(32)]),
    }),
    () => ({
      request: random.pick([
        vu.VHOST_USER_SET_VRING_KICK,
        vu.VHOST_USER_SET_VRING_CALL,
        vu.VHOST_USER_SET_VRING_ERR,
      ]),
      index,
      hasFd: !random.oneIn(3),
    }),
    () => {
      const layout = rings[random.below(2)]?.layout;
      const { guest } = hostile.bench;
      const good = layout !== undefined && !random.oneIn(3);
      return {
        request: vu.VHOST_USER_SET_VRING_ADDR,
        index,
        flags: random.below(2),
        descriptor: good ? guest.userAddressOf(layout.descriptor) : address(hostile),
        available: good ? guest.userAddressOf(layout.driver) : address(hostile),
        used: good ? guest.userAddressOf(layout.device) : address(hostile),
        log: random.nasty(31),
      };
    },
    () => region(hostile),
    () => ({ ...region(hostile), request: vu.VHOST_USER_REM_MEM_REG }),
    () => ({
      request: vu.VHOST_USER_SET_MEM_TABLE,
      regions: Array.from({ length: random.below(3) }, () => region(hostile).region),
    }),
    () => ({
      request: vu.VHOST_USER_SET_LOG_BASE,
      size: random.nasty(16),
      offset: random.oneIn(2) ? 0 : random.nasty(16),
    }),
    () => ({
      request: random.pick([vu.VHOST_USER_GET_CONFIG, vu.VHOST_USER_SET_CONFIG]),
      offset: random.below(12),
      flags: random.below(3),
      contents: new Uint8Array(1 + random.below(300)),
    }),
    () => ({
      request: random.pick([vu.VHOST_USER_GET_INFLIGHT_FD, vu.VHOST_USER_SET_INFLIGHT_FD]),
      mmapSize: random.oneIn(2) ? 1 << 16 : random.nasty(16),
      mmapOffset: random.oneIn(2) ? 0 : random.pick([4096, random.nasty(16)]),
      queues: random.oneIn(2) ? 4 : random.nasty(4),
      queueSize: random.oneIn(2) ? 64 : random.nasty(11),
      padded: random.oneIn(2),
    }),
  ])();
}

/** The descriptors that a message wants, mostly. */
function fdsFor(hostile: Hostile, wanted: FrontEndMessage): number[] {
  const { random, bench, fds } = hostile;
  if (random.oneIn(12)) return [random.pick(fds), random.pick(fds)].slice(random.below(3));
  const memory = random.oneIn(4) ? fds[3] : bench.guest.fd;
  switch (wanted.request) {
    case vu.VHOST_USER_SET_MEM_TABLE:
      return wanted.regions.map(() => memory);
    case vu.VHOST_USER_ADD_MEM_REG:
      return [memory];
    case vu.VHOST_USER_SET_LOG_BASE:
    case vu.VHOST_USER_SET_INFLIGHT_FD:
      return [fds[3]];
    case vu.VHOST_USER_SET_VRING_KICK:
      return wanted.hasFd ? [random.pick([fds[0], fds[0], fds[1], fds[3]])] : [];
    case vu.VHOST_USER_SET_VRING_CALL:
    case vu.VHOST_USER_SET_VRING_ERR:
      return wanted.hasFd ? [random.pick([fds[0], fds[0], fds[2], fds[3]])] : [];
    case vu.VHOST_USER_SET_LOG_FD:
    case vu.VHOST_USER_SET_BACKEND_REQ_FD:
      return [fds[0]];
    default:
      return [];
  }
}

function step(hostile: Hostile): void {
  const { random, bench, rings } = hostile;
  if (random.oneIn(6)) {
    const { arenaAddress } = bench.guest;
    // A ring's first words: indexes, flags, descriptors.
    const at = arenaAddress + random.below(2) * 0x4_0000 + random.below(2048);
    bench.arena.bytes.set(random.bytes(1 + random.below(16)), at);
  }
  if (random.oneIn(4)) {
    for (const ring of rings) {
      try {
        ring.offer(random.below(8));
      } catch {
        return; // The driver's own ring was scribbled over.
      }
    }
  }
  const wanted = message(hostile);
  const bytes = encodeMessage(
    wanted.request,
    random.oneIn(8) ? 0 : vu.FLAG_NEED_REPLY,
    encodeRequest(wanted),
  );
  if (random.oneIn(40)) bytes[random.below(bytes.length)] = random.u32();
  bench.client.sendRaw(bytes, fdsFor(hostile, wanted));
}

function run(random: Random): void {
  const before = readdirSync('/proc/self/fd').length;
  const slow = random.oneIn(2) ? new SlowDevice(testArena()) : undefined;
  const bench = new Bench(slow === undefined ? {} : { device: slow });
  const { read, write } = createPipe();
  const fds = [createEventFd(), read, write, createMemfd('hostile', 1 << 16)] as const;
  const area = bench.arena.mapFile(fds[3], 1 << 16, 0);
  const canary = bench.arena.allocate(CANARY_BYTES);
  bench.arena.bytes.fill(CANARY, canary, canary + CANARY_BYTES);
  const packed = random.oneIn(2) ? bitMask(34) : 0n;
  const rings = bench.bringUp(TEST_FEATURES | packed, 2, random.pick([32, 64]));
  const hostile = { random, bench, rings, fds };
  for (let i = 0; i < STEPS && !bench.over; i++) {
    step(hostile);
    bench.pump();
    bench.device.poll();
    if (slow !== undefined && slow.requests.length > 0 && random.oneIn(2)) {
      slow.finish(random.below(slow.requests.length));
    }
    // The in-flight area is the front-end's to write to.
    if (random.oneIn(4)) bench.arena.bytes.set(random.bytes(8), area + random.below(4096));
    bench.loop.epoll.wait(0);
  }
  // The connection ends, whether requests are in flight or not; then they are done.
  bench.pump();
  bench.session.close();
  while (slow !== undefined && slow.requests.length > 0) slow.finish();
  bench.loop.setTimer(0, () => bench.loop.stop());
  bench.loop.run();
  assert.equal(bench.device.queues.size, 0, 'a queue was left behind');
  const about = bench.log.find((line) => /TypeError|RangeError|undefined|NaN/.test(line));
  assert.equal(about, undefined);
  const beside = bench.arena.bytes.subarray(canary, canary + CANARY_BYTES);
  assert.ok(
    beside.every((byte) => byte === CANARY),
    'memory beside the guest was written',
  );
  bench.arena.unmap(canary, CANARY_BYTES);
  bench.arena.unmap(area, 1 << 16);
  closeAll(fds);
  bench.close();
  assert.equal(readdirSync('/proc/self/fd').length, before, 'descriptors were left open');
}

export const vhostUserSession: FuzzTarget = { name: 'vhost-user-session', run };
