// suite: takes=40
/** What becomes of commands and of the daemon when standard output or the log cannot be written. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../daemon/testing.ts';
import { Place } from './testing.ts';

const CONFIG =
  'switches: { lan: {} }\nguests:\n  web: { net: [{ method: paravirtual, switch: lan }] }\n';
const EXTRA = '  extra: { net: [{ method: paravirtual, switch: lan }] }\n';
const SLUICE = `"${process.execPath}" --disable-warning=ExperimentalWarning "${join(import.meta.dirname, 'main.ts')}"`;

/** Runs `script`, in which `$SLUICE` is the command, to its end. */
function shell(place: Place, script: string) {
  const text = script.replaceAll('$SLUICE', SLUICE);
  // Tells the exit code of the command, not that of the end of the pipe.
  return spawnSync('bash', ['-o', 'pipefail', '-c', text], { cwd: place.path, encoding: 'utf8' });
}

/** `sluice up` with its streams led elsewhere, when it serves. */
async function upWith(place: Place, redirections: string): Promise<ChildProcess> {
  const daemon = spawn('bash', ['-c', `exec ${SLUICE} up ${redirections}`], {
    cwd: place.path,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  // Nobody reads these pipes.
  daemon.stdout.destroy();
  daemon.stderr.destroy();
  await until('a daemon', async () => existsSync(join(place.run, 'control.sock')));
  return daemon;
}

/** Ends it, and checks that it was still alive and ends well. */
async function endWell(daemon: ChildProcess): Promise<void> {
  const exit = once(daemon, 'exit');
  daemon.kill('SIGTERM');
  assert.deepEqual(await exit, [0, null]);
}

describe('commands', () => {
  test('where nobody reads on, they end quietly', async () => {
    await using place = new Place(CONFIG);
    for (const words of ['help', 'schema', 'guest qemu-args web']) {
      const { status, stderr } = shell(place, `(sleep 0.2; $SLUICE ${words}) | true`);
      assert.deepEqual([status, stderr], [0, ''], words);
    }
  });

  test('where there is no room, they say so in a line, with exit code 1', async () => {
    await using place = new Place(CONFIG);
    for (const words of ['help', 'schema', 'guest qemu-args web']) {
      const { status, stderr } = shell(place, `$SLUICE ${words} >/dev/full`);
      assert.equal(status, 1, words);
      assert.match(stderr, /^sluice: cannot write standard output: ENOSPC.*\)\n$/);
    }
    const { status, stderr } = shell(place, '$SLUICE schema --json >/dev/full');
    assert.equal(status, 1);
    assert.equal(JSON.parse(stderr).error.code, 'system');
  });
});

describe('the daemon', () => {
  for (const [what, redirections] of [
    ['its log has no room', '2>/dev/full'],
    ['nobody reads its log', ''],
    ['its announcement has no room', '>/dev/full 2>/dev/full'],
    ['nobody reads its announcement', '2>log'],
  ] as const) {
    test(`serves and reloads where ${what}`, async () => {
      await using place = new Place(CONFIG);
      const daemon = await upWith(place, redirections);
      try {
        place.write(`${CONFIG}${EXTRA}`);
        daemon.kill('SIGHUP');
        await until('the reload', async () => existsSync(join(place.run, 'extra-net0.sock')));
        await endWell(daemon);
      } finally {
        daemon.kill('SIGKILL');
      }
      if (redirections === '2>log') {
        const log = readFileSync(join(place.path, 'log'), 'utf8');
        assert.match(log, /"cannot write standard output"/);
        assert.doesNotMatch(log, /^\s+at /m);
      }
    });
  }

  test('tells how many records were lost, when its log can be written again', async () => {
    await using place = new Place(CONFIG);
    assert.equal(shell(place, 'mkfifo log').status, 0);
    const path = join(place.path, 'log');
    // A FIFO, unlike a pipe, gets a reader again.
    let reader = openSync(path, 'r+');
    const daemon = await upWith(place, '2>log');
    try {
      closeSync(reader);
      place.write(`${CONFIG}${EXTRA}`);
      assert.equal((await place.sluice('reload')).code, 0);
      reader = openSync(path, 'r+');
      place.write(CONFIG);
      assert.equal((await place.sluice('reload')).code, 0);
      await endWell(daemon);
      const bytes = Buffer.alloc(65_536);
      const text = bytes.toString('utf8', 0, readSync(reader, bytes));
      assert.match(text, /"lost":[1-9]\d*,"msg":"records of the log were lost"/);
    } finally {
      closeSync(reader);
      daemon.kill('SIGKILL');
    }
  });
});

/** Settles when a command is connected to the daemon. To ask the daemon for a capture would be in its way. */
async function connected(place: Place): Promise<void> {
  const socket = join(place.run, 'control.sock');
  await until('the connection', async () =>
    // The state is the sixth word: 03 is a connection, 01 the socket that listens.
    readFileSync('/proc/net/unix', 'utf8')
      .split('\n')
      .some((line) => line.endsWith(` ${socket}`) && line.split(/\s+/)[5] === '03'),
  );
}

describe('capture', () => {
  for (const [what, words] of [
    ['a FIFO without a reader', ['-w', 'fifo']],
    ['a full pipe', []],
  ] as const) {
    test(`further interrupts end it where it writes to ${what}`, async () => {
      await using place = new Place(CONFIG);
      await place.up();
      assert.equal(shell(place, 'mkfifo fifo full').status, 0);
      const full = openSync(join(place.path, 'full'), constants.O_RDWR | constants.O_NONBLOCK);
      writeSync(full, Buffer.alloc(65_536));
      const capture = spawn('bash', ['-c', `exec ${SLUICE} capture web/net0 ${words.join(' ')}`], {
        cwd: place.path,
        stdio: ['ignore', full, 'pipe'],
      });
      const exit = once(capture, 'exit');
      let interrupts: NodeJS.Timeout | undefined;
      let stderr = '';
      capture.stderr?.setEncoding('utf8').on('data', (text: string) => {
        stderr += text;
      });
      try {
        await connected(place);
        // It needs a moment more until it has the reply and listens to signals.
        await sleep(2000);
        // Two at the same moment may count as one.
        interrupts = setInterval(() => capture.kill('SIGINT'), 500);
        assert.deepEqual(await exit, [null, 'SIGINT']);
      } finally {
        clearInterval(interrupts);
        capture.kill('SIGKILL');
        closeSync(full);
      }
      assert.match(
        stderr,
        /^sluice: the capture of web\/net0 is broken off: .* may lack its end\n$/,
      );
    });
  }
});
