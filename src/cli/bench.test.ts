// suite: takes=25
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { diskReportSchema, netReportSchema } from '../bench/report-schema.ts';

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

test('bench net --method emulated tells of the card and of traps', () => {
  const words = 'net --method emulated --model 82540 --guests 2 --frame 64 --seconds 0.2 --runs 1';
  const { status, stdout, stderr } = sluice(...words.split(' '), '--rate', '500');
  assert.equal(stderr, '');
  assert.equal(status, 0);
  assert.match(stdout, /^emulated \(82540\), 2 embedded guests, frames of 64 bytes/);
  assert.match(stdout, /events +[0-9.k]+ traps\/s \([0-9.]+ a frame\)/);
});

test('bench disk --json prints one object of the published form and nothing else', () => {
  const { status, stdout, stderr } = sluice(
    ...'disk --method paravirtual --rw randrw --bs 4k --iodepth 4 --numjobs 2 --guests 2'.split(
      ' ',
    ),
    ...'--size 1M --runtime 0.2 --runs 2 --fsync 8 --packed --verify --json'.split(' '),
  );
  assert.equal(stderr, '');
  assert.equal(status, 0);
  const report = diskReportSchema.parse(JSON.parse(stdout));
  const { guests, bs, iodepth, numjobs, runs, packed, disk_bytes } = report;
  assert.deepEqual(
    [guests, bs, iodepth, numjobs, runs, packed, disk_bytes],
    [2, 4096, 4, 2, 2, true, 2 ** 20],
  );
  assert.deepEqual(report.errors, { failed: 0, stale: 0, corrupt: 0 });
  const { results } = report;
  assert.ok(results.read_iops > 0 && results.write_iops > 0 && results.flushes_per_s > 0);
});

test('wrong usage is told in a line and ends with 2', () => {
  for (const [words, pattern] of [
    [['net', '--guests', '3'], /3 guests cannot be paired/],
    [['net', '--guests', 'many'], /--guests/],
    [['net', '--method', 'magic'], /paravirtual/],
    [['net', '--frame', '5'], /--frame/],
    [['net', '--model', '82540'], /--method emulated/],
    [['net', '--method', 'emulated', '--model', '82599'], /direct or sriov/],
    [['net', '--method', 'emulated', '--model', '82545'], /82574/],
    [['net', '--method', 'sriov', '--itr', 'soon'], /--itr/],
    [['net', '--itr', '8000'], /direct and sriov/],
    [['disk', '--method', 'sriov'], /emulated/],
    [['net', '--method', 'emulated', '--guest', 'qemu'], /embedded/],
    [['net', '--soak', '0'], /--soak/],
    [['tape'], /tape/],
    [['net', '--guests', '0'], /--guests: 0 is not from 1 to 256 \(/],
    [['net', '--doorbell-poll', '-1'], /--doorbell-poll: -1 is not from 0 to 1000000 \(/],
    [['disk', '--fsync', '-1'], /--fsync: -1 is not 0 or more \(/],
    [['disk', '--soak', '0.5'], /--soak/],
    [['net', '--guest', 'uml', '--soak', '5'], /--soak/],
    [['disk', '--rw', 'append'], /randread/],
    [['disk', '--bs', '4x'], /4x/],
    [['disk', '--bs', '1000'], /--bs/],
    [['disk', '--disk', 'floppy'], /memory, tmpfs or file:PATH/],
    [['disk', '--disk', 'memory', '--direct'], /--direct/],
    [['disk', '--size', '4k', '--numjobs', '2'], /do not fit/],
    [['disk', '--disk', `file:${MAIN}`, '--rw', 'randrw'], /--overwrite/],
    [['disk', '--disk', `file:${MAIN}`, '--guests', '2'], /cannot share/],
  ] as const) {
    const { status, stdout, stderr } = sluice(...words);
    assert.equal(status, 2, words.join(' '));
    assert.equal(stdout, '');
    assert.match(stderr, pattern);
  }
});

test('bench all looks first whether its report can be written', () => {
  const { status, stdout, stderr } = sluice('all', '--report', `${MAIN}/report.html`);
  assert.equal(status, 1);
  assert.equal(stdout, '');
  assert.match(stderr, /^sluice: --report .*main\.ts\/report\.html cannot be written: /);
});
