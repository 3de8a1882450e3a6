/**
 * Method `emulated` for network cards: the guest sees an Intel 82540EM or 82574L, each access to its
 * registers is a message to the driver domain, and its descriptors are read from the guest's memory.
 * Wires the card to a vfio-user server and to a switch.
 */
import { loggerTo } from '../base/log.ts';
import { E1000 } from '../device/e1000/e1000.ts';
import type { E1000Model } from '../device/e1000/function.ts';
import type { GuardedPoller } from '../engine/guard.ts';
import { Later } from '../engine/later.ts';
import type { DmaFaultLog } from '../memory/dma-faults.ts';
import type { DmaFiles } from '../memory/dma-files.ts';
import type { Burst } from '../net/burst.ts';
import type { DataPath } from '../net/data-path.ts';
import { parseStationMac } from '../net/mac.ts';
import { PortPolicy } from '../net/policy.ts';
import type { Switch } from '../net/switch.ts';
import { E1000_REGISTERS, RCTL_EN, RX_DESCRIPTOR_BYTES, TCTL_EN } from '../spec/e1000.ts';
import type { MethodHost } from './attachment.ts';
import { PciAttachment, type PciAttachmentOptions, type PciState } from './pci-attachment.ts';

export interface EmulatedPortOptions extends PciAttachmentOptions {
  /** Name of the port and of the function, such as `web/net0`. */
  readonly port: string;
  readonly model: E1000Model;
  readonly mac: string;
  readonly vlan?: number;
  readonly trunk?: readonly number[];
  readonly qos: number | undefined;
  /** Mb/s; 0: no limit. */
  readonly maxTxRate: number;
  readonly maxRxRate: number;
  readonly spoofCheck: boolean;
}

/** What a lane has for all its emulated devices. */
export interface DmaParts {
  readonly files: DmaFiles;
  readonly faults: DmaFaultLog;
}

/** A descriptor ring of a card, as its registers have it. */
export interface CardRing {
  readonly port: string;
  readonly ring: number;
  readonly direction: 'rx' | 'tx';
  readonly size: number;
  readonly packed: false;
  readonly started: boolean;
  readonly enabled: boolean;
  /** The tail: up to where the driver has filled it. */
  readonly avail: number;
  /** The head: up to where the card has used it. */
  readonly used: number;
}

const { RCTL, RDLEN, RDH, RDT, TCTL, TDLEN, TDH, TDT } = E1000_REGISTERS;
const RINGS = [
  { direction: 'rx', control: RCTL, enable: RCTL_EN, length: RDLEN, head: RDH, tail: RDT },
  { direction: 'tx', control: TCTL, enable: TCTL_EN, length: TDLEN, head: TDH, tail: TDT },
] as const;

/**
 * A card whose receiving side is fenced too: frames come to it in another guest's turn, which is not to
 * end by this card's failure.
 */
class FencedCard extends E1000 {
  guard: GuardedPoller | undefined;

  override deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    if (this.guard?.failed === true) return;
    try {
      super.deliver(burst, frames, count, tagged);
    } catch (error) {
      this.#fail(error);
    }
  }

  override flush(): void {
    if (this.guard?.failed === true) return;
    try {
      super.flush();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.guard === undefined) throw error;
    this.guard.fail(error);
  }
}

/** A guest's network card, plugged into a switch. */
export class EmulatedPort {
  readonly device: E1000;
  readonly model: E1000Model;
  readonly switch: Switch;
  readonly #attachment: PciAttachment;
  #closed: Later<undefined> | undefined;

  /** @throws SluiceError if the socket cannot be made, or an option is out of range. */
  constructor(
    options: EmulatedPortOptions,
    host: MethodHost,
    path: DataPath,
    to: Switch,
    dma: DmaParts,
  ) {
    const { port: name, model } = options;
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
    const { txLimit } = policy;
    const device = new FencedCard({
      name,
      model,
      path,
      mac,
      ...(txLimit === undefined ? {} : { txLimit }),
    });
    try {
      this.#attachment = new PciAttachment(options, host, { device, log, ...dma });
    } catch (error) {
      device.close();
      throw error;
    }
    device.guard = this.#attachment.guard;
    this.device = device;
    this.model = model;
    this.switch = to;
    try {
      to.addPort(device, policy);
    } catch (error) {
      this.#attachment.close(() => device.close());
      throw error;
    }
    device.owner = to;
  }

  get running(): boolean {
    return this.device.running && this.#attachment.fault === null;
  }

  /** What `sluice show` tells. */
  describe(): { readonly state: PciState; readonly rings: readonly CardRing[] } {
    const state = this.#attachment.describe();
    return { state, rings: state.connected && state.fault === null ? this.#rings() : [] };
  }

  /** None of these registers changes when it is read. */
  #rings(): CardRing[] {
    const read = ({ offset }: { readonly offset: number }): number =>
      this.device.readBar(0, offset, 4);
    return RINGS.flatMap(({ direction, control, enable, length, head, tail }, ring) => {
      const bytes = read(length);
      // All ones: memory is not decoded.
      if (bytes === 0 || bytes === 0xffff_ffff) return [];
      const isOn = (read(control) & enable) !== 0;
      return {
        port: this.device.name,
        ring,
        direction,
        size: bytes / RX_DESCRIPTOR_BYTES,
        packed: false,
        started: isOn,
        enabled: isOn,
        avail: read(tail),
        used: read(head),
      };
    });
  }

  /**
   * Disconnects the guest and unplugs the port; the socket disappears at once. Settles when the guest's
   * memory is not used any more.
   */
  close(): Later<undefined> {
    if (this.#closed !== undefined) return this.#closed;
    const closed = new Later<undefined>();
    this.#closed = closed;
    this.switch.removePort(this.device);
    this.device.owner = undefined;
    this.#attachment.close(() => {
      this.device.close();
      closed.resolve(undefined);
    });
    return closed;
  }
}
