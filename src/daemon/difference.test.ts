import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseConfig, placeOf } from './config.ts';
import {
  type Action,
  differenceOf,
  needs,
  type Part,
  partKey,
  partsOf,
  partTitle,
} from './difference.ts';
import { planLanes } from './lane-plan.ts';

function parts(text: string): Part[] {
  const config = parseConfig(text, 'f.yaml');
  return partsOf(config, planLanes(config));
}

function told(actions: readonly Action[]): string[] {
  return actions.map(({ verb, part }) => `${verb} ${partKey(part)}`);
}

/** The running parts after the actions, each checked to find what it stands on. */
function applied(running: readonly Part[], actions: readonly Action[]): Part[] {
  const now = [...running];
  const has = (key: string): boolean => now.some((part) => partKey(part) === key);
  for (const { verb, part } of actions) {
    const key = partKey(part);
    if (verb === 'add') {
      assert.ok(!has(key), `${key} is added twice`);
      if (part.kind === 'device')
        assert.ok(
          now.some(
            (other) =>
              other.kind === 'disk' &&
              other.name === part.guestDisk.disk &&
              other.lane === part.lane,
          ),
          `${key} has no disk`,
        );
      if (part.kind === 'port') assert.ok(has(needs(part)[0] ?? ''), `${key} has no place`);
      if (part.kind === 'nic-wire')
        assert.ok(needs(part).every(has), `${key} has not both of its ends`);
      if (part.kind === 'device' && part.guestDisk.method === 'emulated')
        assert.ok(has(`controller ${part.guestDisk.controller}`), `${key} has no controller`);
      if (part.kind === 'wire') assert.ok(has(`switch ${part.switch}`), `${key} has no switch`);
      if (part.kind === 'wire' && part.wire.kind === 'switch')
        assert.ok(has(`switch ${part.wire.switch}`), `${key} leads nowhere`);
      now.push(part);
    } else if (verb === 'change') {
      const at = now.findIndex((other) => partKey(other) === key);
      assert.ok(at >= 0, `${key} is changed and not there`);
      assert.equal(part.kind === 'port' && part.net.method, 'sriov', `${key} cannot change`);
      now[at] = part;
    } else {
      assert.ok(has(key), `${key} is removed and not there`);
      const name = part.name;
      if (part.kind === 'switch')
        assert.ok(
          !now.some(
            (other) =>
              (other.kind === 'port' && placeOf(other.net) === name) ||
              (other.kind === 'nic-wire' &&
                other.wire.kind === 'switch' &&
                other.wire.switch === name) ||
              (other.kind === 'wire' &&
                (other.switch === name ||
                  (other.wire.kind === 'switch' && other.wire.switch === name))),
          ),
          `${key} is still in use`,
        );
      if (part.kind === 'nic')
        assert.ok(
          !now.some(
            (other) =>
              (other.kind === 'port' && placeOf(other.net) === name) ||
              (other.kind === 'nic-wire' && other.name === name),
          ),
          `${key} is still in use`,
        );
      if (part.kind === 'controller')
        assert.ok(
          !now.some(
            (other) =>
              other.kind === 'device' &&
              other.guestDisk.method === 'emulated' &&
              other.guestDisk.controller === name,
          ),
          `${key} still has drives`,
        );
      if (part.kind === 'disk')
        assert.ok(
          !now.some(
            (other) =>
              other.kind === 'device' && other.guestDisk.disk === name && other.lane === part.lane,
          ),
          `${key} is still in use`,
        );
      now.splice(
        now.findIndex((other) => partKey(other) === key),
        1,
      );
    }
  }
  return now;
}

const BASE = `
switches: { lan: {}, wan: { wire: { tap: t0 } } }
guests:
  web: { net: [{ method: paravirtual, switch: lan }] }
  db: { net: [{ method: paravirtual, switch: lan, vlan: 10 }] }`;

test('from nothing, everything is added: switches, then wires, then ports', () => {
  assert.deepEqual(told(differenceOf([], parts(BASE))), [
    'add switch lan',
    'add switch wan',
    'add wire wan/wire',
    'add port web/net0',
    'add port db/net0',
  ]);
});

test('no change: nothing is done', () => {
  assert.deepEqual(differenceOf(parts(BASE), parts(BASE)), []);
});

test('a guest that comes and one that goes touch nobody else', () => {
  const next = BASE.replace('web:', 'new:');
  assert.deepEqual(told(differenceOf(parts(BASE), parts(next))), [
    'remove port web/net0',
    'add port new/net0',
  ]);
});

test('a changed port is replaced', () => {
  const next = BASE.replace('vlan: 10', 'vlan: 11');
  assert.deepEqual(told(differenceOf(parts(BASE), parts(next))), [
    'remove port db/net0',
    'add port db/net0',
  ]);
});

test('a changed wire does not touch the guests', () => {
  const next = BASE.replace('tap: t0', 'tap: t1');
  assert.deepEqual(told(differenceOf(parts(BASE), parts(next))), [
    'remove wire wan/wire',
    'add wire wan/wire',
  ]);
});

test('what stands on a changed switch is replaced with it', () => {
  const next = BASE.replace('lan: {}', 'lan: { ageing: 20 }');
  assert.deepEqual(told(differenceOf(parts(BASE), parts(next))), [
    'remove port db/net0',
    'remove port web/net0',
    'remove switch lan',
    'add switch lan',
    'add port web/net0',
    'add port db/net0',
  ]);
});

const WITH_DISKS = `
lanes: 2
disks: { root: { file: a.img }, spare: { memory: 1M }, cd: { file: b.iso, readonly: on } }
guests:
  web: { disk: [{ method: paravirtual, disk: root }, { method: paravirtual, disk: cd }] }
  db: { disk: [{ method: paravirtual, disk: cd }] }`;

test('disks come before their devices, in each lane that has a use for them; others do not come', () => {
  assert.deepEqual(told(differenceOf([], parts(WITH_DISKS))), [
    'add disk root in lane 0',
    'add disk cd in lane 0',
    'add disk cd in lane 1',
    'add device web/disk0',
    'add device web/disk1',
    'add device db/disk0',
  ]);
  assert.deepEqual(parts(WITH_DISKS).map(partTitle), [
    'disk root',
    'disk cd',
    'disk cd',
    'device web/disk0',
    'device web/disk1',
    'device db/disk0',
  ]);
});

test('a changed disk is replaced with its devices; a changed device alone', () => {
  const disk = WITH_DISKS.replace('file: a.img', 'file: a.img, iops: 100');
  assert.deepEqual(told(differenceOf(parts(WITH_DISKS), parts(disk))), [
    'remove device web/disk0',
    'remove disk root in lane 0',
    'add disk root in lane 0',
    'add device web/disk0',
  ]);
  const device = WITH_DISKS.replace('disk: root }', 'disk: root, queues: 2 }');
  assert.deepEqual(told(differenceOf(parts(WITH_DISKS), parts(device))), [
    'remove device web/disk0',
    'add device web/disk0',
  ]);
});

const WITH_DRIVES = `
disks: { a: { memory: 1M }, b: { memory: 1M } }
switches: { lan: {} }
guests:
  web:
    net: [{ method: emulated, model: 82574, switch: lan }]
    disk: [{ method: emulated, model: ahci, disk: a, port: 0 }, { method: emulated, model: ahci, disk: b, port: 1 }]`;

test('drives come after their controller; one that changes leaves it and the others alone', () => {
  assert.deepEqual(told(differenceOf([], parts(WITH_DRIVES))), [
    'add switch lan',
    'add disk a in lane 0',
    'add disk b in lane 0',
    'add port web/net0',
    'add controller web/ahci0',
    'add device web/ahci0.0',
    'add device web/ahci0.1',
  ]);
  const moved = WITH_DRIVES.replace('port: 1', 'port: 2');
  assert.deepEqual(told(differenceOf(parts(WITH_DRIVES), parts(moved))), [
    'remove device web/ahci0.1',
    'add device web/ahci0.2',
  ]);
  // A port behind the six that it has: another controller, and all its drives with it.
  const wide = WITH_DRIVES.replace('port: 1', 'port: 9');
  assert.deepEqual(told(differenceOf(parts(WITH_DRIVES), parts(wide))), [
    'remove device web/ahci0.1',
    'remove device web/ahci0.0',
    'remove controller web/ahci0',
    'add controller web/ahci0',
    'add device web/ahci0.0',
    'add device web/ahci0.9',
  ]);
  const model = WITH_DRIVES.replace('82574', '82540');
  assert.deepEqual(told(differenceOf(parts(WITH_DRIVES), parts(model))), [
    'remove port web/net0',
    'add port web/net0',
  ]);
});

test('the actions between any two configurations can be done in their order, and lead there', () => {
  const card = fc
    .record({
      switch: fc.constantFrom('a', 'b', 'c'),
      vlan: fc.constantFrom('', ', vlan: 5'),
      method: fc.constantFrom('paravirtual', 'emulated, model: 82574'),
    })
    .map((c) => `{ method: ${c.method}, switch: ${c.switch}${c.vlan} }`);
  const functions = fc.constantFrom(
    '',
    '{ method: direct, nic: n, port: 0 }',
    '{ method: sriov, nic: n, port: 0, vf: 1 }',
    '{ method: sriov, nic: n, port: 0, vf: 1, vlan: 7 }',
    '{ method: sriov, nic: n, port: 0, vf: 2 }, { method: sriov, nic: n, port: 1, vf: 1, trust: on }',
  );
  const nicWires = ['none', '{ switch: a }', '{ switch: c }', '{ tap: t9 }'];
  const text = fc
    .record({
      ageing: fc.array(fc.constantFrom(10, 20), { minLength: 3, maxLength: 3 }),
      wires: fc.array(fc.constantFrom('none', '{ tap: t0 }', '{ switch: a }'), {
        minLength: 2,
        maxLength: 2,
      }),
      guests: fc.uniqueArray(fc.constantFrom('p', 'q', 'r')),
      cards: fc.array(card, { maxLength: 3 }),
      blocks: fc.constantFrom(512, 4096),
      disks: fc.array(fc.constantFrom('x', 'y'), { maxLength: 2 }),
      drives: fc.boolean(),
      functions,
      nicWire: fc.constantFrom(...nicWires),
      link: fc.constantFrom('10G', 'none'),
    })
    .filter(({ wires }) => wires[0] !== '{ tap: t0 }' || wires[1] !== '{ tap: t0 }')
    .map(
      ({ ageing, wires, guests, cards, blocks, disks, drives, functions, nicWire, link }) => `
lanes: 2
disks: { x: { memory: 1M, readonly: on }, y: { memory: 1M, readonly: on, block_size: ${blocks} } }
switches:
  b: { ageing: ${ageing[1]}, wire: ${wires[0]} }
  a: { ageing: ${ageing[0]} }
  c: { ageing: ${ageing[2]}, wire: ${wires[1]} }
nics: { n: { model: 82599, ports: [{ wire: ${nicWire}, link: ${link} }, {}] } }
guests: { z: { net: [${functions}] }, ${guests.map((name) => `${name}: { net: [${cards.join(', ')}], disk: [${disks.map((disk) => `{ method: ${drives ? 'emulated, model: ahci' : 'paravirtual'}, disk: ${disk} }`).join(', ')}] }`).join(', ')} }`,
    );
  fc.assert(
    fc.property(text, text, (before, after) => {
      const running = parts(before);
      const wanted = parts(after);
      const now = applied(running, differenceOf(running, wanted));
      const sorted = (list: readonly Part[]): Part[] =>
        list.toSorted((a, b) => partKey(a).localeCompare(partKey(b)));
      assert.deepEqual(sorted(now), sorted(wanted));
    }),
  );
});
