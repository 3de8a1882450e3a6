/**
 * Both ends of one ring in one process, for tests, fuzzers and measurements: a guest's memory as
 * the device sees it (two regions side by side, so that buffers can lie across their border), the
 * same memory as the driver sees it (one piece), and what each end was told.
 */
import { alignUp, MiB } from '../base/bits.ts';
import { Arena } from '../memory/arena.ts';
import { FRAME_TABLE } from '../memory/copy.ts';
import { GuestMemory } from '../memory/guest-memory.ts';
import { Slab } from '../memory/slab.ts';
import { closeFd } from '../os/fd.ts';
import { createMemfd } from '../os/mapping.ts';
import { ChainBatch } from './chain-batch.ts';
import { createDeviceQueue } from './create.ts';
import { createDriverQueue } from './create-driver.ts';
import type { DeviceQueue, Direction } from './device-queue.ts';
import {
  type DriverMemory,
  type DriverQueue,
  layOutQueue,
  type QueueLayout,
  type RingFeatures,
} from './driver-queue.ts';

/** Guest physical address of the memory: above 4 GiB, so that both halves of an address count. */
export const PAIR_BASE = 0x1_4000_0000;

export interface RingPairOptions extends Partial<RingFeatures> {
  readonly size: number;
  readonly packed: boolean;
  readonly direction?: Direction;
  /** Descriptors of an indirect table. */
  readonly indirectLength?: number;
  /** Bytes of the guest's memory: rounded up to 2 MiB, and enough for the ring. */
  readonly memoryBytes?: number;
  /** Batches lie in the window, so that WebAssembly works on them. */
  readonly windowed?: boolean;
}

let processArena: Arena | undefined;

/** The arena of a process that only tests. */
export function testArena(): Arena {
  processArena ??= Arena.create();
  return processArena;
}

let processTables: Slab | undefined;

function tablesOf(arena: Arena): Slab {
  processTables ??= new Slab(arena, FRAME_TABLE.size, 'sluice-test-tables');
  return processTables;
}

export class RingPair {
  readonly arena: Arena;
  readonly memory: GuestMemory;
  readonly driverMemory: DriverMemory;
  readonly layout: QueueLayout;
  readonly device: DeviceQueue;
  readonly driver: DriverQueue;
  /** First guest physical address after the ring: buffers may lie from here to {@link end}. */
  readonly buffers: number;
  readonly end: number;
  /** The guest physical address where the device's two regions meet. */
  readonly border: number;
  kicks = 0;
  calls = 0;
  readonly #bytes: number;
  readonly #tables: Slab | undefined;
  readonly #taken: number[] = [];

  constructor(options: RingPairOptions, arena: Arena = testArena()) {
    this.arena = arena;
    this.#tables = options.windowed === true ? tablesOf(arena) : undefined;
    const { size, packed, indirectLength = 0 } = options;
    const features = {
      eventIdx: options.eventIdx ?? false,
      indirect: options.indirect ?? false,
      inOrder: options.inOrder ?? false,
    };
    this.layout = layOutQueue(PAIR_BASE, size, packed, indirectLength);
    const least = this.layout.bytes + MiB;
    this.#bytes = alignUp(Math.max(options.memoryBytes ?? 0, least), 4 * MiB);
    this.buffers = PAIR_BASE + this.layout.bytes;
    this.end = PAIR_BASE + this.#bytes;
    // The ring must lie in one region; the buffers have both.
    this.border = alignUp(this.buffers, 4096) + 64 * 1024;
    this.memory = new GuestMemory(arena);
    const fd = createMemfd('sluice-test', this.#bytes);
    try {
      const first = this.border - PAIR_BASE;
      for (const [offset, bytes] of [
        [0, first],
        [first, this.#bytes - first],
      ] as const) {
        const guestAddress = PAIR_BASE + offset;
        this.memory.add(
          { guestAddress, size: bytes, userAddress: guestAddress, mmapOffset: offset },
          fd,
        );
      }
      this.driverMemory = {
        arena,
        arenaAddress: arena.mapFile(fd, this.#bytes, 0),
        guestAddress: PAIR_BASE,
        size: this.#bytes,
      };
    } finally {
      closeFd(fd);
    }
    this.driver = createDriverQueue({
      ...features,
      memory: this.driverMemory,
      layout: this.layout,
      kick: { signal: () => this.kicks++ },
    });
    this.device = createDeviceQueue({
      ...features,
      arena,
      memory: this.memory,
      size,
      packed,
      descriptor: this.memory.translate(this.layout.descriptor, 1),
      driver: this.memory.translate(this.layout.driver, 1),
      device: this.memory.translate(this.layout.device, 1),
      direction: options.direction ?? 'both',
      interrupt: { signal: () => this.calls++ },
      position: packed ? { avail: 0x8000, used: 0x8000 } : { avail: 0, used: 0 },
    });
  }

  /** An empty batch for chains of the ring. */
  newBatch(): ChainBatch {
    if (this.#tables === undefined) return new ChainBatch();
    const tableAt = this.#tables.take();
    this.#taken.push(tableAt);
    return new ChainBatch({ arena: this.arena, tableAt });
  }

  /** The driver's view of its memory: `view` offsets are guest physical addresses minus PAIR_BASE. */
  bytes(): DataView {
    return new DataView(this.arena.buffer, this.driverMemory.arenaAddress, this.#bytes);
  }

  release(): void {
    for (const tableAt of this.#taken) this.#tables?.give(tableAt);
    this.arena.unmap(this.driverMemory.arenaAddress, this.#bytes);
    this.memory.clear();
  }
}
