/**
 * A driver in the same thread as its card, for tests and fuzzers of the device: registers by name, and
 * descriptors one by one, so that it can do what no good driver does.
 */
import { TWO_32 } from '../../base/bits.ts';
import type { E1000 } from '../../device/e1000/e1000.ts';
import { TEST_BASE, type TestMemory } from '../../device/e1000/testing.ts';
import {
  type E1000RegisterName,
  RCTL_BAM,
  RCTL_EN,
  TCTL_EN,
  TXD_DD,
  TXD_EOP,
  TXD_RS,
} from '../../spec/e1000.ts';
import {
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
} from '../../spec/pci.ts';
import type { DescriptorRing } from '../nic/descriptor-ring.ts';
import { DirectBus } from '../pci/testing.ts';
import { E1000Card } from './card.ts';
import { e1000Ring } from './rings.ts';

export interface Received {
  readonly bytes: Buffer;
  readonly status: number;
  readonly errors: number;
  readonly vlan: number;
}

export const TEST_RING = 64;
const BUFFER_BYTES = 2048;
const DESCRIPTOR_BYTES = 16;
// Where things lie in the guest's memory.
const TRANSMIT = 0;
const RECEIVE = 0x1000;
const BUFFERS = 0x4000;
const PLACES = 0x10_0000;

export class TestDriver {
  readonly device: E1000;
  readonly memory: TestMemory;
  readonly bus: DirectBus;
  readonly card: E1000Card;
  readonly transmit: DescriptorRing;
  readonly receive: DescriptorRing;
  readonly #buffers: Float64Array;
  #next = TEST_BASE + PLACES;

  constructor(device: E1000, memory: TestMemory) {
    this.device = device;
    this.memory = memory;
    this.bus = new DirectBus(device, memory);
    this.card = new E1000Card(this.bus);
    this.transmit = e1000Ring(this.card, 'transmit', memory.driver, TRANSMIT, TEST_RING);
    this.receive = e1000Ring(this.card, 'receive', memory.driver, RECEIVE, TEST_RING);
    // Not at a page's beginning: a buffer may cross pages.
    this.#buffers = Float64Array.from(
      { length: TEST_RING },
      (_, index) => TEST_BASE + BUFFERS + index * (BUFFER_BYTES + 64),
    );
    this.bus.writeConfig(PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  }

  /** Guest physical addresses of the rings. */
  get tx(): number {
    return this.transmit.address;
  }

  get rx(): number {
    return this.receive.address;
  }

  get line(): boolean {
    return this.bus.line;
  }

  get msi(): number[] {
    return this.bus.msi;
  }

  get msix(): number[] {
    return this.bus.msix;
  }

  get(name: E1000RegisterName, index = 0): number {
    return this.card.get(name, index);
  }

  set(name: E1000RegisterName, value: number, index = 0): void {
    this.card.set(name, value, index);
  }

  eeprom(address: number): number {
    return this.card.eeprom(address);
  }

  phy(register: number): number {
    return this.card.phy(register);
  }

  setPhy(register: number, value: number): void {
    this.card.setPhy(register, value);
  }

  /** Rings of {@link TEST_RING}, all receive buffers but one given. */
  start(control = 0): void {
    this.transmit.start();
    this.set('TCTL', TCTL_EN);
    this.receive.start();
    while (this.receive.free > 0) this.#give();
    this.set('RCTL', RCTL_EN | RCTL_BAM | control);
    this.receive.publish();
  }

  /** Guest memory that nobody uses yet. */
  place(bytes: Uint8Array, offset = 0): number {
    const at = this.#next + offset;
    this.memory.bytes(at, bytes.length).set(bytes);
    this.#next += Math.ceil((bytes.length + offset) / 4096) * 4096;
    return at;
  }

  descriptor(address: number, command: number, options: number): void {
    this.transmit.put(...halves(address), command, options);
  }

  context(words: readonly [number, number, number, number]): void {
    this.transmit.put(...words);
  }

  /** Sends a frame by one legacy descriptor. */
  send(frame: Uint8Array, command = 0, special = 0): void {
    const all = frame.length | TXD_EOP | TXD_RS | command;
    this.descriptor(this.place(frame), all, special << 16);
    this.kick();
  }

  /** Writes the tail, whether there is news or not. */
  kick(): void {
    this.set('TDT', this.transmit.next);
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
    const status = this.memory.bytes(this.tx + DESCRIPTOR_BYTES * index, DESCRIPTOR_BYTES)[12];
    return ((status as number) & TXD_DD) !== 0;
  }

  /** Frames in legacy descriptors (whose buffers are given again). */
  received(): Received[] {
    const frames: Received[] = [];
    const ring = this.receive;
    let parts: Buffer[] = [];
    while (ring.isDone(ring.clean)) {
      const at = this.memory.bytes(this.rx + DESCRIPTOR_BYTES * ring.clean, DESCRIPTOR_BYTES);
      const status = at[12] as number;
      const address = Number(at.readBigUInt64LE(0));
      parts.push(Buffer.from(this.memory.bytes(address, at.readUInt16LE(8))));
      if ((status & 2) !== 0) {
        const bytes = Buffer.concat(parts);
        frames.push({ bytes, status, errors: at[13] as number, vlan: at.readUInt16LE(14) });
        parts = [];
      }
      ring.clean = (ring.clean + 1) % TEST_RING;
      this.#give();
      ring.publish();
    }
    return frames;
  }

  #give(): void {
    this.receive.put(...halves(this.#buffers[this.receive.next] ?? 0), 0, 0);
  }
}

/** An address as a descriptor has it. */
function halves(address: number): [low: number, high: number] {
  return [address % TWO_32, Math.floor(address / TWO_32)];
}
