/**
 * The physical function of an 82599 under a hostile driver (`ixgbe-attack.ts`), on a port of its own on a
 * switch, with frames that come in meanwhile, resets, bus mastering off and on, cables pulled.
 *
 * Whatever it does, it writes to its own memory alone and shows nobody what it may not read; what the
 * counters say agrees; a function without work lets the lane sleep; two guests beside it reach each other;
 * and a good driver that takes it over finds it whole.
 */
import assert from 'node:assert/strict';
import { IxgbeCard } from '../src/device/ixgbe/card.ts';
import { segmentsOf } from '../src/device/ixgbe/link-limit.ts';
import type { FrameSink, NicFunction } from '../src/device/ixgbe/nic-function.ts';
import { Arena } from '../src/memory/arena.ts';
import { createDataPath } from '../src/net/data-path.ts';
import { formatMac, parseMac } from '../src/net/mac.ts';
import { PortPolicy } from '../src/net/policy.ts';
import { PORT_COUNTER_INDEX, type PortCounter } from '../src/net/port.ts';
import { Switch } from '../src/net/switch.ts';
import { PollLoop } from '../src/os/poll-loop.ts';
import * as spec from '../src/spec/ixgbe.ts';
import { Attack, type Place } from './ixgbe-attack.ts';
import { frame, GoodGuest } from './ixgbe-guest.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const STEPS = 100;
const CANARY_BYTES = 4096;
const CANARY = 0xa5;

const BAD = parseMac('52:54:00:00:00:01');
const GOOD = parseMac('52:54:00:00:00:02');
const OTHER = parseMac('52:54:00:00:00:03');
const { CTRL, FCTRL, RXCTRL, DMATXCTL, EIMS, MRQC, HLREG0, RDRXCTL } = spec.IXGBE_REGISTERS;
/** Broadcasts, and all unicasts and multicasts. */
const ALL_FRAMES =
  spec.IXGBE_FCTRL_BROADCAST | spec.IXGBE_FCTRL_UNICAST_ALL | spec.IXGBE_FCTRL_MULTICAST_ALL;

const PLACE: Place = {
  transmit: spec.ixgbeTxQueue,
  receive: spec.ixgbeRxQueue,
  queues: spec.IXGBE_QUEUES,
  known: [
    CTRL.offset,
    ...Object.values<spec.IxgbeRegister>(spec.IXGBE_REGISTERS).flatMap(
      ({ offset, count, stride }) => [offset, offset + (count - 1) * stride],
    ),
  ],
  io: 2,
};

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);

/** A switch, and two good guests on a card beside the one in question. */
class Neighbours {
  readonly lan = new Switch('lan', path);
  readonly good: GoodGuest;
  readonly other: GoodGuest;
  /** Of the guest that takes ports over. */
  readonly third: GoodGuest['memory'];

  constructor() {
    const card = new IxgbeCard({
      name: 'nic0/0',
      path,
      mode: 'sriov',
      port: 0,
      mac: GOOD,
      link: 'none',
    });
    card.owner = this.lan;
    this.lan.addPort(card, new PortPolicy({}, 0));
    this.good = new GoodGuest(card.createVf(2, { mac: formatMac(GOOD) }), arena, GOOD);
    this.other = new GoodGuest(card.createVf(3, { mac: formatMac(OTHER) }), arena, OTHER);
    const gone = new GoodGuest(card.createVf(4, { mac: formatMac(BAD) }), arena, BAD);
    this.third = gone.memory;
    gone.close();
    card.removeVf(4).close();
  }

  isTheirs(address: number): boolean {
    return this.good.owns(address) || this.other.owns(address);
  }
}

let neighbours: Neighbours | undefined;

class Rig {
  readonly random: Random;
  readonly beside: Neighbours;
  readonly card: IxgbeCard;
  readonly device: NicFunction;
  readonly attack: Attack;
  /** Frames that the switch had for it, those that it sent in loopback, and what all it sent would be on a wire. */
  #offered = 0;
  #sent = 0;

  constructor(random: Random, beside: Neighbours) {
    this.random = random;
    this.beside = beside;
    this.card = new IxgbeCard({
      name: 'nic1/0',
      path,
      mode: 'direct',
      port: random.oneIn(2) ? 0 : 1,
      mac: BAD,
      link: random.oneIn(4) ? '10G' : 'none',
      mapped: !random.oneIn(4),
    });
    this.card.owner = beside.lan;
    // It cannot pretend to be a neighbour: that would be theirs to complain of.
    beside.lan.addPort(this.card, new PortPolicy({ mac: BAD, spoofchk: true }, 0));
    this.device = this.card.pf ?? assert.fail();
    const accept = this.device.accept.bind(this.device);
    this.device.accept = (burst, frames, count, tagged, local) => {
      this.#offered += count;
      accept(burst, frames, count, tagged, local);
    };
    this.attack = new Attack({
      random,
      arena,
      loop,
      device: this.device,
      place: PLACE,
      addresses: { to: () => random.pick([GOOD, OTHER, BAD]), from: () => BAD },
      begin: () => this.start(),
      isForeign: (address) => beside.isTheirs(address),
    });
    const send = this.device.send.bind(this.device);
    this.device.send = (burst) => {
      for (let i = 0; i < burst.count; i++) this.#sent += segmentsOf(burst, i);
      send(burst);
    };
    this.device.uplink = this.attack.watch(this.card);
  }

  /** Rings, and what goes with them. */
  start(): void {
    const { random, attack } = this;
    const { bus } = attack;
    attack.start();
    bus.write(0, DMATXCTL.offset, 4, 0x8100_0001);
    bus.write(0, RXCTRL.offset, 4, spec.IXGBE_RXCTRL_ENABLE);
    bus.write(0, FCTRL.offset, 4, random.pick([spec.IXGBE_FCTRL_BROADCAST, ALL_FRAMES]));
    if (random.oneIn(2)) bus.write(0, EIMS.offset, 4, random.u32());
    if (random.oneIn(3)) bus.write(0, MRQC.offset, 4, random.u32());
    if (random.oneIn(4)) bus.write(0, RDRXCTL.offset, 4, random.u32());
    if (!random.oneIn(4)) return;
    bus.write(0, HLREG0.offset, 4, random.u32() | spec.IXGBE_HLREG0_LOOPBACK);
  }

  /** A neighbour sends it something. */
  incoming(): void {
    const { random, beside } = this;
    const sent = frame(BAD, GOOD, random.pick([60, 100, 1514, 16 + random.below(1499)]));
    if (random.oneIn(3)) sent.fill(0xff, 0, 6);
    if (random.oneIn(6)) sent.writeUInt32BE(0x8100_0000 + random.below(4096), 12);
    for (let n = random.below(6); n >= 0; n--) beside.good.send(sent);
  }

  check(): void {
    this.attack.check();
    const { values } = this.device.counters;
    const sum = (...names: readonly PortCounter[]): number =>
      names.reduce((total, name) => total + (values[PORT_COUNTER_INDEX[name]] as number), 0);
    assert.equal(sum('tx_frames'), this.#sent, 'frames that were sent');
    const got = sum('rx_frames', 'rx_drop_no_buffer');
    assert.ok(got <= this.#offered, `${got} frames received of ${this.#offered}`);
  }

  checkNeighbours(): void {
    const { good, other } = this.beside;
    for (const bytes of good.reach(other)) this.attack.guest.checkPublic(bytes, 'a frame');
  }

  /** A good driver finds a port that works. */
  takeOver(): void {
    const { device, beside, card, attack } = this;
    attack.leave();
    card.setLink(true);
    const uplink: FrameSink = card;
    device.uplink = uplink;
    const driver = new GoodGuest(device, arena, BAD, beside.third);
    // Its EEPROM may have got another address.
    driver.bus.write(0, FCTRL.offset, 4, ALL_FRAMES);
    driver.reach(beside.other);
    beside.good.reach(driver);
    driver.close();
    beside.lan.removePort(card);
    card.close();
  }
}

function step(rig: Rig): void {
  const { random, attack } = rig;
  random.pick<() => void>([
    () => attack.transmit(),
    () => attack.transmit(),
    () => attack.transmit(),
    () => attack.register(),
    () => attack.register(),
    () => attack.meddle(),
    () => attack.refill(),
    () => attack.refill(),
    () => rig.incoming(),
    () => rig.incoming(),
    () => attack.packet(),
    () => attack.turn(),
    () => attack.turn(),
    () => attack.receiveDescriptor(),
    () => {
      if (random.oneIn(3)) rig.start();
    },
    () => {
      if (random.oneIn(4)) attack.blast();
    },
    () => {
      if (random.oneIn(4)) rig.card.setLink(random.oneIn(2));
    },
    () => {
      if (random.oneIn(6)) attack.functionReset();
      else if (random.oneIn(5)) attack.bus.write(0, CTRL.offset, 4, random.pick([8, 1 << 26]));
    },
    () => {
      if (random.oneIn(4)) attack.master(random.oneIn(2));
    },
    () => {
      if (random.oneIn(3)) attack.remap();
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
    if (random.oneIn(2)) rig.attack.turn();
    rig.check();
    if (random.oneIn(10)) rig.checkNeighbours();
  }
  rig.attack.checkIdle();
  rig.check();
  rig.checkNeighbours();
  rig.takeOver();
  rig.attack.guest.check();
  rig.attack.guest.close();
  assert.ok(
    arena.bytes.subarray(canary, canary + CANARY_BYTES).every((byte) => byte === CANARY),
    'memory beside the guest was written',
  );
  arena.unmap(canary, CANARY_BYTES);
}

export const ixgbe: FuzzTarget = { name: 'ixgbe', run };
