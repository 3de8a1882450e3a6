/** One embedded guest: its memory file, its driver, and a role for each pair of queues. */
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
import { Echo } from './echo.ts';
import type { Frontend, Transports } from './frontend.ts';
import { GuestRam } from './guest-ram.ts';
import { Ping } from './ping.ts';
import type { GuestInfo, GuestReading, GuestSpec, RoleSpec } from './protocol.ts';
import type { Role, RoleContext, RoleCounts } from './role.ts';
import { RoleRunner } from './role-runner.ts';
import { Traffic } from './traffic.ts';

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

export class EmbeddedGuest {
  readonly info: GuestInfo;
  readonly #frontend: Frontend;
  readonly #driver: NetDriver;
  readonly #contexts: readonly RoleContext[];
  readonly #runner: RoleRunner<RunningRole>;

  /**
   * Attaches to a device and starts as a sink.
   * @throws SluiceError if the device cannot be reached or does not suit.
   */
  constructor(
    spec: GuestSpec,
    arena: Arena,
    loop: PollLoop,
    transports: Transports,
    onLost: (reason: string) => void,
  ) {
    const given = parseStationMac(spec.mac);
    this.#runner = new RoleRunner(spec.name, loop, onLost);
    this.#frontend = transports.virtio(spec.socket, (reason) => this.#runner.fail(reason));
    let memory: DriverMemory | undefined;
    try {
      const features = negotiateNet(this.#frontend.features, {
        ...DEFAULT_NET_WISHES,
        ...spec.wishes,
      });
      const queuePairs = choosePairs(spec, features, this.#frontend.maxQueues);
      const { mac, mtu } = readIdentity(this.#frontend, features, given, spec);
      const { plan, sendWindow } = planGuest(spec, features, queuePairs, mtu);
      this.#frontend.acceptFeatures(features.bits);
      memory = shareGuestMemory(spec.name, plan.bytes, arena, (fd, size, at) =>
        this.#frontend.shareMemory(fd, size, at),
      );
      const kicks = plan.queues.map((_, index) => this.#frontend.kick(index));
      this.#driver = new NetDriver(plan, memory, kicks);
      this.#driver.start();
      startQueues(this.#frontend, plan.queues);
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
        memoryBytes: memory.size,
        sendFrames: plan.options.sendFrames,
        receiveBuffers: plan.options.receiveBuffers,
      };
    } catch (error) {
      this.#frontend.close();
      if (memory !== undefined) releaseMemory(memory);
      throw error;
    }
    this.#runner.begin(this.#contexts.map((context) => new Traffic(context, {}, undefined)));
  }

  /**
   * Gives the pairs of queues new roles; counts begin at zero.
   * @throws SluiceError `state` while frames of the old roles are on their way.
   */
  start(specs: readonly RoleSpec[]): void {
    if (specs.length > this.#contexts.length) {
      throw new SluiceError(
        'config',
        `${specs.length} roles for the ${this.#contexts.length} queue pairs of guest ${this.info.name}`,
      );
    }
    this.#runner.replace(() =>
      this.#contexts.map((context, index) => makeRole(context, specs[index])),
    );
  }

  /** Ends sending; see {@link drained}. */
  stop(): void {
    this.#runner.stop();
  }

  /** True once the device has taken all that was sent. */
  get drained(): boolean {
    return this.#runner.drained;
  }

  read(): GuestReading {
    let kicks = 0;
    for (const { receive, transmit } of this.#driver.pairs) {
      kicks += receive.queue.kicks + transmit.queue.kicks;
    }
    return {
      pairs: this.#runner.roles.map((role) => role.counts()),
      kicks,
      calls: this.#frontend.calls,
      failure: this.#runner.failure,
    };
  }

  /** Detaches and gives the memory back. */
  close(): void {
    this.#runner.end();
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
        ...(spec.until === undefined ? {} : { until: spec.until }),
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
