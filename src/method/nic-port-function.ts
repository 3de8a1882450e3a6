/**
 * A function of a NIC's port behind its socket, as the methods `direct` and `sriov` give it to a guest. Its
 * rings are in the guest's memory, its doorbells in pages that the guest maps; frames are its card's.
 */
import { loggerTo } from '../base/log.ts';
import type { FunctionLayout, NicFunction } from '../device/ixgbe/nic-function.ts';
import { RING_BYTES, RX, TX } from '../device/ixgbe/queue-parts.ts';
import type { GuardedPoller } from '../engine/guard.ts';
import { Later } from '../engine/later.ts';
import { IXGBE_DESCRIPTOR_BYTES, IXGBE_QUEUE_ENABLE } from '../spec/ixgbe-descriptors.ts';
import type { MethodHost } from './attachment.ts';
import type { CardRing, DmaParts } from './emulated-net.ts';
import { PciAttachment, type PciAttachmentOptions, type PciState } from './pci-attachment.ts';

export interface NicPortOptions extends PciAttachmentOptions {
  /** Name of the device to its guest, such as `web/net0`. */
  readonly port: string;
  /** Most interrupts of each vector in a second; undefined: as the driver asks. */
  readonly itr: number | undefined;
}

/** What each method knows of its function. */
export interface NicPortParts {
  readonly function: NicFunction;
  readonly layout: FunctionLayout;
  readonly dma: DmaParts;
}

export class NicPortFunction {
  readonly port: string;
  readonly function: NicFunction;
  readonly #layout: FunctionLayout;
  readonly #attachment: PciAttachment;
  #closed: Later<undefined> | undefined;

  /** @throws SluiceError if the socket cannot be made */
  constructor(options: NicPortOptions, host: MethodHost, parts: NicPortParts) {
    const { function: device, layout, dma } = parts;
    this.port = options.port;
    this.function = device;
    this.#layout = layout;
    device.limitInterrupts(options.itr);
    const log = loggerTo((level, message, fields) => host.log[level](message, fields), {
      port: options.port,
    });
    this.#attachment = new PciAttachment(options, host, { device, log, ...dma });
  }

  /** One failure of the function's code, wherever it is called, ends it. */
  get guard(): GuardedPoller {
    return this.#attachment.guard;
  }

  get running(): boolean {
    return this.function.receiving && this.#attachment.fault === null;
  }

  /** What `sluice show` tells. */
  describe(): { readonly state: PciState; readonly rings: readonly CardRing[] } {
    const state = this.#attachment.describe();
    return { state, rings: state.connected && state.fault === null ? this.#rings() : [] };
  }

  /** Rings as their registers have them now; the guest may change them at any moment. */
  #rings(): CardRing[] {
    const { receive, transmit } = this.#layout;
    return [
      ...[...receive].flatMap((block, queue) => this.#ring('rx', block, queue)),
      ...[...transmit].flatMap((block, queue) => this.#ring('tx', block, queue)),
    ];
  }

  #ring(direction: 'rx' | 'tx', block: number, queue: number): CardRing[] {
    const register =
      direction === 'rx'
        ? ({ length: RX.RDLEN, head: RX.RDH, tail: RX.RDT, control: RX.RXDCTL } as const)
        : ({ length: TX.TDLEN, head: TX.TDH, tail: TX.TDT, control: TX.TXDCTL } as const);
    const word = (index: number): number => this.function.words[block + index] as number;
    const size = (word(register.length) & RING_BYTES) / IXGBE_DESCRIPTOR_BYTES;
    if (size === 0) return [];
    const enabled = (word(register.control) & IXGBE_QUEUE_ENABLE) !== 0;
    return [
      {
        port: this.port,
        ring: queue,
        direction,
        size,
        packed: false,
        started: enabled,
        enabled,
        avail: word(register.tail),
        used: word(register.head),
      },
    ];
  }

  /**
   * Disconnects the guest; the socket disappears at once. Settles when the guest's memory is not used any
   * more; the function is its card's then.
   */
  close(): Later<undefined> {
    if (this.#closed !== undefined) return this.#closed;
    const closed = new Later<undefined>();
    this.#closed = closed;
    this.#attachment.close(() => closed.resolve(undefined));
    return closed;
  }
}
