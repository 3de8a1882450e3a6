/** `sluice vf …`: virtual functions of a running daemon, with the words of `ip link set DEV vf NUM`. */
import { Command } from 'commander';
import { SluiceError } from '../base/errors.ts';
import type { ApiReply } from '../control/api.ts';
import { printJson } from './output.ts';
import { clientFor, controlCommand, type JsonOption, type PlaceOptions } from './place.ts';
import { vfLines } from './show-vfs.ts';
import { parseVf, parseVfWords } from './vf-words.ts';

type Vf = ApiReply<'vfs'>[number];

const WORDS_HELP = `
Words, as in ip-link(8):
  mac LLADDR                     zeros: whichever the guest likes
  vlan VLANID [ qos 0-7 ] [ proto 802.1Q ]
  max_tx_rate MBPS   (or: rate)  0: no limit
  min_tx_rate MBPS               0: none is promised
  spoofchk on|off   query_rss on|off   trust on|off
  state auto|enable|disable

Example: sluice vf set nic0/0 vf 3 vlan 10 qos 3`;

export function vfCommand(): Command {
  return new Command('vf')
    .addCommand(setCommand())
    .addCommand(addCommand())
    .addCommand(removeCommand());
}

function phraseCommand(name: string, description: string, argument: string): Command {
  return controlCommand(name).description(description).usage(`[options] ${argument}`);
}

function setCommand(): Command {
  return phraseCommand(
    'set',
    'set what a virtual function may do; its guest keeps it',
    'PORT vf NUM WORD VALUE…',
  )
    .argument('<words...>', 'the port and the number, such as nic0/0 vf 3, then words')
    .addHelpText('after', WORDS_HELP)
    .action(async (words: string[], options: PlaceOptions & JsonOption) => {
      const { port: nic, vf, rest } = parseVf(words);
      if (rest.length === 0) {
        throw new SluiceError('usage', `nothing to be set of ${nic} vf ${vf}`, {
          remedy: `as in: sluice vf set ${nic} vf ${vf} vlan 10`,
        });
      }
      const set = parseVfWords(rest);
      print(await clientFor(options).call('setVf', { nic, vf, set }), options);
    });
}

function addCommand(): Command {
  return phraseCommand(
    'add',
    'make a virtual function that no guest of the configuration has',
    'PORT vf NUM [WORD VALUE…]',
  )
    .argument('<words...>', 'the port and the number, such as nic0/0 vf 3, then words')
    .addHelpText('after', WORDS_HELP)
    .action(async (words: string[], options: PlaceOptions & JsonOption) => {
      const { port: nic, vf, rest } = parseVf(words);
      const made = await clientFor(options).call('addVf', { nic, vf, set: parseVfWords(rest) });
      if (options.json === true) printJson(made);
      else process.stdout.write(`${made.socket}\n`);
    });
}

function removeCommand(): Command {
  return phraseCommand(
    'remove',
    'remove a virtual function that was made with sluice vf add; its guest loses it',
    'PORT vf NUM',
  )
    .argument('<words...>', 'the port and the number, such as nic0/0 vf 3')
    .action(async (words: string[], options: PlaceOptions & JsonOption) => {
      const { port: nic, vf, rest } = parseVf(words);
      if (rest.length > 0) {
        throw new SluiceError('usage', `${rest.join(' ')} is too much`, {
          remedy: `sluice vf remove ${nic} vf ${vf}`,
        });
      }
      const reply = await clientFor(options).call('removeVf', { nic, vf });
      if (options.json === true) printJson(reply);
    });
}

function print(vf: Vf, { json }: JsonOption): void {
  if (json === true) printJson(vf);
  else process.stdout.write(`${vfLines(vf).join('\n')}\n`);
}
