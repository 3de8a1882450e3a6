/**
 * The rings of one connection, and the memory that they lie in: when each starts and stops.
 *
 * Rings start when they have been set up and a kick descriptor was given, without waiting for the
 * first kick: a driver that was told not to kick, before this back-end took over, never would.
 *
 * Source: QEMU docs/interop/vhost-user.rst, "Ring states".
 */
import { bitMask, hasBit } from '../../base/bits.ts';
import { describeError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { VirtioDevice } from '../../device/virtio-device.ts';
import type { Arena } from '../../memory/arena.ts';
import type { DirtyLog } from '../../memory/dirty-log.ts';
import { GuestMemory, type Isolation } from '../../memory/guest-memory.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import { VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES } from '../../spec/vhost-user.ts';
import type { FdBag } from '../fd-bag.ts';
import { protocolError } from '../protocol-error.ts';
import type { VringAddress } from './codec.ts';
import type { InflightArea } from './inflight.ts';
import { VHOST_FEATURES } from './offer.ts';
import type { PositionJournal } from './position-journal.ts';
import { type RingContext, type RingDescription, Vring } from './vring.ts';

export interface RingSetOptions {
  readonly device: VirtioDevice;
  readonly arena: Arena;
  readonly loop: PollLoop;
  readonly log: Logger;
  readonly isolation?: Isolation;
  readonly journal?: PositionJournal;
}

export class RingSet implements RingContext {
  readonly device: VirtioDevice;
  readonly arena: Arena;
  readonly loop: PollLoop;
  readonly journal: PositionJournal | undefined;
  readonly memory: GuestMemory;
  readonly #log: Logger;
  readonly #rings: Vring[];
  #features: bigint | undefined;
  #dirtyLog: DirtyLog | undefined;
  #inflight: InflightArea | undefined;
  #broken: Error | undefined;

  constructor(options: RingSetOptions) {
    const { device } = options;
    this.device = device;
    this.arena = options.arena;
    this.loop = options.loop;
    this.journal = options.journal;
    this.memory = new GuestMemory(options.arena, options.isolation);
    this.#log = options.log;
    this.#rings = Array.from({ length: device.maxQueues }, (_, index) => new Vring(index, this));
    this.journal?.beginConnection();
  }

  /** As negotiated; none before SET_FEATURES. */
  get features(): bigint {
    return this.#features ?? 0n;
  }

  get featuresAreSet(): boolean {
    return this.#features !== undefined;
  }

  get dirtyLog(): DirtyLog | undefined {
    return this.#dirtyLog;
  }

  get inflight(): InflightArea | undefined {
    return this.#inflight;
  }

  /** Why the device needs a reset, if it does. */
  get broken(): Error | undefined {
    return this.#broken;
  }

  /** True if these features are others than those that were set, but for logging. */
  isChange(features: bigint): boolean {
    const logAll = bitMask(VHOST_F_LOG_ALL);
    return (features & ~logAll) !== (this.features & ~logAll) || !this.featuresAreSet;
  }

  /** The ring with this index runs, and not with these addresses. */
  moves(address: VringAddress): boolean {
    return this.#rings[address.index]?.isElsewhere(address) === true;
  }

  /**
   * Has the device take no more requests from a ring (undefined: from any). True if nothing of it is in
   * flight, so that it can be stopped; else the device's `onDrained` tells when to ask again.
   */
  hold(index: number | undefined): boolean {
    const { device } = this;
    const runs =
      index === undefined
        ? this.#rings.some((ring) => ring.started)
        : this.#rings[index]?.started === true;
    return !runs || device.hold === undefined || device.hold(index);
  }

  /** Ends the hold of rings that run all the same. */
  release(): void {
    if (this.device.hold === undefined) return;
    for (const ring of this.#rings) {
      if (ring.started) this.device.setQueueEnabled(ring.index, this.#isEnabled(ring));
    }
  }

  /**
   * What the driver chose. QEMU sends this once for each queue pair, and to start and to end logging:
   * rings go on then.
   */
  setFeatures(features: bigint): void {
    const changed = this.isChange(features);
    if (changed || this.#broken !== undefined) for (const ring of this.#rings) this.#halt(ring);
    this.#features = features;
    if (changed) this.device.setDriverFeatures(features & ~VHOST_FEATURES);
    this.#applyLogging();
    this.#startAll();
  }

  /** Changes the memory table while no queue uses it. Running rings go on where they were. */
  changeMemory(change: (memory: GuestMemory) => void): void {
    this.#whileSuspended(() => change(this.memory));
  }

  /** Where requests in flight are noted from now on. Owns the area. */
  setInflight(area: InflightArea): void {
    this.#whileSuspended(() => {
      this.#inflight?.release();
      this.#inflight = area;
    });
  }

  #whileSuspended(change: () => void): void {
    const running = this.#rings.filter((ring) => ring.started);
    for (const ring of running) ring.suspend();
    try {
      change();
    } catch (error) {
      for (const ring of running) this.#halt(ring);
      throw error;
    }
    this.#startAll();
  }

  /** Adds to the memory table: running rings need not be disturbed. */
  addMemory(add: (memory: GuestMemory) => void): void {
    add(this.memory);
    this.#startAll();
  }

  /** Where written pages are marked, once the driver's features ask for it. Owns the log. */
  setDirtyLog(log: DirtyLog): void {
    const old = this.#dirtyLog;
    this.#dirtyLog = log;
    this.#applyLogging();
    old?.release();
  }

  setNum(index: number, num: number): void {
    const ring = this.#ring(index);
    const limit = this.device.maxQueueSize;
    if (num === 0 || num > limit) {
      throw protocolError(`a ring of ${num} entries, allowed are 1 to ${limit}`);
    }
    // User-Mode Linux frees its rings without GET_VRING_BASE, and sets up new ones.
    if (ring.started) this.#halt(ring);
    ring.size = num;
    this.#start(ring);
  }

  setAddress(address: VringAddress): void {
    const ring = this.#ring(address.index);
    const { moved } = ring.setAddress(address);
    if (!moved) return;
    ring.suspend();
    this.#start(ring);
  }

  setBase(index: number, base: number): void {
    const ring = this.#ring(index);
    ring.suspend();
    ring.setBase(base);
    this.#start(ring);
  }

  /** Stops the ring. Returns the base to go on from. */
  stop(index: number): number {
    const base = this.#ring(index).stop();
    this.#settle();
    return base;
  }

  /** An empty bag means that the front-end will not kick. */
  setKick(index: number, fds: FdBag): void {
    const ring = this.#ring(index);
    if (fds.count > 0) ring.kick.attach(fds.take());
    else ring.kick.attachPolling();
    this.#start(ring);
  }

  setCall(index: number, fds: FdBag): void {
    const ring = this.#ring(index);
    ring.call.attach(fds.take());
    // What was completed just before may have been told to the old descriptor only.
    if (ring.started) ring.call.signal();
  }

  setError(index: number, fds: FdBag): void {
    this.#ring(index).error.attach(fds.take());
  }

  setEnabled(index: number, num: number): void {
    const ring = this.#ring(index);
    if (num > 1) throw protocolError(`ring ${index}: enable is ${num}, neither 0 nor 1`);
    ring.enabled = num === 1;
    this.#start(ring);
    if (ring.started) this.device.setQueueEnabled(index, ring.enabled);
  }

  /** The guest broke the device: its rings are left alone until a new life begins. */
  markBroken(reason: Error): void {
    this.#broken = reason;
    for (const ring of this.#rings) if (ring.started) ring.error.signal();
  }

  /** Stops and forgets everything but memory and descriptors of calls and errors. */
  reset(): void {
    for (const ring of this.#rings) {
      this.#halt(ring);
      ring.enabled = undefined;
    }
    this.#features = undefined;
    this.#broken = undefined;
    this.device.reset();
    if (this.device.tracksInflight === true) this.#inflight?.forgetPositions();
    this.#applyLogging();
  }

  /** The front-end has gone: its descriptors are closed. What is in flight may still be. */
  disconnect(): void {
    for (const ring of this.#rings) ring.disconnect();
  }

  /** Gives the memory back, once nothing is in flight. Notes of rings stay for the front-end's return. */
  close(): void {
    for (const ring of this.#rings) ring.suspend();
    this.device.reset();
    this.memory.dirtyLog = undefined;
    this.memory.clear();
    this.#dirtyLog?.release();
    this.#inflight?.release();
  }

  describe(): RingDescription[] {
    return this.#rings.map((ring) => ring.describe(this.#isEnabled(ring)));
  }

  #ring(index: number): Vring {
    const ring = this.#rings[index];
    if (ring === undefined) throw protocolError(`ring ${index} of ${this.#rings.length}`);
    return ring;
  }

  #isEnabled(ring: Vring): boolean {
    return ring.enabled ?? !hasBit(this.features, VHOST_USER_F_PROTOCOL_FEATURES);
  }

  /** Starts what can start: each ring by itself. @throws what kept the first that could not */
  #startAll(): void {
    const failures: unknown[] = [];
    for (const ring of this.#rings) {
      try {
        this.#start(ring);
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }

  /** Starts a ring if all is there that it needs. */
  #start(ring: Vring): void {
    const ready = ring.complete && !ring.started && this.memory.regions.length > 0;
    if (!ready || !this.featuresAreSet || this.#broken !== undefined) return;
    try {
      const { resumed, recovered } = ring.start();
      if (recovered > 0)
        this.#log.info(
          `ring ${ring.index} takes ${recovered} requests up again that were in flight`,
        );
      else if (resumed) this.#log.info(`ring ${ring.index} goes on where it stood`);
    } catch (error) {
      this.#log.warn(`ring ${ring.index} cannot start: ${describeError(error)}`);
      ring.kick.clear();
      ring.error.signal();
      throw error;
    }
    this.device.setQueueEnabled(ring.index, this.#isEnabled(ring));
  }

  /** The front-end sets the ring up anew without having stopped it: it must give a kick again. */
  #halt(ring: Vring): void {
    if (!ring.started && !ring.kick.isSet) return;
    ring.stop();
    this.#settle();
  }

  /** A device that its guest broke begins anew when no ring is left of the old life. */
  #settle(): void {
    const inUse = this.#rings.some((ring) => ring.started);
    if (this.#broken === undefined || inUse) return;
    this.#broken = undefined;
    this.device.reset();
    if (this.featuresAreSet) this.device.setDriverFeatures(this.features & ~VHOST_FEATURES);
  }

  #applyLogging(): void {
    this.memory.dirtyLog = hasBit(this.features, VHOST_F_LOG_ALL) ? this.#dirtyLog : undefined;
    for (const ring of this.#rings) ring.refresh();
  }
}
