/**
 * The virtio block device under a hostile guest: chains and headers of any shape, rings and notes of
 * what is in flight that are scribbled over, resets, deaths of the device with requests in flight, on
 * disks that fail, dawdle and lose their power.
 *
 * Half of the guests keep to the rules of rings and are hostile in requests alone: each of theirs is
 * answered exactly once. Whatever they do, the disk gets legal requests only, a guest beside them
 * notices nothing, and a good guest that takes the device over finds all of its slots free.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { SluiceError } from '../src/base/errors.ts';
import { silentLogger } from '../src/base/log.ts';
import type { Disk, DiskLane } from '../src/block/disk.ts';
import type { FaultRule } from '../src/block/fault-plan.ts';
import { FaultyDisk } from '../src/block/faults.ts';
import { LimitedDisk } from '../src/block/limits.ts';
import { MemoryDisk } from '../src/block/memory.ts';
import { PowerCutDisk } from '../src/block/power-cut.ts';
import { GuestQueue, type Offered, type Shape } from '../src/device/virtio-blk/testing.ts';
import { VirtioBlk } from '../src/device/virtio-blk/virtio-blk.ts';
import { PollLoop } from '../src/os/poll-loop.ts';
import { createDeviceQueue } from '../src/ring/create.ts';
import { InflightRegion } from '../src/ring/inflight-region.ts';
import { MockDriver, type RawDescriptor } from '../src/ring/mock-driver.ts';
import { type RingPair, type RingPairOptions, testArena } from '../src/ring/ring-pair.ts';
import {
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../src/spec/virtio.ts';
import {
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from '../src/spec/virtio-blk.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';
import { WatchedDisk } from './watched-disk.ts';

const STEPS = 40;
const QUEUES = 2;
const CANARY_BYTES = 4096;
const CANARY = 0xa5;
/** What a turn of the loop may leave undone: every delay of a disk is shorter than all of these turns. */
const MOST_TURNS = 2000;
const REGION_BYTES = 16 * 1024;
/** A chain of a guest that keeps to the rules has no more descriptors. */
const MOST_PIECES = 6;

const TYPES = [
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_T_GET_ID,
] as const;

const loop = new PollLoop();
const lane: DiskLane = { arena: testArena(), loop, log: silentLogger };

/** Lets everything that is polled have some turns. */
function turn(): void {
  loop.setTimer(0, () => loop.stop());
  loop.run();
}

function turnUntil(what: string, condition: () => boolean): void {
  for (let turns = 0; !condition(); turns++) {
    assert.ok(turns < MOST_TURNS, `waited in vain for ${what}`);
    turn();
  }
}

function rules(random: Random): FaultRule[] {
  const rule = (): FaultRule =>
    random.pick<FaultRule>([
      { fault: 'error', probability: 0.2 },
      { fault: 'torn', every: 3 },
      { fault: 'drop', every: 5 },
      { fault: 'delay', us: 1, randomUs: 300, probability: 0.3 },
      { fault: 'error', from: 8, to: 64, errno: 'ENOSPC' },
    ]);
  return Array.from({ length: 1 + random.below(3) }, rule);
}

interface Stack {
  readonly watched: WatchedDisk;
  readonly power: PowerCutDisk | undefined;
  readonly sectors: number;
}

/** A disk in memory, with wrappers around it. */
function stack(random: Random, isGuests: (at: number, length: number) => boolean): Stack {
  const bytes = 4096 * (1 + random.below(64));
  const blockBytes = random.pick([512, 512, 4096]);
  const readonly = random.oneIn(6);
  const base = new MemoryDisk({ kind: 'memory', name: 'mem', bytes, readonly, blockBytes }, lane);
  const power =
    readonly || random.oneIn(2)
      ? undefined
      : new PowerCutDisk(base, lane, {
          seed: random.u32(),
          cacheBytes: random.pick([4096, 64 * 1024]),
        });
  let disk: Disk = power ?? base;
  if (random.oneIn(2)) disk = new FaultyDisk(disk, { seed: random.u32(), rules: rules(random) });
  if (random.oneIn(5)) disk = new LimitedDisk(disk, { iops: 1_000_000, burst: 1 });
  return { watched: new WatchedDisk(disk, isGuests), power, sectors: bytes / 512 };
}

function regionOf(bytes: Uint8Array): InflightRegion {
  return new InflightRegion(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** A guest and its device. */
class Rig {
  readonly random: Random;
  readonly ring: RingPairOptions;
  readonly guests: GuestQueue[];
  readonly raw: MockDriver[];
  readonly stack: Stack;
  /** What is noted to be in flight, by queue. */
  readonly regions: Uint8Array[];
  readonly slots: number;
  device: VirtioBlk;
  broken = false;
  /** Whose last byte for the device to write belongs to the data, if there is one. */
  readonly withoutStatus = new Set<Offered>();
  readonly #extra: RingPair[] = [];

  constructor(random: Random) {
    this.random = random;
    const packed = random.oneIn(2);
    this.ring = {
      packed,
      size: packed ? MOST_PIECES + random.below(60) : 2 ** (3 + random.below(5)),
      eventIdx: random.oneIn(2),
      indirect: random.oneIn(2),
      indirectLength: 2 * MOST_PIECES,
    };
    this.guests = Array.from({ length: QUEUES }, () => new GuestQueue(this.ring));
    this.raw = this.guests.map(({ pair }) => new MockDriver(pair));
    this.regions = this.guests.map(() => new Uint8Array(REGION_BYTES));
    this.slots = 1 + random.below(40);
    this.stack = stack(random, (at, length) => this.#isGuests(at, length));
    this.device = this.#plug();
  }

  /** A device comes up with the rings as they are; the notes tell it where they stand. */
  #plug(): VirtioBlk {
    const { random, slots } = this;
    const device = new VirtioBlk({
      name: 'web/disk0',
      disk: this.stack.watched,
      queues: QUEUES,
      slots,
      segMax: 1 + random.below(12),
      arena: lane.arena,
      loop,
      log: silentLogger,
    });
    device.onBroken = () => {
      this.broken = true;
    };
    device.setDriverFeatures(
      random.oneIn(3) ? device.features & BigInt(random.u32()) : device.features,
    );
    this.broken = false;
    for (const index of this.guests.keys()) this.startQueue(device, index);
    loop.addPoller(device);
    return device;
  }

  startQueue(device: VirtioBlk, index: number): void {
    const { pair } = this.guests[index] as GuestQueue;
    const { memory, layout } = pair;
    const start = (region: Uint8Array): void =>
      device.startQueue(
        index,
        createDeviceQueue({
          arena: lane.arena,
          memory,
          size: layout.size,
          packed: layout.packed,
          eventIdx: this.ring.eventIdx ?? false,
          indirect: this.ring.indirect ?? false,
          inOrder: false,
          descriptor: memory.translate(layout.descriptor, 1),
          driver: memory.translate(layout.driver, 1),
          device: memory.translate(layout.device, 1),
          direction: device.direction(index),
          interrupt: { signal: () => pair.calls++ },
          position: layout.packed ? { avail: 0x8000, used: 0x8000 } : { avail: 0, used: 0 },
          inflight: regionOf(region),
        }),
      );
    try {
      start(this.regions[index] as Uint8Array);
    } catch (error) {
      // Notes that a guest's VMM has made worthless.
      if (!(error instanceof SluiceError)) throw error;
      const region = new Uint8Array(REGION_BYTES);
      this.regions[index] = region;
      start(region);
    }
    device.setQueueEnabled(index, true);
  }

  /** As a transport does before it answers: nothing is in flight when this returns. */
  drain(): void {
    if (this.stack.power?.isOff === true) this.stack.power.restore();
    const { device } = this;
    let drained = device.hold(undefined);
    device.onDrained = () => {
      drained = true;
    };
    turnUntil('the requests in flight', () => drained);
    assert.ok(device.idle);
  }

  /** The driver resets the device and starts it again. */
  reset(): void {
    this.drain();
    this.device.reset();
    this.broken = false;
    this.device.setDriverFeatures(this.device.features);
    for (const index of this.guests.keys()) this.startQueue(this.device, index);
  }

  /** The process of the device is killed, and another one takes over. */
  crash(): void {
    const { device, stack: disks } = this;
    loop.removePoller(device);
    disks.watched.abandon();
    disks.watched.held = false;
    if (disks.power?.isOff === true) disks.power.restore();
    this.device = this.#plug();
    this.leave(device);
  }

  /** A device that nobody hears of any more gives its memory back when the disk is done with it. */
  leave(device: VirtioBlk): void {
    const queue = (device as unknown as { diskQueue: { inFlight: number; poll(): number } })
      .diskQueue;
    turnUntil('the disk to end', () => {
      queue.poll();
      return queue.inFlight === 0;
    });
    device.close();
  }

  #isGuests(at: number, length: number): boolean {
    return [...this.guests.map(({ pair }) => pair), ...this.#extra].some(({ memory }) =>
      memory.regions.some(
        (region) => at >= region.arenaAddress && at + length <= region.arenaAddress + region.size,
      ),
    );
  }

  /** A good guest takes the device over: every slot is free, every request answered. */
  checkGoodGuest(): void {
    this.drain();
    this.device.reset();
    this.device.setDriverFeatures(this.device.features);
    const good = new GuestQueue({ packed: this.ring.packed, size: 256 });
    this.#extra.push(good.pair);
    const { watched } = this.stack;
    this.device.startQueue(0, good.pair.device);
    this.device.setQueueEnabled(0, true);
    watched.held = true;
    const blockBytes = watched.info.blockBytes;
    for (let i = 0; i < this.slots; i++) good.offer(VIRTIO_BLK_T_IN, 0, undefined, blockBytes);
    good.publish();
    turn();
    assert.equal(watched.inFlight, this.slots, 'slots were lost');
    watched.held = false;
    turnUntil('a good guest’s requests', () => {
      good.collect();
      return good.waiting.size === 0;
    });
    this.drain();
    this.device.stopQueue(0);
  }

  close(): void {
    loop.removePoller(this.device);
    this.device.reset();
    this.device.close();
    this.stack.watched.close();
    for (const { pair } of this.guests) pair.release();
    for (const pair of this.#extra) pair.release();
  }
}

function sector({ random, stack: { sectors } }: Rig): bigint {
  return random.oneIn(4)
    ? BigInt(random.nasty(32)) * 2n ** BigInt(random.below(33))
    : BigInt(random.below(sectors + 2));
}

function header(rig: Rig): Buffer {
  const { random } = rig;
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32LE(random.oneIn(8) ? random.nasty(32) : random.pick(TYPES), 0);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, sector(rig)), 8);
  return bytes;
}

/** Data that may be ranges of a discard. */
function payload(rig: Rig): Buffer {
  const { random } = rig;
  if (random.oneIn(2))
    return Buffer.from(random.bytes(512 * random.below(9) + random.pick([0, 0, 0, 7])));
  const bytes = Buffer.alloc(16 * random.below(5));
  for (let at = 0; at < bytes.length; at += 16) {
    bytes.writeBigUInt64LE(BigInt.asUintN(64, sector(rig)), at);
    bytes.writeUInt32LE(random.oneIn(4) ? random.nasty(32) : random.below(40), at + 8);
    bytes.writeUInt32LE(random.oneIn(4) ? random.nasty(32) : random.below(2), at + 12);
  }
  return bytes;
}

/** Requests of a guest that keeps to the rules of its ring, whatever is in them. */
function offerRequests(rig: Rig, guest: GuestQueue): void {
  const { random, ring } = rig;
  const most = Math.floor(ring.size / MOST_PIECES);
  for (let i = random.below(8); i > 0 && guest.waiting.size < most; i--) {
    const type = random.oneIn(10) ? random.nasty(32) : random.pick(TYPES);
    const pieces = (): number[] =>
      Array.from({ length: random.below(2) }, () => 1 + random.below(600));
    const shape: Shape = {
      readable: pieces(),
      writable: pieces(),
      indirect: ring.indirect === true && random.oneIn(2),
      ...(random.oneIn(30) ? { headerBytes: random.below(16) } : {}),
      ...(random.oneIn(150) ? { noStatus: true } : {}),
    };
    const room = random.oneIn(2) ? 512 * random.below(9) + random.pick([0, 0, 0, 1]) : 20;
    const out = payload(rig);
    const offered = guest.offer(type, BigInt.asUintN(64, sector(rig)), out, room, shape);
    if (shape.noStatus === true) rig.withoutStatus.add(offered);
    // Its header changes while the device may read it.
    else if (shape.headerBytes === undefined && random.oneIn(10))
      guest.write(offered.dataAt - out.length - 16, header(rig));
  }
  guest.publish();
}

function address({ random }: Rig, pair: RingPair): bigint {
  const { buffers, border, end, layout } = pair;
  return random.pick<() => bigint>([
    () => BigInt(buffers + random.below(end - buffers)),
    () => BigInt(random.pick([buffers, border, end, layout.descriptor]) + random.below(64) - 32),
    () => BigInt(random.nasty(32)) * 2n ** 32n + BigInt(random.nasty(32)),
  ])();
}

/** Anything a guest can write. */
function scribble(rig: Rig, index: number): void {
  const { random } = rig;
  const raw = rig.raw[index] as MockDriver;
  const { pair } = raw;
  const { layout } = pair;
  const region = rig.regions[index] as Uint8Array;
  const size = layout.size;
  const guest = rig.guests[index] as GuestQueue;
  const at = (length: number): number =>
    pair.buffers + random.below(pair.end - pair.buffers - length);
  const descriptor = (flags: number, length: number, where?: number): RawDescriptor => ({
    address: where ?? address(rig, pair),
    length,
    flags,
    link: random.oneIn(8) ? random.nasty(16) : (raw.idx + 1 + random.below(2)) % size,
  });
  switch (random.below(8)) {
    case 0:
    case 1:
    case 2:
    case 3: {
      // Most of a request: its pieces are where they ought to be, or nearly.
      const headAt = at(16);
      guest.write(headAt, header(rig));
      const next = (i: number, flags: number, length: number, where: number): RawDescriptor => ({
        address: where,
        length,
        flags: flags | (i < 2 ? VIRTQ_DESC_F_NEXT : 0),
        link: layout.packed ? random.below(size) : (raw.idx + 1 + i) % size,
      });
      const length = random.oneIn(4) ? random.below(9000) : 512 * (1 + random.below(8));
      const writes = random.oneIn(2) ? VIRTQ_DESC_F_WRITE : 0;
      raw.offer(
        next(0, 0, random.oneIn(20) ? random.below(40) : 16, headAt),
        next(1, writes, length, at(9000)),
        next(2, random.oneIn(20) ? 0 : VIRTQ_DESC_F_WRITE, 1, at(1)),
      );
      return;
    }
    case 4: {
      const count = 1 + random.below(4);
      raw.offer(
        ...Array.from({ length: count }, (_, i) =>
          descriptor(
            (i < count - 1 ? VIRTQ_DESC_F_NEXT : 0) | (random.oneIn(2) ? VIRTQ_DESC_F_WRITE : 0),
            random.nasty(random.pick([6, 13, 32])),
          ),
        ),
      );
      return;
    }
    case 5: {
      const table = random.pick([pair.buffers, pair.border, pair.end - 64]);
      for (let i = 0; i < 4; i++)
        raw.write(table, i, descriptor(random.below(8), random.below(2000)));
      raw.offer(descriptor(VIRTQ_DESC_F_INDIRECT, 16 * random.below(6), table));
      return;
    }
    case 6:
      raw.poke(layout.descriptor + 4 * random.below(layout.bytes / 4), random.nasty(32));
      return;
    default:
      region.set(random.bytes(1 + random.below(8)), random.below(512));
  }
}

/** A good guest on a disk of its own: what it writes it can read. */
class Bystander {
  readonly #queue = new GuestQueue({ packed: false, size: 64 });
  readonly #disk = new MemoryDisk(
    { kind: 'memory', name: 'other', bytes: 65536, readonly: false, blockBytes: 512 },
    lane,
  );
  readonly #device = new VirtioBlk({
    name: 'db/disk0',
    disk: this.#disk,
    queues: 1,
    arena: lane.arena,
    loop,
    log: silentLogger,
    segMax: 62,
  });

  constructor() {
    this.#device.setDriverFeatures(this.#device.features);
    this.#device.startQueue(0, this.#queue.pair.device);
    this.#device.setQueueEnabled(0, true);
    loop.addPoller(this.#device);
  }

  check(random: Random): void {
    const bytes = random.bytes(512 * (1 + random.below(8)));
    const at = random.below(100);
    assert.equal(this.#do(VIRTIO_BLK_T_OUT, at, bytes, 0).status, 0);
    assert.deepEqual(
      this.#do(VIRTIO_BLK_T_IN, at, undefined, bytes.length).data,
      Buffer.from(bytes),
    );
  }

  #do(type: number, from: number, out: Uint8Array | undefined, room: number) {
    const offered = this.#queue.offer(type, from, out, room);
    this.#queue.publish();
    turnUntil('the guest beside', () => this.#queue.collect().includes(offered));
    return offered;
  }

  close(): void {
    loop.removePoller(this.#device);
    this.#device.reset();
    this.#device.close();
    this.#disk.close();
    this.#queue.pair.release();
  }
}

function step(rig: Rig, sane: boolean): void {
  const { random, stack: disks } = rig;
  const index = random.below(QUEUES);
  if (sane) offerRequests(rig, rig.guests[index] as GuestQueue);
  else for (let i = random.below(8); i >= 0; i--) scribble(rig, index);
  if (random.oneIn(3)) disks.watched.held = !disks.watched.held;
  turn();
  if (random.oneIn(12)) {
    disks.watched.held = false;
    random.pick([() => rig.reset(), () => rig.crash()])();
  }
  if (disks.power !== undefined && random.oneIn(12)) {
    if (disks.power.isOff) disks.power.restore();
    else if (disks.power.hasPower) disks.power.powerCut();
  }
}

/** Takes back what was answered: once each, with a status that there is. */
function collect(rig: Rig): void {
  for (const guest of rig.guests) {
    for (const offered of guest.collect()) {
      const { status = -1 } = offered;
      const isKnown =
        rig.withoutStatus.has(offered) || (status >= 0 && status <= VIRTIO_BLK_S_UNSUPP);
      assert.ok(isKnown, `status ${status}`);
    }
  }
}

function run(random: Random): void {
  const { arena } = lane;
  const descriptors = readdirSync('/proc/self/fd').length;
  const canary = arena.allocate(CANARY_BYTES);
  arena.bytes.fill(CANARY, canary, canary + CANARY_BYTES);
  const bystander = new Bystander();
  const rig = new Rig(random);
  const sane = random.oneIn(2);
  for (let i = 0; i < STEPS; i++) {
    step(rig, sane);
    if (sane) collect(rig);
    if (random.oneIn(10)) bystander.check(random);
    if (!rig.broken) continue;
    // A guest that broke its device resets it; one that kept to the rules has no more to say.
    if (sane) break;
    rig.stack.watched.held = false;
    rig.reset();
  }
  rig.stack.watched.held = false;
  if (sane && !rig.broken) {
    turnUntil('all answers', () => {
      collect(rig);
      if (rig.stack.power?.isOff === true) rig.stack.power.restore();
      return rig.broken || rig.guests.every(({ waiting }) => waiting.size === 0);
    });
  }
  rig.checkGoodGuest();
  bystander.check(random);
  rig.close();
  bystander.close();
  const beside = arena.bytes.subarray(canary, canary + CANARY_BYTES);
  assert.ok(
    beside.every((byte) => byte === CANARY),
    'memory beside the guest was written',
  );
  arena.unmap(canary, CANARY_BYTES);
  assert.equal(readdirSync('/proc/self/fd').length, descriptors, 'descriptors were left open');
}

export const virtioBlk: FuzzTarget = { name: 'virtio-blk', run };
