/**
 * The driver domain as the driver of a card's physical function (as Linux's ixgbe with SR-IOV): what each
 * virtual function may do, set in the words of `ip link set DEV vf N`, and kept in the card's switch.
 * What VFs ask for by mailbox is answered in `vf-policy-messages.ts`.
 */
import { SluiceError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { formatMacPair, macHigh, macLow, parseStationMac } from '../../net/mac.ts';
import { VLAN_PRIORITY_SHIFT } from '../../spec/ethernet.ts';
import { IXGBE_POOLS } from '../../spec/ixgbe.ts';
import {
  IXGBE_API_10,
  IXGBE_MESSAGE_CLEAR_TO_SEND,
  IXGBE_MESSAGE_NACK,
  IXGBE_PF_CONTROL,
  IXGBE_RETA_ENTRIES,
  IXGBE_RSS_KEY_WORDS,
  IXGBE_XCAST_ALL_MULTICAST,
  IXGBE_XCAST_MULTICAST,
  IXGBE_XCAST_NONE,
  IXGBE_XCAST_PROMISCUOUS,
} from '../../spec/ixgbe-mailbox.ts';
import type { Mailbox } from './mailbox.ts';
import type { Veb } from './veb.ts';
import { answerRequest, apiName } from './vf-policy-messages.ts';
import {
  changeSettings,
  checkTogether,
  VF_DEFAULTS,
  VF_MODES,
  type VfChange,
  type VfMode,
  type VfSettings,
} from './vf-policy-settings.ts';

/** Frames of VFs before they ask for more, without check sequence. */
const ORDINARY_FRAME = 1514;
/** Further addresses (SET_MACVLAN): of all VFs together, and of one. Each VF's own has its place beside. */
const MACVLANS = IXGBE_POOLS;
const MACVLANS_EACH = 16;

/** A virtual function, as its policy sees it. */
export interface PolicedVf {
  /** Such as `nic0/0/vf3`. */
  readonly name: string;
  /** Its number, which is its pool's too. */
  readonly pool: number;
  /** Queue pairs. */
  readonly queues: number;
  readonly mailbox: Mailbox;
  /** The link that it sees. */
  setLink(up: boolean): void;
  /** Longest frame, in bytes without check sequence and tags. */
  setLongest(bytes: number): void;
}

/** RSS of a port: the table and the key are the physical function's, VFs use them too (§7.1.2.8.2). */
export interface RssTables {
  /** {@link IXGBE_RETA_ENTRIES} queue numbers. */
  readonly table: Uint8Array;
  /** {@link IXGBE_RSS_KEY_WORDS} words, as RSSRK has them. */
  readonly key: Uint32Array;
}

export interface VfPolicyOptions {
  readonly veb: Veb;
  readonly rss: RssTables;
  /** Mb/s of the wire; undefined: no limit. */
  readonly link: number | undefined;
  /** What guests can make it say: to be limited. */
  readonly log: Logger;
  /** Rates or the port's VLAN of a VF have changed. */
  readonly changed: (pool: number) => void;
}

/** What is known of one VF. */
export class VfState {
  readonly vf: PolicedVf;
  settings: VfSettings;
  /** Its address, in the numbers of `net/mac.ts`; high -1: none. */
  macLow = 0;
  macHigh = -1;
  /** It has been reset since its physical function was, and may ask. */
  clearToSend = false;
  api = IXGBE_API_10;
  xcast = IXGBE_XCAST_NONE;
  /** It asked for frames longer than its API has: it gets none. */
  oversized = false;
  /** The address that it has until its guest takes another; high -1: none. */
  readonly ownLow: number;
  readonly ownHigh: number;
  /** Further addresses, two numbers each. */
  readonly macvlans: { readonly low: number; readonly high: number }[] = [];

  constructor(vf: PolicedVf, settings: VfSettings, own: Uint8Array | undefined) {
    this.vf = vf;
    this.settings = settings;
    this.ownLow = own === undefined ? 0 : macLow(own);
    this.ownHigh = own === undefined ? -1 : macHigh(own);
  }
}

/** What `sluice show vfs` tells of a VF, beside its settings. */
export interface VfDescription extends VfSettings {
  readonly vf: number;
  /** Its present address, whoever chose it. */
  readonly address: string | undefined;
  readonly link: boolean;
  /** Version of the mailbox's messages, while a driver uses the VF. */
  readonly api: string | undefined;
  readonly mode: VfMode;
  /** VLANs that the guest asked for. */
  readonly vlans: readonly number[];
  /** Further addresses of the guest. */
  readonly macvlans: readonly string[];
}

export class VfPolicy {
  readonly veb: Veb;
  readonly rss: RssTables;
  readonly log: Logger;
  readonly #link: number | undefined;
  readonly #changed: (pool: number) => void;
  readonly #states: (VfState | undefined)[] = new Array(IXGBE_POOLS).fill(undefined);
  #wireUp = true;

  constructor(options: VfPolicyOptions) {
    this.veb = options.veb;
    this.rss = options.rss;
    this.log = options.log;
    this.#link = options.link;
    this.#changed = options.changed;
  }

  /**
   * Takes a VF in, with {@link VF_DEFAULTS} but for `change`.
   * @param own the address that it has until its guest takes another; none: its guest has to
   * @throws SluiceError `config`, `unsupported`
   */
  add(vf: PolicedVf, change: VfChange = {}, own?: Uint8Array): void {
    const settings = changeSettings(vf.name, VF_DEFAULTS, change, this.#link);
    this.#checkTogether(vf.pool, vf.name, settings);
    const state = new VfState(vf, VF_DEFAULTS, own);
    this.#states[vf.pool] = state;
    vf.mailbox.peer = {
      request: (message) => answerRequest(this, state, message),
      acknowledged: () => this.#acknowledged(state),
    };
    this.veb.setFlag(vf.pool, 'broadcast', true);
    this.#apply(state, settings);
    this.forget(state);
  }

  remove(pool: number): void {
    const state = this.#states[pool];
    if (state === undefined) return;
    state.vf.mailbox.peer = undefined;
    this.#states[pool] = undefined;
    this.veb.clearPool(pool);
  }

  /**
   * Changes settings of a VF: all of them or, if an error is thrown, none.
   * @throws SluiceError `config`, `unsupported`; `not-found` without such a VF
   */
  set(pool: number, change: VfChange): void {
    const state = this.state(pool);
    const settings = changeSettings(state.vf.name, state.settings, change, this.#link);
    this.#checkTogether(pool, state.vf.name, settings);
    this.#apply(state, settings);
  }

  /** As {@link set}, with these settings in place of all there were. */
  replace(pool: number, settings: VfSettings): void {
    const { name } = this.state(pool).vf;
    const checked = changeSettings(name, VF_DEFAULTS, settings, this.#link);
    this.#checkTogether(pool, name, checked);
    this.#apply(this.state(pool), checked);
  }

  /** @throws SluiceError `not-found` */
  settings(pool: number): VfSettings {
    return this.state(pool).settings;
  }

  /** @throws SluiceError `not-found` */
  describe(pool: number): VfDescription {
    const state = this.state(pool);
    return {
      ...state.settings,
      vf: pool,
      address: state.macHigh < 0 ? undefined : formatMacPair(state.macLow, state.macHigh),
      link: this.linkUp(state),
      api: state.clearToSend ? apiName(state.api) : undefined,
      mode: VF_MODES[state.xcast] ?? 'none',
      vlans: state.settings.vlan === 0 ? this.veb.vlansOf(pool) : [],
      macvlans: state.macvlans.map(({ low, high }) => formatMacPair(low, high)),
    };
  }

  /** The wire's link has changed: VFs whose link follows it are told. */
  setWireLink(up: boolean): void {
    if (this.#wireUp === up) return;
    this.#wireUp = up;
    for (const state of this.#states) {
      if (state === undefined || state.settings.state !== 'auto') continue;
      this.#applyLink(state);
      this.#ping(state);
    }
  }

  get wireUp(): boolean {
    return this.#wireUp;
  }

  /** A VF was reset by its guest, or lost it: what it had asked for is void (§7.10.2.9.2). */
  functionReset(pool: number): void {
    const state = this.#states[pool];
    if (state === undefined) return;
    state.vf.mailbox.reset();
    state.clearToSend = false;
    this.forget(state);
  }

  /** Tag control information that the port puts into all frames of a VF; 0: none. */
  portTci(pool: number): number {
    const state = this.#states[pool];
    if (state === undefined) return 0;
    const { vlan, qos } = state.settings;
    return vlan === 0 ? 0 : vlan | (qos << VLAN_PRIORITY_SHIFT);
  }

  // For the messages

  /** @throws SluiceError `not-found` */
  state(pool: number): VfState {
    const state = this.#states[pool];
    if (state === undefined) {
      throw new SluiceError('not-found', `the port has no VF ${pool}`, {
        remedy: 'sluice show vfs lists them',
      });
    }
    return state;
  }

  linkUp(state: VfState): boolean {
    const wanted = state.settings.state;
    return wanted === 'enable' || (wanted === 'auto' && this.#wireUp);
  }

  /** Forgets what a guest has asked for; what the administrator set stays. */
  forget(state: VfState): void {
    const { veb } = this;
    const { pool } = state.vf;
    this.setMode(state, IXGBE_XCAST_NONE);
    veb.clearMulticast(pool);
    this.clearMacvlans(state);
    if (state.settings.vlan === 0) for (const vlan of veb.vlansOf(pool)) veb.removeVlan(vlan, pool);
    if (state.settings.mac === undefined) this.#setFirstAddress(state);
    else this.#setOwnAddress(state);
    state.api = IXGBE_API_10;
    state.oversized = false;
    state.vf.setLongest(ORDINARY_FRAME);
    this.#applyLink(state);
  }

  /** Gives a VF its one address in place of the one before; high -1: none. */
  setAddress(state: VfState, low: number, high: number): void {
    const { veb } = this;
    const { pool } = state.vf;
    if (state.macHigh >= 0 && !hasMacvlan(state, state.macLow, state.macHigh)) {
      veb.removeAddress(state.macLow, state.macHigh, pool);
    }
    state.macLow = low;
    state.macHigh = high;
    // There is always room: see MACVLANS.
    if (high >= 0) veb.addAddress(low, high, pool);
  }

  /** Adds a further address. False if there is no room for it. */
  addMacvlan(state: VfState, low: number, high: number): boolean {
    if (hasMacvlan(state, low, high)) return true;
    if (state.macvlans.length >= MACVLANS_EACH) return false;
    let used = 0;
    for (const other of this.#states) used += other?.macvlans.length ?? 0;
    if (used >= MACVLANS || !this.veb.addAddress(low, high, state.vf.pool)) return false;
    state.macvlans.push({ low, high });
    return true;
  }

  clearMacvlans(state: VfState): void {
    const { pool } = state.vf;
    for (const { low, high } of state.macvlans) {
      if (low !== state.macLow || high !== state.macHigh) this.veb.removeAddress(low, high, pool);
    }
    state.macvlans.length = 0;
  }

  /** Whether another VF has this address where both may be in one VLAN. */
  isTaken(state: VfState, low: number, high: number): boolean {
    return this.#states.some(
      (other) =>
        other !== undefined &&
        mayMeet(state, other) &&
        ((other.macLow === low && other.macHigh === high) || hasMacvlan(other, low, high)),
    );
  }

  /** What a VF receives beside its own addresses: one of IXGBE_XCAST_*. */
  setMode(state: VfState, mode: number): void {
    const { veb } = this;
    const { pool } = state.vf;
    state.xcast = mode;
    veb.setFlag(pool, 'multicast', mode >= IXGBE_XCAST_MULTICAST);
    veb.setFlag(pool, 'allMulticast', mode >= IXGBE_XCAST_ALL_MULTICAST);
    veb.setFlag(pool, 'promiscuous', mode >= IXGBE_XCAST_PROMISCUOUS);
  }

  /** A VF asked for frames that its API has not: it gets none at all, as with the 82599 (§8.2.3.27.6). */
  setOversized(state: VfState, oversized: boolean): void {
    state.oversized = oversized;
    this.#applyLink(state);
  }

  #checkTogether(pool: number, name: string, settings: VfSettings): void {
    const others = this.#states.flatMap((state) =>
      state === undefined || state.vf.pool === pool
        ? []
        : [{ name: state.vf.name, settings: state.settings }],
    );
    checkTogether([...others, { name, settings }], this.#link);
  }

  #apply(state: VfState, settings: VfSettings): void {
    const before = state.settings;
    const { pool } = state.vf;
    const { veb } = this;
    state.settings = settings;
    if (settings.vlan !== before.vlan) this.#applyVlan(state, before.vlan);
    veb.setFlag(pool, 'untagged', settings.vlan === 0);
    veb.setFlag(pool, 'checkMac', settings.spoofchk);
    veb.setFlag(pool, 'checkVlan', settings.spoofchk);
    if (!settings.trust && state.xcast > IXGBE_XCAST_MULTICAST) {
      this.setMode(state, IXGBE_XCAST_MULTICAST);
    }
    this.#applyLink(state);
    const isReadressed = before.mac !== settings.mac && settings.mac !== undefined;
    // Who may not choose any more has no address but the one that was set.
    const isBound = settings.mac !== undefined && !settings.trust && (isReadressed || before.trust);
    const { macLow: low, macHigh: high } = state;
    if (isBound) this.clearMacvlans(state);
    if (isReadressed || isBound || before.vlan !== settings.vlan) this.#setOwnAddress(state);
    const isTakenBack = state.macLow !== low || state.macHigh !== high;
    if (isReadressed || isTakenBack || before.state !== settings.state) this.#restart(state);
    this.#changed(pool);
  }

  /** The guest's own VLANs and further addresses end where it comes into another network. */
  #applyVlan(state: VfState, before: number): void {
    const { veb } = this;
    const { pool } = state.vf;
    const { vlan, mac } = state.settings;
    if (before !== 0) veb.removeVlan(before, pool);
    for (const own of veb.vlansOf(pool)) veb.removeVlan(own, pool);
    if (vlan !== 0) veb.addVlan(vlan, pool, true);
    this.clearMacvlans(state);
    if (
      mac === undefined &&
      state.macHigh >= 0 &&
      this.isTaken(state, state.macLow, state.macHigh)
    ) {
      this.setAddress(state, 0, -1);
      this.#restart(state);
    }
  }

  #applyLink(state: VfState): void {
    const up = this.linkUp(state);
    this.veb.setFlag(state.vf.pool, 'receive', up && !state.oversized);
    state.vf.setLink(up);
  }

  /** The address that nobody set, unless another VF has it. */
  #setFirstAddress(state: VfState): void {
    const { ownLow, ownHigh } = state;
    const isFree = ownHigh >= 0 && !this.isTaken(state, ownLow, ownHigh);
    this.setAddress(state, ownLow, isFree ? ownHigh : -1);
  }

  /** The administrator's address: a VF that chose the same one has to choose again. */
  #setOwnAddress(state: VfState): void {
    const { mac } = state.settings;
    if (mac === undefined) return;
    const bytes = parseStationMac(mac);
    const low = macLow(bytes);
    const high = macHigh(bytes);
    for (const other of this.#states) {
      if (other === undefined || !mayMeet(state, other)) continue;
      // In VLANs of their own both may have it: the administrator says so.
      if (other.settings.mac?.toLowerCase() === mac.toLowerCase()) continue;
      if (hasMacvlan(other, low, high)) this.clearMacvlans(other);
      if (other.macLow !== low || other.macHigh !== high) continue;
      this.setAddress(other, 0, -1);
      this.#restart(other);
    }
    this.setAddress(state, low, high);
  }

  /** Makes a VF's driver begin anew: it finds that it may not ask any more, and resets the VF. */
  #restart(state: VfState): void {
    if (!state.clearToSend) return;
    state.clearToSend = false;
    this.#ping(state);
  }

  #ping(state: VfState): void {
    const cleared = state.clearToSend ? IXGBE_MESSAGE_CLEAR_TO_SEND : 0;
    state.vf.mailbox.notify((IXGBE_PF_CONTROL | cleared) >>> 0);
  }

  /** A VF that reads messages without having been reset is told so. */
  #acknowledged(state: VfState): void {
    if (!state.clearToSend) state.vf.mailbox.notify(IXGBE_MESSAGE_NACK);
  }
}

/** A VF without a VLAN of its port may be in any. */
function mayMeet(one: VfState, other: VfState): boolean {
  const a = one.settings.vlan;
  const b = other.settings.vlan;
  return one !== other && (a === b || a === 0 || b === 0);
}

function hasMacvlan(state: VfState, low: number, high: number): boolean {
  return state.macvlans.some((one) => one.low === low && one.high === high);
}

/** Table and key of a port on which so many queues share the frames. */
export function newRssTables(queues: number, random: (words: Uint32Array) => void): RssTables {
  const key = new Uint32Array(IXGBE_RSS_KEY_WORDS);
  random(key);
  return { table: Uint8Array.from({ length: IXGBE_RETA_ENTRIES }, (_, i) => i % queues), key };
}
