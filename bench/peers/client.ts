/**
 * The client: testpmd with two virtio_user ports on one processor. Frames circulate: what comes in
 * at one port goes out at the other, so a switch that is slow gets less to do, and none is lost.
 *
 * In `io` mode a frame is never rewritten. The first ones that a port sends carry that port's
 * address as source and, by `set eth-peer`, the other port's as destination; each comes back to
 * the port that it left by, so every port only ever sends frames of its own address. A learning
 * switch sees what two quarrelsome hosts would send, and never an address that moves.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../src/base/errors.ts';
import { SharedDirectories } from '../../src/guest/guest-process.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import type { Measured } from './pairs.ts';
import { disturbance, occupancy, takeSnapshot } from './processor-time.ts';
import { CLIENT_MACS, type RunningSwitch } from './switches.ts';
import { type PortStats, Testpmd } from './testpmd.ts';
import { BURST, framesOf, memoryArguments, RING_SIZE, type Workload } from './workload.ts';

export const CLIENT_MEMORY_MIB = 768;
/** How long frames that are on their way may take to arrive before they count as lost. */
const DRAIN_MS = 5000;
const POLL_MS = 20;

export interface SampleOptions {
  readonly testbed: Testbed;
  readonly workload: Workload;
  readonly clientCpu: number;
  readonly switchCpu: number;
  /** Seconds before the measurement, and of it. */
  readonly warmup: number;
  readonly seconds: number;
}

/** What was seen of one switch in one go. `value`: 10^6 frames a second at both ports together. */
export interface Sample extends Measured {
  /** Frames that still circulated at the end, of those that were sent first. */
  readonly circulating: number;
  /** Part of its processor that the switch's busiest thread had. */
  readonly busy: number;
}

function startClient(running: RunningSwitch, options: SampleOptions): Testpmd {
  const { testbed, workload, clientCpu } = options;
  const shared = new SharedDirectories();
  const ports = running.sockets.flatMap((socket, port) => [
    '--vdev',
    [
      `net_virtio_user${port}`,
      `path=${shared.inside(socket)}`,
      `mac=${CLIENT_MACS[port]}`,
      `packed_vq=${workload.packed ? 1 : 0}`,
      'mrg_rxbuf=1',
      'in_order=1',
      `queue_size=${RING_SIZE}`,
    ].join(','),
  ]);
  return new Testpmd({
    name: 'client',
    testbed,
    shared,
    cpu: clientCpu,
    memoryMib: CLIENT_MEMORY_MIB,
    // One file for all of its memory: a vhost-user message holds the fds of eight regions at most.
    environment: ['--single-file-segments', ...ports],
    application: [
      '--forward-mode=io',
      '--no-flush-rx',
      `--burst=${BURST}`,
      ...memoryArguments(workload),
    ],
  });
}

const sumOf = (ports: readonly PortStats[], key: keyof PortStats): number =>
  ports.reduce((sum, port) => sum + port[key], 0);

/** Stops sending, takes the frames that still circulate, and returns how many they were. */
async function drain(client: Testpmd, workload: Workload): Promise<number> {
  await client.stopForwarding();
  const before = sumOf(await client.portStats(), 'rxFrames');
  await client.command('set fwd rxonly');
  await client.command('start');
  const deadline = performance.now() + DRAIN_MS;
  for (;;) {
    const circulating = sumOf(await client.portStats(), 'rxFrames') - before;
    if (circulating >= framesOf(workload) || performance.now() > deadline) return circulating;
    await sleep(POLL_MS);
  }
}

/**
 * Runs the client against a switch.
 * @throws SluiceError `state` if no frames arrive, or one of the two ends.
 */
export async function takeSample(running: RunningSwitch, options: SampleOptions): Promise<Sample> {
  const { workload, clientCpu, switchCpu, warmup, seconds } = options;
  await using client = startClient(running, options);
  await client.ready();
  await client.command(`set eth-peer 0 ${CLIENT_MACS[1]}`);
  await client.command(`set eth-peer 1 ${CLIENT_MACS[0]}`);
  await client.command(`set txpkts ${workload.frame}`);
  await client.command(`start tx_first ${workload.bursts}`);
  await sleep(warmup * 1e3);

  const snapshots = () => ({
    client: takeSnapshot(client.process.pid, clientCpu),
    other: takeSnapshot(running.process.pid, switchCpu),
  });
  // The first answer starts the clock by which testpmd itself computes the rates in the second.
  await client.portStats();
  const before = snapshots();
  await sleep(seconds * 1e3);
  const after = snapshots();
  const ports = await client.portStats();

  const circulating = await drain(client, workload);
  const later = snapshots();

  const switchTime = occupancy(before.other, after.other, later.other);
  const disturbed =
    disturbance('the client', occupancy(before.client, after.client, later.client)) ??
    disturbance('the switch', switchTime);
  const rate = sumOf(ports, 'rxRate');
  if (rate === 0 && disturbed === undefined) {
    throw new SluiceError(
      'state',
      `${running.process.name} forwards nothing (the client sent ${sumOf(ports, 'txFrames')} frames); it said:
${running.process.output.slice(-3000)}`,
    );
  }
  return { value: rate / 1e6, circulating, busy: switchTime.busiest, disturbed };
}
