/** The entry point: `sluice COMMAND …`. Exit codes: 0 done, 1 failed, 2 wrong usage. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { SluiceError } from '../base/errors.ts';
import { benchCommand } from './bench.ts';
import { captureCommand } from './capture.ts';
import { guestCommand } from './guest.ts';
import { printError } from './output.ts';
import { downCommand, reloadCommand } from './reload.ts';
import { schemaCommand } from './schema.ts';
import { showCommand } from './show.ts';
import { upCommand } from './up.ts';

const FAILED = 1;
const WRONG_USAGE = 2;

/** The package's manifest lies two folders up, from src/cli/ and from dist/cli/. */
function version(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

/** All commands; each file of this folder exports the one it is named after. */
function program(): Command {
  const all = new Command('sluice')
    .description('a driver domain in user space: network cards for virtual machines')
    .version(version())
    .showHelpAfterError('(sluice --help, or sluice COMMAND --help)');
  const commands = [
    upCommand(version()),
    showCommand(),
    reloadCommand(),
    downCommand(),
    guestCommand(),
    captureCommand(),
    benchCommand(version()),
    schemaCommand(),
  ];
  for (const command of commands) all.addCommand(command);
  forEachCommand(all, (command) => command.exitOverride());
  return all;
}

function forEachCommand(command: Command, visit: (command: Command) => void): void {
  visit(command);
  for (const inner of command.commands) forEachCommand(inner, visit);
}

try {
  await program().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed what there is to say; help and version are no errors.
    process.exitCode = error.exitCode === 0 ? 0 : WRONG_USAGE;
  } else {
    printError(error, process.argv.includes('--json'));
    process.exitCode =
      error instanceof SluiceError && error.code === 'usage' ? WRONG_USAGE : FAILED;
  }
}
