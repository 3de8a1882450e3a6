import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { prettyLine } from './log.ts';

function pretty(record: object): string {
  return stripVTControlCharacters(prettyLine(JSON.stringify(record)));
}

test('a record becomes one line: time, level, message, fields', () => {
  const time = new Date(2026, 0, 2, 3, 4, 5, 6).getTime();
  const line = pretty({
    level: 'warn',
    time,
    pid: 1,
    hostname: 'h',
    msg: 'hello',
    port: 'web/net0',
    n: 3,
  });
  assert.equal(line, '03:04:05.006 warn  hello  port=web/net0  n=3\n');
});

test('values with blanks, quotes or line ends are quoted', () => {
  const line = pretty({ level: 'error', time: 0, msg: 'm', a: 'x y', b: 'q"', c: 'l\nm', d: null });
  assert.ok(line.endsWith('m  a="x y"  b="q\\""  c="l\\nm"  d=null\n'), line);
});
