import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Config, parseConfig } from './config.ts';
import { planLanes } from './lane-plan.ts';

function config(text: string): Config {
  return parseConfig(text, 'f.yaml');
}

const GUEST_ON_BOTH = `
guests: { web: { net: [{ method: paravirtual, switch: a }, { method: paravirtual, switch: b }] } }`;

test('switches without anything in common are spread', () => {
  const plan = planLanes(config('lanes: 2\nswitches: { a: {}, b: {}, c: {}, d: {} }'));
  assert.deepEqual([...plan.values()].toSorted(), [0, 0, 1, 1]);
});

test('the switch with the most ports has a lane of its own', () => {
  const cards = '{ method: paravirtual, switch: big },'.repeat(4);
  const plan = planLanes(
    config(`lanes: 2\nswitches: { a: {}, big: {}, b: {} }\nguests: { web: { net: [${cards}] } }`),
  );
  assert.equal(plan.get('a'), plan.get('b'));
  assert.notEqual(plan.get('a'), plan.get('big'));
});

test('switches that a wire joins are on one lane', () => {
  const plan = planLanes(
    config('lanes: 3\nswitches: { a: {}, b: { wire: { switch: a } }, c: {} }'),
  );
  assert.equal(plan.get('a'), plan.get('b'));
  assert.notEqual(plan.get('a'), plan.get('c'));
});

test('switches that a guest joins are on one lane', () => {
  const plan = planLanes(config(`lanes: 2\nswitches: { a: {}, b: {} }${GUEST_ON_BOTH}`));
  assert.equal(plan.get('a'), plan.get('b'));
});

test('a lane that was asked for is given, to the whole group', () => {
  const plan = planLanes(config(`lanes: 3\nswitches: { a: {}, b: { lane: 2 } }${GUEST_ON_BOTH}`));
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
  const running = new Map([['a', 1]]);
  const plan = planLanes(config('lanes: 2\nswitches: { a: {}, b: {} }'), running);
  assert.deepEqual(
    [...plan],
    [
      ['a', 1],
      ['b', 0],
    ],
  );
  const joined = config('lanes: 2\nswitches: { a: {}, b: { wire: { switch: a } } }');
  assert.throws(
    () =>
      planLanes(
        joined,
        new Map([
          ['a', 1],
          ['b', 0],
        ]),
      ),
    {
      code: 'config',
      message: /the wire of b joins b and a/,
      remedy: 'give both the same lane, and restart Sluice',
    },
  );
});
