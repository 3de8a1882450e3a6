/**
 * Embedded guests as the guests of a bench: sources and sinks for traffic, an echo for round trips.
 * Their threads count frames themselves, so what is reported is what guests got.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../base/errors.ts';
import { type EmbeddedGuests, newFlow } from '../guest/embedded/launcher.ts';
import type { PingEnd } from '../guest/embedded/ping.ts';
import type { GuestInfo, ProcessReading, RoleSpec } from '../guest/embedded/protocol.ts';
import { NO_COUNTS, type RoleCounts } from '../guest/embedded/role.ts';
import { threadSchedule } from '../os/schedule.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';
import type { BenchGuests, GuestSample, Latency, RunTotals } from './bench-guests.ts';
import type { Flow } from './flows.ts';
import { type GuestHomes, type Member, settleGuests, startGuestHomes } from './guest-processes.ts';
import type { DomainCard, DomainSample } from './private-domain.ts';
import type { Method } from './report-schema.ts';
import { mean } from './statistics.ts';

export interface EmbeddedBenchOptions {
  readonly method: Method;
  readonly guests: readonly DomainCard[];
  readonly flows: readonly Flow[];
  readonly frame: number;
  readonly packed: boolean;
  readonly queues: number;
  readonly verify: boolean;
  readonly rate?: number | undefined;
  /** Guests are driven by interrupts. */
  readonly itr?: number | 'adaptive' | undefined;
}

const LATENCY_MS = 100;
/** Descriptors of rings of guests that wait for interrupts: at 10 Gb/s frames of half a millisecond are more than 400. */
const INTERRUPT_RING = 1024;
/** Long enough for both ends and the lane to go to sleep between two round trips. */
const ASLEEP_INTERVAL_US = 2000;
const ASLEEP_MS = 500;
/** Fewer are no sample; more than so long is not waited for them. */
const LEAST_TRIPS = 20;
const MOST_LATENCY_MS = 10_000;
const FIND_MS = 50;
/** Sinks have taken all that was delivered when two looks this far apart find the same. */
const SETTLE_MS = 3;
const SETTLE_LOOKS = 200;

/** Starts processes for the guests of a bench: that takes no driver domain yet. */
export function startBenchHomes(
  { guests, itr }: { readonly guests: number; readonly itr?: EmbeddedBenchOptions['itr'] },
  cpus: readonly number[] | undefined,
): Promise<GuestHomes> {
  // Who waits for interrupts sleeps at once when there is nothing to do.
  return startGuestHomes(guests, cpus, itr === undefined ? {} : { idlePollUs: 0 });
}

/** Attaches guests in processes that were started for them, which are theirs from now on. */
export async function startEmbeddedGuests(
  options: EmbeddedBenchOptions,
  homes: GuestHomes,
): Promise<EmbeddedBenchGuests> {
  const { guests, method, packed, queues, frame, itr } = options;
  const attach = async (home: EmbeddedGuests, { name, socket, mac }: DomainCard) => {
    const info = await home.attach({
      name,
      method,
      socket,
      mac,
      frame,
      queuePairs: queues,
      wishes: { packed, multiqueue: queues > 1 },
      ...(itr === undefined ? {} : { interrupts: itr, queueSize: INTERRUPT_RING }),
    });
    if (packed && !info.packed) {
      throw new SluiceError('unsupported', `guest ${name} was offered no packed rings`);
    }
    return info;
  };
  const started = await settleGuests(homes, guests, attach);
  return new EmbeddedBenchGuests(options, started.processes, started.members, started.lost);
}

/** A pair of queues of the pinging guest, and the flow that it pings with. */
interface PingPath {
  readonly pair: number;
  readonly flow: number;
}

export class EmbeddedBenchGuests implements BenchGuests {
  readonly copyBytes: number;
  readonly footprint: number;
  readonly #options: EmbeddedBenchOptions;
  readonly #processes: readonly EmbeddedGuests[];
  readonly #members: readonly Member<GuestInfo>[];
  /** Guests that lost their device; filled as it happens. */
  readonly #lost: readonly string[];

  constructor(
    options: EmbeddedBenchOptions,
    processes: readonly EmbeddedGuests[],
    members: readonly Member<GuestInfo>[],
    lost: readonly string[],
  ) {
    this.#options = options;
    this.#processes = processes;
    this.#members = members;
    this.#lost = lost;
    this.copyBytes = options.frame;
    this.footprint = options.flows.reduce((sum, { from, to }) => {
      const frames = this.#member(from).info.sendFrames + this.#member(to).info.receiveBuffers;
      return sum + options.queues * frames * (NET_HEADER_BYTES + options.frame);
    }, 0);
  }

  measureLatency(): Promise<Latency> {
    return this.#ping(LATENCY_MS, 0);
  }

  /** Round trips that find lane and guests asleep, in microseconds. */
  measureAsleepLatency(): Promise<Latency> {
    return this.#ping(ASLEEP_MS, ASLEEP_INTERVAL_US);
  }

  /** From a kick that finds the lane asleep to when it has taken the frame, in microseconds. */
  measureWakeup(): Promise<Latency> {
    return this.#ping(ASLEEP_MS, ASLEEP_INTERVAL_US, 'taken');
  }

  /** Both guests must be in one process: what one notes the other sees. */
  async measureDelivery(): Promise<Latency | undefined> {
    if (this.#member(0).home !== this.#member(1).home || this.#options.queues !== 1)
      return undefined;
    return await this.#ping(LATENCY_MS, 0, 'found');
  }

  async start(): Promise<void> {
    const { flows, frame, rate, verify, queues } = this.#options;
    const sourceTo = new Map(flows.map(({ from, to }) => [from, this.#member(to).info.mac]));
    const roles = this.#members.map((_, guest): RoleSpec[] => {
      const mac = sourceTo.get(guest);
      return Array.from({ length: queues }, () => ({
        role: 'traffic',
        ...(verify ? { verifyEvery: 1 } : {}),
        ...(mac === undefined
          ? {}
          : {
              source: {
                targets: [{ mac, flow: newFlow() }],
                frame,
                ...(rate === undefined ? {} : { rate: rate / queues }),
              },
            }),
      }));
    });
    // Receivers of one process may have to wait for the senders of another: sinks drop nothing by it,
    // since every guest receives from the moment it is attached.
    await this.#startRoles(roles);
  }

  async sample(_domain: DomainSample): Promise<GuestSample> {
    const readings = await this.#read();
    const counts = this.#countsOf(readings);
    const received = this.#options.flows.map(({ to }) => counts[to] ?? NO_COUNTS);
    return {
      flowBytes: received.map(({ receivedBytes }) => receivedBytes),
      frames: received.reduce((sum, one) => sum + one.received, 0),
      cpuNs: readings.reduce((sum, { cpuUs }) => sum + cpuUs * 1000, 0),
      waitNs: mean(this.#processes.map(({ pid }) => threadSchedule(pid).waitNs)),
    };
  }

  async stop(): Promise<RunTotals> {
    await this.#stopAll();
    const counts = await this.#settledCounts();
    const sum = (count: (counts: RoleCounts) => number): number =>
      counts.reduce((total, one) => total + count(one), 0);
    const duplicated = sum(({ duplicates }) => duplicates);
    const sent = sum((one) => one.sent);
    const arrived = sum((one) => one.received) - duplicated;
    return {
      frames: { sent, lost: Math.max(0, sent - arrived) },
      errors: {
        reordered: sum(({ reordered }) => reordered),
        duplicated,
        corrupt: sum(({ corrupt, badMetadata }) => corrupt + badMetadata),
      },
      tcpRetransmits: undefined,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#processes.map((process) => process.close()));
  }

  async #ping(ms: number, intervalUs: number, until: PingEnd = 'echo'): Promise<Latency> {
    const { queues } = this.#options;
    const path = queues === 1 ? { pair: 0, flow: newFlow() } : await this.#findPath();
    // On a busy machine the time may pass without anybody having run.
    const deadline = performance.now() + MOST_LATENCY_MS;
    await this.#startPings([path], intervalUs, until);
    let trips = 0;
    while (trips < LEAST_TRIPS && performance.now() < deadline) {
      await sleep(ms);
      trips = (await this.#pings())[path.pair]?.roundTrips ?? 0;
    }
    await this.#stopAll();
    const counts = (await this.#pings())[path.pair];
    if (counts === undefined || counts.roundTrips === 0) throw noRoundTrip();
    return counts.latencyUs;
  }

  /**
   * A flow whose replies come to the pair of queues that it was sent from: which one, the device
   * decides by its hash. So each pair tries a flow, until one has its frames back.
   */
  async #findPath(): Promise<PingPath> {
    const deadline = performance.now() + MOST_LATENCY_MS;
    while (performance.now() < deadline) {
      const paths = Array.from({ length: this.#options.queues }, (_, pair) => ({
        pair,
        flow: newFlow(),
      }));
      await this.#startPings(paths, 0);
      await sleep(FIND_MS);
      await this.#stopAll();
      const counts = await this.#pings();
      const found = paths.find(({ pair }) => (counts[pair]?.roundTrips ?? 0) > 0);
      if (found !== undefined) return found;
    }
    throw noRoundTrip();
  }

  async #startPings(
    paths: readonly PingPath[],
    intervalUs: number,
    until: PingEnd = 'echo',
  ): Promise<void> {
    const { frame, queues } = this.#options;
    const { mac } = this.#member(1).info;
    const pings = Array.from({ length: queues }, (_, pair): RoleSpec => {
      const path = paths.find((one) => one.pair === pair);
      return path === undefined
        ? { role: 'traffic' }
        : { role: 'ping', mac, flow: path.flow, frame, intervalUs, until };
    });
    const echoes = Array.from(
      { length: queues },
      (): RoleSpec => ({ role: until === 'found' ? 'watch' : 'echo' }),
    );
    await this.#startRoles([pings, echoes]);
  }

  /** Counts of the pinging guest, by pair of queues. */
  async #pings(): Promise<readonly RoleCounts[]> {
    return this.#pairsOf(await this.#read(), this.#member(0));
  }

  /** Gives the first guests roles; the others keep theirs, which have been stopped. */
  async #startRoles(roles: readonly (readonly RoleSpec[])[]): Promise<void> {
    await Promise.all(
      this.#processes.map((process) => {
        const own = this.#members.flatMap(({ home, info }, guest) => {
          const specs = roles[guest];
          return home === process && specs !== undefined ? [[info.name, specs] as const] : [];
        });
        return process.start(Object.fromEntries(own));
      }),
    );
  }

  async #stopAll(): Promise<void> {
    await Promise.all(this.#processes.map((process) => process.stop()));
  }

  async #read(): Promise<ProcessReading[]> {
    const [lost] = this.#lost;
    if (lost !== undefined) throw new SluiceError('state', lost);
    return await Promise.all(this.#processes.map((process) => process.read()));
  }

  /** The counts once the sinks have taken what lies in their queues. */
  async #settledCounts(): Promise<RoleCounts[]> {
    let counts = this.#countsOf(await this.#read());
    for (let look = 0; look < SETTLE_LOOKS; look++) {
      await sleep(SETTLE_MS);
      const next = this.#countsOf(await this.#read());
      const same = next.every(({ received }, guest) => received === counts[guest]?.received);
      counts = next;
      if (same) break;
    }
    return counts;
  }

  /** By guest, the pairs of queues added up. */
  #countsOf(readings: readonly ProcessReading[]): RoleCounts[] {
    return this.#members.map((member) =>
      this.#pairsOf(readings, member).reduce(addCounts, NO_COUNTS),
    );
  }

  #pairsOf(
    readings: readonly ProcessReading[],
    { home, info }: Member<GuestInfo>,
  ): readonly RoleCounts[] {
    return readings[this.#processes.indexOf(home)]?.guests[info.name]?.pairs ?? [];
  }

  #member(guest: number): Member<GuestInfo> {
    const member = this.#members[guest];
    if (member === undefined) throw new SluiceError('not-found', `there is no guest ${guest}`);
    return member;
  }
}

function noRoundTrip(): SluiceError {
  return new SluiceError('state', `no frame came back between guests in ${MOST_LATENCY_MS} ms`);
}

function addCounts(a: RoleCounts, b: RoleCounts): RoleCounts {
  return {
    sent: a.sent + b.sent,
    sentBytes: a.sentBytes + b.sentBytes,
    sentByFlow: { ...a.sentByFlow, ...b.sentByFlow },
    received: a.received + b.received,
    receivedBytes: a.receivedBytes + b.receivedBytes,
    missing: a.missing + b.missing,
    reordered: a.reordered + b.reordered,
    duplicates: a.duplicates + b.duplicates,
    verified: a.verified + b.verified,
    corrupt: a.corrupt + b.corrupt,
    badMetadata: a.badMetadata + b.badMetadata,
    foreign: a.foreign + b.foreign,
    roundTrips: a.roundTrips + b.roundTrips,
    timeouts: a.timeouts + b.timeouts,
    // Of several pairs together they mean nothing; see #pings.
    latencyUs: NO_COUNTS.latencyUs,
  };
}
