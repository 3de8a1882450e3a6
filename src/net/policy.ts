/**
 * What a port may send and receive: its VLANs, its source address, its rates. Words are those of
 * `ip link set DEV vf N` (iproute2) and of Open vSwitch's Port table (`tag`, `trunks`, `vlan_mode`).
 *
 * | mode     | a frame without tag is in | a tagged frame                    | leaves with a tag          |
 * |----------|---------------------------|-----------------------------------|----------------------------|
 * | all      | VLAN 0                    | is in its VLAN                    | unless in VLAN 0           |
 * | access   | the port's VLAN           | is dropped                        | never                      |
 * | trunk    | VLAN 0, if that is listed | is in its VLAN, if that is listed | unless in VLAN 0           |
 * | native   | the native VLAN           | as trunk                          | unless in the native VLAN  |
 *
 * A tag with VLAN id 0 carries a priority only: such a frame counts as one without tag, and keeps
 * its priority while it passes through tagged ports (802.1Q §9.6).
 */
import { SluiceError } from '../base/errors.ts';
import type { TokenBucket } from '../base/token-bucket.ts';
import {
  VLAN_ID_MASK,
  VLAN_ID_MAX,
  VLAN_IDS,
  VLAN_PRIORITY_MAX,
  VLAN_PRIORITY_SHIFT,
} from '../spec/ethernet.ts';
import { isMulticast, macHigh, macLow } from './mac.ts';
import { megabitBucket } from './megabit-bucket.ts';

export interface PortPolicyOptions {
  /** Access port: the one VLAN that the port is in. With `trunk`: the native VLAN. */
  readonly vlan?: number | undefined;
  /** Priority that frames of an access or native port get when they come without tag. */
  readonly qos?: number | undefined;
  /** Trunk port: the VLANs that pass with a tag. */
  readonly trunk?: readonly number[] | undefined;
  /** Frames of the native VLAN leave with their tag (Open vSwitch: native-tagged). */
  readonly nativeTagged?: boolean | undefined;
  /** The station's address. */
  readonly mac?: Uint8Array | undefined;
  /** Drop what comes from another source address than `mac`. */
  readonly spoofchk?: boolean | undefined;
  /** Limits in Mb/s of what the guest sends and of what it gets; 0 or nothing: none. */
  readonly maxTxRate?: number | undefined;
  readonly maxRxRate?: number | undefined;
}

/** Tag control information of a frame without tag, for {@link PortPolicy.ingress}. */
export const UNTAGGED = -1;
/** What {@link PortPolicy.ingress} returns for a frame that the port may not send. */
export const INGRESS_DROP = -1;

/** What {@link PortPolicy.egress} returns. */
export const EGRESS_DROP = 0;
export const EGRESS_UNTAGGED = 1;
export const EGRESS_TAGGED = 2;

function checkVlan(vlan: number, least: number): void {
  if (Number.isInteger(vlan) && vlan >= least && vlan <= VLAN_ID_MAX) return;
  throw new SluiceError('config', `${vlan} is not a VLAN id`, {
    remedy: `choose a whole number from ${least} to ${VLAN_ID_MAX}`,
  });
}

function limit(megabits: number | undefined, now: number): TokenBucket | undefined {
  return megabits === undefined || megabits === 0 ? undefined : megabitBucket(megabits, now);
}

export class PortPolicy {
  /** One bit a VLAN: the port carries it. */
  readonly vlans = new Uint8Array(VLAN_IDS / 8);
  /** The VLAN of frames without tag. */
  readonly native: number;
  /** False only for access ports: frames with a VLAN's tag are dropped. */
  readonly acceptsTagged: boolean;
  /** VLAN whose frames leave without tag. */
  readonly untaggedVlan: number;
  /** The port carries all VLANs as they come; only the reserved id 4095 is dropped. */
  readonly transparent: boolean;
  /** Drop other sources than the pair below. */
  readonly spoofCheck: boolean;
  readonly macLow: number;
  readonly macHigh: number;
  /** Bits that the guest may send and get; undefined without a limit. */
  readonly txLimit: TokenBucket | undefined;
  readonly rxLimit: TokenBucket | undefined;
  /** Priority bits put on frames without tag. */
  readonly #priority: number;

  /**
   * @param now time in ns, as later given to the limits' `refill`
   * @throws SluiceError `config`
   */
  constructor(options: PortPolicyOptions, now: number) {
    const { vlan, trunk, mac } = options;
    const qos = options.qos ?? 0;
    if (!Number.isInteger(qos) || qos < 0 || qos > VLAN_PRIORITY_MAX) {
      throw new SluiceError('config', `${qos} is not a VLAN priority`, {
        remedy: `choose a qos from 0 to ${VLAN_PRIORITY_MAX}`,
      });
    }
    if (vlan !== undefined) checkVlan(vlan, 1);
    for (const member of trunk ?? []) checkVlan(member, 0);
    this.#priority = qos << VLAN_PRIORITY_SHIFT;
    this.native = vlan ?? 0;
    this.acceptsTagged = vlan === undefined || trunk !== undefined;
    this.transparent = vlan === undefined && trunk === undefined && qos === 0;
    // VLAN 0 has no tag anyway: then every frame of a real VLAN leaves with its tag.
    this.untaggedVlan = options.nativeTagged === true ? 0 : this.native;
    if (trunk === undefined && vlan === undefined) this.vlans.fill(0xff);
    for (const member of trunk ?? []) this.#carry(member);
    // A native VLAN is carried whether the trunk lists it or not (Open vSwitch, vlan_mode).
    if (vlan !== undefined) this.#carry(vlan);
    this.spoofCheck = options.spoofchk === true;
    if (mac !== undefined && isMulticast(mac)) {
      throw new SluiceError('config', 'a port with a multicast address', {
        remedy: 'choose a MAC address whose first byte is even',
      });
    }
    if (this.spoofCheck && mac === undefined) {
      throw new SluiceError('config', 'spoofchk is on for a port without a MAC address', {
        remedy: 'give the port a mac, or switch spoofchk off',
      });
    }
    this.macLow = mac === undefined ? 0 : macLow(mac);
    this.macHigh = mac === undefined ? 0 : macHigh(mac);
    this.txLimit = limit(options.maxTxRate, now);
    this.rxLimit = limit(options.maxRxRate, now);
  }

  /**
   * The tag control information (VLAN and priority) of a frame that the guest sent, from the tag
   * that it came with ({@link UNTAGGED} without one); {@link INGRESS_DROP} if it may not.
   */
  ingress(tci: number): number {
    if (tci === UNTAGGED) {
      return this.#carries(this.native) ? this.native | this.#priority : INGRESS_DROP;
    }
    const vlan = tci & VLAN_ID_MASK;
    if (vlan === 0) return this.#carries(this.native) ? tci | this.native : INGRESS_DROP;
    return this.acceptsTagged && vlan <= VLAN_ID_MAX && this.#carries(vlan) ? tci : INGRESS_DROP;
  }

  /** Whether and how a frame of a VLAN leaves towards the guest: one of EGRESS_*. */
  egress(vlan: number): number {
    if (!this.#carries(vlan)) return EGRESS_DROP;
    return vlan === this.untaggedVlan || vlan === 0 || !this.acceptsTagged
      ? EGRESS_UNTAGGED
      : EGRESS_TAGGED;
  }

  /** Whether the guest may send from this address, given as the numbers of `mac.ts`. */
  allowsSource(low: number, high: number): boolean {
    return !this.spoofCheck || (low === this.macLow && high === this.macHigh);
  }

  #carries(vlan: number): boolean {
    return ((this.vlans[vlan >> 3] as number) & (1 << (vlan & 7))) !== 0;
  }

  #carry(vlan: number): void {
    this.vlans[vlan >> 3] = (this.vlans[vlan >> 3] as number) | (1 << (vlan & 7));
  }
}
