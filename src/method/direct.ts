/**
 * Method `direct`: a guest has the physical function of a NIC's port, and drives it by itself. Its frames
 * are the port's; the driver domain has no word in it.
 */
import { PF_LAYOUT } from '../device/ixgbe/function.ts';
import type { MethodHost } from './attachment.ts';
import type { DmaParts } from './emulated-net.ts';
import { fence, type NicPort } from './nic-port.ts';
import { NicPortFunction, type NicPortOptions } from './nic-port-function.ts';

export class DirectPort extends NicPortFunction {
  readonly nic: NicPort;

  /** @throws SluiceError if the socket cannot be made, or the driver domain has the port itself */
  constructor(options: NicPortOptions, host: MethodHost, nic: NicPort, dma: DmaParts) {
    super(options, host, { function: nic.physicalFunction(), layout: PF_LAYOUT, dma });
    this.nic = nic;
    fence(this.function, this.guard);
  }
}
