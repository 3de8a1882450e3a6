import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Config, parseConfig } from './config.ts';
import { differenceOf, partKey, partsOf } from './difference.ts';
import { planLanes } from './lane-plan.ts';
import {
  carriedOver,
  checkFree,
  checkMade,
  checkVf,
  desiredState,
  makeVf,
  NO_REQUESTS,
  setWords,
  unmakeVf,
  type VfRequests,
} from './vf-requests.ts';
import type { VfWords } from './vf-schema.ts';

function config(words = 'vlan: 10', port = '{}'): Config {
  return parseConfig(
    `nics: { nic0: { model: 82599, ports: [${port}] } }
guests:
  web: { net: [{ method: sriov, nic: nic0, port: 0, vf: 3, ${words} }] }
  db: { net: [{ method: sriov, nic: nic0, port: 0, vf: 4 }] }`,
    '/etc/sluice/f.yaml',
  );
}

const VF = 'nic0/0/vf3';

function wordsOf(of: Config, requests: VfRequests): VfWords | undefined {
  const [net] = desiredState(of, requests).guests[0]?.net ?? [];
  return net?.method === 'sriov' ? net.words : undefined;
}

function actions(from: Config, before: VfRequests, to: Config, after: VfRequests): string[] {
  const parts = (of: Config, requests: VfRequests) => {
    const state = desiredState(of, requests);
    return partsOf(state, planLanes(state));
  };
  return differenceOf(parts(from, before), parts(to, after)).map(
    ({ verb, part }) => `${verb} ${partKey(part)}`,
  );
}

test('what is set at run time is done to the function as it runs, and others are left alone', () => {
  const set = setWords(NO_REQUESTS, VF, { vlan: 20, qos: 3, proto: '802.1Q' });
  const both = setWords(set, VF, { trust: true });
  assert.deepEqual(wordsOf(config(), both), { vlan: 20, qos: 3, proto: '802.1Q', trust: true });
  assert.deepEqual(actions(config(), NO_REQUESTS, config(), both), ['change port web/net0']);
  assert.deepEqual(actions(config(), both, config(), both), []);
});

test('a change of the words in the file changes the function; one of its number replaces it', () => {
  const none = NO_REQUESTS;
  assert.deepEqual(actions(config(), none, config('vlan: 11'), none), ['change port web/net0']);
  assert.deepEqual(actions(config(), none, config('itr: 8000'), none), [
    'remove port web/net0',
    'add port web/net0',
  ]);
  assert.deepEqual(actions(config(), none, config('vlan: 10', '{ link: none }'), none), [
    'remove port db/net0',
    'remove port web/net0',
    'remove nic nic0/0',
    'add nic nic0/0',
    'add port web/net0',
    'add port db/net0',
  ]);
});

test('a wire of a port comes and goes without its functions', () => {
  const wired = config('vlan: 10', '{ wire: { tap: t0 } }');
  assert.deepEqual(actions(config(), NO_REQUESTS, wired, NO_REQUESTS), ['add nic-wire nic0/0']);
  assert.deepEqual(actions(wired, NO_REQUESTS, config(), NO_REQUESTS), ['remove nic-wire nic0/0']);
});

describe('over a reload', () => {
  const set = setWords(NO_REQUESTS, VF, { vlan: 20, qos: 0, proto: '802.1Q', max_tx_rate: 100 });

  test('what was set stays', () => {
    assert.deepEqual(carriedOver(set, config(), config('vlan: 10, trust: on')), set);
  });

  test('words that the file changes are the file’s again, a VLAN with its priority', () => {
    const left = carriedOver(set, config(), config('vlan: 10, qos: 5'));
    assert.deepEqual(left.words.get(VF), { max_tx_rate: 100 });
    assert.deepEqual(wordsOf(config('vlan: 10, qos: 5'), left), {
      vlan: 10,
      qos: 5,
      max_tx_rate: 100,
    });
  });

  test('what was set of a function that is gone is forgotten', () => {
    const without = parseConfig('nics: { nic0: { model: 82599, ports: [{}] } }', '/etc/f.yaml');
    assert.deepEqual(carriedOver(set, config(), without), NO_REQUESTS);
  });

  test('a function that was made stays, until the file has it or its port is no more', () => {
    const made = setWords(makeVf(NO_REQUESTS, 'nic0/0', 7), 'nic0/0/vf7', { trust: true });
    assert.deepEqual(carriedOver(made, config(), config('vlan: 12')), made);
    const taken = config('vlan: 10 }, { method: sriov, nic: nic0, port: 0, vf: 7');
    assert.deepEqual(carriedOver(made, config(), taken).made, new Map());
    assert.deepEqual(carriedOver(made, config(), config('vlan: 10', '{ vfs: 5 }')).made, new Map());
  });

  test('a file that contradicts what was set is refused', () => {
    const next = config('min_tx_rate: 200');
    assert.throws(
      () => desiredState(next, carriedOver(set, config(), next)),
      /min_tx_rate 200 contradicts max_tx_rate 100/,
    );
  });
});

test('a function that was made is a port of its own, with its socket', () => {
  const made = makeVf(NO_REQUESTS, 'nic0/0', 7);
  const [loose] = desiredState(config(), made).loose;
  assert.equal(loose?.port, 'nic0/0/vf7');
  assert.equal(loose?.socket, '/etc/sluice/run/nic0-0-vf7.sock');
  assert.deepEqual(actions(config(), NO_REQUESTS, config(), made), ['add port nic0/0/vf7']);
  assert.deepEqual(actions(config(), made, config(), unmakeVf(made, 'nic0/0/vf7')), [
    'remove port nic0/0/vf7',
  ]);
});

test('words at run time that contradict those of others are refused', () => {
  assert.throws(
    () => desiredState(config(), setWords(NO_REQUESTS, VF, { vlan: 0, qos: 3 })),
    /nic0\/0\/vf3: qos 3 contradicts vlan 0/,
  );
  const rates = setWords(NO_REQUESTS, VF, { min_tx_rate: 6000 });
  assert.throws(
    () => desiredState(config(), setWords(rates, 'nic0/0/vf4', { min_tx_rate: 6000 })),
    /nic0\/0\/vf3, nic0\/0\/vf4/,
  );
  const mac = '52:54:00:00:00:09';
  const addresses = setWords(NO_REQUESTS, VF, { mac });
  assert.throws(
    () => desiredState(config(), setWords(addresses, 'nic0/0/vf4', { mac })),
    /db\/net0 and web\/net0 would have the same MAC address 52:54:00:00:00:09 on port nic0\/0/,
  );
});

describe('what is not there is told, with what is:', () => {
  const none = NO_REQUESTS;

  test('a port', () => {
    assert.throws(() => checkVf(config(), none, 'nic0/1', 3), {
      code: 'not-found',
      message: /^no port nic0\/1 of a NIC; did you mean "nic0\/0"\?$/,
      remedy: 'there are nic0/0',
    });
  });

  test('a function', () => {
    assert.throws(() => checkVf(config(), none, 'nic0/0', 9), {
      code: 'not-found',
      message: 'nic0/0 has no vf 9; there are nic0/0/vf3, nic0/0/vf4',
      remedy: 'make it: sluice vf add nic0/0 vf 9',
    });
    checkVf(config(), makeVf(none, 'nic0/0', 9), 'nic0/0', 9);
  });

  test('one that is taken, or out of range, cannot be made', () => {
    assert.throws(() => checkFree(config(), none, 'nic0/0', 3), /web\/net0 has nic0\/0 vf 3 alrea/);
    const made = makeVf(none, 'nic0/0', 9);
    assert.throws(() => checkFree(config(), made, 'nic0/0', 9), /nic0\/0\/vf9 is there already/);
    const few = config('vlan: 10', '{ vfs: 8 }');
    assert.throws(() => checkFree(few, none, 'nic0/0', 8), /its vfs: 8 makes 0 to 7/);
    checkFree(few, none, 'nic0/0', 7);
  });

  test('a port that is a guest’s whole', () => {
    const whole = parseConfig(
      'nics: { nic0: { model: 82599, ports: [{}] } }\nguests: { web: { net: [{ method: direct, nic: nic0, port: 0 }] } }',
      '/etc/f.yaml',
    );
    assert.throws(() => checkFree(whole, none, 'nic0/0', 1), /nic0\/0 is a guest's/);
  });

  test('one of the file cannot be removed at run time', () => {
    assert.throws(() => checkMade(config(), none, 'nic0/0', 3), {
      message: 'nic0/0 vf 3 is web/net0 of the configuration',
      remedy: 'take it out of the file, then sluice reload',
    });
    checkMade(config(), makeVf(none, 'nic0/0', 9), 'nic0/0', 9);
  });
});
