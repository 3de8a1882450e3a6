/** `sluice guest …`: how to attach a guest. Needs the configuration only, no running daemon. */
import { Command } from 'commander';
import { SluiceError } from '../base/errors.ts';
import type { GuestConfig } from '../daemon/config.ts';
import { suggestion } from '../daemon/near-miss.ts';
import { printJson } from './output.ts';
import { type ConfigOptions, configCommand, configFor, type JsonOption } from './place.ts';
import { qemuArguments } from './qemu-arguments.ts';
import { umlArguments } from './uml-arguments.ts';

export function guestCommand(): Command {
  return new Command('guest')
    .addCommand(
      argumentsCommand(
        'qemu-args',
        'print the arguments that attach a guest of QEMU',
        (guest, strict) => qemuArguments(guest, strict),
      ),
    )
    .addCommand(
      argumentsCommand(
        'uml-args',
        'print the arguments that attach a guest of User-Mode Linux',
        umlArguments,
      ),
    );
}

function argumentsCommand(
  name: string,
  description: string,
  make: (guest: GuestConfig, strict: boolean) => string[],
): Command {
  return configCommand(name)
    .description(description)
    .argument('<name>', 'name of the guest in the configuration')
    .action((guestName: string, options: ConfigOptions & JsonOption) => {
      const config = configFor(options);
      const names = config.guests.map((guest) => guest.name);
      const guest = config.guests.find((other) => other.name === guestName);
      if (guest === undefined) {
        const there = names.length === 0 ? 'it has no guests' : `it has ${names.join(', ')}`;
        throw new SluiceError(
          'not-found',
          `no guest ${guestName} in ${config.file}; ${there}${suggestion(guestName, names)}`,
        );
      }
      const list = make(guest, config.isolation === 'strict');
      if (options.json === true) printJson(list);
      else process.stdout.write(`${checkWords(list).join(' ')}\n`);
    });
}

/** The list is used as `$(sluice guest …)`, where the shell splits at blanks and quotes nothing. */
function checkWords(list: string[]): string[] {
  const bad = list.find((word) => /[\s*?[\]]/.test(word));
  if (bad === undefined) return list;
  throw new SluiceError('config', `the argument ${bad} would be split by a shell`, {
    remedy: 'choose a run directory without blanks, or use --json',
  });
}
