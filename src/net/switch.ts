/**
 * A learning Ethernet switch with VLANs (IEEE 802.1Q): takes bursts from its ports and delivers each
 * frame to the port behind which its destination is, or to all.
 *
 * One pass classifies the frames of a burst and decides each one's target; a second hands runs of
 * frames with the same target over; then the copies are done, and then every port that got
 * something publishes once.
 */
import { SluiceError } from '../base/errors.ts';
import { BATCH } from '../ring/chain-batch.ts';
import { ETHERNET_HEADER_BYTES, VLAN_ID_MASK, VLAN_TAG_BYTES } from '../spec/ethernet.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';
import { type Burst, SLOT_HEADROOM } from './burst.ts';
import type { DataPath } from './data-path.ts';
import { MAX_FRAME_BYTES } from './frame.ts';
import { MacTable, type MacTableOptions } from './mac-table.ts';
import { classifyOffload } from './offload.ts';
import {
  EGRESS_DROP,
  EGRESS_TAGGED,
  EGRESS_UNTAGGED,
  INGRESS_DROP,
  type PortPolicy,
  UNTAGGED,
} from './policy.ts';
import { type FrameObserver, PORT_COUNTER_INDEX, type Port, type PortOwner } from './port.ts';
import type { SoftwareOffload } from './software-offload.ts';

/** Ports of one switch: an index fits a byte beside the codes below. */
export const MAX_PORTS = 255;

/** 802.1Q tag protocol identifier as two bytes of a frame read little-endian. */
const TPID_LE = 0x0081;

/** Where a frame's destination stands, in words from its slot's beginning. */
const FIRST_ADDRESS = (SLOT_HEADROOM + NET_HEADER_BYTES) >>> 2;

/** Targets of frames, other than a port's index. */
const DROP = -1;
const FLOOD = -2;
/** The destination is behind the port that sends to it. */
const HAIRPIN = -3;

/** Ageing looks at the table this often while frames flow, in ns. */
const SWEEP_NS = 1e9;

export interface SwitchOptions extends MacTableOptions {}

/** A port that is plugged into a switch. */
class Member {
  readonly port: Port;
  readonly policy: PortPolicy;
  readonly index: number;
  readonly values: Float64Array;
  /** Tag control information of frames that the port sends without a tag, or INGRESS_DROP. */
  readonly untagged: number;
  readonly untaggedVlan: number;
  /** Frames of this VLAN leave by this port just as they are; -1 if each must be looked at. */
  readonly plainVlan: number;
  observer: FrameObserver | undefined;
  /** It was handed frames of the present burst. */
  touched = false;
  /**
   * The source that was learned last, when, and how many stations had moved by then; and the
   * destination that was looked up last.
   */
  sourceLow = 0;
  sourceHigh = -1;
  sourceVlan = -1;
  sourceNow = 0;
  sourceMoved = 0;
  targetLow = 0;
  targetHigh = -1;
  targetVlan = -1;
  target = FLOOD;
  generation = -1;

  constructor(port: Port, policy: PortPolicy, index: number) {
    this.port = port;
    this.policy = policy;
    this.index = index;
    this.values = port.counters.values;
    this.untagged = policy.ingress(UNTAGGED);
    this.untaggedVlan = this.untagged & VLAN_ID_MASK;
    const plain =
      policy.rxLimit === undefined && policy.egress(policy.untaggedVlan) === EGRESS_UNTAGGED;
    this.plainVlan = plain ? policy.untaggedVlan : -1;
  }
}

export class Switch implements PortOwner {
  readonly name: string;
  readonly macs: MacTable;
  readonly #path: DataPath;
  readonly #software: SoftwareOffload;
  /** By index; a port keeps its index while it is plugged in. */
  readonly #members: (Member | undefined)[] = [];
  readonly #byPort = new Map<Port, Member>();
  /** Where each frame of the burst goes: a port's index, DROP, FLOOD or HAIRPIN. */
  readonly #targets = new Int16Array(BATCH);
  /** Arena address of the lists below, which WebAssembly sees. */
  readonly #listsAt: number;
  /** Frames of the run that is being collected. */
  readonly #run: Uint8Array;
  /** Frames of one VLAN that are being flooded, and the frame that is handed over by itself. */
  readonly #flooded: Uint8Array;
  readonly #single: Uint8Array;
  /** 0, 1, 2 … 63. */
  readonly #all: Uint8Array;
  /** Destination and source of the frames that are looked for, as three words; 16 bytes are read. */
  readonly #addresses: Uint32Array;
  readonly #touched: Member[] = [];
  #touchedCount = 0;
  #nextSweep = 0;

  constructor(name: string, path: DataPath, options: SwitchOptions = {}) {
    this.name = name;
    this.#path = path;
    this.macs = new MacTable({ ports: MAX_PORTS, ...options });
    this.#software = path.software;
    this.#listsAt = path.tables.take();
    const list = (index: number): Uint8Array =>
      new Uint8Array(path.arena.buffer, this.#listsAt + index * BATCH, BATCH);
    this.#run = list(0);
    this.#flooded = list(1);
    this.#single = list(2);
    this.#all = list(3);
    for (let index = 0; index < BATCH; index++) this.#all[index] = index;
    this.#addresses = new Uint32Array(path.arena.buffer, this.#listsAt + 4 * BATCH, 4);
  }

  /** Gives the switch's memory back; it has no ports any more. */
  close(): void {
    this.#path.tables.give(this.#listsAt);
  }

  /** Plugs a port in. @throws SluiceError `state` if it is plugged in already or there is no room. */
  addPort(port: Port, policy: PortPolicy): void {
    if (this.#byPort.has(port))
      throw new SluiceError('state', `${port.name} is a port of ${this.name} already`);
    let index = this.#members.indexOf(undefined);
    if (index === -1) index = this.#members.length;
    if (index >= MAX_PORTS)
      throw new SluiceError('config', `switch ${this.name} has more than ${MAX_PORTS} ports`);
    const member = new Member(port, policy, index);
    this.#members[index] = member;
    this.#byPort.set(port, member);
  }

  /** Unplugs a port; what was learned behind it is forgotten. */
  removePort(port: Port): void {
    const member = this.#member(port);
    this.#byPort.delete(port);
    this.#members[member.index] = undefined;
    this.macs.removePort(member.index);
  }

  /** Ports by their index in {@link MacTable.list}. */
  ports(): readonly (Port | undefined)[] {
    return this.#members.map((member) => member?.port);
  }

  /** Shows all frames of a port to a capture; undefined ends it. */
  observe(port: Port, observer: FrameObserver | undefined): void {
    this.#member(port).observer = observer;
  }

  forward(port: Port, burst: Burst): void {
    const from = this.#member(port);
    const { now } = this.#path.loop;
    if (now >= this.#nextSweep) {
      this.#nextSweep = now + SWEEP_NS;
      this.macs.sweep(now);
    }
    const uniform = this.#classify(from, burst);
    if (from.observer !== undefined) this.#observeSent(from.observer, burst);
    // All frames come from one station, plain, and go to one other: the usual case.
    if (uniform && from.target >= 0) {
      const to = this.#members[from.target];
      if (to !== undefined) this.#sendAlike(to, burst);
    } else {
      this.#handOver(from, burst);
    }
    burst.copies.flush();
  }

  publish(): void {
    const touched = this.#touched;
    for (let i = 0; i < this.#touchedCount; i++) {
      const member = touched[i] as Member;
      member.touched = false;
      member.port.flush();
    }
    this.#touchedCount = 0;
  }

  #member(port: Port): Member {
    const member = this.#byPort.get(port);
    if (member === undefined)
      throw new SluiceError('state', `${port.name} is no port of ${this.name}`);
    return member;
  }

  /**
   * Decides where each frame goes, and counts what came in. True if all frames are alike: without tag
   * and offloads, to the destination that `from` remembers.
   */
  #classify(from: Member, burst: Burst): boolean {
    const { slots32, frameLength, count } = burst;
    const words = burst.slotBytes >>> 2;
    const targets = this.#targets;
    const { untagged, values } = from;
    const { now } = this.#path.loop;
    const stale = now - from.sourceNow > SWEEP_NS || from.sourceMoved !== this.macs.moved;
    if (stale) from.sourceHigh = -1;
    let bytes = 0;
    let dropped = 0;
    let i = 0;
    let uniform = true;
    while (i < count) {
      const known =
        from.generation === this.macs.generation &&
        from.sourceVlan === from.untaggedVlan &&
        from.targetVlan === from.untaggedVlan &&
        from.sourceHigh >= 0 &&
        untagged !== INGRESS_DROP;
      // Frames without tag and offloads from and to the stations of the one before.
      if (known && slots32[i * words + FIRST_ADDRESS] === from.targetLow) {
        const next = this.#alike(from, burst, i);
        if (next > i) {
          bytes += burst.chains.sum[0] as number;
          // Nobody asks where each frame goes if all go to one port, and are not shown.
          const asked = i > 0 || next < count || from.target < 0 || from.observer !== undefined;
          if (asked) targets.fill(from.target, i, next);
          i = next;
          if (i === count) break;
        }
      }
      targets[i] = this.#classifyOne(from, burst, i);
      // The first may be from another station than the burst before: a port can have many behind it.
      uniform = i === 0 && this.#leads(from, burst);
      bytes += frameLength[i] as number;
      if (frameLength[i] === 0) dropped++;
      i++;
    }
    values[TX_FRAMES] = (values[TX_FRAMES] as number) + count - dropped;
    values[TX_BYTES] = (values[TX_BYTES] as number) + bytes;
    return uniform;
  }

  /** Whether frame 0, just classified, is one that others can be just like. */
  #leads(from: Member, burst: Burst): boolean {
    return (
      (this.#targets[0] as number) >= 0 &&
      this.#targets[0] === from.target &&
      burst.needs[0] === 0 &&
      burst.tci[0] === from.untagged
    );
  }

  /** Index of the first frame from `first` on that is not just like what `from` sent last. */
  #alike(from: Member, burst: Burst, first: number): number {
    const { sourceLow, sourceHigh, targetLow, targetHigh } = from;
    const addresses = this.#addresses;
    addresses[0] = targetLow;
    addresses[1] = targetHigh | (sourceLow << 16);
    addresses[2] = (sourceLow >>> 16) | (sourceHigh << 16);
    return burst.copies.alike(
      burst.tableAt,
      first,
      burst.count,
      burst.slotsAt + SLOT_HEADROOM,
      burst.slotBytes,
      ETHERNET_HEADER_BYTES,
      MAX_FRAME_BYTES,
      addresses.byteOffset,
      from.untagged,
    );
  }

  /** Where any frame goes: a port's index, FLOOD, HAIRPIN or DROP (which is counted). */
  #classifyOne(from: Member, burst: Burst, i: number): number {
    const { slots16, slots32, tci } = burst;
    const { policy } = from;
    const at = i * (burst.slotBytes >>> 2) + (SLOT_HEADROOM >>> 2);
    const length = burst.frameLength[i] as number;
    burst.needs[i] = 0;
    if (length < ETHERNET_HEADER_BYTES || length > MAX_FRAME_BYTES) {
      burst.frameLength[i] = 0;
      return drop(from, TX_DROP_BAD_LENGTH);
    }
    if (((slots32[at] as number) & 0xffff) !== 0) {
      const mask = classifyOffload(burst, i);
      if (mask < 0) return drop(from, TX_DROP_BAD_OFFLOAD);
      burst.needs[i] = mask;
    }
    const low = slots32[at + 3] as number;
    const middle = slots32[at + 4] as number;
    const high = middle & 0xffff;
    const last = slots32[at + 5] as number;
    const sourceLow = ((middle >>> 16) | (last << 16)) >>> 0;
    const sourceHigh = last >>> 16;
    tci[i] = from.untagged;
    let allowed = from.untagged;
    if (slots16[at * 2 + 12] === TPID_LE) {
      const isWhole = length >= ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
      // Padding would make a tag of what there is of one.
      if (!isWhole && !policy.transparent) return drop(from, TX_DROP_BAD_LENGTH);
      if (isWhole) {
        burst.untag(i);
        const tag = tci[i] as number;
        // Nor may a tag hide behind one of no VLAN, which is taken off.
        const hides = (tag & VLAN_ID_MASK) === 0 && slots16[at * 2 + 14] === TPID_LE;
        allowed = hides && !policy.transparent ? INGRESS_DROP : policy.ingress(tag);
      }
    }
    if (allowed === INGRESS_DROP) return drop(from, TX_DROP_VLAN);
    tci[i] = allowed;
    const vlan = allowed & VLAN_ID_MASK;
    if (!policy.allowsSource(sourceLow, sourceHigh)) return drop(from, TX_DROP_SPOOF);
    this.#learn(from, sourceLow, sourceHigh, vlan);
    if ((low & 1) !== 0) return FLOOD;
    const found = this.macs.lookup(low, high, vlan);
    from.target = found < 0 ? FLOOD : found === from.index ? HAIRPIN : found;
    from.targetLow = low;
    from.targetHigh = high;
    from.targetVlan = vlan;
    from.generation = this.macs.generation;
    return from.target;
  }

  #learn(from: Member, low: number, high: number, vlan: number): void {
    if (low === from.sourceLow && high === from.sourceHigh && vlan === from.sourceVlan) return;
    const { now } = this.#path.loop;
    this.macs.learn(low, high, vlan, from.index, now);
    from.sourceLow = low;
    from.sourceHigh = high;
    from.sourceVlan = vlan;
    from.sourceNow = now;
    from.sourceMoved = this.macs.moved;
  }

  /** A capture sees what the guest sent and the switch took. */
  #observeSent(observer: FrameObserver, burst: Burst): void {
    const run = this.#run;
    let length = 0;
    for (let i = 0; i < burst.count; i++) if (this.#targets[i] !== DROP) run[length++] = i;
    observer.frames(burst, run, length, true, this.#path.loop.now);
  }

  /** Delivers runs of frames with one target; every port gets its frames in order. */
  #handOver(from: Member, burst: Burst): void {
    const targets = this.#targets;
    const run = this.#run;
    const count = burst.count;
    let i = 0;
    while (i < count) {
      const target = targets[i] as number;
      let length = 0;
      while (i < count && targets[i] === target) run[length++] = i++;
      if (target === DROP) continue;
      if (target === HAIRPIN) {
        from.values[TX_DROP_NO_TARGET] = (from.values[TX_DROP_NO_TARGET] as number) + length;
        continue;
      }
      if (target === FLOOD) {
        this.#flood(from, burst, length);
        continue;
      }
      const to = this.#members[target];
      if (to !== undefined) this.#send(to, burst, run, length);
    }
  }

  /** Delivers the first `length` frames of the run to all ports of their VLANs but their own. */
  #flood(from: Member, burst: Burst, length: number): void {
    const run = this.#run;
    const { tci } = burst;
    let first = 0;
    for (let next = 1; next <= length; next++) {
      const vlan = (tci[run[first] as number] as number) & VLAN_ID_MASK;
      if (next < length && ((tci[run[next] as number] as number) & VLAN_ID_MASK) === vlan) continue;
      const part = this.#flooded;
      part.set(run, 0);
      part.copyWithin(0, first, next);
      this.#floodVlan(from, burst, vlan, next - first);
      first = next;
    }
  }

  /** Delivers the first `count` frames of `#flooded`, all of one VLAN. */
  #floodVlan(from: Member, burst: Burst, vlan: number, count: number): void {
    const members = this.#members;
    let reached = 0;
    for (let k = 0; k < members.length; k++) {
      const to = members[k];
      if (to === undefined || to === from || to.policy.egress(vlan) === EGRESS_DROP) continue;
      reached++;
      this.#send(to, burst, this.#flooded, count);
    }
    if (reached === 0) {
      from.values[TX_DROP_NO_TARGET] = (from.values[TX_DROP_NO_TARGET] as number) + count;
    }
  }

  /**
   * Hands frames to a port: in sub-runs that are tagged alike and that the port can take as they are;
   * others are made fit for it first.
   */
  #send(to: Member, burst: Burst, list: Uint8Array, count: number): void {
    const { tci, needs } = burst;
    const { port } = to;
    this.#touch(to);
    if (to.observer !== undefined)
      to.observer.frames(burst, list, count, false, this.#path.loop.now);
    const offloads = port.offloads;
    let plain = true;
    for (let k = 0; k < count && plain; k++) {
      const slot = list[k] as number;
      const fits = ((needs[slot] as number) & ~offloads) === 0;
      plain = fits && ((tci[slot] as number) & VLAN_ID_MASK) === to.plainVlan;
    }
    if (plain) {
      port.deliver(burst, list, count, false);
      return;
    }
    for (let k = 0; k < count; k++) this.#sendOne(to, burst, list[k] as number);
  }

  /** As {@link #send} for a whole burst of frames without offloads, all of one VLAN. */
  #sendAlike(to: Member, burst: Burst): void {
    const plain = ((burst.tci[0] as number) & VLAN_ID_MASK) === to.plainVlan;
    if (!plain || to.observer !== undefined) {
      this.#send(to, burst, this.#all, burst.count);
      return;
    }
    this.#touch(to);
    to.port.deliver(burst, this.#all, burst.count, false);
  }

  /** Notes that a port was handed frames: it is to publish. */
  #touch(to: Member): void {
    if (to.touched) return;
    to.touched = true;
    this.#touched[this.#touchedCount++] = to;
  }

  #sendOne(to: Member, burst: Burst, slot: number): void {
    const { port, policy, values } = to;
    const egress = policy.egress((burst.tci[slot] as number) & VLAN_ID_MASK);
    if (egress === EGRESS_DROP) {
      values[RX_DROP_VLAN] = (values[RX_DROP_VLAN] as number) + 1;
      return;
    }
    const { rxLimit } = policy;
    if (rxLimit !== undefined) {
      rxLimit.refill(this.#path.loop.now);
      if (!rxLimit.take(8 * (burst.frameLength[slot] as number))) {
        values[RX_DROP_RATE] = (values[RX_DROP_RATE] as number) + 1;
        return;
      }
    }
    const tagged = egress === EGRESS_TAGGED;
    if (((burst.needs[slot] as number) & ~port.offloads) === 0) {
      this.#single[0] = slot;
      port.deliver(burst, this.#single, 1, tagged);
    } else {
      this.#convert(to, burst, slot, tagged);
    }
  }

  /** Does for a frame in software what its receiver cannot: checksums, segmentation. */
  #convert(to: Member, burst: Burst, slot: number, tagged: boolean): void {
    const { values, port } = to;
    const frames = this.#software.handOver(burst, slot, port.offloads, port, tagged);
    if (frames === 0) {
      values[RX_DROP_BAD_OFFLOAD] = (values[RX_DROP_BAD_OFFLOAD] as number) + 1;
      return;
    }
    if (frames > 1) {
      values[GSO_FRAMES] = (values[GSO_FRAMES] as number) + 1;
      values[GSO_SEGMENTS] = (values[GSO_SEGMENTS] as number) + frames;
    } else {
      values[CSUM_FRAMES] = (values[CSUM_FRAMES] as number) + 1;
    }
  }
}

/** Counts a frame that the port's guest sent and that goes nowhere. */
function drop(from: Member, counter: number): number {
  from.values[counter] = (from.values[counter] as number) + 1;
  return DROP;
}

const TX_FRAMES = PORT_COUNTER_INDEX.tx_frames;
const TX_BYTES = PORT_COUNTER_INDEX.tx_bytes;
const TX_DROP_BAD_LENGTH = PORT_COUNTER_INDEX.tx_drop_bad_length;
const TX_DROP_BAD_OFFLOAD = PORT_COUNTER_INDEX.tx_drop_bad_offload;
const TX_DROP_VLAN = PORT_COUNTER_INDEX.tx_drop_vlan;
const TX_DROP_SPOOF = PORT_COUNTER_INDEX.tx_drop_spoof;
const TX_DROP_NO_TARGET = PORT_COUNTER_INDEX.tx_drop_no_target;
const RX_DROP_VLAN = PORT_COUNTER_INDEX.rx_drop_vlan;
const RX_DROP_BAD_OFFLOAD = PORT_COUNTER_INDEX.rx_drop_bad_offload;
const GSO_FRAMES = PORT_COUNTER_INDEX.gso_frames;
const GSO_SEGMENTS = PORT_COUNTER_INDEX.gso_segments;
const CSUM_FRAMES = PORT_COUNTER_INDEX.csum_frames;
const RX_DROP_RATE = PORT_COUNTER_INDEX.rx_drop_rate;
