import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allowedCpus } from '../../src/bench/machine.ts';
import { chooseProcessors, namesOf, numberFrom, someOf, worksNamed } from './options.ts';

test('numbers are of their range, and whole where they must be', () => {
  assert.equal(numberFrom(1, 10, true)('10'), 10);
  assert.equal(numberFrom(0, 1, false)('0.5'), 0.5);
  for (const text of ['', ' ', 'x', '0', '11', '1.5'])
    assert.throws(() => numberFrom(1, 10, true)(text), /a whole number, 1 to 10/, text);
});

test('lists hold known words only', () => {
  const read = someOf(['tmpfs', 'disk']);
  assert.deepEqual(read('disk, tmpfs'), ['disk', 'tmpfs']);
  for (const text of ['', 'disk,', 'disc', 'tmpfs disk'])
    assert.throws(() => read(text), /some of tmpfs,disk/, text);
});

test('works are chosen by parts of their names, of which one must fit', () => {
  const works = ['64 B split', '64 B packed', '512 B packed'];
  const chosen = (text: string): string[] => worksNamed(works, (work) => work, namesOf(text));
  assert.deepEqual(chosen('64 B packed'), ['64 B packed']);
  assert.deepEqual(chosen('split, 512'), ['64 B split', '512 B packed']);
  assert.deepEqual(
    worksNamed(works, (work) => work, undefined),
    works,
  );
  assert.throws(() => chosen('1514'), { code: 'usage', message: /no work is named 1514/ });
});

test('client and server get a processor each, or the choice is refused', (t) => {
  const cpus = allowedCpus();
  const [first, second] = cpus;
  const choice = { other: 'server', clientCpu: undefined, otherCpu: undefined };
  const none = Math.max(...cpus) + 1;
  if (first === undefined || second === undefined) {
    assert.throws(() => chooseProcessors(choice), { code: 'usage', message: /a processor each/ });
    t.diagnostic('one processor only');
    return;
  }
  assert.deepEqual(chooseProcessors(choice), { client: cpus.at(-1), other: first });
  assert.equal(chooseProcessors({ ...choice, clientCpu: first }).other, second);
  for (const [clientCpu, otherCpu, message] of [
    [first, first, /the client and the server need a processor each/],
    [none, first, new RegExp(`processor ${none} is not one`)],
  ] as const)
    assert.throws(() => chooseProcessors({ ...choice, clientCpu, otherCpu }), {
      code: 'usage',
      message,
    });
});
