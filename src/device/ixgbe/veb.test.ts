import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { macHigh, macLow, parseMac } from '../../net/mac.ts';
import { IXGBE_POOLS, IXGBE_RECEIVE_ADDRESSES } from '../../spec/ixgbe.ts';
import { MANY, type MirrorRule, NOBODY, VEB_VLANS, Veb, WIRE } from './veb.ts';

const SEED = 0x1234_5678;

interface Station {
  readonly low: number;
  readonly high: number;
}

function station(text: string): Station {
  const bytes = parseMac(text);
  return { low: macLow(bytes), high: macHigh(bytes) };
}

const A = station('52:54:00:00:00:0a');
const B = station('52:54:00:00:00:0b');
const FAR = station('52:54:00:00:00:ff');
const ALL = station('ff:ff:ff:ff:ff:ff');
const GROUP = station('01:00:5e:00:00:fb');

/** Bits 47:36, as the card hashes. */
const hashOf = ({ high }: Station): number => (high >>> 4) & 0xfff;

/** A switch with pools that receive what has no tag, and broadcasts. */
function vebWith(...pools: number[]): Veb {
  const veb = new Veb(SEED);
  for (const pool of pools) {
    veb.setFlag(pool, 'receive', true);
    veb.setFlag(pool, 'untagged', true);
    veb.setFlag(pool, 'broadcast', true);
  }
  return veb;
}

/** Pools and wire that a frame goes to, whatever shape the answer has. */
function places(veb: Veb, from: number, { low, high }: Station, vlan = 0): number[] {
  const answer = veb.route(from, low, high, vlan);
  if (answer === NOBODY) return [];
  if (answer !== MANY) return [answer];
  const pools = Array.from({ length: IXGBE_POOLS }, (_, pool) => pool).filter(
    (pool) => (((veb.targets[pool >>> 5] as number) >>> (pool & 31)) & 1) === 1,
  );
  return veb.toWire ? [...pools, WIRE] : pools;
}

test('a unicast goes to the pool that has its address, and nowhere else', () => {
  const veb = vebWith(1, 33);
  assert.ok(veb.addAddress(A.low, A.high, 1));
  assert.ok(veb.addAddress(B.low, B.high, 33));
  assert.equal(veb.route(1, B.low, B.high, 0), 33);
  assert.equal(veb.route(33, A.low, A.high, 0), 1);
  assert.equal(veb.route(WIRE, A.low, A.high, 0), 1);
  assert.equal(veb.route(1, B.low | 0, B.high, 0), 33, 'signed as well');
});

test('what no pool has goes to the wire, and from the wire to nobody', () => {
  const veb = vebWith(1);
  veb.addAddress(A.low, A.high, 1);
  assert.equal(veb.route(1, FAR.low, FAR.high, 0), WIRE);
  assert.equal(veb.route(WIRE, FAR.low, FAR.high, 0), NOBODY);
});

test('a pool gets nothing of what it sends itself', () => {
  const veb = vebWith(1, 2);
  veb.addAddress(A.low, A.high, 1);
  assert.deepEqual(places(veb, 1, ALL), [2, WIRE]);
  assert.deepEqual(places(veb, 1, A), [WIRE]);
});

test('a broadcast from the wire goes to all pools that take broadcasts', () => {
  const veb = vebWith(0, 31, 32, 62);
  veb.setFlag(32, 'broadcast', false);
  assert.deepEqual(places(veb, WIRE, ALL), [0, 31, 62]);
});

test('multicasts go by hash, and to who takes all of them', () => {
  const veb = vebWith(1, 2, 3, 4);
  veb.setFlag(1, 'multicast', true);
  veb.addMulticast(hashOf(GROUP), 1);
  veb.addMulticast(hashOf(GROUP), 4);
  veb.setFlag(2, 'allMulticast', true);
  assert.deepEqual(places(veb, 3, GROUP), [1, 2, WIRE], 'pool 4 has the hash without the mode');
  veb.clearMulticast(1);
  assert.deepEqual(places(veb, 3, GROUP), [2, WIRE]);
});

test('a promiscuous pool sees the unicasts of its VLANs', () => {
  const veb = vebWith(1, 2, 3);
  veb.addAddress(B.low, B.high, 2);
  veb.setFlag(3, 'promiscuous', true);
  assert.deepEqual(places(veb, 1, B), [2, 3]);
  assert.deepEqual(places(veb, WIRE, FAR), [3]);
  assert.deepEqual(places(veb, 1, FAR), [3, WIRE]);
  veb.setFlag(3, 'untagged', false);
  assert.deepEqual(places(veb, 1, B), [2]);
});

test('a frame of a VLAN reaches its members only', () => {
  const veb = vebWith(1, 2, 3);
  for (const { low, high } of [A, B]) veb.addAddress(low, high, 2);
  veb.addVlan(10, 2);
  veb.addVlan(10, 3);
  assert.equal(veb.route(1, B.low, B.high, 10), 2);
  assert.equal(veb.route(1, B.low, B.high, 11), WIRE, 'of no pool');
  assert.equal(veb.route(WIRE, B.low, B.high, 11), NOBODY);
  assert.deepEqual(places(veb, 1, ALL, 10), [2, 3, WIRE]);
  veb.removeVlan(10, 2);
  assert.equal(veb.route(1, B.low, B.high, 10), WIRE, 'the address is not of this VLAN any more');
  assert.deepEqual(veb.vlansOf(3), [10]);
});

test('a pool that does not receive swallows what is for it', () => {
  const veb = vebWith(1, 2);
  veb.addAddress(B.low, B.high, 2);
  veb.setFlag(2, 'receive', false);
  assert.equal(veb.route(1, B.low, B.high, 0), NOBODY);
  assert.deepEqual(places(veb, 1, ALL), [WIRE]);
});

test('two pools may have one address: both get its frames', () => {
  const veb = vebWith(1, 2, 3);
  veb.addAddress(A.low, A.high, 1);
  veb.addAddress(A.low, A.high, 2);
  assert.deepEqual(places(veb, 3, A), [1, 2]);
  veb.removeAddress(A.low, A.high, 1);
  assert.equal(veb.route(3, A.low, A.high, 0), 2);
});

test('sources are checked against the addresses and VLANs of the pool', () => {
  const veb = vebWith(1, 2);
  veb.addAddress(A.low, A.high, 1);
  assert.ok(veb.allowsSource(1, B.low, B.high), 'not asked for');
  veb.setFlag(1, 'checkMac', true);
  veb.setFlag(1, 'checkVlan', true);
  assert.ok(veb.allowsSource(1, A.low, A.high));
  assert.ok(!veb.allowsSource(1, B.low, B.high));
  veb.addAddress(B.low, B.high, 2);
  assert.ok(!veb.allowsSource(1, B.low, B.high), 'of another pool');
  assert.ok(veb.allowsVlan(1, 0));
  assert.ok(!veb.allowsVlan(1, 10));
  veb.addVlan(10, 1);
  assert.ok(veb.allowsVlan(1, 10));
  veb.setFlag(1, 'untagged', false);
  assert.ok(!veb.allowsVlan(1, 0));
});

test('the address table has an end, and its places are used again', () => {
  const veb = vebWith(1);
  for (let i = 0; i < IXGBE_RECEIVE_ADDRESSES; i++) assert.ok(veb.addAddress(2 * i, i, 1));
  assert.ok(!veb.addAddress(A.low, A.high, 1));
  assert.ok(veb.addAddress(0, 0, 2), 'one that is there takes another pool');
  assert.equal(veb.addressCount, IXGBE_RECEIVE_ADDRESSES);
  veb.removeAddress(6, 3, 1);
  assert.ok(veb.addAddress(A.low, A.high, 1));
  for (let i = 0; i < IXGBE_RECEIVE_ADDRESSES; i++) {
    assert.equal(veb.route(WIRE, 2 * i, i, 0), i === 3 ? NOBODY : 1, `address ${i}`);
  }
});

test('guests fill the VLAN table up to its end, ports have their place beside', () => {
  const veb = vebWith(1);
  for (let i = 1; i <= VEB_VLANS; i++) assert.ok(veb.addVlan(i, 1));
  assert.ok(!veb.addVlan(1000, 1));
  assert.ok(veb.addVlan(5, 2), 'an entry that is there');
  assert.ok(veb.addVlan(1000, 3, true));
  veb.removeVlan(7, 1);
  assert.ok(!veb.addVlan(1001, 1), 'one of a port counts');
  veb.removeVlan(1000, 3);
  assert.ok(veb.addVlan(1001, 1));
});

test('mirroring rules copy what a pool receives, what comes and goes by the wire, and a VLAN', () => {
  const rules: [MirrorRule, number, Station, number, number[]][] = [
    [{ pools: [2], to: 9 }, 1, B, 0, [2, 9]],
    [{ pools: [3], to: 9 }, 1, B, 0, [2]],
    [{ uplink: true, to: 9 }, WIRE, B, 0, [2, 9]],
    [{ uplink: true, to: 9 }, WIRE, FAR, 0, [9]],
    [{ uplink: true, to: 9 }, 1, B, 0, [2]],
    [{ downlink: true, to: 9 }, 1, FAR, 0, [9, WIRE]],
    [{ downlink: true, to: 9 }, 1, B, 0, [2]],
    [{ vlans: [10], to: 9 }, 1, FAR, 10, [9, WIRE]],
    [{ vlans: [10], to: 9 }, 1, FAR, 11, [WIRE]],
    [{ vlans: [0], to: 40 }, 1, B, 0, [2, 40]],
    [{ downlink: true, to: 1 }, 1, FAR, 0, [WIRE]],
  ];
  for (const [rule, from, to, vlan, expected] of rules) {
    const veb = vebWith(1, 2, 3, 9, 40);
    veb.addAddress(B.low, B.high, 2);
    veb.setMirror(3, rule);
    assert.deepEqual(places(veb, from, to, vlan), expected, JSON.stringify(rule));
    veb.setMirror(3, undefined);
    assert.ok(!places(veb, from, to, vlan).includes(9));
  }
});

test('a pool that is cleared leaves nothing behind', () => {
  const veb = vebWith(1, 2);
  veb.addAddress(A.low, A.high, 1);
  veb.addVlan(10, 1);
  veb.setFlag(1, 'multicast', true);
  veb.addMulticast(hashOf(GROUP), 1);
  veb.clearPool(1);
  assert.deepEqual(places(veb, 2, ALL), [WIRE]);
  assert.equal(veb.addressCount, 0);
  assert.deepEqual(veb.vlansOf(1), []);
  for (const flag of ['receive', 'untagged', 'broadcast', 'multicast'] as const) {
    veb.setFlag(1, flag, true);
  }
  assert.deepEqual(places(veb, 2, GROUP), [WIRE]);
});

test('each change of the tables is seen by who keeps answers', () => {
  const veb = vebWith(1);
  const changes: (() => unknown)[] = [
    () => veb.addAddress(A.low, A.high, 1),
    () => veb.removeAddress(A.low, A.high, 1),
    () => veb.addVlan(10, 1),
    () => veb.removeVlan(10, 1),
    () => veb.addMulticast(1, 1),
    () => veb.clearMulticast(1),
    () => veb.setFlag(1, 'promiscuous', true),
    () => veb.setMirror(0, { uplink: true, to: 1 }),
  ];
  for (const change of changes) {
    const before = veb.generation;
    change();
    assert.notEqual(veb.generation, before, String(change));
  }
});

/** A switch with sets and loops: what {@link Veb} is to answer. */
class Oracle {
  readonly flags = new Map<string, Set<number>>();
  readonly addresses: { readonly key: string; readonly pool: number }[] = [];
  readonly vlans: { readonly vlan: number; readonly pool: number }[] = [];
  readonly hashes: { readonly hash: number; readonly pool: number }[] = [];
  mirror: MirrorRule | undefined;

  has(flag: string, pool: number): boolean {
    return this.flags.get(flag)?.has(pool) === true;
  }

  set(flag: string, pool: number, on: boolean): void {
    const pools = this.flags.get(flag) ?? new Set();
    if (on) pools.add(pool);
    else pools.delete(pool);
    this.flags.set(flag, pools);
  }

  inVlan(pool: number, vlan: number): boolean {
    if (vlan === 0) return this.has('untagged', pool);
    return this.vlans.some((one) => one.vlan === vlan && one.pool === pool);
  }

  places(from: number, to: Station, vlan: number): number[] {
    const key = `${to.low},${to.high}`;
    const isGroup = (to.low & 1) === 1;
    const isAll = to.low === ALL.low && to.high === ALL.high;
    const exact: number[] = [];
    const wanted: number[] = [];
    for (let pool = 0; pool < IXGBE_POOLS; pool++) {
      if (pool === from || !this.inVlan(pool, vlan)) continue;
      const owns = this.addresses.some((one) => one.key === key && one.pool === pool);
      if (!isGroup && owns) exact.push(pool);
      const takes = isAll
        ? this.has('broadcast', pool)
        : isGroup
          ? this.has('allMulticast', pool) ||
            (this.has('multicast', pool) &&
              this.hashes.some((one) => one.pool === pool && one.hash === hashOf(to)))
          : owns || this.has('promiscuous', pool);
      if (takes) wanted.push(pool);
    }
    const toWire = from !== WIRE && exact.length === 0;
    const { mirror } = this;
    if (mirror !== undefined && mirror.to !== from && !wanted.includes(mirror.to)) {
      const copied =
        wanted.some((pool) => mirror.pools?.includes(pool)) ||
        (mirror.uplink === true && from === WIRE) ||
        (mirror.downlink === true && toWire) ||
        mirror.vlans?.includes(vlan) === true;
      if (copied) wanted.push(mirror.to);
    }
    const pools = wanted.filter((pool) => this.has('receive', pool)).sort((a, b) => a - b);
    return toWire ? [...pools, WIRE] : pools;
  }
}

test('answers as sets and loops do, whatever was changed before', () => {
  const pools = fc.constantFrom(0, 1, 31, 32, 33, 62);
  const stations = fc.constantFrom(A, B, FAR, ALL, GROUP, station('03:00:00:00:12:34'));
  const vlans = fc.constantFrom(0, 10, 11, 4094);
  const flags = fc.constantFrom(
    ...(['receive', 'untagged', 'broadcast', 'multicast', 'allMulticast', 'promiscuous'] as const),
  );
  const rule = fc.record(
    {
      pools: fc.array(pools, { maxLength: 2 }),
      uplink: fc.boolean(),
      downlink: fc.boolean(),
      vlans: fc.array(vlans, { maxLength: 2 }),
      to: pools,
    },
    { requiredKeys: ['to'] },
  );
  const step = fc.oneof(
    fc.record({ kind: fc.constant('flag' as const), flag: flags, pool: pools, on: fc.boolean() }),
    fc.record({
      kind: fc.constant('address' as const),
      to: stations,
      pool: pools,
      on: fc.boolean(),
    }),
    fc.record({
      kind: fc.constant('vlan' as const),
      vlan: fc.constantFrom(10, 11, 4094),
      pool: pools,
      on: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('hash' as const), to: stations, pool: pools }),
    fc.record({ kind: fc.constant('mirror' as const), rule: fc.option(rule, { nil: undefined }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.integer(), (steps, seed) => {
      const veb = new Veb(seed);
      const oracle = new Oracle();
      for (const pool of [0, 1, 31, 32]) {
        for (const flag of ['receive', 'untagged', 'broadcast'] as const) {
          veb.setFlag(pool, flag, true);
          oracle.set(flag, pool, true);
        }
      }
      for (const one of steps) change(veb, oracle, one);
      for (const from of [0, 32, 62, WIRE]) {
        for (const to of [A, B, FAR, ALL, GROUP]) {
          for (const vlan of [0, 10, 12]) {
            assert.deepEqual(places(veb, from, to, vlan), oracle.places(from, to, vlan));
          }
        }
      }
    }),
    { numRuns: 300 },
  );
});

type Change =
  | { kind: 'flag'; flag: Parameters<Veb['setFlag']>[1]; pool: number; on: boolean }
  | { kind: 'address'; to: Station; pool: number; on: boolean }
  | { kind: 'vlan'; vlan: number; pool: number; on: boolean }
  | { kind: 'hash'; to: Station; pool: number }
  | { kind: 'mirror'; rule: MirrorRule | undefined };

function change(veb: Veb, oracle: Oracle, one: Change): void {
  switch (one.kind) {
    case 'flag':
      veb.setFlag(one.pool, one.flag, one.on);
      oracle.set(one.flag, one.pool, one.on);
      return;
    case 'address': {
      const { low, high } = one.to;
      const at = oracle.addresses.findIndex(
        ({ key, pool }) => key === `${low},${high}` && pool === one.pool,
      );
      if (at >= 0) oracle.addresses.splice(at, 1);
      if (one.on) {
        veb.addAddress(low, high, one.pool);
        oracle.addresses.push({ key: `${low},${high}`, pool: one.pool });
      } else veb.removeAddress(low, high, one.pool);
      return;
    }
    case 'vlan': {
      const at = oracle.vlans.findIndex(({ vlan, pool }) => vlan === one.vlan && pool === one.pool);
      if (at >= 0) oracle.vlans.splice(at, 1);
      if (one.on) {
        veb.addVlan(one.vlan, one.pool);
        oracle.vlans.push({ vlan: one.vlan, pool: one.pool });
      } else veb.removeVlan(one.vlan, one.pool);
      return;
    }
    case 'hash':
      veb.addMulticast(hashOf(one.to), one.pool);
      oracle.hashes.push({ hash: hashOf(one.to), pool: one.pool });
      return;
    case 'mirror':
      veb.setMirror(1, one.rule);
      oracle.mirror = one.rule;
  }
}
