/**
 * A switch and guests in one process and one thread, without a transport between them: for tests of
 * drivers and roles, and to measure what both sides of the rings cost.
 */
import { silentLogger } from '../../base/log.ts';
import { VirtioNet, type VirtioNetOptions } from '../../device/virtio-net/virtio-net.ts';
import {
  type NetFeatures,
  type NetWishes,
  negotiateNet,
} from '../../driver/virtio-net/negotiation.ts';
import {
  NetDriver,
  type NetDriverOptions,
  planNetDriver,
} from '../../driver/virtio-net/net-driver.ts';
import { Arena } from '../../memory/arena.ts';
import { GuestMemory } from '../../memory/guest-memory.ts';
import { createDataPath, type DataPath } from '../../net/data-path.ts';
import { PortPolicy } from '../../net/policy.ts';
import { Switch } from '../../net/switch.ts';
import { closeFd } from '../../os/fd.ts';
import { createMemfd } from '../../os/mapping.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { createDeviceQueue } from '../../ring/create.ts';
import { RING_FEATURES } from '../../transport/vhost-user/offer.ts';
import { GuestRam } from './guest-ram.ts';
import type { RoleContext } from './role.ts';

/** Guest physical address where a guest's memory begins: both halves of an address count. */
const GUEST_BASE = 0x1_0000_0000;

export class InProcessGuest {
  readonly device: VirtioNet;
  readonly driver: NetDriver;
  readonly features: NetFeatures;
  readonly contexts: readonly RoleContext[];
  kicks = 0;
  calls = 0;
  readonly #release: () => void;

  constructor(
    path: DataPath,
    mac: Uint8Array,
    wishes: NetWishes,
    sizes: NetDriverOptions,
    device: Partial<VirtioNetOptions> = {},
    mtu = 1500,
  ) {
    const { arena, loop } = path;
    this.device = new VirtioNet({
      name: `guest-${mac[5] ?? 0}`,
      path,
      mac,
      queuePairs: sizes.queuePairs,
      log: silentLogger,
      ...device,
    });
    this.features = negotiateNet(this.device.features | RING_FEATURES, wishes);
    this.device.setDriverFeatures(this.features.bits);
    const plan = planNetDriver(this.features, sizes, GUEST_BASE);
    const guestMemory = new GuestMemory(arena);
    const fd = createMemfd('sluice-guest', plan.bytes);
    const region = guestMemory.add(
      { guestAddress: GUEST_BASE, size: plan.bytes, userAddress: GUEST_BASE, mmapOffset: 0 },
      fd,
    );
    const arenaAddress = arena.mapFile(fd, plan.bytes, 0);
    closeFd(fd);
    this.#release = () => {
      guestMemory.clear();
      arena.unmap(arenaAddress, plan.bytes);
    };
    const memory = { arena, arenaAddress, guestAddress: GUEST_BASE, size: plan.bytes };
    const kick = { signal: () => this.kicks++ };
    this.driver = new NetDriver(
      plan,
      memory,
      plan.queues.map(() => kick),
    );
    for (const [index, layout] of plan.queues.entries()) {
      const queue = createDeviceQueue({
        ...this.features.ring,
        arena,
        memory: guestMemory,
        size: layout.size,
        packed: layout.packed,
        descriptor: layout.descriptor + region.delta,
        driver: layout.driver + region.delta,
        device: layout.device + region.delta,
        direction: this.device.direction(index),
        interrupt: { signal: () => this.calls++ },
        position: layout.packed ? { avail: 0x8000, used: 0x8000 } : { avail: 0, used: 0 },
      });
      this.device.startQueue(index, queue);
      this.device.setQueueEnabled(index, true);
    }
    this.driver.start();
    const ram = new GuestRam(memory);
    const sendWindow = sizes.sendFrames;
    this.contexts = this.driver.pairs.map((pair) => ({ ram, pair, loop, mac, mtu, sendWindow }));
  }

  release(): void {
    this.device.reset();
    this.#release();
  }
}

/** A switch, and guests on it. */
export class InProcessSwitch {
  readonly path: DataPath;
  readonly switch: Switch;
  readonly guests: InProcessGuest[] = [];

  constructor(arena: Arena = Arena.create(), loop = new PollLoop()) {
    this.path = createDataPath(arena, loop);
    this.switch = new Switch('lan', this.path);
  }

  add(
    mac: Uint8Array,
    wishes: NetWishes,
    sizes: NetDriverOptions,
    device: Partial<VirtioNetOptions> = {},
    mtu?: number,
  ): InProcessGuest {
    const guest = new InProcessGuest(this.path, mac, wishes, sizes, device, mtu);
    guest.device.owner = this.switch;
    this.switch.addPort(guest.device, new PortPolicy({ mac }, this.path.loop.now));
    this.guests.push(guest);
    return guest;
  }

  /** One turn of all devices. Returns frames moved. */
  poll(): number {
    let work = 0;
    for (const guest of this.guests) work += guest.device.poll();
    return work;
  }

  release(): void {
    for (const guest of this.guests.splice(0)) {
      this.switch.removePort(guest.device);
      guest.release();
    }
  }
}
