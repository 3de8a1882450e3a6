/**
 * Frames of the kernel's packet generator in a guest (Linux, Documentation/networking/pktgen.rst).
 *
 * Its commands are taken by a thread of the kernel, for which they wait 125 ms: on a busy machine they may
 * return before anything has begun, so what is asked for is waited for.
 */
import { macOf } from './cards.ts';
import type { Host } from './guests.ts';

const PKTGEN = '/proc/net/pktgen';
/** Frames a second. */
const FLOOD_RATE = 5000;
const FLOOD_BYTES = 1400;
/** How long a guest may take for a command. */
const PATIENCE = { timeoutMs: 60_000 };

/** Frames that are made of whole cloth. */
export interface MadeUp {
  readonly count: number;
  readonly size?: number;
  /** Default: the card's own. */
  readonly sourceMac?: string;
  readonly mac: string;
  readonly vlan?: number;
}

/** Datagrams that nobody asked for. */
export interface Flood {
  end(): Promise<void>;
}

/** Sends frames; resolves when they are sent. */
export async function sendMadeUp(from: Host, frames: MadeUp): Promise<void> {
  await setUp(from, [
    `count ${frames.count}`,
    `pkt_size ${frames.size ?? 100}`,
    'delay 1000000',
    'dst 10.99.99.99',
    `dst_mac ${frames.mac}`,
    ...(frames.sourceMac === undefined ? [] : [`src_mac ${frames.sourceMac}`]),
    ...(frames.vlan === undefined ? [] : [`vlan_id ${frames.vlan}`]),
  ]);
  await from.guest.sh(
    `set -e
    echo start >${PKTGEN}/pgctrl
    until grep -q 'pkts-sofar: ${frames.count} ' ${PKTGEN}/${from.interface}; do sleep 0.05; done`,
    PATIENCE,
  );
}

/** Starts a flood over the sender's interface; one at a time in each guest. */
export async function startFlood(from: Host, to: Host, rate = FLOOD_RATE): Promise<Flood> {
  const [network, number] = to.address.split('.').slice(2).map(Number);
  await setUp(from, [
    'count 0',
    `pkt_size ${FLOOD_BYTES}`,
    `delay ${Math.round(1e9 / rate)}`,
    `dst ${to.address}`,
    `dst_mac ${macOf(network ?? 0, number ?? 0)}`,
  ]);
  await from.guest.sh(`setsid sh -c 'echo start >${PKTGEN}/pgctrl' >/dev/null 2>&1 &`);
  return {
    async end() {
      await from.guest.sh(`echo stop >${PKTGEN}/pgctrl`);
    },
  };
}

/** Has the generator send over this interface alone. What it was told before is forgotten. */
async function setUp(from: Host, settings: readonly string[]): Promise<void> {
  const device = `${PKTGEN}/${from.interface}`;
  await from.guest.sh(
    `set -e
    modprobe pktgen
    devices() { ls ${PKTGEN} | grep -v -e ^kpktgend_ -e ^pgctrl$; }
    if devices >/dev/null; then echo rem_device_all >${PKTGEN}/kpktgend_0; fi
    while devices >/dev/null; do sleep 0.05; done
    echo "add_device ${from.interface}" >${PKTGEN}/kpktgend_0
    for setting in ${settings.map((setting) => `'${setting}'`).join(' ')}; do
      echo "$setting" >${device}
    done`,
    PATIENCE,
  );
}
