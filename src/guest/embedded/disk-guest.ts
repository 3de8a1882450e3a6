/** One embedded guest with a disk: its memory file, its driver, and work for each queue. */
import { SluiceError } from '../../base/errors.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import { BlkDriver, planBlkDriver } from '../../driver/virtio-blk/blk-driver.ts';
import { type BlkConfig, parseBlkConfig } from '../../driver/virtio-blk/config.ts';
import {
  type BlkFeatures,
  DEFAULT_BLK_WISHES,
  negotiateBlk,
} from '../../driver/virtio-blk/negotiation.ts';
import type { Arena } from '../../memory/arena.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP, BLK_CONFIG_WRITEBACK } from '../../spec/virtio-blk.ts';
import { GUEST_BASE, releaseMemory, shareGuestMemory, startQueues } from './attachment.ts';
import { type DiskWorkSpec, writes } from './disk-options.ts';
import { DiskWork } from './disk-work.ts';
import type { Frontend, Transports } from './frontend.ts';
import type { DiskGuestInfo, DiskGuestReading, DiskGuestSpec } from './protocol.ts';
import { RoleRunner } from './role-runner.ts';

const DEFAULT_QUEUE_SIZE = 128;
const DEFAULT_SLOTS = 32;
const DEFAULT_REQUEST_BYTES = 4096;

/** All that a driver reads: devices without discard have no more. */
const CONFIG_BYTES = BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP + 4;

export class EmbeddedDiskGuest {
  readonly info: DiskGuestInfo;
  readonly #loop: PollLoop;
  readonly #frontend: Frontend;
  readonly #driver: BlkDriver;
  readonly #runner: RoleRunner<DiskWork>;

  /**
   * Attaches to a device; the guest does nothing yet.
   * @throws SluiceError if the device cannot be reached or does not suit.
   */
  constructor(
    spec: DiskGuestSpec,
    arena: Arena,
    loop: PollLoop,
    transports: Transports,
    onLost: (reason: string) => void,
  ) {
    this.#loop = loop;
    this.#runner = new RoleRunner(spec.name, loop, onLost);
    this.#frontend = transports.virtio(spec.socket, (reason) => this.#runner.fail(reason));
    let memory: DriverMemory | undefined;
    try {
      const features = negotiateBlk(this.#frontend.features, {
        ...DEFAULT_BLK_WISHES,
        ...spec.wishes,
      });
      const config = parseBlkConfig(this.#frontend.readConfig(CONFIG_BYTES), features);
      const queues = chooseQueues(spec, config);
      const options = {
        queues,
        queueSize: spec.queueSize ?? DEFAULT_QUEUE_SIZE,
        slots: spec.slots ?? DEFAULT_SLOTS,
        requestBytes: spec.requestBytes ?? DEFAULT_REQUEST_BYTES,
        ...(spec.segmentBytes === undefined ? {} : { segmentBytes: spec.segmentBytes }),
      };
      const plan = planBlkDriver(features, config, options, GUEST_BASE);
      this.#frontend.acceptFeatures(features.bits);
      const writeback = chooseCache(spec, features, config, this.#frontend);
      memory = shareGuestMemory(spec.name, plan.bytes, arena, (fd, size, at) =>
        this.#frontend.shareMemory(fd, size, at),
      );
      const kicks = plan.queues.map((_, index) => this.#frontend.kick(index));
      this.#driver = new BlkDriver(plan, memory, kicks);
      startQueues(this.#frontend, plan.queues);
      this.info = {
        name: spec.name,
        bytes: config.bytes,
        readonly: features.readonly,
        blockBytes: config.blockBytes,
        writeback,
        queues,
        packed: features.packed,
        features: features.bits.toString(16),
        memoryBytes: memory.size,
        slots: options.slots,
        requestBytes: options.requestBytes,
      };
    } catch (error) {
      this.#frontend.close();
      if (memory !== undefined) releaseMemory(memory);
      throw error;
    }
    this.#runner.begin([]);
  }

  /**
   * Gives the queues work, the first to the first; those without any rest. Counts begin at zero.
   * @throws SluiceError `state` while requests are on their way, `config` for work that cannot be done.
   */
  start(specs: readonly DiskWorkSpec[]): void {
    const { name, bytes, blockBytes, readonly } = this.info;
    if (specs.length > this.info.queues) {
      throw new SluiceError(
        'config',
        `work for ${specs.length} of the ${this.info.queues} queues of guest ${name}`,
      );
    }
    for (const { rw, bs, offset } of specs) {
      if (readonly && writes(rw)) {
        throw new SluiceError('config', `guest ${name}: ${rw} on a readonly disk`);
      }
      if (bs % blockBytes !== 0 || offset % blockBytes !== 0) {
        throw new SluiceError(
          'config',
          `guest ${name}: requests of ${bs} bytes from ${offset} on to a disk with blocks of ${blockBytes}`,
          { remedy: `choose multiples of ${Math.max(blockBytes, SECTOR_BYTES)}` },
        );
      }
    }
    this.#runner.replace(() =>
      specs.map((spec, index) => {
        const queue = this.#driver.queues[index];
        if (queue === undefined) throw new SluiceError('state', `there is no queue ${index}`);
        return new DiskWork({ queue, loop: this.#loop, diskBytes: bytes }, spec);
      }),
    );
  }

  /** Submits no more; see {@link drained}. */
  stop(): void {
    this.#runner.stop();
  }

  /** True once the device has done all requests, and what was written was read where that was asked for. */
  get drained(): boolean {
    return this.#runner.drained;
  }

  read(): DiskGuestReading {
    return {
      queues: this.#runner.roles.map((role) => role.counts()),
      kicks: this.#driver.queues.reduce((sum, { queue }) => sum + queue.kicks, 0),
      calls: this.#frontend.calls,
      failure: this.#runner.failure,
    };
  }

  /** Detaches and gives the memory back. */
  close(): void {
    this.#runner.end();
    this.#frontend.close();
    releaseMemory(this.#driver.memory);
  }
}

function chooseQueues(spec: DiskGuestSpec, config: BlkConfig): number {
  const wanted = spec.queues ?? 1;
  if (wanted > config.queues) {
    throw new SluiceError(
      'unsupported',
      `guest ${spec.name}: ${wanted} queues on a disk with ${config.queues}`,
      { remedy: 'give the disk of the guest more queues' },
    );
  }
  return wanted;
}

/** Turns the cache on or off if the guest is to; returns whether it is on. */
function chooseCache(
  spec: DiskGuestSpec,
  features: BlkFeatures,
  config: BlkConfig,
  frontend: Frontend,
): boolean {
  const { writeback = config.writeback } = spec;
  if (writeback === config.writeback) return writeback;
  if (!features.cacheControl) {
    throw new SluiceError(
      'unsupported',
      `guest ${spec.name} cannot turn the disk's cache on or off`,
    );
  }
  frontend.writeConfig(BLK_CONFIG_WRITEBACK, Uint8Array.of(writeback ? 1 : 0));
  return writeback;
}
