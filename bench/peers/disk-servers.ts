/** The two sides of the comparison of disks: whoever serves a file by vhost-user-blk. */
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../src/base/errors.ts';
import { loadConfig } from '../../src/daemon/config.ts';
import { SharedDirectories } from '../../src/guest/guest-process.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import { SERVER_POLL_US } from './disk-work.ts';
import { PeerProcess } from './peer-process.ts';

const START_TIMEOUT_MS = 60_000;

/** What a server is given. */
export interface DiskServerPlace {
  /** A directory of its own, for its socket. */
  readonly directory: string;
  readonly cpu: number;
  readonly file: string;
  /** Open the file with O_DIRECT. */
  readonly direct: boolean;
  /** Poll for {@link SERVER_POLL_US} instead of what it does by default. */
  readonly polling: boolean;
}

/** A server that runs and listens. */
export interface DiskServer {
  readonly process: PeerProcess;
  readonly socket: string;
}

export interface DiskServerKind {
  readonly name: string;
  start(place: DiskServerPlace): Promise<DiskServer>;
}

/** A server whose socket is there; if none appears, it is stopped. */
async function listening(process: PeerProcess, socket: string): Promise<DiskServer> {
  try {
    await process.until('socket', START_TIMEOUT_MS, () => existsSync(socket) || undefined);
  } catch (error) {
    await process.stop();
    throw error;
  }
  return { process, socket };
}

/** QEMU's, with an iothread and io_uring; it polls for up to 32 us by default. */
export function qemuDiskServer(testbed: Testbed): DiskServerKind {
  return {
    name: 'qemu-storage-daemon',
    start: async ({ directory, cpu, file, direct, polling }) => {
      const shared = new SharedDirectories();
      const socket = join(directory, 'disk.sock');
      const node = ['driver=file,node-name=file0', `filename=${shared.inside(file)}`];
      if (direct) node.push('cache.direct=on');
      const thread = ['iothread,id=thread0'];
      if (polling) thread.push(`poll-max-ns=${SERVER_POLL_US * 1e3}`);
      const served = ['type=vhost-user-blk,id=export0,node-name=file0,iothread=thread0'];
      served.push(`addr.type=unix,addr.path=${shared.inside(socket)},num-queues=1,writable=on`);
      const command = [
        ...[testbed.enter, ...shared.options(), '--', 'taskset', '--cpu-list', String(cpu)],
        ...['qemu-storage-daemon', '--blockdev', [...node, 'aio=io_uring'].join(',')],
        ...['--object', thread.join(','), '--export', served.join(',')],
      ];
      return await listening(new PeerProcess({ name: 'qemu-storage-daemon', command }), socket);
    },
  };
}

/** `11.1.3` */
export function qemuVersion(testbed: Testbed): string {
  const command = ['--', 'qemu-storage-daemon', '--version'];
  const { stdout, stderr } = spawnSync(testbed.enter, command, { encoding: 'utf8' });
  const version = /version (\d[\d.]*)/.exec(stdout)?.[1];
  if (version === undefined) {
    throw new SluiceError('not-found', `the testbed has no qemu-storage-daemon: ${stderr}`, {
      remedy: 'Run scripts/testbed build as root.',
    });
  }
  return version;
}

/** `sluice up` with one lane and one disk. */
export function sluiceDiskServer(program: string): DiskServerKind {
  return {
    name: 'sluice',
    start: async ({ directory, cpu, file: image, direct, polling }) => {
      const file = join(directory, 'sluice.yaml');
      // JSON is YAML.
      const text = {
        run: join(directory, 'run'),
        lanes: [{ cpus: [cpu], ...(polling ? { idle_poll_us: SERVER_POLL_US } : {}) }],
        disks: { disk: { file: image, direct } },
        guests: { client: { disk: [{ method: 'paravirtual', disk: 'disk' }] } },
      };
      writeFileSync(file, JSON.stringify(text));
      const socket = loadConfig(file).guests[0]?.disk[0]?.socket;
      if (socket === undefined) throw new SluiceError('state', `${file} has no disk for a guest`);
      const command = ['taskset', '--cpu-list', String(cpu), program, 'up', file];
      return await listening(new PeerProcess({ name: 'sluice', command }), socket);
    },
  };
}

/**
 * Any command of the shell that serves the file in `FILE` at the socket in `SOCKET`; `DIRECT` is 1
 * where it is to open it with O_DIRECT, `POLL_US` is how long it is to poll (empty: its default).
 */
export function commandDiskServer(command: string): DiskServerKind {
  return {
    name: command,
    start: async ({ directory, cpu, file, direct, polling }) => {
      const socket = join(directory, 'disk.sock');
      const process = new PeerProcess({
        name: command,
        command: ['taskset', '--cpu-list', String(cpu), 'sh', '-c', command],
        environment: {
          SOCKET: socket,
          FILE: file,
          DIRECT: direct ? '1' : '0',
          POLL_US: polling ? String(SERVER_POLL_US) : '',
        },
      });
      return await listening(process, socket);
    },
  };
}
