/**
 * A virtual function of the 82599 under a hostile driver: any register in any width and order, stores to
 * its queues' pages that no trap sees, any mailbox message, rings anywhere, any descriptor, frames that
 * come in meanwhile, resets, bus mastering off and on, memory that is taken away, a policy that changes.
 *
 * Whatever it does, it writes to its own memory alone and shows nobody what it may not read; it never
 * speaks as somebody else; two VFs beside it reach each other; and a good driver that takes it over finds
 * it whole.
 */
import assert from 'node:assert/strict';
import { TestMemory } from '../src/device/e1000/testing.ts';
import { IxgbeCard } from '../src/device/ixgbe/card.ts';
import type { VirtualFunction } from '../src/device/ixgbe/virtual-function.ts';
import { TestWire, VF_GUEST_BYTES, VfRig } from '../src/device/ixgbe/virtual-function-testing.ts';
import { Arena } from '../src/memory/arena.ts';
import { createDataPath } from '../src/net/data-path.ts';
import { parseMac } from '../src/net/mac.ts';
import { PollLoop } from '../src/os/poll-loop.ts';
import * as descriptors from '../src/spec/ixgbe-descriptors.ts';
import * as mailbox from '../src/spec/ixgbe-mailbox.ts';
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../src/spec/pci.ts';
import { GuardedGuest } from './guarded-guest.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const STEPS = 60;
const PAGES = 48;
const CANARY_BYTES = 4096;
const CANARY = 0xa5;
const WIDTHS = [1, 2, 4] as const;
const FRAME = 100;
const BAD = 1;
const QUEUE_BYTES = 0x40;
/** Registers of a queue's block, from its start. */
const [BASE_LOW, BASE_HIGH, LENGTH, HEAD, TAIL, CONTROL] = [0x00, 0x04, 0x08, 0x10, 0x18, 0x28];
const SRRCTL = 0x14;
const FAR = '52:54:00:00:99:99';
/** The address of a good guest, whose frames are all sevens. */
const GOOD = Buffer.from('525400000002', 'hex');

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);

function macOf(index: number): string {
  return `52:54:00:00:00:0${index}`;
}

function frame(to: string, from: string, bytes = FRAME): Buffer {
  const made = Buffer.alloc(bytes, 7);
  made.set([...parseMac(to), ...parseMac(from), 0x88, 0xb5]);
  return made;
}

/** A port with two good guests; one VF after the other is beside them. */
class Port {
  readonly card = new IxgbeCard({
    name: 'nic0/0',
    path,
    mode: 'sriov',
    port: 0,
    mac: parseMac('52:54:00:00:99:00'),
    link: 'none',
  });
  readonly wire = new TestWire(arena);
  readonly good: VfRig;
  readonly other: VfRig;
  /** Of the guest that takes functions over. */
  readonly memory = new TestMemory(arena, VF_GUEST_BYTES);

  constructor() {
    this.card.owner = this.wire;
    const make = (index: number): VfRig => {
      const rig = new VfRig(this.card.createVf(index, { mac: macOf(index) }), arena);
      rig.start();
      return rig;
    };
    this.good = make(2);
    this.other = make(3);
  }

  /** What one guest sends comes to the other. Returns all that came, and what left by the wire. */
  check(): Buffer[] {
    const wanted = frame(macOf(3), macOf(2));
    const before = this.other.received();
    this.good.received();
    this.good.send(wanted);
    const got = [...before, ...this.other.received()].map(({ bytes }) => bytes);
    const isThere = got.some((one) => one.equals(wanted));
    assert.ok(isThere, 'a VF beside it is not heard any more');
    for (const rig of [this.good, this.other]) assert.deepEqual(rig.memory.faults, []);
    const all = [...got, ...this.wire.take()];
    for (const bytes of all) {
      const isGood = bytes.subarray(6, 12).equals(GOOD);
      if (isGood)
        assert.ok(
          bytes.subarray(14).every((byte) => byte === 7),
          'sends as another VF',
        );
    }
    return all;
  }
}

let port: Port | undefined;

class Rig {
  readonly random: Random;
  readonly port: Port;
  readonly guest: GuardedGuest;
  readonly vf: VirtualFunction;
  /** Where the last frame that makes sense lies. */
  #packet = 0;
  #tail = 0;

  constructor(random: Random, beside: Port) {
    this.random = random;
    this.port = beside;
    this.guest = new GuardedGuest(random, arena, 'bad', PAGES);
    // Some of it is always of use: rings, and buffers.
    this.guest.open(0, 4 * 4096);
    // It cannot pretend to be a neighbour: that would be theirs to complain of.
    const settings = { mac: macOf(BAD), spoofchk: true, trust: random.oneIn(2) };
    this.vf = beside.card.createVf(BAD, settings);
    this.vf.attach({
      dma: this.guest.domain,
      interrupts: {
        keepsMasks: true,
        setIntx: () => undefined,
        signalMsi: () => undefined,
        signalMsix: () => undefined,
      },
      setBusMaster: (on) => {
        this.guest.domain.busMaster = on;
        if (on) this.guest.thaw();
      },
    });
    this.command(true);
  }

  command(master: boolean): void {
    const value = PCI_COMMAND_MEMORY | (master ? PCI_COMMAND_MASTER : 0);
    this.vf.writeConfig(PCI_COMMAND, 2, value);
  }

  set(offset: number, value: number): void {
    this.vf.writeBar(0, offset, 4, value >>> 0);
  }

  get(offset: number): number {
    return this.vf.readBar(0, offset, 4);
  }

  /** As a trap, or as a store to the mapped page. */
  ring(block: number, register: number, value: number): void {
    if (this.random.oneIn(2)) this.set(block + register, value);
    else this.vf.words[(block + register) / 4] = value;
  }

  /** Rings in memory that is there, as a good driver lays them out. */
  start(): void {
    const { random, guest } = this;
    const entries = 8 * (1 + random.below(8));
    const [transmit, receive] = [mailbox.IXGBE_VF_TX_QUEUES, mailbox.IXGBE_VF_RX_QUEUES];
    for (const [block, at] of [
      [transmit, guest.base],
      [receive, guest.base + 4096],
    ] as const) {
      this.ring(block, BASE_LOW, at % 2 ** 32);
      this.ring(block, BASE_HIGH, Math.floor(at / 2 ** 32));
      this.ring(block, LENGTH, entries * 16);
      this.ring(block, HEAD, 0);
      this.ring(block, TAIL, 0);
    }
    for (let i = 0; i < entries; i++) this.receiveDescriptor(i);
    const type = random.pick([0, 1, 1, 1, 2, 5, 7]);
    this.ring(receive, SRRCTL, random.below(8) | (random.below(16) << 8) | (type << 25));
    const strip = random.oneIn(2) ? descriptors.IXGBE_RXDCTL_VLAN_STRIP : 0;
    this.ring(transmit, CONTROL, descriptors.IXGBE_QUEUE_ENABLE);
    this.ring(receive, CONTROL, descriptors.IXGBE_QUEUE_ENABLE | strip);
    this.ring(receive, TAIL, random.below(entries));
    if (random.oneIn(2)) this.set(mailbox.IXGBE_VF_IVAR, random.u32());
    if (random.oneIn(2)) this.set(mailbox.IXGBE_VF_EIMS, random.u32());
    this.#tail = 0;
  }

  receiveDescriptor(index: number): void {
    const bytes = Buffer.alloc(16);
    const address = (): bigint => BigInt(this.guest.address()) & 0xffff_ffff_ffff_ffffn;
    bytes.writeBigUInt64LE(address());
    if (this.random.oneIn(3)) bytes.writeBigUInt64LE(address(), 8);
    this.guest.write(this.guest.base + 4096 + 16 * index, bytes);
  }

  /** Words of a descriptor to send something, or of a context that may fit it. */
  #words(): [number, number, number, number] {
    const { random } = this;
    const length = random.pick([random.below(200), random.below(2000), random.nasty(16), 0]);
    if (random.oneIn(4)) {
      const lengths = random.oneIn(2) ? 20 | (14 << 9) | (random.below(4096) << 16) : random.u32();
      const sizes = random.oneIn(2)
        ? (random.pick([8, 20]) << 8) | (random.pick([1, 536, 1448]) << 16)
        : random.u32();
      const types = random.oneIn(2) ? 0xc00 : random.u32() & 0xffff;
      const command = descriptors.IXGBE_TXD_ADVANCED | descriptors.IXGBE_TXD_TYPE_CONTEXT | types;
      return [lengths, random.u32(), command, sizes];
    }
    const address = random.oneIn(2) ? this.#packet : this.guest.address();
    const bits = random.oneIn(3) ? random.u32() & 0xcf00_0000 : descriptors.IXGBE_TXD_REPORT;
    const end = random.oneIn(3) ? 0 : descriptors.IXGBE_TXD_END;
    const kind = random.oneIn(4)
      ? 0
      : descriptors.IXGBE_TXD_ADVANCED | descriptors.IXGBE_TXD_TYPE_DATA;
    const options = random.oneIn(2) ? random.u32() : random.below(4) << 8;
    return [address % 2 ** 32, Math.floor(address / 2 ** 32), bits | end | kind | length, options];
  }

  transmit(): void {
    const { random, guest } = this;
    for (let n = 1 + random.below(random.oneIn(8) ? 70 : 6); n > 0; n--) {
      const bytes = Buffer.alloc(16);
      for (const [i, word] of this.#words().entries()) bytes.writeUInt32LE(word >>> 0, 4 * i);
      guest.write(guest.base + 16 * this.#tail, bytes);
      const entries = Math.max(8, this.get(mailbox.IXGBE_VF_TX_QUEUES + LENGTH) >>> 4);
      this.#tail = (this.#tail + 1) % Math.min(entries, 256);
    }
    if (!random.oneIn(6)) this.ring(mailbox.IXGBE_VF_TX_QUEUES, TAIL, this.#tail);
  }

  /** A frame that offloads and switch make sense of, somewhere in its memory. */
  packet(): void {
    const { random, guest } = this;
    const bytes = Buffer.from(random.bytes(80 + random.below(200)));
    const to = parseMac(random.pick([macOf(2), macOf(3), macOf(BAD), FAR, 'ff:ff:ff:ff:ff:ff']));
    bytes.set([...to, ...parseMac(random.oneIn(6) ? macOf(2) : macOf(BAD))], 0);
    bytes.writeUInt16BE(random.pick([0x0800, 0x86dd, 0x8100]), 12);
    bytes[14] = random.pick([0x45, 0x60, 0x4f]);
    bytes[23] = random.pick([6, 17]);
    bytes[46] = 0x50;
    this.#packet = guest.address();
    guest.write(this.#packet, bytes);
  }

  register(): void {
    const { random, vf } = this;
    const value = random.oneIn(2) ? random.nasty(32) : random.u32();
    const block = random.pick([mailbox.IXGBE_VF_TX_QUEUES, mailbox.IXGBE_VF_RX_QUEUES]);
    const near = block + QUEUE_BYTES * random.below(3) + 4 * random.below(16);
    const offset = random.oneIn(3) ? random.below(mailbox.IXGBE_VF_REGISTER_BYTES) : near;
    const width = random.oneIn(6) ? random.pick(WIDTHS) : 4;
    const bar = random.oneIn(12) ? random.below(6) : 0;
    random.pick<() => void>([
      () => vf.writeBar(bar, offset, width, width === 4 ? value : value % 2 ** (8 * width)),
      () => {
        const is = vf.readBar(bar, offset, width);
        assert.ok(Number.isInteger(is) && is >= 0 && is < 2 ** (8 * width), `reads ${is}`);
      },
      () => {
        vf.words[near / 4] = random.oneIn(2) ? value : this.guest.address() % 2 ** 32;
      },
    ])();
  }

  /** A message, or part of one, with any of the mailbox's bits. */
  message(): void {
    const { random } = this;
    const request = random.oneIn(4) ? random.u32() : random.below(0x14) | (random.below(3) << 16);
    const words = [request, random.nasty(32), random.u32(), random.nasty(32)];
    for (const [i, word] of words.entries()) {
      if (!random.oneIn(6)) this.set(mailbox.IXGBE_VF_MAILBOX_MEMORY + 4 * i, word);
    }
    this.set(mailbox.IXGBE_VF_MAILBOX, random.oneIn(3) ? random.below(256) : 1);
    if (random.oneIn(2)) this.get(mailbox.IXGBE_VF_MAILBOX);
  }

  /** A neighbour sends it something. */
  incoming(): void {
    const { random, port: beside } = this;
    const bytes = random.pick([60, 100, 1514, random.below(3000) + 60, 9000]);
    const to = random.oneIn(3) ? 'ff:ff:ff:ff:ff:ff' : macOf(BAD);
    const sent = frame(to, macOf(2), bytes);
    for (let n = random.below(6); n >= 0; n--) beside.good.send(sent);
  }

  /** The administrator has other ideas. */
  policy(): void {
    const { random, port: beside } = this;
    beside.card.setVf(BAD, {
      vlan: random.pick([0, 0, 10]),
      trust: random.oneIn(2),
      state: random.pick(['auto', 'enable', 'disable']),
    });
  }

  /** As a transport does it: what is under way ends first. */
  quiet(): void {
    for (let turns = 0; !this.vf.hold(); turns++) {
      assert.ok(turns < 100, 'DMA that never ends');
      this.guest.settle(true);
    }
  }

  turn(): void {
    this.vf.poll();
    if (this.random.oneIn(2)) this.guest.settle();
  }

  check(): void {
    this.guest.check();
    for (const [i, value] of this.vf.counters.values.entries()) {
      assert.ok(Number.isInteger(value) && value >= 0, `counter ${i} is ${value}`);
    }
    for (const bytes of this.port.check()) this.guest.checkPublic(bytes, 'a frame');
  }

  /** A good driver finds a function that works. */
  takeOver(): void {
    const { vf, port: beside } = this;
    this.quiet();
    vf.detach();
    beside.card.setVf(BAD, { vlan: 0, state: 'auto' });
    const rig = new VfRig(vf, arena, beside.memory);
    rig.start();
    beside.other.received();
    rig.send(frame(macOf(3), macOf(BAD)));
    const got = beside.other.received();
    assert.ok(
      got.some(({ bytes }) => bytes.equals(frame(macOf(3), macOf(BAD)))),
      'sends no more',
    );
    beside.good.send(frame(macOf(BAD), macOf(2)));
    assert.ok(
      rig.received().some(({ bytes }) => bytes.equals(frame(macOf(BAD), macOf(2)))),
      'is deaf',
    );
    vf.detach();
    beside.card.removeVf(BAD);
    vf.close();
  }
}

function step(rig: Rig): void {
  const { random, guest, vf } = rig;
  random.pick<() => void>([
    () => rig.transmit(),
    () => rig.transmit(),
    () => rig.register(),
    () => rig.register(),
    () => rig.message(),
    () => rig.incoming(),
    () => rig.packet(),
    () => rig.turn(),
    () => rig.turn(),
    () => rig.receiveDescriptor(random.below(64)),
    () => {
      if (random.oneIn(3)) rig.start();
    },
    () => {
      if (random.oneIn(4)) rig.policy();
    },
    () => {
      if (random.oneIn(3)) rig.set(mailbox.IXGBE_VF_CTRL, 0x0400_0000);
    },
    () => {
      if (!random.oneIn(4)) return;
      const isOn = random.oneIn(2);
      rig.command(isOn);
      if (isOn || guest.domain.pending > 0) return;
      guest.freeze();
    },
    () => {
      if (!random.oneIn(3)) return;
      rig.quiet();
      if (random.oneIn(3)) vf.reset();
      guest.remap();
      vf.resume();
      rig.command(true);
    },
  ])();
}

function run(random: Random): void {
  port ??= new Port();
  const canary = arena.allocate(CANARY_BYTES);
  arena.bytes.fill(CANARY, canary, canary + CANARY_BYTES);
  const rig = new Rig(random, port);
  if (!random.oneIn(6)) rig.start();
  for (let i = 0; i < STEPS; i++) {
    step(rig);
    if (random.oneIn(2)) rig.turn();
    rig.guest.check();
    if (random.oneIn(10)) rig.check();
  }
  rig.check();
  rig.takeOver();
  rig.guest.check();
  rig.guest.close();
  assert.ok(
    arena.bytes.subarray(canary, canary + CANARY_BYTES).every((byte) => byte === CANARY),
    'memory beside the guest was written',
  );
  arena.unmap(canary, CANARY_BYTES);
}

export const ixgbevf: FuzzTarget = { name: 'ixgbevf', run };
