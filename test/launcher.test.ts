/** bin/sluice: which Node.js it takes, and that it stands out of the way afterwards. */
// suite: no-testbed
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import test, { after, before } from 'node:test';

const repository = resolve(import.meta.dirname, '..');
const MAIN = `
  import ffi from 'node:ffi';
  const [command, value] = process.argv.slice(2);
  if (command === 'wait') {
    process.on('SIGTERM', () => process.exit(42));
    setInterval(() => {}, 1000);
    console.log('waiting');
  } else {
    console.log(JSON.stringify({ arguments: process.argv.slice(2), ffi: typeof ffi.dlopen,
      node: process.execPath, file: import.meta.filename }));
    if (command === 'exit') process.exitCode = Number(value);
  }`;

let place: string;
let launcher: string;

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function launch(args: string[], path: string, more: Record<string, string> = {}): Outcome {
  const env = { PATH: path, ...more };
  return spawnSync(launcher, args, { cwd: '/', env, encoding: 'utf8' });
}

/** A directory with the commands that the launcher needs, and with `node` as this script, if any. */
function commands(name: string, node?: string): string {
  const directory = join(place, name);
  mkdirSync(directory);
  for (const command of ['readlink', 'uname']) {
    const found = spawnSync('sh', ['-c', `command -v ${command}`], { encoding: 'utf8' }).stdout;
    symlinkSync(found.trim(), join(directory, command));
  }
  if (node !== undefined) {
    writeFileSync(join(directory, 'node'), `#!/bin/sh\n${node}\n`);
    chmodSync(join(directory, 'node'), 0o755);
  }
  return directory;
}

before(() => {
  place = mkdtempSync(join(tmpdir(), 'sluice-launcher-'));
  launcher = join(place, 'package/bin/sluice');
  mkdirSync(dirname(launcher), { recursive: true });
  mkdirSync(join(place, 'package/src/cli'), { recursive: true });
  copyFileSync(join(repository, 'bin/sluice'), launcher);
  writeFileSync(join(place, 'package/package.json'), '{"type":"module"}');
  writeFileSync(join(place, 'package/src/cli/main.ts'), MAIN);
  symlinkSync(join(repository, 'node_modules'), join(place, 'package/node_modules'));
});
after(() => {
  rmSync(place, { recursive: true });
});

test('arguments and the exit code pass through, and no warning appears', () => {
  const { status, stdout, stderr } = launch(['exit', '7', 'a b', ''], commands('plain'));
  assert.equal(stderr, '');
  assert.equal(status, 7);
  const seen = JSON.parse(stdout) as { arguments: string[]; ffi: string };
  assert.deepEqual(seen.arguments, ['exit', '7', 'a b', '']);
  assert.equal(seen.ffi, 'function');
});

test('a Node.js of the path that has node:ffi is taken', () => {
  const path = commands('good', `exec env GOOD=1 ${process.execPath} "$@"`);
  symlinkSync('/usr/bin/env', join(path, 'env'));
  const main = join(place, 'package/src/cli/main.ts');
  writeFileSync(main, "console.log(process.env['GOOD']);");
  try {
    assert.deepEqual(launch([], path).stdout, '1\n');
  } finally {
    writeFileSync(main, MAIN);
  }
});

test('an old Node.js, one without node:ffi and a broken one are passed over', () => {
  const old = 'if [ "$1" = --version ]; then echo v20.20.2; else echo old; fi';
  const bare = 'if [ "$1" = --version ]; then echo v26.10.0; else echo bare; exit 1; fi';
  for (const [name, script] of Object.entries({ old, bare, broken: 'exit 127' })) {
    const { status, stdout, stderr } = launch(['x'], commands(name, script));
    assert.equal(status, 0, stderr);
    assert.match(stdout, /"arguments":\["x"\]/, name);
  }
});

test('SLUICE_NODE is taken, or refused where it lacks node:ffi', () => {
  const path = commands('named');
  assert.equal(launch([], path, { SLUICE_NODE: process.execPath }).status, 0);
  const { status, stderr } = launch([], path, { SLUICE_NODE: '/bin/false' });
  assert.equal(status, 1);
  assert.match(stderr, /SLUICE_NODE=\/bin\/false is no Node.js with node:ffi/);
});

test('it works through symbolic links, relative ones too', () => {
  const path = commands('linked');
  mkdirSync(join(place, 'links'));
  symlinkSync('../package/bin/sluice', join(place, 'links/one'));
  symlinkSync('one', join(place, 'links/two'));
  const { status, stdout } = spawnSync('./links/two', ['x'], {
    cwd: place,
    env: { PATH: path },
    encoding: 'utf8',
  });
  assert.equal(status, 0);
  assert.match(stdout, /package\/src\/cli\/main\.ts/);
});

test('the package that a manager hoisted or laid beside it is found', () => {
  const path = commands('hoisted');
  for (const [name, home] of [
    ['hoisted', 'a/node_modules/sluice'],
    ['beside', 'b/.pnpm/sluice@1/node_modules/sluice'],
  ] as const) {
    const root = join(place, home);
    mkdirSync(join(root, 'bin'), { recursive: true });
    mkdirSync(join(root, 'dist/cli'), { recursive: true });
    copyFileSync(join(repository, 'bin/sluice'), join(root, 'bin/sluice'));
    writeFileSync(join(root, 'package.json'), '{"type":"module"}');
    writeFileSync(join(root, 'dist/cli/main.js'), "console.log('built')");
    const node = `node-linux-${process.arch}`;
    const options = { cwd: '/', env: { PATH: path }, encoding: 'utf8' } as const;
    const without = spawnSync(join(root, 'bin/sluice'), [], options);
    assert.equal(without.status, 1, name);
    assert.match(without.stderr, /no Node.js with node:ffi was found/);
    symlinkSync(join(repository, 'node_modules', node), join(root, '..', node));
    const found = spawnSync(join(root, 'bin/sluice'), [], options);
    assert.equal(found.stdout, 'built\n', name);
  }
});

test('a signal reaches Sluice itself', async () => {
  const child: ChildProcess = spawn(launcher, ['wait'], {
    env: { PATH: commands('signalled') },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  assert.ok(child.stdout);
  await once(child.stdout, 'data');
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [42, null]);
});
