/**
 * The words of `ip link set DEV vf NUM …` (iproute2, ip-link(8)), as `sluice vf set` takes them:
 *
 *     [ mac LLADDR ] [ vlan VLANID [ qos PRIORITY ] [ proto { 802.1Q | 802.1ad } ] ] [ rate MBPS ]
 *     [ max_tx_rate MBPS ] [ min_tx_rate MBPS ] [ spoofchk { on | off } ] [ query_rss { on | off } ]
 *     [ state { auto | enable | disable } ] [ trust { on | off } ]
 */
import { SluiceError } from '../base/errors.ts';
import { suggestion } from '../daemon/near-miss.ts';
import { VF_WORDS, type VfDocument, vfNumber, vfWords } from '../daemon/vf-schema.ts';

/** `nic0/0` and the number in `vf NUM`, with what follows. */
export interface VfPhrase {
  readonly port: string;
  readonly vf: number;
  readonly rest: readonly string[];
}

/** Words whose value is a number. */
const NUMBERS: ReadonlySet<string> = new Set(['vlan', 'qos', 'max_tx_rate', 'min_tx_rate']);

/** @throws SluiceError `usage` */
export function parseVf(phrase: readonly string[]): VfPhrase {
  const [port, key, number, ...rest] = phrase;
  if (port === undefined || !/^[^/]+\/[0-9]+$/.test(port)) {
    throw usage(`${port ?? 'nothing'} is no port of a NIC`, 'name it as in: nic0/0 vf 3');
  }
  if (key !== 'vf' || number === undefined || !/^[0-9]+$/.test(number)) {
    throw usage(`expected vf NUM after ${port}`, `as in: ${port} vf 3`);
  }
  const parsed = vfNumber.safeParse(Number(number));
  if (!parsed.success) {
    throw usage(`vf ${number}: ${parsed.error.issues[0]?.message}`, `as in: ${port} vf 3`);
  }
  return { port, vf: parsed.data, rest };
}

/** @throws SluiceError `usage` for a word that is not known, said twice, or without its value */
export function parseVfWords(words: readonly string[]): VfDocument {
  const found = new Map<string, string | number>();
  for (let i = 0; i < words.length; i += 2) {
    const [said = '', value] = words.slice(i, i + 2);
    // iproute2's older name of it.
    const word = said === 'rate' ? 'max_tx_rate' : said;
    if (!VF_WORDS.some((known) => known === word)) {
      throw usage(
        `${said} is none of ${VF_WORDS.join(', ')}${suggestion(said, VF_WORDS)}`,
        'see ip-link(8): ip link set DEV vf NUM …',
      );
    }
    if (value === undefined)
      throw usage(`${said} without its value`, `as in: ${EXAMPLES[word] ?? said}`);
    if (found.has(word)) throw usage(`${said} is said twice`, 'say it once');
    found.set(word, NUMBERS.has(word) && /^[0-9]+$/.test(value) ? Number(value) : value);
  }
  for (const word of ['qos', 'proto']) {
    if (found.has(word) && !found.has('vlan')) {
      throw usage(`${word} without vlan`, `as in: vlan 10 ${EXAMPLES[word]}`);
    }
  }
  // A VLAN comes with its priority and protocol: what is not said is not as it was, but usual.
  if (found.has('vlan')) {
    if (!found.has('qos')) found.set('qos', 0);
    if (!found.has('proto')) found.set('proto', '802.1Q');
  }
  const parsed = vfWords.safeParse(Object.fromEntries(found));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const word = String(issue?.path[0] ?? '');
  throw usage(`${word} ${found.get(word)}: ${issue?.message}`, `as in: ${EXAMPLES[word]}`);
}

const EXAMPLES: Readonly<Record<string, string>> = {
  mac: 'mac 52:54:00:00:00:03',
  vlan: 'vlan 10',
  qos: 'qos 3',
  // The only one that the 82599 has.
  proto: 'proto 802.1Q',
  max_tx_rate: 'max_tx_rate 1000',
  min_tx_rate: 'min_tx_rate 100',
  spoofchk: 'spoofchk off',
  query_rss: 'query_rss on',
  state: 'state disable',
  trust: 'trust on',
};

function usage(message: string, remedy: string): SluiceError {
  return new SluiceError('usage', message, { remedy });
}
