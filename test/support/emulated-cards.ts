/**
 * Guests with emulated network cards, and what the stock drivers tell of them.
 */
import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import type { E1000Model } from '../../src/device/e1000/function.ts';
import { type Host, ping, transfer } from './guests.ts';
import { until } from './sluice.ts';

/** A function behind a vfio-user socket. */
export interface EmulatedCard {
  /** Path of the socket on the host. */
  readonly socket: string;
  readonly model: E1000Model;
}

/** The driver of Linux for each model. */
export const DRIVERS = { '82540': 'e1000', '82574': 'e1000e' } as const satisfies Record<
  E1000Model,
  string
>;

/**
 * QEMU's options for cards: conventional PCI ones on the root bus, the others behind a port. `number` is
 * that of the first card.
 */
export function emulatedCardOptions(
  cards: readonly EmulatedCard[],
  inside: (path: string) => string,
): string[] {
  return cards.flatMap(({ socket, model }, index) => {
    const port = `rp${index}`;
    const device = {
      driver: 'vfio-user-pci',
      id: `e${index}`,
      bus: model === '82574' ? port : 'pcie.0',
      rombar: 0,
      socket: { path: inside(socket), type: 'unix' },
    };
    // A port of the speed of the card: Linux looks for its link after a reset of the bus, where QEMU's
    // faster ports say that there is none.
    const root = `pcie-root-port,id=${port},chassis=${index + 1},slot=${index + 1},x-speed=2_5,x-width=1`;
    return [...(model === '82574' ? ['-device', root] : []), '-device', JSON.stringify(device)];
  });
}

/** Waits until the driver has seen the link come, or go. */
export async function carrier({ guest, interface: device }: Host, up = true): Promise<void> {
  await guest.sh(
    `until [ "$(cat /sys/class/net/${device}/carrier 2>/dev/null)" = ${up ? 1 : 0} ]; do sleep 0.1; done`,
  );
}

/** What `ethtool -S` prints. */
export async function statistics(host: Host): Promise<Readonly<Record<string, number>>> {
  const text = await host.guest.sh(`ethtool -S ${host.interface}`);
  return Object.fromEntries(
    [...text.matchAll(/^ +([\w.]+): (\d+)$/gm)].map(([, name, value]) => [name, Number(value)]),
  );
}

/**
 * What a driver and we have counted, while neither counts: what nobody asked for, such as a neighbour's
 * advertisement, comes at any time.
 */
export async function countsAtRest<T>(
  host: Host,
  count: () => Promise<T>,
): Promise<{ readonly card: Readonly<Record<string, number>>; readonly ours: T }> {
  let now = { card: await statistics(host), ours: await count() };
  await until(`${host.interface} of ${host.guest.name} to rest`, async () => {
    const before = now;
    now = { card: await statistics(host), ours: await count() };
    return isDeepStrictEqual(now, before);
  });
  return now;
}

/** A counter of `ethtool -S`. */
export async function statistic(host: Host, name: string): Promise<number> {
  return (await statistics(host))[name] ?? assert.fail(`${host.interface} has no counter ${name}`);
}

/** Frames of {@link callInVain}. What goes on beside them is far fewer. */
const CALLS = 20;

/** Sends echo requests to an address from which no answer comes. */
export async function callInVain(from: Host, address: string): Promise<void> {
  await from.guest.run(`ping -c ${CALLS} -i 0.01 -W 0.1 ${address}`);
}

/** A card takes all of the frames (at least `frames`) that `send` sends. */
export async function hears(
  host: Host,
  what: string,
  send: () => Promise<void>,
  frames = CALLS,
): Promise<void> {
  const received = (): Promise<number> => statistic(host, 'rx_packets');
  const before = await received();
  await send();
  await until(`${host.guest.name} to hear ${what}`, async () => {
    return (await received()) - before >= frames;
  });
}

/** A card takes next to none of the frames (at least `frames`) that `send` sends from a peer. */
export async function hearsNot(
  host: Host,
  peer: Host,
  what: string,
  send: () => Promise<void>,
  frames = CALLS,
): Promise<void> {
  const before = await statistic(host, 'rx_packets');
  await send();
  // These frames came behind them.
  await reaches(peer, host);
  const heard = (await statistic(host, 'rx_packets')) - before;
  assert.ok(heard < frames, `${host.guest.name} heard ${what}: ${heard} frames`);
}

/** Calls to a multicast group, by a peer. */
async function callsToGroup(peer: Host): Promise<() => Promise<void>> {
  const group = '239.1.2.3';
  await peer.guest.sh(`ip route replace ${group} dev ${peer.interface}`);
  return () => callInVain(peer, group);
}

/** Groups that are joined and left: what of a peer's frames a card takes. */
export async function groupsAreFiltered(host: Host, peer: Host): Promise<void> {
  const { guest, interface: device } = host;
  const send = await callsToGroup(peer);
  await hearsNot(host, peer, 'a group that nobody joined', send);
  await guest.sh(`ip maddress add 01:00:5e:01:02:03 dev ${device}`);
  await hears(host, 'a group that was joined', send);
  await guest.sh(`ip maddress del 01:00:5e:01:02:03 dev ${device}`);
  await hearsNot(host, peer, 'a group that was left', send);
}

/** Frames of groups that nobody joined are taken when the interface is told to. */
export async function takesAllGroups(host: Host, peer: Host): Promise<void> {
  const { guest, interface: device } = host;
  const send = await callsToGroup(peer);
  await guest.sh(`ip link set ${device} allmulticast on`);
  await hears(host, 'all groups', send);
  await guest.sh(`ip link set ${device} allmulticast off`);
}

/** Calls to an address that nobody has, by a peer. */
export async function callsToStranger(host: Host, peer: Host): Promise<() => Promise<void>> {
  const address = host.address.replace(/[0-9]+$/, '99');
  const mac = '52:54:00:00:00:99';
  await peer.guest.sh(`ip neigh replace ${address} lladdr ${mac} dev ${peer.interface}`);
  return () => callInVain(peer, address);
}

/** Frames for others are taken while the interface is promiscuous. */
export async function takesForeignFrames(host: Host, peer: Host): Promise<void> {
  const { guest, interface: device } = host;
  const send = await callsToStranger(host, peer);
  await guest.sh(`ip link set ${device} promisc on`);
  await hears(host, 'all that there is', send);
  await guest.sh(`ip link set ${device} promisc off`);
  await hearsNot(host, peer, 'frames for others', send);
}

/** Groups that are joined and left, all groups, and frames for others: what of a peer's a card takes. */
export async function filtersWork(host: Host, peer: Host): Promise<void> {
  await groupsAreFiltered(host, peer);
  await takesAllGroups(host, peer);
  await takesForeignFrames(host, peer);
}

/** Parts of the self-tests of Intel's drivers of physical functions, and what says that all is well. */
const SELF_TEST_PARTS = { Register: 0, Eeprom: 0, Interrupt: 0, Loopback: 0, Link: 0 } as const;

/**
 * What the loopback test of e1000 and e1000e ends with when all 64 frames of a round came back whole
 * and the guest took more than one tick to look at them (e1000_run_loopback_test): of a guest without
 * a processor of its own, that tells nothing about the card.
 */
const LOOPBACK_LATE = 14;
const LOOPBACK_ATTEMPTS = 5;

/** Runs the driver's self-test, every part of which is to pass. */
export async function selfTest(
  host: Host,
  mode: 'online' | 'offline',
  parts: Readonly<Record<string, number>> = SELF_TEST_PARTS,
): Promise<void> {
  const attempt = async (): Promise<{ stdout: string; results: Record<string, number> }> => {
    const { stdout } = await host.guest.run(`ethtool -t ${host.interface} ${mode}`, {
      timeoutMs: 120_000,
    });
    const lines = stdout.matchAll(/^(\w+) test +\((?:on\/)?offline\)\t (\d+)$/gm);
    const results = Object.fromEntries(
      [...lines].map(([, name, result]) => [name, Number(result)]),
    );
    return { stdout, results };
  };
  let { stdout, results } = await attempt();
  for (let i = 1; i < LOOPBACK_ATTEMPTS && results['Loopback'] === LOOPBACK_LATE; i++) {
    ({ stdout, results } = await attempt());
  }
  assert.deepEqual(results, parts, `${host.guest.name} ${host.interface} ${mode}: ${stdout}`);
  assert.match(stdout, /The test result is PASS/);
}

/** Interrupts that the guest has had of an interface: kinds as Linux names them, and how many. */
export async function interruptsOf(
  host: Host,
): Promise<readonly { readonly kind: string; readonly count: number }[]> {
  const { stdout } = await host.guest.run(
    `grep -E '[ ,]${host.interface}(-|,|$)' /proc/interrupts`,
  );
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, ...cells] = line.trim().split(/\s+/);
      const kind = cells.findIndex((cell) => !/^\d+$/.test(cell));
      return {
        kind: (cells[kind] ?? '').replace(/^IR-/, '').replace(/-0000:.*$/, ''),
        count: cells.slice(0, kind).reduce((sum, cell) => sum + Number(cell), 0),
      };
    });
}

/** How long hosts may take to reach each other, in seconds. */
const REACH_SECONDS = 30;

/**
 * Hosts reach each other, by as many echoes as are sent. On a busy machine a neighbour may answer so late that it
 * counts as unreachable, at which ping ends: it is asked again.
 */
export async function reaches(from: Host, to: Host, count = 3): Promise<void> {
  const end = performance.now() + REACH_SECONDS * 1000;
  let received = 0;
  do {
    ({ received } = await ping(from, to, { count, deadline: REACH_SECONDS }));
  } while (received !== count && performance.now() < end);
  assert.equal(received, count, `${from.guest.name} ${from.interface} to ${to.guest.name}`);
}

/** What is sent arrives as it was, by its SHA-256. */
export async function arrives(from: Host, to: Host, mebibytes: number): Promise<void> {
  const { sent, received } = await transfer(from, to, { mebibytes });
  assert.match(sent, /^[0-9a-f]{64}$/);
  assert.equal(received, sent, `${from.guest.name} ${from.interface} to ${to.guest.name}`);
}
