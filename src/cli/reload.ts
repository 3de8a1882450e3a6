/** `sluice reload` and `sluice down`: have a running daemon change or end. */
import type { Command } from 'commander';
import { SluiceError } from '../base/errors.ts';
import { printJson } from './output.ts';
import { clientFor, controlCommand, type JsonOption, type PlaceOptions } from './place.ts';

export function reloadCommand(): Command {
  return controlCommand('reload').action(async (options: PlaceOptions & JsonOption) => {
    const report = await clientFor(options).call('reload');
    if (options.json === true) printJson(report);
    else {
      for (const action of report.done) process.stdout.write(`${action}\n`);
      if (report.done.length + report.failed.length === 0) process.stdout.write('no change\n');
    }
    if (report.failed.length > 0) {
      throw new SluiceError(
        'state',
        report.failed.map(({ action, error }) => `${action}: ${error}`).join('\n'),
      );
    }
  });
}

export function downCommand(): Command {
  return controlCommand('down').action(async (options: PlaceOptions & JsonOption) => {
    const reply = await clientFor(options).call('shutdown');
    if (options.json === true) printJson(reply);
  });
}
