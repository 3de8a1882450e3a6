/**
 * A back-end and a front-end in one process, joined by a pipe or a socket, around a device that
 * returns each buffer it gets. For tests and fuzzing.
 */
import { bitMask, hasBit } from '../../base/bits.ts';
import { loggerTo } from '../../base/log.ts';
import type { VirtioDevice } from '../../device/virtio-device.ts';
import { Arena } from '../../memory/arena.ts';
import { closeFd, createEventFd, drainEventFd, signalEventFd } from '../../os/fd.ts';
import { createMemfd } from '../../os/mapping.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { unixSocketPair } from '../../os/unix-socket.ts';
import { BATCH, ChainBatch } from '../../ring/chain-batch.ts';
import { createDriverQueue } from '../../ring/create-driver.ts';
import type { DeviceQueue, Direction } from '../../ring/device-queue.ts';
import { RingError } from '../../ring/device-queue.ts';
import { type DriverQueue, layOutQueue, type QueueLayout } from '../../ring/driver-queue.ts';
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_NET,
} from '../../spec/virtio.ts';
import { SocketChannel } from '../channel.ts';
import { type PipeOptions, pipePair } from '../pipe.ts';
import { VhostUserClient } from './client.ts';
import { INITIAL_PACKED_BASE } from './position-journal.ts';
import { type SessionOptions, VhostUserSession } from './session.ts';

/** Gives back each buffer: what it may write to it fills with the byte 0x55. */
export class ReturningDevice implements VirtioDevice {
  readonly type = VIRTIO_ID_NET;
  readonly maxQueues = 4;
  readonly maxQueueSize = 1024;
  readonly features = bitMask(5, 16);
  readonly configFeatures = bitMask(5, 16);
  readonly configBytes = 12;
  readonly config = Uint8Array.from({ length: 12 }, (_, index) => index + 1);
  onConfigChange: (() => void) | undefined;
  onBroken: ((reason: Error) => void) | undefined;
  driverFeatures = 0n;
  mtu = 0;
  kicks = 0;
  calls = 0;
  resets = 0;
  /** Hold buffers back instead of returning them. */
  paused = false;
  readonly announced: string[] = [];
  readonly queues = new Map<number, DeviceQueue>();
  readonly enabled = new Set<number>();
  readonly #arena: Arena;
  readonly #batch = new ChainBatch();

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  direction(index: number): Direction {
    return index % 2 === 0 ? 'writable' : 'readable';
  }

  readConfig(): Uint8Array {
    return this.config;
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    this.config.set(bytes, offset);
  }

  setDriverFeatures(features: bigint): void {
    this.driverFeatures = features;
  }

  startQueue(index: number, queue: DeviceQueue): void {
    this.queues.set(index, queue);
  }

  stopQueue(index: number): void {
    this.queues.delete(index);
  }

  setQueueEnabled(index: number, enabled: boolean): void {
    if (enabled) this.enabled.add(index);
    else this.enabled.delete(index);
  }

  announce(mac: Uint8Array): void {
    this.announced.push(Buffer.from(mac).toString('hex'));
  }

  setMtu(mtu: number): void {
    this.mtu = mtu;
  }

  countKick(): void {
    this.kicks++;
  }

  countCall(): void {
    this.calls++;
  }

  reset(): void {
    this.resets++;
    this.queues.clear();
    this.enabled.clear();
    this.driverFeatures = 0n;
  }

  poll(): number {
    let work = 0;
    for (const [index, queue] of this.queues) {
      if (this.enabled.has(index) && !this.paused) work += this.#serve(queue);
    }
    return work;
  }

  #serve(queue: DeviceQueue): number {
    const batch = this.#batch;
    batch.clear();
    try {
      const count = queue.collect(batch, BATCH);
      for (let slot = 0; slot < count; slot++) queue.complete(batch, slot, this.#fill(batch, slot));
      queue.publish();
      return count;
    } catch (error) {
      if (!(error instanceof RingError)) throw error;
      this.queues.clear();
      this.onBroken?.(error);
      return 0;
    }
  }

  #fill(batch: ChainBatch, slot: number): number {
    if (batch.readable[slot] !== 0) return 0;
    const at = batch.address[slot] as number;
    const length = batch.length[slot] as number;
    this.#arena.bytes.fill(0x55, at, at + length);
    return length;
  }
}

interface Request {
  readonly index: number;
  readonly id: number;
  readonly span: number;
  /** Where its buffer lies. */
  readonly address: number;
}

/** Takes requests when it is polled, and finishes them when it is told to. */
export class SlowDevice extends ReturningDevice {
  readonly tracksInflight = true;
  onDrained: (() => void) | undefined;
  /** Oldest first. */
  requests: Request[] = [];
  readonly held = new Set<number>();
  #draining: number | undefined | 'nothing' = 'nothing';
  readonly #taken = new ChainBatch();

  override startQueue(index: number, queue: DeviceQueue): void {
    this.held.delete(index);
    super.startQueue(index, queue);
  }

  override stopQueue(index: number): void {
    if (this.#inFlight(index))
      throw new Error(`queue ${index} was stopped with requests in flight`);
    super.stopQueue(index);
  }

  override setQueueEnabled(index: number, enabled: boolean): void {
    if (enabled) this.held.delete(index);
    super.setQueueEnabled(index, enabled);
  }

  override reset(): void {
    if (this.requests.length > 0) throw new Error('the device was reset with requests in flight');
    this.held.clear();
    super.reset();
  }

  hold(index: number | undefined): boolean {
    for (const queue of index === undefined ? this.queues.keys() : [index]) this.held.add(queue);
    if (!this.#inFlight(index)) return true;
    this.#draining = index;
    return false;
  }

  override poll(): number {
    let work = 0;
    for (const [index, queue] of this.queues) {
      if (!this.enabled.has(index) || this.held.has(index)) continue;
      const batch = this.#taken;
      batch.clear();
      try {
        work += queue.collect(batch, BATCH);
      } catch (error) {
        if (!(error instanceof RingError)) throw error;
        this.queues.clear();
        this.onBroken?.(error);
        return work;
      }
      for (let slot = 0; slot < batch.count; slot++) {
        this.requests.push({
          index,
          id: batch.id[slot] as number,
          span: batch.span[slot] as number,
          address: batch.address[slot] as number,
        });
      }
    }
    return work;
  }

  /** Finishes the request at a place in the list. */
  finish(at = 0): void {
    const [request] = this.requests.splice(at, 1);
    if (request === undefined) throw new Error('nothing is in flight');
    const queue = this.queues.get(request.index);
    queue?.completeChain(request.id, request.span, request.index % 2 === 0 ? 100 : 0);
    queue?.publish();
    if (this.#draining === 'nothing' || this.#inFlight(this.#draining)) return;
    this.#draining = 'nothing';
    this.onDrained?.();
  }

  #inFlight(index: number | undefined): boolean {
    return this.requests.some((request) => index === undefined || request.index === index);
  }
}

/** A guest's memory of one piece, and its rings. */
export class TestGuest {
  readonly fd: number;
  readonly size: number;
  readonly guestAddress = 0x10_0000;
  readonly userAddress = 0x7f00_0000_0000;
  readonly arena: Arena;
  readonly arenaAddress: number;

  constructor(arena: Arena, size = 4 << 20, sealed = true) {
    this.arena = arena;
    this.size = size;
    this.fd = createMemfd('test-guest', size, sealed);
    this.arenaAddress = arena.mapFile(this.fd, size, 0);
  }

  /** The whole memory as one region to share. */
  get region(): {
    fd: number;
    guestAddress: number;
    size: number;
    userAddress: number;
    mmapOffset: number;
  } {
    const { fd, guestAddress, size, userAddress } = this;
    return { fd, guestAddress, size, userAddress, mmapOffset: 0 };
  }

  userAddressOf(guestAddress: number): number {
    return guestAddress - this.guestAddress + this.userAddress;
  }

  close(): void {
    this.arena.unmap(this.arenaAddress, this.size);
    closeFd(this.fd);
  }
}

/** The driver of one ring. */
export class TestRing {
  readonly index: number;
  readonly layout: QueueLayout;
  readonly queue: DriverQueue;
  readonly kick = createEventFd();
  readonly call = createEventFd();
  readonly error = createEventFd();
  /** Guest addresses of buffers, 2 KiB each. */
  readonly buffersAt: number;
  readonly #guest: TestGuest;

  /** Rings lie 256 KiB apart, each followed by its buffers. */
  constructor(guest: TestGuest, index: number, size: number, features: bigint) {
    this.#guest = guest;
    this.index = index;
    const at = guest.guestAddress + index * 0x4_0000;
    this.layout = layOutQueue(at, size, hasBit(features, VIRTIO_F_RING_PACKED));
    this.buffersAt = at + 0x2_0000;
    guest.arena.bytes.fill(
      0,
      at - guest.guestAddress + guest.arenaAddress,
      at - guest.guestAddress + guest.arenaAddress + this.layout.bytes,
    );
    this.queue = createDriverQueue({
      memory: guest,
      layout: this.layout,
      kick: { signal: () => signalEventFd(this.kick) },
      eventIdx: hasBit(features, VIRTIO_F_EVENT_IDX),
      indirect: hasBit(features, VIRTIO_F_INDIRECT_DESC),
      inOrder: hasBit(features, VIRTIO_F_IN_ORDER),
    });
  }

  /** The base of a ring that was just made. */
  get initialBase(): number {
    return this.layout.packed ? INITIAL_PACKED_BASE : 0;
  }

  start(client: VhostUserClient, base = this.initialBase): void {
    const guest = this.#guest;
    client.startRing(this.index, {
      size: this.layout.size,
      descriptor: guest.userAddressOf(this.layout.descriptor),
      driver: guest.userAddressOf(this.layout.driver),
      device: guest.userAddressOf(this.layout.device),
      base,
      kick: this.kick,
      call: this.call,
      error: this.error,
    });
    client.enableRing(this.index, true);
  }

  /** Offers `count` buffers of 100 bytes. */
  offer(count: number): void {
    for (let i = 0; i < count; i++) {
      this.queue.add(this.buffersAt + (i % 32) * 2048, 100, this.index % 2 === 0);
    }
    this.queue.publish();
  }

  /** Takes back what was used; returns the lengths. */
  take(): number[] {
    const lengths: number[] = [];
    for (let n = this.queue.collectUsed(64); n > 0; n = this.queue.collectUsed(64)) {
      for (let i = 0; i < n; i++) lengths.push(this.queue.usedLength[i] as number);
    }
    return lengths;
  }

  wasCalled(): boolean {
    return drainEventFd(this.call);
  }

  wasTold(): boolean {
    return drainEventFd(this.error);
  }

  close(): void {
    for (const fd of [this.kick, this.call, this.error]) closeFd(fd);
  }
}

export interface BenchOptions extends Partial<SessionOptions> {
  /** Over a socket instead of a pipe. */
  readonly socket?: boolean;
  readonly pipe?: PipeOptions;
  readonly timeoutMs?: number;
}

/** One arena for all tests of a process: address space is plenty, set-up is not free. */
let sharedArena: Arena | undefined;

export function testArena(): Arena {
  sharedArena ??= Arena.create();
  return sharedArena;
}

/** Ring features of which tests choose. */
export const TEST_FEATURES = bitMask(
  VIRTIO_F_VERSION_1,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  5,
  16,
);

export class Bench {
  readonly arena = testArena();
  readonly loop = new PollLoop();
  readonly device: ReturningDevice;
  readonly log: string[] = [];
  readonly session: VhostUserSession;
  readonly client: VhostUserClient;
  readonly guest: TestGuest;
  /** The session said that its connection is over, and was closed. */
  over = false;
  configChanges = 0;
  readonly #rings: TestRing[] = [];
  readonly #closeGuest: boolean;

  constructor(options: BenchOptions = {}, guest?: TestGuest) {
    this.device =
      (options.device as ReturningDevice | undefined) ?? new ReturningDevice(this.arena);
    this.guest = guest ?? new TestGuest(this.arena);
    this.#closeGuest = guest === undefined;
    const log = loggerTo((level, message) => this.log.push(`${level}: ${message}`));
    const [front, back] =
      options.socket === true
        ? unixSocketPair().map((end) => new SocketChannel(end))
        : pipePair(options.pipe);
    this.session = new VhostUserSession(back as SocketChannel, {
      loop: this.loop,
      log,
      ...options,
      arena: this.arena,
      device: this.device,
    });
    this.client = new VhostUserClient(front as SocketChannel, {
      name: 'the bench',
      timeoutMs: options.timeoutMs ?? 2000,
      pump: () => this.pump(),
      onConfigChange: () => this.configChanges++,
    });
  }

  /** Lets the back-end do what there is to do. */
  pump(): void {
    if (this.over) return;
    if (!this.session.flush() || !this.session.readable()) {
      this.over = true;
      this.session.close();
    }
  }

  /** Negotiates, shares the memory and starts rings 0…count-1. */
  bringUp(features: bigint, count = 2, size = 64): TestRing[] {
    const chosen = this.client.negotiate(features);
    this.client.setMemoryTable([this.guest.region]);
    for (let index = 0; index < count; index++) {
      const ring = new TestRing(this.guest, index, size, chosen);
      this.#rings.push(ring);
      ring.start(this.client);
    }
    return this.#rings;
  }

  /** The back-end ends as if its process had been killed: nothing is stopped in order. */
  close(): void {
    this.client.close();
    this.session.close();
    for (const ring of this.#rings) ring.close();
    if (this.#closeGuest) this.guest.close();
    this.loop.close();
  }
}
