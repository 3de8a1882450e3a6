/** What a lane runs: its switches, their wires, its guests' cards and disks. Here lane and methods meet. */
import { join } from 'node:path';
import { SluiceError } from '../base/errors.ts';
import type { LaneHost, LaneProgram } from '../engine/lane.ts';
import type { Later } from '../engine/later.ts';
import { EmulatedPort } from '../method/emulated.ts';
import { ParavirtualPort } from '../method/paravirtual.ts';
import { CaptureTap } from '../net/capture.ts';
import { CaptureRing } from '../net/capture-ring.ts';
import { createDataPath, type DataPath } from '../net/data-path.ts';
import type { Port } from '../net/port.ts';
import { Switch } from '../net/switch.ts';
import type { SocketAccess } from '../os/unix-socket.ts';
import type { NetConfig } from './config.ts';
import type {
  FunctionState,
  LaneCommands,
  LaneEvent,
  LaneSettings,
  LaneSnapshot,
  MacState,
  PortCounters,
  PortState,
  RingState,
} from './lane-commands.ts';
import { LaneDisks } from './lane-disks.ts';
import { LaneFunctions } from './lane-functions.ts';
import { LaneNics } from './lane-nics.ts';
import { plugWire, type Wire } from './lane-wires.ts';
import { journalName } from './run-directory.ts';

/** What the guests' sockets allow: their owner and group may connect. */
const SOCKET_MODE = 0o660;

export class DomainLane implements LaneProgram<LaneCommands> {
  readonly #host: LaneHost<LaneEvent>;
  readonly #settings: LaneSettings;
  readonly #access: SocketAccess;
  readonly #path: DataPath;
  readonly #switches = new Map<string, Switch>();
  readonly #wires = new Map<string, Wire>();
  readonly #ports = new Map<string, ParavirtualPort | EmulatedPort>();
  readonly #functions: LaneFunctions;
  readonly #disks: LaneDisks;
  readonly #nics: LaneNics;

  constructor(host: LaneHost<LaneEvent>) {
    this.#host = host;
    this.#settings = host.settings as LaneSettings;
    const { uid, gid } = this.#settings;
    this.#access = {
      mode: SOCKET_MODE,
      ...(uid === undefined ? {} : { uid }),
      ...(gid === undefined ? {} : { gid }),
    };
    this.#path = createDataPath(host.arena, host.loop);
    this.#functions = new LaneFunctions(host.arena, host.log, this.#settings);
    this.#nics = new LaneNics(host, this.#access, this.#path, this.#functions);
    this.#disks = new LaneDisks(host, this.#settings, this.#access, this.#functions);
  }

  readonly commands: LaneProgram<LaneCommands>['commands'] = {
    addSwitch: ({ name, ageing }) => {
      this.#switches.set(name, new Switch(name, this.#path, { ageing }));
      return undefined;
    },
    removeSwitch: (name) => {
      this.#switches.get(name)?.close();
      this.#switches.delete(name);
      return undefined;
    },
    addWire: ({ name, switch: owner, wire, ring }) => {
      const far = wire.kind === 'switch' ? this.#switch(wire.switch) : undefined;
      const plugged = plugWire(name, wire, {
        near: this.#switch(owner),
        far,
        ring: ring === undefined ? undefined : new CaptureRing(ring),
        path: this.#path,
        host: this.#host,
      });
      this.#wires.set(name, plugged);
      return plugged.ports.map(countersOf);
    },
    removeWire: (name) => {
      this.#wires.get(name)?.close();
      this.#wires.delete(name);
      return undefined;
    },
    addNic: (config) => [countersOf(this.#nics.add(config))],
    setMirrors: (config) => this.#nics.setMirrors(config),
    removeNic: (name) => this.#nics.remove(name),
    plugNic: ({ nic, wire }) =>
      this.#nics
        .plug(nic, wire, wire.kind === 'switch' ? this.#switch(wire.switch) : undefined)
        .map(countersOf),
    unplugNic: (name) => this.#nics.unplug(name),
    setVf: (config) => this.#nics.set(config),
    addPort: (net) => this.#addPort(net),
    removePort: (name) => this.#removePort(name),
    addDisk: ({ disk, description }) => this.#disks.add(disk, description),
    removeDisk: (name) => this.#disks.remove(name),
    powerDisk: ({ disk, on }) => this.#disks.power(disk, on),
    refreshDisk: ({ disk, most }) => this.#disks.refresh(disk, most),
    addController: (controller) => this.#disks.addController(controller),
    removeController: (name) => this.#disks.removeController(name),
    addDevice: (guestDisk) => this.#disks.addDevice(guestDisk),
    removeDevice: (name) => this.#disks.removeDevice(name),
    drain: () => this.#disks.drain(),
    startCapture: ({ port: name, ring, snapLength }) => {
      const { owner, port } = this.#plugged(name);
      owner.observe(port, new CaptureTap(new CaptureRing(ring), 0, snapLength));
      return undefined;
    },
    stopCapture: (name) => {
      const { owner, port } = this.#plugged(name);
      owner.observe(port, undefined);
      return undefined;
    },
    snapshot: () => this.#snapshot(),
    dmaFaults: () => this.#functions.faults(),
    macs: () => this.#macs(),
  };

  close(): void {
    for (const port of this.#ports.values()) port.close();
    this.#nics.close();
    for (const wire of this.#wires.values()) wire.close();
    this.#disks.close();
  }

  #switch(name: string): Switch {
    const found = this.#switches.get(name);
    if (found === undefined) throw new SluiceError('not-found', `no switch ${name} in this lane`);
    return found;
  }

  /** A port by its name, with the switch that it is plugged into. */
  #plugged(name: string): { readonly owner: Switch; readonly port: Port } {
    for (const owner of [...this.#switches.values(), ...this.#nics.switches()]) {
      const port = owner.ports().find((other) => other?.name === name);
      if (port !== undefined) return { owner, port };
    }
    if (this.#nics.has(name)) throw this.#nics.notPlugged(name);
    throw new SluiceError('not-found', `no port ${name} in this lane`);
  }

  #addPort(net: NetConfig): readonly PortCounters[] {
    if (net.method === 'direct' || net.method === 'sriov') {
      const { counters } = this.#nics.addFunction(net);
      return [{ port: net.port, shared: counters.shared }];
    }
    const { run, isolation } = this.#settings;
    const shared = {
      access: this.#access,
      onFailure: (reason: string) =>
        this.#host.emit({ kind: 'fault', fault: { port: net.port, reason } }),
    };
    const to = this.#switch(net.switch);
    const port =
      net.method === 'paravirtual'
        ? new ParavirtualPort(
            { ...net, ...shared, isolation, journal: join(run, journalName(net.port)) },
            this.#host,
            this.#path,
            to,
          )
        : new EmulatedPort(
            { ...net, ...shared, ...this.#functions.watch(net.port) },
            this.#host,
            this.#path,
            to,
            this.#functions.partsOf(net.port),
          );
    this.#ports.set(net.port, port);
    return [countersOf(port.device)];
  }

  #removePort(name: string): Later<undefined> | undefined {
    if (this.#nics.has(name)) return this.#nics.removeFunction(name);
    const port = this.#ports.get(name);
    this.#ports.delete(name);
    if (port instanceof EmulatedPort) {
      this.#functions.forget(name);
      return port.close();
    }
    port?.close();
    return undefined;
  }

  #snapshot(): LaneSnapshot {
    const ports: PortState[] = [];
    const rings: RingState[] = [];
    const functions: FunctionState[] = [];
    for (const port of this.#ports.values()) {
      if (port instanceof ParavirtualPort) {
        const told = port.describe();
        ports.push(told.state);
        rings.push(...told.rings);
      } else {
        const told = port.describe();
        const state = this.#functions.stateOf(port.device.name, port.model, told.state);
        functions.push(state);
        ports.push(emulatedPortState(port, state));
        rings.push(...told.rings);
      }
    }
    for (const wire of this.#wires.values()) ports.push(...wireStates(wire));
    const disks = this.#disks.describe();
    const nics = this.#nics.describe();
    return {
      ports: [...ports, ...nics.ports],
      rings: [...rings, ...nics.rings, ...disks.rings],
      disks: disks.disks,
      devices: disks.devices,
      functions: [...functions, ...nics.functions, ...disks.functions],
      vfs: nics.vfs,
    };
  }

  #macs(): MacState[] {
    const { now } = this.#host.loop;
    return [...this.#switches.values()].flatMap((item) => {
      const ports = item.ports();
      return item.macs.list(now).map(({ mac, vlan, port, age, static: isStatic }) => ({
        switch: item.name,
        mac,
        vlan,
        port: ports[port]?.name ?? '',
        static: isStatic,
        age: age / 1e9,
      }));
    });
  }
}

function emulatedPortState(port: EmulatedPort, state: FunctionState): PortState {
  const { connected, memoryBytes, fault } = state;
  return {
    port: port.device.name,
    switch: port.switch.name,
    kind: 'guest',
    running: port.running,
    connected,
    features: '0x0',
    protocolFeatures: [],
    memoryBytes,
    fault,
  };
}

function wireStates({ kind, ports, switches }: Wire): PortState[] {
  return ports.map((port, index) => ({
    port: port.name,
    switch: switches[index] ?? '',
    kind,
    connected: true,
    running: true,
    features: '0x0',
    protocolFeatures: [],
    memoryBytes: 0,
    fault: null,
  }));
}

function countersOf(port: Port): PortCounters {
  return { port: port.name, shared: port.counters.shared };
}
