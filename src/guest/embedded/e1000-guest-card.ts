/** A guest's 82540EM or 82574L, behind a vfio-user socket, as the guest's roles need it. */
import { SluiceError } from '../../base/errors.ts';
import { E1000Driver, planE1000 } from '../../driver/e1000/e1000-driver.ts';
import { returnedAt } from '../../driver/e1000/rings.ts';
import type { PciBus } from '../../driver/pci/bus.ts';
import type { Arena } from '../../memory/arena.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import { GUEST_BASE } from './attachment.ts';
import { cardSizes } from './card-sizes.ts';
import { PciGuestCard } from './pci-guest-card.ts';
import type { GuestSpec } from './protocol.ts';

/**
 * Has the card work; the bus is the attachment's from now on.
 * @throws SluiceError if the card does not suit.
 */
export function attachE1000(
  spec: GuestSpec,
  arena: Arena,
  loop: PollLoop,
  bus: PciBus,
): PciGuestCard {
  const { name } = spec;
  try {
    refuse(spec);
    const sizes = cardSizes(spec, usableBuffers);
    const plan = planE1000(sizes, GUEST_BASE);
    return new PciGuestCard({
      name,
      sizes,
      bytes: plan.bytes,
      arena,
      loop,
      bus,
      start: (memory) => {
        const driver = new E1000Driver(plan, memory, bus);
        driver.start();
        const { mac, pair, gate } = driver;
        return {
          mac,
          pairs: [pair],
          get calls() {
            return gate.calls;
          },
        };
      },
    });
  } catch (error) {
    bus.close();
    throw error;
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
