/**
 * What the host's administrator sets of a virtual function, in the words of `ip link set DEV vf N`
 * (ip-link(8)), and which of it cannot be had together.
 */
import { SluiceError } from '../../base/errors.ts';
import { parseStationMac } from '../../net/mac.ts';
import { VLAN_ID_MAX, VLAN_PRIORITY_MAX } from '../../spec/ethernet.ts';

/** What a VF receives beside its own addresses, by the numbers of the mailbox (IXGBE_XCAST_*). */
export const VF_MODES = ['none', 'multicast', 'all multicast', 'promiscuous'] as const;
export type VfMode = (typeof VF_MODES)[number];

export const VF_LINK_STATES = ['auto', 'enable', 'disable'] as const;
export type VfLinkState = (typeof VF_LINK_STATES)[number];

export const VF_VLAN_PROTOCOLS = ['802.1Q', '802.1ad'] as const;
export type VfVlanProtocol = (typeof VF_VLAN_PROTOCOLS)[number];

/** All settings of a VF. */
export interface VfSettings {
  /** The station's address, which the guest may not change unless it is trusted; none: it chooses. */
  readonly mac: string | undefined;
  /** The VLAN of the port, put into and taken out of frames unseen by the guest; 0: none. */
  readonly vlan: number;
  /** Priority in the tag of that VLAN, 0 to 7. */
  readonly qos: number;
  readonly proto: VfVlanProtocol;
  /** Mb/s that the guest may send, and that it is guaranteed on a busy wire; 0: none. */
  readonly max_tx_rate: number;
  readonly min_tx_rate: number;
  /** Frames from another address or VLAN than the guest's are dropped. */
  readonly spoofchk: boolean;
  /** The guest may ask for the RSS key and table. */
  readonly query_rss: boolean;
  /** The link that the guest sees: the wire's, always up, always down. */
  readonly state: VfLinkState;
  /** The guest may change its address, and be promiscuous. */
  readonly trust: boolean;
}

/** As a VF's mac: it has none any more. */
const NO_MAC = '00:00:00:00:00:00';

/** Some settings; `rate` is what `max_tx_rate` was called before, a mac of zeros takes it away. */
export type VfChange = {
  readonly [Key in keyof VfSettings]?: VfSettings[Key] | undefined;
} & { readonly rate?: number | undefined };

/** A VF of which nothing was said: as Linux's ixgbe has it. */
export const VF_DEFAULTS: VfSettings = {
  mac: undefined,
  vlan: 0,
  qos: 0,
  proto: '802.1Q',
  max_tx_rate: 0,
  min_tx_rate: 0,
  spoofchk: true,
  query_rss: false,
  state: 'auto',
  trust: false,
};

/**
 * The settings `before` with a change.
 * @param link Mb/s of the wire; undefined: no limit
 * @throws SluiceError `config` for a value out of range or two that contradict each other, `unsupported`
 * for what the 82599 has not
 */
export function changeSettings(
  name: string,
  before: VfSettings,
  change: VfChange,
  link: number | undefined,
): VfSettings {
  const { rate, ...words } = change;
  if (rate !== undefined && words.max_tx_rate !== undefined && rate !== words.max_tx_rate) {
    contradict(name, `rate ${rate}`, `max_tx_rate ${words.max_tx_rate}`, 'give one of them');
  }
  const given = Object.fromEntries(
    Object.entries({ ...words, max_tx_rate: words.max_tx_rate ?? rate }).filter(
      ([, value]) => value !== undefined,
    ),
  );
  const mac = change.mac === NO_MAC ? undefined : (change.mac ?? before.mac);
  const settings: VfSettings = { ...before, ...given, mac };
  // `vlan 0` ends the port's VLAN, and what its tag carried.
  const ended = change.vlan === 0 && change.qos === undefined ? { ...settings, qos: 0 } : settings;
  checkSettings(name, ended, link);
  return ended;
}

/** @throws as {@link changeSettings} */
function checkSettings(name: string, settings: VfSettings, link: number | undefined): void {
  const { mac, vlan, qos, proto, max_tx_rate: most, min_tx_rate: least } = settings;
  if (mac !== undefined) parseStationMac(mac);
  range(name, 'vlan', vlan, VLAN_ID_MAX);
  range(name, 'qos', qos, VLAN_PRIORITY_MAX);
  range(name, 'max_tx_rate', most, Number.MAX_SAFE_INTEGER);
  range(name, 'min_tx_rate', least, Number.MAX_SAFE_INTEGER);
  if (proto !== '802.1Q') {
    throw new SluiceError('unsupported', `${name}: proto ${proto}`, {
      remedy: 'the 82599 puts in 802.1Q tags only, as Linux has it too: leave proto out',
    });
  }
  if (qos !== 0 && vlan === 0) {
    contradict(name, `qos ${qos}`, 'vlan 0', 'give a vlan, whose tag carries the priority');
  }
  if (most !== 0 && least > most) {
    contradict(
      name,
      `min_tx_rate ${least}`,
      `max_tx_rate ${most}`,
      'guarantee no more than may be',
    );
  }
  if (link === undefined) return;
  for (const [word, value] of [
    ['max_tx_rate', most],
    ['min_tx_rate', least],
  ] as const) {
    if (value <= link) continue;
    contradict(
      name,
      `${word} ${value}`,
      `a link of ${link} Mb/s`,
      'give at most that, or link: none',
    );
  }
}

/** A VF among others of its port. */
export interface NamedSettings {
  readonly name: string;
  readonly settings: VfSettings;
}

/**
 * What no VF of a port can have beside another.
 * @throws SluiceError `config` naming both
 */
export function checkTogether(vfs: readonly NamedSettings[], link: number | undefined): void {
  const stations = new Map<string, string>();
  let guaranteed = 0;
  for (const { name, settings } of vfs) {
    const { mac, vlan, min_tx_rate: least } = settings;
    guaranteed += least;
    if (mac === undefined) continue;
    const key = `${mac.toLowerCase()} ${vlan}`;
    const other = stations.get(key);
    if (other !== undefined) {
      throw new SluiceError(
        'config',
        `${other} and ${name} both have mac ${mac}${vlan === 0 ? '' : ` in vlan ${vlan}`}`,
        { remedy: 'give each its own' },
      );
    }
    stations.set(key, name);
  }
  if (link === undefined || guaranteed <= link) return;
  const names = vfs.filter(({ settings }) => settings.min_tx_rate > 0).map(({ name }) => name);
  throw new SluiceError(
    'config',
    `min_tx_rate of ${names.join(', ')} sum up to ${guaranteed}, the link has ${link} Mb/s`,
    { remedy: 'guarantee less' },
  );
}

function range(name: string, word: string, value: number, most: number): void {
  if (Number.isInteger(value) && value >= 0 && value <= most) return;
  throw new SluiceError('config', `${name}: ${word} ${value}`, {
    remedy: `choose a whole number from 0 to ${most}`,
  });
}

function contradict(name: string, one: string, other: string, remedy: string): never {
  throw new SluiceError('config', `${name}: ${one} contradicts ${other}`, { remedy });
}
