/**
 * A driver in the same process, for tests: sets a controller up and moves frames as Linux's drivers
 * do, through registers and memory alone.
 */
import type { Arena } from '../../memory/arena.ts';
import {
  DMA_DONE,
  DMA_PENDING,
  DMA_REFUSED,
  type DmaFault,
  type DmaSpace,
} from '../../memory/dma.ts';
import type { InterruptSink, PciWiring } from '../../pci/function.ts';
import {
  E1000_REGISTERS,
  type E1000RegisterName,
  EECD_CS,
  EECD_DI,
  EECD_DO,
  EECD_GNT,
  EECD_REQ,
  EECD_SK,
  MDIC_PHY_SHIFT,
  MDIC_READ,
  MDIC_REGISTER_SHIFT,
  MDIC_WRITE,
  RCTL_BAM,
  RCTL_EN,
  TCTL_EN,
  TXD_EOP,
  TXD_RS,
} from '../../spec/e1000.ts';
import type { E1000 } from './e1000.ts';

export type Reach =
  /** All of it at addresses of ours. */
  | 'mapped'
  /** Page by page: nothing that crosses a page is in one piece. */
  | 'pages'
  /** By messages: answers come with {@link TestMemory.settle}. */
  | 'remote';

/** Guest memory from I/O virtual address {@link TEST_BASE} on, as a DMA space. */
export const TEST_BASE = 0x10_0000;

export class TestMemory implements DmaSpace {
  generation = 0;
  logging = false;
  onDone: ((tag: number, ok: boolean) => void) | undefined;
  reach: Reach = 'mapped';
  readonly faults: { iova: number; length: number; write: boolean }[] = [];
  readonly dirty: number[] = [];
  readonly #arena: Arena;
  readonly #at: number;
  readonly #bytes: number;
  readonly #pending: (() => void)[] = [];

  constructor(arena: Arena, bytes: number) {
    this.#arena = arena;
    this.#bytes = bytes;
    this.#at = arena.allocate(bytes, 'sluice-test-guest');
  }

  translate(iova: number, length: number, _write: boolean): number {
    if (this.reach === 'remote' || !this.#inside(iova, length)) return -1;
    if (this.reach === 'pages' && (iova % 4096) + length > 4096) return -1;
    return this.#at + iova - TEST_BASE;
  }

  read(iova: number, length: number, to: number, tag: number): number {
    return this.#move(iova, length, false, tag, () => {
      const at = this.#at + iova - TEST_BASE;
      this.#arena.bytes.copyWithin(to, at, at + length);
    });
  }

  write(iova: number, length: number, from: number, tag: number): number {
    return this.#move(iova, length, true, tag, () => {
      this.#arena.bytes.copyWithin(this.#at + iova - TEST_BASE, from, from + length);
    });
  }

  fault(iova: number, length: number, write: boolean, _reason: DmaFault): void {
    this.faults.push({ iova, length, write });
  }

  markWritten(address: number, _length: number): void {
    this.dirty.push(address);
  }

  /** Answers what is pending, in order. */
  settle(): void {
    for (const one of this.#pending.splice(0)) one();
  }

  bytes(iova: number, length: number): Buffer {
    const at = this.#at + iova - TEST_BASE;
    return Buffer.from(this.#arena.buffer, at, length);
  }

  #inside(iova: number, length: number): boolean {
    return iova >= TEST_BASE && iova + length <= TEST_BASE + this.#bytes;
  }

  #move(iova: number, length: number, write: boolean, tag: number, copy: () => void): number {
    if (!this.#inside(iova, length)) {
      this.faults.push({ iova, length, write });
      return DMA_REFUSED;
    }
    if (this.reach !== 'remote') {
      copy();
      return DMA_DONE;
    }
    this.#pending.push(() => {
      copy();
      this.onDone?.(tag, true);
    });
    return DMA_PENDING;
  }
}

export interface Received {
  readonly bytes: Buffer;
  readonly status: number;
  readonly errors: number;
  readonly vlan: number;
}

export const TEST_RING = 64;
const BUFFER_BYTES = 2048;

export class TestDriver implements InterruptSink {
  readonly keepsMasks = true;
  readonly device: E1000;
  readonly memory: TestMemory;
  line = false;
  readonly msi: number[] = [];
  readonly msix: number[] = [];
  readonly tx = TEST_BASE;
  readonly rx = TEST_BASE + 0x1000;
  #next = TEST_BASE + 0x10_0000;
  #tail = 0;
  #clean = 0;
  #rxBuffers = TEST_BASE + 0x4000;

  constructor(device: E1000, memory: TestMemory) {
    this.device = device;
    this.memory = memory;
    const wiring: PciWiring = {
      dma: memory,
      interrupts: this,
      setBusMaster: () => undefined,
    };
    device.attach(wiring);
    // Memory and I/O space, bus mastering.
    device.writeConfig(4, 2, 7);
  }

  setIntx(asserted: boolean): void {
    this.line = asserted;
  }

  signalMsi(vector: number): void {
    this.msi.push(vector);
  }

  signalMsix(vector: number): void {
    this.msix.push(vector);
  }

  get(name: E1000RegisterName, index = 0): number {
    return this.device.readBar(0, E1000_REGISTERS[name].offset + 4 * index, 4);
  }

  set(name: E1000RegisterName, value: number, index = 0): void {
    this.device.writeBar(0, E1000_REGISTERS[name].offset + 4 * index, 4, value >>> 0);
  }

  /** A word of the EEPROM by microwire, as Linux's e1000 reads it. */
  eeprom(address: number): number {
    this.set('EECD', EECD_REQ);
    if ((this.get('EECD') & EECD_GNT) === 0) throw new Error('no grant');
    let lines = EECD_REQ | EECD_CS;
    const clock = (bit: number): number => {
      lines = (lines & ~EECD_DI) | (bit === 0 ? 0 : EECD_DI);
      this.set('EECD', lines);
      this.set('EECD', lines | EECD_SK);
      const out = this.get('EECD') & EECD_DO;
      this.set('EECD', lines);
      return out === 0 ? 0 : 1;
    };
    this.set('EECD', lines);
    const command = (0b110 << 6) | address;
    for (let i = 8; i >= 0; i--) clock((command >>> i) & 1);
    let word = 0;
    for (let i = 0; i < 16; i++) word = (word << 1) | clock(0);
    this.set('EECD', EECD_REQ);
    this.set('EECD', 0);
    return word;
  }

  phy(register: number): number {
    this.set('MDIC', MDIC_READ | (1 << MDIC_PHY_SHIFT) | (register << MDIC_REGISTER_SHIFT));
    return this.get('MDIC') & 0xffff;
  }

  setPhy(register: number, value: number): void {
    const at = (1 << MDIC_PHY_SHIFT) | (register << MDIC_REGISTER_SHIFT);
    this.set('MDIC', MDIC_WRITE | at | value);
  }

  /** Rings of {@link TEST_RING}, all receive buffers but one given. */
  start(control = 0): void {
    this.set('TDBAL', this.tx);
    this.set('TDLEN', TEST_RING * 16);
    this.set('TCTL', TCTL_EN);
    this.set('RDBAL', this.rx);
    this.set('RDLEN', TEST_RING * 16);
    for (let i = 0; i < TEST_RING; i++) this.#give(i);
    this.set('RCTL', RCTL_EN | RCTL_BAM | control);
    this.set('RDT', TEST_RING - 1);
  }

  /** Guest memory that nobody uses yet. */
  place(bytes: Uint8Array, offset = 0): number {
    const at = this.#next + offset;
    this.memory.bytes(at, bytes.length).set(bytes);
    this.#next += Math.ceil((bytes.length + offset) / 4096) * 4096;
    return at;
  }

  descriptor(address: number, command: number, options: number): void {
    const at = this.memory.bytes(this.tx + 16 * this.#tail, 16);
    at.writeBigUInt64LE(BigInt(address), 0);
    at.writeUInt32LE(command >>> 0, 8);
    at.writeUInt32LE(options >>> 0, 12);
    this.#tail = (this.#tail + 1) % TEST_RING;
  }

  context(words: readonly [number, number, number, number]): void {
    const at = this.memory.bytes(this.tx + 16 * this.#tail, 16);
    for (let i = 0; i < 4; i++) at.writeUInt32LE((words[i] as number) >>> 0, 4 * i);
    this.#tail = (this.#tail + 1) % TEST_RING;
  }

  /** Sends a frame by one legacy descriptor. */
  send(frame: Uint8Array, command = 0, special = 0): void {
    const all = frame.length | TXD_EOP | TXD_RS | command;
    this.descriptor(this.place(frame), all, special << 16);
    this.kick();
  }

  kick(): void {
    this.set('TDT', this.#tail);
  }

  /** Takes turns of the loop until nothing moves. */
  run(): void {
    for (let i = 0; i < 64; i++) {
      const work = this.device.poll();
      this.memory.settle();
      if (work === 0 && this.device.poll() === 0) return;
    }
  }

  /** What the device has done with transmit descriptor `index`. */
  done(index: number): boolean {
    return ((this.memory.bytes(this.tx + 16 * index, 16)[12] as number) & 1) !== 0;
  }

  /** Frames in legacy descriptors (whose buffers are given again). */
  received(): Received[] {
    const frames: Received[] = [];
    let parts: Buffer[] = [];
    for (;;) {
      const at = this.memory.bytes(this.rx + 16 * this.#clean, 16);
      const status = at[12] as number;
      if ((status & 1) === 0) return frames;
      const address = Number(at.readBigUInt64LE(0));
      parts.push(Buffer.from(this.memory.bytes(address, at.readUInt16LE(8))));
      if ((status & 2) !== 0) {
        const bytes = Buffer.concat(parts);
        frames.push({ bytes, status, errors: at[13] as number, vlan: at.readUInt16LE(14) });
        parts = [];
      }
      this.#give(this.#clean);
      this.set('RDT', this.#clean);
      this.#clean = (this.#clean + 1) % TEST_RING;
    }
  }

  #give(index: number): void {
    const at = this.memory.bytes(this.rx + 16 * index, 16);
    at.fill(0);
    // Not at a page's beginning: a buffer may cross pages.
    at.writeBigUInt64LE(BigInt(this.#rxBuffers + index * (BUFFER_BYTES + 64)), 0);
  }
}
