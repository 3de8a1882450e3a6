import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { silentLogger } from '../base/log.ts';
import { VF_DEFAULTS } from '../device/ixgbe/vf-policy-settings.ts';
import { GuardedPoller } from '../engine/guard.ts';
import { Arena } from '../memory/arena.ts';
import { createDataPath } from '../net/data-path.ts';
import { parseMac } from '../net/mac.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { fence, NicPort } from './nic-port.ts';

const path = createDataPath(Arena.create(), new PollLoop());
const failed: string[] = [];
const MAC = parseMac('52:54:00:00:00:01');
const OTHER = '52:54:00:00:00:02';

function port(mode: 'direct' | 'sriov', vfs = 63): NicPort {
  return new NicPort(
    {
      name: 'nic0/0',
      port: 0,
      mac: MAC,
      mode,
      vfs,
      link: '10G',
      slot: undefined,
      mapped: true,
      doorbellPollUs: 1000,
      onFailure: (reason) => failed.push(reason),
    },
    { log: silentLogger },
    path,
  );
}

test('with few functions each has four queue pairs, with many two', () => {
  for (const [vfs, queues] of [
    [1, 4],
    [31, 4],
    [32, 2],
    [63, 2],
  ] as const) {
    const nic = port('sriov', vfs);
    assert.equal(nic.vfQueues, queues);
    const vf = nic.createVf(vfs - 1, MAC, VF_DEFAULTS);
    assert.equal(vf.transmitQueues.length, queues);
    nic.removeVf(vfs - 1);
    nic.close();
  }
});

test('a port is whole or shared', () => {
  const whole = port('direct');
  assert.equal(whole.physicalFunction().name, 'nic0/0');
  assert.throws(() => whole.createVf(0, MAC, VF_DEFAULTS), { code: 'state' });
  whole.close();
  const shared = port('sriov');
  assert.throws(() => shared.physicalFunction(), {
    code: 'state',
    message: 'the driver domain has the physical function of nic0/0',
  });
  shared.close();
});

test('a function begins with its own address, takes the one that it is given, and gets its own back', () => {
  const nic = port('sriov');
  nic.createVf(3, MAC, VF_DEFAULTS);
  assert.equal(nic.describeVf(3).address, '52:54:00:00:00:01');
  nic.setVf(3, { ...VF_DEFAULTS, mac: OTHER, vlan: 10 });
  assert.equal(nic.describeVf(3).address, OTHER);
  assert.equal(nic.describeVf(3).vlan, 10);
  // What is not said any more is as it was in the beginning.
  nic.setVf(3, VF_DEFAULTS);
  assert.deepEqual([nic.describeVf(3).mac, nic.describeVf(3).vlan], [undefined, 0]);
  nic.removeVf(3);
  assert.throws(() => nic.describeVf(3), { code: 'not-found' });
  nic.close();
});

describe('a fence around a function', () => {
  for (const entry of ['accept', 'flush'] as const) {
    test(`a failure in ${entry} ends it, and is not thrown to whoever sent`, () => {
      const nic = port('sriov');
      const vf = nic.createVf(0, MAC, VF_DEFAULTS);
      const failures: unknown[] = [];
      const guard = new GuardedPoller(vf, (error) => failures.push(error));
      const calls: string[] = [];
      const prototype = Object.getPrototypeOf(vf) as typeof vf;
      const broken = Object.create(prototype) as typeof vf;
      for (const name of ['accept', 'flush'] as const) {
        broken[name] = () => {
          calls.push(name);
          if (name === entry) throw new Error(`a bug in ${name}`);
        };
      }
      Object.setPrototypeOf(vf, broken);
      Object.defineProperty(broken, 'constructor', { value: { prototype: broken } });
      fence(vf, guard);
      const deliver = (): void => {
        vf.accept(path.burst, new Uint8Array(1), 0, false);
        vf.flush();
      };
      deliver();
      assert.equal(guard.failed, true);
      assert.deepEqual(failures.map(String), [`Error: a bug in ${entry}`]);
      const before = calls.length;
      deliver();
      assert.equal(calls.length, before, 'it is left alone');
      nic.removeVf(0);
      nic.close();
    });
  }
});

test('a card whose code fails as frames come in takes no more, and the sender goes on', () => {
  const nic = port('direct');
  const pf = nic.physicalFunction();
  pf.deliver = () => {
    throw new Error('a bug in a filter');
  };
  path.burst.clear();
  const deliver = (): void => nic.card.deliver(path.burst, new Uint8Array(1), 0, false);
  deliver();
  deliver();
  nic.card.flush();
  assert.deepEqual(failed, ['a bug in a filter']);
  assert.equal(nic.fault, 'a bug in a filter');
  nic.close();
});
