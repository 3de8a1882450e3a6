// suite: cores=2
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { netReportSchema } from '../bench/report-schema.ts';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

function sluice(...words: string[]) {
  return spawnSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', MAIN, 'bench', ...words],
    { encoding: 'utf8' },
  );
}

test('bench net --json prints one object of the published form and nothing else', () => {
  const { status, stdout, stderr } = sluice(
    ...'net --method paravirtual --guests 2 --guest embedded --frame 1514 --direction rx'.split(
      ' ',
    ),
    ...'--seconds 0.2 --runs 2 --rate 1000 --json'.split(' '),
  );
  assert.equal(stderr, '');
  assert.equal(status, 0);
  const report = netReportSchema.parse(JSON.parse(stdout));
  assert.deepEqual([report.guests, report.frame, report.runs], [2, 1514, 2]);
});

test('wrong usage is told in a line and ends with 2', () => {
  for (const [words, pattern] of [
    [['net', '--guests', '3'], /3 guests cannot be paired/],
    [['net', '--guests', 'many'], /--guests/],
    [['net', '--method', 'magic'], /paravirtual/],
    [['net', '--frame', '5'], /--frame/],
    [['net', '--soak', '0'], /--soak/],
    [['disk'], /disk/],
  ] as const) {
    const { status, stdout, stderr } = sluice(...words);
    assert.equal(status, 2, words.join(' '));
    assert.equal(stdout, '');
    assert.match(stderr, pattern);
  }
});
