/** `sluice schema`: the JSON schema of the configuration file. */
import type { Command } from 'commander';
import { configJsonSchema } from '../daemon/config-schema.ts';
import { printJson } from './output.ts';
import { jsonCommand } from './place.ts';

export function schemaCommand(): Command {
  return jsonCommand('schema').action(() => printJson(configJsonSchema()));
}
