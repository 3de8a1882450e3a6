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
import { DEFAULT_FRAME, framesFor } from '../guest/embedded/send-window.ts';
import { threadSchedule } from '../os/schedule.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';
import type { BenchGuests, GuestSample, Latency, RunTotals } from './bench-guests.ts';
import type { Flow } from './flows.ts';
import { type GuestHomes, type Member, settleGuests, startGuestHomes } from './guest-processes.ts';
import type { DomainCard, DomainSample } from './private-domain.ts';
import type { Method } from './report-schema.ts';
import { type RingSizes, ringSizes } from './ring-sizes.ts';
import { mean } from './statistics.ts';

export interface EmbeddedBenchOptions {
  readonly method: Method;
  /** Of them, the first ones are the guests; machines outside follow. */
  readonly cards: readonly DomainCard[];
  readonly guests: number;
  readonly flows: readonly Flow[];
  readonly frame: number;
  readonly packed: boolean;
  readonly queues: number;
  readonly verify: boolean;
  readonly rate?: number | undefined;
  /** Frames a second that the wire of a machine outside carries; undefined: it has no limit. */
  readonly wireRate?: number | undefined;
  /** Guests are driven by interrupts. */
  readonly itr?: number | 'adaptive' | undefined;
  /** Receive buffers of each pair; chosen unless given. */
  readonly ring?: number | undefined;
}

const LATENCY_MS = 100;
/** Descriptors of guests that wait for interrupts, where they choose their buffers themselves. */
const INTERRUPT_QUEUE = 1024;
/** Descriptors of a machine outside, which takes what many guests send. */
const OUTSIDE_QUEUE = 1024;
/** Long enough for both ends and the lane to go to sleep between two round trips. */
const ASLEEP_INTERVAL_US = 2000;
const ASLEEP_MS = 500;
/** Between pings of a warm-up: a lane has gone to sleep by then. */
const NAP_INTERVAL_US = 200;
const WARM_UP_MS = 500;
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
  const { cards, guests, packed, queues, frame, itr } = options;
  const sizes = sizesOf(options, Math.ceil(guests / homes.processes.length));
  const inside = new Set(cards.slice(0, guests));
  const attach = async (home: EmbeddedGuests, card: DomainCard) => {
    const { name, method, socket, mac } = card;
    const place = { name, method, socket, mac, frame };
    if (!inside.has(card)) return await home.attach({ ...place, queueSize: OUTSIDE_QUEUE });
    const info = await home.attach({
      ...place,
      queuePairs: queues,
      wishes: { packed, multiqueue: queues > 1 },
      ...sizes,
      ...(itr === undefined ? {} : { interrupts: itr }),
    });
    if (packed && !info.packed) {
      throw new SluiceError('unsupported', `guest ${name} was offered no packed rings`);
    }
    return info;
  };
  const started = await settleGuests(homes, cards, attach);
  return new EmbeddedBenchGuests(options, started.processes, started.members, started.lost);
}

/** What guests are not to choose by themselves, because they do not know of each other. */
function sizesOf(
  { method, frame, queues, itr, ring }: EmbeddedBenchOptions,
  guests: number,
): Partial<RingSizes> {
  const isInterrupted = itr !== undefined;
  // Where the card is told of buffers by traps, or several pairs share them, guests know best themselves.
  const knowBest = method === 'emulated' || queues > 1 || frame > DEFAULT_FRAME;
  if (ring === undefined && knowBest) return isInterrupted ? { queueSize: INTERRUPT_QUEUE } : {};
  return ringSizes({ guests, frame, isInterrupted, ring });
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
  /** Who answers the first guest's pings. */
  readonly #partner: number;
  /** By flow: its numbers in the frames, one for each pair of queues of who sends. */
  #numbers: readonly (readonly number[])[] = [];

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
    this.#partner = members.length > options.guests ? options.guests : 1;
    this.copyBytes = options.frame;
    const { flows } = options;
    const distinct = (of: (flow: Flow) => number): number[] => [...new Set(flows.map(of))];
    const buffers = [
      ...distinct(({ from }) => from).map((member) => this.#sendFrames(member)),
      ...distinct(({ to }) => to).map((member) => this.#member(member).info.receiveBuffers),
    ];
    this.footprint =
      options.queues *
      buffers.reduce((sum, count) => sum + count, 0) *
      (NET_HEADER_BYTES + options.frame);
  }

  get rings(): { readonly receiveBuffers: number; readonly sendFrames: number } {
    return { receiveBuffers: this.#member(0).info.receiveBuffers, sendFrames: this.#sendFrames(0) };
  }

  measureLatency(): Promise<Latency> {
    return this.#ping(LATENCY_MS, 0);
  }

  /**
   * Has lane and guests compile what single frames take, and going to sleep and waking up: as they have when
   * they have been in use for a minute.
   */
  async warmUp(): Promise<void> {
    await this.#ping(WARM_UP_MS, NAP_INTERVAL_US);
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
    const partner = this.#member(this.#partner);
    if (this.#member(0).home !== partner.home || this.#options.queues !== 1) return undefined;
    return await this.#ping(LATENCY_MS, 0, 'found');
  }

  async start(): Promise<void> {
    const { flows, frame, verify } = this.#options;
    this.#numbers = flows.map(({ from }) =>
      Array.from({ length: this.#pairsOfMember(from) }, () => newFlow()),
    );
    const roles = this.#members.map((_, member): RoleSpec[] => {
      const pairs = this.#pairsOfMember(member);
      const window = this.#windowOf(member);
      const rate = this.#rateOf(member);
      return Array.from({ length: pairs }, (_, pair) => {
        const targets = flows.flatMap(({ from, to }, flow) => {
          if (from !== member) return [];
          return [{ mac: this.#member(to).info.mac, flow: this.#numbers[flow]?.[pair] as number }];
        });
        return {
          role: 'traffic',
          ...(verify ? { verifyEvery: 1 } : {}),
          ...(targets.length === 0
            ? {}
            : {
                source: {
                  targets,
                  frame,
                  ...(window === undefined ? {} : { window }),
                  ...(rate === undefined ? {} : { rate: rate / pairs }),
                },
              }),
        };
      });
    });
    // Receivers of one process may have to wait for the senders of another: sinks drop nothing by it,
    // since every guest receives from the moment it is attached.
    await this.#startRoles(roles);
  }

  async sample(_domain: DomainSample): Promise<GuestSample> {
    const readings = await this.#read();
    const counts = this.#countsOf(readings);
    return {
      flowBytes: this.#options.flows.map(({ to }, flow) => {
        const bytes = counts[to]?.receivedBytesByFlow ?? {};
        return (this.#numbers[flow] ?? []).reduce((sum, number) => sum + (bytes[number] ?? 0), 0);
      }),
      frames: counts.reduce((sum, { received }) => sum + received, 0),
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
    const { mac } = this.#member(this.#partner).info;
    const pings = Array.from({ length: queues }, (_, pair): RoleSpec => {
      const path = paths.find((one) => one.pair === pair);
      return path === undefined
        ? { role: 'traffic' }
        : { role: 'ping', mac, flow: path.flow, frame, intervalUs, until };
    });
    const echoes = Array.from(
      { length: this.#pairsOfMember(this.#partner) },
      (): RoleSpec => ({ role: until === 'found' ? 'watch' : 'echo' }),
    );
    const roles: RoleSpec[][] = [pings];
    roles[this.#partner] = echoes;
    await this.#startRoles(roles);
  }

  /** Counts of the pinging guest, by pair of queues. */
  async #pings(): Promise<readonly RoleCounts[]> {
    return this.#pairsOf(await this.#read(), this.#member(0));
  }

  /** Gives guests roles, by number; the others keep theirs, which have been stopped. */
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

  /** Machines outside have one pair of queues. */
  #pairsOfMember(member: number): number {
    return member < this.#options.guests ? this.#options.queues : 1;
  }

  /**
   * Frames that a source may have on their way, so that who receives them finds room for them all; undefined:
   * what it was attached for. Many guests share a machine outside, and it has many of them.
   */
  #windowOf(member: number): number | undefined {
    const { flows, guests } = this.#options;
    const of = (index: number): GuestInfo => this.#member(index).info;
    const targets = flows.filter(({ from }) => from === member).map(({ to }) => to);
    if (member >= guests) return targets.reduce((sum, to) => sum + of(to).sendWindow, 0);
    const [machine] = targets.filter((to) => to >= guests);
    if (machine === undefined) return undefined;
    const senders = flows.filter(({ to }) => to === machine).length * this.#options.queues;
    return Math.max(1, Math.floor(of(machine).sendWindow / senders));
  }

  /** Frames a second: what was asked for, and of a machine outside no more than its wire carries. */
  #rateOf(member: number): number | undefined {
    const { rate, wireRate, guests } = this.#options;
    if (member < guests || wireRate === undefined) return rate;
    return Math.min(rate ?? wireRate, wireRate);
  }

  /** Buffers that a source uses, of each pair. */
  #sendFrames(member: number): number {
    const { sendWindow, sendFrames } = this.#member(member).info;
    return framesFor(Math.min(sendWindow, this.#windowOf(member) ?? sendWindow), sendFrames);
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
    receivedBytesByFlow: addByFlow(a.receivedBytesByFlow, b.receivedBytesByFlow),
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

/** A flow is mostly received by one pair of queues, but need not be. */
function addByFlow(a: RoleCounts['receivedBytesByFlow'], b: RoleCounts['receivedBytesByFlow']) {
  const sum: Record<number, number> = { ...a };
  for (const [flow, bytes] of Object.entries(b)) sum[Number(flow)] = (a[Number(flow)] ?? 0) + bytes;
  return sum;
}
