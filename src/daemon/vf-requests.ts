/**
 * What `sluice vf` asked for at run time. It is part of the desired state, beside the configuration file:
 * a reload keeps it, except words that the file itself has changed meanwhile, which the file then rules.
 * Sluice forgets it when it ends.
 */
import { SluiceError } from '../base/errors.ts';
import { checkTogether, type NamedSettings } from '../device/ixgbe/vf-policy-settings.ts';
import { type Config, type NetConfig, placeOf } from './config.ts';
import { suggestion } from './near-miss.ts';
import { looseFunction, type NicPortConfig, type SriovNetConfig, vfName } from './nic-config.ts';
import { linkMbps } from './nic-schema.ts';
import { givenMac, settingsOf, VF_UNITS, VF_WORDS, type VfWords } from './vf-schema.ts';

export interface VfRequests {
  /** Words that were set, by function: `nic0/0/vf3`. */
  readonly words: ReadonlyMap<string, VfWords>;
  /** Functions that no guest of the file has, by name. */
  readonly made: ReadonlyMap<string, { readonly nicPort: string; readonly vf: number }>;
}

export const NO_REQUESTS: VfRequests = { words: new Map(), made: new Map() };

/** The configuration file with what was asked for at run time. */
export interface DesiredState extends Config {
  readonly loose: readonly SriovNetConfig[];
}

/** @throws SluiceError `config` if they contradict each other */
export function desiredState(config: Config, requests: VfRequests): DesiredState {
  const withWords = (net: SriovNetConfig): SriovNetConfig => ({
    ...net,
    words: { ...net.words, ...requests.words.get(vfName(net.nicPort, net.vf)) },
  });
  const state = {
    ...config,
    guests: config.guests.map((guest) => ({
      ...guest,
      net: guest.net.map((net) => (net.method === 'sriov' ? withWords(net) : net)),
    })),
    loose: [...requests.made.values()].map(({ nicPort, vf }) =>
      withWords(looseFunction(nicPort, vf, config.run.path)),
    ),
  };
  check(state);
  return state;
}

export function setWords(requests: VfRequests, name: string, words: VfWords): VfRequests {
  const before = requests.words.get(name);
  return { ...requests, words: new Map(requests.words).set(name, { ...before, ...words }) };
}

export function makeVf(requests: VfRequests, nicPort: string, vf: number): VfRequests {
  return { ...requests, made: new Map(requests.made).set(vfName(nicPort, vf), { nicPort, vf }) };
}

export function unmakeVf(requests: VfRequests, name: string): VfRequests {
  const words = new Map(requests.words);
  const made = new Map(requests.made);
  words.delete(name);
  made.delete(name);
  return { words, made };
}

/** What is left of the requests when the file has changed. */
export function carriedOver(requests: VfRequests, before: Config, next: Config): VfRequests {
  const now = functionsOf(next);
  const was = functionsOf(before);
  const made = new Map(
    [...requests.made].filter(([name, { nicPort, vf }]) => {
      const port = next.nicPorts.find((other) => other.name === nicPort);
      return port?.mode === 'sriov' && vf < port.vfs && !now.has(name);
    }),
  );
  const words = new Map(
    [...requests.words].flatMap(([name, set]) => {
      const file = now.get(name)?.words;
      if (file === undefined && !made.has(name)) return [];
      const left = withoutChanged(set, was.get(name)?.words ?? {}, file ?? {});
      return Object.keys(left).length === 0 ? [] : [[name, left] as const];
    }),
  );
  return { words, made };
}

/** Without the words that the file has changed. */
function withoutChanged(set: VfWords, before: VfWords, now: VfWords): VfWords {
  const changed = new Set(
    VF_UNITS.filter((unit) => unit.some((word) => before[word] !== now[word])).flat(),
  );
  return Object.fromEntries(
    VF_WORDS.flatMap((word) => (word in set && !changed.has(word) ? [[word, set[word]]] : [])),
  );
}

/** The virtual functions that guests of the file have, by name. */
export function functionsOf({ guests }: Config): Map<string, SriovNetConfig> {
  return new Map(
    guests.flatMap(({ net }) =>
      net.flatMap((card) =>
        card.method === 'sriov' ? [[vfName(card.nicPort, card.vf), card] as const] : [],
      ),
    ),
  );
}

/** The file by itself was checked with its lines; this is about what was said at run time. */
function check(state: DesiredState): void {
  for (const port of state.nicPorts) checkPort(state, port);
  checkAddresses(state);
}

function checkPort(state: DesiredState, { name: nicPort, link }: NicPortConfig): void {
  const functions = [...state.guests.flatMap(({ net }) => net), ...state.loose].flatMap((net) =>
    net.method === 'sriov' && net.nicPort === nicPort ? toNamed(net, linkMbps(link)) : [],
  );
  checkTogether(functions, linkMbps(link));
}

function toNamed({ nicPort, vf, words }: SriovNetConfig, link: number | undefined): NamedSettings {
  const name = vfName(nicPort, vf);
  return { name, settings: settingsOf(name, words, link) };
}

function checkAddresses(state: DesiredState): void {
  const holders = new Map<string, string>();
  for (const net of [...state.guests.flatMap((guest) => guest.net), ...state.loose]) {
    const mac = macOfCard(net);
    const place = stations(state, net);
    const holder = holders.get(`${place} ${mac}`);
    if (holder !== undefined) {
      throw new SluiceError(
        'config',
        `${net.port} and ${holder} would have the same MAC address ${mac} on ${place}`,
      );
    }
    holders.set(`${place} ${mac}`, net.port);
  }
}

/** The address that a card begins with. */
export function macOfCard(net: NetConfig): string {
  return net.method === 'sriov' ? (givenMac(net.words) ?? net.mac) : net.mac;
}

/** Where frames of a card meet those of others. */
function stations({ nicPorts }: Config, net: NetConfig): string {
  if ('switch' in net) return `switch ${net.switch}`;
  const port = nicPorts.find(({ name }) => name === net.nicPort);
  return port?.wire?.kind === 'switch' ? `switch ${port.wire.switch}` : `port ${placeOf(net)}`;
}

/** @throws SluiceError `not-found` unless there is such a virtual function */
export function checkVf(config: Config, requests: VfRequests, nicPort: string, vf: number): void {
  findPort(config, nicPort);
  const names = [...functionsOf(config).keys(), ...requests.made.keys()];
  const name = vfName(nicPort, vf);
  if (names.includes(name)) return;
  const there = names.filter((other) => other.startsWith(`${nicPort}/`));
  throw new SluiceError(
    'not-found',
    `${nicPort} has no vf ${vf}; ${there.length === 0 ? 'it has none' : `there are ${there.join(', ')}`}`,
    { remedy: `make it: sluice vf add ${nicPort} vf ${vf}` },
  );
}

/** @throws SluiceError `not-found`, `state` unless a virtual function of this number can be made */
export function checkFree(config: Config, requests: VfRequests, nicPort: string, vf: number): void {
  const port = findPort(config, nicPort);
  if (port.mode === 'direct') {
    throw new SluiceError('state', `${nicPort} is a guest's (method: direct), which shares it not`);
  }
  if (vf >= port.vfs) {
    throw new SluiceError(
      'not-found',
      `${nicPort} has no vf ${vf}: its vfs: ${port.vfs} makes 0 to ${port.vfs - 1}`,
    );
  }
  const name = vfName(nicPort, vf);
  const holder = functionsOf(config).get(name);
  if (holder !== undefined) {
    throw new SluiceError('state', `${holder.port} has ${nicPort} vf ${vf} already`);
  }
  if (requests.made.has(name)) throw new SluiceError('state', `${name} is there already`);
}

/** @throws SluiceError unless the virtual function was made at run time */
export function checkMade(config: Config, requests: VfRequests, nicPort: string, vf: number): void {
  checkVf(config, requests, nicPort, vf);
  const holder = functionsOf(config).get(vfName(nicPort, vf));
  if (holder === undefined) return;
  throw new SluiceError('state', `${nicPort} vf ${vf} is ${holder.port} of the configuration`, {
    remedy: 'take it out of the file, then sluice reload',
  });
}

function findPort({ nicPorts }: Config, name: string): NicPortConfig {
  const port = nicPorts.find((other) => other.name === name);
  if (port !== undefined) return port;
  const names = nicPorts.map((other) => other.name);
  throw new SluiceError('not-found', `no port ${name} of a NIC${suggestion(name, names)}`, {
    remedy: names.length === 0 ? 'there are no NICs' : `there are ${names.join(', ')}`,
  });
}
