/**
 * Which lane runs which switch. Frames do not cross lanes, and a guest belongs to one lane: so
 * switches that a wire or a guest joins form a group, and a group stays together.
 */
import { SluiceError } from '../base/errors.ts';
import type { Config } from './config.ts';

/** Lane by switch name. */
export type LanePlan = ReadonlyMap<string, number>;

/** Why two switches must be on one lane. */
interface Bond {
  readonly a: string;
  readonly b: string;
  readonly by: string;
}

interface Group {
  readonly switches: readonly string[];
  readonly bonds: readonly Bond[];
  /** How much there is to do, in ports. */
  readonly weight: number;
}

/**
 * @param running where switches run already; they stay there.
 * @throws SluiceError `config` naming two switches that would have to be on one lane and are not.
 */
export function planLanes(config: Config, running: LanePlan = new Map()): LanePlan {
  const plan = new Map<string, number>();
  const load = config.lanes.map(() => 0);
  const settle = (group: Group, lane: number): void => {
    for (const name of group.switches) plan.set(name, lane);
    load[lane] = (load[lane] ?? 0) + group.weight;
  };
  const wanted = new Map(
    config.switches.flatMap((item) =>
      item.lane === undefined ? [] : [[item.name, item.lane] as const],
    ),
  );
  const free: Group[] = [];
  for (const group of groupsOf(config)) {
    const lane = fixedLane(group, wanted, running);
    if (lane === undefined) free.push(group);
    else settle(group, lane);
  }
  for (const group of free.toSorted((a, b) => b.weight - a.weight)) {
    settle(group, load.indexOf(Math.min(...load)));
  }
  return plan;
}

/** The lane that a group has by its configuration, or because it runs there. */
function fixedLane(group: Group, wanted: LanePlan, running: LanePlan): number | undefined {
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
    `switch ${first.name} is on lane ${first.lane} and switch ${other.name} on lane ${other.lane}, but ${how}: frames do not cross lanes yet`,
    {
      remedy:
        wanted.has(other.name) && wanted.has(first.name)
          ? 'give both the same lane'
          : 'give both the same lane, and restart Sluice',
    },
  );
}

function groupsOf(config: Config): Group[] {
  const bonds = bondsOf(config);
  const group = new Map(config.switches.map(({ name }) => [name, name]));
  for (const { a, b } of bonds) {
    const [from, to] = [group.get(a), group.get(b)];
    for (const [name, of] of group) if (of === from) group.set(name, to ?? of);
  }
  const ports = new Map<string, number>();
  for (const { net } of config.guests) {
    for (const card of net) ports.set(card.switch, (ports.get(card.switch) ?? 0) + 1);
  }
  return Object.values(Object.groupBy(group.keys(), (name) => group.get(name) ?? name)).map(
    (names = []) => ({
      switches: names,
      bonds: bonds.filter(({ a }) => names.includes(a)),
      weight: names.reduce((sum, name) => sum + 1 + (ports.get(name) ?? 0), 0),
    }),
  );
}

function bondsOf(config: Config): Bond[] {
  const wires = config.switches.flatMap(({ name, wire }) =>
    wire?.kind === 'switch' ? [{ a: name, b: wire.switch, by: `the wire of ${name}` }] : [],
  );
  const guests = config.guests.flatMap(({ name, net }) => {
    const [first, ...rest] = new Set(net.map((card) => card.switch));
    return first === undefined
      ? []
      : rest.map((other) => ({ a: first, b: other, by: `guest ${name}` }));
  });
  return [...wires, ...guests];
}
