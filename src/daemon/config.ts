/**
 * The desired state: what a configuration file says, checked, with every default filled in.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { SluiceError } from '../base/errors.ts';
import { E1000_MODELS, type E1000Model } from '../device/e1000/function.ts';
import type { Isolation } from '../memory/guest-memory.ts';
import { MAX_SOCKET_PATH } from '../os/unix-socket.ts';
import { type NetDocument, OFFLOAD_NAMES } from './card-schema.ts';
import { ConfigSource } from './config-problems.ts';
import { checkReferences } from './config-references.ts';
import { type ConfigDocument, configSchema } from './config-schema.ts';
import { bytesOf, isOn } from './config-values.ts';
import {
  type ControllerConfig,
  controllersOf,
  type DiskConfig,
  type GuestDiskConfig,
  toDisk,
  toGuestDisks,
} from './disk-config.ts';
import { defaultMac } from './mac-address.ts';
import {
  type DirectNetConfig,
  type NicPortConfig,
  nicPortName,
  type SriovNetConfig,
  toFunction,
  toNicPorts,
  type VlanConfig,
  vlansOf,
} from './nic-config.ts';
import { controlSocketPath, type RunConfig } from './run-directory.ts';

export const DEFAULT_CONFIG_FILE = './sluice.yaml';

export type OffloadName = (typeof OFFLOAD_NAMES)[number];

export type WireConfig = VlanConfig &
  (
    | { readonly kind: 'tap'; readonly tap: string }
    | { readonly kind: 'switch'; readonly switch: string }
    | { readonly kind: 'capture'; readonly file: string }
  );

export interface SwitchConfig {
  readonly name: string;
  readonly ageing: number;
  readonly lane: number | undefined;
  readonly wire: WireConfig | undefined;
}

interface CardConfig extends VlanConfig {
  /** `web/net0` */
  readonly port: string;
  readonly guest: string;
  readonly switch: string;
  readonly mac: string;
  readonly qos: number | undefined;
  /** Mb/s; 0: no limit. */
  readonly maxTxRate: number;
  readonly maxRxRate: number;
  readonly spoofCheck: boolean;
  readonly socket: string;
}

export interface ParavirtualNetConfig extends CardConfig {
  readonly method: 'paravirtual';
  readonly queues: number;
  readonly mtu: number | undefined;
  readonly packed: boolean;
  readonly offloads: readonly OffloadName[];
  readonly server: 'listen' | 'connect';
}

export interface EmulatedNetConfig extends CardConfig {
  readonly method: 'emulated';
  readonly model: E1000Model;
  /** A vfio-user client always connects. */
  readonly server: 'listen';
}

/** A card that is plugged into a switch. */
export type SwitchedNetConfig = ParavirtualNetConfig | EmulatedNetConfig;

export type NetConfig = SwitchedNetConfig | DirectNetConfig | SriovNetConfig;

/** Name of the switch, or of the port of a NIC, that a card is at. */
export function placeOf(net: NetConfig): string {
  return 'switch' in net ? net.switch : net.nicPort;
}

/** The same in words: `switch lan`, `nic0/0 vf 3`. */
export function placeText(net: NetConfig): string {
  if ('switch' in net) return `switch ${net.switch}`;
  return net.method === 'sriov' ? `${net.nicPort} vf ${net.vf}` : net.nicPort;
}

export interface GuestConfig {
  readonly name: string;
  readonly memoryBytes: number;
  readonly net: readonly NetConfig[];
  readonly disk: readonly GuestDiskConfig[];
  /** What its emulated disks are plugged into. */
  readonly controllers: readonly ControllerConfig[];
}

export interface LaneConfig {
  readonly cpus: readonly number[] | undefined;
  readonly idlePollUs: number | undefined;
}

export interface Config {
  readonly file: string;
  readonly run: RunConfig;
  readonly isolation: Isolation;
  readonly lanes: readonly LaneConfig[];
  readonly switches: readonly SwitchConfig[];
  /** The ports of all NICs. */
  readonly nicPorts: readonly NicPortConfig[];
  readonly disks: readonly DiskConfig[];
  readonly guests: readonly GuestConfig[];
}

/** @throws ConfigError with all that is wrong; SluiceError if the file cannot be read. */
export function loadConfig(file: string): Config {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'does not exist' : `cannot be read (${code})`;
    throw new SluiceError('config', `configuration file ${file} ${why}`, {
      cause: error,
      remedy:
        code === 'EACCES'
          ? 'let this user read it, or run sluice as a user that may'
          : 'name the file: sluice up FILE, or --config FILE with other commands',
    });
  }
  return parseConfig(text, file);
}

/**
 * @param file where the text comes from: paths in it are relative to the file's directory.
 * @throws ConfigError with all that is wrong.
 */
export function parseConfig(text: string, file: string): Config {
  const source = new ConfigSource(file, text);
  source.check();
  const parsed = configSchema.safeParse(source.value);
  if (!parsed.success) source.reportIssues(parsed.error.issues);
  checkReferences(source);
  source.check();
  if (!parsed.success) throw new SluiceError('config', `${file} is not valid`);
  const config = toConfig(parsed.data, file);
  checkSocketPaths(source, config);
  source.check();
  return config;
}

function toConfig(document: ConfigDocument, file: string): Config {
  const base = dirname(resolve(file));
  const run =
    typeof document.run === 'string' ? { path: document.run, mode: '0700' } : document.run;
  const runPath = resolve(base, run.path);
  const lanes =
    typeof document.lanes === 'number'
      ? Array.from({ length: document.lanes }, () => ({}))
      : document.lanes;
  const direct = new Set(
    Object.values(document.guests).flatMap(({ net }) =>
      net.flatMap((card) => (card.method === 'direct' ? nicPortName(card.nic, card.port) : [])),
    ),
  );
  const nicPorts = Object.entries(document.nics).flatMap(([name, nic]) =>
    toNicPorts(name, nic, (port) => direct.has(port)),
  );
  const portMac = (name: string): string | undefined =>
    nicPorts.find((port) => port.name === name)?.mac;
  return {
    file: resolve(file),
    run: {
      path: runPath,
      mode: Number.parseInt(run.mode, 8),
      owner: 'owner' in run ? run.owner : undefined,
      group: 'group' in run ? run.group : undefined,
    },
    isolation: document.isolation,
    lanes: lanes.map(
      (lane: { cpus?: number[] | undefined; idle_poll_us?: number | undefined }) => ({
        cpus: lane.cpus,
        idlePollUs: lane.idle_poll_us,
      }),
    ),
    switches: Object.entries(document.switches).map(([name, item]) => ({
      name,
      ageing: item.ageing,
      lane: item.lane,
      wire: item.wire === 'none' ? undefined : toWire(item.wire, base),
    })),
    nicPorts,
    disks: Object.entries(document.disks).map(([name, disk]) => toDisk(name, disk, base)),
    guests: Object.entries(document.guests).map(([name, guest]) => {
      const disk = toGuestDisks(name, guest.disk, runPath);
      return {
        name,
        memoryBytes: bytesOf(guest.memory),
        net: guest.net.map((net, index) => toNet(name, index, net, runPath, portMac)),
        disk,
        controllers: controllersOf(disk),
      };
    }),
  };
}

function toNet(
  guest: string,
  index: number,
  net: NetDocument,
  run: string,
  portMac: (nicPort: string) => string | undefined,
): NetConfig {
  if (net.method === 'direct' || net.method === 'sriov') {
    return toFunction(guest, index, net, run, portMac);
  }
  const card = {
    port: `${guest}/net${index}`,
    guest,
    switch: net.switch,
    mac: (net.mac ?? defaultMac(guest, index)).toLowerCase(),
    ...vlansOf(net),
    qos: net.qos,
    maxTxRate: net.max_tx_rate,
    maxRxRate: net.max_rx_rate,
    spoofCheck: isOn(net.spoofchk),
    socket: resolve(run, `${guest}-net${index}.sock`),
  };
  if (net.method === 'emulated') {
    const model = E1000_MODELS.find((known) => known === String(net.model));
    if (model === undefined) throw new SluiceError('config', `no model ${net.model}`);
    return { method: net.method, model, ...card, server: 'listen' };
  }
  return {
    method: net.method,
    ...card,
    queues: net.queues,
    mtu: net.mtu,
    packed: isOn(net.packed),
    offloads: Array.isArray(net.offloads) ? net.offloads : isOn(net.offloads) ? OFFLOAD_NAMES : [],
    server: net.server,
  };
}

type WireDocument = Exclude<ConfigDocument['switches'][string]['wire'], 'none'>;

function toWire(wire: WireDocument, base: string): WireConfig {
  const vlans = vlansOf(wire);
  if (wire.tap !== undefined) return { kind: 'tap', tap: wire.tap, ...vlans };
  if (wire.switch !== undefined) return { kind: 'switch', switch: wire.switch, ...vlans };
  return { kind: 'capture', file: resolve(base, wire.capture ?? ''), ...vlans };
}

function checkSocketPaths(source: ConfigSource, config: Config): void {
  const control = controlSocketPath(config.run.path);
  if (Buffer.byteLength(control) > MAX_SOCKET_PATH) {
    source.report(
      ['run'],
      `the control socket's path ${control} is longer than ${MAX_SOCKET_PATH} bytes: choose a shorter run directory`,
    );
  }
  for (const guest of config.guests) {
    for (const key of ['net', 'disk'] as const) {
      for (const [index, { socket }] of guest[key].entries()) {
        const bytes = Buffer.byteLength(socket);
        if (bytes <= MAX_SOCKET_PATH) continue;
        source.report(
          ['guests', guest.name, key, index],
          `its socket path ${socket} has ${bytes} bytes, at most ${MAX_SOCKET_PATH} are possible: choose a shorter run directory`,
        );
      }
    }
  }
}
