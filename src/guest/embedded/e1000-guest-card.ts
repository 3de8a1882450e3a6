/** A guest's 82540EM or 82574L, behind a vfio-user socket, as the guest's roles need it. */
import { SluiceError } from '../../base/errors.ts';
import { E1000Driver, planE1000 } from '../../driver/e1000/e1000-driver.ts';
import { returnedAt } from '../../driver/e1000/rings.ts';
import type { PciBus } from '../../driver/pci/bus.ts';
import type { Arena } from '../../memory/arena.ts';
import { formatMac } from '../../net/mac.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { GUEST_BASE, releaseMemory, shareGuestMemory } from './attachment.ts';
import { cardSizes } from './card-sizes.ts';
import { GuestRam } from './guest-ram.ts';
import type { NetAttachment } from './net-attachment.ts';
import type { GuestInfo, GuestSpec } from './protocol.ts';
import type { RoleContext } from './role.ts';

export class E1000GuestCard implements NetAttachment {
  readonly info: GuestInfo;
  readonly contexts: readonly RoleContext[];
  readonly #bus: PciBus;
  readonly #driver: E1000Driver;
  readonly #memory: DriverMemory;

  /**
   * Has the card work; the bus is the attachment's from now on.
   * @throws SluiceError if the card does not suit.
   */
  constructor(spec: GuestSpec, arena: Arena, loop: PollLoop, bus: PciBus) {
    this.#bus = bus;
    let memory: DriverMemory | undefined;
    try {
      refuse(spec);
      const sizes = cardSizes(spec, usableBuffers);
      const { mtu, sendWindow } = sizes;
      const plan = planE1000(sizes, GUEST_BASE);
      memory = shareGuestMemory(spec.name, plan.bytes, arena, (fd, size, at) =>
        bus.map(at, size, fd),
      );
      this.#memory = memory;
      this.#driver = new E1000Driver(plan, memory, bus);
      this.#driver.start();
      const { pair, mac } = this.#driver;
      this.contexts = [{ ram: new GuestRam(memory), pair, loop, mac, mtu, sendWindow }];
      this.info = {
        name: spec.name,
        mac: formatMac(mac),
        mtu,
        queuePairs: 1,
        packed: false,
        features: '',
        memoryBytes: memory.size,
        sendFrames: sizes.sendFrames,
        receiveBuffers: sizes.receiveBuffers,
      };
    } catch (error) {
      bus.close();
      if (memory !== undefined) releaseMemory(memory);
      throw error;
    }
  }

  get kicks(): number {
    const { receive, transmit } = this.#driver.pair;
    return receive.queue.kicks + transmit.queue.kicks;
  }

  get calls(): number {
    return this.#driver.gate.calls;
  }

  close(): void {
    this.#bus.close();
    releaseMemory(this.#memory);
  }
}

/** What only virtio-net has. */
function refuse({ name, queuePairs, wishes, receiveBytes }: GuestSpec): void {
  const wantsRings = wishes?.packed === true || wishes?.multiqueue === true;
  if ((queuePairs ?? 1) === 1 && !wantsRings && receiveBytes === undefined) return;
  throw new SluiceError('config', `guest ${name}: virtqueues of an emulated card`, {
    remedy: 'it has one pair of rings',
  });
}

/**
 * Some buffers wait for others to be given back, and that comes by another socket than the sender's next
 * frames: the device may see it a look later.
 */
function usableBuffers(buffers: number): number {
  return Math.floor((buffers - returnedAt(buffers)) / 2);
}
