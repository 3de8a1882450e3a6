/**
 * Real guests: Linux under QEMU or User-Mode Linux from the testbed, with iperf3 and ping as their
 * workload. Their frames are counted at the ports of the driver domain; segmentation is left to the
 * receiver, so most frames are larger than the MTU.
 */

import { SluiceError } from '../base/errors.ts';
import type { GuestProcess } from '../guest/guest-process.ts';
import { startQemu } from '../guest/qemu.ts';
import { findTestbed, missingTestbed } from '../guest/testbed.ts';
import { startUml } from '../guest/uml.ts';
import { ETHERNET_HEADER_BYTES } from '../spec/ethernet.ts';
import type { BenchGuests, GuestSample, Latency, RunTotals } from './bench-guests.ts';
import type { Flow } from './flows.ts';
import { type IperfResult, parseIperf, parsePing, quantile } from './iperf-report.ts';
import type { DomainCard, DomainSample } from './private-domain.ts';
import { treeCpuNs } from './process-tree.ts';

export interface RealGuestsOptions {
  readonly kind: 'qemu' | 'uml';
  readonly guests: readonly DomainCard[];
  readonly flows: readonly Flow[];
  /** Bytes of the largest frame on a wire: the guests' MTU and an Ethernet header. */
  readonly frame: number;
  /** The MTU that the device tells; undefined if it tells none. */
  readonly mtu: number | undefined;
  /** Processors of each guest; undefined leaves it to the kernel. */
  readonly places: readonly (readonly number[] | undefined)[];
  readonly packed: boolean;
  readonly queues: number;
  /** How long a run's traffic lasts, warm-up included. */
  readonly trafficSeconds: number;
  /** Ends the start early. */
  readonly signal?: AbortSignal | undefined;
}

const INTERFACE = 'eth0';
const IPERF_PORT = 5201;
const PINGS = 500;
/** ping(8): root may go below 2 ms. */
const PING_INTERVAL = '0.002';

/** The largest frame that TCP hands down when the device segments (net/core, GSO_LEGACY_MAX_SIZE). */
const LARGEST_SEGMENT = 65536;
/** A TCP stream's data: tcp_wmem and tcp_rmem grow to 4 MiB and 6 MiB by themselves (tcp(7)). */
const STREAM_BUFFERS = 10 * 2 ** 20;

/** @throws SluiceError `not-found` where there is no testbed, or this user is not root. */
export async function startRealGuests(options: RealGuestsOptions): Promise<RealGuests> {
  const missing = missingTestbed();
  if (missing !== undefined) {
    throw new SluiceError('not-found', `--guest ${options.kind}: ${missing}`, {
      remedy: 'run scripts/testbed build as root, or use --guest embedded',
    });
  }
  const testbed = findTestbed();
  const { kind, packed, queues, places } = options;
  const mtu = options.mtu === undefined ? {} : { mtu: options.mtu };
  const started: GuestProcess[] = [];
  const killAll = (): Promise<unknown> => Promise.all(started.map((guest) => guest.kill()));
  const killAtOnce = (): void => void killAll();
  options.signal?.addEventListener('abort', killAtOnce);
  try {
    for (const [index, { name, socket, mac }] of options.guests.entries()) {
      // A guest of several processors is not to have them on one.
      const place = queues === 1 ? places[index] : undefined;
      const pin = place === undefined ? {} : { pin: place.join(',') };
      started.push(
        kind === 'uml'
          ? startUml({ name, testbed, ...pin, net: [{ socket }] })
          : startQemu({
              name,
              testbed,
              ...pin,
              cpus: queues,
              net: [{ socket, mac, packed, queues, ...mtu }],
            }),
      );
    }
    const guests = new RealGuests(options, started);
    await guests.configure();
    return guests;
  } catch (error) {
    await killAll();
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    options.signal?.removeEventListener('abort', killAtOnce);
  }
}

export class RealGuests implements BenchGuests {
  readonly copyBytes = LARGEST_SEGMENT;
  readonly footprint: number;
  readonly #options: RealGuestsOptions;
  readonly #guests: readonly GuestProcess[];
  #clients: Promise<IperfResult>[] = [];
  #ended = 0;

  constructor(options: RealGuestsOptions, guests: readonly GuestProcess[]) {
    this.#options = options;
    this.#guests = guests;
    this.footprint = options.flows.length * STREAM_BUFFERS;
  }

  /** Waits until all guests are up, and gives them addresses and iperf3 servers. */
  async configure(): Promise<void> {
    const mtu = this.#options.frame - ETHERNET_HEADER_BYTES;
    await Promise.all(
      this.#guests.map(async (guest, index) => {
        await guest.booted();
        await guest.sh(
          [
            'set -e',
            `ip link set ${INTERFACE} mtu ${mtu}`,
            `ip addr add ${addressOf(index)}/16 dev ${INTERFACE}`,
            `ip link set ${INTERFACE} up`,
            `iperf3 --server --daemon --port ${IPERF_PORT}`,
          ].join('\n'),
        );
      }),
    );
  }

  async measureLatency(): Promise<Latency> {
    const text = await this.#guest(0).sh(`ping -n -c ${PINGS} -i ${PING_INTERVAL} ${addressOf(1)}`);
    const trips = parsePing(text);
    return { p50: quantile(trips, 0.5), p99: quantile(trips, 0.99) };
  }

  measureWakeup(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  measureAsleepLatency(): Promise<undefined> {
    // What a guest's kernel does by itself never lets it sleep for long.
    return Promise.resolve(undefined);
  }

  async start(): Promise<void> {
    const { flows, trafficSeconds } = this.#options;
    this.#ended = 0;
    this.#clients = flows.map(async ({ from, to }) => {
      const { stdout, stderr } = await this.#guest(from).run(
        `iperf3 --client ${addressOf(to)} --port ${IPERF_PORT} --time ${trafficSeconds} --json`,
        { timeoutMs: (trafficSeconds + 60) * 1000 },
      );
      this.#ended++;
      return parseIperf(stdout === '' ? JSON.stringify({ error: stderr }) : stdout);
    });
    // Who fails is heard of in stop(); until then it is no unhandled rejection.
    for (const client of this.#clients) client.catch(() => undefined);
    await Promise.resolve();
  }

  sample({ ports }: DomainSample): Promise<GuestSample> {
    if (this.#ended > 0) {
      return Promise.reject(
        new SluiceError('state', 'iperf3 in a guest ended before the run did', {
          remedy: 'give the machine less to do, or choose fewer guests',
        }),
      );
    }
    const receivers = this.#options.flows.map(({ to }) => ports[to]);
    return Promise.resolve({
      flowBytes: receivers.map((port) => port?.rx_bytes ?? 0),
      frames: receivers.reduce((sum, port) => sum + (port?.rx_frames ?? 0), 0),
      waitNs: undefined,
      cpuNs: treeCpuNs(this.#guests.flatMap(({ pid }) => (pid === undefined ? [] : [pid]))),
    });
  }

  async stop(): Promise<RunTotals> {
    const results = await Promise.all(this.#clients);
    return {
      frames: undefined,
      errors: undefined,
      tcpRetransmits: results.reduce((sum, { retransmits }) => sum + retransmits, 0),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#guests.map((guest) => guest.kill()));
  }

  #guest(index: number): GuestProcess {
    const guest = this.#guests[index];
    if (guest === undefined) throw new SluiceError('not-found', `there is no guest ${index}`);
    return guest;
  }
}

function addressOf(guest: number): string {
  return `10.77.${(guest + 1) >> 8}.${(guest + 1) & 0xff}`;
}
