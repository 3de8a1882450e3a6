/** A guest's virtio-blk device, behind a vhost-user socket, as the guest's work needs it. */
import { SluiceError } from '../../base/errors.ts';
import { BlkDriver, planBlkDriver } from '../../driver/virtio-blk/blk-driver.ts';
import { type BlkConfig, parseBlkConfig } from '../../driver/virtio-blk/config.ts';
import {
  type BlkFeatures,
  DEFAULT_BLK_WISHES,
  negotiateBlk,
} from '../../driver/virtio-blk/negotiation.ts';
import type { Arena } from '../../memory/arena.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP, BLK_CONFIG_WRITEBACK } from '../../spec/virtio-blk.ts';
import { GUEST_BASE, releaseMemory, shareGuestMemory, startQueues } from './attachment.ts';
import { DEFAULT_REQUEST_BYTES, DEFAULT_SLOTS, type DiskAttachment } from './disk-attachment.ts';
import type { Frontend } from './frontend.ts';
import type { DiskGuestInfo, DiskGuestSpec } from './protocol.ts';

const DEFAULT_QUEUE_SIZE = 128;

/** All that a driver reads: devices without discard have no more. */
const CONFIG_BYTES = BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP + 4;

export class VirtioDisk implements DiskAttachment {
  readonly info: DiskGuestInfo;
  readonly #frontend: Frontend;
  readonly #driver: BlkDriver;

  /**
   * Has the device work; the front-end is the attachment's from now on.
   * @throws SluiceError if the device does not suit.
   */
  constructor(spec: DiskGuestSpec, arena: Arena, frontend: Frontend) {
    this.#frontend = frontend;
    let memory: DriverMemory | undefined;
    try {
      const features = negotiateBlk(frontend.features, {
        ...DEFAULT_BLK_WISHES,
        ...spec.wishes,
      });
      const config = parseBlkConfig(frontend.readConfig(CONFIG_BYTES), features);
      const queues = chooseQueues(spec, config);
      const options = {
        queues,
        queueSize: spec.queueSize ?? DEFAULT_QUEUE_SIZE,
        slots: spec.slots ?? DEFAULT_SLOTS,
        requestBytes: spec.requestBytes ?? DEFAULT_REQUEST_BYTES,
        ...(spec.segmentBytes === undefined ? {} : { segmentBytes: spec.segmentBytes }),
      };
      const plan = planBlkDriver(features, config, options, GUEST_BASE);
      frontend.acceptFeatures(features.bits);
      const writeback = chooseCache(spec, features, config, frontend);
      memory = shareGuestMemory(spec.name, plan.bytes, arena, (fd, size, at) =>
        frontend.shareMemory(fd, size, at),
      );
      const kicks = plan.queues.map((_, index) => frontend.kick(index));
      this.#driver = new BlkDriver(plan, memory, kicks);
      startQueues(frontend, plan.queues);
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
      frontend.close();
      if (memory !== undefined) releaseMemory(memory);
      throw error;
    }
  }

  get queues(): BlkDriver['queues'] {
    return this.#driver.queues;
  }

  get kicks(): number {
    return this.#driver.queues.reduce((sum, { queue }) => sum + queue.kicks, 0);
  }

  get calls(): number {
    return this.#frontend.calls;
  }

  close(): void {
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
