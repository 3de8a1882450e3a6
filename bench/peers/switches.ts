/**
 * The two sides of the comparison: whoever serves two vhost-user sockets and moves frames from
 * each to the other, on one processor.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../src/base/errors.ts';
import { loadConfig } from '../../src/daemon/config.ts';
import { SharedDirectories } from '../../src/guest/guest-process.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import { PeerProcess } from './peer-process.ts';
import { Testpmd } from './testpmd.ts';
import { memoryArguments, type Workload } from './workload.ts';

const START_TIMEOUT_MS = 20_000;
const DPDK_MEMORY_MIB = 512;

/** Locally administered addresses of the client's two ports. */
export const CLIENT_MACS = ['52:54:00:00:00:10', '52:54:00:00:00:11'] as const;

export type SocketPair = readonly [string, string];

/** A switch that runs. */
export interface RunningSwitch extends AsyncDisposable {
  readonly process: PeerProcess;
  readonly sockets: SocketPair;
}

/** What a switch is given: a directory of its own, a processor, and what is going to come. */
export interface SwitchPlace {
  readonly directory: string;
  readonly cpu: number;
  readonly workload: Workload;
}

export interface SwitchKind {
  readonly name: string;
  /** Huge pages it takes, in MiB. */
  readonly hugePagesMib: number;
  /** Resolves when both sockets are listened on. */
  start(place: SwitchPlace): Promise<RunningSwitch>;
}

function bothExist(sockets: SocketPair): true | undefined {
  return sockets.every((socket) => existsSync(socket)) ? true : undefined;
}

/** DPDK's vhost library between two ports of testpmd, which moves bursts without a look (`io`). */
export function dpdkSwitch(testbed: Testbed): SwitchKind {
  return {
    name: 'dpdk',
    hugePagesMib: DPDK_MEMORY_MIB,
    start: async ({ directory, cpu, workload }) => {
      const shared = new SharedDirectories();
      const sockets: SocketPair = [join(directory, 'net0.sock'), join(directory, 'net1.sock')];
      const testpmd = new Testpmd({
        name: 'peer',
        testbed,
        shared,
        cpu,
        memoryMib: DPDK_MEMORY_MIB,
        environment: sockets.flatMap((socket, port) => [
          '--vdev',
          `net_vhost${port},iface=${shared.inside(socket)}`,
        ]),
        application: ['--forward-mode=io', ...memoryArguments(workload)],
      });
      return await running(testpmd.process, sockets, async () => {
        await testpmd.ready();
        await testpmd.command('start');
      });
    },
  };
}

/** `sluice up` with one lane and one learning switch that has two ports. */
export function sluiceSwitch(program: string): SwitchKind {
  return {
    name: 'sluice',
    hugePagesMib: 0,
    start: async ({ directory, cpu, workload: { packed } }) => {
      const file = join(directory, 'sluice.yaml');
      const net = CLIENT_MACS.map((mac) => ({ method: 'paravirtual', switch: 'lan', mac, packed }));
      // JSON is YAML.
      const text = {
        run: join(directory, 'run'),
        lanes: [{ cpus: [cpu] }],
        switches: { lan: { wire: 'none' } },
        guests: { client: { net } },
      };
      writeFileSync(file, JSON.stringify(text));
      const [first, second] = loadConfig(file).guests.flatMap((guest) => guest.net);
      if (first === undefined || second === undefined) {
        throw new SluiceError('state', `${file} does not have two network cards`);
      }
      const sockets: SocketPair = [first.socket, second.socket];
      const command = ['taskset', '--cpu-list', String(cpu), program, 'up', file];
      return await served(new PeerProcess({ name: 'sluice', command }), sockets);
    },
  };
}

/**
 * Any command of the shell that serves two vhost-user sockets, whose paths are in its environment:
 * `SOCKET0`, `SOCKET1`; and `PACKED` is 1 where the client is going to ask for packed rings.
 */
export function commandSwitch(command: string): SwitchKind {
  return {
    name: command,
    hugePagesMib: 0,
    start: async ({ directory, cpu, workload: { packed } }) => {
      const sockets: SocketPair = [join(directory, 'net0.sock'), join(directory, 'net1.sock')];
      const process = new PeerProcess({
        name: command,
        command: ['taskset', '--cpu-list', String(cpu), 'sh', '-c', command],
        environment: { SOCKET0: sockets[0], SOCKET1: sockets[1], PACKED: packed ? '1' : '0' },
      });
      return await served(process, sockets);
    },
  };
}

async function served(process: PeerProcess, sockets: SocketPair): Promise<RunningSwitch> {
  return await running(process, sockets, async () => {
    await process.until('sockets', START_TIMEOUT_MS, () => bothExist(sockets));
  });
}

/** A switch whose start is complete when `start` is; if that fails, the process is stopped. */
async function running(
  process: PeerProcess,
  sockets: SocketPair,
  start: () => Promise<void>,
): Promise<RunningSwitch> {
  try {
    await start();
  } catch (error) {
    await process.stop();
    throw error;
  }
  return { process, sockets, [Symbol.asyncDispose]: () => process.stop() };
}
