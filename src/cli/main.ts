/** The entry point: `sluice COMMAND …`. Exit codes: 0 done, 1 failed, 2 wrong usage. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { SluiceError } from '../base/errors.ts';
import { endForOutputFailure, onOutputFailure, printError } from './output.ts';

const FAILED = 1;
const WRONG_USAGE = 2;

const wantsJson = process.argv.includes('--json');

/** The package's manifest lies two folders up, from src/cli/ and from dist/cli/. */
function version(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

interface CommandEntry {
  readonly description: string;
  /** Loads the command: what the others need is not loaded for it. */
  readonly load: (version: string) => Promise<Command>;
}

/** The commands in the order of the help. To add one: a file with its command, and a row here. */
const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  up: {
    description: 'serve what a configuration file says, in the foreground',
    load: async (version) => (await import('./up.ts')).upCommand(version),
  },
  show: {
    description: 'show what a running sluice does',
    load: async () => (await import('./show.ts')).showCommand(),
  },
  reload: {
    description: 'have a running sluice read its configuration file again',
    load: async () => (await import('./reload.ts')).reloadCommand(),
  },
  down: {
    description: 'end a running sluice',
    load: async () => (await import('./reload.ts')).downCommand(),
  },
  guest: {
    description: 'print how to attach a guest',
    load: async () => (await import('./guest.ts')).guestCommand(),
  },
  disk: {
    description: 'show or resize a disk of a running sluice, or switch its power',
    load: async () => (await import('./disk.ts')).diskCommand(),
  },
  vf: {
    description: 'make, set or remove virtual functions of a running sluice',
    load: async () => (await import('./vf.ts')).vfCommand(),
  },
  capture: {
    description: 'write the frames of a port as pcapng',
    load: async () => (await import('./capture.ts')).captureCommand(),
  },
  bench: {
    description: 'measure the methods',
    load: async (version) => (await import('./bench.ts')).benchCommand(version),
  },
  schema: {
    description: 'print the JSON schema of the configuration file',
    load: async () => (await import('./schema.ts')).schemaCommand(),
  },
};

/** All commands, of which only the one that `words` begin with is loaded whole. */
async function program(words: readonly string[]): Promise<Command> {
  const all = new Command('sluice')
    .description('a driver domain in user space: network cards and disks for virtual machines')
    .version(version())
    .showHelpAfterError('(sluice --help, or sluice COMMAND --help)');
  const wanted = words.find((word) => !word.startsWith('-') && word !== 'help');
  for (const [name, { description, load }] of Object.entries(COMMANDS)) {
    const command = name === wanted ? await load(version()) : new Command(name);
    all.addCommand(command.description(description));
  }
  forEachCommand(all, (command) => {
    command.exitOverride();
    // Told as JSON by whoever catches it.
    if (wantsJson) command.configureOutput({ writeErr: () => undefined });
  });
  return all;
}

function forEachCommand(command: Command, visit: (command: Command) => void): void {
  visit(command);
  for (const inner of command.commands) forEachCommand(inner, visit);
}

onOutputFailure((error) => endForOutputFailure(error, wantsJson));
// What standard error does not take can be told nowhere; the exit code still tells of a failure.
process.stderr.on('error', () => undefined);

try {
  await (await program(process.argv.slice(2))).parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed what there is to say, to people; help and version are no errors.
    process.exitCode = error.exitCode === 0 ? 0 : WRONG_USAGE;
    if (wantsJson && error.exitCode !== 0) {
      const message = error.message.replace(/^error: /, '');
      printError(new SluiceError('usage', message, { remedy: 'see sluice --help' }), true);
    }
  } else {
    printError(error, wantsJson);
    process.exitCode =
      error instanceof SluiceError && error.code === 'usage' ? WRONG_USAGE : FAILED;
  }
}
