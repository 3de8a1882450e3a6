/** Which daemon a command is about: by its configuration file or its run directory. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import { SluiceError } from '../base/errors.ts';
import { ControlClient } from '../control/client.ts';
import { type Config, DEFAULT_CONFIG_FILE, loadConfig } from '../daemon/config.ts';
import { ConfigError } from '../daemon/config-problems.ts';

export interface ConfigOptions {
  readonly config: string;
}

export interface PlaceOptions extends ConfigOptions {
  readonly run?: string;
}

export interface JsonOption {
  readonly json?: true;
}

/** A command that talks to a running daemon. */
export function controlCommand(name: string): Command {
  return configCommand(name).option(
    '--run <directory>',
    "the daemon's run directory, instead of --config",
  );
}

/** A command that needs no daemon, only its configuration. */
export function configCommand(name: string): Command {
  return jsonCommand(name).option(
    '-c, --config <file>',
    'configuration file of the daemon',
    DEFAULT_CONFIG_FILE,
  );
}

export function jsonCommand(name: string): Command {
  return new Command(name).option('--json', 'print JSON');
}

export function clientFor({ config, run }: PlaceOptions): ControlClient {
  return new ControlClient(run === undefined ? runDirectoryOf(config) : resolve(run));
}

/** A daemon whose file has been broken since it started can still be reached. */
function runDirectoryOf(file: string): string {
  try {
    return loadConfig(file).run.path;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new SluiceError(
      'config',
      `${error.message}\n${file} cannot tell where its daemon runs before that is put right`,
      { cause: error, remedy: "or name the running daemon's directory: --run DIR" },
    );
  }
}

export function configFor({ config }: ConfigOptions): Config {
  return loadConfig(config);
}
