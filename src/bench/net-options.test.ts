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
  });
});

test('an emulated card is an 82574L unless another is asked for', () => {
  assert.equal(parseNetOptions({ method: 'emulated' }).model, '82574');
  assert.equal(parseNetOptions({ method: 'emulated', model: '82540' }).model, '82540');
});

test('what cannot be is refused by the name of the option', () => {
  for (const [input, pattern] of [
    [{ guests: 1 }, /--guests/],
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
  ] as const) {
    assert.throws(
      () => parseNetOptions(input),
      (error: Error & { code?: string }) => error.code === 'usage' && pattern.test(error.message),
      JSON.stringify(input),
    );
  }
});
