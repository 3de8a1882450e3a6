/** Desired state and running state -> what is to be done, in order. */
import { isDeepStrictEqual } from 'node:util';
import {
  type GuestConfig,
  type NetConfig,
  placeOf,
  type SwitchConfig,
  type WireConfig,
} from './config.ts';
import type { ControllerConfig, DiskConfig, GuestDiskConfig } from './disk-config.ts';
import type { LanePlan } from './lane-plan.ts';
import type { NicPortConfig, NicWireConfig, SriovNetConfig } from './nic-config.ts';

/** A switch without its wire, which is a thing of its own. */
export interface SwitchPart {
  readonly kind: 'switch';
  readonly name: string;
  readonly ageing: number;
  readonly lane: number;
}

/** What a switch is plugged into outside. */
export interface WirePart {
  readonly kind: 'wire';
  /** `lan/wire` */
  readonly name: string;
  readonly switch: string;
  readonly wire: WireConfig;
  readonly lane: number;
}

/** A port of a NIC without its wire. */
export interface NicPart {
  readonly kind: 'nic';
  /** `nic0/0` */
  readonly name: string;
  readonly nic: Omit<NicPortConfig, 'wire'>;
  readonly lane: number;
}

/** What a port of a NIC is plugged into. */
export interface NicWirePart {
  readonly kind: 'nic-wire';
  /** The port: `nic0/0` */
  readonly name: string;
  readonly wire: NicWireConfig;
  readonly lane: number;
}

/** A network card of a guest with its socket. */
export interface PortPart {
  readonly kind: 'port';
  /** `web/net0` */
  readonly name: string;
  readonly net: NetConfig;
  readonly lane: number;
}

/** A disk that guests of one lane have. One that is only read may be open in several lanes. */
export interface DiskPart {
  readonly kind: 'disk';
  readonly name: string;
  readonly disk: DiskConfig;
  readonly lane: number;
}

/** An emulated disk controller of a guest with its socket. */
export interface ControllerPart {
  readonly kind: 'controller';
  /** `web/ahci0` */
  readonly name: string;
  readonly controller: ControllerConfig;
  readonly lane: number;
}

/** A disk device of a guest with its socket, or a drive of a controller. */
export interface DevicePart {
  readonly kind: 'device';
  /** `web/disk0`, `web/ahci0.0` */
  readonly name: string;
  readonly guestDisk: GuestDiskConfig;
  readonly lane: number;
}

export type Part =
  | SwitchPart
  | WirePart
  | NicPart
  | NicWirePart
  | PortPart
  | DiskPart
  | ControllerPart
  | DevicePart;

export interface Action {
  /** `change`: it runs on, and so does what stands on it. */
  readonly verb: 'add' | 'remove' | 'change';
  readonly part: Part;
}

/** A wire that is a file. */
export function isCapture(part: Part): boolean {
  return part.kind === 'wire' && part.wire.kind === 'capture';
}

/** What a part is known by: no two have the same. */
export function partKey(part: Part): string {
  return part.kind === 'disk' ? diskKey(part.name, part.lane) : partTitle(part);
}

function diskKey(name: string, lane: number): string {
  return `disk ${name} in lane ${lane}`;
}

/** What people call it: `port web/net0`. */
export function partTitle(part: Part): string {
  return `${part.kind} ${part.name}`;
}

export function actionTitle({ verb, part }: Action): string {
  return `${verb} ${partTitle(part)}`;
}

/** Everything that is to run, in an order in which it can be added. */
export function partsOf(
  config: {
    readonly switches: readonly SwitchConfig[];
    readonly nicPorts: readonly NicPortConfig[];
    /** Virtual functions that were made at run time. */
    readonly loose?: readonly SriovNetConfig[];
    readonly disks: readonly DiskConfig[];
    readonly guests: readonly GuestConfig[];
  },
  plan: LanePlan,
): Part[] {
  const laneOf = (name: string): number => plan.switches.get(name) ?? 0;
  const switches = config.switches.map(
    ({ name, ageing }): Part => ({ kind: 'switch', name, ageing, lane: laneOf(name) }),
  );
  const wires = config.switches.flatMap(({ name, wire }): Part[] =>
    wire === undefined
      ? []
      : [{ kind: 'wire', name: `${name}/wire`, switch: name, wire, lane: laneOf(name) }],
  );
  const nics = config.nicPorts.map(({ wire: _, ...nic }): Part => {
    const { name } = nic;
    return { kind: 'nic', name, nic, lane: laneOf(name) };
  });
  const nicWires = config.nicPorts.flatMap(({ name, wire }): Part[] =>
    wire === undefined ? [] : [{ kind: 'nic-wire', name, wire, lane: laneOf(name) }],
  );
  const cards = [...config.guests.flatMap(({ net }) => net), ...(config.loose ?? [])];
  const ports = cards.map(
    (card): Part => ({ kind: 'port', name: card.port, net: card, lane: laneOf(placeOf(card)) }),
  );
  const guestLane = (name: string): number => plan.guests.get(name) ?? 0;
  const controllers = config.guests.flatMap(({ name: guest, controllers: list }) =>
    list.map(
      (controller): Part => ({
        kind: 'controller',
        name: controller.name,
        controller,
        lane: guestLane(guest),
      }),
    ),
  );
  const devices = config.guests.flatMap(({ name, disk }) =>
    disk.map(
      (guestDisk): DevicePart => ({
        kind: 'device',
        name: guestDisk.device,
        guestDisk,
        lane: guestLane(name),
      }),
    ),
  );
  const disks = config.disks.flatMap((disk) => {
    const users = devices.filter(({ guestDisk }) => guestDisk.disk === disk.name);
    return [...new Set(users.map(({ lane }) => lane))].map(
      (lane): Part => ({ kind: 'disk', name: disk.name, disk, lane }),
    );
  });
  return [
    ...switches,
    ...wires,
    ...nics,
    ...nicWires,
    ...disks,
    ...ports,
    ...controllers,
    ...devices,
  ];
}

/**
 * The least that makes `running` into `desired`: what changed is removed and added, what stands
 * on something that is removed goes with it, what stays the same is not touched.
 *
 * @param running in the order in which it was added.
 */
export function differenceOf(running: readonly Part[], desired: readonly Part[]): Action[] {
  const wanted = new Map(desired.map((part) => [partKey(part), part]));
  const removed = new Set<string>();
  for (const part of running) {
    const key = partKey(part);
    const next = wanted.get(key);
    const stays = isDeepStrictEqual(next, part) || (next !== undefined && canChange(part, next));
    if (!stays || needs(part).some((other) => removed.has(other))) removed.add(key);
  }
  const kept = new Map(
    running.flatMap((part) => (removed.has(partKey(part)) ? [] : [[partKey(part), part]])),
  );
  return [
    ...running
      .filter((part) => removed.has(partKey(part)))
      .toReversed()
      .map((part): Action => ({ verb: 'remove', part })),
    ...desired.flatMap((part): Action[] => {
      const now = kept.get(partKey(part));
      return now === undefined || isDeepStrictEqual(now, part) ? [] : [{ verb: 'change', part }];
    }),
    ...desired
      .filter((part) => !kept.has(partKey(part)))
      .map((part): Action => ({ verb: 'add', part })),
  ];
}

/**
 * Whether one becomes the other without its guest losing it: what is said of a virtual function, and what
 * a port of a NIC shows to another.
 */
function canChange(from: Part, to: Part): boolean {
  if (from.kind === 'nic' && to.kind === 'nic') {
    return isDeepStrictEqual({ ...from, nic: { ...from.nic, mirrors: to.nic.mirrors } }, to);
  }
  if (from.kind !== 'port' || to.kind !== 'port') return false;
  if (from.net.method !== 'sriov' || to.net.method !== 'sriov') return false;
  return isDeepStrictEqual({ ...from, net: { ...from.net, words: to.net.words } }, to);
}

/** A virtual function without what others of its port may wait for: its address, its share of the wire. */
export function released(part: Part): Part {
  if (part.kind !== 'port' || part.net.method !== 'sriov') return part;
  const { mac, min_tx_rate, ...words } = part.net.words;
  return { ...part, net: { ...part.net, words } };
}

/** Keys of the parts that a part stands on. */
export function needs(part: Part): string[] {
  switch (part.kind) {
    case 'switch':
      return [];
    case 'wire':
      return [
        `switch ${part.switch}`,
        ...(part.wire.kind === 'switch' ? [`switch ${part.wire.switch}`] : []),
      ];
    case 'port':
      return [standsOn(part.net)];
    case 'nic':
      return [];
    case 'nic-wire':
      return [
        `nic ${part.name}`,
        ...(part.wire.kind === 'switch' ? [`switch ${part.wire.switch}`] : []),
      ];
    case 'disk':
      return [];
    case 'controller':
      return [];
    case 'device': {
      const { guestDisk, lane } = part;
      const disk = diskKey(guestDisk.disk, lane);
      return guestDisk.method === 'emulated'
        ? [disk, `controller ${guestDisk.controller}`]
        : [disk];
    }
  }
}

function standsOn(net: NetConfig): string {
  return 'switch' in net ? `switch ${net.switch}` : `nic ${net.nicPort}`;
}
