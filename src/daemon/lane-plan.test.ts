import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Config, parseConfig } from './config.ts';
import { planLanes } from './lane-plan.ts';

function config(text: string): Config {
  return parseConfig(text, 'f.yaml');
}

/** Lane by switch. */
function lanesOf(
  text: string,
  running: Readonly<Record<string, number>> = {},
): Map<string, number> {
  const at = { switches: new Map(Object.entries(running)), guests: new Map() };
  return new Map(planLanes(config(text), at).switches);
}

const GUEST_ON_BOTH = `
guests: { web: { net: [{ method: paravirtual, switch: a }, { method: paravirtual, switch: b }] } }`;

test('switches without anything in common are spread', () => {
  const plan = lanesOf('lanes: 2\nswitches: { a: {}, b: {}, c: {}, d: {} }');
  assert.deepEqual([...plan.values()].toSorted(), [0, 0, 1, 1]);
});

test('the switch with the most ports has a lane of its own', () => {
  const cards = '{ method: paravirtual, switch: big },'.repeat(4);
  const plan = lanesOf(
    `lanes: 2\nswitches: { a: {}, big: {}, b: {} }\nguests: { web: { net: [${cards}] } }`,
  );
  assert.equal(plan.get('a'), plan.get('b'));
  assert.notEqual(plan.get('a'), plan.get('big'));
});

test('switches that a wire joins are on one lane', () => {
  const plan = lanesOf('lanes: 3\nswitches: { a: {}, b: { wire: { switch: a } }, c: {} }');
  assert.equal(plan.get('a'), plan.get('b'));
  assert.notEqual(plan.get('a'), plan.get('c'));
});

test('switches that a guest joins are on one lane', () => {
  const plan = lanesOf(`lanes: 2\nswitches: { a: {}, b: {} }${GUEST_ON_BOTH}`);
  assert.equal(plan.get('a'), plan.get('b'));
});

test('a lane that was asked for is given, to the whole group', () => {
  const plan = lanesOf(`lanes: 3\nswitches: { a: {}, b: { lane: 2 } }${GUEST_ON_BOTH}`);
  assert.deepEqual(
    [...plan],
    [
      ['a', 2],
      ['b', 2],
    ],
  );
});

test('switches that are joined and forced apart are an error that names both', () => {
  const forced = config(`lanes: 2\nswitches: { a: { lane: 0 }, b: { lane: 1 } }${GUEST_ON_BOTH}`);
  assert.throws(() => planLanes(forced), {
    code: 'config',
    message:
      'switch a is on lane 0 and switch b on lane 1, but guest web joins a and b: frames do not cross lanes yet',
    remedy: 'give both the same lane',
  });
});

test('what runs stays where it is', () => {
  const plan = lanesOf('lanes: 2\nswitches: { a: {}, b: {} }', { a: 1 });
  assert.deepEqual(
    [...plan],
    [
      ['a', 1],
      ['b', 0],
    ],
  );
  const joined = 'lanes: 2\nswitches: { a: {}, b: { wire: { switch: a } } }';
  assert.throws(() => lanesOf(joined, { a: 1, b: 0 }), {
    code: 'config',
    message: /the wire of b joins b and a/,
    remedy: 'give both the same lane, and restart Sluice',
  });
});

const DISKS = 'disks: { r: { memory: 1M, readonly: on } }';
const DISK = '{ method: paravirtual, disk: r }';

test("a guest's disks are on the lane of its cards", () => {
  const { switches, guests } = planLanes(
    config(
      `lanes: 2\n${DISKS}\nswitches: { a: {}, b: {} }\nguests: { web: { disk: [${DISK}], net: [{ method: paravirtual, switch: b }] } }`,
    ),
  );
  assert.equal(guests.get('web'), switches.get('b'));
  assert.notEqual(switches.get('a'), switches.get('b'));
});

test('guests with disks alone are spread, and stay where they run', () => {
  const text = `lanes: 2\n${DISKS}\nguests: { a: { disk: [${DISK}, ${DISK}] }, b: { disk: [${DISK}] }, c: { disk: [${DISK}] }, none: {} }`;
  assert.deepEqual(
    [...planLanes(config(text)).guests],
    [
      ['a', 0],
      ['b', 1],
      ['c', 1],
    ],
  );
  const running = { switches: new Map(), guests: new Map([['a', 1]]) };
  const { guests } = planLanes(config(text), running);
  assert.equal(guests.get('a'), 1);
  assert.equal(guests.get('b'), 0);
});

test('a guest that gets a card goes to its switch', () => {
  const running = { switches: new Map([['s', 0]]), guests: new Map([['web', 1]]) };
  const { guests } = planLanes(
    config(
      `lanes: 2\n${DISKS}\nswitches: { s: {} }\nguests: { web: { disk: [${DISK}], net: [{ method: paravirtual, switch: s }] } }`,
    ),
    running,
  );
  assert.equal(guests.get('web'), 0);
});

test('a port of a NIC is where its switch is, and the guests that have its functions', () => {
  const plan = planLanes(
    parseConfig(
      `lanes: 2
switches: { lan: {}, wan: {} }
nics: { n: { model: 82599, ports: [{ wire: { switch: lan } }, { wire: { switch: wan } }] } }
guests:
  a: { net: [{ method: sriov, nic: n, port: 0, vf: 1 }] }
  b: { net: [{ method: direct, nic: n, port: 1 }, { method: paravirtual, switch: wan }] }`,
      'f.yaml',
    ),
  );
  const lane = (name: string): number | undefined => plan.switches.get(name);
  assert.equal(lane('n/0'), lane('lan'));
  assert.equal(lane('n/1'), lane('wan'));
  assert.notEqual(lane('lan'), lane('wan'));
  assert.deepEqual([plan.guests.get('a'), plan.guests.get('b')], [lane('lan'), lane('wan')]);
});

test('ports that share what their slot carries are on one lane; why, is told', () => {
  const text = `lanes: 2
switches: { lan: { lane: 0 }, wan: { lane: 1 } }
nics: { n: { model: 82599, pcie: gen2x8, ports: [{ wire: { switch: lan } }, { wire: { switch: wan } }] } }`;
  assert.throws(
    () => planLanes(parseConfig(text, 'f.yaml')),
    /switch lan is on lane 0 and switch wan on lane 1, but .*pcie: gen2x8 of n joins n\/0 and n\/1/,
  );
});
