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
/** From when a side goes on to when it is measured: caches fill, a late frame arrives. */
const SETTLE_MS = 200;

export interface SideOptions {
  readonly testbed: Testbed;
  readonly workload: Workload;
  readonly clientCpu: number;
  readonly switchCpu: number;
  /** Seconds before the first sample, and of each. */
  readonly warmup: number;
  readonly seconds: number;
  /** The part of its processor's time that client or switch may lose to others in a sample. */
  readonly maxDisturbance: number;
}

/** What was seen of one switch in one go. `value`: 10^6 frames a second at both ports together. */
export interface Sample extends Measured {
  /** Part of its processor that the switch's busiest thread had. */
  readonly busy: number;
}

function startClient(running: RunningSwitch, options: SideOptions): Testpmd {
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

/**
 * A switch and its client, both running or both stopped: the sides of a comparison are all there at
 * once, and each has the machine to itself while it is measured.
 */
export class Side implements AsyncDisposable {
  readonly #switch: RunningSwitch;
  readonly #client: Testpmd;
  readonly #options: SideOptions;

  private constructor(running: RunningSwitch, client: Testpmd, options: SideOptions) {
    this.#switch = running;
    this.#client = client;
    this.#options = options;
  }

  /** Starts a client at a switch, lets frames circulate for the warm-up, and stops both. */
  static async start(running: RunningSwitch, options: SideOptions): Promise<Side> {
    const client = startClient(running, options);
    const side = new Side(running, client, options);
    try {
      await client.ready();
      await client.command(`set eth-peer 0 ${CLIENT_MACS[1]}`);
      await client.command(`set eth-peer 1 ${CLIENT_MACS[0]}`);
      await client.command(`set txpkts ${options.workload.frame}`);
      await client.command(`start tx_first ${options.workload.bursts}`);
      await sleep(options.warmup * 1e3);
      side.#pause();
    } catch (error) {
      await client[Symbol.asyncDispose]();
      throw error;
    }
    return side;
  }

  /**
   * Lets both go on for one sample.
   * @throws SluiceError `state` if no frames arrive, or one of the two ends.
   */
  async sample(): Promise<Sample> {
    const { clientCpu, switchCpu, seconds, maxDisturbance } = this.#options;
    const client = this.#client;
    const snapshots = () => ({
      client: takeSnapshot(client.process.pid, clientCpu),
      other: takeSnapshot(this.#switch.process.pid, switchCpu),
    });
    this.#resume();
    await sleep(SETTLE_MS);
    // The first answer starts the clock by which testpmd itself computes the rates in the second.
    await client.portStats();
    const before = snapshots();
    await sleep(seconds * 1e3);
    const after = snapshots();
    const ports = await client.portStats();
    const later = snapshots();
    this.#pause();

    const switchTime = occupancy(before.other, after.other, later.other);
    const clientTime = occupancy(before.client, after.client, later.client);
    const disturbed =
      disturbance('the client', clientTime, maxDisturbance) ??
      disturbance('the switch', switchTime, maxDisturbance);
    const rate = sumOf(ports, 'rxRate');
    if (rate === 0 && disturbed === undefined) {
      const { name, output } = this.#switch.process;
      throw new SluiceError(
        'state',
        `${name} forwards nothing (the client sent ${sumOf(ports, 'txFrames')} frames); it said:
${output.slice(-3000)}`,
      );
    }
    return { value: rate / 1e6, busy: switchTime.busiest, disturbed };
  }

  /** Stops sending, takes the frames that still circulate, and returns how many they were. */
  async drain(): Promise<number> {
    const client = this.#client;
    this.#resume();
    await client.stopForwarding();
    const before = sumOf(await client.portStats(), 'rxFrames');
    await client.command('set fwd rxonly');
    await client.command('start');
    const deadline = performance.now() + DRAIN_MS;
    for (;;) {
      const circulating = sumOf(await client.portStats(), 'rxFrames') - before;
      const all = circulating >= framesOf(this.#options.workload);
      if (all || performance.now() > deadline) return circulating;
      await sleep(POLL_MS);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#resume();
    await this.#client[Symbol.asyncDispose]();
    await this.#switch[Symbol.asyncDispose]();
  }

  #pause(): void {
    this.#client.process.signal('SIGSTOP');
    this.#switch.process.signal('SIGSTOP');
  }

  #resume(): void {
    this.#switch.process.signal('SIGCONT');
    this.#client.process.signal('SIGCONT');
  }
}
