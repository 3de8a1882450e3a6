/**
 * For tests of the AHCI controller: a guest's memory that can be far away or not there, and the driver of
 * `driver/ahci/` in the same thread, by which commands of any shape are issued.
 */
import assert from 'node:assert/strict';
import { silentLogger } from '../../base/log.ts';
import { testLane } from '../../block/testing-client.ts';
import { Hba } from '../../driver/ahci/hba.ts';
import { PORT_ERRORS, PortDriver } from '../../driver/ahci/port-driver.ts';
import { PortMemory, planPort } from '../../driver/ahci/port-memory.ts';
import { AhciRegisters } from '../../driver/ahci/registers.ts';
import { BoundFunction } from '../../driver/pci/bound-function.ts';
import { DirectBus } from '../../driver/pci/testing.ts';
import {
  DMA_DONE,
  DMA_FAULT,
  DMA_PENDING,
  DMA_REFUSED,
  type DmaFault,
  type DmaSpace,
} from '../../memory/dma.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import * as ahci from '../../spec/ahci.ts';
import * as ata from '../../spec/ata.ts';
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

/** Of the guest's memory; tests have tables of some 600 entries, and data of 128 KiB. */
const PORT_MEMORY = { slots: ahci.AHCI_MAX_SLOTS, requestBytes: 0x2_0000, entries: 1000 };

/** Turns that a test waits for a command. */
const PATIENCE = 20000;

/** A guest with one controller, whose driver works port 0. */
export class AhciGuest {
  readonly space = new FakeSpace();
  readonly controller: Ahci;
  readonly bus: DirectBus;
  readonly function: BoundFunction;
  readonly registers: AhciRegisters;
  readonly plan = planPort(PORT_MEMORY, MEMORY_IOVA);
  readonly memory: DriverMemory;
  readonly layout: PortMemory;
  #hba: Hba | undefined;
  #driver: PortDriver | undefined;

  /** @param device the drive of port 0, or a controller that has one there */
  constructor(device?: AtaDevice | Ahci, options: Partial<AhciOptions> = {}) {
    const { arena, loop } = testLane();
    const isWhole = device instanceof Ahci;
    this.controller = isWhole
      ? device
      : new Ahci({ name: 'test/ahci', arena, loop, log: silentLogger, ...options });
    if (!isWhole && device !== undefined) this.controller.insert(0, device);
    this.bus = new DirectBus(this.controller, this.space);
    this.function = new BoundFunction(this.bus);
    this.function.enableInterrupts(1, () => undefined, ['intx']);
    this.registers = new AhciRegisters(this.bus, () => this.turn());
    this.memory = {
      arena,
      arenaAddress: this.space.at,
      guestAddress: MEMORY_IOVA,
      size: MEMORY_BYTES,
    };
    this.layout = new PortMemory(this.plan, this.memory);
  }

  /** Level of the line, and messages, in their order. */
  get intx(): boolean {
    return this.bus.line;
  }

  get messages(): readonly number[] {
    return this.bus.msi;
  }

  /** The driver of port 0, from {@link start} on. */
  get driver(): PortDriver {
    assert.ok(this.#driver !== undefined, 'the guest was not started');
    return this.#driver;
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
    return this.registers.read(offset);
  }

  write(offset: number, value: number): void {
    this.registers.write(offset, value);
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

  /** Resets controller and drive and starts the port. */
  start(): void {
    if (this.#hba === undefined) this.#hba = new Hba(this.registers, 'test/ahci');
    else this.#hba.reset();
    this.#driver = new PortDriver(this.#hba, 0, this.layout);
    this.#hba.enableInterrupts();
    this.#driver.start();
  }

  hardReset(): void {
    this.driver.resetLink();
  }

  stopEngine(): void {
    this.driver.stopCommands();
  }

  startEngine(): void {
    this.driver.startCommands();
  }

  /** The interrupt handler: returns PxIS as it was. */
  acknowledge(): number {
    return this.driver.acknowledge();
  }

  /** Memory of a slot's data. */
  data(slot: number): number {
    return this.layout.dataAddressOf(slot);
  }

  received(offset: number, length: number): Buffer {
    return this.layout.view(this.plan.received + offset, length);
  }

  header(slot: number): Buffer {
    return this.layout.view(this.plan.list + slot * ahci.AHCI_HEADER_BYTES, 32);
  }

  table(slot: number): Buffer {
    return this.layout.view(this.plan.tables + slot * this.plan.tableBytes, this.plan.tableBytes);
  }

  /** Lays a command into a slot. */
  prepare(slot: number, command: TestCommand): void {
    const { layout } = this;
    const { data, packet } = command;
    const bytes = data?.length ?? command.bytes ?? 0;
    const table = this.table(slot);
    table.fill(0, 0, ahci.AHCI_TABLE_PRDT);
    layout.lba[slot] = command.lba ?? 0;
    layout.setCommand(
      slot,
      command.command,
      command.features ?? 0,
      command.count ?? 0,
      command.device,
    );
    if (command.control !== undefined) {
      table[ata.H2D_FLAGS] = 0;
      table[ata.H2D_CONTROL] = command.control;
    }
    if (packet !== undefined) layout.setPacket(slot, packet);
    if (data !== undefined) this.space.memory(this.data(slot), bytes).set(data);
    const flags =
      (data === undefined ? 0 : ahci.AHCI_HEADER_WRITE) |
      (packet === undefined ? 0 : ahci.AHCI_HEADER_ATAPI) |
      (command.flags ?? 0);
    let at = this.data(slot);
    const pieces = (command.pieces ?? (bytes === 0 ? [] : [bytes])).map((length) => {
      at += length;
      return { address: at - length, bytes: length };
    });
    layout.setPieces(slot, pieces, flags);
  }

  /** Writes the command header of a slot, whose table is where it always is. */
  prepareHeader(slot: number, entries: number, flags = 0): void {
    this.header(slot).writeBigUInt64LE(BigInt(this.layout.tableAddress(slot)), 8);
    this.layout.setHeader(slot, entries, flags);
  }

  issue(slots: number): void {
    this.driver.issue(slots);
  }

  /** One command that is not queued, to its end. */
  run(command: TestCommand, slot = 0): TestResult {
    this.prepareHeader(slot, 0);
    this.prepare(slot, command);
    const { status, error, interrupts } = this.driver.run(slot);
    const bytes = this.layout.movedBytes(slot);
    const data = this.space.memory(this.data(slot), Math.max(1, command.bytes ?? 1));
    return { status, error, data: Buffer.from(data), bytes, interrupts };
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
    this.driver.issueQueued(1 << slot);
  }

  /** An error handler without a reset: the engine off and on. */
  recover(): void {
    this.stopEngine();
    this.setPort(ahci.PX_SERR, this.port(ahci.PX_SERR));
    this.acknowledge();
    this.startEngine();
  }
}

export const FATAL = PORT_ERRORS;

/** Bytes that differ from place to place. */
export function pattern(bytes: number, seed: number): Buffer {
  const data = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; i++) data[i] = (i * 7 + (i >> 9) * 13 + seed * 31) & 0xff;
  return data;
}
