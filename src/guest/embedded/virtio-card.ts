/** A guest's virtio-net device, behind a vhost-user socket, as the guest's roles need it. */
import { SluiceError } from '../../base/errors.ts';
import {
  DEFAULT_NET_WISHES,
  type NetFeatures,
  negotiateNet,
} from '../../driver/virtio-net/negotiation.ts';
import {
  NetDriver,
  type NetDriverPlan,
  planNetDriver,
  receiveBytesFor,
} from '../../driver/virtio-net/net-driver.ts';
import type { Arena } from '../../memory/arena.ts';
import { formatMac, parseStationMac } from '../../net/mac.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { ETHERNET_DEFAULT_MTU, ETHERNET_HEADER_BYTES, MAC_BYTES } from '../../spec/ethernet.ts';
import { NET_CONFIG_MAC, NET_CONFIG_MTU } from '../../spec/virtio-net.ts';
import { GUEST_BASE, releaseMemory, shareGuestMemory, startQueues } from './attachment.ts';
import type { Frontend } from './frontend.ts';
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

export class VirtioCard implements NetAttachment {
  readonly info: GuestInfo;
  readonly contexts: readonly RoleContext[];
  readonly #frontend: Frontend;
  readonly #driver: NetDriver;

  /**
   * Has the device work; the front-end is the attachment's from now on.
   * @throws SluiceError if the device does not suit.
   */
  constructor(spec: GuestSpec, arena: Arena, loop: PollLoop, frontend: Frontend) {
    this.#frontend = frontend;
    let memory: DriverMemory | undefined;
    try {
      const given = parseStationMac(spec.mac);
      const features = negotiateNet(frontend.features, { ...DEFAULT_NET_WISHES, ...spec.wishes });
      const queuePairs = choosePairs(spec, features, frontend.maxQueues);
      const { mac, mtu } = readIdentity(frontend, features, given, spec);
      const { plan, sendWindow } = planGuest(spec, features, queuePairs, mtu);
      frontend.acceptFeatures(features.bits);
      memory = shareGuestMemory(spec.name, plan.bytes, arena, (fd, size, at) =>
        frontend.shareMemory(fd, size, at),
      );
      const kicks = plan.queues.map((_, index) => frontend.kick(index));
      this.#driver = new NetDriver(plan, memory, kicks);
      this.#driver.start();
      startQueues(frontend, plan.queues);
      const ram = new GuestRam(memory);
      this.contexts = this.#driver.pairs.map((pair) => ({ ram, pair, loop, mac, mtu, sendWindow }));
      this.info = {
        name: spec.name,
        mac: formatMac(mac),
        mtu,
        queuePairs,
        packed: features.packed,
        features: features.bits.toString(16),
        memoryBytes: memory.size,
        sendFrames: plan.options.sendFrames,
        sendWindow,
        receiveBuffers: plan.options.receiveBuffers,
      };
    } catch (error) {
      frontend.close();
      if (memory !== undefined) releaseMemory(memory);
      throw error;
    }
  }

  get kicks(): number {
    let kicks = 0;
    for (const { receive, transmit } of this.#driver.pairs) {
      kicks += receive.queue.kicks + transmit.queue.kicks;
    }
    return kicks;
  }

  get calls(): number {
    return this.#frontend.calls;
  }

  close(): void {
    this.#frontend.close();
    releaseMemory(this.#driver.memory);
  }
}

function choosePairs(
  spec: GuestSpec,
  features: NetFeatures,
  maxQueues: number | undefined,
): number {
  const wanted = spec.queuePairs ?? 1;
  const most = maxQueues === undefined ? 1 : Math.floor(maxQueues / 2);
  if (wanted > 1 && !(features.multiqueue && wanted <= most)) {
    throw new SluiceError(
      'unsupported',
      `guest ${spec.name}: ${wanted} queue pairs on a device of ${features.multiqueue ? most : 1}`,
      { remedy: 'give its network device more queues' },
    );
  }
  return wanted;
}

function readIdentity(
  frontend: Frontend,
  features: NetFeatures,
  mac: Uint8Array,
  spec: GuestSpec,
): { mac: Uint8Array; mtu: number } {
  const config = frontend.readConfig(NET_CONFIG_MTU + 2);
  const view = new DataView(config.buffer, config.byteOffset, config.length);
  const tellsMac = features.hasMac && config.length >= NET_CONFIG_MAC + MAC_BYTES;
  const tellsMtu = features.hasMtu && config.length >= NET_CONFIG_MTU + 2;
  return {
    mac: tellsMac ? config.slice(NET_CONFIG_MAC, NET_CONFIG_MAC + MAC_BYTES) : mac,
    mtu: tellsMtu ? view.getUint16(NET_CONFIG_MTU, true) : (spec.mtu ?? ETHERNET_DEFAULT_MTU),
  };
}

function planGuest(
  spec: GuestSpec,
  features: NetFeatures,
  queuePairs: number,
  mtu: number,
): { readonly plan: NetDriverPlan; readonly sendWindow: number } {
  const queueSize = spec.queueSize ?? DEFAULT_QUEUE_SIZE;
  const frame = spec.frame ?? DEFAULT_FRAME;
  if (frame > mtu + ETHERNET_HEADER_BYTES && !features.sendTso4) {
    throw new SluiceError(
      'unsupported',
      `guest ${spec.name}: frames of ${frame} bytes need segmentation offload, which was not negotiated`,
      { remedy: `choose frames of at most ${mtu + ETHERNET_HEADER_BYTES} bytes` },
    );
  }
  const receiveBytes =
    spec.receiveBytes ?? receiveBytesFor(Math.max(frame, mtu + ETHERNET_HEADER_BYTES), features);
  const receiveBuffers = spec.receiveBuffers ?? fittingBuffers(receiveBytes, queueSize);
  const sendWindow =
    spec.sendFrames ?? Math.min(fittingBuffers(frame, queueSize), harmlessWindow(receiveBuffers));
  const sendFrames = framesFor(sendWindow, queueSize);
  const plan = planNetDriver(
    features,
    { queuePairs, queueSize, sendBytes: frame, sendFrames, receiveBytes, receiveBuffers },
    GUEST_BASE,
  );
  return { plan, sendWindow };
}
