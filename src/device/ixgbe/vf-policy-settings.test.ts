import assert from 'node:assert/strict';
import test from 'node:test';
import { SluiceError } from '../../base/errors.ts';
import {
  changeSettings,
  checkTogether,
  VF_DEFAULTS,
  type VfChange,
  type VfSettings,
} from './vf-policy-settings.ts';

const LINK = 10_000;

function change(words: VfChange, before: VfSettings = VF_DEFAULTS): VfSettings {
  return changeSettings('vf3', before, words, LINK);
}

/** What an error's message must have in it. */
function refused(run: () => unknown, ...parts: string[]): void {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof SluiceError);
    assert.notEqual(error.remedy, undefined);
    for (const part of parts) assert.ok(error.message.includes(part), `${part}: ${error.message}`);
    return true;
  });
}

test('what is not named stays as it is', () => {
  const before = change({ mac: '52:54:00:00:00:01', vlan: 10, qos: 3, trust: true });
  assert.deepEqual(change({ max_tx_rate: 100 }, before), { ...before, max_tx_rate: 100 });
  assert.deepEqual(change({ mac: undefined, vlan: undefined }, before), before);
});

test('rate is max_tx_rate', () => {
  assert.equal(change({ rate: 500 }).max_tx_rate, 500);
  assert.equal(change({ rate: 500, max_tx_rate: 500 }).max_tx_rate, 500);
  refused(() => change({ rate: 500, max_tx_rate: 400 }), 'rate 500', 'max_tx_rate 400');
});

test('a mac of zeros takes the address away', () => {
  const before = change({ mac: '52:54:00:00:00:01' });
  assert.equal(change({ mac: '00:00:00:00:00:00' }, before).mac, undefined);
});

test('vlan 0 ends the VLAN and what its tag carried', () => {
  const before = change({ vlan: 10, qos: 5 });
  assert.deepEqual(change({ vlan: 0 }, before), VF_DEFAULTS);
});

test('contradictions name both', () => {
  refused(() => change({ qos: 3 }), 'qos 3', 'vlan 0');
  refused(() => change({ vlan: 0, qos: 3 }, change({ vlan: 10 })), 'qos 3', 'vlan 0');
  refused(
    () => change({ min_tx_rate: 200, max_tx_rate: 100 }),
    'min_tx_rate 200',
    'max_tx_rate 100',
  );
  refused(() => change({ min_tx_rate: 200 }, change({ max_tx_rate: 100 })), '200', '100');
  refused(() => change({ max_tx_rate: 10_001 }), 'max_tx_rate 10001', 'link of 10000');
  refused(() => change({ min_tx_rate: 10_001 }), 'min_tx_rate 10001', 'link of 10000');
  assert.equal(
    changeSettings('vf3', VF_DEFAULTS, { max_tx_rate: 40_000 }, undefined).max_tx_rate,
    40_000,
  );
});

test('values have ranges', () => {
  refused(() => change({ vlan: 4095 }), 'vlan 4095');
  refused(() => change({ vlan: 1.5 }), 'vlan 1.5');
  refused(() => change({ vlan: 10, qos: 8 }), 'qos 8');
  refused(() => change({ max_tx_rate: -1 }), 'max_tx_rate -1');
  refused(() => change({ mac: '01:00:5e:00:00:01' }), '01:00:5e:00:00:01');
  refused(() => change({ mac: 'none' }), 'none');
});

test('the card puts in 802.1Q tags only', () => {
  refused(() => change({ vlan: 10, proto: '802.1ad' }), '802.1ad');
  assert.equal(change({ vlan: 10, proto: '802.1Q' }).proto, '802.1Q');
});

test('two VFs in one VLAN cannot have one address', () => {
  const with_ = (name: string, words: VfChange) => ({ name, settings: change(words) });
  const mac = '52:54:00:00:00:0A';
  refused(
    () => checkTogether([with_('vf1', { mac }), with_('vf2', { mac: mac.toLowerCase() })], LINK),
    'vf1',
    'vf2',
  );
  checkTogether(
    [with_('vf1', { mac, vlan: 1 }), with_('vf2', { mac, vlan: 2 }), with_('vf3', {})],
    LINK,
  );
});

test('no more can be guaranteed than the link has', () => {
  const each = (least: number) =>
    [1, 2, 3].map((i) => ({
      name: `vf${i}`,
      settings: change({ min_tx_rate: i === 2 ? 0 : least }),
    }));
  checkTogether(each(5000), LINK);
  refused(() => checkTogether(each(5001), LINK), 'vf1, vf3', '10002', '10000');
  checkTogether(each(5001), undefined);
});
