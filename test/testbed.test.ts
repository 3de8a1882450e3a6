/**
 * The testbed itself, without Sluice: both kinds of guests boot, take commands, restart and leave
 * nothing behind, and two of them reach each other over DPDK's vhost-user back-end.
 */
// suite: takes=65 timeout=900
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestProcess } from '../src/guest/guest-process.ts';
import { startQemu } from '../src/guest/qemu.ts';
import { startUml } from '../src/guest/uml.ts';
import { iperf, ping, startHosts, transfer } from './support/guests.ts';
import { socketDirectory, withoutTestbed } from './support/testbed.ts';
import { startWire } from './support/testpmd.ts';

/** Process ids of the children of a process, and of their children. */
function descendants(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    let stat: string;
    try {
      stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
    } catch {
      continue; // It ended meanwhile.
    }
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
  }
  const found = [pid];
  for (let at = 0; at < found.length; at++) found.push(...(children.get(found[at] ?? 0) ?? []));
  return found.slice(1);
}

function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

/** An emulated guest beside other suites is slow. */
const PATIENT = { timeoutMs: 240_000 };

async function exercise(guest: GuestProcess): Promise<void> {
  await guest.booted();
  assert.deepEqual(await guest.run('echo out; echo err >&2; exit 3'), {
    code: 3,
    stdout: 'out\n',
    stderr: 'err\n',
  });
  await assert.rejects(guest.sh('echo why >&2; false'), { code: 'state', message: /why/ });

  // Longer than any buffer on the way, in both directions.
  const script = `: ${'x'.repeat(6_000)}\nseq 1 60000`;
  const numbers = await guest.sh(script, PATIENT);
  assert.equal(numbers.split('\n').length, 60_000);
  assert.ok(numbers.endsWith('\n60000'));

  const replies = await Promise.all(
    Array.from({ length: 6 }, (_, index) => guest.sh(`sleep 0.1; seq ${index} 5000`, PATIENT)),
  );
  for (const [index, reply] of replies.entries()) assert.ok(reply.startsWith(`${index}\n`));

  await assert.rejects(guest.run('exec sleep 4711', { timeoutMs: 300 }), { code: 'state' });
  await guest.sh('while busybox ps | grep -q "sleep 471[1]"; do sleep 0.1; done', PATIENT);

  const pid = guest.pid ?? assert.fail('no process');
  const processes = descendants(pid);
  assert.notEqual(processes.length, 0);

  await guest.sh('touch /tmp/before');
  await guest.reboot();
  assert.equal((await guest.run('[ -e /tmp/before ]')).code, 1, 'it has restarted');

  assert.deepEqual(await guest.powerOff(), { code: 0, signal: null });
  for (const process of [pid, ...processes]) {
    assert.ok(!isAlive(process));
  }
  await assert.rejects(guest.run('true'), { code: 'state', message: /ended/ });
}

describe('testbed', { skip: withoutTestbed() }, () => {
  test('a QEMU guest boots, runs commands, restarts and ends without a trace', async () => {
    await using guest = startQemu({ name: 'qemu', tools: true });
    await guest.booted();
    assert.match(await guest.sh('uname -r'), /-amd64$/);
    assert.match(await guest.sh('fio --version'), /^fio-/);
    assert.deepEqual(await guest.qmp('query-status'), { running: true, status: 'running' });
    await assert.rejects(guest.qmp('no-such-command'), { code: 'protocol' });
    await exercise(guest);
    assert.ok(guest.events.includes('RESET'));
  });

  test('a User-Mode Linux guest boots, runs commands, restarts and ends without a trace', async () => {
    await using guest = startUml({ name: 'uml' });
    await exercise(guest);
  });

  test('a guest that cannot start says why', async () => {
    await using guest = startQemu({ name: 'wrong', options: () => ['-device', 'no-such-device'] });
    await assert.rejects(guest.booted(), { code: 'state', message: /no-such-device/ });
    await using panicking = startUml({ name: 'panicking', kernelParameters: 'init=/none' });
    await assert.rejects(panicking.booted(), { code: 'state', message: /panic/ });
  });

  test('a guest dies with its launcher', async () => {
    const uml = new URL('../src/guest/uml.ts', import.meta.url).href;
    const launcher = spawn(process.execPath, [
      '--eval',
      `import(${JSON.stringify(uml)}).then(async ({ startUml }) => {
        await startUml({ name: 'orphan' }).booted();
        console.log('booted');
      });`,
    ]);
    await once(launcher.stdout, 'data');
    const processes = descendants(launcher.pid ?? assert.fail('no process'));
    assert.ok(processes.length > 2);
    launcher.kill('SIGKILL');
    await once(launcher, 'close');
    for (const process of processes) while (isAlive(process)) await sleep(10);
  });

  test('two QEMU guests reach each other over DPDK', async (t) => {
    const directory = socketDirectory(t);
    const sockets = [join(directory, 'a.sock'), join(directory, 'b.sock')] as const;
    await startWire(t, sockets);
    const [a, b] = await startHosts(t, 'qemu', [
      { name: 'a', socket: sockets[0], mac: '52:54:00:00:00:01' },
      { name: 'b', socket: sockets[1], mac: '52:54:00:00:00:02' },
    ]);
    assert.ok(a !== undefined && b !== undefined);
    assert.equal((await ping(a, b)).received, 3);
    assert.equal((await ping(b, a, { ipv6: true })).received, 3);
    assert.ok((await iperf(a, b, { seconds: 1 })).bytes > 0);
    const { datagrams, lost } = await iperf(a, b, { seconds: 1, udpLength: 512, bitrate: '5M' });
    assert.ok(datagrams > lost);
    const { sent, received } = await transfer(a, b, { mebibytes: 4 });
    assert.equal(received, sent);
  });
});
