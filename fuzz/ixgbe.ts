/**
 * Functions of an 82599 under a hostile driver: a virtual one beside good ones on one port, or a port
 * of its own. Any register in any width and order, by traps and by stores to mapped pages; rings
 * anywhere, any descriptor, contexts that lie; a mailbox that is flooded; frames that come in meanwhile,
 * resets, bus mastering off and on, memory that is taken away.
 *
 * Whatever it does, it writes to its own memory alone and shows nobody what it may not read; a function
 * without work lets the lane sleep; two guests beside it reach each other; and a good driver that takes
 * it over finds it whole.
 */
import assert from 'node:assert/strict';
import { MiB } from '../src/base/bits.ts';
import { TEST_BASE, TestMemory } from '../src/device/e1000/testing.ts';
import { IxgbeCard } from '../src/device/ixgbe/card.ts';
import type { FrameSink, NicFunction } from '../src/device/ixgbe/nic-function.ts';
import { VF_DEFAULTS, type VfChange } from '../src/device/ixgbe/vf-policy-settings.ts';
import { IxgbeDriver } from '../src/driver/ixgbe/ixgbe-driver.ts';
import { type IxgbeDriverOptions, planIxgbe } from '../src/driver/ixgbe/plan.ts';
import { IxgbevfDriver } from '../src/driver/ixgbevf/ixgbevf-driver.ts';
import type { NetPair } from '../src/driver/net-pair.ts';
import { DirectBus } from '../src/driver/pci/testing.ts';
import { Arena } from '../src/memory/arena.ts';
import type { Burst } from '../src/net/burst.ts';
import { createDataPath } from '../src/net/data-path.ts';
import { formatMac, parseMac } from '../src/net/mac.ts';
import { PortPolicy } from '../src/net/policy.ts';
import { Switch } from '../src/net/switch.ts';
import { PollLoop } from '../src/os/poll-loop.ts';
import * as spec from '../src/spec/ixgbe.ts';
import * as descriptors from '../src/spec/ixgbe-descriptors.ts';
import * as mailbox from '../src/spec/ixgbe-mailbox.ts';
import {
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
} from '../src/spec/pci.ts';
import { NET_HEADER_BYTES } from '../src/spec/virtio-net.ts';
import { GuardedGuest } from './guarded-guest.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const STEPS = 60;
const PAGES = 48;
const CANARY_BYTES = 4096;
const CANARY = 0xa5;
/** Milliseconds until a function without work may keep no lane awake: moderation spins for one, if free to. */
const SPIN_MS = 1000;
const WIDTHS = [1, 2, 4] as const;
const FRAME = 100;
const ALL_ON = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
/** Device control of the PCI Express capability, and the bit that resets the function. */
const DEVICE_CONTROL = 0xa8;
const FLR = 0x8000;
const OPTIONS: IxgbeDriverOptions = {
  sendBytes: 1514,
  sendFrames: 16,
  receiveBuffers: 64,
  mtu: 1500,
  pairs: 1,
};

const BAD = parseMac('52:54:00:00:00:01');
const GOOD = parseMac('52:54:00:00:00:02');
const OTHER = parseMac('52:54:00:00:00:03');

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);

function frame(to: Uint8Array, from: Uint8Array, bytes = FRAME): Buffer {
  const made = Buffer.alloc(Math.max(bytes, 14), 7);
  made.set([...to, ...from, 0x88, 0xb5]);
  return made;
}

/** A guest with a driver that does as it should. */
class Good {
  readonly device: NicFunction;
  readonly memory = new TestMemory(arena, 2 * MiB);
  readonly bus: DirectBus;
  readonly pair: NetPair;
  readonly #sendTo: Float64Array;

  constructor(device: NicFunction, mac: Uint8Array) {
    this.device = device;
    this.bus = new DirectBus(device, this.memory);
    const plan = planIxgbe(OPTIONS, TEST_BASE);
    const memory = this.memory.driver;
    const driver = device.irqs.intx
      ? new IxgbeDriver(plan, memory, this.bus)
      : new IxgbevfDriver(plan, memory, this.bus, mac);
    driver.start();
    const [pair] = driver.pairs;
    assert.ok(pair);
    this.pair = pair;
    this.#sendTo = pair.sendPool.addresses();
    const { receive } = pair;
    for (let i = 0; i < receive.pool.count; i++) receive.post(receive.pool.first + i);
    receive.queue.publish();
  }

  send(bytes: Buffer): void {
    const { transmit } = this.pair;
    const at = this.#sendTo[0] as number;
    const header = Buffer.alloc(NET_HEADER_BYTES);
    this.memory.bytes(at, header.length + bytes.length).set(Buffer.concat([header, bytes]));
    assert.ok(
      transmit.send(this.#sendTo, 0, NET_HEADER_BYTES + bytes.length, 0),
      'no room to send',
    );
    transmit.flush();
    this.device.poll();
    assert.equal(transmit.reap(), 1, 'a frame of a good guest was not sent');
  }

  received(): Buffer[] {
    const { receive } = this.pair;
    const frames: Buffer[] = [];
    for (;;) {
      const count = receive.receive();
      for (let i = 0; i < count; i++) {
        const at = TEST_BASE + (receive.offset[i] as number) + NET_HEADER_BYTES;
        frames.push(Buffer.from(this.memory.bytes(at, receive.length[i] as number)));
      }
      receive.release();
      receive.queue.publish();
      if (count === 0) return frames;
    }
  }
}

/** A switch, and a port of a card with two good guests on it. */
class Neighbours {
  readonly lan = new Switch('lan', path);
  readonly card = new IxgbeCard({
    name: 'nic0/0',
    path,
    mode: 'sriov',
    port: 0,
    mac: GOOD,
    link: 'none',
  });
  readonly good: Good;
  readonly other: Good;

  constructor() {
    this.card.owner = this.lan;
    this.lan.addPort(this.card, new PortPolicy({}, 0));
    this.good = new Good(this.card.createVf(2, { mac: formatMac(GOOD) }), GOOD);
    this.other = new Good(this.card.createVf(3, { mac: formatMac(OTHER) }), OTHER);
  }

  /** What one guest sends comes to the other. Returns all that came. */
  check(): Buffer[] {
    const wanted = frame(OTHER, GOOD);
    const before = this.other.received();
    this.good.received();
    this.good.send(wanted);
    const got = [...before, ...this.other.received()];
    assert.ok(
      got.some((one) => one.subarray(0, FRAME).equals(wanted)),
      'a guest beside it is not heard any more',
    );
    return got;
  }
}

let neighbours: Neighbours | undefined;

/** Looks where the frames lie that the function hands over. */
function watched(sink: FrameSink, guest: GuardedGuest): FrameSink {
  const piece = (address: number, length: number): number => {
    assert.ok(guest.allows(address, length, false), 'sends what it may not read');
    return length;
  };
  return {
    admits: (from) => sink.admits?.(from) ?? true,
    waitNs: (from) => sink.waitNs?.(from) ?? 0,
    publish: () => sink.publish(),
    send: (from, burst: Burst) => {
      const { chains, count } = burst;
      assert.ok(count <= 64, `a burst of ${count} frames`);
      for (let i = 0; i < count; i++) {
        let sum = piece(chains.address[i] as number, chains.length[i] as number);
        for (let k = 0; k < (chains.more[i] as number); k++) {
          const more = (chains.moreStart[i] as number) + k;
          sum += piece(chains.moreAddress[more] as number, chains.moreLength[more] as number);
        }
        assert.equal(sum, chains.total[i], 'a frame is not the sum of its pieces');
      }
      sink.send(from, burst);
    },
  };
}

/** Where the rings of a kind of function are, and its registers. */
interface Place {
  readonly transmit: (queue: number) => number;
  readonly receive: (queue: number) => number;
  readonly queues: number;
  readonly bytes: number;
  readonly known: readonly number[];
}

const PF: Place = {
  transmit: spec.ixgbeTxQueue,
  receive: spec.ixgbeRxQueue,
  queues: spec.IXGBE_QUEUES,
  bytes: spec.IXGBE_REGISTER_BYTES,
  known: Object.values<spec.IxgbeRegister>(spec.IXGBE_REGISTERS).flatMap(
    ({ offset, count, stride }) => [offset, offset + (count - 1) * stride],
  ),
};

const VF: Place = {
  transmit: (queue) => mailbox.IXGBE_VF_TX_QUEUES + spec.IXGBE_QUEUE_BYTES * queue,
  receive: (queue) => mailbox.IXGBE_VF_RX_QUEUES + spec.IXGBE_QUEUE_BYTES * queue,
  queues: 2,
  bytes: mailbox.IXGBE_VF_REGISTER_BYTES,
  known: [
    mailbox.IXGBE_VF_CTRL,
    mailbox.IXGBE_VF_STATUS,
    mailbox.IXGBE_VF_LINKS,
    mailbox.IXGBE_VF_EICR,
    mailbox.IXGBE_VF_EICS,
    mailbox.IXGBE_VF_EIMS,
    mailbox.IXGBE_VF_EIMC,
    mailbox.IXGBE_VF_EIAC,
    mailbox.IXGBE_VF_EIAM,
    mailbox.IXGBE_VF_IVAR,
    mailbox.IXGBE_VF_IVAR_MISC,
    mailbox.IXGBE_VF_EITR,
    mailbox.IXGBE_VF_PSRTYPE,
    mailbox.IXGBE_VF_MAILBOX,
    mailbox.IXGBE_VF_MAILBOX_MEMORY,
    mailbox.IXGBE_VF_GPRC,
  ],
};

const TX = spec.IXGBE_TX_QUEUE_REGISTERS;
const RX = spec.IXGBE_RX_QUEUE_REGISTERS;

class Rig {
  readonly random: Random;
  readonly beside: Neighbours;
  readonly place: Place;
  readonly guest: GuardedGuest;
  readonly device: NicFunction;
  readonly bus: DirectBus;
  /** A card of its own, of a guest that has the port. */
  readonly own: IxgbeCard | undefined;
  #tail = 0;
  #queue = 0;

  constructor(random: Random, beside: Neighbours) {
    this.random = random;
    this.beside = beside;
    this.guest = new GuardedGuest(random, arena, 'bad', PAGES);
    // Some of it is always of use: rings, and buffers.
    this.guest.open(0, 4 * 4096);
    if (random.oneIn(4)) {
      this.place = PF;
      this.own = new IxgbeCard({
        name: 'nic1/0',
        path,
        mode: 'direct',
        port: 0,
        mac: BAD,
        link: 'none',
      });
      this.own.owner = beside.lan;
      // It cannot pretend to be a neighbour: that would be theirs to complain of.
      const policy = new PortPolicy({ mac: BAD, spoofchk: true }, 0);
      beside.lan.addPort(this.own, policy);
      this.device = this.own.pf ?? assert.fail();
    } else {
      this.place = VF;
      const settings = random.pick<VfChange>([
        {},
        { trust: true },
        { vlan: 5, qos: 3 },
        { max_tx_rate: 100 },
        { trust: true, query_rss: true },
      ]);
      this.device = beside.card.createVf(0, { mac: formatMac(BAD), ...settings });
    }
    const sink = this.own ?? beside.card;
    this.device.uplink = watched(sink, this.guest);
    this.bus = new DirectBus(this.device, this.guest.domain);
    this.#wire();
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
    this.command(ALL_ON);
  }

  command(value: number): void {
    this.bus.writeConfig(PCI_COMMAND, 2, value);
  }

  /** A register by a trap, or one of the mapped pages by a store. */
  set(offset: number, value: number): void {
    const { random, device } = this;
    const area = device.bars[0]?.areas.some(
      (one) => offset >= one.offset && offset < one.offset + one.bytes,
    );
    if (area === true && random.oneIn(2)) device.words[offset / 4] = value;
    else this.bus.write(0, offset, 4, value);
  }

  /** Rings in memory that is there, as a good driver lays them out, and what goes with them. */
  start(): void {
    const { random, guest, place } = this;
    const entries = 8 * (1 + random.below(8));
    this.#queue = random.oneIn(3) ? random.below(place.queues) : 0;
    const transmit = place.transmit(this.#queue);
    const receive = place.receive(random.oneIn(4) ? this.#queue : 0);
    const high = (address: number): number => Math.floor(address / 2 ** 32);
    this.set(transmit + TX.TDBAL.offset, guest.base % 2 ** 32);
    this.set(transmit + TX.TDBAH.offset, high(guest.base));
    this.set(transmit + TX.TDLEN.offset, entries * 16);
    if (random.oneIn(3)) {
      this.set(transmit + TX.TDWBAL.offset, (guest.address() % 2 ** 32) | 1);
      this.set(transmit + TX.TDWBAH.offset, high(guest.base));
    }
    this.set(transmit + TX.TXDCTL.offset, descriptors.IXGBE_QUEUE_ENABLE);
    const ring = guest.base + 4096;
    this.set(receive + RX.RDBAL.offset, ring % 2 ** 32);
    this.set(receive + RX.RDBAH.offset, high(ring));
    this.set(receive + RX.RDLEN.offset, entries * 16);
    const type = random.oneIn(3) ? random.below(8) : descriptors.IXGBE_DESCTYPE_ONE_BUFFER;
    const sizes = random.oneIn(3) ? random.u32() & 0x3f1f : 0x402;
    this.set(receive + RX.SRRCTL.offset, sizes | (type << descriptors.IXGBE_SRRCTL_TYPE_SHIFT));
    const strip = random.oneIn(3) ? descriptors.IXGBE_RXDCTL_VLAN_STRIP : 0;
    this.set(receive + RX.RXDCTL.offset, descriptors.IXGBE_QUEUE_ENABLE | strip);
    for (let i = 0; i < entries; i++) this.receiveDescriptor(i);
    this.set(receive + RX.RDT.offset, random.below(entries));
    this.#tail = 0;
    if (this.own === undefined) {
      this.message(mailbox.IXGBE_VF_RESET);
      this.bus.write(0, mailbox.IXGBE_VF_EIMS, 4, random.u32());
      this.bus.write(0, mailbox.IXGBE_VF_IVAR, 4, 0x8180);
      return;
    }
    const { DMATXCTL, RXCTRL, FCTRL, EIMS, MRQC, HLREG0 } = spec.IXGBE_REGISTERS;
    this.bus.write(0, DMATXCTL.offset, 4, 0x8100_0001);
    this.bus.write(0, RXCTRL.offset, 4, 1);
    this.bus.write(0, FCTRL.offset, 4, random.pick([0x400, 0x702]));
    if (random.oneIn(2)) this.bus.write(0, EIMS.offset, 4, random.u32());
    if (random.oneIn(3)) this.bus.write(0, MRQC.offset, 4, random.u32());
    if (random.oneIn(4)) this.bus.write(0, HLREG0.offset, 4, random.u32() | 0x8000);
  }

  /** Says something in the mailbox. */
  message(request: number): void {
    const { random, bus } = this;
    const control = (value: number): void => bus.write(0, mailbox.IXGBE_VF_MAILBOX, 4, value);
    if (!random.oneIn(6)) control(mailbox.IXGBE_VFMAILBOX_VF_OWNS);
    bus.write(0, mailbox.IXGBE_VF_MAILBOX_MEMORY, 4, request);
    for (let i = 1; i < random.below(6); i++) {
      const word = random.oneIn(2) ? random.nasty(32) : random.below(16);
      bus.write(0, mailbox.IXGBE_VF_MAILBOX_MEMORY + 4 * i, 4, word);
    }
    control(mailbox.IXGBE_VFMAILBOX_REQUEST);
    if (random.oneIn(2)) bus.read(0, mailbox.IXGBE_VF_MAILBOX, 4);
    if (random.oneIn(2)) control(mailbox.IXGBE_VFMAILBOX_ACK);
  }

  receiveDescriptor(index: number): void {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(BigInt(this.guest.address()) & 0xffff_ffff_ffff_ffffn);
    if (this.random.oneIn(2)) bytes.writeUInt32LE(this.guest.address() % 2 ** 32, 8);
    this.guest.write(this.guest.base + 4096 + 16 * index, bytes);
  }

  /** Words of a descriptor to send something, or of a context that may fit it. */
  #words(): [number, number, number, number] {
    const { random } = this;
    const address = this.guest.address();
    const length = random.pick([random.below(200), random.below(2000), random.nasty(16), 0]);
    const end = random.oneIn(3) ? 0 : descriptors.IXGBE_TXD_END;
    const report = random.oneIn(3) ? random.u32() & 0xcf00_0000 : descriptors.IXGBE_TXD_REPORT;
    const advanced = descriptors.IXGBE_TXD_ADVANCED;
    const kind = random.below(4);
    if (kind === 0) {
      const lengths = random.oneIn(3) ? random.u32() : (14 << 9) | random.pick([20, 40, 24]);
      const types = random.oneIn(3) ? random.u32() & 0xffff : random.pick([0x400, 0xc00, 0x800, 0]);
      const segment = random.pick([0, 1, 536, 1460, random.nasty(16)]);
      const index = random.oneIn(6) ? random.below(16) : random.below(2);
      const last = (segment << 16) | (random.pick([20, 8, random.nasty(8)]) << 8) | (index << 4);
      return [
        lengths,
        random.u32(),
        (advanced | descriptors.IXGBE_TXD_TYPE_CONTEXT | types) >>> 0,
        last >>> 0,
      ];
    }
    const low = address % 2 ** 32;
    const high = Math.floor(address / 2 ** 32);
    const flags = report | end | length;
    if (kind === 1) return [low, high, (flags & ~advanced) >>> 0, random.u32()];
    const cut = random.oneIn(2) ? descriptors.IXGBE_TXD_SEGMENT : 0;
    const payload = random.pick([length, random.below(4000), random.nasty(18)]);
    const options = random.oneIn(3)
      ? random.u32()
      : (payload << descriptors.IXGBE_TXD_PAYLOAD_SHIFT) |
        (random.below(4) << 8) |
        random.pick([0, 0x80, 0x90]);
    return [
      low,
      high,
      (flags | advanced | descriptors.IXGBE_TXD_TYPE_DATA | cut) >>> 0,
      options >>> 0,
    ];
  }

  /** A frame that offloads make sense of, somewhere in its memory. */
  packet(): void {
    const { random, guest } = this;
    const bytes = Buffer.from(random.bytes(80 + random.below(200)));
    bytes.set([...random.pick([GOOD, OTHER, BAD]), ...BAD], 0);
    if (random.oneIn(4)) bytes.fill(0xff, 0, 6);
    bytes.writeUInt16BE(random.pick([0x0800, 0x86dd, 0x8100]), 12);
    bytes[14] = random.pick([0x45, 0x60, 0x4f]);
    bytes[23] = random.pick([6, 17, 132]);
    bytes[46] = 0x50;
    guest.write(guest.address(), bytes);
  }

  transmit(): void {
    const { random, guest, place } = this;
    for (let n = 1 + random.below(random.oneIn(8) ? 70 : 6); n > 0; n--) {
      const bytes = Buffer.alloc(16);
      for (const [i, word] of this.#words().entries()) bytes.writeUInt32LE(word >>> 0, 4 * i);
      guest.write(guest.base + 16 * this.#tail, bytes);
      this.#tail = (this.#tail + 1) % 64;
    }
    if (!random.oneIn(6)) this.set(place.transmit(this.#queue) + TX.TDT.offset, this.#tail);
  }

  register(): void {
    const { random, bus, place } = this;
    const value = random.oneIn(2) ? random.nasty(32) : random.u32();
    const ring = random.pick([place.transmit, place.receive])(random.below(place.queues));
    const offset = random.pick([
      () => random.nasty(19),
      () => place.known[random.below(place.known.length)] as number,
      () => (place.known[random.below(place.known.length)] as number) + 4 * random.below(4),
      () => ring + 4 * random.below(16),
    ])();
    const width = random.oneIn(6) ? random.pick(WIDTHS) : 4;
    const bar = random.oneIn(12) ? random.below(6) : 0;
    if (random.oneIn(3)) {
      const is = bus.read(bar, offset, width);
      assert.ok(Number.isInteger(is) && is >= 0 && is < 2 ** (8 * width), `reads ${is}`);
    } else if (random.oneIn(4) && this.own !== undefined) {
      bus.write(2, spec.IXGBE_IOADDR, 4, offset);
      bus.write(2, spec.IXGBE_IODATA, 4, value);
    } else if (random.below(3) === 0) {
      const address = this.guest.address() % 2 ** 32;
      this.set(ring + 4 * random.below(16), random.oneIn(2) ? value : address);
    } else {
      bus.write(bar, offset, width, width === 4 ? value : value % 2 ** (8 * width));
    }
  }

  /** A neighbour sends it something. */
  incoming(): void {
    const { random, beside } = this;
    const bytes = random.pick([60, 100, 1514, 14 + random.below(1500)]);
    const sent = frame(BAD, GOOD, bytes);
    if (random.oneIn(3)) sent.fill(0xff, 0, 6);
    for (let n = random.below(6); n >= 0; n--) beside.good.send(sent);
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
    this.guest.check();
    for (const [i, value] of this.device.counters.values.entries()) {
      assert.ok(Number.isInteger(value) && value >= 0, `counter ${i} is ${value}`);
    }
  }

  /** Nothing is to be done: the lane may sleep, if only until it looks for doorbells again. */
  checkIdle(): void {
    const until = performance.now() + SPIN_MS;
    for (;;) {
      const work = this.device.poll() + this.guest.settle(true);
      loop.setTimer(0, () => loop.stop());
      loop.run();
      if (work === 0 && !this.device.arm()) return;
      assert.ok(performance.now() < until || work > 0, 'it keeps the lane awake without work');
    }
  }

  /** A good driver finds a function that works. */
  takeOver(): void {
    const { device, beside, own } = this;
    this.quiet();
    device.detach();
    if (own !== undefined) own.setLink(true);
    else beside.card.replaceVf(0, { ...VF_DEFAULTS, mac: formatMac(BAD) });
    device.uplink = own ?? beside.card;
    const driver = new Good(device, BAD);
    // Its EEPROM may have got another address.
    if (own !== undefined) driver.bus.write(0, spec.IXGBE_REGISTERS.FCTRL.offset, 4, 0x702);
    driver.send(frame(OTHER, BAD));
    assert.ok(
      beside.other.received().some((one) => one.subarray(0, FRAME).equals(frame(OTHER, BAD))),
      'sends no more',
    );
    beside.good.send(frame(BAD, GOOD));
    assert.ok(
      driver.received().some((one) => one.subarray(0, FRAME).equals(frame(BAD, GOOD))),
      'is deaf',
    );
    driver.bus.close();
    if (own === undefined) {
      beside.card.removeVf(0).close();
      return;
    }
    beside.lan.removePort(own);
    own.close();
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
      if (rig.own === undefined) rig.message(random.oneIn(4) ? random.u32() : random.below(20));
      else if (random.oneIn(4)) rig.own.setLink(random.oneIn(2));
    },
    () => {
      if (random.oneIn(6)) rig.bus.writeConfig(DEVICE_CONTROL, 2, FLR);
      guest.settle(true);
      rig.command(ALL_ON);
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
      rig.command(ALL_ON);
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

export const ixgbe: FuzzTarget = { name: 'ixgbe', run };
