import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { QmpClient } from './qmp.ts';

/** QEMU's end: answers each command by a function of its name. */
class Monitor extends Duplex {
  readonly #answer: (command: string) => string;

  constructor(answer: (command: string) => string) {
    super();
    this.#answer = answer;
    this.push('{"QMP": {"version": {}, "capabilities": []}}\r\n');
  }

  override _read(): void {
    // Answers are pushed as commands come.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    for (const line of chunk.toString().trimEnd().split('\n')) {
      const { execute, id } = JSON.parse(line) as { execute: string; id: number };
      this.push(`{${this.#answer(execute)}, "id": ${id}}\r\n`);
    }
    done();
  }
}

test('commands get their answers, refusals are errors, events are kept', async () => {
  const monitor = new Monitor((command) =>
    command === 'wrong' ? '"error": {"desc": "no such thing"}' : '"return": {"n": 1}',
  );
  const qmp = new QmpClient(monitor);
  monitor.push('{"event": "RESET", "data": {}}\r\n{"eve');
  monitor.push('nt": "STOP"}\r\n');
  assert.deepEqual(await qmp.command('query'), { n: 1 });
  await assert.rejects(qmp.command('wrong'), { code: 'protocol', message: /wrong.*no such thing/ });
  assert.deepEqual(qmp.events, ['RESET', 'STOP']);
});

test('when QEMU is gone, or talks nonsense, every command fails', async () => {
  const gone = new QmpClient(new Monitor(() => '"return": {}'));
  await gone.command('query');
  gone.fail(new Error('gone'));
  await assert.rejects(gone.command('query'), /gone/);
  const nonsense = new QmpClient(new Monitor(() => 'nonsense'));
  await assert.rejects(nonsense.command('query'), { code: 'protocol' });
});
