/**
 * For fuzz targets of the 82599: a guest whose driver does anything to a function of the card. Registers
 * in any width and order, by traps and by stores to the mapped pages, between turns and in their midst;
 * rings anywhere, any descriptor, contexts that lie; memory that is reached by messages, or is taken away.
 */
import assert from 'node:assert/strict';
import type { FrameSink, NicFunction } from '../src/device/ixgbe/nic-function.ts';
import { DirectBus } from '../src/driver/pci/testing.ts';
import type { Arena } from '../src/memory/arena.ts';
import type { Burst } from '../src/net/burst.ts';
import type { PollLoop } from '../src/os/poll-loop.ts';
import * as spec from '../src/spec/ixgbe.ts';
import * as descriptors from '../src/spec/ixgbe-descriptors.ts';
import {
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
} from '../src/spec/pci.ts';
import { GuardedGuest } from './guarded-guest.ts';
import { checkIdle } from './idle.ts';
import type { Random } from './random.ts';

const PAGES = 48;
/** At its beginning, pages that the card may use as it likes. */
const OPEN_PAGES = 6;
const PAGE = 4096;
const WIDTHS = [1, 2, 4] as const;
const ALL_ON = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
/** The PCI Express capability, its device control, and the bit there that resets the function. */
const EXPRESS = 0x10;
const DEVICE_CONTROL = 8;
const FLR = 0x8000;
const TX = spec.IXGBE_TX_QUEUE_REGISTERS;
const RX = spec.IXGBE_RX_QUEUE_REGISTERS;
const BLOCK_WORDS = spec.IXGBE_QUEUE_BYTES / 4;
const CONTEXT = descriptors.IXGBE_TXD_ADVANCED | descriptors.IXGBE_TXD_TYPE_CONTEXT;
const FULL_FRAME = 1514;
const JUMBO_FRAME = 9014;
/** What of a frame is written anew. */
const MOST_WRITTEN = 128;
/** Bytes of Ethernet, IPv4 and TCP headers. */
const TCP_HEADERS = 54;
/** Most turns that DMA on its way may take to end. */
const MOST_TURNS = 100;

/** Where the rings of a kind of function are, and its registers. */
export interface Place {
  readonly transmit: (queue: number) => number;
  readonly receive: (queue: number) => number;
  readonly queues: number;
  /** Registers that have effects, or have a meaning at least. */
  readonly known: readonly [number, ...number[]];
  /** The I/O BAR, if it has one. */
  readonly io: number | undefined;
}

/** Whom a frame of the guest may be to and from: anybody of these. */
export interface Addresses {
  readonly to: () => Uint8Array;
  readonly from: () => Uint8Array;
}

export interface AttackOptions {
  readonly random: Random;
  readonly arena: Arena;
  readonly loop: PollLoop;
  readonly device: NicFunction;
  readonly place: Place;
  readonly addresses: Addresses;
  /** Arena addresses that are of other guests. */
  readonly isForeign: (address: number) => boolean;
  /** Begins anew, by {@link Attack.start} and what goes with it. */
  readonly begin: () => void;
}

export class Attack {
  readonly random: Random;
  readonly device: NicFunction;
  readonly place: Place;
  readonly guest: GuardedGuest;
  readonly bus: DirectBus;
  readonly addresses: Addresses;
  /** Frames that the function handed over. */
  forwarded = 0;
  readonly #loop: PollLoop;
  readonly #isForeign: (address: number) => boolean;
  readonly #begin: () => void;
  /** Once in so many times it does what no driver would. */
  readonly #sanity: number;
  readonly #words: Uint32Array;
  /** Where device control stands in configuration space. */
  readonly #control: number;
  #queue = 0;
  #receiveQueue = 0;

  constructor(options: AttackOptions) {
    const { random, arena, loop, device, place, addresses, isForeign, begin } = options;
    this.random = random;
    this.device = device;
    this.place = place;
    this.addresses = addresses;
    this.#loop = loop;
    this.#isForeign = isForeign;
    this.#begin = begin;
    this.#sanity = random.pick([2, 8, 30]);
    this.#words = device.words;
    this.guest = new GuardedGuest(random, arena, device.name, PAGES);
    // Some of it is always of use: rings, and buffers.
    this.guest.open(0, OPEN_PAGES * PAGE);
    this.bus = new DirectBus(device, this.guest.domain);
    // The bus of the test only notes bus mastering; here it is the domain's.
    device.detach();
    device.attach({
      dma: this.guest.domain,
      interrupts: this.bus,
      setBusMaster: (on) => {
        this.guest.domain.busMaster = on;
        if (on) this.guest.thaw();
      },
    });
    this.#control = this.#find(EXPRESS) + DEVICE_CONTROL;
    this.command(ALL_ON);
    const accept = device.accept.bind(device);
    device.accept = (burst, frames, count, tagged, local) => {
      this.meddle();
      accept(burst, frames, count, tagged, local);
      this.meddle();
    };
  }

  /** What the function sends to: looks where the frames lie that it hands over, and changes things meanwhile. */
  watch(sink: FrameSink): FrameSink {
    return {
      admits: (from) => sink.admits?.(from) ?? true,
      waitNs: (from) => sink.waitNs?.(from) ?? 0,
      publish: () => sink.publish(),
      send: (from, burst) => {
        this.#look(burst);
        this.forwarded += burst.count;
        this.meddle();
        sink.send(from, burst);
        this.meddle();
      },
    };
  }

  command(value: number): void {
    this.bus.writeConfig(PCI_COMMAND, 2, value);
  }

  /** A register by a trap, or one of the mapped pages by a store. */
  set(offset: number, value: number): void {
    if (this.#isMapped(offset) && this.random.oneIn(2)) this.#words[offset / 4] = value;
    else this.bus.write(0, offset, 4, value);
  }

  /** Rings in memory that is there, as a good driver lays them out. */
  start(): void {
    const { random, guest, place } = this;
    const entries = 8 * (1 + random.below(8));
    this.#queue = random.oneIn(3) ? random.below(place.queues) : 0;
    const transmit = place.transmit(this.#queue);
    this.#receiveQueue = random.oneIn(4) ? this.#queue : 0;
    const receive = place.receive(this.#receiveQueue);
    const high = (address: number): number => Math.floor(address / 2 ** 32);
    for (const [block, at] of [
      [transmit, guest.base],
      [receive, guest.base + PAGE],
    ] as const) {
      this.set(block + TX.TDBAL.offset, at % 2 ** 32);
      this.set(block + TX.TDBAH.offset, high(at));
      this.set(block + TX.TDLEN.offset, entries * 16);
      this.set(block + TX.TDH.offset, 0);
      this.set(block + TX.TDT.offset, 0);
    }
    if (random.oneIn(3)) {
      const at = guest.address();
      this.set(transmit + TX.TDWBAL.offset, (at % 2 ** 32) | 1);
      this.set(transmit + TX.TDWBAH.offset, high(at));
    }
    const type = random.oneIn(4) ? random.below(8) : descriptors.IXGBE_DESCTYPE_ONE_BUFFER;
    const sizes = random.oneIn(3) ? random.u32() & 0x3f1f : 0x402;
    this.set(receive + RX.SRRCTL.offset, sizes | (type << descriptors.IXGBE_SRRCTL_TYPE_SHIFT));
    const strip = random.oneIn(3) ? descriptors.IXGBE_RXDCTL_VLAN_STRIP : 0;
    this.set(transmit + TX.TXDCTL.offset, descriptors.IXGBE_QUEUE_ENABLE);
    this.set(receive + RX.RXDCTL.offset, descriptors.IXGBE_QUEUE_ENABLE | strip);
    for (let i = 0; i < entries; i++) this.receiveDescriptor(i);
    this.set(receive + RX.RDT.offset, random.below(entries));
  }

  receiveDescriptor(index = this.random.below(64)): void {
    const { random, guest } = this;
    const bytes = Buffer.alloc(16);
    const address = (): bigint => BigInt(random.oneIn(2) ? guest.address() : this.#buffer());
    bytes.writeBigUInt64LE(address() & 0xffff_ffff_ffff_ffffn);
    if (random.oneIn(2)) bytes.writeBigUInt64LE(address() & 0xffff_ffff_ffff_ffffn, 8);
    guest.write(guest.base + PAGE + 16 * index, bytes);
  }

  /** Gives the card descriptors to receive. */
  refill(): void {
    const { random, place } = this;
    const block = place.receive(this.#receiveQueue);
    if (!this.#isAlive(block, this.guest.base + PAGE)) this.#begin();
    for (let n = random.below(16); n > 0; n--) this.receiveDescriptor();
    const entries = this.#entries(block);
    const head = this.#words[(block + RX.RDH.offset) / 4] as number;
    const wanted = random.oneIn(this.#sanity) ? random.nasty(16) : (head + entries - 1) % entries;
    this.set(block + RX.RDT.offset, wanted);
  }

  /** A frame that filters and offloads make sense of, somewhere in its memory. Returns its length. */
  packet(at = this.guest.address(), length = 80 + this.random.below(200)): number {
    const { random, guest, addresses } = this;
    const bytes = Buffer.from(random.bytes(Math.min(length, MOST_WRITTEN)));
    bytes.set([...addresses.to(), ...addresses.from()], 0);
    if (random.oneIn(4)) bytes.fill(0xff, 0, 6);
    bytes.writeUInt16BE(random.pick([0x0800, 0x0800, 0x86dd, 0x88b5, 0x8100]), 12);
    if (bytes.readUInt16BE(12) === 0x8100)
      bytes.writeUInt16BE(random.pick([0, 10, 20, 0x600a]), 14);
    else bytes[14] = random.pick([0x45, 0x60, 0x4f]);
    bytes[23] = random.pick([6, 17, 132]);
    bytes[46] = 0x50;
    guest.write(at, bytes);
    return length;
  }

  /** Fills transmit descriptors: whole frames that make sense, or anything. */
  transmit(most = this.random.oneIn(8) ? 70 : 8): void {
    const { random, guest, place } = this;
    const block = place.transmit(this.#queue);
    if (!this.#isAlive(block, guest.base) || random.oneIn(20)) this.#begin();
    const entries = this.#entries(block);
    if (entries === 0) return;
    const [head, tail] = [TX.TDH, TX.TDT].map(
      ({ offset }) => this.#words[(block + offset) / 4] ?? 0,
    );
    let index = (tail as number) < entries ? (tail as number) : (head as number) % entries;
    const length = random.oneIn(3) ? random.pick([FULL_FRAME, JUMBO_FRAME]) : undefined;
    for (let n = 1 + random.below(most); n > 0; n--) {
      const words = random.pick<() => readonly number[]>([
        () => this.#plain(length),
        () => this.#plain(length),
        () => this.#worked(),
        () => this.#anything(),
      ])();
      const bytes = Buffer.from(Uint32Array.from(words).buffer);
      for (let at = 0; at < bytes.length; at += 16) {
        guest.write(guest.base + 16 * index, bytes.subarray(at, at + 16));
        index = (index + 1) % Math.min(entries, 256);
      }
    }
    if (!random.oneIn(6)) this.set(block + TX.TDT.offset, index);
  }

  /** Sends as much as it can for a while. */
  blast(): void {
    for (let n = this.random.below(12); n >= 0; n--) {
      this.transmit(70);
      this.turn();
    }
  }

  /** One access to a register. */
  register(): void {
    const { random, bus, place } = this;
    const value = random.oneIn(2) ? random.nasty(32) : random.u32();
    const ring = this.#ring();
    const offset = random.pick([
      () => random.nasty(19),
      () => random.pick(place.known),
      () => random.pick(place.known) + 4 * random.below(4),
      () => ring + 4 * random.below(BLOCK_WORDS),
    ])();
    const width = random.oneIn(6) ? random.pick(WIDTHS) : 4;
    const bar = random.oneIn(12) ? random.below(6) : 0;
    random.pick<() => void>([
      () => this.#read(bar, offset, width),
      () => bus.write(bar, offset, width, width === 4 ? value : value % 2 ** (8 * width)),
      () => this.set(ring + 4 * random.below(BLOCK_WORDS), this.#ringValue()),
      () => {
        if (place.io === undefined) return;
        bus.write(place.io, spec.IXGBE_IOADDR, 4, offset);
        bus.write(place.io, spec.IXGBE_IODATA, 4, value);
        this.#read(place.io, spec.IXGBE_IODATA, 4);
      },
    ])();
  }

  /** What another of the guest's processors does while the lane is in the midst of a turn. */
  meddle(): void {
    const { random, guest } = this;
    if (!random.oneIn(2 * this.#sanity)) return;
    for (let n = 1 + random.below(4); n > 0; n--) {
      const offset = this.#ring() + 4 * random.below(BLOCK_WORDS);
      if (random.oneIn(2)) this.receiveDescriptor();
      else if (random.oneIn(4)) guest.write(guest.address(), random.bytes(64));
      else if (this.#isMapped(offset)) this.#words[offset / 4] = this.#ringValue();
    }
  }

  /** Bus mastering goes off or on. */
  master(isOn: boolean): void {
    this.command(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | (isOn ? PCI_COMMAND_MASTER : 0));
    if (!isOn && this.guest.domain.pending === 0) this.guest.freeze();
  }

  /** Resets itself by configuration space, whatever is on its way; it is back when that is over. */
  functionReset(): void {
    this.bus.writeConfig(this.#control, 2, FLR);
    if (this.random.oneIn(2)) this.device.poll();
    this.guest.settle(true);
    this.command(ALL_ON);
  }

  /** The transport takes memory away, and resets the function or does not. */
  remap(): void {
    this.quiet();
    if (this.random.oneIn(3)) this.device.reset();
    this.guest.remap();
    this.device.resume();
    this.command(ALL_ON);
  }

  /** As a transport does it: what is under way ends first. */
  quiet(): void {
    for (let turns = 0; !this.device.hold(); turns++) {
      assert.ok(turns < MOST_TURNS, 'DMA that never ends');
      this.guest.settle(true);
    }
  }

  turn(): void {
    for (let n = this.random.below(3); n >= 0; n--) {
      this.device.poll();
      if (this.random.oneIn(2)) this.guest.settle();
    }
  }

  check(): void {
    this.guest.check();
    for (const [i, value] of this.device.counters.values.entries()) {
      assert.ok(Number.isInteger(value) && value >= 0, `counter ${i} is ${value}`);
    }
  }

  /** Nothing is to be done: the lane may sleep, if only until it looks for doorbells again. */
  checkIdle(): void {
    checkIdle(this.#loop, this.device, () => this.guest.settle(true));
  }

  /** The guest is gone. */
  leave(): void {
    this.quiet();
    this.device.detach();
    Reflect.deleteProperty(this.device, 'accept');
  }

  /** The ring is one, and enabled; where it should be, or left to be elsewhere for now. */
  #isAlive(block: number, base: number): boolean {
    const low = this.#words[(block + TX.TDBAL.offset) / 4] as number;
    if (low !== base % 2 ** 32 && this.random.oneIn(2)) return false;
    const control = this.#words[(block + TX.TXDCTL.offset) / 4] as number;
    const head = this.#words[(block + TX.TDH.offset) / 4] as number;
    return (control & descriptors.IXGBE_QUEUE_ENABLE) !== 0 && head < this.#entries(block);
  }

  #entries(block: number): number {
    return ((this.#words[(block + TX.TDLEN.offset) / 4] as number) & 0xf_ff80) / 16;
  }

  /** Where a frame can lie, to be sent or received. */
  #buffer(): number {
    return this.guest.base + (2 + this.random.below(2)) * PAGE + this.random.below(3700);
  }

  #read(bar: number, offset: number, width: number): void {
    const is = this.bus.read(bar, offset, width);
    assert.ok(Number.isInteger(is) && is >= 0 && is < 2 ** (8 * width), `reads ${is}`);
  }

  #isMapped(offset: number): boolean {
    const areas = this.device.bars[0]?.areas ?? [];
    return areas.some((one) => offset >= one.offset && offset < one.offset + one.bytes);
  }

  #ring(): number {
    const { random, place } = this;
    const queue = random.oneIn(2) ? this.#queue : random.below(place.queues);
    return random.pick([place.transmit, place.receive])(queue);
  }

  #ringValue(): number {
    const { random } = this;
    return random.pick<() => number>([
      () => random.nasty(32),
      () => random.below(64),
      () => random.u32(),
      () => this.guest.address() % 2 ** 32,
      () => descriptors.IXGBE_QUEUE_ENABLE,
    ])();
  }

  /** One descriptor of a whole frame, mostly in memory that can be read. */
  #plain(wanted: number | undefined): readonly number[] {
    const { random, guest } = this;
    const at = random.oneIn(4) ? guest.address() : this.#buffer();
    const made = this.packet(at, wanted);
    const length = random.oneIn(8) ? 12 + random.below(10) : made;
    const tagged = random.oneIn(5) ? descriptors.IXGBE_TXD_VLAN : 0;
    return this.#data(at, length, tagged, length << descriptors.IXGBE_TXD_PAYLOAD_SHIFT);
  }

  /** A TCP frame that is to be cut, and the context that says how. */
  #worked(): readonly number[] {
    const { random, guest, addresses } = this;
    const at = this.#buffer();
    const bytes = Buffer.from(random.bytes(MOST_WRITTEN));
    const length = TCP_HEADERS + random.below(random.oneIn(4) ? 9000 : 3000);
    bytes.set([...addresses.to(), ...addresses.from(), 0x08, 0x00, 0x45]);
    bytes.writeUInt16BE(0, 20);
    bytes[23] = 6;
    bytes[46] = 0x50;
    guest.write(at, bytes);
    const tag = random.pick([0, 10, 20]) << descriptors.IXGBE_TXC_VLAN_SHIFT;
    const segment = random.pick([100, 536, 1460, 3000]) << descriptors.IXGBE_TXC_MSS_SHIFT;
    return [
      tag | (14 << descriptors.IXGBE_TXC_MAC_LENGTH_SHIFT) | 20,
      0,
      CONTEXT | descriptors.IXGBE_TXC_IPV4 | descriptors.IXGBE_TXC_L4_TCP,
      segment | (20 << descriptors.IXGBE_TXC_L4_LENGTH_SHIFT),
      ...this.#data(
        at,
        length,
        descriptors.IXGBE_TXD_SEGMENT | (random.oneIn(4) ? descriptors.IXGBE_TXD_VLAN : 0),
        ((length - TCP_HEADERS) << descriptors.IXGBE_TXD_PAYLOAD_SHIFT) |
          descriptors.IXGBE_TXD_IP_CHECKSUM |
          descriptors.IXGBE_TXD_L4_CHECKSUM,
      ),
    ];
  }

  #data(at: number, length: number, more: number, options: number): readonly number[] {
    const command =
      descriptors.IXGBE_TXD_ADVANCED |
      descriptors.IXGBE_TXD_TYPE_DATA |
      descriptors.IXGBE_TXD_END |
      descriptors.IXGBE_TXD_REPORT |
      more |
      length;
    return [at % 2 ** 32, Math.floor(at / 2 ** 32), command, options];
  }

  /** A descriptor to send something, or a context that may fit it. */
  #anything(): readonly number[] {
    const { random } = this;
    const address = this.guest.address();
    const length = random.pick([random.below(200), random.below(2000), random.nasty(16), 0]);
    const end = random.oneIn(3) ? 0 : descriptors.IXGBE_TXD_END;
    const report = random.oneIn(3) ? random.u32() & 0xcf00_0000 : descriptors.IXGBE_TXD_REPORT;
    const advanced = descriptors.IXGBE_TXD_ADVANCED;
    const kind = random.below(4);
    if (kind === 0) return this.#context();
    const low = address % 2 ** 32;
    const high = Math.floor(address / 2 ** 32);
    const flags = report | end | length;
    if (kind === 1) return [low, high, flags & ~advanced, random.u32()];
    const cut = random.oneIn(2) ? descriptors.IXGBE_TXD_SEGMENT : 0;
    const payload = random.pick([length, random.below(4000), random.nasty(18)]);
    const options = random.oneIn(3)
      ? random.u32()
      : (payload << descriptors.IXGBE_TXD_PAYLOAD_SHIFT) |
        (random.below(4) << 8) |
        random.pick([0, 0x80, 0x90]);
    return [low, high, flags | advanced | descriptors.IXGBE_TXD_TYPE_DATA | cut, options];
  }

  #context(): readonly number[] {
    const { random } = this;
    const tag = random.pick([0, 10, 20, random.nasty(16)]) << descriptors.IXGBE_TXC_VLAN_SHIFT;
    const lengths = random.oneIn(3) ? random.u32() : tag | (14 << 9) | random.pick([20, 40, 24]);
    const types = random.oneIn(3) ? random.u32() & 0xffff : random.pick([0x400, 0xc00, 0x800, 0]);
    const segment = random.pick([0, 1, 536, 1460, random.nasty(16)]);
    const index = random.oneIn(6) ? random.below(16) : random.below(2);
    const sizes = (segment << 16) | (random.pick([20, 8, random.nasty(8)]) << 8) | (index << 4);
    return [lengths, random.u32(), CONTEXT | types, sizes];
  }

  #look(burst: Burst): void {
    const { chains, count } = burst;
    assert.ok(count > 0 && count <= 64, `a burst of ${count} frames`);
    for (let i = 0; i < count; i++) {
      let sum = this.#piece(chains.address[i] as number, chains.length[i] as number);
      for (let k = 0; k < (chains.more[i] as number); k++) {
        const more = (chains.moreStart[i] as number) + k;
        sum += this.#piece(chains.moreAddress[more] as number, chains.moreLength[more] as number);
      }
      assert.equal(sum, chains.total[i], 'a frame is not the sum of its pieces');
    }
  }

  #piece(address: number, length: number): number {
    assert.ok(this.guest.allows(address, length, false), 'sends what it may not read');
    assert.ok(!this.#isForeign(address), 'sends the memory of another guest');
    return length;
  }

  /** Where a capability begins in configuration space. */
  #find(id: number): number {
    let at = this.bus.readConfig(0x34, 1);
    while (at !== 0 && this.bus.readConfig(at, 1) !== id) at = this.bus.readConfig(at + 1, 1);
    assert.notEqual(at, 0, `no capability ${id}`);
    return at;
  }
}
