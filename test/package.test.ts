/** What is published: the files of the package, and that it runs where it is installed. */
// suite: no-testbed
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import test, { after, before } from 'node:test';
import { build, rewriteModuleUrls } from '../scripts/build.ts';

const repository = resolve(import.meta.dirname, '..');
let place: string;
let files: string[];

interface Manifest {
  readonly version: string;
  readonly files: readonly string[];
}
const manifest = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as Manifest;

function run(command: string, args: string[], cwd: string, path = process.env['PATH']): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    env: { ...process.env, PATH: path },
    encoding: 'utf8',
  });
  if (error !== undefined) throw error;
  assert.equal(status, 0, `${command} ${args.join(' ')} failed:\n${stdout}${stderr}`);
  return stdout;
}

/** Packs a copy of the repository, so that its dist/ is left alone, and installs it in `place`. */
before(() => {
  place = mkdtempSync(join(tmpdir(), 'sluice-package-'));
  const copy = join(place, 'copy');
  mkdirSync(copy);
  build(repository, join(copy, 'dist'));
  for (const name of ['package.json', 'README.md', 'LICENSE', ...manifest.files]) {
    if (name === 'dist' || !existsSync(join(repository, name))) continue;
    mkdirSync(dirname(join(copy, name)), { recursive: true });
    cpSync(join(repository, name), join(copy, name), { recursive: true });
  }
  run('npm', ['pack', '--ignore-scripts', '--pack-destination', place], copy);
  const installed = join(place, 'node_modules/sluice');
  mkdirSync(installed, { recursive: true });
  const archive = join(place, `sluice-${manifest.version}.tgz`);
  run('tar', ['-xzf', archive, '--strip-components=1'], installed);
  files = run('tar', ['-tzf', archive], place).trim().split('\n');

  // What npm would install with it: the same files, from here instead of the registry.
  const lock = JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean }>;
  };
  for (const [path, { dev }] of Object.entries(lock.packages)) {
    const target = join(repository, path);
    const isTop = path.lastIndexOf('node_modules/') === 0;
    if (!isTop || dev === true || !existsSync(target)) continue;
    mkdirSync(dirname(join(place, path)), { recursive: true });
    symlinkSync(target, join(place, path));
  }
});
after(() => {
  rmSync(place, { recursive: true });
});

test('the package holds the launcher, the built modules and the licence', () => {
  for (const name of ['bin/sluice', 'package.json', 'README.md', 'LICENSE', 'CHANGELOG.md']) {
    assert.ok(files.includes(`package/${name}`), `${name} is missing`);
  }
  const readme = readFileSync(join(repository, 'README.md'), 'utf8');
  for (const [, target = ''] of readme.matchAll(/\]\(([^)#:]+)\)/g)) {
    const found = files.some((name) => name.startsWith(`package/${target}`));
    assert.ok(found, `the README leads to ${target}, which is missing`);
  }
  assert.ok(files.some((name) => name.startsWith('package/dist/') && name.endsWith('.js')));
});

test('the package holds no tests, and no TypeScript but the examples', () => {
  const wrong = files.filter(
    (name) => /\.test\./.test(name) || (name.endsWith('.ts') && !name.includes('/examples/')),
  );
  assert.deepEqual(wrong, []);
});

test('a worker is loaded by the name of its built module', () => {
  assert.equal(
    rewriteModuleUrls("new Worker(new URL('../engine/lane.ts', import.meta.url), {})"),
    "new Worker(new URL('../engine/lane.js', import.meta.url), {})",
  );
  const other = "new URL('./page.html', import.meta.url); new URL('./a.ts', base)";
  assert.equal(rewriteModuleUrls(other), other);
});

test('the installed package runs', () => {
  mkdirSync(join(place, 'bin'));
  symlinkSync('../node_modules/sluice/bin/sluice', join(place, 'bin/sluice'));
  const path = `${join(place, 'bin')}:/usr/bin:/bin`;
  assert.equal(run('sluice', ['--version'], '/', path).trim(), manifest.version);
});
