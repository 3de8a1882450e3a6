/**
 * One ring of a connection: what the front-end said of it, and while it runs, the device's queue.
 * States and their changes: QEMU docs/interop/vhost-user.rst, "Ring states".
 */
import { hasBit } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import type { VirtioDevice } from '../../device/virtio-device.ts';
import type { AddressSpace, MemoryRange } from '../../memory/address-space.ts';
import type { Arena } from '../../memory/arena.ts';
import type { DirtyLog } from '../../memory/dirty-log.ts';
import type { GuestMemory, MemoryRegion } from '../../memory/guest-memory.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import { createDeviceQueue } from '../../ring/create.ts';
import type { DeviceQueue, RingPosition } from '../../ring/device-queue.ts';
import type { InflightRegion } from '../../ring/inflight-region.ts';
import { VHOST_VRING_F_LOG } from '../../spec/vhost-user.ts';
import {
  DESCRIPTOR_BYTES,
  packedRingBytes,
  splitRingBytes,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from '../../spec/virtio.ts';
import { SignalLine } from '../signal-line.ts';
import type { VringAddress } from './codec.ts';
import type { InflightArea } from './inflight.ts';
import { KickLine } from './lines.ts';
import type { PositionJournal, RingIdentity } from './position-journal.ts';

/** What a ring needs of its connection. */
export interface RingContext {
  readonly device: VirtioDevice;
  readonly arena: Arena;
  readonly memory: GuestMemory;
  readonly loop: PollLoop;
  readonly journal: PositionJournal | undefined;
  /** As negotiated. */
  readonly features: bigint;
  readonly dirtyLog: DirtyLog | undefined;
  /** Where requests in flight are noted, if the front-end has asked for it. */
  readonly inflight: InflightArea | undefined;
}

/** Areas of a ring in the arena. */
interface Areas {
  readonly descriptor: number;
  readonly driver: number;
  readonly device: number;
  readonly descriptorBytes: number;
  readonly deviceBytes: number;
}

/**
 * The guest's memory as one ring sees it: the same, but what the device writes into the ring itself
 * is logged only if the front-end asked for it, and where it asked for it ("Migration").
 */
class RingMemory implements AddressSpace {
  readonly #context: RingContext;
  readonly #areas: Areas;
  readonly #packed: boolean;
  address: VringAddress;

  constructor(context: RingContext, areas: Areas, packed: boolean, address: VringAddress) {
    this.#context = context;
    this.#areas = areas;
    this.#packed = packed;
    this.address = address;
  }

  get generation(): number {
    return this.#context.memory.generation;
  }

  get logging(): boolean {
    return this.#context.memory.logging;
  }

  find(address: number): MemoryRange | undefined {
    return this.#context.memory.find(address);
  }

  markWritten(arenaAddress: number, length: number): void {
    const { descriptor, descriptorBytes, device, deviceBytes } = this.#areas;
    const { memory, dirtyLog } = this.#context;
    const logged = (this.address.flags & (1 << VHOST_VRING_F_LOG)) !== 0;
    if (arenaAddress >= device && arenaAddress < device + deviceBytes && !this.#packed) {
      if (logged) dirtyLog?.mark(this.address.log + arenaAddress - device, length);
      return;
    }
    const inRing =
      this.#packed && arenaAddress >= descriptor && arenaAddress < descriptor + descriptorBytes;
    if (!inRing || logged) memory.markWritten(arenaAddress, length);
  }
}

/** What `sluice show rings` tells. */
export interface RingDescription {
  readonly index: number;
  readonly size: number;
  readonly started: boolean;
  readonly enabled: boolean;
  readonly packed: boolean;
  readonly position: RingPosition;
}

export class Vring {
  readonly index: number;
  readonly kick: KickLine;
  readonly call: SignalLine;
  readonly error = new SignalLine();
  /** Entries, from SET_VRING_NUM; 0: not told yet. */
  size = 0;
  /** SET_VRING_ENABLE; undefined: not told, which means enabled without protocol features. */
  enabled: boolean | undefined;
  #context: RingContext;
  #address: VringAddress | undefined;
  /** As the front-end gave it last, or was given it. */
  #base = 0;
  /** Where to go on; undefined: at the base. */
  #position: RingPosition | undefined;
  #queue: DeviceQueue | undefined;
  #memory: RingMemory | undefined;

  constructor(index: number, context: RingContext) {
    this.index = index;
    this.#context = context;
    const { device, loop } = context;
    this.kick = new KickLine(loop, () => device.countKick?.(index));
    this.call = new SignalLine(() => device.countCall?.(index));
  }

  get started(): boolean {
    return this.#queue !== undefined;
  }

  get packed(): boolean {
    return hasBit(this.#context.features, VIRTIO_F_RING_PACKED);
  }

  /** All that a start needs has been told. */
  get complete(): boolean {
    return this.size > 0 && this.#address !== undefined && this.kick.isSet;
  }

  /** Forgets where the ring stood: it starts at `base`. */
  setBase(base: number): void {
    this.#base = base;
    this.#position = undefined;
  }

  /** True if the ring does not lie there, whether its writes are logged or not. */
  isElsewhere(address: VringAddress): boolean {
    const old = this.#address;
    return (
      old === undefined ||
      old.descriptor !== address.descriptor ||
      old.used !== address.used ||
      old.available !== address.available
    );
  }

  /** Where the ring lies. A change of its log flag alone does not touch a running ring. */
  setAddress(address: VringAddress): { readonly moved: boolean } {
    const moved = this.isElsewhere(address);
    this.#address = address;
    if (this.#memory !== undefined) this.#memory.address = address;
    return { moved };
  }

  /**
   * Starts the ring, once it is complete.
   * @throws SluiceError `ring` or `memory` for a ring that cannot be: outside memory, misaligned …
   */
  start(): { readonly resumed: boolean; readonly recovered: number } {
    const { device, arena } = this.#context;
    const address = this.#address;
    if (address === undefined || this.#queue !== undefined) return { resumed: false, recovered: 0 };
    const { features } = this.#context;
    const { packed, size } = this;
    const areas = this.#locate(address);
    const direction = device.direction(this.index);
    const memory = new RingMemory(this.#context, areas, packed, address);
    let position = this.#position ?? decodeBase(this.#base, packed);
    let journal: Int32Array | undefined;
    let resumed = false;
    const inflight = this.#inflightRegion();
    // A position alone does not tell which of several requests were finished.
    if (packed && this.#context.journal !== undefined && device.tracksInflight !== true) {
      const identity = this.#identity(areas);
      if (this.#position === undefined) {
        const view = {
          arena,
          descriptor: areas.descriptor,
          size,
          writable: direction === 'writable',
        };
        const found = this.#context.journal.recover(this.index, identity, this.#base, view);
        if (found !== undefined) {
          resumed = true;
          position = { avail: found, used: found };
        }
      }
      journal = this.#context.journal.open(this.index, identity, this.#base, position.used);
    }
    const queue = createDeviceQueue({
      arena,
      memory,
      size,
      packed,
      eventIdx: hasBit(features, VIRTIO_F_EVENT_IDX),
      indirect: hasBit(features, VIRTIO_F_INDIRECT_DESC),
      inOrder: hasBit(features, VIRTIO_F_IN_ORDER),
      descriptor: areas.descriptor,
      driver: areas.driver,
      device: areas.device,
      direction,
      interrupt: this.call,
      position,
      ...(journal === undefined ? {} : { journal }),
      ...(inflight === undefined ? {} : { inflight }),
    });
    if (inflight !== undefined) position = queue.position();
    this.#queue = queue;
    this.#memory = memory;
    device.startQueue(this.index, queue);
    // Calls that were due when a former back-end ended may never have been raised.
    const isNew = packed ? (position.avail & 0x7fff) === 0 : position.avail === 0;
    if (resumed || !isNew || inflight !== undefined) this.call.signal();
    return { resumed, recovered: queue.recovered };
  }

  /** Ends the device's use of the ring, which can go on where it stands. */
  suspend(): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    this.#queue = undefined;
    this.#memory = undefined;
    this.#context.device.stopQueue(this.index);
    this.#position = queue.position();
  }

  /** Stops the ring for good, as GET_VRING_BASE asks. Returns the base to go on from. */
  stop(): number {
    this.suspend();
    this.kick.clear();
    if (this.#position !== undefined) {
      this.#base = encodeBase(this.#position, this.packed);
      this.#position = undefined;
    }
    this.#context.journal?.closeRing(this.index);
    return this.#base;
  }

  /** The dirty log has changed, or the memory table. */
  refresh(): void {
    this.#queue?.forget();
  }

  /** The front-end has gone: nobody kicks, or is called. */
  disconnect(): void {
    this.kick.clear();
    this.call.clear();
    this.error.clear();
  }

  describe(enabled: boolean): RingDescription {
    const position =
      this.#queue?.position() ?? this.#position ?? decodeBase(this.#base, this.packed);
    const { index, size, started, packed } = this;
    return { index, size, started, enabled, packed, position };
  }

  /** Where this ring's requests in flight are noted, for a device that wants that. */
  #inflightRegion(): InflightRegion | undefined {
    const { device, inflight } = this.#context;
    if (device.tracksInflight !== true || inflight === undefined) return undefined;
    if (inflight.packed === this.packed) return inflight.region(this.index);
    throw new SluiceError(
      'ring',
      `ring ${this.index} is ${this.packed ? 'packed' : 'split'}, the in-flight area is not made for that`,
    );
  }

  #locate(address: VringAddress): Areas {
    const { memory } = this.#context;
    const { packed, size, index } = this;
    const bytes = packed ? packedRingBytes(size) : splitRingBytes(size);
    const find = (what: string, user: number, length: number): number => {
      const at = memory.translateUser(user, length);
      if (at !== -1) return at;
      throw new SluiceError(
        'memory',
        `ring ${index}: the ${what} area at 0x${user.toString(16)}, ${length} bytes, is not in the guest's memory`,
      );
    };
    return {
      descriptor: find('descriptor', address.descriptor, bytes.descriptor),
      driver: find('driver', address.available, bytes.driver),
      device: find('device', address.used, bytes.device),
      descriptorBytes: size * DESCRIPTOR_BYTES,
      deviceBytes: bytes.device,
    };
  }

  #identity(areas: Areas): RingIdentity {
    const { memory } = this.#context;
    const region = regionOf(memory, areas.descriptor);
    return {
      size: this.size,
      file: region.file,
      offset: areas.descriptor - region.arenaAddress + region.mmapOffset,
      driver: memory.guestAddressOf(areas.driver),
    };
  }
}

function regionOf(memory: GuestMemory, arenaAddress: number): MemoryRegion {
  const region = memory.find(memory.guestAddressOf(arenaAddress));
  if (region === undefined) {
    throw new SluiceError('memory', `arena address ${arenaAddress} is in no region`);
  }
  return region;
}

/**
 * A base as messages carry it ("Vring descriptor indices"): split rings, the available index; packed
 * rings, the available position and in the upper half the used one, each with its wrap counter in
 * bit 15. What lies between the two was in flight and is taken again. DPDK's front-end leaves the
 * upper half empty.
 */
export function decodeBase(base: number, packed: boolean): RingPosition {
  const avail = base & 0xffff;
  const used = packed ? base >>> 16 || avail : avail;
  return { avail: used, used };
}

export function encodeBase(position: RingPosition, packed: boolean): number {
  return packed ? (position.avail | (position.used << 16)) >>> 0 : position.avail;
}
