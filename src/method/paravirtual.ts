/**
 * Method `paravirtual`: the guest sees virtio-net, its rings lie in its own memory, and the switch
 * copies between guests in software. Wires the device to a vhost-user server and to a switch.
 */
import { bitMask } from '../base/bits.ts';
import { loggerTo } from '../base/log.ts';
import {
  type OffloadName,
  offloadFeatures,
  withRequirements,
} from '../device/virtio-net/features.ts';
import { VirtioNet } from '../device/virtio-net/virtio-net.ts';
import type { LaneHost } from '../engine/lane.ts';
import type { Isolation } from '../memory/guest-memory.ts';
import type { DataPath } from '../net/data-path.ts';
import { parseStationMac } from '../net/mac.ts';
import { PortPolicy } from '../net/policy.ts';
import type { Switch } from '../net/switch.ts';
import type { SocketAccess } from '../os/unix-socket.ts';
import { VIRTIO_F_RING_PACKED } from '../spec/virtio.ts';
import { PositionJournal } from '../transport/vhost-user/position-journal.ts';
import { VhostUserServer } from '../transport/vhost-user/server.ts';

export interface ParavirtualOptions {
  /** Name of the port, such as `web/net0`. */
  readonly port: string;
  readonly mac: string;
  readonly queues: number;
  readonly mtu: number | undefined;
  readonly packed: boolean;
  readonly offloads: readonly OffloadName[];
  readonly vlan?: number;
  readonly trunk?: readonly number[];
  readonly qos: number | undefined;
  /** Mb/s; 0: no limit. */
  readonly maxTxRate: number;
  readonly maxRxRate: number;
  readonly spoofCheck: boolean;
  readonly socket: string;
  /** Whether Sluice listens on the socket or connects to it. */
  readonly server: 'listen' | 'connect';
  readonly access: SocketAccess;
  readonly isolation: Isolation;
  /** File that keeps the position of packed rings over a restart. */
  readonly journal: string;
  /** The device or its guest has failed; the guest was disconnected or told. */
  readonly onFailure: (reason: string) => void;
}

export interface ParavirtualState {
  readonly state: {
    readonly port: string;
    readonly switch: string;
    readonly kind: 'guest';
    readonly connected: boolean;
    readonly running: boolean;
    readonly features: string;
    readonly protocolFeatures: readonly string[];
    readonly memoryBytes: number;
    readonly fault: string | null;
  };
  readonly rings: readonly {
    readonly port: string;
    readonly ring: number;
    readonly direction: 'rx' | 'tx';
    readonly size: number;
    readonly packed: boolean;
    readonly started: boolean;
    readonly enabled: boolean;
    readonly avail: number;
    readonly used: number;
  }[];
}

/** A guest's network card, plugged into a switch. */
export class ParavirtualPort {
  readonly device: VirtioNet;
  readonly server: VhostUserServer;
  readonly switch: Switch;
  /** What stopped the device: a failure of its own, or the present guest. */
  #failure: string | undefined;
  #broken: string | undefined;
  readonly #close: () => void;

  /** @throws SluiceError if the socket cannot be made, or an option is out of range. */
  constructor(
    options: ParavirtualOptions,
    host: Pick<LaneHost<unknown>, 'guard' | 'log' | 'loop'>,
    path: DataPath,
    to: Switch,
  ) {
    const { port: name } = options;
    const log = loggerTo((level, message, fields) => host.log[level](message, fields), {
      port: name,
    });
    const mac = parseStationMac(options.mac);
    const policy = new PortPolicy(
      {
        vlan: options.vlan,
        trunk: options.trunk,
        qos: options.qos,
        mac,
        spoofchk: options.spoofCheck,
        maxTxRate: options.maxTxRate,
        maxRxRate: options.maxRxRate,
      },
      host.loop.now,
    );
    const device = new VirtioNet({
      name,
      path,
      mac,
      queuePairs: options.queues,
      ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
      // Offloads that rest on one that is switched off go with it.
      withheld: offloadFeatures() & ~withRequirements(offloadFeatures(options.offloads)),
      ...(policy.txLimit === undefined ? {} : { txLimit: policy.txLimit }),
      log,
    });
    const journal = new PositionJournal(options.journal, device.maxQueues);
    let server: VhostUserServer;
    try {
      server = new VhostUserServer({
        device,
        arena: path.arena,
        loop: host.loop,
        log,
        path: options.socket,
        role: options.server,
        access: options.access,
        isolation: options.isolation,
        journal,
        withheldFeatures: options.packed ? 0n : bitMask(VIRTIO_F_RING_PACKED),
        onConnection: (connected) => {
          this.#broken = undefined;
          if (connected) this.#watchGuest(device, options);
        },
      });
    } catch (error) {
      journal.close();
      throw error;
    }
    const poller = host.guard(name, device, (error) => {
      // The guest loses its link at once; its rings are not touched any more.
      this.#failure = error instanceof Error ? error.message : String(error);
      server.close();
      options.onFailure(this.#failure);
    });
    to.addPort(device, policy);
    device.owner = to;
    host.loop.addPoller(poller);
    this.device = device;
    this.server = server;
    this.switch = to;
    this.#close = () => {
      host.loop.removePoller(poller);
      server.close();
      to.removePort(device);
      device.owner = undefined;
      journal.close();
    };
  }

  /** The session tells the guest that it broke its device; this tells the operator. */
  #watchGuest(device: VirtioNet, options: ParavirtualOptions): void {
    const tellGuest = device.onBroken;
    device.onBroken = (reason) => {
      tellGuest?.(reason);
      this.#broken = `the guest broke the device: ${reason.message}`;
      options.onFailure(this.#broken);
    };
  }

  /** What `sluice show` tells. */
  describe(): ParavirtualState {
    const session = this.server.describe();
    const port = this.device.name;
    return {
      state: {
        port,
        switch: this.switch.name,
        kind: 'guest',
        connected: session !== undefined,
        running: this.device.running,
        features: `0x${(session?.features ?? 0n).toString(16)}`,
        protocolFeatures: session?.protocolFeatures ?? [],
        memoryBytes: (session?.memory ?? []).reduce((sum, { size }) => sum + size, 0),
        fault: this.#failure ?? this.#broken ?? null,
      },
      rings: (session?.rings ?? []).map(({ index, size, packed, started, enabled, position }) => ({
        port,
        ring: index,
        direction: index % 2 === 0 ? 'rx' : 'tx',
        size,
        packed,
        started,
        enabled,
        avail: position.avail,
        used: position.used,
      })),
    };
  }

  /** Disconnects the guest and unplugs the port; the socket disappears. */
  close(): void {
    this.#close();
  }
}
