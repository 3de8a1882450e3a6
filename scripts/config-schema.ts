/**
 * Writes the JSON schema of the configuration file to examples/sluice.schema.json, for editors.
 * With --check nothing is written: the exit code tells whether the committed file is up to date.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { configJsonSchema } from '../src/daemon/config-schema.ts';

const target = new URL('../examples/sluice.schema.json', import.meta.url);
const text = `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
const present = existsSync(target) ? readFileSync(target, 'utf8') : '';

if (!process.argv.includes('--check')) {
  writeFileSync(target, text);
} else if (present !== text) {
  console.error(
    'examples/sluice.schema.json is not the schema of the configuration: run scripts/run scripts/config-schema.ts',
  );
  process.exitCode = 1;
}
