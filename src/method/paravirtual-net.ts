/**
 * Method `paravirtual` for network cards: the guest sees virtio-net, its rings lie in its own memory,
 * and the switch copies between guests in software. Wires the device to a vhost-user server and to
 * a switch.
 */
import { loggerTo } from '../base/log.ts';
import {
  type OffloadName,
  offloadFeatures,
  withRequirements,
} from '../device/virtio-net/features.ts';
import { VirtioNet } from '../device/virtio-net/virtio-net.ts';
import type { DataPath } from '../net/data-path.ts';
import { parseStationMac } from '../net/mac.ts';
import { PortPolicy } from '../net/policy.ts';
import type { Switch } from '../net/switch.ts';
import { PositionJournal } from '../transport/vhost-user/position-journal.ts';
import type { VhostUserServer } from '../transport/vhost-user/server.ts';
import {
  Attachment,
  type AttachmentOptions,
  type AttachmentRing,
  type AttachmentState,
  type MethodHost,
} from './attachment.ts';

export interface ParavirtualPortOptions extends AttachmentOptions {
  /** Name of the port, such as `web/net0`. */
  readonly port: string;
  readonly mac: string;
  readonly queues: number;
  readonly mtu: number | undefined;
  readonly offloads: readonly OffloadName[];
  readonly vlan?: number;
  readonly trunk?: readonly number[];
  readonly qos: number | undefined;
  /** Mb/s; 0: no limit. */
  readonly maxTxRate: number;
  readonly maxRxRate: number;
  readonly spoofCheck: boolean;
  /** File that keeps the position of packed rings over a restart. */
  readonly journal: string;
}

export interface ParavirtualPortState {
  readonly state: AttachmentState & {
    readonly port: string;
    readonly switch: string;
    readonly kind: 'guest';
    readonly running: boolean;
  };
  readonly rings: readonly (AttachmentRing & { readonly direction: 'rx' | 'tx' })[];
}

/** A guest's network card, plugged into a switch. */
export class ParavirtualPort {
  readonly device: VirtioNet;
  readonly switch: Switch;
  readonly #attachment: Attachment;
  readonly #journal: PositionJournal;

  /** @throws SluiceError if the socket cannot be made, or an option is out of range. */
  constructor(options: ParavirtualPortOptions, host: MethodHost, path: DataPath, to: Switch) {
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
    try {
      this.#attachment = new Attachment(options, host, {
        name,
        device,
        arena: path.arena,
        log,
        journal,
      });
    } catch (error) {
      journal.close();
      throw error;
    }
    this.device = device;
    this.switch = to;
    this.#journal = journal;
    try {
      to.addPort(device, policy);
    } catch (error) {
      this.#attachment.close();
      journal.close();
      throw error;
    }
    device.owner = to;
  }

  get server(): VhostUserServer {
    return this.#attachment.server;
  }

  /** What `sluice show` tells. */
  describe(): ParavirtualPortState {
    const { state, rings } = this.#attachment.describe();
    return {
      state: {
        port: this.device.name,
        switch: this.switch.name,
        kind: 'guest',
        running: this.device.running,
        ...state,
      },
      rings: rings.map((ring) => ({ ...ring, direction: ring.ring % 2 === 0 ? 'rx' : 'tx' })),
    };
  }

  /** Disconnects the guest and unplugs the port; the socket disappears. */
  close(): void {
    this.#attachment.close();
    this.switch.removePort(this.device);
    this.device.owner = undefined;
    this.#journal.close();
  }
}
