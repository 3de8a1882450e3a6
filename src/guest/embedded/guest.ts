/** One embedded guest: its memory file, its driver, and a role for each pair of queues. */
import { alignUp } from '../../base/bits.ts';
import { describeError, SluiceError } from '../../base/errors.ts';
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
import { closeFd } from '../../os/fd.ts';
import { createMemfd, HUGE_PAGE } from '../../os/mapping.ts';
import type { Poller, PollLoop } from '../../os/poll-loop.ts';
import { ETHERNET_DEFAULT_MTU, ETHERNET_HEADER_BYTES, MAC_BYTES } from '../../spec/ethernet.ts';
import { NET_CONFIG_MAC, NET_CONFIG_MTU } from '../../spec/virtio-net.ts';
import { Echo } from './echo.ts';
import type { Connect, Frontend } from './frontend.ts';
import { GuestRam } from './guest-ram.ts';
import { Ping } from './ping.ts';
import type { GuestInfo, GuestReading, GuestSpec, RoleSpec } from './protocol.ts';
import type { Role, RoleContext, RoleCounts } from './role.ts';
import { Traffic } from './traffic.ts';

/** Where a guest's memory begins: above 4 GiB, so that both halves of an address count. */
const GUEST_BASE = 0x1_0000_0000;

const DEFAULT_QUEUE_SIZE = 512;
const DEFAULT_FRAME = 1514;

/**
 * Buffers of one direction take no more than this, unless they are asked for: rings of large
 * buffers are kept short enough for a second-level cache.
 */
const POOL_BYTES = 2 * 1024 * 1024;

/** Frames that a device takes at once. */
const DEVICE_BATCH = 64;

type RunningRole = Role & { counts(): RoleCounts };

export class EmbeddedGuest implements Poller {
  readonly info: GuestInfo;
  failure: string | undefined;
  readonly #arena: Arena;
  readonly #loop: PollLoop;
  readonly #frontend: Frontend;
  readonly #arenaAddress: number;
  readonly #driver: NetDriver;
  readonly #contexts: readonly RoleContext[];
  readonly #onLost: (reason: string) => void;
  #roles: RunningRole[];

  /**
   * Attaches to a device and starts as a sink.
   * @throws SluiceError if the device cannot be reached or does not suit.
   */
  constructor(
    spec: GuestSpec,
    arena: Arena,
    loop: PollLoop,
    connect: Connect,
    onLost: (reason: string) => void,
  ) {
    this.#arena = arena;
    this.#loop = loop;
    this.#onLost = onLost;
    const given = parseStationMac(spec.mac);
    this.#frontend = connect(spec.socket, (reason) => this.#fail(reason));
    let unmap = (): void => undefined;
    try {
      const features = negotiateNet(this.#frontend.features, {
        ...DEFAULT_NET_WISHES,
        ...spec.wishes,
      });
      const queuePairs = choosePairs(spec, features, this.#frontend.maxQueuePairs);
      const { mac, mtu } = readIdentity(this.#frontend, features, given, spec);
      const { plan, sendWindow } = planGuest(spec, features, queuePairs, mtu);
      const size = alignUp(plan.bytes, HUGE_PAGE);
      this.#frontend.acceptFeatures(features.bits);
      const fd = createMemfd(`sluice-guest-${spec.name}`, size);
      try {
        const at = arena.mapFile(fd, size, 0);
        unmap = () => arena.unmap(at, size);
        this.#arenaAddress = at;
        this.#frontend.shareMemory(fd, size, GUEST_BASE);
      } finally {
        closeFd(fd);
      }
      const memory = { arena, arenaAddress: this.#arenaAddress, guestAddress: GUEST_BASE, size };
      const kicks = plan.queues.map((_, index) => this.#frontend.kick(index));
      this.#driver = new NetDriver(plan, memory, kicks);
      this.#driver.start();
      for (const [index, layout] of plan.queues.entries()) {
        this.#frontend.startQueue(index, layout);
      }
      const ram = new GuestRam(memory);
      this.#contexts = this.#driver.pairs.map((pair) => ({
        ram,
        pair,
        loop,
        mac,
        mtu,
        sendWindow,
      }));
      this.info = {
        name: spec.name,
        mac: formatMac(mac),
        mtu,
        queuePairs,
        packed: features.packed,
        features: features.bits.toString(16),
        memoryBytes: size,
        sendFrames: plan.options.sendFrames,
        receiveBuffers: plan.options.receiveBuffers,
      };
    } catch (error) {
      this.#frontend.close();
      unmap();
      throw error;
    }
    this.#roles = this.#contexts.map((context) => new Traffic(context, {}, undefined));
    for (const role of this.#roles) role.disarm();
    if (this.failure === undefined) loop.addPoller(this);
  }

  poll(): number {
    const roles = this.#roles;
    let work = 0;
    try {
      for (let i = 0; i < roles.length; i++) work += (roles[i] as RunningRole).poll();
    } catch (error) {
      this.#fail(describeError(error));
    }
    return work;
  }

  arm(): boolean {
    let pending = false;
    for (const role of this.#roles) pending = role.arm() || pending;
    return pending;
  }

  disarm(): void {
    for (const role of this.#roles) role.disarm();
  }

  /**
   * Gives the pairs of queues new roles; counts begin at zero.
   * @throws SluiceError `state` while frames of the old roles are on their way.
   */
  start(specs: readonly RoleSpec[]): void {
    if (this.failure !== undefined) {
      throw new SluiceError('state', `guest ${this.info.name} has failed: ${this.failure}`);
    }
    if (specs.length > this.#contexts.length) {
      throw new SluiceError(
        'config',
        `${specs.length} roles for the ${this.#contexts.length} queue pairs of guest ${this.info.name}`,
      );
    }
    if (!this.drained) {
      throw new SluiceError('state', `guest ${this.info.name} has frames on their way`, {
        remedy: 'stop it first',
      });
    }
    this.#roles = this.#contexts.map((context, index) => makeRole(context, specs[index]));
  }

  /** Ends sending; see {@link drained}. */
  stop(): void {
    for (const role of this.#roles) role.stop();
  }

  /** True once the device has taken all that was sent. */
  get drained(): boolean {
    return this.failure !== undefined || this.#roles.every((role) => role.drained);
  }

  read(): GuestReading {
    let kicks = 0;
    for (const { receive, transmit } of this.#driver.pairs) {
      kicks += receive.queue.kicks + transmit.queue.kicks;
    }
    return {
      pairs: this.#roles.map((role) => role.counts()),
      kicks,
      calls: this.#frontend.calls,
      failure: this.failure,
    };
  }

  /** Detaches and gives the memory back. */
  close(): void {
    this.#loop.removePoller(this);
    this.#frontend.close();
    this.#arena.unmap(this.#arenaAddress, this.#driver.memory.size);
  }

  #fail(reason: string): void {
    if (this.failure !== undefined) return;
    this.failure = reason;
    this.#loop.removePoller(this);
    this.#onLost(reason);
  }
}

function choosePairs(spec: GuestSpec, features: NetFeatures, most: number): number {
  const wanted = spec.queuePairs ?? 1;
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
  const fitting = (bytes: number): number =>
    Math.max(1, Math.min(queueSize, Math.floor(POOL_BYTES / bytes)));
  const receiveBuffers = spec.receiveBuffers ?? fitting(receiveBytes);
  const sendWindow = spec.sendFrames ?? Math.min(fitting(frame), harmless(receiveBuffers));
  // A power of two: each frame then meets the same descriptors of the ring again and again.
  const sendFrames = Math.min(queueSize, 2 ** Math.ceil(Math.log2(sendWindow)));
  const plan = planNetDriver(
    features,
    { queuePairs, queueSize, sendBytes: frame, sendFrames, receiveBytes, receiveBuffers },
    GUEST_BASE,
  );
  return { plan, sendWindow };
}

/**
 * Frames that one guest may have on their way to another of the same process, so that they always
 * find one of its `buffers`. The receiver looks once between two looks of the sender; until it
 * does, there can arrive what was on its way, as much again that was sent for what the device gave
 * back, and the last batch, which the device may give back before its frames are to be seen.
 */
function harmless(buffers: number): number {
  const third = Math.floor(buffers / 3);
  return Math.max(1, third < DEVICE_BATCH ? third : Math.floor((buffers - DEVICE_BATCH) / 2));
}

function makeRole(context: RoleContext, spec: RoleSpec | undefined): RunningRole {
  if (spec === undefined) return new Traffic(context, {}, undefined);
  switch (spec.role) {
    case 'echo':
      return new Echo(context);
    case 'ping':
      return new Ping(context, {
        mac: parseStationMac(spec.mac),
        flow: spec.flow,
        frameBytes: spec.frame,
        ...(spec.intervalUs === undefined ? {} : { intervalUs: spec.intervalUs }),
      });
    case 'traffic': {
      const { source, verifyEvery } = spec;
      return new Traffic(
        context,
        verifyEvery === undefined ? {} : { verifyEvery },
        source === undefined
          ? undefined
          : {
              targets: source.targets.map(({ mac, flow }) => ({
                mac: parseStationMac(mac),
                flow,
              })),
              frameBytes: source.frame,
              ...(source.rate === undefined ? {} : { framesPerSecond: source.rate }),
              ...(source.frames === undefined ? {} : { frames: source.frames }),
            },
      );
    }
  }
}
