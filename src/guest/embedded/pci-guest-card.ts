/** A guest's network card behind a vfio-user socket, whatever the card: memory, queues, what is told of them. */
import type { NetPair } from '../../driver/net-pair.ts';
import type { PciBus } from '../../driver/pci/bus.ts';
import type { Arena } from '../../memory/arena.ts';
import { formatMac } from '../../net/mac.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { releaseMemory, shareGuestMemory } from './attachment.ts';
import type { CardSizes } from './card-sizes.ts';
import { GuestRam } from './guest-ram.ts';
import type { NetAttachment } from './net-attachment.ts';
import type { GuestInfo } from './protocol.ts';
import type { RoleContext } from './role.ts';

/** A driver that has its card at work. */
export interface RunningCard {
  readonly mac: Uint8Array;
  readonly pairs: readonly NetPair[];
  /** Interrupts that were noticed. */
  readonly calls: number;
}

export interface PciGuestCardOptions {
  readonly name: string;
  readonly sizes: CardSizes;
  /** Bytes of memory that the driver needs. */
  readonly bytes: number;
  readonly arena: Arena;
  readonly loop: PollLoop;
  /** The card's from now on, if it is made. */
  readonly bus: PciBus;
  /** Binds the driver to the card, whose DMA reaches `memory`, and starts it. */
  readonly start: (memory: DriverMemory) => RunningCard;
}

export class PciGuestCard implements NetAttachment {
  readonly info: GuestInfo;
  readonly contexts: readonly RoleContext[];
  readonly #bus: PciBus;
  readonly #card: RunningCard;
  readonly #memory: DriverMemory;

  /** @throws SluiceError if the card does not suit: the bus is the caller's to close then */
  constructor({ name, sizes, bytes, arena, loop, bus, start }: PciGuestCardOptions) {
    this.#bus = bus;
    let memory: DriverMemory | undefined;
    try {
      memory = shareGuestMemory(name, bytes, arena, (fd, size, at) => bus.map(at, size, fd));
      this.#memory = memory;
      this.#card = start(memory);
    } catch (error) {
      if (memory !== undefined) releaseMemory(memory);
      throw error;
    }
    const { mac, pairs } = this.#card;
    const { mtu, sendWindow, sendFrames, receiveBuffers } = sizes;
    const ram = new GuestRam(memory);
    this.contexts = pairs.map((pair) => ({ ram, pair, loop, mac, mtu, sendWindow }));
    this.info = {
      name,
      mac: formatMac(mac),
      mtu,
      queuePairs: pairs.length,
      packed: false,
      features: '',
      memoryBytes: memory.size,
      sendFrames,
      sendWindow,
      receiveBuffers,
    };
  }

  get kicks(): number {
    return this.#card.pairs.reduce(
      (sum, { receive, transmit }) => sum + receive.queue.kicks + transmit.queue.kicks,
      0,
    );
  }

  get calls(): number {
    return this.#card.calls;
  }

  close(): void {
    this.#bus.close();
    releaseMemory(this.#memory);
  }
}
