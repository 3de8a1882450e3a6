/**
 * The other end of a virtio-blk driver, for tests: a disk of bytes in an array that takes every
 * request whole and finishes them in an order of the test's choice. It shares no code with the
 * device model, so that both sides do not agree by mistake.
 */

import { GuestMemory } from '../../memory/guest-memory.ts';
import { closeFd } from '../../os/fd.ts';
import { createMemfd } from '../../os/mapping.ts';
import { ChainBatch } from '../../ring/chain-batch.ts';
import { createDeviceQueue } from '../../ring/create.ts';
import type { DeviceQueue } from '../../ring/device-queue.ts';
import { testArena } from '../../ring/ring-pair.ts';
import {
  BLK_CONFIG_BYTES,
  BLK_HEADER_BYTES,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from '../../spec/virtio-blk.ts';
import { BlkDriver, type BlkDriverOptions, planBlkDriver } from './blk-driver.ts';
import { parseBlkConfig } from './config.ts';
import {
  type BlkFeatures,
  type BlkWishes,
  DEFAULT_BLK_WISHES,
  negotiateBlk,
} from './negotiation.ts';

const BASE = 0x1_0000_0000;
const SECTOR = 512;

/** Every feature but VIRTIO_F_IN_ORDER, since the mock finishes in any order, and VIRTIO_BLK_F_RO. */
const OFFERED = (2n ** 64n - 1n) & ~(1n << 35n) & ~(1n << 5n);

/** One request as the device sees it, taken and not finished. */
export interface MockRequest {
  readonly queue: number;
  readonly type: number;
  readonly sector: number;
  /** Segments of data: arena addresses and bytes. */
  readonly data: readonly { readonly address: number; readonly length: number }[];
  readonly statusAt: number;
  readonly id: number;
  readonly span: number;
}

export interface MockBlkOptions extends BlkDriverOptions {
  readonly wishes?: Partial<BlkWishes>;
  readonly offered?: bigint;
  readonly diskBytes: number;
  /** Limits that the device tells. */
  readonly sizeMax?: number;
  readonly segMax?: number;
}

export class MockBlkDevice {
  readonly content: Uint8Array;
  readonly features: BlkFeatures;
  readonly driver: BlkDriver;
  /** Taken and not finished, in the order in which they came. */
  readonly pending: MockRequest[] = [];
  /** Of each finished request: its type, in the order of their ends. */
  readonly history: number[] = [];
  kicks = 0;
  calls = 0;
  /** Sectors that cannot be read or written. */
  readonly bad = new Set<number>();
  readonly #arena = testArena();
  readonly #queues: DeviceQueue[];
  readonly #batch = new ChainBatch();
  readonly #release: () => void;

  constructor(options: MockBlkOptions) {
    this.content = new Uint8Array(options.diskBytes);
    const wishes = { ...DEFAULT_BLK_WISHES, ...options.wishes };
    this.features = negotiateBlk(options.offered ?? OFFERED, wishes);
    const config = parseBlkConfig(configSpace(options), this.features);
    const plan = planBlkDriver(this.features, config, options, BASE);
    const memory = new GuestMemory(this.#arena);
    const fd = createMemfd('sluice-test', plan.bytes);
    const region = memory.add(
      { guestAddress: BASE, size: plan.bytes, userAddress: BASE, mmapOffset: 0 },
      fd,
    );
    const arenaAddress = this.#arena.mapFile(fd, plan.bytes, 0);
    closeFd(fd);
    this.#release = () => {
      memory.clear();
      this.#arena.unmap(arenaAddress, plan.bytes);
    };
    const kick = { signal: () => this.kicks++ };
    this.driver = new BlkDriver(
      plan,
      { arena: this.#arena, arenaAddress, guestAddress: BASE, size: plan.bytes },
      plan.queues.map(() => kick),
    );
    this.#queues = plan.queues.map((layout) =>
      createDeviceQueue({
        ...this.features.ring,
        arena: this.#arena,
        memory,
        size: layout.size,
        packed: layout.packed,
        descriptor: layout.descriptor + region.delta,
        driver: layout.driver + region.delta,
        device: layout.device + region.delta,
        direction: 'both',
        interrupt: { signal: () => this.calls++ },
        position: layout.packed ? { avail: 0x8000, used: 0x8000 } : { avail: 0, used: 0 },
      }),
    );
  }

  /** Takes all that is available. Returns how many requests. */
  take(): number {
    const batch = this.#batch;
    let taken = 0;
    for (const [index, queue] of this.#queues.entries()) {
      batch.clear();
      taken += queue.collect(batch, 64);
      for (let slot = 0; slot < batch.count; slot++) this.pending.push(this.#parse(index, slot));
    }
    return taken;
  }

  /** Does and finishes one request of `pending`. It is seen by the driver after {@link publish}. */
  finish(index: number): void {
    const [request] = this.pending.splice(index, 1);
    if (request === undefined) throw new Error(`there is no request ${index}`);
    const status = this.#do(request);
    this.#arena.bytes[request.statusAt] = status;
    const reads = request.type === VIRTIO_BLK_T_IN || request.type === VIRTIO_BLK_T_GET_ID;
    const written = reads ? request.data.reduce((sum, { length }) => sum + length, 0) : 0;
    this.history.push(request.type);
    this.#queue(request.queue).completeChain(request.id, request.span, written + 1);
  }

  /** Finishes a request without doing anything, its status least of all. */
  forget(index: number): void {
    const [request] = this.pending.splice(index, 1);
    if (request === undefined) throw new Error(`there is no request ${index}`);
    this.#queue(request.queue).completeChain(request.id, request.span, 0);
  }

  publish(): void {
    for (const queue of this.#queues) queue.publish();
  }

  /** Takes and finishes everything, in an order that `next` gives: which of so many pending ones. */
  run(next: (pending: number) => number = () => 0): number {
    this.take();
    const count = this.pending.length;
    while (this.pending.length > 0) this.finish(next(this.pending.length));
    this.publish();
    return count;
  }

  release(): void {
    this.#release();
  }

  #queue(index: number): DeviceQueue {
    const queue = this.#queues[index];
    if (queue === undefined) throw new Error(`there is no queue ${index}`);
    return queue;
  }

  #parse(queue: number, slot: number): MockRequest {
    const batch = this.#batch;
    const segments = [
      { address: batch.address[slot] as number, length: batch.length[slot] as number },
    ];
    for (let i = 0; i < (batch.more[slot] as number); i++) {
      const at = (batch.moreStart[slot] as number) + i;
      segments.push({
        address: batch.moreAddress[at] as number,
        length: batch.moreLength[at] as number,
      });
    }
    const header = segments[0] as { address: number; length: number };
    const status = segments.at(-1) as { address: number; length: number };
    if (header.length !== BLK_HEADER_BYTES || status.length !== 1) {
      throw new Error(`a request of ${segments.map(({ length }) => length).join(' ')} bytes`);
    }
    const view = new DataView(this.#arena.buffer, header.address, header.length);
    const type = view.getUint32(0, true);
    const writable = type === VIRTIO_BLK_T_IN || type === VIRTIO_BLK_T_GET_ID;
    const readable = batch.readable[slot] as number;
    if (readable !== (writable ? 1 : segments.length - 1)) {
      throw new Error(
        `request of type ${type}: ${readable} readable of ${segments.length} segments`,
      );
    }
    return {
      queue,
      type,
      sector: Number(view.getBigUint64(8, true)),
      data: segments.slice(1, -1),
      statusAt: status.address,
      id: batch.id[slot] as number,
      span: batch.span[slot] as number,
    };
  }

  #do({ type, sector, data }: MockRequest): number {
    const { bytes } = this.#arena;
    let at = sector * SECTOR;
    switch (type) {
      case VIRTIO_BLK_T_IN:
      case VIRTIO_BLK_T_OUT:
        for (const { address, length } of data) {
          if (this.bad.has(at / SECTOR) || at + length > this.content.length) {
            return VIRTIO_BLK_S_IOERR;
          }
          const memory = bytes.subarray(address, address + length);
          if (type === VIRTIO_BLK_T_OUT) this.content.set(memory, at);
          else memory.set(this.content.subarray(at, at + length));
          at += length;
        }
        return VIRTIO_BLK_S_OK;
      case VIRTIO_BLK_T_FLUSH:
        return sector === 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
      case VIRTIO_BLK_T_DISCARD:
      case VIRTIO_BLK_T_WRITE_ZEROES:
        for (const { address, length } of data) {
          const view = new DataView(this.#arena.buffer, address, length);
          for (let range = 0; range < length; range += 16) {
            const first = Number(view.getBigUint64(range, true)) * SECTOR;
            this.content.fill(0, first, first + view.getUint32(range + 8, true) * SECTOR);
          }
        }
        return VIRTIO_BLK_S_OK;
      case VIRTIO_BLK_T_GET_ID:
        for (const { address, length } of data) {
          bytes.fill(0, address, address + length);
          bytes.set(Buffer.from('mock'), address);
        }
        return VIRTIO_BLK_S_OK;
      default:
        return VIRTIO_BLK_S_UNSUPP;
    }
  }
}

/** A configuration space that offers all there is. */
export function configSpace(options: {
  readonly diskBytes: number;
  readonly sizeMax?: number;
  readonly segMax?: number;
  readonly queues?: number;
}): Uint8Array {
  const space = new Uint8Array(BLK_CONFIG_BYTES);
  const view = new DataView(space.buffer);
  view.setBigUint64(0, BigInt(options.diskBytes / SECTOR), true);
  view.setUint32(8, options.sizeMax ?? 0, true);
  view.setUint32(12, options.segMax ?? 126, true);
  view.setUint32(20, SECTOR, true);
  view.setUint8(24, 3);
  view.setUint32(28, 128, true);
  view.setUint8(32, 1);
  view.setUint16(34, options.queues ?? 1, true);
  view.setUint32(36, 2048, true);
  view.setUint32(40, 16, true);
  view.setUint32(44, 8, true);
  view.setUint32(48, 4096, true);
  view.setUint32(52, 4, true);
  view.setUint8(56, 1);
  return space;
}
