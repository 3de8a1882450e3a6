/** References to NICs: ports and virtual functions that must be there, and that only one may have. */
import { describeError } from '../base/errors.ts';
import { checkTogether, type NamedSettings } from '../device/ixgbe/vf-policy-settings.ts';
import type { ConfigPath, ConfigSource } from './config-problems.ts';
import { defaultMac } from './mac-address.ts';
import { ZERO_MAC } from './net-values.ts';
import { nicPortName, vfName } from './nic-config.ts';
import { linkMbps } from './nic-schema.ts';
import {
  checkNamed,
  type Mapping,
  mapping,
  NICS,
  SWITCHES,
  type TapHolders,
} from './reference-tools.ts';
import { MAX_VFS, settingsOf, VF_WORDS, type VfWords, vfWords, vfWordsOf } from './vf-schema.ts';

/** Checks the wires of NICs' ports. */
export function checkNicWires(
  source: ConfigSource,
  nics: Mapping,
  switches: Mapping,
  taps: TapHolders,
): void {
  for (const [nic, item] of Object.entries(nics)) {
    for (const [index, port] of portsOf(item).entries()) {
      const wire = mapping(mapping(port)['wire']);
      const path = ['nics', nic, 'ports', index, 'wire'];
      taps.check(source, [...path, 'tap'], wire['tap'], `port ${nicPortName(nic, index)}`);
      checkNamed(source, [...path, 'switch'], wire['switch'], SWITCHES, switches);
    }
  }
}

function portsOf(nic: unknown): readonly unknown[] {
  const { ports } = mapping(nic);
  return Array.isArray(ports) ? ports : [];
}

/**
 * Where frames of a card meet those of others: a switch, or what is plugged into that port of a NIC.
 * Undefined if the file does not say.
 */
export function stationsOf(card: Mapping, nics: Mapping): string | undefined {
  const { switch: lan, nic, port } = card;
  if (typeof lan === 'string') return `switch ${lan}`;
  if (typeof nic !== 'string' || typeof port !== 'number') return undefined;
  const wire = mapping(mapping(portsOf(nics[nic])[port])['wire'])['switch'];
  return typeof wire === 'string' ? `switch ${wire}` : `port ${nicPortName(nic, port)}`;
}

/** The address of a guest's card. */
export function macOf(guest: string, index: number, card: Mapping, nics: Mapping): string {
  const { method, nic, port } = card;
  const isWhole = method === 'direct' && typeof nic === 'string' && typeof port === 'number';
  const item = isWhole ? mapping(portsOf(nics[nic])[port]) : card;
  const { mac } = item;
  if (typeof mac === 'string' && mac !== ZERO_MAC) return mac.toLowerCase();
  return isWhole ? defaultMac(nicPortName(nic, port), port) : defaultMac(guest, index);
}

/** A guest's card that is a function of a NIC. */
interface Use {
  /** `web/net0` */
  readonly card: string;
  readonly path: ConfigPath;
  readonly method: 'direct' | 'sriov';
  readonly vf: unknown;
  readonly words: VfWords;
}

/** Checks the functions that guests have. */
export function checkFunctions(source: ConfigSource, guests: Mapping, nics: Mapping): void {
  for (const [nicPort, list] of functionsByPort(source, guests, nics)) {
    checkOwner(source, nicPort, list, nics);
    checkVfs(source, nicPort, list, nics);
    checkSettings(source, nicPort, list, nics);
  }
}

/** What is said of virtual functions: each by itself, and all of a port together. */
function checkSettings(
  source: ConfigSource,
  nicPort: string,
  list: readonly Use[],
  nics: Mapping,
): void {
  const [nic = '', port = ''] = nicPort.split('/');
  const link = linkMbps(mapping(portsOf(nics[nic])[Number(port)])['link']);
  const before: NamedSettings[] = [];
  for (const { vf, words, path, method } of list) {
    if (method !== 'sriov') continue;
    const name = vfName(nicPort, Number(vf));
    try {
      before.push({ name, settings: settingsOf(name, words, link) });
      checkTogether(before, link);
    } catch (error) {
      source.report(path, describeError(error));
      before.pop();
    }
  }
}

function functionsByPort(source: ConfigSource, guests: Mapping, nics: Mapping): Map<string, Use[]> {
  const found = new Map<string, Use[]>();
  for (const [guest, item] of Object.entries(guests)) {
    const { net } = mapping(item);
    if (!Array.isArray(net)) continue;
    for (const [index, value] of net.entries()) {
      const card = mapping(value);
      const { method, nic, port, vf } = card;
      if (method !== 'direct' && method !== 'sriov') continue;
      const path = ['guests', guest, 'net', index];
      checkNamed(source, [...path, 'nic'], nic, NICS, nics);
      if (typeof nic !== 'string' || !Object.hasOwn(nics, nic)) continue;
      if (typeof port !== 'number' || !checkPort(source, path, nic, port, nics)) continue;
      const name = nicPortName(nic, port);
      const list = found.get(name) ?? [];
      found.set(name, list);
      list.push({ card: `${guest}/net${index}`, path, method, vf, words: wordsOf(card) });
    }
  }
  return found;
}

/** The words among a card's keys; none if they have not the right form, which the schema tells. */
function wordsOf(card: Mapping): VfWords {
  const parsed = vfWords.safeParse(
    Object.fromEntries(VF_WORDS.flatMap((word) => (word in card ? [[word, card[word]]] : []))),
  );
  return parsed.success ? vfWordsOf(parsed.data) : {};
}

function checkPort(
  source: ConfigSource,
  path: ConfigPath,
  nic: string,
  port: number,
  nics: Mapping,
): boolean {
  const count = portsOf(nics[nic]).length;
  if (port < count) return true;
  const there = count === 1 ? 'it has one, 0' : `it has ${count}, 0 to ${count - 1}`;
  source.report([...path, 'port'], `${nic} has no port ${port}: ${there}`);
  return false;
}

/** A port is a guest's whole, or shared by its virtual functions. */
function checkOwner(
  source: ConfigSource,
  nicPort: string,
  list: readonly Use[],
  nics: Mapping,
): void {
  const owner = list.find(({ method }) => method === 'direct');
  if (owner === undefined) return;
  const [nic = '', port = ''] = nicPort.split('/');
  const path = ['nics', nic, 'ports', Number(port)];
  const { mirrors } = mapping(portsOf(nics[nic])[Number(port)]);
  if (Array.isArray(mirrors) && mirrors.length > 0) {
    source.report(
      [...path, 'mirrors'],
      `${nicPort} has mirrors, which are for virtual functions, and ${owner.card} has all of it (method: direct)`,
    );
  }
  for (const other of list) {
    if (other === owner) continue;
    source.report(
      [...other.path, 'port'],
      other.method === 'direct'
        ? `${owner.card} and ${other.card} would both have all of ${nicPort}: give one of them another port, or both a virtual function (method: sriov)`
        : `${owner.card} has all of ${nicPort} (method: direct), and ${other.card} would have a virtual function of it (method: sriov): the driver domain must own a port to share it`,
    );
  }
}

function checkVfs(
  source: ConfigSource,
  nicPort: string,
  list: readonly Use[],
  nics: Mapping,
): void {
  const [nic = '', port = ''] = nicPort.split('/');
  const { vfs } = mapping(portsOf(nics[nic])[Number(port)]);
  const count = typeof vfs === 'number' ? vfs : MAX_VFS;
  const holders = new Map<number, string>();
  for (const { vf, path, card, method } of list) {
    if (method !== 'sriov' || typeof vf !== 'number') continue;
    if (vf >= count && vf < MAX_VFS) {
      source.report(
        [...path, 'vf'],
        `${nicPort} has no virtual function ${vf}: its vfs: ${count} makes 0 to ${count - 1}`,
      );
    }
    const holder = holders.get(vf);
    if (holder === undefined) holders.set(vf, card);
    else {
      source.report([...path, 'vf'], `${holder} and ${card} would both have ${nicPort} vf ${vf}`);
    }
  }
}
