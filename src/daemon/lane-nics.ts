/** The ports of NICs of a lane, what they are plugged into, and the functions that guests have of them. */
import { SluiceError } from '../base/errors.ts';
import { SlotLimit } from '../device/ixgbe/link-limit.ts';
import { VEB_MIRRORS } from '../device/ixgbe/veb.ts';
import type { LaneHost } from '../engine/lane.ts';
import type { Later } from '../engine/later.ts';
import { DirectPort } from '../method/direct.ts';
import { NicPort } from '../method/nic-port.ts';
import { SriovPort } from '../method/sriov.ts';
import type { DataPath } from '../net/data-path.ts';
import { parseStationMac } from '../net/mac.ts';
import { PortPolicy } from '../net/policy.ts';
import { PORT_COUNTER_INDEX, type Port } from '../net/port.ts';
import { Switch } from '../net/switch.ts';
import type { SocketAccess } from '../os/unix-socket.ts';
import type { FunctionState, LaneEvent, PortState, RingState, VfState } from './lane-commands.ts';
import type { LaneFunctions } from './lane-functions.ts';
import { plugWire, type Wire } from './lane-wires.ts';
import { ZERO_MAC } from './net-values.ts';
import type {
  DirectNetConfig,
  NicPortConfig,
  NicWireConfig,
  SriovNetConfig,
} from './nic-config.ts';
import { linkMbps } from './nic-schema.ts';
import { settingsOf } from './vf-schema.ts';

/** What a port is plugged into. */
interface Plug {
  readonly config: NicWireConfig;
  /** The switch that it is a port of: one of the configuration, or one for itself and a tap. */
  readonly to: Switch;
  readonly tap: Wire | undefined;
}

interface LaneNic {
  readonly config: Omit<NicPortConfig, 'wire'>;
  readonly port: NicPort;
  plug: Plug | undefined;
}

interface LaneFunction {
  readonly config: DirectNetConfig | SriovNetConfig;
  readonly port: DirectPort | SriovPort;
}

export class LaneNics {
  readonly #host: LaneHost<LaneEvent>;
  readonly #access: SocketAccess;
  readonly #path: DataPath;
  readonly #functions: LaneFunctions;
  readonly #nics = new Map<string, LaneNic>();
  readonly #ports = new Map<string, LaneFunction>();
  /** What the slots carry, by NIC: its ports share one. */
  readonly #slots = new Map<string, SlotLimit>();

  /** @param access who may connect to the guests' sockets */
  constructor(
    host: LaneHost<LaneEvent>,
    access: SocketAccess,
    path: DataPath,
    functions: LaneFunctions,
  ) {
    this.#host = host;
    this.#access = access;
    this.#path = path;
    this.#functions = functions;
  }

  /** Returns the port's card. */
  add(config: Omit<NicPortConfig, 'wire'>): Port {
    const { name, nic, port, mac, mode, vfs, link, pcie, doorbells, doorbellPollUs } = config;
    const slot = pcie === 'none' ? undefined : (this.#slots.get(nic) ?? new SlotLimit());
    if (slot !== undefined) this.#slots.set(nic, slot);
    const made = new NicPort(
      {
        name,
        port: port === 0 ? 0 : 1,
        mac: parseStationMac(mac),
        mode,
        vfs,
        link,
        slot,
        mapped: doorbells === 'mapped',
        doorbellPollUs,
        onFailure: this.#tell(name),
      },
      this.#host,
      this.#path,
    );
    this.#nics.set(name, { config, port: made, plug: undefined });
    setMirrors(made, config);
    return made.card;
  }

  /** Puts the rules of a port that runs in place of those before. */
  setMirrors(config: Omit<NicPortConfig, 'wire'>): undefined {
    const { port, plug } = this.#nic(config.name);
    this.#nics.set(config.name, { config, port, plug });
    setMirrors(port, config);
    return undefined;
  }

  /** @throws SluiceError `state` while it is plugged in, or a guest has a function of it */
  remove(name: string): undefined {
    const found = this.#nics.get(name);
    if (found === undefined) return undefined;
    const user = [...this.#ports.values()].find(({ config }) => config.nicPort === name);
    if (user !== undefined || found.plug !== undefined) {
      throw new SluiceError(
        'state',
        `${name} is removed with ${user?.config.port ?? 'a wire'} in it`,
      );
    }
    found.port.close();
    this.#nics.delete(name);
    const { nic } = found.config;
    if (![...this.#nics.values()].some(({ config }) => config.nic === nic)) this.#slots.delete(nic);
    return undefined;
  }

  /**
   * Plugs a port into its wire. Returns the ports that come with that.
   * @param lan the switch that is named
   * @throws SluiceError if there is no such interface, or no right to it
   */
  plug(name: string, wire: NicWireConfig, lan: Switch | undefined): readonly Port[] {
    const nic = this.#nic(name);
    const { card } = nic.port;
    const policy = new PortPolicy({ vlan: wire.vlan, trunk: wire.trunk }, this.#host.loop.now);
    if (wire.kind === 'switch') {
      if (lan === undefined) throw new SluiceError('not-found', `no switch ${wire.switch}`);
      lan.addPort(card, policy);
      card.owner = lan;
      nic.plug = { config: wire, to: lan, tap: undefined };
      return [];
    }
    // A switch of its own: it does in software what the card cannot take of the host's offloads.
    const to = new Switch(name, this.#path);
    let tap: Wire;
    try {
      const { tap: device } = wire;
      tap = plugWire(
        `${name}/wire`,
        { kind: 'tap', tap: device },
        {
          near: to,
          far: undefined,
          ring: undefined,
          path: this.#path,
          host: this.#host,
        },
      );
    } catch (error) {
      to.close();
      throw error;
    }
    to.addPort(card, policy);
    card.owner = to;
    nic.plug = { config: wire, to, tap };
    return tap.ports;
  }

  unplug(name: string): undefined {
    const nic = this.#nics.get(name);
    if (nic?.plug === undefined) return undefined;
    const { to, tap } = nic.plug;
    nic.plug = undefined;
    nic.port.card.owner = undefined;
    to.removePort(nic.port.card);
    if (tap !== undefined) {
      tap.close();
      to.close();
    }
    return undefined;
  }

  /** Returns the counters' owner. */
  addFunction(config: DirectNetConfig | SriovNetConfig): { readonly counters: Port['counters'] } {
    const { port: name, socket, itr } = config;
    const nic = this.#nic(config.nicPort);
    const options = {
      port: name,
      socket,
      access: this.#access,
      itr,
      onFailure: this.#tell(name),
      ...this.#functions.watch(name),
    };
    const dma = this.#functions.partsOf(name);
    const port =
      config.method === 'direct'
        ? new DirectPort(options, this.#host, nic.port, dma)
        : new SriovPort(
            {
              ...options,
              vf: config.vf,
              mac: config.mac,
              settings: this.#settings(nic, config),
            },
            this.#host,
            nic.port,
            dma,
          );
    this.#ports.set(name, { config, port });
    return port.function;
  }

  has(name: string): boolean {
    return this.#ports.has(name);
  }

  /** Why frames of a function cannot be captured. */
  notPlugged(name: string): SluiceError {
    const nic = this.#ports.get(name)?.config.nicPort ?? '';
    return new SluiceError('unsupported', `${name} is a function of ${nic}, no port of a switch`, {
      remedy: `capture ${nic}: what passes its wire`,
    });
  }

  /** Settles when its guest's memory is not used any more. */
  removeFunction(name: string): Later<undefined> | undefined {
    const found = this.#ports.get(name);
    if (found === undefined) return undefined;
    this.#ports.delete(name);
    this.#functions.forget(name);
    return found.port.close();
  }

  /** Sets what is said of a virtual function. @throws SluiceError, and nothing is changed */
  set(config: SriovNetConfig): undefined {
    const found = this.#ports.get(config.port);
    if (!(found?.port instanceof SriovPort)) {
      throw new SluiceError('not-found', `no virtual function ${config.port} in this lane`);
    }
    found.port.set(this.#settings(this.#nic(config.nicPort), config));
    this.#ports.set(config.port, { config, port: found.port });
    return undefined;
  }

  #settings({ config: { link } }: LaneNic, { port, words }: SriovNetConfig) {
    return settingsOf(port, words, linkMbps(link));
  }

  /** The switches that ports have for themselves, for captures. */
  switches(): readonly Switch[] {
    return [...this.#nics.values()].flatMap(({ plug }) =>
      plug?.tap === undefined ? [] : [plug.to],
    );
  }

  close(): void {
    for (const { port } of this.#ports.values()) port.close();
    for (const name of this.#nics.keys()) this.unplug(name);
  }

  describe(): {
    readonly ports: readonly PortState[];
    readonly rings: readonly RingState[];
    readonly functions: readonly FunctionState[];
    readonly vfs: readonly VfState[];
  } {
    const told = [...this.#ports.values()].map((item) => ({ ...item, ...item.port.describe() }));
    const ports = told.map(({ config, port, state }) => guestState(config, port.running, state));
    return {
      ports: [...[...this.#nics.values()].flatMap(nicStates), ...ports],
      rings: told.flatMap(({ rings }) => rings),
      functions: told.map(({ config, state }) =>
        this.#functions.stateOf(config.port, MODELS[config.method], state),
      ),
      vfs: told.flatMap(({ config, port, state }) =>
        config.method === 'sriov' && port instanceof SriovPort
          ? vfState(config, port, state.connected)
          : [],
      ),
    };
  }

  #nic(name: string): LaneNic {
    const found = this.#nics.get(name);
    if (found === undefined) throw new SluiceError('not-found', `no port ${name} in this lane`);
    return found;
  }

  #tell(name: string): (reason: string) => void {
    return (reason) => this.#host.emit({ kind: 'fault', fault: { port: name, reason } });
  }
}

const TX_DROP_SPOOF = PORT_COUNTER_INDEX.tx_drop_spoof;
const TX_DROP_VLAN = PORT_COUNTER_INDEX.tx_drop_vlan;
const MODELS = { direct: '82599', sriov: '82599 VF' } as const;

/** What ports have that are no guests' virtio devices. */
const NO_FEATURES = { features: '0x0', protocolFeatures: [] } as const;

function guestState(
  { port, nicPort }: DirectNetConfig | SriovNetConfig,
  running: boolean,
  { connected, memoryBytes, fault }: Pick<FunctionState, 'connected' | 'memoryBytes' | 'fault'>,
): PortState {
  return {
    port,
    switch: nicPort,
    kind: 'guest',
    connected,
    running,
    ...NO_FEATURES,
    memoryBytes,
    fault,
  };
}

/** The port itself, as a port of what it is plugged into; and its tap. */
function nicStates({ config, port, plug }: LaneNic): PortState[] {
  const plain = { connected: true, running: true, ...NO_FEATURES, memoryBytes: 0, fault: null };
  const near = plug?.to.name ?? '-';
  return [
    { port: config.name, switch: near, kind: 'nic', ...plain, fault: port.fault },
    ...(plug?.tap?.ports ?? []).map(
      ({ name }): PortState => ({ port: name, switch: near, kind: 'tap', ...plain }),
    ),
  ];
}

function vfState(config: SriovNetConfig, port: SriovPort, connected: boolean): VfState {
  const { nicPort: nic, socket } = config;
  const { address, ...told } = port.describeVf();
  const { values } = port.function.counters;
  return {
    function: port.function.name,
    nic,
    port: config.port,
    socket,
    connected,
    running: port.running,
    ...told,
    address: address ?? ZERO_MAC,
    spoofed: (values[TX_DROP_SPOOF] as number) + (values[TX_DROP_VLAN] as number),
  };
}

/** Rules that there are not any more end. */
function setMirrors({ card }: NicPort, { mirrors }: Omit<NicPortConfig, 'wire'>): void {
  for (let rule = 0; rule < VEB_MIRRORS; rule++) card.setMirror(rule, mirrors[rule]);
}
