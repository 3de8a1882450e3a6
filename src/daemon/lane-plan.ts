/**
 * Which lane runs which switch, which port of a NIC and which guest. Frames do not cross lanes, and a
 * guest belongs to one lane: so switches and ports that a wire or a guest joins form a group, a group
 * stays together, and a guest's disks are where its cards are.
 */
import { SluiceError } from '../base/errors.ts';
import { type Config, type GuestConfig, placeOf } from './config.ts';

type LaneByName = ReadonlyMap<string, number>;

/** Lanes by name. */
export interface LanePlan {
  /** Switches, and ports of NICs (`nic0/0`). */
  readonly switches: LaneByName;
  /** Guests with cards or disks. */
  readonly guests: LaneByName;
}

const NOTHING: LanePlan = { switches: new Map(), guests: new Map() };

/** Why two switches, or ports of NICs, must be on one lane. */
interface Bond {
  readonly a: string;
  readonly b: string;
  readonly by: string;
}

interface Group {
  readonly switches: readonly string[];
  readonly bonds: readonly Bond[];
  readonly weight: number;
}

/** How much there is to do for a guest, in cards and disks. */
function weightOf({ net, disk }: GuestConfig): number {
  return net.length + disk.length;
}

/**
 * @param running where switches and guests run already. Switches stay there; so do guests
 *   without cards.
 * @throws SluiceError `config` naming two switches that would have to be on one lane and are not.
 */
export function planLanes(config: Config, running: LanePlan = NOTHING): LanePlan {
  const switches = new Map<string, number>();
  const guests = new Map<string, number>();
  const load = config.lanes.map(() => 0);
  const wanted = new Map(
    config.switches.flatMap((item) =>
      item.lane === undefined ? [] : [[item.name, item.lane] as const],
    ),
  );
  const free: { readonly weight: number; readonly settle: (lane: number) => void }[] = [];
  const place = (
    weight: number,
    fixed: number | undefined,
    names: (lane: number) => void,
  ): void => {
    const settle = (lane: number): void => {
      names(lane);
      load[lane] = (load[lane] ?? 0) + weight;
    };
    if (fixed === undefined) free.push({ weight, settle });
    else settle(fixed);
  };
  for (const group of groupsOf(config)) {
    place(group.weight, fixedLane(group, wanted, running.switches), (lane) => {
      for (const name of group.switches) switches.set(name, lane);
    });
  }
  for (const guest of config.guests) {
    if (guest.net.length > 0 || guest.disk.length === 0) continue;
    place(weightOf(guest), running.guests.get(guest.name), (lane) => guests.set(guest.name, lane));
  }
  for (const { settle } of free.toSorted((a, b) => b.weight - a.weight)) {
    settle(load.indexOf(Math.min(...load)));
  }
  for (const { name, net } of config.guests) {
    const lane = net[0] === undefined ? undefined : switches.get(placeOf(net[0]));
    if (lane !== undefined) guests.set(name, lane);
  }
  return { switches, guests };
}

/** The lane that a group has by its configuration, or because it runs there. */
function fixedLane(group: Group, wanted: LaneByName, running: LaneByName): number | undefined {
  const fixed = group.switches.flatMap((name) => {
    const lane = wanted.get(name) ?? running.get(name);
    return lane === undefined ? [] : [{ name, lane }];
  });
  const [first] = fixed;
  const other = fixed.find(({ lane }) => lane !== first?.lane);
  if (first === undefined || other === undefined) return first?.lane;
  const how = group.bonds.map(({ a, b, by }) => `${by} joins ${a} and ${b}`).join(', ');
  throw new SluiceError(
    'config',
    `${titleOf(first.name)} is on lane ${first.lane} and ${titleOf(other.name)} on lane ${other.lane}, but ${how}: frames do not cross lanes yet`,
    {
      remedy:
        wanted.has(other.name) && wanted.has(first.name)
          ? 'give both the same lane'
          : 'give both the same lane, and restart Sluice',
    },
  );
}

/** Names of ports have a slash, those of switches have none. */
function titleOf(place: string): string {
  return place.includes('/') ? `port ${place}` : `switch ${place}`;
}

function groupsOf(config: Config): Group[] {
  const bonds = bondsOf(config);
  const places = [...config.switches, ...config.nicPorts];
  const group = new Map(places.map(({ name }) => [name, name]));
  for (const { a, b } of bonds) {
    const [from, to] = [group.get(a), group.get(b)];
    for (const [name, of] of group) if (of === from) group.set(name, to ?? of);
  }
  // All of a guest is counted at its first switch: its others are in the same group.
  const work = new Map<string, number>();
  for (const guest of config.guests) {
    const [first] = guest.net;
    if (first === undefined) continue;
    const place = placeOf(first);
    work.set(place, (work.get(place) ?? 0) + weightOf(guest));
  }
  return Object.values(Object.groupBy(group.keys(), (name) => group.get(name) ?? name)).map(
    (names = []) => ({
      switches: names,
      bonds: bonds.filter(({ a }) => names.includes(a)),
      weight: names.reduce((sum, name) => sum + 1 + (work.get(name) ?? 0), 0),
    }),
  );
}

function bondsOf(config: Config): Bond[] {
  const wires = config.switches.flatMap(({ name, wire }) =>
    wire?.kind === 'switch' ? [{ a: name, b: wire.switch, by: `the wire of ${name}` }] : [],
  );
  const guests = config.guests.flatMap(({ name, net }) => {
    const [first, ...rest] = new Set(net.map(placeOf));
    return first === undefined
      ? []
      : rest.map((other) => ({ a: first, b: other, by: `guest ${name}` }));
  });
  const ports = config.nicPorts.flatMap(({ name, wire }) =>
    wire?.kind === 'switch' ? [{ a: name, b: wire.switch, by: `the wire of ${name}` }] : [],
  );
  // They share what PCI Express carries.
  const limited = config.nicPorts.flatMap(({ name, nic, port, pcie }) => {
    const first = config.nicPorts.find((other) => other.nic === nic);
    return port === 0 || pcie === 'none' || first === undefined
      ? []
      : [{ a: first.name, b: name, by: `pcie: ${pcie} of ${nic}` }];
  });
  return [...wires, ...guests, ...ports, ...limited];
}
