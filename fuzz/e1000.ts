/**
 * The network cards under a hostile driver: any register in any width and order, rings anywhere, any
 * descriptor, contexts that lie about their frame, frames that come in meanwhile, resets, bus mastering
 * off and on, memory that is taken away.
 *
 * Whatever it does, it writes to its own memory alone and shows nobody what it may not read; what the
 * counters say agrees; a card without work lets the lane sleep; two guests beside it reach each other;
 * and a good driver that takes the card over finds it whole.
 */
import assert from 'node:assert/strict';
import { MiB } from '../src/base/bits.ts';
import { E1000 } from '../src/device/e1000/e1000.ts';
import { E1000_MODELS } from '../src/device/e1000/function.ts';
import { TEST_BASE, TestMemory } from '../src/device/e1000/testing.ts';
import { E1000Card } from '../src/driver/e1000/card.ts';
import { TestDriver } from '../src/driver/e1000/testing.ts';
import { DirectBus } from '../src/driver/pci/testing.ts';
import { Arena } from '../src/memory/arena.ts';
import type { Burst } from '../src/net/burst.ts';
import { createDataPath } from '../src/net/data-path.ts';
import { parseMac } from '../src/net/mac.ts';
import { PortPolicy } from '../src/net/policy.ts';
import type { Port, PortCounter, PortOwner } from '../src/net/port.ts';
import { Switch } from '../src/net/switch.ts';
import { PollLoop } from '../src/os/poll-loop.ts';
import * as spec from '../src/spec/e1000.ts';
import {
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
} from '../src/spec/pci.ts';
import { GuardedGuest } from './guarded-guest.ts';
import { checkIdle } from './idle.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const STEPS = 60;
const PAGES = 48;
const CANARY_BYTES = 4096;
const CANARY = 0xa5;
const IO_BAR = { 82540: 1, 82574: 2 } as const;
const NAMES = Object.keys(spec.E1000_REGISTERS) as spec.E1000RegisterName[];
const RING_NAMES = ['TDBAL', 'TDBAH', 'TDLEN', 'TDH', 'TDT', 'RDBAL', 'RDBAH', 'RDLEN', 'RDH'];
const WIDTHS = [1, 2, 4] as const;
const FRAME = 100;

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);

function frame(to: number, from: number, bytes = FRAME): Buffer {
  const made = Buffer.alloc(bytes, 7);
  made.set([0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, from, 0x88, 0xb5]);
  return made;
}

/** Sends a frame, always from the same place in the driver's memory. */
function send(driver: TestDriver, bytes: Buffer): void {
  const at = TEST_BASE + MiB;
  driver.memory.bytes(at, bytes.length).set(bytes);
  driver.descriptor(at, bytes.length | spec.TXD_EOP | spec.TXD_RS, 0);
  driver.kick();
  driver.run();
}

/** Two good guests, and a third that takes cards over. */
class Neighbours {
  readonly lan = new Switch('lan', path);
  readonly good: TestDriver;
  readonly other: TestDriver;
  readonly memory = new TestMemory(arena, 2 * MiB);

  constructor() {
    const make = (last: number): TestDriver => {
      const mac = parseMac(`52:54:00:00:00:0${last}`);
      const device = new E1000({ name: `good${last}`, model: '82574', path, mac });
      device.owner = this.lan;
      this.lan.addPort(device, new PortPolicy({}, 0));
      const driver = new TestDriver(device, new TestMemory(arena, 2 * MiB));
      driver.start();
      return driver;
    };
    this.good = make(2);
    this.other = make(3);
  }

  /** What one guest sends comes to the other. Returns all that came. */
  check(): Buffer[] {
    const wanted = frame(3, 2);
    const before = this.other.received();
    this.good.received();
    send(this.good, wanted);
    const got = [...before, ...this.other.received()].map(({ bytes }) => bytes);
    const isThere = got.some((one) => one.subarray(0, FRAME).equals(wanted));
    assert.ok(isThere, 'a guest beside it is not heard any more');
    return got;
  }
}

let neighbours: Neighbours | undefined;

/** Counts what the card hands over, and looks where it lies. */
class Watch implements PortOwner {
  forwarded = 0;
  readonly #lan: Switch;
  readonly #guest: GuardedGuest;

  constructor(lan: Switch, guest: GuardedGuest) {
    this.#lan = lan;
    this.#guest = guest;
  }

  forward(port: Port, burst: Burst): void {
    const { chains, count } = burst;
    assert.ok(count <= 64, `a burst of ${count} frames`);
    for (let i = 0; i < count; i++) {
      let sum = this.#piece(chains.address[i] as number, chains.length[i] as number);
      for (let k = 0; k < (chains.more[i] as number); k++) {
        const more = (chains.moreStart[i] as number) + k;
        sum += this.#piece(chains.moreAddress[more] as number, chains.moreLength[more] as number);
      }
      assert.equal(sum, chains.total[i], 'a frame is not the sum of its pieces');
    }
    this.forwarded += count;
    this.#lan.forward(port, burst);
  }

  publish(): void {
    this.#lan.publish();
  }

  #piece(address: number, length: number): number {
    assert.ok(this.#guest.allows(address, length, false), 'sends what it may not read');
    return length;
  }
}

class Rig {
  readonly random: Random;
  readonly model: (typeof E1000_MODELS)[number];
  readonly beside: Neighbours;
  readonly guest: GuardedGuest;
  readonly device: E1000;
  readonly bus: DirectBus;
  readonly card: E1000Card;
  readonly watch: Watch;
  /** Frames that the switch had for it. */
  offered = 0;
  readonly #before: Float64Array;
  #tail = 0;

  constructor(random: Random, beside: Neighbours) {
    this.random = random;
    this.beside = beside;
    this.model = random.pick([...E1000_MODELS]);
    this.guest = new GuardedGuest(random, arena, 'bad', PAGES);
    // Some of it is always of use: rings, and buffers.
    this.guest.open(0, 4 * 4096);
    const mac = parseMac('52:54:00:00:00:01');
    this.device = new E1000({ name: 'bad', model: this.model, path, mac });
    this.watch = new Watch(beside.lan, this.guest);
    this.device.owner = this.watch;
    const deliver = this.device.deliver.bind(this.device);
    this.device.deliver = (burst, frames, count, tagged) => {
      this.offered += count;
      deliver(burst, frames, count, tagged);
    };
    // It cannot pretend to be a neighbour: that would be theirs to complain of.
    beside.lan.addPort(this.device, new PortPolicy({ mac, spoofchk: true }, 0));
    this.bus = new DirectBus(this.device, this.guest.domain);
    this.#wire();
    this.card = new E1000Card(this.bus);
    this.#before = this.device.counters.values.slice();
  }

  /** The bus of the test only notes bus mastering; here it is the domain's. */
  #wire(): void {
    this.device.detach();
    this.device.attach({
      dma: this.guest.domain,
      interrupts: this.bus,
      setBusMaster: (on) => {
        this.guest.domain.busMaster = on;
        if (on) this.guest.thaw();
      },
    });
    this.command(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  }

  command(value: number): void {
    this.bus.writeConfig(PCI_COMMAND, 2, value);
  }

  /** Rings in memory that is there, as a good driver lays them out, and what goes with them. */
  start(): void {
    const { random, card, guest } = this;
    const entries = 8 * (1 + random.below(8));
    card.set('TDBAL', guest.base % 2 ** 32);
    card.set('TDBAH', Math.floor(guest.base / 2 ** 32));
    card.set('TDLEN', entries * 16);
    card.set('TCTL', spec.TCTL_EN);
    const receive = guest.base + 4096;
    card.set('RDBAL', receive % 2 ** 32);
    card.set('RDBAH', Math.floor(receive / 2 ** 32));
    card.set('RDLEN', entries * 16);
    for (let i = 0; i < entries; i++) this.receiveDescriptor(i);
    const options = random.oneIn(2) ? random.u32() & 0x07ff_fffc : 0;
    card.set('RCTL', spec.RCTL_EN | spec.RCTL_BAM | options);
    card.set('RDT', random.below(entries));
    if (random.oneIn(3)) card.set('RFCTL', spec.RFCTL_EXTEN);
    if (random.oneIn(2)) card.set('IMS', random.u32());
    this.#tail = 0;
  }

  receiveDescriptor(index: number): void {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(BigInt(this.guest.address()) & 0xffff_ffff_ffff_ffffn);
    if (this.random.oneIn(4)) bytes.writeUInt32LE(this.random.u32(), 12);
    this.guest.write(this.guest.base + 4096 + 16 * index, bytes);
  }

  /** Words of a descriptor to send something, or of a context that may fit it. */
  #words(): [number, number, number, number] {
    const { random } = this;
    const address = this.guest.address();
    const length = random.pick([random.below(200), random.below(2000), random.nasty(20), 0]);
    const end = random.oneIn(3) ? 0 : spec.TXD_EOP;
    const flags = (random.oneIn(3) ? random.u32() & 0xef00_0000 : spec.TXD_RS) | end;
    const kind = random.below(4);
    if (kind === 0) {
      // A context: headers as of a TCP segment, or anything.
      const small = (): number =>
        random.oneIn(3) ? random.nasty(8) : random.pick([14, 18, 34, 54]);
      const word = (): number => small() | (small() << 8) | (random.nasty(16) << 16);
      const type = random.pick([0, spec.TXC_TCP, spec.TXC_IPV4, spec.TXC_TCP | spec.TXC_IPV4]);
      const payload = random.oneIn(3) ? random.nasty(20) : random.below(3000);
      const segment = random.pick([0, 1, 536, 1460, random.nasty(16)]);
      return [
        word(),
        word(),
        (spec.TXD_EXTENDED | type | payload | (random.oneIn(2) ? spec.TXD_TSE : 0)) >>> 0,
        ((segment << 16) | (random.oneIn(4) ? random.nasty(8) << 8 : 54 << 8)) >>> 0,
      ];
    }
    const low = address % 2 ** 32;
    const high = Math.floor(address / 2 ** 32);
    if (kind === 1) return [low, high, (flags | Math.min(length, 0xffff)) >>> 0, random.u32()];
    const offload = random.oneIn(2) ? spec.TXD_TSE : 0;
    const command = (spec.TXD_EXTENDED | spec.TXD_TYPE_DATA | flags | offload | length) >>> 0;
    return [low, high, command, random.oneIn(2) ? random.u32() : random.below(4) << 8];
  }

  /** A frame that offloads make sense of, somewhere in its memory. */
  packet(): void {
    const { random, guest } = this;
    const bytes = Buffer.from(random.bytes(80 + random.below(200)));
    bytes.set([0x52, 0x54, 0, 0, 0, random.pick([2, 3, 1]), 0x52, 0x54, 0, 0, 0, 1], 0);
    if (random.oneIn(4)) bytes.fill(0xff, 0, 6);
    bytes.writeUInt16BE(random.pick([0x0800, 0x86dd, 0x8100]), 12);
    bytes[14] = random.pick([0x45, 0x60, 0x4f]);
    bytes[23] = random.pick([6, 17]);
    bytes[46] = 0x50;
    guest.write(guest.address(), bytes);
  }

  transmit(): void {
    const { random, card, guest } = this;
    for (let n = 1 + random.below(random.oneIn(8) ? 70 : 6); n > 0; n--) {
      const bytes = Buffer.alloc(16);
      for (const [i, word] of this.#words().entries()) bytes.writeUInt32LE(word >>> 0, 4 * i);
      guest.write(guest.base + 16 * this.#tail, bytes);
      const entries = Math.max(8, card.get('TDLEN') >>> 4);
      this.#tail = (this.#tail + 1) % Math.min(entries, 256);
    }
    if (!random.oneIn(6)) card.set('TDT', this.#tail);
  }

  register(): void {
    const { random, bus, card } = this;
    const value = random.oneIn(2) ? random.nasty(32) : random.u32();
    const known = spec.E1000_REGISTERS[NAMES[random.below(NAMES.length)] ?? 'CTRL'];
    const near = known.offset + 4 * random.below(known.count);
    const offset = random.oneIn(6)
      ? random.nasty(18)
      : near + (random.oneIn(8) ? random.below(4) : 0);
    const width = random.oneIn(6) ? random.pick(WIDTHS) : 4;
    const bar = random.oneIn(12) ? random.below(6) : 0;
    random.pick<() => void>([
      () => bus.write(bar, offset, width, width === 4 ? value : value % 2 ** (8 * width)),
      () => {
        const is = bus.read(bar, offset, width);
        assert.ok(Number.isInteger(is) && is >= 0 && is < 2 ** (8 * width), `reads ${is}`);
      },
      () => {
        bus.write(IO_BAR[this.model], 0, 4, offset);
        if (random.oneIn(2)) bus.write(IO_BAR[this.model], 4, 4, value);
        else bus.read(IO_BAR[this.model], 4, 4);
      },
      () => {
        const name = RING_NAMES[random.below(RING_NAMES.length)] as spec.E1000RegisterName;
        const address = this.guest.address();
        card.set(name, random.oneIn(2) ? value : address % 2 ** 32);
      },
      () => card.set('RDT', random.below(70)),
    ])();
  }

  /** A neighbour sends it something. */
  incoming(): void {
    const { random, beside } = this;
    const bytes = random.pick([60, 100, 1514, random.below(3000) + 14, 9000]);
    const sent = frame(1, 2, bytes);
    if (random.oneIn(3)) sent.fill(0xff, 0, 6);
    if (random.oneIn(6)) sent.writeUInt32BE(0x8100_0000 + random.below(4096), 12);
    for (let n = random.below(6); n >= 0; n--) send(beside.good, sent);
  }

  /** As a transport does it: what is under way ends first. */
  quiet(): void {
    for (let turns = 0; !this.device.hold(); turns++) {
      assert.ok(turns < 100, 'DMA that never ends');
      this.guest.settle(true);
    }
  }

  turn(): void {
    this.device.poll();
    if (this.random.oneIn(2)) this.guest.settle();
  }

  check(): void {
    const { values } = this.device.counters;
    this.guest.check();
    for (const [i, value] of values.entries()) {
      assert.ok(Number.isInteger(value) && value >= 0, `counter ${i} is ${value}`);
    }
    const since = (...names: PortCounter[]): number => {
      let sum = 0;
      for (const name of names) {
        const index = this.device.counters.names.indexOf(name);
        sum += (values[index] as number) - (this.#before[index] as number);
      }
      return sum;
    };
    const sent = since('tx_frames');
    const drops = ['tx_drop_bad_length', 'tx_drop_bad_offload', 'tx_drop_vlan'] as const;
    const dropped = since(...drops, 'tx_drop_spoof');
    const { forwarded } = this.watch;
    assert.ok(sent <= forwarded && forwarded <= sent + dropped, 'frames that were sent');
    const got = since('rx_frames', 'rx_drop_no_buffer', 'rx_drop_link_down', 'rx_drop_too_big');
    assert.ok(got <= this.offered, 'more frames received than were there');
  }

  /** Nothing is to be done: the lane may sleep. */
  checkIdle(): void {
    checkIdle(loop, this.device, () => this.guest.settle(true));
  }

  /** A good driver finds a card that works. */
  takeOver(): void {
    const { device, beside } = this;
    this.quiet();
    device.detach();
    device.setLink(true);
    const driver = new TestDriver(device, beside.memory);
    driver.set('CTRL', spec.CTRL_RST);
    // Promiscuous: its EEPROM may have got another address.
    driver.start(spec.RCTL_UPE);
    send(driver, frame(3, 1));
    const got = beside.other.received();
    assert.ok(
      got.some(({ bytes }) => bytes.subarray(0, FRAME).equals(frame(3, 1))),
      'sends no more',
    );
    send(beside.good, frame(1, 2));
    const back = driver.received();
    assert.ok(
      back.some(({ bytes }) => bytes.subarray(0, FRAME).equals(frame(1, 2))),
      'is deaf',
    );
    device.detach();
    beside.lan.removePort(device);
    device.close();
  }
}

function step(rig: Rig): void {
  const { random, device, guest } = rig;
  random.pick<() => void>([
    () => rig.transmit(),
    () => rig.transmit(),
    () => rig.register(),
    () => rig.register(),
    () => rig.incoming(),
    () => rig.packet(),
    () => rig.turn(),
    () => rig.turn(),
    () => rig.receiveDescriptor(random.below(64)),
    () => {
      if (random.oneIn(4)) rig.start();
    },
    () => {
      if (random.oneIn(4)) device.setLink(random.oneIn(2));
    },
    () => {
      if (!random.oneIn(4)) return;
      const isOn = random.oneIn(2);
      rig.command(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | (isOn ? PCI_COMMAND_MASTER : 0));
      if (isOn || guest.domain.pending > 0) return;
      guest.freeze();
    },
    () => {
      if (!random.oneIn(3)) return;
      rig.quiet();
      if (random.oneIn(3)) device.reset();
      guest.remap();
      device.resume();
      rig.command(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    },
  ])();
}

function run(random: Random): void {
  neighbours ??= new Neighbours();
  const canary = arena.allocate(CANARY_BYTES);
  arena.bytes.fill(CANARY, canary, canary + CANARY_BYTES);
  const rig = new Rig(random, neighbours);
  if (!random.oneIn(6)) rig.start();
  for (let i = 0; i < STEPS; i++) {
    step(rig);
    if (random.oneIn(2)) rig.turn();
    rig.check();
    if (!random.oneIn(10)) continue;
    for (const bytes of neighbours.check()) rig.guest.checkPublic(bytes, 'a frame');
  }
  rig.checkIdle();
  rig.check();
  for (const bytes of neighbours.check()) rig.guest.checkPublic(bytes, 'a frame');
  rig.takeOver();
  rig.guest.check();
  rig.guest.close();
  assert.ok(
    arena.bytes.subarray(canary, canary + CANARY_BYTES).every((byte) => byte === CANARY),
    'memory beside the guest was written',
  );
  arena.unmap(canary, CANARY_BYTES);
}

export const e1000: FuzzTarget = { name: 'e1000', run };
