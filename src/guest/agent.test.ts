import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { AgentChannel } from './agent.ts';

/** A serial line whose far end is the test; takes every line at once unless told to be `busy`. */
class Line extends Duplex {
  readonly sent: string[] = [];
  busy = false;

  override _read(): void {
    // Data comes by say().
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.sent.push(...chunk.toString().trimEnd().split('\n'));
    if (!this.busy) this.push('ok\n');
    done();
  }

  say(text: string): void {
    this.push(text);
  }
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const patient = 60_000;

test('a command waits for the agent and gets its own reply, whatever the order', async () => {
  const line = new Line();
  const agent = new AgentChannel(line);
  const first = agent.run('first', patient);
  const second = agent.run('second', patient);
  await turn();
  assert.deepEqual(line.sent, []);
  line.say('ready\n');
  await turn();
  await turn();
  assert.deepEqual(line.sent, ['run 1 first', 'run 2 second']);
  line.say(`done 2 0 ${base64('zwei ä\n')} -\ndone 1 3`);
  assert.deepEqual(await second, { code: 0, stdout: 'zwei ä\n', stderr: '' });
  line.say(` - ${base64('no')}\n`);
  assert.deepEqual(await first, { code: 3, stdout: '', stderr: 'no' });
});

test('a long script goes in parts, each after the last was taken', async () => {
  const line = new Line();
  line.busy = true;
  const agent = new AgentChannel(line);
  line.say('ready\n');
  await agent.ready();
  const script = `echo ${'abc'.repeat(1500)}`;
  const reply = agent.run(script, patient);
  const whole = `echo\\0040${'abc'.repeat(1500)}`;
  let text = '';
  for (let parts = 1; text.length < whole.length; parts++) {
    await turn();
    assert.equal(line.sent.length, parts);
    const [verb, id, part] = (line.sent.at(-1) ?? '').split(' ');
    text += part;
    assert.equal(verb, text.length < whole.length ? 'part' : 'run');
    assert.equal(id, '1');
    assert.ok((line.sent.at(-1) ?? '').length < 4000);
    line.say('ok\n');
  }
  assert.equal(text, whole);
  line.say('done 1 0 - -\n');
  assert.equal((await reply).code, 0);
});

test('a restart of the guest ends what was running, and later commands go to the new one', async () => {
  const line = new Line();
  const agent = new AgentChannel(line);
  line.say('ready\n');
  await agent.ready();
  const lost = agent.run('sleep', patient);
  await turn();
  agent.expectRestart();
  const next = agent.run('next', patient);
  await turn();
  assert.equal(line.sent.length, 1);
  line.say('ready\n');
  await assert.rejects(lost, { code: 'state' });
  await turn();
  await turn();
  line.say('done 2 0 - -\n');
  assert.equal((await next).code, 0);
});

test('a command without an answer is killed in the guest, and its late reply harms nobody', async () => {
  const line = new Line();
  const agent = new AgentChannel(line);
  line.say('ready\n');
  await agent.ready();
  await assert.rejects(agent.run('sleep 99', 1), { code: 'state', message: /sleep 99/ });
  assert.equal(line.sent.at(-1), 'kill 1');
  const next = agent.run('true', patient);
  await turn();
  line.say('done 1 137 - -\ndone 2 0 - -\n');
  assert.equal((await next).code, 0);
});

test('a guest that stops, or talks nonsense, fails everybody who waits', async () => {
  const line = new Line();
  const agent = new AgentChannel(line);
  const waiting = agent.run('true', patient);
  agent.fail(new Error('gone'));
  await assert.rejects(waiting, /gone/);
  await assert.rejects(agent.ready(), /gone/);

  const noisy = new Line();
  const other = new AgentChannel(noisy);
  const ready = other.ready();
  noisy.say('done 1\n');
  await assert.rejects(ready, { code: 'protocol' });
});

test("the shell's printf makes a script of what is sent", async () => {
  const script = `printf '%s\\n' "$(echo a\\\\b)" ä '\\c' "\t*"; : 100% -n\n`;
  const line = new Line();
  const agent = new AgentChannel(line);
  line.say('ready\n');
  const reply = agent.run(script, patient);
  await turn();
  await turn();
  const [, , text = ''] = (line.sent[0] ?? '').split(' ');
  assert.match(text, /^[!-~]+$/);
  assert.equal(execFileSync('sh', ['-c', 'printf %b "$1"', 'sh', text]).toString(), script);
  line.say('done 1 0 - -\n');
  await reply;
});
