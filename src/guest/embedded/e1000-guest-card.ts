/** A guest's 82540EM or 82574L, behind a vfio-user socket, as the guest's roles need it. */
import { SluiceError } from '../../base/errors.ts';
import {
  E1000Driver,
  type E1000DriverOptions,
  planE1000,
} from '../../driver/e1000/e1000-driver.ts';
import { returnedAt } from '../../driver/e1000/receive-queue.ts';
import type { PciBus } from '../../driver/pci/bus.ts';
import type { Arena } from '../../memory/arena.ts';
import { formatMac } from '../../net/mac.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import {
  ETHERNET_DEFAULT_MTU,
  ETHERNET_HEADER_BYTES,
  IPV4_MIN_HEADER_BYTES,
  TCP_MIN_HEADER_BYTES,
} from '../../spec/ethernet.ts';
import { GUEST_BASE, releaseMemory, shareGuestMemory } from './attachment.ts';
import { GuestRam } from './guest-ram.ts';
import type { NetAttachment } from './net-attachment.ts';
import type { GuestInfo, GuestSpec } from './protocol.ts';
import type { RoleContext } from './role.ts';
import {
  DEFAULT_FRAME,
  DEFAULT_QUEUE_SIZE,
  fittingBuffers,
  framesFor,
  harmlessWindow,
} from './send-window.ts';

const IP_HEADERS = IPV4_MIN_HEADER_BYTES + TCP_MIN_HEADER_BYTES;
const HEADER_BYTES = ETHERNET_HEADER_BYTES + IP_HEADERS;

/** Frames above the MTU of which a guest puts so many together at once. */
const LARGE_BUFFERS = 32;

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
      const mtu = spec.mtu ?? ETHERNET_DEFAULT_MTU;
      const { options, sendWindow } = planGuest(spec, mtu);
      const plan = planE1000(options, GUEST_BASE);
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
        sendFrames: options.sendFrames,
        receiveBuffers: options.receiveBuffers,
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

function planGuest(
  spec: GuestSpec,
  mtu: number,
): { readonly options: E1000DriverOptions; readonly sendWindow: number } {
  const queueSize = spec.queueSize ?? DEFAULT_QUEUE_SIZE;
  const frame = spec.frame ?? DEFAULT_FRAME;
  const coalesced = frame > mtu + ETHERNET_HEADER_BYTES;
  const receiveBuffers = spec.receiveBuffers ?? fittingBuffers(mtu, queueSize);
  // A large frame takes a buffer for each segment; some buffers wait for others to be given back, and
  // that comes by another socket than the sender's next frames: the device may see it a look later.
  const segments = coalesced ? Math.ceil((frame - HEADER_BYTES) / (mtu - IP_HEADERS)) : 1;
  const usable = Math.floor((receiveBuffers - returnedAt(receiveBuffers)) / 2);
  const sendWindow =
    spec.sendFrames ??
    Math.min(fittingBuffers(frame, queueSize), harmlessWindow(Math.floor(usable / segments)));
  const options = {
    sendBytes: frame,
    sendFrames: framesFor(sendWindow, queueSize),
    receiveBuffers,
    mtu,
    coalesce: coalesced ? { frame, buffers: LARGE_BUFFERS } : undefined,
  };
  return { options, sendWindow };
}
