/**
 * For tests of the AHCI controller: a guest's memory that can be far away or not there, and a driver that
 * works the registers in the order in which Linux's ahci and libata do.
 */
import assert from 'node:assert/strict';
import { TWO_32 } from '../../base/bits.ts';
import { silentLogger } from '../../base/log.ts';
import { testLane } from '../../block/testing-client.ts';
import {
  DMA_DONE,
  DMA_FAULT,
  DMA_PENDING,
  DMA_REFUSED,
  type DmaFault,
  type DmaSpace,
} from '../../memory/dma.ts';
import * as ahci from '../../spec/ahci.ts';
import * as ata from '../../spec/ata.ts';
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../spec/pci.ts';
import { Ahci, type AhciOptions } from './ahci.ts';
import type { AtaDevice } from './ata-device.ts';

/** The guest's memory begins at this IOVA: addresses of a guest are none of the arena's. */
export const MEMORY_IOVA = 0x1_2340_0000;
const MEMORY_BYTES = 8 * 1024 * 1024;
const PAGE = 4096;

interface PendingCopy {
  readonly tag: number;
  readonly run: () => void;
}

/** A DMA space over one piece of memory. */
export class FakeSpace implements DmaSpace {
  generation = 1;
  onDone: ((tag: number, ok: boolean) => void) | undefined;
  readonly logging = false;
  readonly faults: { iova: number; length: number; write: boolean; reason: DmaFault }[] = [];
  /** Memory without a descriptor: nothing translates, and copies are pending until {@link complete}. */
  far = false;
  /** Translates within pages only, and (as with an IOMMU) only every other page directly. */
  paged = false;
  readonly at: number;
  pending: PendingCopy[] = [];
  readonly #bytes: Uint8Array;

  constructor() {
    const { arena } = testLane();
    this.at = arena.allocate(MEMORY_BYTES, 'ahci-test');
    this.#bytes = arena.bytes;
  }

  translate(iova: number, length: number, _write: boolean): number {
    if (this.far || !this.#holds(iova, length)) return -1;
    if (this.paged) {
      const first = Math.floor(iova / PAGE);
      if (first !== Math.floor((iova + length - 1) / PAGE)) return -1;
    }
    return this.at + iova - MEMORY_IOVA;
  }

  read(iova: number, length: number, to: number, tag: number): number {
    return this.#copy(iova, length, false, tag, (at) =>
      this.#bytes.copyWithin(to, at, at + length),
    );
  }

  write(iova: number, length: number, from: number, tag: number): number {
    return this.#copy(iova, length, true, tag, (at) =>
      this.#bytes.copyWithin(at, from, from + length),
    );
  }

  fault(iova: number, length: number, write: boolean, reason: DmaFault): void {
    this.faults.push({ iova, length, write, reason });
  }

  markWritten(): void {
    assert.fail('no log of dirty pages is kept');
  }

  /** Does the copies that are pending, the last of them first. Returns how many. */
  complete(ok = true): number {
    const { pending } = this;
    this.pending = [];
    for (const { tag, run } of pending.reverse()) {
      if (ok) run();
      this.onDone?.(tag, ok);
    }
    return pending.length;
  }

  memory(iova: number, length: number): Buffer {
    assert.ok(this.#holds(iova, length));
    return Buffer.from(this.#bytes.buffer, this.at + iova - MEMORY_IOVA, length);
  }

  #copy(
    iova: number,
    length: number,
    write: boolean,
    tag: number,
    copy: (at: number) => void,
  ): number {
    if (!this.#holds(iova, length)) {
      this.fault(iova, length, write, DMA_FAULT.unmapped);
      return DMA_REFUSED;
    }
    const run = (): void => copy(this.at + iova - MEMORY_IOVA);
    if (this.far) {
      this.pending.push({ tag, run });
      return DMA_PENDING;
    }
    run();
    return DMA_DONE;
  }

  #holds(iova: number, length: number): boolean {
    return iova >= MEMORY_IOVA && length > 0 && iova + length <= MEMORY_IOVA + MEMORY_BYTES;
  }
}

/** A command as libata's struct ata_taskfile has it. */
export interface TestCommand {
  readonly command: number;
  readonly features?: number;
  readonly lba?: number;
  readonly count?: number;
  readonly device?: number;
  /** What a write sends. */
  readonly data?: Uint8Array;
  /** What a read is to bring, in bytes. */
  readonly bytes?: number;
  /** Bytes of the entries of the PRDT. Default: one entry. */
  readonly pieces?: readonly number[];
  readonly packet?: readonly number[];
  /** Bits for the header. */
  readonly flags?: number;
  /** Control register of a FIS that is no command. */
  readonly control?: number;
}

export interface TestResult {
  readonly status: number;
  readonly error: number;
  readonly data: Buffer;
  readonly bytes: number;
  readonly interrupts: number;
}

// Where the driver of one port keeps things in the guest's memory.
const LIST = 0;
const RECEIVED = 0x1000;
const TABLES = 0x2000;
const TABLE_BYTES = 0x4000;
const DATA = 0x10_0000;
const DATA_BYTES = 0x2_0000;

/** Turns that a test waits for a command. */
const PATIENCE = 20000;

/** A guest with one controller, whose driver works port 0. */
export class AhciGuest {
  readonly space = new FakeSpace();
  readonly controller: Ahci;
  readonly messages: number[] = [];
  intx = false;

  constructor(device?: AtaDevice, options: Partial<AhciOptions> = {}) {
    const { arena, loop } = testLane();
    this.controller = new Ahci({ name: 'test/ahci', arena, loop, log: silentLogger, ...options });
    if (device !== undefined) this.controller.insert(0, device);
    this.controller.attach({
      dma: this.space,
      interrupts: {
        keepsMasks: true,
        setIntx: (asserted) => {
          this.intx = asserted;
        },
        signalMsi: (vector) => this.messages.push(vector),
        signalMsix: () => assert.fail('there is no MSI-X'),
      },
      setBusMaster: () => undefined,
    });
    this.controller.writeConfig(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  }

  close(): void {
    this.controller.detach();
    let removed = !this.occupied;
    if (!removed) {
      this.controller.remove(0, () => {
        removed = true;
      });
    }
    for (let i = 0; i < PATIENCE && !removed; i++) this.turn();
    assert.ok(removed, 'the drive is never free');
    this.controller.close();
    testLane().arena.unmap(this.space.at, MEMORY_BYTES);
  }

  /** Set false by tests that take the drive out. */
  occupied = true;

  turn(): void {
    this.controller.poll();
    this.space.complete();
  }

  read(offset: number): number {
    return this.controller.readBar(ahci.AHCI_BAR, offset, 4);
  }

  write(offset: number, value: number): void {
    this.controller.writeBar(ahci.AHCI_BAR, offset, 4, value >>> 0);
  }

  port(offset: number): number {
    return this.read(ahci.AHCI_PORTS + offset);
  }

  setPort(offset: number, value: number): void {
    this.write(ahci.AHCI_PORTS + offset, value);
  }

  until(what: string, condition: () => boolean): void {
    for (let i = 0; i < PATIENCE; i++) {
      if (condition()) return;
      this.turn();
    }
    assert.fail(`waits for ${what} in vain`);
  }

  /** ahci_reset_controller, ahci_init_controller, ahci_start_port, sata_link_hardreset. */
  start(): void {
    this.write(ahci.AHCI_GHC, ahci.AHCI_GHC_RESET);
    this.until('the reset', () => (this.read(ahci.AHCI_GHC) & ahci.AHCI_GHC_RESET) === 0);
    this.write(ahci.AHCI_GHC, ahci.AHCI_GHC_AHCI_ENABLE);
    this.stopEngine();
    this.setPort(ahci.PX_SERR, this.port(ahci.PX_SERR));
    this.setPort(ahci.PX_IS, this.port(ahci.PX_IS));
    this.write(ahci.AHCI_IS, 1);
    this.setPort(ahci.PX_CLBU, Math.floor(MEMORY_IOVA / TWO_32));
    this.setPort(ahci.PX_CLB, (MEMORY_IOVA % TWO_32) + LIST);
    this.setPort(ahci.PX_FBU, Math.floor(MEMORY_IOVA / TWO_32));
    this.setPort(ahci.PX_FB, (MEMORY_IOVA % TWO_32) + RECEIVED);
    this.setPort(ahci.PX_CMD, this.port(ahci.PX_CMD) | ahci.PX_CMD_FRE);
    this.setPort(ahci.PX_IE, 0x7dc0_007f);
    this.write(ahci.AHCI_GHC, ahci.AHCI_GHC_AHCI_ENABLE | ahci.AHCI_GHC_INTERRUPT_ENABLE);
    this.hardReset();
  }

  /** ahci_hardreset. */
  hardReset(): void {
    this.stopEngine();
    this.setPort(ahci.PX_SCTL, 0x301);
    this.setPort(ahci.PX_SCTL, 0x300);
    this.until('the link', () => (this.port(ahci.PX_SSTS) & 0xf) === 3);
    this.setPort(ahci.PX_SERR, 0xffff_ffff);
    this.startEngine();
    this.until('the drive', () => (this.port(ahci.PX_TFD) & ata.STATUS_BSY) === 0);
    this.acknowledge();
  }

  stopEngine(): void {
    this.setPort(ahci.PX_CMD, this.port(ahci.PX_CMD) & ~ahci.PX_CMD_ST);
    this.until('CR', () => (this.port(ahci.PX_CMD) & ahci.PX_CMD_CR) === 0);
  }

  startEngine(): void {
    this.setPort(ahci.PX_CMD, this.port(ahci.PX_CMD) | ahci.PX_CMD_ST);
  }

  /** The interrupt handler: returns PxIS as it was. */
  acknowledge(): number {
    const status = this.port(ahci.PX_IS);
    this.setPort(ahci.PX_IS, status);
    this.write(ahci.AHCI_IS, this.read(ahci.AHCI_IS));
    return status;
  }

  /** Memory of a slot's data. */
  data(slot: number): number {
    return MEMORY_IOVA + DATA + slot * DATA_BYTES;
  }

  received(offset: number, length: number): Buffer {
    return this.space.memory(MEMORY_IOVA + RECEIVED + offset, length);
  }

  header(slot: number): Buffer {
    return this.space.memory(MEMORY_IOVA + LIST + slot * ahci.AHCI_HEADER_BYTES, 32);
  }

  table(slot: number): Buffer {
    return this.space.memory(MEMORY_IOVA + TABLES + slot * TABLE_BYTES, TABLE_BYTES);
  }

  /** ahci_qc_prep: lays a command into a slot. */
  prepare(slot: number, command: TestCommand): void {
    const table = this.table(slot);
    const bytes = command.data?.length ?? command.bytes ?? 0;
    const pieces = command.pieces ?? (bytes === 0 ? [] : [bytes]);
    const lba = command.lba ?? 0;
    table.fill(0, 0, ahci.AHCI_TABLE_PRDT);
    table[0] = ata.FIS_H2D;
    table[1] = command.control === undefined ? ata.H2D_FLAG_COMMAND : 0;
    table[2] = command.command;
    table[3] = (command.features ?? 0) & 0xff;
    table.writeUIntLE(lba % 2 ** 24, 4, 3);
    table[7] = command.device ?? ata.DEVICE_LBA;
    table.writeUIntLE(Math.floor(lba / 2 ** 24), 8, 3);
    table[11] = (command.features ?? 0) >> 8;
    table.writeUInt16LE(command.count ?? 0, 12);
    table[15] = command.control ?? 0;
    if (command.packet !== undefined) table.set(command.packet, ahci.AHCI_TABLE_ACMD);
    let at = this.data(slot);
    for (const [i, length] of pieces.entries()) {
      const entry = ahci.AHCI_TABLE_PRDT + i * ahci.AHCI_PRD_BYTES;
      table.writeBigUInt64LE(BigInt(at), entry);
      table.writeUInt32LE(length - 1, entry + ahci.AHCI_PRD_COUNT);
      at += length;
    }
    if (command.data !== undefined) {
      this.space.memory(this.data(slot), bytes).set(command.data);
    }
    const flags =
      (command.data === undefined ? 0 : ahci.AHCI_HEADER_WRITE) |
      (command.packet === undefined ? 0 : ahci.AHCI_HEADER_ATAPI) |
      (command.flags ?? 0);
    this.prepareHeader(slot, pieces.length, flags);
  }

  /** Writes the command header of a slot, whose table is where it always is. */
  prepareHeader(slot: number, entries: number, flags = 0): void {
    const header = this.header(slot);
    header.writeUInt32LE((flags | 5 | (entries << 16)) >>> 0, 0);
    header.writeUInt32LE(0, 4);
    header.writeBigUInt64LE(BigInt(MEMORY_IOVA + TABLES + slot * TABLE_BYTES), 8);
  }

  issue(slots: number): void {
    this.setPort(ahci.PX_CI, slots);
  }

  /** One command that is not queued, to its end. */
  run(command: TestCommand, slot = 0): TestResult {
    this.prepare(slot, command);
    this.issue(1 << slot);
    const wanted = ahci.PX_IS_DHRS | ahci.PX_IS_PSS | FATAL;
    this.until('a command', () => (this.port(ahci.PX_IS) & wanted) !== 0);
    const interrupts = this.acknowledge();
    const taskfile = this.port(ahci.PX_TFD);
    const bytes = this.header(slot).readUInt32LE(4);
    return {
      status: taskfile & 0xff,
      error: taskfile >> 8,
      data: Buffer.from(this.space.memory(this.data(slot), Math.max(1, command.bytes ?? 1))),
      bytes,
      interrupts,
    };
  }

  /** As {@link run}, and it must succeed. */
  succeed(command: TestCommand, slot = 0): Buffer {
    const result = this.run(command, slot);
    assert.equal(result.status & (ata.STATUS_ERR | ata.STATUS_BSY), 0, `error ${result.error}`);
    return result.data;
  }

  /** Queued commands, all at once: READ or WRITE FPDMA QUEUED of `blocks` from `lba`. */
  queue(slot: number, write: boolean, lba: number, blocks: number, data?: Uint8Array): void {
    this.prepare(slot, {
      command: write ? ata.ATA_WRITE_FPDMA_QUEUED : ata.ATA_READ_FPDMA_QUEUED,
      features: blocks,
      count: slot << 3,
      lba,
      ...(data === undefined ? { bytes: blocks * 512 } : { data }),
    });
    this.setPort(ahci.PX_SACT, 2 ** slot);
    this.issue(2 ** slot);
  }

  /** ahci's error handler without a reset: the engine off and on. */
  recover(): void {
    this.stopEngine();
    this.setPort(ahci.PX_SERR, this.port(ahci.PX_SERR));
    this.acknowledge();
    this.startEngine();
  }
}

export const FATAL = ahci.PX_IS_TFES | ahci.PX_IS_HBFS | ahci.PX_IS_IFS | ahci.PX_IS_OFS;

/** Bytes that differ from place to place. */
export function pattern(bytes: number, seed: number): Buffer {
  const data = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; i++) data[i] = (i * 7 + (i >> 9) * 13 + seed * 31) & 0xff;
  return data;
}
