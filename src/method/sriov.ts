/**
 * Method `sriov`: a guest has a virtual function of a NIC's port, which the driver domain owns. The driver
 * domain answers the function's mailbox and says what it may do, in the words of `ip link set DEV vf NUM`.
 */
import { vfLayout } from '../device/ixgbe/function.ts';
import type { VfDescription } from '../device/ixgbe/vf-policy.ts';
import type { VfSettings } from '../device/ixgbe/vf-policy-settings.ts';
import { Later } from '../engine/later.ts';
import { parseStationMac } from '../net/mac.ts';
import type { MethodHost } from './attachment.ts';
import type { DmaParts } from './emulated-net.ts';
import { fence, type NicPort } from './nic-port.ts';
import { NicPortFunction, type NicPortOptions } from './nic-port-function.ts';

export interface SriovPortOptions extends NicPortOptions {
  readonly vf: number;
  /** The address that it has until its guest takes another. */
  readonly mac: string;
  readonly settings: VfSettings;
}

export class SriovPort extends NicPortFunction {
  readonly nic: NicPort;
  readonly vf: number;
  #closed: Later<undefined> | undefined;

  /** @throws SluiceError if the socket cannot be made, or the settings are not possible */
  constructor(options: SriovPortOptions, host: MethodHost, nic: NicPort, dma: DmaParts) {
    const { vf, mac, settings } = options;
    const device = nic.createVf(vf, parseStationMac(mac), settings);
    try {
      super(options, host, { function: device, layout: vfLayout(nic.vfQueues), dma });
    } catch (error) {
      nic.removeVf(vf);
      throw error;
    }
    this.nic = nic;
    this.vf = vf;
    fence(device, this.guard);
  }

  /** Changes what it may do, while its guest has it. @throws SluiceError, and nothing is changed */
  set(settings: VfSettings): void {
    this.nic.setVf(this.vf, settings);
  }

  describeVf(): VfDescription {
    return this.nic.describeVf(this.vf);
  }

  override close(): Later<undefined> {
    if (this.#closed !== undefined) return this.#closed;
    const closed = new Later<undefined>();
    this.#closed = closed;
    super.close().whenSettled(
      () => {
        this.nic.removeVf(this.vf);
        closed.resolve(undefined);
      },
      (error) => closed.reject(error),
    );
    return closed;
  }
}
