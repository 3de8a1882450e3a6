/**
 * What a port of an AHCI controller and its driver share: command list, received FISes, command tables and
 * buffers for data, in a guest's memory (AHCI §4.2).
 */
import { alignUp, TWO_32 } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import { type DriverMemory, driverArenaAddress } from '../../ring/driver-queue.ts';
import * as ahci from '../../spec/ahci.ts';
import { DEVICE_LBA, FIS_H2D, FIS_H2D_BYTES, H2D_FLAG_COMMAND } from '../../spec/ata.ts';
import { BufferPool } from '../buffer-pool.ts';

const PAGE = 4096;
const LIST_BYTES = ahci.AHCI_MAX_SLOTS * ahci.AHCI_HEADER_BYTES;
/** Most bytes of one entry of a PRDT (§4.2.3.3). */
const MAX_ENTRY_BYTES = ahci.AHCI_PRD_COUNT_MASK + 1;
/** Most entries of a PRDT (§4.2.2). */
const MAX_ENTRIES = 0xffff;

// Indexes into words.
const FIS_WORDS = FIS_H2D_BYTES / 4;
const HEADER_WORDS = ahci.AHCI_HEADER_BYTES / 4;
const HEADER_TABLE = ahci.AHCI_HEADER_TABLE / 4;
const HEADER_PRDBC = ahci.AHCI_HEADER_PRDBC / 4;
const TABLE_PRDT = ahci.AHCI_TABLE_PRDT / 4;
const TABLE_ACMD = ahci.AHCI_TABLE_ACMD / 4;
const PRD_WORDS = ahci.AHCI_PRD_BYTES / 4;
const PRD_COUNT = ahci.AHCI_PRD_COUNT / 4;

/** First word of a FIS that brings a command; the command itself in bits 23:16. */
const COMMAND_FIS = FIS_H2D | (H2D_FLAG_COMMAND << 8);

export interface PortMemoryOptions {
  /** Requests that can be on their way at once: 1 to 32. */
  readonly slots: number;
  /** Bytes of data of the largest request: even. */
  readonly requestBytes: number;
  /** Bytes of an entry of a PRDT, if it is to be less than the standard allows: even. */
  readonly segmentBytes?: number;
  /** Room for so many entries in each table, if it is to be more than a request needs. */
  readonly entries?: number;
}

/** Where everything lies, as offsets, before there is memory for it. */
export interface PortPlan {
  readonly options: PortMemoryOptions;
  readonly guestAddress: number;
  readonly segmentBytes: number;
  readonly list: number;
  readonly received: number;
  /** A page for data of commands that are none of the slots': IDENTIFY, logs, ranges to forget. */
  readonly page: number;
  readonly tables: number;
  readonly tableBytes: number;
  readonly data: number;
  /** Bytes of memory from `guestAddress` on. */
  readonly bytes: number;
}

/** Lays a port's memory out. @throws SluiceError `config` for sizes that cannot be. */
export function planPort(options: PortMemoryOptions, guestAddress: number): PortPlan {
  const { slots, requestBytes, segmentBytes = MAX_ENTRY_BYTES, entries = 1 } = options;
  const { AHCI_MAX_SLOTS } = ahci;
  if (!Number.isInteger(slots) || slots < 1 || slots > AHCI_MAX_SLOTS) {
    throw new SluiceError('config', `${slots} requests at once to a disk behind AHCI`, {
      remedy: `choose 1 to ${AHCI_MAX_SLOTS}`,
    });
  }
  const isEven = requestBytes % 2 === 0 && segmentBytes % 2 === 0;
  const needed = Math.ceil(requestBytes / segmentBytes);
  if (!isEven || requestBytes < 2 || segmentBytes < 2 || segmentBytes > MAX_ENTRY_BYTES) {
    throw new SluiceError(
      'config',
      `requests of ${requestBytes} bytes in segments of ${segmentBytes}`,
      { remedy: `choose even numbers, and segments of at most ${MAX_ENTRY_BYTES}` },
    );
  }
  const most = Math.max(needed, entries);
  if (most > MAX_ENTRIES) {
    throw new SluiceError('config', `a request of ${most} segments`, {
      remedy: `choose at most ${MAX_ENTRIES}`,
    });
  }
  if (guestAddress % PAGE !== 0) {
    throw new SluiceError('config', `a port's memory at 0x${guestAddress.toString(16)}`, {
      remedy: `choose a multiple of ${PAGE}`,
    });
  }
  const list = 0;
  const received = list + LIST_BYTES;
  const page = PAGE;
  const tables = 2 * PAGE;
  const tableBytes = alignUp(
    ahci.AHCI_TABLE_PRDT + most * ahci.AHCI_PRD_BYTES,
    ahci.AHCI_TABLE_ALIGNMENT,
  );
  const data = alignUp(tables + slots * tableBytes, PAGE);
  const bytes = alignUp(data + BufferPool.bytesFor(slots, requestBytes, PAGE), PAGE);
  return {
    options,
    guestAddress,
    segmentBytes,
    list,
    received,
    page,
    tables,
    tableBytes,
    data,
    bytes,
  };
}

export class PortMemory {
  readonly plan: PortPlan;
  readonly memory: DriverMemory;
  readonly pool: BufferPool;
  /** All of the plan, little-endian; index is the offset divided by 4. */
  readonly words: Uint32Array;
  /** Data of all slots. */
  readonly data: Uint32Array;
  /** By slot, filled in by the user: first logical block of the next command. */
  readonly lba: Float64Array;
  private readonly signed: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly segmentBytes: number;
  private readonly dataAddress: Float64Array;
  /** By slot: bytes that its PRDT describes. */
  private readonly described: Uint32Array;

  /** Clears the structures in `memory`, which begins where the plan says. */
  constructor(plan: PortPlan, memory: DriverMemory) {
    const { slots, requestBytes } = plan.options;
    if (memory.guestAddress !== plan.guestAddress || memory.size < plan.bytes) {
      throw new SluiceError('memory', `${memory.size} bytes for a port of ${plan.bytes}`);
    }
    this.plan = plan;
    this.memory = memory;
    this.segmentBytes = plan.segmentBytes;
    const { buffer } = memory.arena;
    const at = driverArenaAddress(memory, plan.guestAddress, plan.bytes);
    this.words = new Uint32Array(buffer, at, plan.bytes / 4);
    this.signed = new Int32Array(buffer, at, plan.bytes / 4);
    this.bytes = new Uint8Array(buffer, at, plan.bytes);
    this.pool = new BufferPool(memory, plan.data, slots, requestBytes, PAGE);
    this.data = this.words.subarray(plan.data / 4);
    this.dataAddress = this.pool.addresses();
    this.lba = new Float64Array(slots);
    this.described = new Uint32Array(slots);
    this.bytes.fill(0, 0, plan.data);
    for (let slot = 0; slot < slots; slot++) {
      const header = this.headerAt(slot);
      this.putAddress(header + HEADER_TABLE, this.tableAddress(slot));
    }
  }

  get listAddress(): number {
    return this.plan.guestAddress + this.plan.list;
  }

  get receivedAddress(): number {
    return this.plan.guestAddress + this.plan.received;
  }

  get pageAddress(): number {
    return this.plan.guestAddress + this.plan.page;
  }

  tableAddress(slot: number): number {
    return this.plan.guestAddress + this.plan.tables + slot * this.plan.tableBytes;
  }

  /** Guest physical address of a slot's data. */
  dataAddressOf(slot: number): number {
    return this.dataAddress[slot] as number;
  }

  /** Bytes of the plan, from an offset on. */
  view(offset: number, length: number): Buffer {
    const { bytes } = this;
    return Buffer.from(bytes.buffer, bytes.byteOffset + offset, length);
  }

  /** A command without data in the command FIS of a slot; the block is `lba[slot]`. */
  setCommand(
    slot: number,
    command: number,
    features: number,
    count: number,
    device: number = DEVICE_LBA,
  ): void {
    const { words } = this;
    const at = this.tableWordAt(slot);
    const lba = this.lba[slot] as number;
    words[at] = COMMAND_FIS | (command << 16) | ((features & 0xff) << 24);
    words[at + 1] = (lba % 0x100_0000) | (device << 24);
    words[at + 2] = (lba / 0x100_0000) | ((features >> 8) << 24);
    words[at + 3] = count;
    words[at + 4] = 0;
  }

  /** The packet of PACKET. */
  setPacket(slot: number, packet: ArrayLike<number>): void {
    this.bytes.set(packet, (this.tableWordAt(slot) + TABLE_ACMD) * 4);
  }

  /** Has the command of a slot read into, or write from, `bytes` of the slot's buffer. */
  setData(slot: number, bytes: number, flags: number): void {
    const { segmentBytes } = this;
    if (this.described[slot] !== bytes) {
      this.described[slot] = bytes;
      let at = this.tableWordAt(slot) + TABLE_PRDT;
      for (let done = 0; done < bytes; done += segmentBytes) {
        const left = bytes - done;
        this.putEntry(
          at,
          (this.dataAddress[slot] as number) + done,
          left < segmentBytes ? left : segmentBytes,
        );
        at += PRD_WORDS;
      }
    }
    this.setHeader(slot, bytes === 0 ? 0 : Math.ceil(bytes / segmentBytes), flags);
  }

  /** The same with pieces of memory anywhere. */
  setPieces(
    slot: number,
    pieces: readonly { readonly address: number; readonly bytes: number }[],
    flags: number,
  ): void {
    this.described[slot] = 0;
    let at = this.tableWordAt(slot) + TABLE_PRDT;
    for (const { address, bytes } of pieces) {
      this.putEntry(at, address, bytes);
      at += PRD_WORDS;
    }
    this.setHeader(slot, pieces.length, flags);
  }

  /** The command header of a slot: entries of its PRDT, and AHCI_HEADER_* bits. */
  setHeader(slot: number, entries: number, flags: number): void {
    const { words } = this;
    const at = this.headerAt(slot);
    words[at] = flags | FIS_WORDS | (entries << ahci.AHCI_HEADER_PRDTL_SHIFT);
    words[at + HEADER_PRDBC] = 0;
  }

  /** Bytes that the command of a slot has moved (§5.4.1); not told of queued ones. */
  movedBytes(slot: number): number {
    return this.words[this.headerAt(slot) + HEADER_PRDBC] as number;
  }

  /**
   * First word of a received FIS, which is cleared: 0 if none has come since. Only a hint, which the
   * device may be just writing: the registers tell.
   */
  takeFis(offset: number): number {
    const at = (this.plan.received + offset) >> 2;
    return Atomics.load(this.signed, at) === 0 ? 0 : Atomics.exchange(this.signed, at, 0);
  }

  private headerAt(slot: number): number {
    return (this.plan.list >> 2) + slot * HEADER_WORDS;
  }

  private tableWordAt(slot: number): number {
    return (this.plan.tables + slot * this.plan.tableBytes) >> 2;
  }

  private putEntry(at: number, address: number, bytes: number): void {
    this.putAddress(at, address);
    this.words[at + 2] = 0;
    this.words[at + PRD_COUNT] = bytes - 1;
  }

  private putAddress(at: number, address: number): void {
    const { words } = this;
    words[at] = address % TWO_32;
    words[at + 1] = address / TWO_32;
  }
}
