/**
 * A driver that keeps to no rule: it writes whatever it is told into the descriptors and indexes of
 * a ring. For the tests of malformed rings and for the fuzzers.
 */
import { DESCRIPTOR_BYTES, VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED } from '../spec/virtio.ts';
import type { ChainBatch } from './chain-batch.ts';
import type { RingPair } from './ring-pair.ts';

/** A descriptor of a ring or of an indirect table, as its 16 bytes say it. */
export interface RawDescriptor {
  /** Any 64-bit value. */
  readonly address: number | bigint;
  /** Any 32-bit value. */
  readonly length: number;
  readonly flags: number;
  /** Split: the next descriptor. Packed: the buffer's id. */
  readonly link?: number;
}

export class MockDriver {
  readonly pair: RingPair;
  readonly batch: ChainBatch;
  readonly #view: DataView;
  readonly #base: number;
  /** Split: the available index. Packed: the next descriptor and the wrap counter. */
  #idx = 0;
  #at = 0;
  #wrap = true;

  constructor(pair: RingPair) {
    this.pair = pair;
    this.batch = pair.newBatch();
    this.#view = pair.bytes();
    this.#base = pair.driverMemory.guestAddress;
  }

  /** Writes a descriptor at a guest physical address: entry `index` of the table that begins there. */
  write(table: number, index: number, descriptor: RawDescriptor): void {
    const at = table - this.#base + index * DESCRIPTOR_BYTES;
    const { address, length, flags, link = 0 } = descriptor;
    const packed = this.pair.layout.packed;
    this.#view.setBigUint64(at, BigInt.asUintN(64, BigInt(address)), true);
    this.#view.setUint32(at + 8, length, true);
    this.#view.setUint16(at + 12, packed ? link : flags, true);
    this.#view.setUint16(at + 14, packed ? flags : link, true);
  }

  /** Makes one chain available, its descriptors as they are given: nothing is filled in but where they stand. */
  offer(...descriptors: readonly RawDescriptor[]): void {
    if (this.pair.layout.packed) {
      for (const descriptor of descriptors) this.#put(descriptor);
      return;
    }
    const head = this.#idx % this.pair.layout.size;
    for (const [i, descriptor] of descriptors.entries()) {
      this.write(this.pair.layout.descriptor, (head + i) % this.pair.layout.size, descriptor);
    }
    this.offerHead(head);
  }

  /** Split: makes a head available, whatever it is. */
  offerHead(head: number): void {
    const { driver, size } = this.pair.layout;
    this.#view.setUint16(driver - this.#base + 4 + 2 * (this.#idx % size), head, true);
    this.setIdx(this.#idx + 1);
  }

  /** Split: sets the available index. */
  setIdx(idx: number): void {
    this.#idx = idx & 0xffff;
    this.#view.setUint16(this.pair.layout.driver - this.#base + 2, this.#idx, true);
  }

  get idx(): number {
    return this.#idx;
  }

  /** Writes a 32-bit word at a guest physical address. */
  poke(address: number, value: number): void {
    this.#view.setUint32(address - this.#base, value, true);
  }

  /** Lets the device take all that is available, as a device model does; returns chains taken. */
  collect(max = 64): number {
    this.batch.clear();
    return this.pair.device.collect(this.batch, max);
  }

  #put({ address, length, flags, link = 0 }: RawDescriptor): void {
    const { descriptor, size } = this.pair.layout;
    const available = this.#wrap ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED;
    const raw = { address, length, flags: flags | available, link };
    this.write(descriptor, this.#at, raw);
    this.#at++;
    if (this.#at === size) {
      this.#at = 0;
      this.#wrap = !this.#wrap;
    }
  }
}

/**
 * Throws unless all segments of a batch lie in the guest's memory and agree with their totals: what
 * any caller of `collect` relies on.
 */
export function checkBatch(pair: RingPair, batch: ChainBatch): void {
  for (let slot = 0; slot < batch.count; slot++) {
    let total = 0;
    for (let i = 0; i <= (batch.more[slot] as number); i++) {
      const at = (batch.moreStart[slot] as number) + i - 1;
      const address = (i === 0 ? batch.address[slot] : batch.moreAddress[at]) as number;
      const length = (i === 0 ? batch.length[slot] : batch.moreLength[at]) as number;
      const inside = pair.memory.regions.some(
        (region) =>
          address >= region.arenaAddress && address + length <= region.arenaAddress + region.size,
      );
      if (!inside || length === 0) {
        throw new Error(`chain ${slot}: ${length} bytes at arena address ${address}`);
      }
      total += length;
    }
    if (total !== batch.total[slot]) throw new Error(`chain ${slot}: ${total} bytes in all`);
    if ((batch.readable[slot] as number) > 1 + (batch.more[slot] as number)) {
      throw new Error(`chain ${slot}: more readable segments than segments`);
    }
  }
}
