/** What a lane runs: its switches, their wires, its guests' cards and disks. Here lane and methods meet. */
import { join } from 'node:path';
import { SluiceError } from '../base/errors.ts';
import type { LaneHost, LaneProgram } from '../engine/lane.ts';
import { ParavirtualPort } from '../method/paravirtual.ts';
import { CaptureTap } from '../net/capture.ts';
import { CaptureRing } from '../net/capture-ring.ts';
import { createDataPath, type DataPath } from '../net/data-path.ts';
import type { Port } from '../net/port.ts';
import { Switch } from '../net/switch.ts';
import type { SocketAccess } from '../os/unix-socket.ts';
import type { NetConfig } from './config.ts';
import type {
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
  readonly #ports = new Map<string, ParavirtualPort>();
  readonly #disks: LaneDisks;

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
    this.#disks = new LaneDisks(host, this.#settings, this.#access);
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
    addPort: (net) => this.#addPort(net),
    removePort: (name) => {
      this.#ports.get(name)?.close();
      this.#ports.delete(name);
      return undefined;
    },
    addDisk: ({ disk, description }) => this.#disks.add(disk, description),
    removeDisk: (name) => this.#disks.remove(name),
    powerDisk: ({ disk, on }) => this.#disks.power(disk, on),
    refreshDisk: ({ disk, most }) => this.#disks.refresh(disk, most),
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
    macs: () => this.#macs(),
  };

  close(): void {
    for (const port of this.#ports.values()) port.close();
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
    for (const owner of this.#switches.values()) {
      const port = owner.ports().find((other) => other?.name === name);
      if (port !== undefined) return { owner, port };
    }
    throw new SluiceError('not-found', `no port ${name} in this lane`);
  }

  #addPort(net: NetConfig): readonly PortCounters[] {
    const { run, isolation } = this.#settings;
    const port = new ParavirtualPort(
      {
        ...net,
        isolation,
        access: this.#access,
        journal: join(run, journalName(net.port)),
        onFailure: (reason) =>
          this.#host.emit({ kind: 'fault', fault: { port: net.port, reason } }),
      },
      this.#host,
      this.#path,
      this.#switch(net.switch),
    );
    this.#ports.set(net.port, port);
    return [countersOf(port.device)];
  }

  #snapshot(): LaneSnapshot {
    const guests = [...this.#ports.values()].map((port) => port.describe());
    const wires = [...this.#wires.values()].flatMap(({ kind, ports, switches }) =>
      ports.map(
        (port, index): PortState => ({
          port: port.name,
          switch: switches[index] ?? '',
          kind,
          connected: true,
          running: true,
          features: '0x0',
          protocolFeatures: [],
          memoryBytes: 0,
          fault: null,
        }),
      ),
    );
    const { rings, ...disks } = this.#disks.describe();
    return {
      ports: [...guests.map(({ state }) => state), ...wires],
      rings: [...guests.flatMap((guest): readonly RingState[] => guest.rings), ...rings],
      ...disks,
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

function countersOf(port: Port): PortCounters {
  return { port: port.name, shared: port.counters.shared };
}
