/**
 * What a dependency must be: pinned to one version with a checksum, under a licence that agrees
 * with Apache-2.0, and nothing that runs code while it is installed.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** SPDX identifiers (https://spdx.org/licenses) of licences that ask for no more than a notice. */
const LICENCES: ReadonlySet<string> = new Set([
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'ISC',
  'MIT',
]);

const INSTALL_SCRIPTS = ['preinstall', 'install', 'postinstall'];

interface Manifest {
  readonly name?: string;
  readonly license?: string;
  readonly scripts?: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

interface LockedPackage {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly license?: string;
  readonly hasInstallScript?: boolean;
  readonly optional?: boolean;
}

/** Whether an SPDX expression leaves us a licence of the list. */
export function isFree(expression: string | undefined): boolean {
  if (expression === undefined) return false;
  return expression
    .replace(/[()]/g, '')
    .split(' OR ')
    .some((choice) => choice.split(' AND ').every((licence) => LICENCES.has(licence.trim())));
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

/** What is wrong with the dependencies of the repository at `root`, a line each. */
export function checkDependencies(root: string): string[] {
  const problems: string[] = [];
  const manifest = readJson<Manifest>(join(root, 'package.json'));
  for (const kind of ['dependencies', 'devDependencies', 'optionalDependencies'] as const) {
    for (const [name, version] of Object.entries(manifest[kind] ?? {})) {
      if (!/^\d+\.\d+\.\d+$/.test(version)) {
        problems.push(`package.json: ${name} ${version} is no exact version`);
      }
    }
  }
  const lock = readJson<{ packages: Record<string, LockedPackage> }>(
    join(root, 'package-lock.json'),
  );
  for (const [path, locked] of Object.entries(lock.packages)) {
    if (path === '') continue;
    const problem = (what: string): void => {
      problems.push(`package-lock.json: ${path}: ${what}`);
    };
    if (locked.integrity === undefined) problem('has no checksum');
    if (locked.resolved !== undefined) problem('names a registry; see .npmrc');
    if (locked.hasInstallScript === true) problem('runs a script when it is installed');

    // Packages for other machines are locked, but not installed.
    const installed = join(root, path, 'package.json');
    if (!existsSync(installed)) {
      if (locked.optional !== true) problem('is not installed');
      continue;
    }
    const { license, scripts = {} } = readJson<Manifest>(installed);
    if (!isFree(license)) problem(`its licence, ${license ?? 'none'}, is not in the list`);
    for (const script of INSTALL_SCRIPTS.filter((name) => name in scripts)) {
      problem(`runs its script '${script}' when it is installed`);
    }
    if (existsSync(join(root, path, 'binding.gyp'))) problem('is compiled when it is installed');
  }
  return problems;
}
