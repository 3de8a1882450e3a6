import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { checkDependencies, isFree } from './dependencies.ts';

interface Fixture {
  version?: string;
  locked?: Record<string, unknown>;
  manifest?: Record<string, unknown>;
  files?: Record<string, string>;
}

/** The problems of a repository with one dependency, `a`. */
function problemsOf({
  version = '1.0.0',
  locked = {},
  manifest = {},
  files = {},
}: Fixture): string {
  const root = mkdtempSync(join(tmpdir(), 'sluice-dependencies-'));
  try {
    mkdirSync(join(root, 'node_modules/a'), { recursive: true });
    const write = (path: string, value: unknown): void => {
      writeFileSync(join(root, path), JSON.stringify(value));
    };
    write('package.json', { dependencies: { a: version } });
    const entry = { version: '1.0.0', integrity: 'sha512-', ...locked };
    write('package-lock.json', { packages: { '': {}, 'node_modules/a': entry } });
    write('node_modules/a/package.json', { name: 'a', license: 'MIT', ...manifest });
    for (const [path, text] of Object.entries(files)) writeFileSync(join(root, path), text);
    return checkDependencies(root).join('\n');
  } finally {
    rmSync(root, { recursive: true });
  }
}

test('a pinned free package without scripts passes', () => {
  assert.equal(problemsOf({}), '');
  assert.equal(problemsOf({ manifest: { scripts: { test: 'true' } } }), '');
});

test('each fault of a package is found', () => {
  const faults: [Fixture, RegExp][] = [
    [{ version: '^1.0.0' }, /no exact version/],
    [{ locked: { integrity: undefined } }, /no checksum/],
    [{ locked: { resolved: 'https://example.org/a.tgz' } }, /names a registry/],
    [{ locked: { hasInstallScript: true } }, /runs a script/],
    [{ manifest: { scripts: { postinstall: 'true' } } }, /'postinstall'/],
    [{ manifest: { license: 'GPL-3.0-only' } }, /GPL-3.0-only, is not in the list/],
    [{ manifest: { license: undefined } }, /none, is not in the list/],
    [{ files: { 'node_modules/a/binding.gyp': '' } }, /is compiled/],
  ];
  for (const [fixture, expected] of faults) assert.match(problemsOf(fixture), expected);
});

test('a choice of licences is free if one is, a sum if all are', () => {
  assert.ok(isFree('(MIT OR GPL-3.0-only)'));
  assert.ok(isFree('MIT AND ISC'));
  assert.ok(!isFree('MIT AND GPL-3.0-only'));
  assert.ok(!isFree('UNLICENSED'));
});
