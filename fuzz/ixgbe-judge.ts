/**
 * For the fuzz target of the 82599's virtual functions: stands where frames come to a function and where
 * they leave the card, and knows who sent them. It asks the port's policy, not its switch, what may be:
 *
 * - who is checked for it sends from no address and in no VLAN but its own;
 * - nobody gets frames of a VLAN that it is not in, unicasts of others unless it is trusted to, its own
 *   frames, or anything while its link is down;
 * - nobody sends above its rate;
 * - every frame that a function hands over is delivered, or counted as lost.
 */
import assert from 'node:assert/strict';
import type { IxgbeCard } from '../src/device/ixgbe/card.ts';
import { segmentedBytes, segmentsOf } from '../src/device/ixgbe/link-limit.ts';
import type { FrameSink } from '../src/device/ixgbe/nic-function.ts';
import type { VfDescription } from '../src/device/ixgbe/vf-policy.ts';
import type { VirtualFunction } from '../src/device/ixgbe/virtual-function.ts';
import type { Burst } from '../src/net/burst.ts';
import { formatMac } from '../src/net/mac.ts';
import { megabitBucket } from '../src/net/megabit-bucket.ts';
import {
  PORT_COUNTER_INDEX,
  type Port,
  type PortCounter,
  type PortOwner,
} from '../src/net/port.ts';
import { clock, readClock } from '../src/os/clock.ts';
import { NET_HEADER_BYTES } from '../src/spec/virtio-net.ts';

const ETHERTYPE = 12;
const TAG = 14;
const VLAN_ID = 0xfff;
const NS_PER_S = 1e9;

/** Of what becomes of a frame behind its sender, by whose counters. */
const SENDER_DROPS: readonly PortCounter[] = [
  'tx_drop_spoof',
  'tx_drop_vlan',
  'tx_drop_no_target',
  'tx_drop_bad_length',
];

/** At most so many bits can have been left to a sender. */
interface RateModel {
  readonly megabits: number;
  bits: number;
  at: number;
}

/** What was seen of one function. */
interface Account {
  /** Frames that came to it. */
  offered: number;
  /** What it sent, in frames as they are on a wire. */
  sent: number;
  /** It was told that it may send, in this turn. */
  admitted: boolean;
  rate: RateModel | undefined;
}

interface Head {
  readonly to: string;
  readonly from: string;
  /** VLAN of the tag among its bytes; 0: none. */
  readonly vlan: number;
}

export class Judge implements PortOwner {
  readonly #card: IxgbeCard;
  readonly #wire: PortOwner;
  readonly #accounts = new Map<VirtualFunction, Account>();
  /** Who sends now; undefined: the frame comes from the wire. */
  #sender: VirtualFunction | undefined;
  /** Frames that came out of the present burst, somewhere. */
  #handed = 0;
  /** Functions that get copies of others' frames by the administrator's rule. */
  readonly mirrored = new Set<number>();

  /** @param wire who gets what leaves the card */
  constructor(card: IxgbeCard, wire: PortOwner) {
    this.#card = card;
    this.#wire = wire;
    card.owner = this;
  }

  /** Watches a function from now on. Returns where it sends to. */
  watch(vf: VirtualFunction): FrameSink {
    this.#accounts.set(vf, { offered: 0, sent: 0, admitted: false, rate: undefined });
    const accept = vf.accept.bind(vf);
    vf.accept = (burst, frames, count, tagged, local) => {
      this.#arrive(vf, burst, frames, count, tagged, local === true);
      accept(burst, frames, count, tagged, local);
    };
    return {
      admits: (from) => this.#admits(vf, this.#card.admits(from)),
      waitNs: (from) => this.#card.waitNs(from),
      publish: () => this.#card.publish(),
      send: (_from, burst) => this.#send(vf, burst),
    };
  }

  /** The function is removed. */
  forget(vf: VirtualFunction): void {
    this.#accounts.delete(vf);
    Reflect.deleteProperty(vf, 'accept');
  }

  /** The administrator has other ideas of a function: its rate may begin anew. */
  changed(vf: VirtualFunction): void {
    this.#account(vf).rate = undefined;
  }

  /** What a function counts agrees with what was seen of it. `whole`: nothing of it is lost by resets. */
  checkCounters(vf: VirtualFunction, whole: boolean): void {
    const account = this.#account(vf);
    const sum = (...names: readonly PortCounter[]): number =>
      names.reduce((all, name) => all + counter(vf, name), 0);
    const got = sum('rx_frames', 'rx_drop_no_buffer', 'rx_drop_too_big', 'rx_drop_link_down');
    assert.equal(sum('tx_frames'), account.sent, `${vf.name}: frames sent`);
    if (whole) assert.equal(got, account.offered, `${vf.name}: frames received`);
    else assert.ok(got <= account.offered, `${vf.name}: ${got} frames of ${account.offered}`);
  }

  // The wire's side

  forward(port: Port, burst: Burst): void {
    const sender = this.#sender;
    assert.ok(sender !== undefined, 'a frame from the wire goes back there');
    const from = this.#card.describeVf(sender.pool);
    for (let i = 0; i < burst.count; i++) {
      const head = headOf(burst, i);
      checkSource(from, head);
      if (from.vlan !== 0) assert.equal(head.vlan, from.vlan, 'leaves without its port’s VLAN');
      else checkSentVlan(from, head.vlan);
    }
    this.#handed += burst.count;
    // Who is behind the wire may answer at once.
    this.#sender = undefined;
    this.#wire.forward(port, burst);
    this.#sender = sender;
  }

  publish(): void {
    this.#wire.publish();
  }

  #send(vf: VirtualFunction, burst: Burst): void {
    const account = this.#account(vf);
    const { rate } = account;
    assert.ok(account.admitted, `${vf.name} sends without being admitted`);
    assert.ok(this.#card.describeVf(vf.pool).link, `${vf.name} sends without a link`);
    for (let i = 0; i < burst.count; i++) {
      account.sent += segmentsOf(burst, i);
      if (rate !== undefined) rate.bits -= 8 * segmentedBytes(burst, i);
    }
    const { count } = burst;
    const before = this.#losses(vf);
    this.#sender = vf;
    this.#handed = 0;
    this.#card.send(vf, burst);
    this.#sender = undefined;
    const lost = this.#losses(vf) - before;
    assert.ok(lost + this.#handed >= count, `${vf.name}: a frame is gone without a trace`);
  }

  /** The turn of a sender begins: it has some of its rate left, whatever the clock of the card says. */
  #admits(vf: VirtualFunction, may: boolean): boolean {
    const account = this.#account(vf);
    account.admitted = may;
    const megabits = this.#card.describeVf(vf.pool).max_tx_rate;
    if (megabits === 0) account.rate = undefined;
    else if (account.rate?.megabits !== megabits) {
      readClock();
      const { burst } = megabitBucket(megabits, 0);
      account.rate = { megabits, bits: burst, at: clock[0] as number };
    }
    const { rate } = account;
    if (rate === undefined || !may) return may;
    readClock();
    const now = clock[0] as number;
    const flown = ((now - rate.at) / NS_PER_S) * megabits * 1e6;
    rate.bits = Math.min(megabitBucket(megabits, 0).burst, rate.bits + flown);
    rate.at = now;
    assert.ok(rate.bits > 0, `${vf.name} sends above its rate`);
    return may;
  }

  #arrive(
    vf: VirtualFunction,
    burst: Burst,
    frames: Uint8Array,
    count: number,
    tagged: boolean,
    local: boolean,
  ): void {
    const sender = this.#sender;
    assert.equal(local, sender !== undefined, 'frames of the card, and of the wire');
    assert.ok(vf !== sender, 'a frame comes back');
    this.#account(vf).offered += count;
    this.#handed += count;
    const to = this.#card.describeVf(vf.pool);
    const from = sender === undefined ? undefined : this.#card.describeVf(sender.pool);
    assert.ok(to.link, 'a frame without a link');
    for (let k = 0; k < count; k++) {
      const slot = frames[k] as number;
      const head = headOf(burst, slot);
      const vlan = tagged ? (burst.tci[slot] as number) & VLAN_ID : head.vlan;
      if (from !== undefined) checkSource(from, head);
      // What is inside of frames of its port's VLAN is nobody's business.
      if (from !== undefined && from.vlan === 0 && to.vlan === 0) checkSentVlan(from, vlan);
      if (!this.mirrored.has(vf.pool)) checkReceiver(from, to, head, vlan, tagged);
    }
  }

  #losses(vf: VirtualFunction): number {
    let lost = 0;
    for (const name of SENDER_DROPS) lost += counter(vf, name);
    for (const other of this.#accounts.keys()) lost += counter(other, 'rx_drop_bad_offload');
    return lost;
  }

  #account(vf: VirtualFunction): Account {
    return this.#accounts.get(vf) ?? assert.fail(`${vf.name} is not there`);
  }
}

function counter(vf: VirtualFunction, name: PortCounter): number {
  return vf.counters.values[PORT_COUNTER_INDEX[name]] as number;
}

function addressesOf(vf: VfDescription): readonly (string | undefined)[] {
  return [vf.address, ...vf.macvlans];
}

function checkSource(from: VfDescription, { from: source }: Head): void {
  if (!from.spoofchk) return;
  assert.ok(addressesOf(from).includes(source), `VF ${from.vf} speaks as ${source}`);
}

/** What a VF without a VLAN of its port may send. */
function checkSentVlan(from: VfDescription, vlan: number): void {
  if (!from.spoofchk || vlan === 0) return;
  assert.ok(from.vlans.includes(vlan), `VF ${from.vf} sends in VLAN ${vlan}`);
}

function checkReceiver(
  from: VfDescription | undefined,
  to: VfDescription,
  head: Head,
  vlan: number,
  tagged: boolean,
): void {
  const what = `VF ${to.vf} gets a frame of VF ${from?.vf ?? 'the wire'}`;
  if (to.vlan !== 0) {
    assert.ok(!tagged, `${what} with another VLAN than its port’s`);
    const isOfOther = from !== undefined && from.vlan !== 0 && from.vlan !== to.vlan;
    assert.ok(!isOfOther, `${what} in another VLAN`);
    if (from?.vlan === 0) checkSentVlan(from, to.vlan);
  } else {
    assert.ok(vlan === 0 || to.vlans.includes(vlan), `${what} in VLAN ${vlan}`);
    if (from !== undefined && from.vlan !== 0) assert.equal(vlan, from.vlan, `${what} untagged`);
  }
  const first = Number.parseInt(head.to.slice(0, 2), 16);
  if (head.to === 'ff:ff:ff:ff:ff:ff') return;
  if ((first & 1) !== 0) assert.notEqual(to.mode, 'none', `${what} to a group`);
  else if (to.mode === 'promiscuous') assert.ok(to.trust, `${what}, promiscuous without trust`);
  else assert.ok(addressesOf(to).includes(head.to), `${what} to ${head.to}`);
}

function headOf(burst: Burst, slot: number): Head {
  const at = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
  const length = burst.frameLength[slot] as number;
  const bytes = Buffer.from(burst.slots8.buffer, burst.slots8.byteOffset + at, 18);
  const isTagged = bytes.readUInt16BE(ETHERTYPE) === 0x8100 && length >= TAG + 2;
  return {
    to: formatMac(bytes.subarray(0, 6)),
    from: formatMac(bytes.subarray(6, 12)),
    vlan: isTagged ? bytes.readUInt16BE(TAG) & VLAN_ID : 0,
  };
}
