/**
 * One port of an 82599, as the network sees it. Either a guest owns the physical function (`direct`), or
 * the driver domain does, and each guest has a virtual function (`sriov`): then the switch inside the card
 * (`veb.ts`, `veb-path.ts`) decides which frames go from VF to VF, to the wire and from it, as the port's
 * policy (`vf-policy.ts`) has it.
 *
 * A frame whose checksum its sender left to the card, or that is to be cut, gets what it needs on its way
 * to a VF: whoever receives it may pass it on, and finds it whole.
 */
import { randomFillSync } from 'node:crypto';
import type { CounterBlock } from '../../base/counters.ts';
import { SluiceError } from '../../base/errors.ts';
import { limitedLogger } from '../../base/limited-logger.ts';
import { type Logger, silentLogger } from '../../base/log.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { megabitBucket } from '../../net/megabit-bucket.ts';
import {
  newPortCounters,
  PORT_COUNTER_INDEX,
  type Port,
  type PortCounter,
  type PortOwner,
} from '../../net/port.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import { IXGBE_VFS } from '../../spec/ixgbe.ts';
import { FrameRuns, RUN_BYTES, RUN_PADDED } from './frame-runs.ts';
import {
  type LinkSpeed,
  linkMegabits,
  ReceiveLimit,
  type SlotLimit,
  segmentedBytes,
  TransmitSchedule,
  wireBits,
  wireBitsOf,
} from './link-limit.ts';
import type { FrameSink, NicFunction } from './nic-function.ts';
import { PhysicalFunction } from './physical-function.ts';
import { Rss } from './rss.ts';
import { type MirrorRule, VEB_MIRRORS, Veb } from './veb.ts';
import { VebPath } from './veb-path.ts';
import { newRssTables, type VfDescription, VfPolicy } from './vf-policy.ts';
import type { VfChange, VfSettings } from './vf-policy-settings.ts';
import { VirtualFunction } from './virtual-function.ts';

const RX_FRAMES = PORT_COUNTER_INDEX.rx_frames;
const RX_BYTES = PORT_COUNTER_INDEX.rx_bytes;
const RX_DROP_LINK_DOWN = PORT_COUNTER_INDEX.rx_drop_link_down;
const RX_DROP_RATE = PORT_COUNTER_INDEX.rx_drop_rate;
const BITS = 8;

/** What guests can make the log say, in lines a second. */
const LOG_LINES = 5;
/** Queue pairs of VFs: of 64 pools, or of 32. */
const QUEUES = 2;
/** A pool for the physical function where it is alone. */
const PF_POOL = 0;

export interface IxgbeCardOptions {
  /** Unique in the lane, such as `nic0/0`. */
  readonly name: string;
  readonly path: DataPath;
  /** A guest has the physical function, or the driver domain has it and guests have virtual ones. */
  readonly mode: 'direct' | 'sriov';
  /** Which of the card's two ports. */
  readonly port: 0 | 1;
  /** The port's own address. */
  readonly mac: Uint8Array;
  /** Default: `10G`. */
  readonly link?: LinkSpeed;
  /** The slot that the card is in, shared by its ports; none: it has no limit. */
  readonly slot?: SlotLimit;
  /** Queue pairs of each VF: 2 (63 VFs at most), 4 (31). */
  readonly queuesPerVf?: 2 | 4;
  /** As for `NicFunctionOptions`. */
  readonly doorbellPollUs?: number;
  readonly mapped?: boolean;
  readonly counters?: CounterBlock<PortCounter>;
  readonly log?: Logger;
}

/** To be a port of its `owner`; its functions are to be added to the lane's pollers by who serves them. */
export class IxgbeCard implements Port, FrameSink {
  readonly name: string;
  readonly mode: 'direct' | 'sriov';
  readonly link: LinkSpeed;
  readonly counters: CounterBlock<PortCounter>;
  /** None: frames come as they are on a wire. */
  readonly offloads = 0;
  /** Where frames to the wire go: a switch. They are lost before it is set. */
  owner: PortOwner | undefined;
  /** With `direct`. */
  readonly pf: PhysicalFunction | undefined;
  readonly #options: IxgbeCardOptions;
  readonly #values: Float64Array;
  readonly #veb = new Veb();
  readonly #frames: VebPath;
  readonly #policy: VfPolicy;
  readonly #schedule: TransmitSchedule;
  readonly #received: ReceiveLimit;
  readonly #runs: FrameRuns;
  /** By the key that all VFs have. */
  readonly #hash: Rss;
  readonly #vfs = new Map<number, VirtualFunction>();
  readonly #queues: 2 | 4;
  /** Frames of those that came that fit through the wire. */
  readonly #arrived: Uint8Array;
  #up = true;
  /** The owner got frames since the last {@link publish}. */
  #sent = false;

  constructor(options: IxgbeCardOptions) {
    const { name, path, mode, link = '10G', slot, log = silentLogger } = options;
    this.#options = options;
    this.name = name;
    this.mode = mode;
    this.link = link;
    this.counters = options.counters ?? newPortCounters();
    this.#values = this.counters.values;
    this.#queues = options.queuesPerVf ?? QUEUES;
    this.#schedule = new TransmitSchedule(link, slot);
    this.#received = new ReceiveLimit(link, slot);
    this.#runs = FrameRuns.of(path);
    // Where WebAssembly sees it.
    this.#arrived = new Uint8Array(path.arena.buffer, path.tables.take(), BATCH);
    this.#frames = new VebPath(this.#veb, path, (burst) => this.#forward(burst));
    this.#policy = new VfPolicy({
      veb: this.#veb,
      rss: newRssTables(this.#queues, (words) => randomFillSync(words)),
      link: linkMegabits(link),
      log: limitedLogger(log, () => path.loop.now, LOG_LINES),
      changed: (pool) => this.#applySettings(pool),
    });
    this.#hash = new Rss(path);
    this.#hash.setKey(this.#policy.rss.key);
    if (mode === 'direct') {
      this.pf = new PhysicalFunction({
        ...functionOptions(options, name),
        mac: options.mac,
        port: options.port,
      });
      this.pf.uplink = this;
      this.pf.functionReset = () => this.#schedule.leave(PF_POOL);
    }
  }

  /** With `sriov`, by number. */
  get vfs(): ReadonlyMap<number, VirtualFunction> {
    return this.#vfs;
  }

  /** VFs that the port can have: 0 and on. */
  get mostVfs(): number {
    return Math.min(IXGBE_VFS, (IXGBE_VFS + 1) / (this.#queues / QUEUES) - 1);
  }

  /**
   * Makes a virtual function. Who serves it adds it to the lane's pollers.
   * @param own the address that it has until its guest takes another; none: its guest has to
   * @throws SluiceError `config` for settings that cannot be, `state` if there is one of this number,
   * `not-found` for a number that the port has not
   */
  createVf(index: number, settings: VfChange = {}, own?: Uint8Array): VirtualFunction {
    if (this.mode === 'direct') {
      throw new SluiceError('state', `${this.name} belongs to one guest wholly`, {
        remedy: 'choose another port for VFs, or method sriov for all its guests',
      });
    }
    this.#checkNumber(index);
    if (this.#vfs.has(index))
      throw new SluiceError('state', `${this.name} has a VF ${index} already`);
    const vf = new VirtualFunction({
      ...functionOptions(this.#options, `${this.name}/vf${index}`),
      pool: index,
      port: this.#options.port,
      queues: this.#queues,
      rss: this.#policy.rss,
      hash: this.#hash,
      ...(this.#options.slot === undefined ? {} : { slot: this.#options.slot }),
    });
    try {
      this.#frames.setMember(index, vf);
      this.#vfs.set(index, vf);
      this.#policy.add(vf, settings, own);
    } catch (error) {
      this.#vfs.delete(index);
      this.#frames.setMember(index, undefined);
      vf.close();
      throw error;
    }
    vf.uplink = this;
    vf.functionReset = () => {
      this.#policy.functionReset(index);
      this.#schedule.leave(index);
    };
    return vf;
  }

  /**
   * Unplugs a virtual function: it gets and sends no more. Who served it closes it, once no transport is
   * attached any more.
   * @throws SluiceError `not-found`
   */
  removeVf(index: number): VirtualFunction {
    const vf = this.#vf(index);
    this.#vfs.delete(index);
    this.#policy.remove(index);
    this.#frames.setMember(index, undefined);
    this.#schedule.leave(index);
    this.#schedule.setRates(index, undefined, undefined);
    vf.uplink = undefined;
    vf.functionReset = undefined;
    return vf;
  }

  /**
   * Changes settings of a VF at run time: all that are given, or none.
   * @throws SluiceError as `VfPolicy.set`
   */
  setVf(index: number, settings: VfChange): void {
    this.#vf(index);
    this.#policy.set(index, settings);
  }

  /** As {@link setVf}, with these settings in place of all there were. */
  replaceVf(index: number, settings: VfSettings): void {
    this.#vf(index);
    this.#policy.replace(index, settings);
  }

  /** Settings and state of a VF. @throws SluiceError `not-found` */
  describeVf(index: number): VfDescription {
    this.#vf(index);
    return this.#policy.describe(index);
  }

  /**
   * Copies traffic to one VF (§7.10.3.8), by one of four rules; undefined ends it. VFs that are named may
   * come later.
   * @throws SluiceError `not-found` for a number that the port has not
   */
  setMirror(index: number, rule: MirrorRule | undefined): void {
    if (!Number.isInteger(index) || index < 0 || index >= VEB_MIRRORS) {
      throw new SluiceError('not-found', `${this.name} has no mirroring rule ${index}`, {
        remedy: `choose one from 0 to ${VEB_MIRRORS - 1}`,
      });
    }
    if (rule !== undefined) {
      this.#checkNumber(rule.to);
      for (const pool of rule.pools ?? []) this.#checkNumber(pool);
    }
    this.#veb.setMirror(index, rule);
  }

  /** Puts the cable in or out. */
  setLink(up: boolean): void {
    this.#up = up;
    if (this.pf !== undefined) this.pf.link.cable = up;
    this.#policy.setWireLink(up);
  }

  get linkUp(): boolean {
    return this.#up;
  }

  /** Gives all memory back; no VF is left, and no transport attached. */
  close(): void {
    this.pf?.close();
    this.#hash.release();
    this.#options.path.tables.give(this.#arrived.byteOffset);
    this.#frames.close();
  }

  // FrameSink

  admits(from: NicFunction): boolean {
    return this.#schedule.admits(poolOf(from), from);
  }

  waitNs(from: NicFunction): number {
    return this.#schedule.waitNs(poolOf(from));
  }

  send(from: NicFunction, burst: Burst): void {
    if (this.pf !== undefined) {
      if (this.#schedule.counts) this.#chargeAll(PF_POOL, burst);
      this.#forward(burst);
      return;
    }
    const pool = poolOf(from);
    if (!this.#schedule.counts) {
      this.#frames.fromMember(pool, burst);
      return;
    }
    this.#chargePool(pool, burst);
    this.#wirePool = pool;
    this.#frames.fromMember(pool, burst);
    this.#wirePool = -1;
  }

  publish(): void {
    this.#frames.publish();
    if (!this.#sent) return;
    this.#sent = false;
    this.owner?.publish();
  }

  // Port

  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    const values = this.#values;
    if (!this.#up) {
      values[RX_DROP_LINK_DOWN] = (values[RX_DROP_LINK_DOWN] as number) + count;
      return;
    }
    let list = frames;
    let arrived = count;
    let bytes = 0;
    if (!tagged && this.#runs.arePlain(burst, frames, count)) {
      bytes = this.#admitRun(count);
    }
    if (bytes === 0) {
      if (this.#received.isSet) {
        list = this.#arrived;
        arrived = this.#admit(burst, frames, count, tagged);
      }
      for (let i = 0; i < arrived; i++) bytes += burst.frameLength[list[i] as number] as number;
    }
    values[RX_FRAMES] = (values[RX_FRAMES] as number) + arrived;
    values[RX_BYTES] = (values[RX_BYTES] as number) + bytes;
    if (this.pf !== undefined) this.pf.deliver(burst, list, arrived, tagged);
    else this.#frames.fromWire(burst, list, arrived, tagged);
  }

  flush(): void {
    if (this.pf !== undefined) this.pf.flush();
    else this.#frames.publish();
  }

  /** Pool whose frames are being sent, while they are counted. */
  #wirePool = -1;

  /** Bytes of the frames that were surveyed, if all of them fit through wire and slot; else 0. */
  #admitRun(count: number): number {
    const { sums } = this.#runs;
    const bits = wireBitsOf(count, sums[RUN_PADDED] as number);
    return this.#received.admitsRun(bits) ? (sums[RUN_BYTES] as number) : 0;
  }

  /** Frames that fit through wire and slot; the others are lost. */
  #admit(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): number {
    const { slot } = this.#options;
    let arrived = 0;
    for (let i = 0; i < count; i++) {
      const frame = frames[i] as number;
      if (!this.#received.admits(wireBits(burst, frame, tagged))) continue;
      // VFs tell what they receive, from each other as well.
      if (this.pf !== undefined) slot?.received(1, burst.frameLength[frame] as number);
      this.#arrived[arrived++] = frame;
    }
    const lost = count - arrived;
    this.#values[RX_DROP_RATE] = (this.#values[RX_DROP_RATE] as number) + lost;
    return arrived;
  }

  /** To the wire. False if there is none, or it is down. */
  #forward(burst: Burst): boolean {
    const { owner } = this;
    if (owner === undefined || !this.#up) return false;
    if (this.#wirePool >= 0) this.#chargeWire(this.#wirePool, burst);
    this.#sent = true;
    owner.forward(this, burst);
    return true;
  }

  #chargeAll(pool: number, burst: Burst): void {
    this.#chargePool(pool, burst);
    this.#chargeWire(pool, burst);
  }

  /** What a burst takes of its sender's rate, and of the slot. */
  #chargePool(pool: number, burst: Burst): void {
    const { slot } = this.#options;
    const runs = this.#runs;
    const { count } = burst;
    let bits = 0;
    if (slot === undefined && runs.arePlain(burst, runs.all, count)) {
      bits = BITS * (runs.sums[RUN_BYTES] as number);
    } else {
      for (let i = 0; i < count; i++) {
        bits += BITS * segmentedBytes(burst, i);
        slot?.sent(burst.frameLength[i] as number);
      }
    }
    this.#schedule.charge(pool, 0, bits);
  }

  #chargeWire(pool: number, burst: Burst): void {
    const runs = this.#runs;
    const { count } = burst;
    let bits = 0;
    if (runs.arePlain(burst, runs.all, count)) {
      bits = wireBitsOf(count, runs.sums[RUN_PADDED] as number);
    } else {
      for (let i = 0; i < count; i++) bits += wireBits(burst, i, false);
    }
    this.#schedule.charge(pool, bits, 0);
  }

  #applySettings(pool: number): void {
    const { max_tx_rate: most, min_tx_rate: least } = this.#policy.settings(pool);
    const { now } = this.#options.path.loop;
    this.#frames.setPortTci(pool, this.#policy.portTci(pool));
    this.#schedule.setRates(
      pool,
      most === 0 ? undefined : megabitBucket(most, now),
      least === 0 ? undefined : megabitBucket(least, now),
    );
  }

  #checkNumber(index: number): void {
    if (Number.isInteger(index) && index >= 0 && index < this.mostVfs) return;
    throw new SluiceError('not-found', `${this.name} has no VF ${index}`, {
      remedy: `choose one from 0 to ${this.mostVfs - 1}`,
    });
  }

  #vf(index: number): VirtualFunction {
    const vf = this.#vfs.get(index);
    if (vf !== undefined) return vf;
    throw new SluiceError('not-found', `${this.name} has no VF ${index}`, {
      remedy: 'sluice show vfs lists those that there are',
    });
  }
}

function poolOf(fn: NicFunction): number {
  return fn instanceof VirtualFunction ? fn.pool : PF_POOL;
}

/** What all functions of a card have in common. */
function functionOptions(
  options: IxgbeCardOptions,
  name: string,
): {
  readonly name: string;
  readonly path: DataPath;
  readonly doorbellPollUs?: number;
  readonly mapped?: boolean;
} {
  const { path, doorbellPollUs, mapped } = options;
  return {
    name,
    path,
    ...(doorbellPollUs === undefined ? {} : { doorbellPollUs }),
    ...(mapped === undefined ? {} : { mapped }),
  };
}
