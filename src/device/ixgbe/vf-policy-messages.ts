/**
 * What virtual functions ask their physical function for, and its answers (mailbox API 1.0 to 1.7, as
 * Linux's ixgbe and ixgbevf have them). A request is refused (NACK) if it is unknown, belongs to a later
 * version than was agreed upon, is malformed, or is more than the policy allows.
 */
import { isMulticastLow } from '../../net/mac.ts';
import { VLAN_ID_MAX } from '../../spec/ethernet.ts';
import {
  IXGBE_API_10,
  IXGBE_API_11,
  IXGBE_API_12,
  IXGBE_API_13,
  IXGBE_API_14,
  IXGBE_API_15,
  IXGBE_API_16,
  IXGBE_API_17,
  IXGBE_LINK_SPEED_10G,
  IXGBE_MAILBOX_WORDS,
  IXGBE_MESSAGE_ACK,
  IXGBE_MESSAGE_CLEAR_TO_SEND,
  IXGBE_MESSAGE_INFO,
  IXGBE_MESSAGE_INFO_SHIFT,
  IXGBE_MESSAGE_NACK,
  IXGBE_MESSAGE_REQUEST,
  IXGBE_MULTICAST_HASHES_MAX,
  IXGBE_PF_LINK_SPEED,
  IXGBE_PF_LINK_UP,
  IXGBE_QUEUES_DEFAULT,
  IXGBE_QUEUES_PORT_VLAN,
  IXGBE_QUEUES_RX,
  IXGBE_QUEUES_TX,
  IXGBE_RESET_MULTICAST,
  IXGBE_RESET_WORDS,
  IXGBE_RETA_ENTRIES,
  IXGBE_RETA_WORDS,
  IXGBE_RSS_KEY_WORDS,
  IXGBE_VF_API_NEGOTIATE,
  IXGBE_VF_FEATURES_NEGOTIATE,
  IXGBE_VF_GET_LINK_STATE,
  IXGBE_VF_GET_PF_LINK_STATE,
  IXGBE_VF_GET_QUEUES,
  IXGBE_VF_GET_RETA,
  IXGBE_VF_GET_RSS_KEY,
  IXGBE_VF_RESET,
  IXGBE_VF_SET_LPE,
  IXGBE_VF_SET_MAC,
  IXGBE_VF_SET_MACVLAN,
  IXGBE_VF_SET_MULTICAST,
  IXGBE_VF_SET_VLAN,
  IXGBE_VF_UPDATE_XCAST_MODE,
  IXGBE_XCAST_MULTICAST,
  IXGBE_XCAST_NONE,
  IXGBE_XCAST_PROMISCUOUS,
} from '../../spec/ixgbe-mailbox.ts';
import type { VfPolicy, VfState } from './vf-policy.ts';

/** Names of the versions that are agreed to, by their number in API_NEGOTIATE. */
const API_NAMES: ReadonlyMap<number, string> = new Map([
  [IXGBE_API_10, '1.0'],
  [IXGBE_API_11, '1.1'],
  [IXGBE_API_12, '1.2'],
  [IXGBE_API_13, '1.3'],
  [IXGBE_API_14, '1.4'],
  [IXGBE_API_15, '1.5'],
  [IXGBE_API_16, '1.6'],
  [IXGBE_API_17, '1.7'],
]);

/** Frames with check sequence: the least that Linux's IP can have, ordinary, and jumbo (§8.2.3.22.13). */
const SHORTEST_FRAME = 68;
const ORDINARY_FRAME = 1518;
const LONGEST_FRAME = 9728;
const FCS_BYTES = 4;
/** MCSTCTRL.MO that VFs are to hash with: bits 47:36, as the card's switch does. */
const MULTICAST_OFFSET = 0;
/** Bits of an entry of RETA that a VF has a use for: up to four queues. */
const RETA_BITS = 2;

export function apiName(version: number): string | undefined {
  return API_NAMES.get(version);
}

/** Answers a message, unless it is one that was answered before. May change the message. */
export function answerRequest(policy: VfPolicy, state: VfState, message: Uint32Array): void {
  const request = message[0] as number;
  if ((request & (IXGBE_MESSAGE_ACK | IXGBE_MESSAGE_NACK)) !== 0) return;
  const { mailbox } = state.vf;
  if (request === IXGBE_VF_RESET) {
    answerReset(policy, state, message);
    return;
  }
  if (!state.clearToSend) {
    message[0] = request | IXGBE_MESSAGE_NACK;
    mailbox.answer(message, 1);
    return;
  }
  const isDone = perform(policy, state, message);
  message[0] =
    request | (isDone ? IXGBE_MESSAGE_ACK : IXGBE_MESSAGE_NACK) | IXGBE_MESSAGE_CLEAR_TO_SEND;
  mailbox.answer(message, IXGBE_MAILBOX_WORDS);
}

/** Begins anew with what the administrator has set; tells the address, if there is one. */
function answerReset(policy: VfPolicy, state: VfState, message: Uint32Array): void {
  policy.forget(state);
  state.clearToSend = true;
  message.fill(0);
  const hasAddress = state.macHigh >= 0;
  message[0] = IXGBE_VF_RESET | (hasAddress ? IXGBE_MESSAGE_ACK : IXGBE_MESSAGE_NACK);
  if (hasAddress) {
    message[1] = state.macLow;
    message[2] = state.macHigh;
  }
  message[IXGBE_RESET_MULTICAST] = MULTICAST_OFFSET;
  state.vf.mailbox.answer(message, IXGBE_RESET_WORDS);
}

/** Does what is asked for; false: refused. */
function perform(policy: VfPolicy, state: VfState, message: Uint32Array): boolean {
  const request = message[0] as number;
  const info = (request >>> IXGBE_MESSAGE_INFO_SHIFT) & IXGBE_MESSAGE_INFO;
  const value = message[1] as number;
  switch (request & IXGBE_MESSAGE_REQUEST) {
    case IXGBE_VF_SET_MAC:
      return setMac(policy, state, value, (message[2] as number) & 0xffff);
    case IXGBE_VF_SET_MULTICAST:
      return setMulticast(policy, state, message, info);
    case IXGBE_VF_SET_VLAN:
      return setVlan(policy, state, value & 0xfff, info !== 0);
    case IXGBE_VF_SET_LPE:
      return setLongest(policy, state, value);
    case IXGBE_VF_SET_MACVLAN:
      return setMacvlan(policy, state, info, value, (message[2] as number) & 0xffff);
    case IXGBE_VF_API_NEGOTIATE:
      return negotiate(policy, state, value);
    case IXGBE_VF_GET_QUEUES:
      return getQueues(state, message);
    case IXGBE_VF_GET_RETA:
      return getTable(policy, state, message);
    case IXGBE_VF_GET_RSS_KEY:
      return getKey(policy, state, message);
    case IXGBE_VF_UPDATE_XCAST_MODE:
      return setMode(policy, state, message);
    case IXGBE_VF_GET_LINK_STATE:
      if (state.api < IXGBE_API_12) return false;
      message[1] = policy.linkUp(state) ? 1 : 0;
      return true;
    case IXGBE_VF_GET_PF_LINK_STATE:
      if (state.api < IXGBE_API_16) return false;
      message[IXGBE_PF_LINK_SPEED] = IXGBE_LINK_SPEED_10G;
      message[IXGBE_PF_LINK_UP] = policy.linkUp(state) ? 1 : 0;
      return true;
    case IXGBE_VF_FEATURES_NEGOTIATE:
      if (state.api < IXGBE_API_17) return false;
      // No IPsec, and no other protocol of the mailbox than that of all versions.
      message[1] = 0;
      return true;
    default:
      // IPsec among them, which the card has not.
      return false;
  }
}

function refuse(policy: VfPolicy, state: VfState, what: string): false {
  policy.log.warn(`${state.vf.name}: ${what}`, { vf: state.vf.pool });
  return false;
}

function isStation(low: number, high: number): boolean {
  return (low !== 0 || high !== 0) && !isMulticastLow(low);
}

function setMac(policy: VfPolicy, state: VfState, low: number, high: number): boolean {
  if (!isStation(low, high)) return refuse(policy, state, 'wanted an invalid MAC address');
  if (low === state.macLow && high === state.macHigh) return true;
  const { mac, trust } = state.settings;
  if (mac !== undefined && !trust) {
    return refuse(policy, state, `wanted another MAC address than ${mac}, which is set`);
  }
  if (policy.isTaken(state, low, high)) {
    return refuse(policy, state, 'wanted the MAC address of another VF');
  }
  policy.setAddress(state, low, high);
  return true;
}

/** Two hashes a word, from word 1 on. A list takes the place of the one before. */
function setMulticast(
  policy: VfPolicy,
  state: VfState,
  message: Uint32Array,
  count: number,
): boolean {
  const { veb } = policy;
  const { pool } = state.vf;
  veb.clearMulticast(pool);
  const entries = Math.min(count, IXGBE_MULTICAST_HASHES_MAX);
  for (let i = 0; i < entries; i++) {
    const word = message[1 + (i >>> 1)] as number;
    veb.addMulticast((word >>> (16 * (i & 1))) & 0xfff, pool);
  }
  if (state.xcast === IXGBE_XCAST_NONE) policy.setMode(state, IXGBE_XCAST_MULTICAST);
  return true;
}

function setVlan(policy: VfPolicy, state: VfState, vlan: number, add: boolean): boolean {
  const { veb } = policy;
  const { pool } = state.vf;
  // Frames without tag, or with a priority only: as the port has it, whatever is asked.
  if (vlan === 0) return true;
  if (state.settings.vlan !== 0) {
    return refuse(policy, state, `wanted VLAN ${vlan}, but vlan ${state.settings.vlan} is set`);
  }
  if (vlan > VLAN_ID_MAX) return false;
  if (!add) {
    veb.removeVlan(vlan, pool);
    return true;
  }
  return veb.addVlan(vlan, pool) || refuse(policy, state, `no room for VLAN ${vlan}`);
}

/** The longest frame, check sequence included. Longer than ordinary ones are not for API 1.0. */
function setLongest(policy: VfPolicy, state: VfState, bytes: number): boolean {
  if (bytes < SHORTEST_FRAME || bytes > LONGEST_FRAME) {
    return refuse(policy, state, `wanted frames of up to ${bytes} bytes`);
  }
  const oversized = state.api < IXGBE_API_11 && bytes > ORDINARY_FRAME;
  policy.setOversized(state, oversized);
  if (oversized) return refuse(policy, state, `wanted frames of ${bytes} bytes with API 1.0`);
  state.vf.setLongest(bytes - FCS_BYTES);
  return true;
}

/** Index 0 clears the list of further addresses, 1 begins a new one, others go on. */
function setMacvlan(
  policy: VfPolicy,
  state: VfState,
  index: number,
  low: number,
  high: number,
): boolean {
  const { mac, trust } = state.settings;
  if (index > 0 && mac !== undefined && !trust) {
    return refuse(policy, state, `wanted a further MAC address, but mac ${mac} is set`);
  }
  if (index > 0 && !isStation(low, high)) {
    return refuse(policy, state, 'wanted an invalid MAC address');
  }
  if (index <= 1) policy.clearMacvlans(state);
  if (index === 0) return true;
  if (policy.isTaken(state, low, high)) {
    return refuse(policy, state, 'wanted the MAC address of another VF');
  }
  return policy.addMacvlan(state, low, high) || refuse(policy, state, 'has too many MAC addresses');
}

function negotiate(policy: VfPolicy, state: VfState, version: number): boolean {
  if (!API_NAMES.has(version)) {
    policy.log.info(`${state.vf.name}: wanted API version ${version}`, { vf: state.vf.pool });
    return false;
  }
  state.api = version;
  return true;
}

function getQueues(state: VfState, message: Uint32Array): boolean {
  if (state.api < IXGBE_API_11) return false;
  const { queues } = state.vf;
  message[IXGBE_QUEUES_TX] = queues;
  message[IXGBE_QUEUES_RX] = queues;
  message[IXGBE_QUEUES_PORT_VLAN] = state.settings.vlan === 0 ? 0 : 1;
  message[IXGBE_QUEUES_DEFAULT] = 0;
  return true;
}

function getTable(policy: VfPolicy, state: VfState, message: Uint32Array): boolean {
  if (state.api < IXGBE_API_12 || !state.settings.query_rss) return false;
  const { table } = policy.rss;
  const each = IXGBE_RETA_ENTRIES / IXGBE_RETA_WORDS;
  for (let word = 0; word < IXGBE_RETA_WORDS; word++) {
    let bits = 0;
    for (let i = 0; i < each; i++) {
      bits |= ((table[word * each + i] as number) & ((1 << RETA_BITS) - 1)) << (RETA_BITS * i);
    }
    message[1 + word] = bits;
  }
  return true;
}

function getKey(policy: VfPolicy, state: VfState, message: Uint32Array): boolean {
  if (state.api < IXGBE_API_12 || !state.settings.query_rss) return false;
  for (let i = 0; i < IXGBE_RSS_KEY_WORDS; i++) message[1 + i] = policy.rss.key[i] as number;
  return true;
}

/** What is more than the VF is trusted with is given as far as it may be, and told. */
function setMode(policy: VfPolicy, state: VfState, message: Uint32Array): boolean {
  const wanted = message[1] as number;
  if (state.api < IXGBE_API_12 || wanted > IXGBE_XCAST_PROMISCUOUS) return false;
  if (wanted === IXGBE_XCAST_PROMISCUOUS && state.api < IXGBE_API_13) return false;
  const most = state.settings.trust ? IXGBE_XCAST_PROMISCUOUS : IXGBE_XCAST_MULTICAST;
  const mode = Math.min(wanted, most);
  policy.setMode(state, mode);
  message[1] = mode;
  return true;
}
