/**
 * What may be said of a virtual function, with the words of `ip link set DEV vf N` (iproute2): in the
 * configuration file, and by `sluice vf set`.
 */
import { z } from 'zod';
import {
  changeSettings,
  VF_DEFAULTS,
  VF_LINK_STATES,
  VF_VLAN_PROTOCOLS,
  type VfLinkState,
  type VfSettings,
  type VfVlanProtocol,
} from '../device/ixgbe/vf-policy-settings.ts';
import { choice, integer, isOn, onOff } from './config-values.ts';
import { anyVlan, macOrZero, qos, rate, ZERO_MAC } from './net-values.ts';

/** Virtual functions of a port: one of its 64 pools is the physical function's (82599 §7.10.2). */
export const MAX_VFS = 63;

export const vfNumber = integer(0, MAX_VFS - 1, 'the number of a virtual function');

/** Every word is optional: those that are left out stay as they are, or are the defaults. */
export const vfShape = {
  mac: macOrZero
    .optional()
    .describe(
      "The function's MAC address, which its guest can then change only with trust. Default: one made of the guest's name and the card's number, which the guest may change.",
    ),
  vlan: anyVlan
    .optional()
    .describe('Port VLAN: the guest sends and gets frames of this VLAN, without tags; 0: none.'),
  qos: qos.optional().describe('802.1Q priority of the port VLAN.'),
  proto: choice(VF_VLAN_PROTOCOLS)
    .optional()
    .describe('Protocol of the port VLAN. Default: 802.1Q.'),
  max_tx_rate: rate.optional().describe('Most that the guest may send, in Mb/s; 0: no limit.'),
  min_tx_rate: rate
    .optional()
    .describe('What the guest can send when the port is full, in Mb/s; 0: its share.'),
  spoofchk: onOff
    .optional()
    .describe(
      'Drop frames from other MAC addresses and VLANs than those of the function. Default: on.',
    ),
  query_rss: onOff
    .optional()
    .describe('The guest may ask for the RSS table and key of the port. Default: off.'),
  state: choice(VF_LINK_STATES)
    .optional()
    .describe('The link that the guest sees: as the port has it, always up, or always down.'),
  trust: onOff
    .optional()
    .describe('The guest may change its MAC address and be promiscuous. Default: off.'),
};

export const vfWords = z.strictObject(vfShape);

export type VfDocument = z.output<typeof vfWords>;

/** The words in plain values; those that were not said are not there. */
export interface VfWords {
  /** Zeros: whichever the guest likes. */
  readonly mac?: string;
  readonly vlan?: number;
  readonly qos?: number;
  readonly proto?: VfVlanProtocol;
  /** Mb/s */
  readonly max_tx_rate?: number;
  readonly min_tx_rate?: number;
  readonly spoofchk?: boolean;
  readonly query_rss?: boolean;
  readonly state?: VfLinkState;
  readonly trust?: boolean;
}

export type VfWord = keyof VfWords;

export const VF_WORDS = Object.keys(vfShape) as VfWord[];

/** Words that are set together: a VLAN comes with its priority and protocol. */
export const VF_UNITS: readonly (readonly VfWord[])[] = [
  ['vlan', 'qos', 'proto'],
  ...VF_WORDS.filter((word) => !['vlan', 'qos', 'proto'].includes(word)).map((word) => [word]),
];

/** Takes the words of a virtual function from among other keys. */
export function vfWordsOf(document: VfDocument): VfWords {
  const { mac, vlan, qos: priority, proto, max_tx_rate, min_tx_rate, state } = document;
  const { spoofchk, query_rss, trust } = document;
  return {
    ...(mac === undefined ? {} : { mac: mac.toLowerCase() }),
    ...(vlan === undefined ? {} : { vlan }),
    ...(priority === undefined ? {} : { qos: priority }),
    ...(proto === undefined ? {} : { proto }),
    ...(max_tx_rate === undefined ? {} : { max_tx_rate }),
    ...(min_tx_rate === undefined ? {} : { min_tx_rate }),
    ...(spoofchk === undefined ? {} : { spoofchk: isOn(spoofchk) }),
    ...(query_rss === undefined ? {} : { query_rss: isOn(query_rss) }),
    ...(state === undefined ? {} : { state }),
    ...(trust === undefined ? {} : { trust: isOn(trust) }),
  };
}

/** The address that an administrator has given, if any. */
export function givenMac({ mac }: VfWords): string | undefined {
  return mac === ZERO_MAC ? undefined : mac;
}

/**
 * The settings that words make, the others being the defaults.
 * @param name such as `nic0/0/vf3`
 * @param link Mb/s of the port; undefined: no limit
 * @throws SluiceError if the card cannot do that, or they contradict each other
 */
export function settingsOf(name: string, words: VfWords, link: number | undefined): VfSettings {
  return changeSettings(name, VF_DEFAULTS, { ...words, mac: givenMac(words) }, link);
}
