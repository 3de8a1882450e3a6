import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNetOptions } from './net-options.ts';

test('defaults are those of the documentation', () => {
  assert.deepEqual(parseNetOptions({}), {
    method: 'paravirtual',
    guest: 'embedded',
    guests: 2,
    frame: 1514,
    direction: 'rx',
    seconds: 3,
    runs: 3,
    packed: false,
    queues: 1,
    verify: false,
    outside: false,
  });
});

test('one guest is enough where there are machines outside', () => {
  for (const method of ['direct', 'sriov'] as const) {
    for (const direction of ['rx', 'tx', 'both'] as const) {
      const options = parseNetOptions({ method, direction, guests: 1, outside: true });
      assert.deepEqual([options.guests, options.outside], [1, true]);
    }
  }
  assert.equal(parseNetOptions({ method: 'sriov', guests: 3, outside: true }).guests, 3);
});

test('an emulated card is an 82574L unless another is asked for', () => {
  assert.equal(parseNetOptions({ method: 'emulated' }).model, '82574');
  assert.equal(parseNetOptions({ method: 'emulated', model: '82540' }).model, '82540');
});

test('functions of an 82599 are on both its ports, whose wires carry 10 Gb/s, unless asked otherwise', () => {
  const options = parseNetOptions({ method: 'sriov' });
  assert.deepEqual([options.model, options.ports, options.link], ['82599', 2, '10G']);
  assert.equal(options.itr, undefined);
  const other = parseNetOptions({
    method: 'sriov',
    ports: 1,
    link: 'none',
    itr: 'adaptive',
    queues: 4,
  });
  assert.deepEqual([other.ports, other.link, other.itr], [1, 'none', 'adaptive']);
  assert.equal(parseNetOptions({ method: 'direct', itr: 0 }).itr, 0);
});

test('what cannot be is refused by the name of the option', () => {
  for (const [input, pattern] of [
    [{ guests: 0 }, /--guests/],
    [{ guests: 1 }, /1 guest has nobody/],
    [{ method: 'sriov', guests: 1, direction: 'both' }, /1 guest has nobody/],
    [{ outside: true }, /--outside/],
    [{ method: 'emulated', outside: true }, /--outside/],
    [{ ring: 4 }, /--ring/],
    [{ guest: 'uml', ring: 64 }, /--ring/],
    [{ guests: 3, direction: 'rx' }, /3 guests/],
    [{ frame: 10 }, /--frame/],
    [{ frame: 70000 }, /--frame/],
    [{ seconds: 0 }, /--seconds/],
    [{ runs: 1.5 }, /--runs/],
    [{ queues: 0 }, /--queues/],
    [{ guest: 'uml', packed: true }, /packed/],
    [{ guest: 'qemu', verify: true }, /--verify/],
    [{ guest: 'uml', frame: 64 }, /MTU of 50/],
    [{ model: '82540' }, /--model 82540/],
    [{ method: 'emulated', guest: 'qemu' }, /embedded/],
    [{ method: 'emulated', queues: 2 }, /--queues/],
    [{ method: 'emulated', packed: true }, /--packed/],
    [{ method: 'emulated', model: '82599' }, /--model 82599 is a card of --method direct or sriov/],
    [{ method: 'sriov', model: '82574' }, /--model 82574/],
    [{ method: 'sriov', packed: true }, /--packed/],
    [{ method: 'sriov', guest: 'qemu' }, /embedded/],
    [{ method: 'sriov', queues: 5 }, /--queues 5/],
    [{ method: 'sriov', ports: 3 }, /--ports/],
    [{ method: 'sriov', itr: 100 }, /--itr/],
    [{ method: 'direct', ports: 1 }, /--ports is for --method sriov/],
    [{ itr: 8000 }, /--itr/],
    [{ doorbellPoll: 100 }, /--doorbell-poll/],
    [{ method: 'emulated', link: 'none' }, /--link/],
  ] as const) {
    assert.throws(
      () => parseNetOptions(input),
      (error: Error & { code?: string }) => error.code === 'usage' && pattern.test(error.message),
      JSON.stringify(input),
    );
  }
});
