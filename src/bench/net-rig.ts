/** What a bench is run on: a private driver domain with guests attached to it. */
import { ETHERNET_DEFAULT_MTU, ETHERNET_HEADER_BYTES } from '../spec/ethernet.ts';
import type { BenchControl } from './bench-control.ts';
import type { BenchGuests } from './bench-guests.ts';
import { startEmbeddedGuests } from './embedded-guests.ts';
import { flowsOf } from './flows.ts';
import { allowedCpus, type Placement, placeOn } from './machine.ts';
import type { NetOptions } from './net-options.ts';
import { PrivateDomain } from './private-domain.ts';
import { startRealGuests } from './real-guests.ts';

const DEFAULT_FRAME = ETHERNET_DEFAULT_MTU + ETHERNET_HEADER_BYTES;

/** Traffic of real guests before it is counted: TCP finds its window. */
export const REAL_WARM_UP_MS = 1500;
/** What iperf3 sends longer than is counted. */
const REAL_MARGIN_MS = 1500;

/** A driver domain with guests on it, ready for runs. */
export interface NetRig extends AsyncDisposable {
  readonly domain: PrivateDomain;
  readonly guests: BenchGuests;
  readonly placement: Placement;
}

const SWITCH = 'lan';

/** One switch, and a card for each guest. */
function netConfig(options: NetOptions, mtu: number | undefined): object {
  const { method, model, guests, packed, queues } = options;
  const card =
    method === 'emulated'
      ? { method, model, switch: SWITCH }
      : { method, switch: SWITCH, packed, queues, ...(mtu === undefined ? {} : { mtu }) };
  return {
    switches: { [SWITCH]: {} },
    guests: Object.fromEntries(
      Array.from({ length: guests }, (_, guest) => [`guest${guest}`, { net: [{ ...card }] }]),
    ),
  };
}

export async function startNetRig(options: NetOptions, control: BenchControl): Promise<NetRig> {
  const placement = placeOn(allowedCpus());
  control.onStep?.('starting the driver domain');
  // Above what every driver takes for granted, guests must be told.
  const isLarge = options.guest !== 'embedded' && options.frame > DEFAULT_FRAME;
  const mtu = isLarge ? options.frame - ETHERNET_HEADER_BYTES : undefined;
  const stack = new AsyncDisposableStack();
  try {
    const domain = stack.use(
      await PrivateDomain.start({ cpus: placement.lane, config: netConfig(options, mtu) }),
    );
    control.onStep?.(`starting ${options.guests} guests`);
    const flows = flowsOf(options.direction, options.guests);
    const { guest: kind, frame, packed, queues } = options;
    const guests = stack.use(
      kind === 'embedded'
        ? await startEmbeddedGuests({
            ...options,
            flows,
            guests: domain.cards,
            cpus: placement.guests,
          })
        : await startRealGuests({
            kind,
            guests: domain.cards,
            flows,
            frame,
            mtu,
            packed,
            queues,
            cpus: placement.guests,
            signal: control.signal,
            trafficSeconds: options.seconds + (REAL_WARM_UP_MS + REAL_MARGIN_MS) / 1000,
          }),
    );
    control.signal?.throwIfAborted();
    const owned = stack.move();
    return { domain, guests, placement, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}
