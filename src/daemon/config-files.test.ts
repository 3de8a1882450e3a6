import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { loadConfig, parseConfig } from './config.ts';
import { configJsonSchema } from './config-schema.ts';

const ROOT = join(import.meta.dirname, '../..');
const EXAMPLES = globSync('examples/*.yaml', { cwd: ROOT }).sort();

/** Every key that a configuration can have. */
function keysOf(schema: object): string[] {
  const inner = Object.values(schema).flatMap((value: unknown) =>
    typeof value === 'object' && value !== null ? keysOf(value) : [],
  );
  const { properties } = schema as { properties?: object };
  return [...Object.keys(properties ?? {}), ...inner];
}

describe('the examples are valid:', () => {
  test('there are some', () => assert.ok(EXAMPLES.length >= 3));
  for (const example of EXAMPLES) {
    test(example, () => {
      const config = loadConfig(join(ROOT, example));
      assert.ok(config.guests.length > 0);
    });
  }
});

test('the documentation has every key, and its example is valid', () => {
  const text = readFileSync(join(ROOT, 'docs/configuration.md'), 'utf8');
  const missing = keysOf(configJsonSchema()).filter((key) => !text.includes(`| \`${key}\` |`));
  assert.deepEqual(missing, []);
  const example = /```yaml\n(.*?)```/s.exec(text)?.[1];
  assert.ok(example);
  const [net] = parseConfig(example, 'example.yaml').guests[0]?.net ?? [];
  assert.ok(net?.method === 'paravirtual');
  assert.equal(net.vlan, 10);
});

test('the committed JSON schema is up to date', () => {
  const script = join(ROOT, 'scripts/config-schema.ts');
  const { status, stderr } = spawnSync(process.execPath, [script, '--check'], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
});

test('every key of the JSON schema has a description, for who edits the file', () => {
  const undescribed: string[] = [];
  const visit = (schema: object, path: string): void => {
    for (const [key, value] of Object.entries(schema)) {
      if (key === 'properties') {
        for (const [name, property] of Object.entries(value as Record<string, object>)) {
          if (!('description' in property)) undescribed.push(`${path}.${name}`);
        }
      }
      if (typeof value === 'object' && value !== null) visit(value, `${path}.${key}`);
    }
  };
  visit(configJsonSchema(), '');
  assert.deepEqual(undescribed, []);
});

test('the configuration of the README is valid', () => {
  const text = readFileSync(join(ROOT, 'README.md'), 'utf8');
  for (const [, yaml = ''] of text.matchAll(/```yaml\n(.*?)```/gs)) {
    assert.ok(parse(yaml));
    parseConfig(yaml, 'README.md');
  }
});
