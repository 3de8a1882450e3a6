import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerProcess } from './peer-process.ts';

const shell = (script: string): PeerProcess =>
  new PeerProcess({ name: 'the shell', command: ['sh', '-c', script] });
const patient = 60_000;

/** Whether a process exists, and is not one that only its parent has yet to hear of. */
function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test('what it prints is waited for, and what it is told arrives', async () => {
  await using peer = shell('read line; echo "got $line"; read line');
  peer.write('this\n');
  const found = await peer.until('answer', patient, () =>
    peer.output.includes('\n') ? peer.output : undefined,
  );
  assert.equal(found, 'got this\n');
});

test('messages do not get into answers', async () => {
  const peer = shell('printf pro; echo noise >&2; echo mpt');
  await peer.exited;
  assert.equal(peer.answers, 'prompt\n');
  assert.match(peer.output, /noise/);
});

test('an end before what was waited for is an error with its last words', async () => {
  const peer = shell('echo sorry >&2; exit 3');
  await assert.rejects(
    peer.until('socket', patient, () => undefined),
    { code: 'state', message: /the shell: ended \(code 3\) before socket.*sorry/s },
  );
});

test('waiting has an end', async () => {
  await using peer = shell('read line');
  await assert.rejects(
    peer.until('socket', 1, () => undefined),
    { code: 'state', message: /no socket within 1 ms/ },
  );
});

test('its children end with it', async () => {
  const peer = shell('sleep 1000 & echo $!; wait');
  const child = await peer.until('child', patient, () =>
    peer.output.endsWith('\n') ? Number(peer.output) : undefined,
  );
  assert.ok(exists(child));
  await peer.stop();
  // Its parent is gone: whoever inherited it takes a moment to bury it.
  while (exists(child)) await new Promise((resolve) => setTimeout(resolve, 10));
  await peer.stop();
});

test('one that does not want to end is killed', async () => {
  const peer = shell("trap '' TERM; echo ready; while :; do read line; done");
  await peer.until('trap', patient, () => (peer.output === '' ? undefined : true));
  peer.kill();
  await peer.exited;
});

test('a program that is not there is an error', async () => {
  const peer = new PeerProcess({ name: 'nobody', command: ['./there-is-none'] });
  await assert.rejects(
    peer.until('socket', patient, () => undefined),
    { code: 'state', message: /there-is-none/ },
  );
});
