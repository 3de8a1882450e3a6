/**
 * A guest's 82599, a port of its own or a virtual function of one, behind a vfio-user socket, as the
 * guest's roles need it.
 */
import { SluiceError } from '../../base/errors.ts';
import { IxgbeDriver } from '../../driver/ixgbe/ixgbe-driver.ts';
import { type IxgbePlan, planIxgbe } from '../../driver/ixgbe/plan.ts';
import { returnedAt } from '../../driver/ixgbe/queue-pairs.ts';
import { IxgbevfDriver } from '../../driver/ixgbevf/ixgbevf-driver.ts';
import type { NetPair } from '../../driver/net-pair.ts';
import { AdaptiveRate } from '../../driver/nic/adaptive-rate.ts';
import { InterruptDrivenReceiver } from '../../driver/nic/interrupt-driven.ts';
import type { PciBus } from '../../driver/pci/bus.ts';
import type { Arena } from '../../memory/arena.ts';
import { parseStationMac } from '../../net/mac.ts';
import type { EagerSocket, PollLoop } from '../../os/poll-loop.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { GUEST_BASE } from './attachment.ts';
import { cardSizes } from './card-sizes.ts';
import { PciGuestCard } from './pci-guest-card.ts';
import type { GuestSpec } from './protocol.ts';

/** Interrupts a second at most of a guest that only wants to be woken: those of the reference talk. */
export const DEFAULT_INTERRUPTS = 8000;

/**
 * Has the card work; the bus is the attachment's from now on. `onLost` is called if the physical function
 * takes a virtual one back.
 * @throws SluiceError if the card does not suit.
 */
export function attachIxgbe(
  spec: GuestSpec,
  arena: Arena,
  loop: PollLoop,
  bus: PciBus,
  onLost: (reason: string) => void,
): PciGuestCard {
  const { name, interrupts, queuePairs = 1 } = spec;
  try {
    refuse(spec);
    const sizes = cardSizes(spec, (buffers) => Math.floor(usableBuffers(buffers) / queuePairs));
    const interruptsPerSecond =
      interrupts === 'adaptive' ? new AdaptiveRate().perSecond : (interrupts ?? DEFAULT_INTERRUPTS);
    const options = { ...sizes, pairs: queuePairs, interruptsPerSecond };
    const plan = planIxgbe(options, GUEST_BASE);
    return new PciGuestCard({
      name,
      sizes,
      bytes: plan.bytes,
      arena,
      loop,
      bus,
      start: (memory) => {
        const driver = bind(spec, plan, memory, bus, onLost);
        driver.start();
        const { mac, vectors } = driver;
        return {
          mac,
          pairs:
            interrupts === undefined
              ? driver.pairs
              : driveByInterrupts(driver, loop, interrupts === 'adaptive'),
          get calls() {
            return vectors.calls;
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
function refuse({ name, wishes, receiveBytes }: GuestSpec): void {
  if (wishes?.packed !== true && receiveBytes === undefined) return;
  throw new SluiceError('config', `guest ${name}: virtqueues of an 82599`, {
    remedy: 'it has descriptor rings',
  });
}

/**
 * The doorbell is memory that the device reads when a frame comes: it lacks the last few buffers only. Flows of
 * all pairs may be hashed to one of the receiver's, which is to hold them all.
 */
function usableBuffers(buffers: number): number {
  return buffers - returnedAt(buffers, true);
}

function bind(
  { method, name, mac }: GuestSpec,
  plan: IxgbePlan,
  memory: DriverMemory,
  bus: PciBus,
  onLost: (reason: string) => void,
): IxgbeDriver | IxgbevfDriver {
  if (method === 'direct') return new IxgbeDriver(plan, memory, bus);
  const driver = new IxgbevfDriver(plan, memory, bus, parseStationMac(mac));
  driver.onRevoked = () =>
    onLost(`${name}: the physical function wants the virtual function reset`);
  return driver;
}

/** Has frames looked for after interrupts only, and with `isAdaptive` fits their rate to the traffic. */
function driveByInterrupts(
  { pairs, vectors }: IxgbeDriver | IxgbevfDriver,
  loop: PollLoop,
  isAdaptive: boolean,
): NetPair[] {
  const eye = eyeOf(loop);
  const receivers = pairs.map(
    ({ receive }, pair) =>
      new InterruptDrivenReceiver(receive, vectors.gateOf(vectors.vectorOf(pair)), () =>
        loop.hasten(eye),
      ),
  );
  const rates = receivers.map(() => new AdaptiveRate());
  const since = new Float64Array(receivers.length).fill(loop.now);
  vectors.onQueues = (vector) => {
    for (const [pair, receiver] of receivers.entries()) {
      if (vectors.vectorOf(pair) !== vector) continue;
      receiver.wake();
      if (!isAdaptive) continue;
      const rate = rates[pair] as AdaptiveRate;
      const began = since[pair] as number;
      since[pair] = loop.now;
      if (rate.note(receiver.bytes[0] as number, loop.now - began)) {
        vectors.throttle(vector, rate.perSecond);
      }
      receiver.restart();
    }
  };
  return pairs.map((pair, index) => ({
    ...pair,
    receive: receivers[index] as InterruptDrivenReceiver,
  }));
}

const eyes = new WeakMap<PollLoop, EagerSocket>();

/** A busy loop looks at its descriptors each 100 us: too seldom for interrupts that are timed. */
function eyeOf(loop: PollLoop): EagerSocket {
  const known = eyes.get(loop);
  if (known !== undefined) return known;
  const eye = { look: () => loop.epoll.wait(0) > 0 };
  eyes.set(loop, eye);
  return eye;
}
