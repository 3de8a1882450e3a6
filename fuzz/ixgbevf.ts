/**
 * Virtual functions of the 82599 under hostile drivers (`ixgbe-attack.ts`): one to three of them, on a
 * port with guests that do as they should, in no VLAN and in one. They flood their mailboxes, ask for
 * what is not theirs, are reset in the midst of DMA, taken out and put in again, while the administrator
 * changes his mind about them and the wire comes and goes.
 *
 * Whatever they do, they write to their own memory alone and show nobody what they may not read; the
 * `ixgbe-judge.ts` finds nothing; the policy's word holds; functions without work let the lane sleep;
 * guests beside them reach each other; and a good driver that takes one over finds it whole.
 */
import assert from 'node:assert/strict';
import { SluiceError } from '../src/base/errors.ts';
import { IxgbeCard } from '../src/device/ixgbe/card.ts';
import type { MirrorRule } from '../src/device/ixgbe/veb.ts';
import { VF_DEFAULTS, type VfChange } from '../src/device/ixgbe/vf-policy-settings.ts';
import type { VirtualFunction } from '../src/device/ixgbe/virtual-function.ts';
import { IxgbevfDriver } from '../src/driver/ixgbevf/ixgbevf-driver.ts';
import { Arena } from '../src/memory/arena.ts';
import { createDataPath } from '../src/net/data-path.ts';
import { formatMac, macHigh, macLow, parseMac } from '../src/net/mac.ts';
import { PortPolicy } from '../src/net/policy.ts';
import { Switch } from '../src/net/switch.ts';
import { PollLoop } from '../src/os/poll-loop.ts';
import { IXGBE_CTRL_RESET, IXGBE_QUEUE_BYTES } from '../src/spec/ixgbe.ts';
import * as spec from '../src/spec/ixgbe-mailbox.ts';
import { Attack, type Place } from './ixgbe-attack.ts';
import { frame, GoodGuest } from './ixgbe-guest.ts';
import { Judge } from './ixgbe-judge.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const STEPS = 100;
const CANARY_BYTES = 4096;
const CANARY = 0xa5;
/** Pools of hostile guests: in both words of a set of pools. */
const POOLS = [0, 1, 40] as const;
/**
 * Guests with good drivers: two in no VLAN, two on ports of this one, and one that gets the frames of both
 * by asking for it.
 */
const VLAN = 10;
const GUESTS = [
  { pool: 2, vlan: 0 },
  { pool: 3, vlan: 0 },
  { pool: 33, vlan: VLAN },
  { pool: 34, vlan: VLAN },
  { pool: 35, vlan: 0 },
] as const;
const TRUNK = 4;
/** Their addresses as they are told, by pool. */
const NAMES = new Map<number, string>(GUESTS.map(({ pool }) => [pool, formatMac(mac(pool))]));
const BROADCAST = parseMac('ff:ff:ff:ff:ff:ff');
const GROUP = parseMac('01:00:5e:00:00:01');
const FAR = mac(0x99);
const GOOD = [mac(2), mac(3), mac(33), mac(34), mac(35)] as const;

const PLACE: Place = {
  transmit: (queue) => spec.IXGBE_VF_TX_QUEUES + IXGBE_QUEUE_BYTES * queue,
  receive: (queue) => spec.IXGBE_VF_RX_QUEUES + IXGBE_QUEUE_BYTES * queue,
  queues: 2,
  known: [
    spec.IXGBE_VF_CTRL,
    spec.IXGBE_VF_STATUS,
    spec.IXGBE_VF_LINKS,
    spec.IXGBE_VF_FRTIMER,
    spec.IXGBE_VF_EICR,
    spec.IXGBE_VF_EICS,
    spec.IXGBE_VF_EIMS,
    spec.IXGBE_VF_EIMC,
    spec.IXGBE_VF_EIAC,
    spec.IXGBE_VF_EIAM,
    spec.IXGBE_VF_IVAR,
    spec.IXGBE_VF_IVAR_MISC,
    spec.IXGBE_VF_EITR,
    spec.IXGBE_VF_RSCINT,
    spec.IXGBE_VF_PSRTYPE,
    spec.IXGBE_VF_MAILBOX,
    spec.IXGBE_VF_MAILBOX_MEMORY,
    spec.IXGBE_VF_GPRC,
    spec.IXGBE_VF_GOTCH,
  ],
  io: undefined,
};

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);

function mac(last: number): Uint8Array {
  return parseMac(`52:54:00:00:00:${last.toString(16).padStart(2, '0')}`);
}

function newCard(name: string, address: Uint8Array): IxgbeCard {
  return new IxgbeCard({ name, path, mode: 'sriov', port: 0, mac: address, link: 'none' });
}

/** A port with good guests, and one behind its wire. */
class Port {
  readonly lan = new Switch('lan', path);
  readonly card = newCard('nic0/0', mac(0x90));
  readonly judge: Judge;
  readonly guests: readonly GoodGuest[];
  readonly far: GoodGuest;
  /** Of a guest that takes functions over. */
  readonly memory: GoodGuest['memory'];

  constructor() {
    this.judge = new Judge(this.card, this.lan);
    this.lan.addPort(this.card, new PortPolicy({}, 0));
    const farCard = newCard('nic1/0', mac(0x91));
    farCard.owner = this.lan;
    this.lan.addPort(farCard, new PortPolicy({}, 0));
    this.far = new GoodGuest(farCard.createVf(0, { mac: formatMac(FAR) }), arena, FAR);
    this.guests = GUESTS.map(({ pool, vlan }) => {
      const address = mac(pool);
      const settings: VfChange = { mac: formatMac(address), vlan, state: 'enable' };
      const vf = this.card.createVf(pool, settings);
      vf.uplink = this.judge.watch(vf);
      return new GoodGuest(vf, arena, address);
    });
    const { driver } = this.guest(TRUNK);
    assert.ok(driver instanceof IxgbevfDriver && driver.setVlan(VLAN, true));
    const gone = new GoodGuest(farCard.createVf(1, { mac: formatMac(mac(1)) }), arena, mac(1));
    this.memory = gone.memory;
    gone.close();
    farCard.removeVf(1).close();
  }

  guest(index: number): GoodGuest {
    return this.guests[index] ?? assert.fail();
  }

  /** The good guests reach each other. Returns all that came to them. */
  check(): Buffer[] {
    const got = [
      ...this.guest(0).reach(this.guest(1)),
      ...this.guest(3).reach(this.guest(2)),
      ...this.guest(TRUNK).received(),
      ...this.far.received(),
    ];
    for (const index of [0, 2]) this.guest(index).send(frame(BROADCAST, this.guest(index).mac));
    for (const { device } of this.guests) this.judge.checkCounters(device as VirtualFunction, true);
    return got;
  }
}

let port: Port | undefined;

/** One hostile guest on a function. */
class Rig {
  readonly random: Random;
  readonly port: Port;
  readonly pool: number;
  readonly mac: Uint8Array;
  readonly vf: VirtualFunction;
  readonly attack: Attack;

  constructor(random: Random, beside: Port, pool: number, isForeign: (at: number) => boolean) {
    this.random = random;
    this.port = beside;
    this.pool = pool;
    this.mac = mac(0x40 + pool);
    const own = random.oneIn(3) ? { mac: formatMac(this.mac) } : {};
    this.vf = beside.card.createVf(pool, own, this.mac);
    const sink = beside.judge.watch(this.vf);
    const all = [...GOOD, FAR, GROUP, BROADCAST, this.mac, mac(0x40)] as const;
    const friend = random.pick(all);
    this.attack = new Attack({
      random,
      arena,
      loop,
      device: this.vf,
      place: PLACE,
      addresses: {
        to: () => (random.oneIn(2) ? friend : random.pick(all)),
        from: () => {
          const { address } = beside.card.describeVf(pool);
          if (address === undefined || random.oneIn(6))
            return random.pick([this.mac, GOOD[0], FAR]);
          return parseMac(address);
        },
      },
      begin: () => this.start(),
      isForeign: (at) => beside.guests.some((guest) => guest.owns(at)) || isForeign(at),
    });
    this.vf.uplink = this.attack.watch(sink);
    for (let n = random.below(4); n >= 0; n--) this.policy();
  }

  start(): void {
    const { random, attack } = this;
    const { bus } = attack;
    attack.start();
    if (!random.oneIn(3)) this.greet();
    if (random.oneIn(2)) bus.write(0, spec.IXGBE_VF_EIMS, 4, random.u32());
    if (random.oneIn(2))
      bus.write(0, spec.IXGBE_VF_IVAR, 4, random.oneIn(2) ? 0x8180 : random.u32());
    if (random.oneIn(4)) bus.write(0, spec.IXGBE_VF_PSRTYPE, 4, random.u32());
  }

  /** Makes itself known as a driver does, so that it may ask. */
  greet(): void {
    this.#ask(spec.IXGBE_VF_RESET);
    this.#ask(spec.IXGBE_VF_API_NEGOTIATE, this.random.below(9));
  }

  /** Asks for something, by the rules of the mailbox. */
  ask(): void {
    const { random } = this;
    const address = random.pick([this.mac, GOOD[0], GOOD[2], mac(0x50 + random.below(20)), GROUP]);
    const pair = [macLow(address) >>> 0, macHigh(address)] as const;
    const vlan = random.pick([VLAN, 20, 0, random.below(4096)]);
    const info = (value: number): number => value << spec.IXGBE_MESSAGE_INFO_SHIFT;
    random.pick<() => void>([
      () => this.#ask(spec.IXGBE_VF_SET_MAC, ...pair),
      () => this.#ask(spec.IXGBE_VF_SET_MACVLAN | info(random.below(3)), ...pair),
      () => this.#ask(spec.IXGBE_VF_SET_VLAN | info(random.below(2)), vlan),
      () => this.#ask(spec.IXGBE_VF_SET_MULTICAST | info(random.below(40)), random.u32()),
      () => this.#ask(spec.IXGBE_VF_SET_LPE, random.oneIn(2) ? 9000 : random.nasty(16)),
      () => this.#ask(spec.IXGBE_VF_UPDATE_XCAST_MODE, random.below(5)),
      () => this.#ask(random.below(0x14), random.nasty(32)),
    ])();
  }

  /** Half a message, many of them, or bits of the mailbox that say nothing. */
  flood(): void {
    const { random } = this;
    const { bus } = this.attack;
    for (let n = random.oneIn(8) ? 200 : random.below(8); n >= 0; n--) {
      const word = spec.IXGBE_VF_MAILBOX_MEMORY + 4 * random.below(17);
      if (!random.oneIn(4))
        bus.write(0, word, 4, random.oneIn(2) ? random.below(20) : random.u32());
      bus.write(0, spec.IXGBE_VF_MAILBOX, 4, random.oneIn(2) ? random.below(256) : 1);
      if (random.oneIn(2)) bus.read(0, spec.IXGBE_VF_MAILBOX, 4);
    }
  }

  /** A neighbour sends it something, or somebody behind the wire. */
  incoming(): void {
    const { random, port: beside } = this;
    const from = random.pick([beside.guest(0), beside.guest(2), beside.far]);
    const to = random.pick([this.mac, this.mac, BROADCAST, GROUP]);
    const sent = frame(to, from.mac, random.pick([60, 100, 1514, 16 + random.below(1499)]));
    if (from === beside.far && random.oneIn(2)) {
      sent.writeUInt32BE(0x8100_0000 + random.pick([0, VLAN, 20, 0xe014]), 12);
    }
    for (let n = random.below(6); n >= 0; n--) from.send(sent);
  }

  /** The administrator has other ideas; what contradicts itself is refused. */
  policy(): void {
    const { random, port: beside, pool } = this;
    const change: VfChange = random.pick<VfChange>([
      { vlan: random.pick([0, VLAN, 20]) },
      { vlan: VLAN, qos: random.below(8) },
      { trust: random.oneIn(2) },
      { mac: formatMac(random.oneIn(2) ? this.mac : mac(0x70 + pool)) },
      { spoofchk: !random.oneIn(4) },
      { state: random.pick(['auto', 'enable', 'disable']) },
      { max_tx_rate: random.pick([0, 1, 1, 1000]) },
      { min_tx_rate: random.pick([0, 1, 100]) },
      { query_rss: random.oneIn(2) },
    ]);
    if (change.max_tx_rate !== undefined) beside.judge.changed(this.vf);
    try {
      beside.card.setVf(pool, change);
    } catch (error) {
      assert.ok(error instanceof SluiceError && error.code === 'config', String(error));
    }
    const before = beside.card.describeVf(pool);
    const theirs: VfChange = { mac: formatMac(GOOD[0]), vlan: 0 };
    assert.throws(() => beside.card.setVf(pool, theirs), /vf2 and nic0\/0\/vf\d+ both have/);
    assert.deepEqual(beside.card.describeVf(pool), before, 'half of a refused change was made');
  }

  /** Traffic is copied to this function, or not any more. */
  mirror(): void {
    const { random, port: beside, pool } = this;
    const { mirrored } = beside.judge;
    const rule = random.pick<Omit<MirrorRule, 'to'>>([
      { uplink: true },
      { downlink: true },
      { pools: [2] },
      { vlans: [0, VLAN] },
    ]);
    beside.card.setMirror(0, random.oneIn(2) ? undefined : { ...rule, to: pool });
    mirrored.clear();
    mirrored.add(pool);
  }

  check(): void {
    const { card, judge } = this.port;
    this.attack.check();
    judge.checkCounters(this.vf, false);
    const is = card.describeVf(this.pool);
    const addresses = [is.address, ...is.macvlans];
    for (const { pool, vlan } of GUESTS) {
      const mayMeet = is.vlan === 0 || vlan === 0 || is.vlan === vlan;
      const isTheirs = mayMeet && addresses.includes(NAMES.get(pool));
      assert.ok(!isTheirs, `VF ${this.pool} has taken the address of another`);
    }
    if (is.mac !== undefined && !is.trust) {
      assert.deepEqual(addresses, [is.mac], `VF ${this.pool} has other addresses than its own`);
    }
    assert.ok(is.trust || is.mode === 'none' || is.mode === 'multicast', `mode ${is.mode}`);
  }

  /** A good driver finds a function that works. */
  takeOver(): void {
    const { vf, port: beside, attack } = this;
    attack.leave();
    beside.judge.changed(vf);
    beside.card.replaceVf(this.pool, { ...VF_DEFAULTS, mac: formatMac(this.mac), state: 'enable' });
    beside.judge.forget(vf);
    vf.uplink = beside.judge.watch(vf);
    const driver = new GoodGuest(vf, arena, this.mac, beside.memory);
    driver.reach(beside.guest(1));
    beside.guest(0).reach(driver);
    driver.close();
    this.remove();
  }

  remove(): void {
    const { card, judge } = this.port;
    card.setMirror(0, undefined);
    judge.mirrored.clear();
    judge.forget(this.vf);
    card.removeVf(this.pool).close();
    this.attack.guest.check();
    this.attack.guest.close();
  }

  #ask(...words: readonly number[]): void {
    const { bus } = this.attack;
    for (const [i, word] of words.entries()) {
      bus.write(0, spec.IXGBE_VF_MAILBOX_MEMORY + 4 * i, 4, word);
    }
    bus.write(0, spec.IXGBE_VF_MAILBOX, 4, spec.IXGBE_VFMAILBOX_REQUEST);
    bus.write(0, spec.IXGBE_VF_MAILBOX, 4, spec.IXGBE_VFMAILBOX_ACK);
  }
}

function step(rig: Rig): void {
  const { random, attack, port: beside } = rig;
  random.pick<() => void>([
    () => attack.transmit(),
    () => attack.transmit(),
    () => attack.transmit(),
    () => attack.transmit(),
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
      for (let n = random.below(4); n >= 0; n--) rig.ask();
    },
    () => rig.flood(),
    () => {
      if (random.oneIn(3)) rig.start();
    },
    () => {
      if (random.oneIn(2)) attack.blast();
    },
    () => {
      if (random.oneIn(2)) rig.policy();
    },
    () => {
      if (random.oneIn(6)) rig.mirror();
      else if (random.oneIn(5)) beside.card.setLink(random.oneIn(2));
    },
    () => {
      if (random.oneIn(6)) attack.functionReset();
      else if (random.oneIn(5)) attack.bus.write(0, spec.IXGBE_VF_CTRL, 4, IXGBE_CTRL_RESET);
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
  port ??= new Port();
  const beside = port;
  const canary = arena.allocate(CANARY_BYTES);
  arena.bytes.fill(CANARY, canary, canary + CANARY_BYTES);
  const rigs: Rig[] = [];
  const plug = (pool: number): Rig => {
    const rig: Rig = new Rig(random, beside, pool, (at) =>
      rigs.some((other) => other !== rig && other.attack.guest.owns(at)),
    );
    if (!random.oneIn(6)) rig.start();
    return rig;
  };
  for (const pool of POOLS.slice(0, 1 + random.below(POOLS.length))) rigs.push(plug(pool));
  const checkGood = (): void => {
    for (const bytes of beside.check()) {
      for (const { attack } of rigs) attack.guest.checkPublic(bytes, 'a frame');
    }
  };
  for (let i = 0; i < STEPS; i++) {
    const index = random.below(rigs.length);
    let rig = rigs[index] ?? assert.fail();
    if (random.oneIn(STEPS)) {
      rig.attack.leave();
      rig.remove();
      rig = plug(rig.pool);
      rigs[index] = rig;
    }
    step(rig);
    if (random.oneIn(2)) rig.attack.turn();
    rig.check();
    if (!random.oneIn(10)) continue;
    for (const one of rigs) one.check();
    checkGood();
  }
  beside.card.setLink(true);
  for (const { attack } of rigs) attack.checkIdle();
  for (const one of rigs) one.check();
  checkGood();
  for (const one of rigs) one.takeOver();
  assert.ok(
    arena.bytes.subarray(canary, canary + CANARY_BYTES).every((byte) => byte === CANARY),
    'memory beside the guests was written',
  );
  arena.unmap(canary, CANARY_BYTES);
}

export const ixgbevf: FuzzTarget = { name: 'ixgbevf', run };
