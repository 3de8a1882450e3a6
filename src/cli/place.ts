/** Which daemon a command is about: by its configuration file or its run directory. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import { ControlClient } from '../control/client.ts';
import { type Config, DEFAULT_CONFIG_FILE, loadConfig } from '../daemon/config.ts';

export interface PlaceOptions {
  readonly config: string;
  readonly run?: string;
}

export interface JsonOption {
  readonly json?: true;
}

/** A command that talks to a running daemon. */
export function controlCommand(name: string): Command {
  return jsonCommand(name)
    .option('-c, --config <file>', 'configuration file of the daemon', DEFAULT_CONFIG_FILE)
    .option('--run <directory>', "the daemon's run directory, instead of --config");
}

export function jsonCommand(name: string): Command {
  return new Command(name).option('--json', 'print JSON');
}

export function clientFor({ config, run }: PlaceOptions): ControlClient {
  return new ControlClient(run === undefined ? loadConfig(config).run.path : resolve(run));
}

export function configFor({ config }: PlaceOptions): Config {
  return loadConfig(config);
}
