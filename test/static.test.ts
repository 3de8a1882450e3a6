/** What is checked without running Sluice: types, style, imports, scripts and dependencies. */
// suite: no-testbed cores=1 takes=12 timeout=300
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import test from 'node:test';
import { checkDependencies } from '../scripts/gate/dependencies.ts';
import { checkImports } from '../scripts/gate/imports.ts';

const root = resolve(import.meta.dirname, '..');

/** Runs a command at the root; its output is the message of a failure. */
function succeeds(command: string, ...args: string[]): void {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (error !== undefined) throw error;
  assert.equal(status, 0, `${command} ${args.join(' ')} failed:\n${stdout}${stderr}`);
}

/** The scripts of a shell in the repository, by their first line. */
function shellScripts(): { path: string; shell: string }[] {
  const places = ['bin', 'scripts', 'test', 'fuzz', 'bench', 'examples', 'docs', '.ci'];
  const paths = globSync(`{${places.join(',')}}/**`, { cwd: root });
  return paths.flatMap((path) => {
    if (path.endsWith('.ts') || !statSync(join(root, path)).isFile()) return [];
    const first = readFileSync(join(root, path), 'utf8').split('\n', 1)[0] ?? '';
    const shell = /^#!\s*\/(?:usr\/)?bin\/(?:env )?(sh|bash)\b/.exec(first)?.[1];
    return shell === undefined ? [] : [{ path, shell }];
  });
}

test('the types are right', () => {
  succeeds(join(root, 'node_modules/.bin/tsc'), '-p', '.');
});

test('lint and format', () => {
  const biome = join(root, 'node_modules/.bin/biome');
  succeeds(biome, 'ci', '--colors=off', '--error-on-warnings', '--max-diagnostics=50', '.');
});

test('each folder imports only from earlier ones', () => {
  const violations = checkImports(root).map(
    ({ file, line, message }) => `${file}:${line}: ${message}`,
  );
  assert.equal(violations.join('\n'), '');
});

test('shell scripts parse', () => {
  const scripts = shellScripts();
  for (const known of ['bin/sluice', 'scripts/run', '.ci/run']) {
    assert.ok(
      scripts.some(({ path }) => path === known),
      `${known} was not found`,
    );
  }
  for (const { path, shell } of scripts) succeeds(shell, '-n', path);
});

test('WebAssembly modules are those of their sources', () => {
  succeeds(process.execPath, 'scripts/wasm.ts', '--check');
});

test('dependencies are pinned, free, and run nothing when installed', () => {
  assert.equal(checkDependencies(root).join('\n'), '');
});
