/**
 * DPDK's vhost-user back-end as a wire between two guests: a peer that is not Sluice, to try
 * guests and launchers against.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { SharedDirectories } from '../../src/guest/guest-process.ts';
import { findTestbed } from '../../src/guest/testbed.ts';
import type { Cleanup } from './testbed.ts';

/** Starts testpmd forwarding between two vhost-user sockets; resolves when it listens. */
export async function startWire(t: Cleanup, sockets: readonly [string, string]): Promise<void> {
  const shared = new SharedDirectories();
  const devices = sockets.flatMap((socket, index) => [
    '--vdev',
    `net_vhost${index},iface=${shared.inside(socket)},queues=1`,
  ]);
  const child = spawn(
    findTestbed().enter,
    [
      ...shared.options(),
      '--',
      'dpdk-testpmd',
      ...['--lcores', '0,1', '--no-huge', '--no-shconf', '-m', '256', '--no-pci'],
      ...devices,
      '--',
      ...['--nb-cores=1', '--forward-mode=io', '--auto-start', '--total-num-mbufs=8192'],
    ],
    // It ends with its input.
    { stdio: ['pipe', 'pipe', 'pipe'] },
  );
  let output = '';
  let ended = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-8192);
    });
  }
  const closed = new Promise<void>((resolve) => {
    child.once('close', () => {
      ended = true;
      resolve();
    });
  });
  t.after(async () => {
    child.kill('SIGKILL');
    await closed;
  });
  while (!sockets.every((socket) => existsSync(socket))) {
    if (ended) throw new Error(`testpmd ended:\n${output}`);
    await sleep(20);
  }
}
