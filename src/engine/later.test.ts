import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Later } from './later.ts';

test('the value comes to all who asked before, and to who asks afterwards, at once', () => {
  for (const isEarly of [true, false]) {
    const later = new Later<number>();
    const heard: unknown[] = [];
    const listen = (): void =>
      later.whenSettled(
        (value) => heard.push(value),
        (error) => heard.push('error', error),
      );
    if (isEarly) listen();
    if (isEarly) listen();
    assert.deepEqual(heard, []);
    later.resolve(5);
    if (!isEarly) listen();
    assert.deepEqual(heard, isEarly ? [5, 5] : [5]);
  }
});

test('an error is told as such; a second outcome is refused', () => {
  const later = new Later<number>();
  const heard: unknown[] = [];
  later.reject('why');
  later.whenSettled(
    (value) => heard.push(value),
    (error) => heard.push('error', error),
  );
  assert.deepEqual(heard, ['error', 'why']);
  assert.throws(() => later.resolve(1), { code: 'state' });
});
