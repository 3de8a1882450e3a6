/**
 * Functions under a hostile guest that reads and writes configuration space and BARs at any offset, in
 * any width and order, while the device signals interrupts, has DMA on its way, and is reset.
 *
 * Afterwards and meanwhile: a wide access is what its bytes are; what is read-only stays; the lists of
 * capabilities stay; bus mastering, decoding, INTx and messages are what the registers say; a reset of
 * the bus brings all back that is not sticky.
 */
import assert from 'node:assert/strict';
import { E1000_MODELS, e1000Declaration } from '../src/device/e1000/function.ts';
import type { PciConfigSpace, PciDeclaration } from '../src/pci/config-space.ts';
import { PciDevice } from '../src/pci/device.ts';
import type { PciInterrupts } from '../src/pci/interrupts.ts';
import { FullFunction, TestTransport } from '../src/pci/testing.ts';
import * as pci from '../src/spec/pci.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const STEPS = 120;
const WIDTHS = [1, 2, 4] as const;
const STATUS_INTERRUPT = 0x8;
const PM_CONTROL = 4;
/** Where both functions have their table of MSI-X, from the beginning. */
const MSIX_BAR = 3;
/** Registers whose read-only bits the device changes. */
const LIVE = new Set(['STATUS', 'PENDING', 'DEVICE_STATUS']);

/** A function of which the fuzzer plays the device. */
interface Subject extends PciDevice {
  readonly irq: PciInterrupts;
  readonly space: PciConfigSpace;
  readonly resets: readonly unknown[];
  busy: boolean;
  finish(): void;
}

/** A network card's declaration, without the card. */
class Card extends PciDevice implements Subject {
  readonly resets: unknown[] = [];
  busy = false;

  get irq(): PciInterrupts {
    return this.interrupts;
  }

  get space(): PciConfigSpace {
    return this.config;
  }

  finish(): void {
    this.busy = false;
    this.quiesced();
  }

  protected readRegister(): number {
    return 0;
  }

  protected writeRegister(): void {
    // Nothing is behind the BARs.
  }

  protected onReset(kind: unknown): void {
    this.resets.push(kind);
  }

  protected override quiesce(): boolean {
    return !this.busy;
  }
}

function cardDeclaration(random: Random): PciDeclaration {
  const mac = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);
  return e1000Declaration('card', random.pick([...E1000_MODELS]), mac);
}

interface Place {
  readonly id: number;
  readonly at: number;
}

/** Both lists, as a guest walks them; bounded, as a list that is broken may have no end. */
function chains(fn: PciDevice): Place[] {
  const places: Place[] = [];
  for (let at = fn.readConfig(pci.PCI_CAPABILITIES_POINTER, 1); at !== 0 && places.length < 48; ) {
    places.push({ id: fn.readConfig(at, 1), at });
    at = fn.readConfig(at + 1, 1);
  }
  if (fn.configBytes === pci.PCI_CONFIG_BYTES) return places;
  for (let at: number = pci.PCIE_FIRST_EXTENDED; at !== 0 && places.length < 96; ) {
    const header = fn.readConfig(at, 4);
    places.push({ id: 0x1_0000 + (header & 0xffff), at });
    at = header >>> pci.PCIE_EXT_NEXT_SHIFT;
  }
  return places;
}

class Rig {
  readonly random: Random;
  readonly full: FullFunction | undefined;
  readonly fn: Subject;
  readonly transport: TestTransport;
  readonly places: readonly Place[];
  readonly initial: Uint8Array;
  /** The device's cause of INTx. */
  level = false;
  #resets = 0;

  constructor(random: Random) {
    this.random = random;
    this.full = random.oneIn(3)
      ? undefined
      : new FullFunction({ noSoftReset: random.oneIn(2), masking: random.oneIn(2) });
    this.fn = this.full ?? new Card(cardDeclaration(random));
    this.transport = new TestTransport(this.fn);
    this.transport.keepsMasks = random.oneIn(3);
    this.places = chains(this.fn);
    const { bytes } = this.fn.space;
    this.initial = Uint8Array.from({ length: bytes }, (_, at) => this.fn.space.get(at, 1));
    assert.ok(this.places.length >= 2 && this.places.length < 48, 'no lists of capabilities');
  }

  /** Where a capability is, or undefined. */
  #at(id: number): number | undefined {
    return this.places.find((place) => place.id === id)?.at;
  }

  #bit(id: number, offset: number, mask: number): boolean {
    const at = this.#at(id);
    return at !== undefined && (this.fn.space.get(at + offset, 2) & mask) !== 0;
  }

  get powered(): boolean {
    return !this.#bit(pci.PCI_CAP_ID_PM, PM_CONTROL, 3);
  }

  get command(): number {
    return this.fn.space.get(pci.PCI_COMMAND, 2);
  }

  get mode(): 'intx' | 'msi' | 'msix' {
    if (this.#bit(pci.PCI_CAP_ID_MSIX, 2, 0x8000)) return 'msix';
    return this.#bit(pci.PCI_CAP_ID_MSI, 2, 1) ? 'msi' : 'intx';
  }

  get master(): boolean {
    return this.powered && (this.command & pci.PCI_COMMAND_MASTER) !== 0;
  }

  get memory(): boolean {
    return this.powered && (this.command & pci.PCI_COMMAND_MEMORY) !== 0;
  }

  offset(): number {
    const { random, fn } = this;
    const place = this.places[random.below(this.places.length)];
    return random.pick<() => number>([
      () => random.below(64),
      () => (place?.at ?? 0) + random.below(64),
      () => (place?.at ?? 0) + random.below(8),
      () => random.below(fn.configBytes + 8),
      () => fn.configBytes - 4 + random.below(8),
      () => random.nasty(13) - random.below(5),
    ])();
  }

  value(width: number): number {
    const { random } = this;
    if (random.oneIn(2)) return random.nasty(8 * width);
    return random.u32() % 2 ** (8 * width);
  }

  read(): void {
    const { random, fn } = this;
    const offset = this.offset();
    const width = random.pick(WIDTHS);
    const value = fn.readConfig(offset, width);
    let bytes = 0;
    for (let i = width - 1; i >= 0; i--) bytes = bytes * 256 + fn.readConfig(offset + i, 1);
    assert.equal(value, bytes, `${width} bytes at ${offset} are not what they are one by one`);
  }

  write(): void {
    const { random, fn } = this;
    const width = random.pick(WIDTHS);
    const offset = this.offset();
    // Decoding and bus mastering are on often enough.
    if (random.oneIn(8)) fn.writeConfig(pci.PCI_COMMAND, 2, random.pick([7, 6, 2, 0x406, 0]));
    else fn.writeConfig(offset, width, this.value(width));
  }

  /** Larger pages for VFs, and their BARs anywhere. */
  shareOut(): void {
    const { random, fn } = this;
    const base = this.#at(0x1_0000 + pci.PCI_EXT_CAP_ID_SRIOV);
    if (base === undefined) return;
    fn.writeConfig(base + pci.PCIE_SRIOV_SYSTEM_PAGE, 4, 2 ** random.below(12));
    fn.writeConfig(base + pci.PCIE_SRIOV_BAR0, 4, this.value(4));
  }

  bar(): void {
    const { random, fn } = this;
    const bar = random.below(8) - 1;
    const bytes = fn.bars[bar]?.bytes ?? 64;
    const offset = random.oneIn(6)
      ? random.nasty(32) - random.below(4)
      : random.below(Math.min(bytes, 256) + 4);
    const width = random.pick(WIDTHS);
    if (random.oneIn(2)) {
      const value = this.value(width);
      fn.writeBar(bar, offset, width, value);
      this.#checkTable(bar, offset, width, value);
      return;
    }
    const value = fn.readBar(bar, offset, width);
    const most = 2 ** (8 * width) - 1;
    assert.ok(Number.isInteger(value) && value >= 0 && value <= most, `BAR ${bar} reads ${value}`);
    const info = fn.bars[bar];
    const isThere = info !== undefined && offset >= 0 && offset + width <= info.bytes;
    if (!isThere || (info.kind !== 'io' && !this.memory)) {
      assert.equal(value, most, 'a BAR answers that is not decoded');
    }
  }

  /** MSI-X: what is written to the table is there, but for reserved bits. */
  #checkTable(bar: number, offset: number, width: number, value: number): void {
    const { fn } = this;
    const at = offset % 16;
    const isTable = bar === MSIX_BAR && offset >= 0 && offset + width <= 16 * fn.irqs.msix;
    if (!isTable || !this.memory || at + width > 12) return;
    const reserved = at < 4 ? 3 >>> (8 * at) : 0;
    const isThere = fn.readBar(bar, offset, width);
    assert.equal(isThere, (value & ~reserved) >>> 0, `the table of MSI-X at ${offset}`);
  }

  signal(): void {
    const { random, fn, transport } = this;
    if (random.oneIn(2)) {
      this.level = random.oneIn(2);
      fn.irq.setLevel(this.level);
      return;
    }
    const vector = random.below(8);
    const { mode, master } = this;
    const before = transport.msi.length + transport.msix.length;
    fn.irq.signal(vector);
    const sent = transport.msi.length + transport.msix.length - before;
    assert.ok(sent <= 1, 'one message became several');
    if (!master || mode === 'intx') assert.equal(sent, 0, 'a message without being allowed');
    if (transport.keepsMasks && master && mode === 'msix' && vector < fn.irqs.msix) {
      assert.equal(sent, 1, 'a message was lost');
    }
  }

  /** What holds after each step. */
  check(): void {
    const { fn, transport } = this;
    if (fn.resets.length !== this.#resets) {
      this.#resets = fn.resets.length;
      this.level = false;
    }
    assert.equal(transport.busMaster, this.master, 'bus mastering');
    const intx = this.level && this.mode === 'intx';
    const allowed = this.powered && (this.command & pci.PCI_COMMAND_INTX_DISABLE) === 0;
    assert.equal(transport.intx, intx && allowed, 'the line of INTx');
    const status = fn.space.get(pci.PCI_STATUS, 2);
    assert.equal((status & STATUS_INTERRUPT) !== 0, intx, 'Interrupt Status');
    for (const vector of transport.msix.splice(0)) {
      assert.ok(vector < fn.irqs.msix, 'a vector of MSI-X that is none');
      if (transport.keepsMasks || !this.memory || this.mode !== 'msix') continue;
      const entry = fn.readBar(MSIX_BAR, 16 * vector + 12, 4);
      assert.equal(entry & 1, 0, 'a masked vector');
      const isMasked = this.#bit(pci.PCI_CAP_ID_MSIX, 2, 0x4000);
      assert.ok(!isMasked, 'a message although all are masked');
    }
    for (const vector of transport.msi.splice(0)) {
      assert.ok(vector < fn.irqs.msi, 'a vector of MSI that is none');
    }
    const sriov = this.full?.sriov;
    if (sriov === undefined) return;
    assert.ok(sriov.count >= 0 && sriov.count <= 7, `${sriov.count} VFs`);
    assert.equal(this.full?.vfs.at(-1) ?? 0, sriov.count, 'the device was not told of its VFs');
    const bytes = sriov.barBytes(0);
    assert.ok(bytes >= 16384 && Number.isInteger(Math.log2(bytes)));
    const address = sriov.barAddress(0, sriov.count);
    assert.ok(address >= 0 && address % bytes === 0, 'VF BARs are not aligned');
  }

  /** What no write can change. */
  checkConstant(): void {
    const { fn } = this;
    for (const register of fn.space.registers) {
      if (LIVE.has(register.name)) continue;
      const { rw = 0, rw1c = 0, sticky = 0, reset = 0, strobe = 0, bytes, offset } = register;
      const fixed = ~(rw | rw1c | sticky | strobe);
      for (let i = 0; i < bytes; i++) {
        const is = fn.space.get(offset + i, 1);
        const wrong = (is ^ (reset >>> (8 * i))) & (fixed >>> (8 * i)) & 0xff;
        assert.equal(wrong, 0, `${register.owner}.${register.name} is ${is} at byte ${i}`);
      }
    }
    if (fn.busy) return;
    assert.deepEqual(chains(fn), this.places, 'a list of capabilities has changed');
  }

  /** As the transport does it: what is under way ends first. */
  busReset(): void {
    const { fn } = this;
    if (!fn.hold()) fn.finish();
    fn.reset();
    this.check();
    for (const register of fn.space.registers) {
      for (let i = 0; i < register.bytes; i++) {
        const at = register.offset + i;
        const kept = ((register.sticky ?? 0) >>> (8 * i)) & 0xff;
        const changed = (fn.space.get(at, 1) ^ (this.initial[at] as number)) & ~kept;
        assert.equal(changed, 0, `${register.owner}.${register.name} outlived a reset of the bus`);
      }
    }
    assert.equal(this.full?.sriov.count ?? 0, 0, 'VFs outlived a reset of the bus');
  }
}

function step(rig: Rig): void {
  const { random, fn } = rig;
  random.pick<() => void>([
    () => rig.write(),
    () => rig.write(),
    () => rig.write(),
    () => rig.read(),
    () => rig.bar(),
    () => rig.bar(),
    () => rig.signal(),
    () => {
      if (random.oneIn(4)) fn.busy = true;
      else if (fn.busy) fn.finish();
    },
    () => {
      // A DMA_UNMAP: held, then gone on with.
      if (!fn.hold()) fn.finish();
      fn.resume();
    },
    () => rig.shareOut(),
    () => {
      if (random.oneIn(6)) rig.busReset();
    },
  ])();
}

function run(random: Random): void {
  const rig = new Rig(random);
  if (!random.oneIn(4)) rig.transport.enumerate();
  for (let i = 0; i < STEPS; i++) {
    step(rig);
    rig.check();
    if (random.oneIn(8)) rig.checkConstant();
  }
  if (rig.fn.busy) rig.fn.finish();
  rig.checkConstant();
  rig.busReset();
  // A good guest finds all it needs.
  rig.transport.enumerate();
  rig.check();
  assert.ok(rig.transport.busMaster && rig.memory, 'a good guest cannot switch it on');
  rig.fn.detach();
}

export const pciConfig: FuzzTarget = { name: 'pci-config', run };
