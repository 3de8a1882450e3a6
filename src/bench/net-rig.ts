/** What a bench is run on: a private driver domain with guests attached to it. */
import { SluiceError } from '../base/errors.ts';
import { ETHERNET_DEFAULT_MTU, ETHERNET_HEADER_BYTES } from '../spec/ethernet.ts';
import type { BenchControl } from './bench-control.ts';
import type { BenchGuests } from './bench-guests.ts';
import { startBenchHomes, startEmbeddedGuests } from './embedded-guests.ts';
import { type Flow, flowsOf, outsideFlowsOf } from './flows.ts';
import { endGuestHomes, NO_HOMES } from './guest-processes.ts';
import { allowedCpus, placeMachines, placeOn } from './machine.ts';
import { hasNic, type NetOptions } from './net-options.ts';
import { guestsPerNic, type NicPlace, nicPlaces, portNumber } from './nic-places.ts';
import { PrivateDomain } from './private-domain.ts';
import { startRealGuests } from './real-guests.ts';
import { wireFrameRate } from './wire-rate.ts';

const DEFAULT_FRAME = ETHERNET_DEFAULT_MTU + ETHERNET_HEADER_BYTES;

/** Traffic of real guests before it is counted: TCP finds its window. */
export const REAL_WARM_UP_MS = 1500;
/** What iperf3 sends longer than is counted. */
const REAL_MARGIN_MS = 1500;

/** A driver domain with guests on it, ready for runs. */
export interface NetRig extends AsyncDisposable {
  readonly domain: PrivateDomain;
  readonly guests: BenchGuests;
  /** Processors of the lane; undefined leaves it to the kernel. */
  readonly laneCpus: readonly number[] | undefined;
}

const SWITCH = 'lan';
/** Queue pairs of each of 63 virtual functions, and how many functions can have more (82599 §7.10.2.6). */
const PAIRS_OF_63 = 2;
const MOST_WITH_4_PAIRS = 31;

/** One switch, and a card for each guest. */
function netConfig(options: NetOptions, mtu: number | undefined): object {
  const { method, model, guests, packed, queues } = options;
  if (hasNic(method)) return { switches: { [SWITCH]: {} }, ...nicConfig(options) };
  const card =
    method === 'emulated'
      ? { method, model, switch: SWITCH }
      : { method, switch: SWITCH, packed, queues, ...(mtu === undefined ? {} : { mtu }) };
  return {
    switches: { [SWITCH]: {} },
    guests: guestsWith(guests, () => ({ ...card })),
  };
}

function guestsWith(guests: number, card: (guest: number) => object): object {
  return Object.fromEntries(
    Array.from({ length: guests }, (_, guest) => [`guest${guest}`, { net: [card(guest)] }]),
  );
}

/**
 * As many NICs as it takes. All ports are plugged into one switch; or each into its own, which has a machine
 * beside: what is outside the wires.
 */
function nicConfig(options: NetOptions): object {
  const { method, model, guests, queues, ports = 1, link, doorbellPoll, outside } = options;
  const isShared = method === 'sriov';
  const perNic = guestsPerNic(options);
  const nics = Math.ceil(guests / perNic);
  const perPort = Math.ceil(Math.min(guests, perNic) / ports);
  // Fewer functions have more queues each.
  const vfs = queues > PAIRS_OF_63 ? { vfs: Math.min(perPort, MOST_WITH_4_PAIRS) } : {};
  if (isShared && queues > PAIRS_OF_63 && perPort > MOST_WITH_4_PAIRS) {
    throw new SluiceError('usage', `--queues ${queues}: ${perPort} virtual functions on a port`, {
      remedy: `up to ${MOST_WITH_4_PAIRS} have so many queues: take fewer guests, or --queues ${PAIRS_OF_63}`,
    });
  }
  // Without another port there is nothing at the other end of the wire.
  const isWired = guests > 1 && (ports > 1 || nics > 1);
  const places = nicPlaces(options);
  const machines = outside ? 1 + Math.max(...places.map((place) => portNumber(options, place))) : 0;
  const wireOf = (port: number): string | { readonly switch: string } => {
    if (!outside) return isWired ? { switch: SWITCH } : 'none';
    return port < machines ? { switch: outsideSwitch(port) } : 'none';
  };
  const polling = doorbellPoll === undefined ? {} : { doorbell_poll_us: doorbellPoll };
  const port = (nic: number, number: number): object => {
    const wire = wireOf(portNumber(options, { nic, port: number, vf: undefined }));
    return { wire, link, ...(isShared ? vfs : {}) };
  };
  const outsides = Array.from({ length: machines }, (_, machine) => machine);
  return {
    ...(outside
      ? { switches: Object.fromEntries(outsides.map((each) => [outsideSwitch(each), {}])) }
      : {}),
    nics: Object.fromEntries(
      Array.from({ length: nics }, (_, nic) => [
        `nic${nic}`,
        {
          model,
          ...polling,
          ports: Array.from({ length: ports }, (_, number) => port(nic, number)),
        },
      ]),
    ),
    guests: {
      ...guestsWith(guests, (guest) => {
        const { nic, port, vf } = places[guest] as NicPlace;
        const place = { method, nic: `nic${nic}`, port };
        return vf === undefined ? place : { ...place, vf };
      }),
      ...Object.fromEntries(
        outsides.map((machine) => [
          `outside${machine}`,
          { net: [{ method: 'paravirtual', switch: outsideSwitch(machine) }] },
        ]),
      ),
    },
  };
}

function outsideSwitch(machine: number): string {
  return `outside${machine}`;
}

/** Who sends to whom: guests by number, then the machines outside. */
function benchFlows(options: NetOptions): Flow[] {
  const { direction, guests, outside } = options;
  if (!outside) return flowsOf(direction, guests);
  const machines = nicPlaces(options).map((place) => guests + portNumber(options, place));
  return outsideFlowsOf(direction, machines);
}

export async function startNetRig(options: NetOptions, control: BenchControl): Promise<NetRig> {
  const cpus = allowedCpus();
  const placement = placeOn(cpus);
  const machines = placeMachines(cpus, options.guests);
  const laneCpus = options.guest === 'embedded' ? placement.lane : machines.lane;
  control.onStep?.('starting the driver domain');
  // Above what every driver takes for granted, guests must be told.
  const isLarge = options.guest !== 'embedded' && options.frame > DEFAULT_FRAME;
  const mtu = isLarge ? options.frame - ETHERNET_HEADER_BYTES : undefined;
  const stack = new AsyncDisposableStack();
  try {
    const { guest: kind, frame, packed, queues } = options;
    // Neither needs the other to start, and each has processors of its own.
    const [starting, homing] = await Promise.allSettled([
      PrivateDomain.start({ cpus: laneCpus, config: netConfig(options, mtu) }),
      kind === 'embedded' ? startBenchHomes(options, placement.guests) : NO_HOMES,
    ]);
    if (starting.status === 'fulfilled') stack.use(starting.value);
    if (homing.status === 'fulfilled') stack.adopt(homing.value, endGuestHomes);
    if (starting.status === 'rejected') throw starting.reason;
    if (homing.status === 'rejected') throw homing.reason;
    const domain = starting.value;
    control.onStep?.(`starting ${options.guests} guests`);
    const flows = benchFlows(options);
    const guests = stack.use(
      kind === 'embedded'
        ? await startEmbeddedGuests(
            { ...options, flows, cards: domain.cards, wireRate: wireFrameRate(options) },
            homing.value,
          )
        : await startRealGuests({
            kind,
            guests: domain.cards,
            flows,
            frame,
            mtu,
            packed,
            queues,
            places: machines.guests,
            signal: control.signal,
            trafficSeconds: options.seconds + (REAL_WARM_UP_MS + REAL_MARGIN_MS) / 1000,
          }),
    );
    control.signal?.throwIfAborted();
    const owned = stack.move();
    return { domain, guests, laneCpus, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}
