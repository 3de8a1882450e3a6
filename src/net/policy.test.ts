import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import { macHigh, macLow, parseMac } from './mac.ts';
import {
  EGRESS_DROP,
  EGRESS_TAGGED,
  EGRESS_UNTAGGED,
  INGRESS_DROP,
  PortPolicy,
  type PortPolicyOptions,
  UNTAGGED,
} from './policy.ts';

const policy = (options: PortPolicyOptions): PortPolicy => new PortPolicy(options, 0);
const PRIORITY_5 = 5 << 13;

test('a port without VLANs carries all of them as they come', () => {
  const port = policy({});
  assert.equal(port.transparent, true);
  assert.equal(port.ingress(UNTAGGED), 0);
  assert.equal(port.ingress(4094), 4094);
  assert.equal(port.ingress(PRIORITY_5 | 10), PRIORITY_5 | 10);
  assert.equal(port.egress(0), EGRESS_UNTAGGED);
  assert.equal(port.egress(10), EGRESS_TAGGED);
});

test('an access port is in one VLAN and knows no tags', () => {
  const port = policy({ vlan: 10 });
  assert.equal(port.transparent, false);
  assert.equal(port.ingress(UNTAGGED), 10);
  assert.equal(port.ingress(10), INGRESS_DROP);
  assert.equal(port.ingress(20), INGRESS_DROP);
  assert.equal(port.ingress(PRIORITY_5), PRIORITY_5 | 10);
  assert.equal(port.egress(10), EGRESS_UNTAGGED);
  assert.equal(port.egress(0), EGRESS_DROP);
  assert.equal(port.egress(11), EGRESS_DROP);
});

test('a trunk carries what it lists, with tags', () => {
  const port = policy({ trunk: [10, 20] });
  assert.equal(port.ingress(UNTAGGED), INGRESS_DROP);
  assert.equal(port.ingress(PRIORITY_5), INGRESS_DROP);
  assert.equal(port.ingress(20), 20);
  assert.equal(port.ingress(30), INGRESS_DROP);
  assert.equal(port.egress(10), EGRESS_TAGGED);
  assert.equal(port.egress(30), EGRESS_DROP);
  assert.equal(port.egress(0), EGRESS_DROP);
  assert.equal(policy({ trunk: [0, 10] }).ingress(UNTAGGED), 0);
  assert.equal(policy({ trunk: [0, 10] }).egress(0), EGRESS_UNTAGGED);
});

test('a trunk with a native VLAN takes frames without tag into it', () => {
  const port = policy({ vlan: 1, trunk: [10] });
  assert.equal(port.ingress(UNTAGGED), 1);
  assert.equal(port.ingress(1), 1);
  assert.equal(port.ingress(10), 10);
  assert.equal(port.egress(1), EGRESS_UNTAGGED);
  assert.equal(port.egress(10), EGRESS_TAGGED);
  const tagged = policy({ vlan: 1, trunk: [10], nativeTagged: true });
  assert.equal(tagged.ingress(UNTAGGED), 1);
  assert.equal(tagged.egress(1), EGRESS_TAGGED);
});

test('the reserved VLAN id 4095 is not carried by a port with a list', () => {
  assert.equal(policy({ trunk: [10] }).ingress(4095), INGRESS_DROP);
  assert.equal(policy({}).ingress(4095), INGRESS_DROP);
});

test('qos is the priority of frames without tag', () => {
  assert.equal(policy({ vlan: 10, qos: 5 }).ingress(UNTAGGED), PRIORITY_5 | 10);
});

test('what goes in by one port of a VLAN comes out by another of the same VLAN only', () => {
  const vlan = fc.integer({ min: 1, max: 4094 });
  const options: fc.Arbitrary<PortPolicyOptions> = fc.oneof(
    fc.record({ vlan }),
    fc.record({ trunk: fc.array(vlan, { maxLength: 10 }) }),
    fc.record({ vlan, trunk: fc.array(vlan, { maxLength: 10 }), nativeTagged: fc.boolean() }),
  );
  fc.assert(
    fc.property(options, options, fc.integer({ min: -1, max: 0xffff }), (from, to, tci) => {
      const carried = (o: PortPolicyOptions) => new Set([...(o.trunk ?? []), o.vlan ?? -1]);
      const frame = policy(from).ingress(tci);
      const tagged = tci !== UNTAGGED && (tci & 0xfff) !== 0;
      const id = tagged ? tci & 0xfff : (from.vlan ?? 0);
      const mayEnter = carried(from).has(id) && (!tagged || from.trunk !== undefined);
      assert.equal(frame !== INGRESS_DROP, mayEnter);
      if (frame === INGRESS_DROP) return;
      assert.equal(frame & 0xfff, id);
      if (tci !== UNTAGGED) assert.equal(frame >> 12, tci >> 12);
      const out = policy(to).egress(id);
      assert.equal(out !== EGRESS_DROP, carried(to).has(id));
      if (out === EGRESS_TAGGED) assert.ok(to.trunk !== undefined);
    }),
  );
});

test('the spoof check passes the port its own address only', () => {
  const mac = parseMac('fe:00:00:00:00:01');
  const port = policy({ mac, spoofchk: true });
  assert.equal(port.allowsSource(macLow(mac), macHigh(mac)), true);
  assert.equal(port.allowsSource(macLow(mac), macHigh(mac) ^ 1), false);
  assert.equal(port.allowsSource(macLow(mac) - 1, macHigh(mac)), false);
  assert.equal(policy({ mac }).allowsSource(1, 1), true);
});

test('limits are made from rates, none from zero', () => {
  const port = policy({ maxTxRate: 100, maxRxRate: 0 });
  assert.equal(port.txLimit?.rate, 100e6);
  assert.equal(port.rxLimit, undefined);
});

test('wrong values are refused and named', () => {
  const wrong: readonly [PortPolicyOptions, RegExp][] = [
    [{ vlan: 0 }, /0 is not a VLAN id/],
    [{ vlan: 4095 }, /4095 is not a VLAN id/],
    [{ trunk: [10, -1] }, /-1 is not a VLAN id/],
    [{ trunk: [1.5] }, /1.5 is not a VLAN id/],
    [{ vlan: 1, qos: 8 }, /8 is not a VLAN priority/],
    [{ spoofchk: true }, /spoofchk/],
    [{ mac: parseMac('01:00:00:00:00:00') }, /multicast/],
    [{ maxTxRate: -5 }, /rate/],
  ];
  for (const [options, message] of wrong) {
    assert.throws(
      () => policy(options),
      (error) =>
        error instanceof SluiceError && error.code === 'config' && message.test(error.message),
    );
  }
});
